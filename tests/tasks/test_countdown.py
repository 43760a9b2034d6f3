"""The closed space of countdown problems, its split, and the judge."""

import hashlib
from collections import Counter
from fractions import Fraction
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1pipe.errors import UsageError
from r1pipe.tasks.base import Item
from r1pipe.tasks.countdown import (
    Countdown,
    CountdownJudge,
    CountdownProblem,
    is_held_out,
    problems,
    reachable,
    solve,
)
from r1pipe.verify.verdict import Completion, Mark, Verdict


def _ends(value: Fraction, rest: tuple[int, ...]) -> set[int]:
    """Where chains from `value` over `rest` in this order end, by trying every sign on both sides."""
    if value.denominator != 1 or not 0 <= value <= 99:
        return set()
    if not rest:
        return {int(value)}
    number = Fraction(rest[0])
    tried = [value + number, value * number, value - number, number - value]
    tried += [a / b for a, b in ((value, number), (number, value)) if b]
    return set().union(*(_ends(result, rest[1:]) for result in tried))


def _chains(numbers: tuple[int, ...]) -> set[int]:
    """Where chains over the numbers in any order end: slow, and not the module's own way."""
    return set().union(*(_ends(Fraction(first), tuple(rest)) for first, *rest in permutations(numbers)))


@pytest.mark.parametrize("numbers", [(4, 5, 6), (1, 1, 1), (3, 3, 8), (7, 11, 12), (2, 5, 9, 10)])
def test_reachable_agrees_with_trying_everything(numbers: tuple[int, ...]) -> None:
    """A target is reachable exactly when some chain of whole values from 0 to 99 ends at it."""
    assert reachable(numbers) == _chains(numbers)


def test_space() -> None:
    """4,717 problems over three numbers, 954 of them held out."""
    assert len(problems()) == 4717
    assert (len(problems(split="seen")), len(problems(split="held-out"))) == (3763, 954)
    assert len(set(problems())) == 4717
    assert all(1 <= p.target <= 99 and list(p.numbers) == sorted(p.numbers) for p in problems())


def test_split_is_by_hash() -> None:
    """Held out is what the SHA-256 of the sorted numbers and the target says, whatever their order."""
    for problem in problems()[::97]:
        text = "{} {} {} > {}".format(*problem.numbers, problem.target)
        expected = int(hashlib.sha256(text.encode()).hexdigest(), 16) % 5 == 0
        assert is_held_out(problem.numbers[::-1], problem.target) is expected
        assert (problem in problems(split="held-out")) is expected


def test_four_numbers_are_held_out() -> None:
    """The harder tier has 50,885 problems with targets from 10, and not one may be trained on."""
    assert len(problems(4)) == len(problems(4, "held-out")) == 50885
    assert min(p.target for p in problems(4)) == 10
    assert problems(4, "seen") == ()
    with pytest.raises(UsageError, match="held-out"):
        Countdown(numbers=4).items("seen", 1, 0)


def test_items_are_a_function_of_seed_and_index() -> None:
    """A longer list starts with the shorter one, the same seed gives the same list, another seed another."""
    task = Countdown()
    assert task.items("seen", 50, 7)[:20] == task.items("seen", 20, 7)
    assert task.items("seen", 20, 7) != task.items("seen", 20, 8)
    first = task.items("held-out", 1, 0)[0]
    assert first.id == CountdownProblem(tuple(sorted(first.gold["numbers"])), first.gold["target"]).id
    assert first.question == f"nums {' '.join(map(str, first.gold['numbers']))} to {first.gold['target']}"


def test_every_pass_asks_every_problem_once() -> None:
    """One pass is all problems of the split; the next has other orders of problems and of numbers."""
    task = Countdown()
    assert len({item.id for item in task.items("held-out", None, 0)}) == 954
    twice = task.items("held-out", 2 * 954, 0)
    assert set(Counter(item.id for item in twice).values()) == {2}
    assert [item.id for item in twice[:954]] != [item.id for item in twice[954:]]
    orders: dict[str, set[str]] = {}
    for item in twice:
        orders.setdefault(item.id, set()).add(item.question)
    assert sum(len(questions) == 2 for questions in orders.values()) > 477


def test_sentence() -> None:
    """A real model is asked in English, with the same id and gold."""
    plain, worded = Countdown().items("seen", 1, 3)[0], Countdown(wording="sentence").items("seen", 1, 3)[0]
    assert (worded.id, worded.gold) == (plain.id, plain.gold)
    assert f"equals {plain.gold['target']}." in worded.question


@pytest.mark.parametrize(("split", "numbers", "hint"), [("test", 3, "held-out"), ("seen", 4, "out whole")])
def test_bad_requests(split: str, numbers: int, hint: str) -> None:
    """An unknown split and an impossible tier are told what there is."""
    with pytest.raises(UsageError, match=hint):
        Countdown(numbers=numbers).items(split, 1, 0)


