"""Answers compared with the right one: by text, by number, by mathematics."""

import re
import threading
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1pipe import jsonl
from r1pipe.verify import math as verify_math
from r1pipe.verify.math import (
    MAX_LENGTH,
    check_golds,
    gold_answer,
    judge_exact,
    judge_math,
    judge_math_all,
    judge_number,
    number,
    only_number,
)
from r1pipe.verify.pool import Unanswered
from r1pipe.verify.verdict import Mark, Verdict
from tests.verify.answer_cases import RULES

DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        ("Natalia sold 48/2 = <<48/2=24>>24 clips in May.\n#### 72", "72"),
        ("#### 1,200 ", "1,200"),
        (r"so the answer is \boxed{\frac{3}{4}}.", r"\frac{3}{4}"),
        ("  72 ", "72"),
        ("no answer #### ", ""),
    ],
)
def test_gold_answer(solution: str, answer: str) -> None:
    """The final answer is taken out of GSM8K's and MATH's worked solutions; a bare answer is left alone."""
    assert gold_answer(solution) == answer


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("72", Fraction(72)),
        ("-5", Fraction(-5)),
        ("7,425,000", Fraction(7425000)),
        ("$1,200.50", Fraction("1200.5")),
        ("72.", Fraction(72)),
        (".5", Fraction(1, 2)),
        ("3/4", Fraction(3, 4)),
        (r"\frac{3}{4}", Fraction(3, 4)),
        (r"-\dfrac{3}{4}", Fraction(-3, 4)),
        ("10{,}000", Fraction(10000)),
        ("1 000", Fraction(1000)),
        ("3 / 4", Fraction(3, 4)),
        ("- 5", Fraction(-5)),
        ("32, 349", None),
        ("1/0", None),
        ("1,2", None),
        ("72 dollars", None),
        ("10%", None),
        ("", None),
        ("9" * 200, None),
        ("٣", None),
    ],
)
def test_number(text: str, value: Fraction | None) -> None:
    """Numbers are read exactly, and what is more than a number is not read as one."""
    assert number(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("72 dollars", Fraction(72)), ("from 3 to 5", None), ("none", None), ("3/4", Fraction(3, 4))],
)
def test_only_number(text: str, value: Fraction | None) -> None:
    """A number among words counts when it is the only one there."""
    assert only_number(text) == value


def test_judge_exact() -> None:
    """Only white space may differ."""
    assert judge_exact("a  b", " a b\n") == Verdict(Mark.PASS, extracted="a b")
    assert judge_exact("a b", "a c") == Verdict(Mark.FAIL, "wrong answer", "a c")


def test_judge_number() -> None:
    """Equal numbers pass however they are written; an answer that is no number has its own reason."""
    assert judge_number("1200", "$1,200.00").mark is Mark.PASS
    assert judge_number("1200", "1201") == Verdict(Mark.FAIL, "wrong answer", "1201")
    assert judge_number("1200", "many") == Verdict(Mark.FAIL, "not one number", "many")
    assert judge_number("many", "1200").mark is Mark.UNDECIDED


@pytest.mark.parametrize("rule", RULES)
def test_the_rules(rule: str) -> None:
    """What `docs/verdicts.md` promises, case by case."""
    cases = RULES[rule]
    found = [(gold, answer, judge_math(gold, answer).mark) for gold, answer, _ in cases]
    assert found == cases


def test_the_examples_of_the_page() -> None:
    """Where docs/verdicts.md says that an answer is equal to the right one, which stands first, it passes."""
    page = (Path(__file__).parents[2] / "docs" / "verdicts.md").read_text(encoding="utf-8")
    examples = re.findall(r"`([^`]+)` ([=≠]) `([^`]+)`", page.partition("### In workers")[0])
    assert len(examples) > 60
    said = [(gold, answer, sign == "=") for gold, sign, answer in examples]
    assert [(gold, answer, judge_math(gold, answer).passed) for gold, answer, _ in said] == said


def test_an_answer_too_long_fails_unread() -> None:
    """And so does none that is the right one, however long."""
    assert judge_math("72", "z" * 2000) == Verdict(Mark.FAIL, "answer too long", "z" * MAX_LENGTH)
    assert judge_math("z" * 2000, "z" * 2000).passed


@pytest.mark.parametrize(
    ("answers", "form"),
    [
        (["1,000", "1000.0", "$1000$", "x = 1000"], "1000"),
        (["1/2", r"\frac12", "0.5"], "1/2"),
        (["(1, 2)", r"\left(1,2\right)"], "(1,2)"),
        (["Evelyn.", r"\text{evelyn}"], "evelyn"),
        (["x + 1", "$x+1$"], "x+1"),
    ],
)
def test_equal_answers_share_a_form(answers: list[str], form: str) -> None:
    """Whether they are right or wrong; a majority is counted by it."""
    for gold in (answers[0], "x^2+17"):
        assert [judge_math(gold, answer).extracted for answer in answers] == [form] * len(answers)


