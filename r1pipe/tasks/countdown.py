"""Countdown: reach the target with + - * / and every number exactly once.

The tiny world's space is closed on purpose. A problem is three numbers from 1 to 12 and a target from 1 to 99
that some chain `a op b = c ; c op d = target` reaches with every value whole and between 0 and 99: 4,717
problems, one in five of them held out by a hash. Four such numbers are a harder tier that is held out whole.
More numbers or larger ones are drawn, not listed, and one problem in five is held out there too.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement
from random import Random
from typing import Any, ClassVar, Final, Literal

from pydantic import Field, model_validator

from r1pipe.errors import UsageError
from r1pipe.tasks.base import (
    Item,
    Split,
    Task,
    TruncatedRule,
    check_split,
    distinct,
    held_out,
    in_split,
    take,
)
from r1pipe.tasks.judges import Plain
from r1pipe.tasks.spec import TaskSpec
from r1pipe.verify.expression import MAX_DIGITS, ExpressionError, evaluate
from r1pipe.verify.verdict import Verdict, failed, passed
from r1pipe.world.arithmetic import apply

Wording = Literal["tokens", "sentence"]

LARGEST_GIVEN: Final = 12
"""Given numbers are 1 to this."""
LARGEST_TARGET: Final = 99
MOST_NUMBERS: Final = 6
ONE_PASS: Final = 1000
"""Drawn problems given when no count is asked for."""
SMALLEST_TARGET: Final = {3: 1, 4: 10}
"""By how many numbers there are; the largest target is the largest number of the tiny world."""


@dataclass(frozen=True, slots=True)
class CountdownProblem:
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
def problems(numbers: int = 3, split: str = "all") -> tuple[CountdownProblem, ...]:
    """Every solvable problem of a split, in order: 4,717 over three numbers and 50,885 over four in all.

    Raises:
        UsageError: neither three nor four numbers.
    """
    if numbers not in SMALLEST_TARGET:
        raise UsageError(f"Countdown is played with 3 or 4 numbers, not {numbers}.")
    return tuple(
        CountdownProblem(given, target)
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
    """Whether a problem may be in no corpus, training step or trace.

    All over four numbers of the closed space are, so that no other tier trains on them.
    """
    small = max(numbers) <= LARGEST_GIVEN and target <= LARGEST_TARGET
    if len(numbers) == 4 and small:
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
    rewords: ClassVar[bool] = True
    numbers: int = 3
    wording: Wording = "tokens"
    """`tokens`: the tiny world's `nums 5 6 4 to 34`. `sentence`: English, for a real model."""
    truncated: TruncatedRule = "fail"
    largest: int = LARGEST_GIVEN
    largest_target: int = LARGEST_TARGET

    def items(self, split: str, count: int | None, seed: int) -> list[Item]:
        """Problems in the order of the seed, none twice before all have come once.

        Raises:
            UsageError: no such split, or nothing in it: four numbers of the closed space are never "seen".
        """
        check_split(self, split)
        if not is_closed(self.numbers, self.largest, self.largest_target):
            return [self._item(*drawn) for drawn in self._drawn(split, count or ONE_PASS, seed)]
        pool = problems(self.numbers, split)
        if not pool:
            raise UsageError(f"Countdown with {self.numbers} numbers is held out whole; set split: held-out.")
        return [self._item(problem, rng) for problem, rng in take(pool, count, seed)]

    def _drawn(self, split: str, count: int, seed: int) -> Iterator[tuple[CountdownProblem, Random]]:
        def draw(_: int, rng: Random) -> CountdownProblem:
            while True:  # one problem in five is held out and the others are not, so a few draws are enough
                problem = draw_problem(rng, self.numbers, self.largest, self.largest_target)
                if in_split(is_held_out(problem.numbers, problem.target), split):
                    return problem

        rngs = [Random(f"{seed}:countdown:{i}") for i in range(count)]
        return zip(distinct(draw, rngs), rngs, strict=True)

    def _item(self, problem: CountdownProblem, rng: Random) -> Item:
        given = rng.sample(problem.numbers, len(problem.numbers))
        question = ask(given, problem.target, self.wording)
        gold = {"numbers": given, "target": problem.target}
        return Item(problem.id, question, gold, difficulty=float(len(given)))

    def judge_answer(self, item: Item, answer: str) -> Verdict:
        """Pass when the answer is arithmetic over the item's numbers, each once, that equals the target."""
        return judge_expression(item, answer)

    def right_answer(self, item: Item) -> str | None:
        """An expression that reaches the target, found by trying all chains."""
        return solve(item.gold["numbers"], item.gold["target"])


def judge_expression(item: Item, answer: str) -> Verdict:
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


