"""The named rewards that a recipe weighs (DeepSeek-R1 paper, sections 2.2.2 and 2.3.2).

A reward is a number from 0 to 1, or None where it has nothing to say. A verdict that is undecided makes every
reward None, so that the completion is left out of its group: a judge that ran out of time is never a reward
of zero.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, Literal, get_args

from r1pipe.errors import UsageError
from r1pipe.measure.language import LANGUAGE_NAMES, consistency
from r1pipe.prompting import Parsed
from r1pipe.tasks.base import Item
from r1pipe.verify.verdict import Completion, Verdict

RewardName = Literal["accuracy", "format", "language"]
REWARDS: Final[tuple[RewardName, ...]] = get_args(RewardName)
LanguageWhen = Literal["correct", "always"]


@dataclass(frozen=True, slots=True)
class RewardInput:
    """All that a reward may look at."""

    item: Item
    completion: Completion
    parsed: Parsed
    verdict: Verdict


Reward = Callable[[RewardInput], float | None]


def accuracy(given: RewardInput) -> float:
    """1 when the answer is right."""
    return float(given.verdict.passed)


def form(given: RewardInput) -> float:
    """The reward `format`: 1 when the completion ended by itself in the form that its question asks for.

    A question to reason about wants `<think> … </think> [summary] <answer> … </answer>` and nothing after;
    any other wants text without tags.
    """
    return float(given.parsed.fits(given.item.reasoning) and not given.completion.truncated)


def language_of(language: str, when: LanguageWhen) -> Reward:
    """The reward `language`: the share of the thinking's words that are in `language`; without any words, 0.

    With `correct` a wrong answer earns 0, so that nothing is to be had by being fluent and wrong. A question
    that needs no thinking has no such reward: None.
    """

    def reward(given: RewardInput) -> float | None:
        if not given.item.reasoning:
            return None
        if when == "correct" and not given.verdict.passed:
            return 0.0
        return consistency(given.parsed.thinking or "", language) or 0.0

    return reward


def make_rewards(
    names: Iterable[str], *, language: str = "en", language_when: LanguageWhen = "correct"
) -> dict[str, Reward]:
    """The rewards of these names, each None on an undecided verdict.

    Raises:
        UsageError: an unknown name or language.
    """
    if language not in LANGUAGE_NAMES:
        raise UsageError(f"Unknown language {language!r}; there are {', '.join(LANGUAGE_NAMES)}.")
    known: dict[str, Reward] = {
        "accuracy": accuracy,
        "format": form,
        "language": language_of(language, language_when),
    }
    return {name: _decided_only(known.get(name) or _unknown(name)) for name in names}


def total(rewards: Mapping[str, float | None], weights: Mapping[str, float]) -> float | None:
    """The weighted sum of the rewards that were given; None when none was."""
    given = [weights[name] * reward for name, reward in rewards.items() if reward is not None]
    return sum(given) if given else None


def _decided_only(reward: Reward) -> Reward:
    return lambda given: reward(given) if given.verdict.decided else None


def _unknown(name: str) -> Reward:
    nearest = get_close_matches(name, REWARDS, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
    raise UsageError(f"Unknown reward {name!r}; there are {', '.join(REWARDS)}{hint}")