def test_numbers_lists_and_words_never_reach_sympy(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are told apart without math-verify."""
    monkeypatch.setattr(verify_math, "_compared", lambda gold, answer: pytest.fail("math-verify was asked"))
    assert judge_math("1,000", "1000.0").extracted == "1000"
    assert judge_math("1000", "999") == Verdict(Mark.FAIL, "wrong answer", "999")
    assert judge_math("(1,2)", r"\left(1,\ 2\right)").passed
    assert judge_math("5", "x^2, 5") == Verdict(Mark.FAIL, "more than one answer", "x^2,5")
    assert judge_math("5", "2+3").reason == "arithmetic left to do"
    assert judge_math("5", "x").reason == "wrong answer"
    assert judge_math("5", "xy").reason == judge_math("5", "10 + John's age").reason == "not a number"
    assert judge_math("Evelyn", "x^2").reason == "wrong answer"


@given(st.text(max_size=30), st.text(max_size=30))
def test_whatever_is_written_the_fast_path_decides_or_passes_on(gold: str, answer: str) -> None:
    """It never raises, and a right answer that says anything at all is right."""
    verify_math._without_algebra(gold, answer)
    same = verify_math._without_algebra(gold, gold)
    assert same is not None and (same.passed or same.reason == "right answer is empty")


def test_right_answers_are_right() -> None:
    """Every right answer of MATH passes against itself, with and without the dressing that models give it."""
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is not there")
    golds = {str(row["answer"]) for row in jsonl.iter_rows(DATA / "math" / "train.jsonl")} - {""}
    assert len(golds) > 2000
    for gold in golds:
        assert judge_math(gold, gold).passed
        dressed = verify_math._without_algebra(gold, f"$ {gold} $.")
        assert dressed is not None and dressed.passed


def test_golds_are_checked() -> None:
    """Each in its place, with the reason; numbers, words and formulas are fit."""
    golds = ["72", r"\frac{1}{2}", "Evelyn", r"\text{two lines}", "x^2+1", "x^2+1", "(a, b+1)"]
    golds += [r"3\sqrt{2}\text{ cm}", r"2007 + \frac\pi 2", r"\text{A, B}"]
    assert check_golds(golds, jobs=1) == [None] * len(golds)
    unfit = {
        "": "empty",
        " $ ": "empty",
        "proof": "not an answer",
        r"\text{Not Found}": "not an answer",
        "n/a": "not an answer",
        "None": "not an answer",
        "1+" * 500 + "1": "longer than 1000 characters",
        r"\foo{x": "cannot be read as mathematics",
        "x, \\foo": "cannot be read as mathematics",
    }
    assert dict(zip(unfit, check_golds(list(unfit), jobs=1), strict=True)) == unfit


def test_many_golds_are_checked_without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers and words need none."""
    monkeypatch.setattr(verify_math, "_new_pool", lambda jobs, questions: pytest.fail("a worker was asked"))
    assert check_golds([*map(str, range(3000)), "yes", r"\frac{22}{7}"]) == [None] * 3002


def test_off_the_main_thread() -> None:
    """A thread is judged for as anybody is."""
    verdicts: list[Verdict] = []
    thread = threading.Thread(target=lambda: verdicts.append(judge_math("x+z", "z + x")))
    thread.start()
    thread.join(timeout=60)
    assert [verdict.mark for verdict in verdicts] == [Mark.PASS]


def test_many_are_judged_as_each_would_be() -> None:
    """In their order, equal pairs once."""
    pairs = [("72", "72"), ("x+1", "1+x"), ("72", "73"), ("x+1", "x+2"), ("x+1", "1+x"), ("72", "z" * 2000)]
    verdicts = judge_math_all(pairs, jobs=2)
    assert verdicts == [judge_math(gold, answer) for gold, answer in pairs]
    assert [verdict.mark for verdict in verdicts] == [
        *(Mark.PASS, Mark.PASS, Mark.FAIL, Mark.FAIL, Mark.PASS, Mark.FAIL)
    ]


class Answering:
    """Stands in for the pool."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)

    def ask(self, question: object) -> object:
        return self.answers.pop(0)


def test_what_is_found_out_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pair's verdict is kept; that nobody could say is not, and the oldest goes when there are too many."""
    pool = Answering(
        Unanswered("worker died"), ["pass", ""], ["fail", "wrong answer"], ["fail", "wrong answer"]
    )
    monkeypatch.setattr(verify_math, "_shared_pool", lambda: pool)
    monkeypatch.setattr(verify_math, "_MOST_KEPT", 1)
    verify_math._found.clear()
    lost = judge_math("x+1", "1+x")
    assert lost == Verdict(Mark.UNDECIDED, "comparison worker died", "1+x")
    assert judge_math("x+1", "1+x").passed and judge_math("x+1", "1+x").passed
    assert judge_math("x+1", "2+x").mark is Mark.FAIL
    assert list(verify_math._found) == [("x+1", "2+x")]
    verify_math._found.clear()


def test_single_questions_share_a_pool() -> None:
    """Its workers are warm."""
    mine = verify_math._shared_pool()
    assert verify_math._shared_pool() is mine


def test_a_right_answer_that_is_too_long() -> None:
    """Nobody is asked about it; the answer that is the same text passes."""
    gold = "x+" * 600 + "1"
    assert judge_math(gold, "1").reason == "right answer too long"
    assert judge_math(gold, "1").mark is Mark.UNDECIDED
    assert judge_math(gold, gold).passed
