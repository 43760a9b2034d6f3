"""Every way to spend a problem's numbers, and the traces that try them one after another.

A trace of the tiny world tries a way, holds the result against the target and gives a verdict:

    5 + 4 = 9 left 6 to 34 ; 9 + 6 = 15 no wait 5 * 6 = 30 left 4 to 34 ; 30 + 4 = 34 yes

What is left to be spent and the target are named again before the last step: a small model chooses a step,
and tells a hit from a miss, by numbers that stand close by, and badly by those it read a hundred tokens ago.

Here stand the ways (`attempts`), the order in which an imperfect solver tries them (`guesses`), and how a
trace and its answer are written down (`write_thinking`, `write_answer`).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from random import Random

from r1pipe.world.arithmetic import apply
from r1pipe.world.words import LANGUAGES


@dataclass(frozen=True, slots=True)
class SolverAttempt:
    """One way to spend all the numbers."""

    steps: tuple[str, ...]
    """As a trace writes them: `4 + 5 = 9`, `9 * 6 = 54`."""
    left: tuple[tuple[int, ...], ...]
    """The numbers still to be spent after each step, ascending."""
    value: int
    """What comes out: 54."""
    expression: str
    """The same as an answer: `( 4 + 5 ) * 6`."""

    def line(self, target: int) -> str:
        """The attempt as a trace writes it: `4 + 5 = 9 left 6 to 34 ; 9 * 6 = 54`."""
        parts = [
            f"{step} left {' '.join(map(str, left))} to {target} ;"
            for step, left in zip(self.steps[:-1], self.left, strict=False)
        ]
        return " ".join([*parts, self.steps[-1]])


@lru_cache(maxsize=1024)
def attempts(numbers: tuple[int, ...]) -> tuple[SolverAttempt, ...]:
    """Every chain over all of `numbers` (at least two), each number once; no chain twice.

    A chain carries a running value: a step over two numbers, then one more number a step. Of two chains that
    differ by the order of a sum or a product only one is kept: running value first, smaller number first in
    the first step.
    """
    found: dict[tuple[str, ...], SolverAttempt] = {}
    for first, *rest in permutations(sorted(numbers)):
        for attempt in _chains(SolverAttempt((), (), first, str(first)), rest):
            found.setdefault(attempt.steps, attempt)
    return tuple(found.values())


def _chains(chain: SolverAttempt, rest: Sequence[int]) -> Iterator[SolverAttempt]:
    """All ways to go on from `chain` with the numbers `rest`, in this order."""
    if not rest:
        yield chain
        return
    number, operand = rest[0], f"( {chain.expression} )" if chain.steps else chain.expression
    ways = [(chain.value, sign, number, f"{operand} {sign} {number}") for sign in "+-*/"]
    if chain.steps:
        ways += [(number, sign, chain.value, f"{number} {sign} {operand}") for sign in "-/"]
    else:
        ways = [way for way in ways if way[1] in "-/" or chain.value <= number]
    for left, sign, right, expression in ways:
        value = apply(left, sign, right)
        if value is not None:
            steps = (*chain.steps, f"{left} {sign} {right} = {value}")
            left_over = (*chain.left, tuple(sorted(rest[1:])))
            yield from _chains(SolverAttempt(steps, left_over, value, expression), rest[1:])


def guesses(
    numbers: tuple[int, ...], target: int, count: int, temperature: float, rng: Random
) -> list[SolverAttempt]:
    """Up to `count` different attempts in the order an imperfect solver tries them, none after one that hits.

    An attempt is led to its end as well as it can be: of those that differ in the last step alone only the
    nearest to the target is made. The first is drawn with probability proportional to
    exp(-|value - target| / temperature), so that a low temperature guesses well. Those after it follow in
    turn, as `nearest` lists them and round to where it began: an order, which a small model keeps, is what it
    has for a memory of what it tried.
    """
    ways = nearest(tuple(sorted(numbers)), target)
    distances = [abs(way.value - target) for way in ways]
    # From the least of them, since far below it every weight would be 0.
    weights = [math.exp((min(distances) - distance) / temperature) for distance in distances]
    begin = rng.choices(range(len(ways)), weights)[0]
    drawn = (ways[begin:] + ways[:begin])[:count]
    hit = next((i for i, attempt in enumerate(drawn) if attempt.value == target), len(drawn))
    return drawn[: hit + 1]


def nearest(numbers: tuple[int, ...], target: int) -> list[SolverAttempt]:
    """Of the attempts that differ in the last step alone, the one that comes nearest; the first of equals."""
    best: dict[tuple[str, ...], SolverAttempt] = {}
    for way in attempts(numbers):
        before = best.setdefault(way.steps[:-1], way)
        if abs(way.value - target) < abs(before.value - target):
            best[way.steps[:-1]] = way
    return list(best.values())


def write_thinking(
    tried: Sequence[SolverAttempt], target: int, language: Callable[[], str], reflects: Callable[[], bool]
) -> str:
    """The trace of these attempts.

    `language` names the language of each word as it is written; `reflects` says whether a change of mind is
    put into words before the next attempt.
    """
    parts: list[str] = []
    for i, attempt in enumerate(tried):
        if i > 0 and reflects():
            parts.append(LANGUAGES[language()]["wait"])
        verdict = LANGUAGES[language()]["yes" if attempt.value == target else "no"]
        parts += [attempt.line(target), verdict]
    return " ".join(parts)


def write_answer(last: SolverAttempt, *, summary: str | None = None) -> str:
    """The answer part of a completion, after a one-line summary in the language `summary` if one is named."""
    answer = f"<answer> {last.expression} </answer>"
    if summary is None:
        return answer
    return f"{LANGUAGES[summary]['so']} {last.expression} = {last.value} {answer}"