ITEM = next(item for item in Countdown().items("all", None, 0) if item.id == "countdown-3:4-5-6:34")


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("( 5 * 6 ) + 4", Verdict(Mark.PASS, "", "( 5 * 6 ) + 4")),
        ("4+6*5", Verdict(Mark.PASS, "", "4 + 6 * 5")),
        ("( 5 * 6 ) - 4", Verdict(Mark.FAIL, "misses the target", "( 5 * 6 ) - 4")),
        ("34", Verdict(Mark.FAIL, "other numbers", "34")),
        ("5 * 6 + 4 + 4 - 4", Verdict(Mark.FAIL, "other numbers", "5 * 6 + 4 + 4 - 4")),
        ("5 * 6", Verdict(Mark.FAIL, "other numbers", "5 * 6")),
        ("56 - 4", Verdict(Mark.FAIL, "other numbers", "56 - 4")),
        ("5 * 6 + 4 = 34", Verdict(Mark.FAIL, "not an expression", "5 * 6 + 4 = 34")),
        ("9**9**9", Verdict(Mark.FAIL, "not an expression", "9**9**9")),
    ],
)
def test_judge_answer(answer: str, verdict: Verdict) -> None:
    """Every number exactly once, and exactly the target."""
    assert Countdown().judge_answer(ITEM, answer) == verdict


def test_judge_allows_fractions_on_the_way() -> None:
    """The judge is wider than the space: 8 / ( 3 - 8 / 3 ) is 24 by way of thirds."""
    gold = {"numbers": [3, 3, 8, 8], "target": 24}
    item = type(ITEM)("countdown-4:3-3-8-8:24", "nums 3 3 8 8 to 24", gold)
    assert Countdown(numbers=4).judge_answer(item, "8 / ( 3 - 8 / 3 )").passed


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        (Completion("no </think> <answer> 5 * 6 + 4 </answer>", True), ""),
        (Completion("5 * 6 = 30", True), "thinking not closed"),
        (Completion("no </think> five", True), "no answer"),
        (Completion("no </think> <answer> 5 * 6 + 4 </answer>", True, truncated=True), "truncated"),
    ],
)
def test_judge_completion(completion: Completion, reason: str) -> None:
    """A completion is right only when it ended by itself with an answer after its thinking."""
    verdict = Countdown().judge(ITEM, completion)
    assert (verdict.passed, verdict.reason) == (reason == "", reason)


def test_truncated_can_be_left_out() -> None:
    """With truncated: undecided, a completion that was cut off is neither right nor wrong."""
    verdict = Countdown(truncated="undecided").judge(ITEM, Completion("5", True, truncated=True))
    assert verdict == Verdict(Mark.UNDECIDED, "truncated")


@given(st.text(), st.booleans())
def test_judge_never_raises(text: str, opened: bool) -> None:
    """Any completion gets a decided verdict."""
    assert Countdown().judge(ITEM, Completion(text, opened)).decided


@pytest.mark.parametrize("numbers", [3, 4, 5, 6])
def test_drawn_problems(numbers: int) -> None:
    """Larger numbers or more of them are drawn: in range, solvable, different, and split by the same hash."""
    task = Countdown(numbers=numbers, largest=50, largest_target=200, wording="sentence")
    seen, held = task.items("seen", 40, 0), task.items("held-out", 40, 0)
    assert len({item.id for item in seen + held}) == 80
    for item in seen + held:
        given = item.gold["numbers"]
        assert len(given) == numbers and all(1 <= n <= 50 for n in given) and 1 <= item.gold["target"] <= 200
        assert item.difficulty == numbers
        answer = task.right_answer(item)
        assert answer is not None and task.judge_answer(item, answer).passed
    assert task.items("seen", 60, 0)[:40] == seen
    assert [item.id for item in task.items("seen", 40, 1)] != [item.id for item in seen]


def test_every_problem_of_the_closed_space_has_an_answer() -> None:
    """What the solver gives passes the judge."""
    task = Countdown()
    for item in task.items("all", 300, 0) + Countdown(numbers=4).items("held-out", 100, 0):
        assert task.judge_answer(item, str(task.right_answer(item))).passed


@pytest.mark.parametrize(
    ("numbers", "target", "answer"),
    [
        ([5, 6, 4], 34, "( 5 * 6 ) + 4"),
        ([3], 3, "3"),
        ([3], 4, None),
        ([1, 1], 7, None),
        ([8, 2], 4, "8 / 2"),
    ],
)
def test_solve(numbers: list[int], target: int, answer: str | None) -> None:
    """The first chain that reaches the target, or None."""
    assert solve(numbers, target) == answer


def test_rows_of_countdown() -> None:
    """Rows as public sets have them: the numbers and the target; what is none says why."""
    judge = CountdownJudge()
    item = judge.item({"nums": [13, 13, 50, 36], "target": 60, "solution": "(36 + 50) - (13 + 13)"}, None)
    assert isinstance(item, Item)
    assert item.question == (
        "Using each of the numbers 13, 13, 50, 36 exactly once, write an expression with + - * / and "
        "parentheses that equals 60. Answer with the expression alone, no equals sign."
    )
    assert judge.judge(item, "(36 + 50) - (13 + 13)").passed
    assert judge.judge(item, "36 + 50 - 13").reason == "other numbers"
    assert judge.judge(item, str(judge.right_answer(item))).passed
    assert judge.item({"nums": [1], "target": 1}, None) == "no list of two to 6 numbers under nums or numbers"
    for row in ({"nums": [1, 2.5], "target": 3}, {"nums": [1, True], "target": 3}, {"numbers": [1, 2]}):
        assert judge.item(row, None) == "the numbers and the target are not all whole and of 6 digits at most"


@pytest.mark.parametrize("numbers", [3, 4])
def test_no_tier_trains_on_what_another_holds_out(numbers: int) -> None:
    """A drawn problem that is one of the closed space's is held out where that holds it out."""
    closed = {problem.id for problem in problems(numbers, "held-out")}
    drawn = Countdown(numbers=numbers, largest=13).items("seen", 2000, 0)
    assert not closed & {item.id for item in drawn}
