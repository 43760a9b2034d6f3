"""Completions as a patient writer of the tiny world would put them: the solver's, in one language."""

from collections.abc import Iterator
from functools import partial
from random import Random
from typing import Final

from r1pipe.tasks.base import Item
from r1pipe.tasks.countdown import Countdown
from r1pipe.world.solver import guesses, write_answer, write_thinking

MOST_ATTEMPTS: Final = 10
"""Where a search ends without a result; the problem is then left out."""
REFLECTIONS: Final = 0.3
"""Share of the changes of mind that are put into words."""


def demonstrations(
    seed: int, *, temperature: float, language: str, summary: bool
) -> Iterator[tuple[Item, str]]:
    """Countdown problems of the split "seen" in the order of a seed, each with the solver's completion.

    The completion follows an opened `<think>`. `temperature` is that of the first guess: high is nearly
    blind. A problem that is not solved within `MOST_ATTEMPTS` attempts is passed over, so there are fewer
    than a pass.
    """
    for i, item in enumerate(Countdown().items("seen", None, seed)):
        rng = Random(f"{seed}:demonstration:{i}")
        target = item.gold["target"]
        tried = guesses(tuple(item.gold["numbers"]), target, MOST_ATTEMPTS, temperature, rng)
        if tried[-1].value == target:
            thinking = write_thinking(
                tried, target, language=lambda: language, reflects=partial(_chance, rng)
            )
            answer = write_answer(tried[-1], summary=language if summary else None)
            yield item, f"{thinking} </think> {answer}"


def _chance(rng: Random) -> bool:
    return rng.random() < REFLECTIONS