def is_closed(numbers: int, largest: int, largest_target: int) -> bool:
    """Whether these problems are the tiny world's, which are listed and not drawn."""
    return numbers in SMALLEST_TARGET and (largest, largest_target) == (LARGEST_GIVEN, LARGEST_TARGET)


def draw_problem(rng: Random, numbers: int, largest: int, largest_target: int) -> CountdownProblem:
    """A problem that some chain over whole numbers solves."""
    while True:
        given = [rng.randint(1, largest) for _ in range(numbers)]
        target = given[0]
        for number in given[1:]:
            target = rng.choice([value for _, value in _steps(target, number)])
        if 1 <= target <= largest_target and target not in given:
            return CountdownProblem(tuple(sorted(given)), target)


def solve(numbers: Sequence[int], target: int) -> str | None:
    """An expression over all of `numbers` that is `target`, by chains over whole numbers; None if none is.

    >>> solve([5, 6, 4], 34)
    '( 5 * 6 ) + 4'
    """
    tried: set[tuple[int, tuple[int, ...]]] = set()

    def search(value: int, text: str, left: tuple[int, ...]) -> str | None:
        if not left:
            return text if value == target else None
        if (value, left) in tried:
            return None
        tried.add((value, left))
        for i, number in enumerate(left):
            for form, result in _steps(value, number):
                whole = form.format(f"( {text} )" if " " in text else text, number)
                if (found := search(result, whole, left[:i] + left[i + 1 :])) is not None:
                    return found
        return None

    given = tuple(numbers)
    found = (search(n, str(n), given[:i] + given[i + 1 :]) for i, n in enumerate(given))
    return next((text for text in found if text is not None), None)


def _steps(value: int, number: int) -> Iterator[tuple[str, int]]:
    """Every `value op number` and `number op value` that is whole and not negative, with its form."""
    yield "{0} + {1}", value + number
    yield "{0} * {1}", value * number
    yield ("{0} - {1}", value - number) if value >= number else ("{1} - {0}", number - value)
    if number and value % number == 0:
        yield "{0} / {1}", value // number
    if value and number % value == 0:
        yield "{1} / {0}", number // value


@dataclass(frozen=True)
class CountdownJudge(Plain):
    """Rows `{nums, target}`, as in public sets of the game; asked in English."""

    def item(self, row: Mapping[str, Any], question: str | None) -> Item | str:
        """From the numbers and the target."""
        numbers, target = row.get("nums", row.get("numbers")), row.get("target")
        if not isinstance(numbers, list) or not 2 <= len(numbers) <= MOST_NUMBERS:
            return f"no list of two to {MOST_NUMBERS} numbers under nums or numbers"
        if any(type(number) is not int or not 0 <= number < 10**MAX_DIGITS for number in (*numbers, target)):
            return f"the numbers and the target are not all whole and of {MAX_DIGITS} digits at most"
        assert isinstance(target, int)
        gold = {"numbers": numbers, "target": target}
        asked = question or ask(numbers, target, "sentence")
        name = CountdownProblem(tuple(sorted(numbers)), target).id
        return Item(name, asked, gold, difficulty=float(len(numbers)))

    def judge(self, item: Item, answer: str) -> Verdict:
        """As the task `countdown` does."""
        return judge_expression(item, answer)

    def right_answer(self, item: Item) -> str | None:
        """Found by trying all chains; a problem that only other forms solve has none."""
        return solve(item.gold["numbers"], item.gold["target"])


class CountdownSpec(TaskSpec):
    """Reach the target with + - * / and every number exactly once."""

    usual_split: ClassVar[Split] = "seen"

    name: Literal["countdown"] = "countdown"
    numbers: int = Field(default=3, ge=3, le=MOST_NUMBERS)
    """How many numbers, three to six; four up to 12 are the tiny world's harder tier, held out whole."""
    largest: int = Field(default=LARGEST_GIVEN, ge=4, le=999)
    """Given numbers are 1 to this."""
    largest_target: int = Field(default=LARGEST_TARGET, ge=10, le=99_999)
    """The target is at most this."""
    wording: Wording = "tokens"
    """`tokens` for the tiny world, `sentence` for a model that reads English."""

    @model_validator(mode="after")
    def _seen_is_not_empty(self) -> "CountdownSpec":
        if self._held_out_whole and self.split == "seen":
            raise ValueError("countdown with 4 numbers up to 12 is held out whole; set split: held-out")
        return self

    @property
    def _held_out_whole(self) -> bool:
        return self.numbers == 4 and is_closed(self.numbers, self.largest, self.largest_target)

    @property
    def chosen_split(self) -> Split:
        """`seen` by default, but for the tier that is held out whole."""
        return self.split or ("held-out" if self._held_out_whole else "seen")

    def make(self) -> Countdown:
        """The task."""
        return Countdown(self.numbers, self.wording, self.truncated, self.largest, self.largest_target)
