"""What happens inside the thinking: attempts, verdicts, changes of mind.

The tiny world's traces follow a grammar, so every part of them is counted and checked by rule:

    trace   = { [wait] attempt }
    attempt = step { ["left" number { number } "to" target] ";" step } [verdict]
    step    = number sign number "=" number

with the words of either language for `wait` and the verdicts. What a policy makes of it under RL may not:
words out of place are stepped over and leave the trace marked as irregular. Other text is searched for the
words of reflection that the literature counts, and no more is claimed about it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from r1pipe.measure.language import consistency, in_tiny_world
from r1pipe.world.words import LANGUAGES, Role

REFLECTIONS: Final = (
    # Oat (understand-r1-zero), without the spellings that a stem here covers
    "recheck", "rethink", "reassess", "re-?evaluat", "reevaluation", "re-?examin", "reconsider", "reanaly",
    "double-?check", "check again", "think again", "verify again", "go over the steps",
    # SimpleRL-Zoo; its "however" is left out, as it turns a sentence more often than a mind
    "try again", r"wait\b", "alternatively", "retry",
)  # fmt: skip
"""Openings of words that tell of a change of mind, as regular expressions."""
HAN_REFLECTIONS: Final = ("等等", "等一下", "不对", "重新", "再检查", "再想")
_REFLECTION: Final = re.compile(rf"\b(?:{'|'.join(REFLECTIONS)})|{'|'.join(HAN_REFLECTIONS)}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ArithmeticStep:
    """`left sign right = result`, as it was written."""

    left: int
    sign: str
    right: int
    result: int

    @property
    def holds(self) -> bool:
        """Whether it is true, a division being exact."""
        match self.sign:
            case "+":
                return self.left + self.right == self.result
            case "-":
                return self.left - self.right == self.result
            case "*":
                return self.left * self.right == self.result
            case _:
                return self.right != 0 and self.right * self.result == self.left

    @property
    def key(self) -> tuple[object, ...]:
        """The same for `4 * 6` and `6 * 4`, whatever result was written."""
        operands = (self.left, self.right)
        return (self.sign, *(sorted(operands) if self.sign in "+*" else operands))


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try: the steps up to a verdict, or up to where the next try begins."""

    steps: tuple[ArithmeticStep, ...]
    verdict: bool | None
    """True for yes, False for no, None where none was given."""

    @property
    def value(self) -> int:
        """What the try came to."""
        return self.steps[-1].result

    @property
    def key(self) -> tuple[object, ...]:
        """The same for two tries that compute the same things in the same order."""
        return tuple(step.key for step in self.steps)


@dataclass(frozen=True, slots=True)
class Trace:
    """A thinking as its attempts."""

    attempts: tuple[Attempt, ...]
    reflections: int
    """Words of reflection."""
    regular: bool
    """Whether no word of it was out of place."""


@dataclass(frozen=True, slots=True)
class TraceMeasures:
    """Counts over one thinking. What cannot be counted in a text is None, or a count out of zero."""

    reflection: bool
    """A word of reflection, or another attempt after a failed one."""
    language_consistency: float | None
    """Share of the words that are in the commonest language; None without words."""
    attempts: int | None = None
    """None for text outside the trace grammar, as all that follows is zero there."""
    repeated_attempts: int = 0
    """Attempts that compute what an earlier one had computed."""
    steps: int = 0
    valid_steps: int = 0
    """Steps that are true."""
    verdicts: int = 0
    """Verdicts that could be checked, the target being known."""
    valid_verdicts: int = 0
    """Of those, the ones that say yes exactly where the attempt came to the target."""
    regular: bool = False


