"""What is judged and what a judge may say of it."""

from dataclasses import dataclass
from enum import StrEnum


class Mark(StrEnum):
    """The things a verdict can be."""

    PASS = "pass"
    """The answer is right."""
    FAIL = "fail"
    """There is no answer, or it is wrong. This is the completion's fault."""
    UNDECIDED = "undecided"
    """Nobody knows: the judge ran out of time, or the problem's own answer is unreadable. Never a zero."""
    UNJUDGED = "unjudged"
    """There is an answer, and nothing here says whether it is good: an open question without a rule. It
    counts in no rate; a preference model may still have its say."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's word on one completion."""

    mark: Mark
    reason: str = ""
    """Why it did not pass, in a few words that can be counted; empty for a pass."""
    extracted: str | None = None
    """The answer that was judged, in the form that two equal answers share where the judge knows one."""

    @property
    def passed(self) -> bool:
        """Whether the answer is right."""
        return self.mark is Mark.PASS

    @property
    def decided(self) -> bool:
        """Whether its judge came to a word, or there is none to wait for; else no reward is given."""
        return self.mark is not Mark.UNDECIDED

    @property
    def judged(self) -> bool:
        """Whether it is a pass or a fail, and so counts in a score."""
        return self.mark in (Mark.PASS, Mark.FAIL)


@dataclass(frozen=True, slots=True)
class Completion:
    """What a policy wrote after a prompt."""

    text: str
    """The decoded text, without the prompt and without the end-of-sequence token."""
    opened: bool
    """Whether the prompt ended in an opened `<think>`, so that the text starts inside the thinking."""
    truncated: bool = False
    """Whether the token limit cut it off before an end-of-sequence token."""
    tokens: int = 0
    """How many tokens were generated, the end-of-sequence token included."""


def passed(extracted: str | None = None) -> Verdict:
    """A verdict of pass."""
    return Verdict(Mark.PASS, extracted=extracted)


def failed(reason: str, extracted: str | None = None) -> Verdict:
    """A verdict of fail, with its reason."""
    return Verdict(Mark.FAIL, reason, extracted)


def undecided(reason: str, extracted: str | None = None) -> Verdict:
    """A verdict of undecided, with its reason."""
    return Verdict(Mark.UNDECIDED, reason, extracted)


def unjudged(reason: str) -> Verdict:
    """No verdict on a whole answer, and why there is none."""
    return Verdict(Mark.UNJUDGED, reason)
