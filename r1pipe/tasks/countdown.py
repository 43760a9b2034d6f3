"""Countdown: reach the target with + - * / and every number exactly once.

The space is closed on purpose. A problem is three numbers from 1 to 12 and a target from 1 to 99 that some
chain `a op b = c ; c op d = target` reaches with every value whole and between 0 and 99: 4,717 problems, one
in five of them held out by a hash. Four numbers are a harder tier that is held out whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement
from random import Random
from typing import ClassVar, Final, Literal

from r1pipe.errors import UsageError
from r1pipe.tasks.base import Item, Task, TruncatedRule, check_split, held_out, in_split, take
from r1pipe.verify.expression import ExpressionError, evaluate
from r1pipe.verify.verdict import Verdict, failed, passed
from r1pipe.world.arithmetic import apply

Wording = Literal["tokens", "sentence"]

LARGEST_GIVEN: Final = 12
"""Given numbers are 1 to this."""
SMALLEST_TARGET: Final = {3: 1, 4: 10}
"""By how many numbers there are; the largest target is the largest number of the tiny world."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Numbers in ascending order, and what they are to make."""

    numbers: tuple[int, ...]
    target: int

    @property
    def id(self) -> str:
        """The problem's name: `countdown-3:4-5-6:34`."""
        return f"countdown-{len(self.numbers)}:{'-'.join(map(str, self.numbers))}:{self.target}"

    def question(self, rng: Random) -> str:
        """The question in the tiny world's words, the numbers in an order drawn from `rng`."""
        return ask(rng.sample(self.numbers, len(self.numbers)), self.target, "tokens")


@cache
def problems(numbers: int = 3, split: str = "all") -> tuple[Problem, ...]:
    """Every solvable problem of a split, in order: 4,717 over three numbers and 50,885 over four in all.

    Raises:
        UsageError: neither three nor four numbers.
    """
    if numbers not in SMALLEST_TARGET:
        raise UsageError(f"Countdown is played with 3 or 4 numbers, not {numbers}.")
    return tuple(
        Problem(given, target)
        for given in combinations_with_replacement(range(1, LARGEST_GIVEN + 1), numbers)
        for target in sorted(reachable(given))
        if target >= SMALLEST_TARGET[numbers] and in_split(is_held_out(given, target), split)
    )


@cache
def reachable(numbers: tuple[int, ...]) -> frozenset[int]:
    """Where the chains over ascending `numbers` can end, every value on the way whole and 0 to 99."""
    if len(numbers) == 1:
        return frozenset(numbers)
    return frozenset(
        value
        for i, last in enumerate(numbers)
        for before in reachable(numbers[:i] + numbers[i + 1 :])
        for left, right in ((before, last), (last, before))
        for sign in "+-*/"
        if (value := apply(left, sign, right)) is not None
    )


def is_held_out(numbers: Sequence[int], target: int) -> bool:
    """Whether a problem may be in no corpus, training step or trace. All over four numbers are."""
    if len(numbers) != 3:
        return True
    return held_out(f"{' '.join(map(str, sorted(numbers)))} > {target}")


def ask(numbers: Sequence[int], target: int, wording: Wording) -> str:
    """The question for numbers in this order."""
    if wording == "tokens":
        return f"nums {' '.join(map(str, numbers))} to {target}"
    return (
        f"Using each of the numbers {', '.join(map(str, numbers))} exactly once, write an expression with "
        f"+ - * / and parentheses that equals {target}. Answer with the expression alone, no equals sign."
    )


@dataclass(frozen=True)
class Countdown(Task):
    """The task; `gold` is `{"numbers": [5, 6, 4], "target": 34}`, in the order of the question."""

    name: ClassVar[str] = "countdown"
    numbers: int = 3
    wording: Wording = "tokens"
    """`tokens`: the tiny world's `nums 5 6 4 to 34`. `sentence`: English, for a real model."""
    truncated: TruncatedRule = "fail"

    def items(self, split: str, count: int | None, seed: int) -> list[Item]:
        """Problems in the order of the seed, none twice before all have come once.

        Raises:
            UsageError: no such split, or nothing in it: four numbers are never "seen".
        """
        check_split(self, split)
        pool = problems(self.numbers, split)
        if not pool:
            raise UsageError(f"Countdown with {self.numbers} numbers is held out whole; set split: held-out.")
        return [self._item(problem, rng) for problem, rng in take(pool, count, seed)]

    def _item(self, problem: Problem, rng: Random) -> Item:
        given = rng.sample(problem.numbers, len(problem.numbers))
        question = ask(given, problem.target, self.wording)
        return Item(problem.id, question, {"numbers": given, "target": problem.target})

    def judge_answer(self, item: Item, answer: str) -> Verdict:
        """Pass when the answer is arithmetic over the item's numbers, each once, that equals the target."""
        try:
            expression = evaluate(answer)
        except ExpressionError as error:
            return failed(str(error), answer[:200])
        if sorted(expression.numbers) != sorted(item.gold["numbers"]):
            return failed("other numbers", expression.text)
        if expression.value != item.gold["target"]:
            return failed("misses the target", expression.text)
        return passed(expression.text)