def measure(thinking: str, target: int | None = None) -> TraceMeasures:
    """Count what happens in a thinking; given the problem's `target`, check its verdicts. Never raises."""
    spoken = consistency(thinking)
    if not in_tiny_world(thinking.split()):
        return TraceMeasures(reflects(thinking), spoken)
    trace = read_trace(thinking)
    attempts = trace.attempts
    steps = [step for attempt in attempts for step in attempt.steps]
    judged = [attempt for attempt in attempts if attempt.verdict is not None and target is not None]
    return TraceMeasures(
        reflection=trace.reflections > 0 or any(attempt.verdict is False for attempt in attempts[:-1]),
        language_consistency=spoken,
        attempts=len(attempts),
        repeated_attempts=len(attempts) - len({attempt.key for attempt in attempts}),
        steps=len(steps),
        valid_steps=sum(step.holds for step in steps),
        verdicts=len(judged),
        valid_verdicts=sum(attempt.verdict == (attempt.value == target) for attempt in judged),
        regular=trace.regular,
    )


def reflects(text: str) -> bool:
    """Whether free text holds a word of reflection."""
    return _REFLECTION.search(text) is not None


def read_trace(thinking: str) -> Trace:
    """Read a thinking by the grammar, stepping over what it does not cover. Never raises.

    >>> trace = read_trace("5 + 4 = 9 left 6 to 34 ; 9 + 6 = 15 no wait 6 * 4 = 24")
    >>> [attempt.value for attempt in trace.attempts]
    [15, 24]
    """
    tokens = thinking.split()
    reader = _Reader(tokens)
    while reader.position < len(tokens):
        reader.read_one()
    reader.finish(None)
    return Trace(tuple(reader.attempts), reader.reflections, reader.regular)


_AIM: Final = "left … to …"  # tokens that are read as one element


class _Reader:
    """Collects attempts from tokens, one element of the grammar at a time."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = tokens
        self.position = 0
        self.attempts: list[Attempt] = []
        self.reflections = 0
        self.regular = True
        self._steps: list[ArithmeticStep] = []
        self._before: ArithmeticStep | str = ""  # the last element

    def read_one(self) -> None:
        """Take the next element, or step over one word out of place."""
        token = self.tokens[self.position]
        step = _step_at(self.tokens, self.position)
        role = _roles().get(token)
        aim = _aim_at(self.tokens, self.position) if isinstance(self._before, ArithmeticStep) else 0
        before, self._before = self._before, step or role or (_AIM if aim else token)
        self.position += 5 if step else aim or 1
        if step is not None:
            if before != ";":
                self.finish(None)
            self._steps.append(step)
        elif role == "wait":
            self.finish(None)
            self.reflections += 1
            self.regular &= before not in ("wait", ";")
        elif role in ("yes", "no") and isinstance(before, ArithmeticStep):
            self.finish(role == "yes")
        else:
            self.regular &= aim > 0 or (
                token == ";" and (isinstance(before, ArithmeticStep) or before == _AIM)
            )

    def finish(self, verdict: bool | None) -> None:
        """Close the attempt that is open, if one is."""
        if self._steps:
            self.attempts.append(Attempt(tuple(self._steps), verdict))
            self._steps = []


def _step_at(tokens: Sequence[str], i: int) -> ArithmeticStep | None:
    if i + 5 > len(tokens) or tokens[i + 3] != "=" or tokens[i + 1] not in ("+", "-", "*", "/"):
        return None
    left, right, result = tokens[i], tokens[i + 2], tokens[i + 4]
    if not (left.isdecimal() and right.isdecimal() and result.isdecimal()):
        return None
    return ArithmeticStep(int(left), tokens[i + 1], int(right), int(result))


def _aim_at(tokens: Sequence[str], i: int) -> int:
    """How many tokens the aim is long that begins here, `left 6 to 34`; 0 where none does."""
    if tokens[i] != "left":
        return 0
    to = i + 1
    while to < len(tokens) and tokens[to].isdecimal():
        to += 1
    whole = to > i + 1 and to + 1 < len(tokens) and tokens[to] == "to" and tokens[to + 1].isdecimal()
    return to + 2 - i if whole else 0


@cache
def _roles() -> dict[str, Role]:
    return {word: role for words in LANGUAGES.values() for role, word in words.items()}
