"""What a reward is, and how the rewards of a recipe are asked about a batch of judged completions."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from r1pipe.errors import RunFailed
from r1pipe.prompting import Parsed
from r1pipe.tasks.base import MISTAKES, Item
from r1pipe.verify.verdict import Completion, Verdict

Rewards = Mapping[str, float | None]
"""What one completion earns, by the name of the reward; None where a reward has nothing to say."""


@dataclass(frozen=True, slots=True)
class RewardInput:
    """All that a reward may look at."""

    item: Item
    completion: Completion
    parsed: Parsed
    verdict: Verdict


Reward = Callable[[Sequence[RewardInput]], list[float | None]]
"""One number for each completion of a batch, in order, or None where it has nothing to say."""


def each(rule: Callable[[RewardInput], float | None]) -> Reward:
    """A reward that looks at one completion at a time."""
    return lambda batch: [rule(given) for given in batch]


def give(rewards: Mapping[str, Reward], batch: Sequence[RewardInput]) -> list[Rewards]:
    """What each completion of a batch earns; every reward is asked once.

    No reward is asked about an undecided verdict: all are None there, so that the completion is left out of
    its group. A judge that ran out of time is never a reward of zero.

    Raises:
        RunFailed: a reward has a mistake in it; it is named with the item and the completion, and no number
            is made up.
    """
    decided = [given for given in batch if given.verdict.decided]
    answers = {name: iter(_asked(name, reward, decided)) for name, reward in rewards.items()}
    return [
        {name: next(answer) if given.verdict.decided else None for name, answer in answers.items()}
        for given in batch
    ]


def total(rewards: Rewards, weights: Mapping[str, float]) -> float | None:
    """The weighted sum of the rewards that were given; None when none was."""
    given = [weights[name] * reward for name, reward in rewards.items() if reward is not None]
    return sum(given) if given else None


def _asked(name: str, reward: Reward, batch: Sequence[RewardInput]) -> list[float | None]:
    if not batch:
        return []
    try:
        values = [None if value is None else float(value) for value in reward(batch)]
    except MISTAKES as error:
        what = f"failed with {type(error).__name__}: {error}"
        raise _broken(name, _culprit(reward, batch), what) from error
    if len(values) != len(batch):
        raise _broken(name, batch[0], f"gave {len(values)} values for {len(batch)} completions")
    for given, value in zip(batch, values, strict=True):
        if value is not None and not math.isfinite(value):
            raise _broken(name, given, f"gave {value}")
    return values


def _culprit(reward: Reward, batch: Sequence[RewardInput]) -> RewardInput:
    """The first completion that a reward cannot be asked about alone; the batch's first if there is none."""
    for given in batch:
        try:
            reward([given])
        except MISTAKES:
            return given
    return batch[0]


def _broken(name: str, given: RewardInput, what: str) -> RunFailed:
    return RunFailed(
        f"The reward {name!r} {what}. The item was {given.item.id!r}, the completion "
        f"{given.completion.text!r}. No reward was made up for it; the last checkpoint is kept. Mend the "
        "reward, or leave it out of `rewards`."
    )
