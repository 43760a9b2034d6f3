"""Ways to spend numbers, the order in which they are tried, and how a trace is written."""

import math
from collections import Counter
from itertools import permutations, product
from random import Random

import pytest

from r1pipe.tasks.countdown import problems, reachable
from r1pipe.verify.expression import evaluate
from r1pipe.world.arithmetic import apply
from r1pipe.world.solver import Attempt, attempts, guesses, write_answer, write_thinking


def lines_of(numbers: tuple[int, ...]) -> set[tuple[tuple[object, ...], ...]]:
    """Every chain over the numbers by trying all orders, signs and sides; sums and products without order."""
    found = set()
    for given in permutations(numbers):
        for signs in product("+-*/", repeat=len(given) - 1):
            for sides in product((False, True), repeat=len(given) - 1):
                value: int | None = given[0]
                steps = []
                for number, sign, swapped in zip(given[1:], signs, sides, strict=True):
                    left, right = (number, value) if swapped else (value, number)
                    value = apply(left, sign, right)
                    if value is None:
                        break
                    operands = tuple(sorted((left, right))) if sign in "+*" else (left, right)
                    steps.append((*operands, sign, value))
                if value is not None:
                    found.add(tuple(steps))
    return found


def read(line: str) -> tuple[tuple[object, ...], ...]:
    steps = []
    for step in line.split(" ; "):
        left, sign, right, _, value = step.split()
        operands = (int(left), int(right))
        steps.append((*(sorted(operands) if sign in "+*" else operands), sign, int(value)))
    return tuple(steps)


def test_the_ways_to_spend_two_numbers() -> None:
    """Small enough to be written down: no second order of the sum and the product, no negative value."""
    assert attempts((3, 6)) == (
        Attempt("3 + 6 = 9", 9, "3 + 6"),
        Attempt("3 * 6 = 18", 18, "3 * 6"),
        Attempt("6 - 3 = 3", 3, "6 - 3"),
        Attempt("6 / 3 = 2", 2, "6 / 3"),
    )


@pytest.mark.parametrize("numbers", [(3, 6), (4, 5, 6), (1, 1, 1), (3, 3, 12), (2, 7, 11), (1, 2, 3, 4)])
def test_the_ways_are_all_ways_each_once(numbers: tuple[int, ...]) -> None:
    """They agree with trying everything, however the numbers are ordered."""
    ways = attempts(numbers)
    assert Counter(read(way.line) for way in ways) == Counter(lines_of(numbers))
    assert set(attempts(numbers[::-1])) == set(ways)


def test_an_expression_is_the_answer_to_its_line() -> None:
    """Over every third triple of the space: numbers each once, the value that the line ends in, and together
    what the task calls reachable."""
    for numbers in list(dict.fromkeys(problem.numbers for problem in problems()))[::3]:
        for way in attempts(numbers):
            answer = evaluate(way.expression)
            assert sorted(answer.numbers) == sorted(numbers)
            assert answer.value == way.value == int(way.line.rsplit(" ", 1)[1])
        assert {way.value for way in attempts(numbers)} == reachable(numbers)


def test_guesses_end_at_a_hit() -> None:
    """No guess comes twice, none follows one that reaches the target, and without a hit there are `count`."""
    for seed in range(200):
        tried = guesses((6, 4, 5), 34, 10, 30.0, Random(seed))
        hits = [attempt.value == 34 for attempt in tried]
        assert len(set(tried)) == len(tried) <= 10
        assert not any(hits[:-1])
        assert hits[-1] or len(tried) == 10
    assert len(guesses((4, 5, 6), 98, 1000, 30.0, Random(0))) == len(attempts((4, 5, 6)))


def test_a_low_temperature_guesses_in_order_of_distance() -> None:
    """Near zero the nearest comes first; a problem that can be solved is solved at once."""
    tried = guesses((4, 5, 6), 33, 6, 1e-6, Random(0))
    distances = [abs(attempt.value - 33) for attempt in tried]
    assert distances == sorted(abs(way.value - 33) for way in attempts((4, 5, 6)))[:6]
    assert [attempt.value for attempt in guesses((4, 5, 6), 34, 6, 1e-6, Random(0))] == [34]


def test_guesses_are_drawn_as_documented() -> None:
    """Over 20,000 first guesses, how often each value comes is exp(-distance / temperature), normalised."""
    rng, draws = Random(0), 20_000
    first = Counter(guesses((3, 6), 9, 1, 6.0, rng)[0].value for _ in range(draws))
    weights = {value: math.exp(-abs(value - 9) / 6.0) for value in (9, 18, 3, 2)}
    for value, weight in weights.items():
        share = weight / sum(weights.values())
        spread = math.sqrt(share * (1 - share) / draws)
        assert first[value] / draws == pytest.approx(share, abs=4 * spread)


def test_a_trace_as_it_is_written() -> None:
    """The target and a verdict after each attempt and, where the mind changes in words, the word for it."""
    ways = {way.value: way for way in attempts((4, 5, 6))}
    tried = [ways[15], ways[29], ways[34]]
    languages = iter(["en", "zh", "zh", "en"])
    reflections = iter([True, False])
    text = write_thinking(tried, 34, lambda: next(languages), lambda: next(reflections))
    assert text == f"{ways[15].line} to 34 no deng {ways[29].line} to 34 bu {ways[34].line} to 34 yes"


def test_an_answer_as_it_is_written() -> None:
    """Alone, and after a summary in either language."""
    last = Attempt("5 * 6 = 30 ; 30 + 4 = 34", 34, "( 5 * 6 ) + 4")
    assert write_answer(last) == "<answer> ( 5 * 6 ) + 4 </answer>"
    assert write_answer(last, summary="en") == "so ( 5 * 6 ) + 4 = 34 <answer> ( 5 * 6 ) + 4 </answer>"
    assert write_answer(last, summary="zh") == "suoyi ( 5 * 6 ) + 4 = 34 <answer> ( 5 * 6 ) + 4 </answer>"
