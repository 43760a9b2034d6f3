"""Ways to spend numbers, the order in which they are tried, and how a trace is written."""

import math
from collections import Counter
from itertools import permutations, product
from random import Random

import pytest

from r1pipe.tasks.countdown import problems, reachable
from r1pipe.verify.expression import evaluate
from r1pipe.world.arithmetic import apply
from r1pipe.world.solver import SolverAttempt, attempts, guesses, nearest, write_answer, write_thinking


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


def read(written: tuple[str, ...]) -> tuple[tuple[object, ...], ...]:
    steps = []
    for step in written:
        left, sign, right, _, value = step.split()
        operands = (int(left), int(right))
        steps.append((*(sorted(operands) if sign in "+*" else operands), sign, int(value)))
    return tuple(steps)


def test_the_ways_to_spend_two_numbers() -> None:
    """Small enough to be written down: no second order of the sum and the product, no negative value."""
    assert attempts((3, 6)) == (
        SolverAttempt(("3 + 6 = 9",), ((),), 9, "3 + 6"),
        SolverAttempt(("3 * 6 = 18",), ((),), 18, "3 * 6"),
        SolverAttempt(("6 - 3 = 3",), ((),), 3, "6 - 3"),
        SolverAttempt(("6 / 3 = 2",), ((),), 2, "6 / 3"),
    )


@pytest.mark.parametrize("numbers", [(3, 6), (4, 5, 6), (1, 1, 1), (3, 3, 12), (2, 7, 11), (1, 2, 3, 4)])
def test_the_ways_are_all_ways_each_once(numbers: tuple[int, ...]) -> None:
    """They agree with trying everything, however the numbers are ordered."""
    ways = attempts(numbers)
    assert Counter(read(way.steps) for way in ways) == Counter(lines_of(numbers))
    assert set(attempts(numbers[::-1])) == set(ways)


def test_an_expression_is_the_answer_to_its_steps() -> None:
    """Over every third triple of the space: numbers each once, the value that the line ends in, and together
    what the task calls reachable."""
    for numbers in list(dict.fromkeys(problem.numbers for problem in problems()))[::3]:
        for way in attempts(numbers):
            answer = evaluate(way.expression)
            assert sorted(answer.numbers) == sorted(numbers)
            assert answer.value == way.value == int(way.steps[-1].rsplit(" ", 1)[1])
        assert {way.value for way in attempts(numbers)} == reachable(numbers)


def test_guesses_end_at_a_hit() -> None:
    """No guess comes twice, none follows one that reaches the target, and without a hit there are `count`."""
    ended = set()
    for seed in range(200):
        tried = guesses((6, 4, 5), 34, 3, 30.0, Random(seed))
        hits = [attempt.value == 34 for attempt in tried]
        assert len(set(tried)) == len(tried) <= 3
        assert not any(hits[:-1])
        assert hits[-1] or len(tried) == 3
        ended.add((hits[-1], len(tried)))
    assert {(True, 1), (True, 2), (True, 3), (False, 3)} == ended
    assert len(guesses((4, 5, 6), 98, 1000, 30.0, Random(0))) == len(nearest((4, 5, 6), 98))


def test_a_low_temperature_begins_with_the_nearest() -> None:
    """Near zero the first guess is the best there is, and a problem that can be solved is solved at once."""
    least = min(abs(way.value - 33) for way in nearest((4, 5, 6), 33))
    assert {abs(guesses((4, 5, 6), 33, 1, 1e-6, Random(seed))[0].value - 33) for seed in range(20)} == {least}
    assert [attempt.value for attempt in guesses((4, 5, 6), 34, 6, 1e-6, Random(0))] == [34]


def test_guesses_follow_in_turn() -> None:
    """After the first they come as the ways are listed, and after the last of them the first one."""
    ways = nearest((4, 5, 6), 33)
    begun = set()
    for seed in range(100):
        tried = guesses((4, 5, 6), 33, len(ways), 30.0, Random(seed))
        begin = ways.index(tried[0])
        assert tried == ways[begin:] + ways[:begin]
        begun.add(begin)
    assert begun == set(range(len(ways)))


def test_guesses_are_drawn_as_documented() -> None:
    """Over 20,000 first guesses, how often each comes is exp(-distance / temperature), normalised."""
    rng, draws = Random(0), 20_000
    first = Counter(guesses((4, 5, 6), 33, 1, 6.0, rng)[0] for _ in range(draws))
    weights = {way: math.exp(-abs(way.value - 33) / 6.0) for way in nearest((4, 5, 6), 33)}
    assert len(weights) == 9
    for way, weight in weights.items():
        share = weight / sum(weights.values())
        spread = math.sqrt(share * (1 - share) / draws)
        assert first[way] / draws == pytest.approx(share, abs=4 * spread)


def test_the_last_step_is_the_best_there_is() -> None:
    """For each beginning of an attempt one end, and none that begins the same comes nearer."""
    for numbers, target in [((4, 5, 6), 33), ((3, 3, 12), 4), ((1, 2, 3, 4), 24)]:
        made = {way.steps[:-1]: way.value for way in nearest(numbers, target)}
        assert len(made) == len(nearest(numbers, target))
        distances: dict[tuple[str, ...], list[int]] = {}
        for way in attempts(numbers):
            distances.setdefault(way.steps[:-1], []).append(abs(way.value - target))
        assert {begun: abs(value - target) for begun, value in made.items()} == {
            begun: min(of_it) for begun, of_it in distances.items()
        }


def test_a_trace_as_it_is_written() -> None:
    """What is left and the target before the last step, a verdict after each attempt and, where the mind
    changes in words, the word for it."""
    ways = {way.steps: way for way in attempts((4, 5, 6))}
    chains = [("4 + 5 = 9", "9 + 6 = 15"), ("4 * 6 = 24", "24 + 5 = 29"), ("5 * 6 = 30", "30 + 4 = 34")]
    tried = [ways[chain] for chain in chains]
    languages = iter(["en", "zh", "zh", "en"])
    reflections = iter([True, False])
    text = write_thinking(tried, 34, lambda: next(languages), lambda: next(reflections))
    assert text == (
        "4 + 5 = 9 left 6 to 34 ; 9 + 6 = 15 no deng 4 * 6 = 24 left 5 to 34 ; 24 + 5 = 29 bu "
        "5 * 6 = 30 left 4 to 34 ; 30 + 4 = 34 yes"
    )


def test_an_attempt_over_four_numbers_as_it_is_written() -> None:
    """What is left after each step but the last, in ascending order."""
    ways = {way.steps: way for way in attempts((2, 3, 4, 10))}
    way = ways["4 + 10 = 14", "14 - 3 = 11", "11 * 2 = 22"]
    assert way.line(24) == "4 + 10 = 14 left 2 3 to 24 ; 14 - 3 = 11 left 2 to 24 ; 11 * 2 = 22"
    assert (way.value, way.expression) == (22, "( ( 4 + 10 ) - 3 ) * 2")


def test_an_answer_as_it_is_written() -> None:
    """Alone, and after a summary in either language."""
    last = SolverAttempt(("5 * 6 = 30", "30 + 4 = 34"), ((4,), ()), 34, "( 5 * 6 ) + 4")
    assert write_answer(last) == "<answer> ( 5 * 6 ) + 4 </answer>"
    assert write_answer(last, summary="en") == "so ( 5 * 6 ) + 4 = 34 <answer> ( 5 * 6 ) + 4 </answer>"
    assert write_answer(last, summary="zh") == "suoyi ( 5 * 6 ) + 4 = 34 <answer> ( 5 * 6 ) + 4 </answer>"
