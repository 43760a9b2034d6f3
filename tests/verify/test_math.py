"""Answers compared with the right one: by text, by number, by mathematics."""

import threading
import time
from fractions import Fraction

import pytest

from r1pipe.verify import math as verify_math
from r1pipe.verify.math import (
    gold_answer,
    judge_exact,
    judge_math,
    judge_math_all,
    judge_number,
    number,
    only_number,
)
from r1pipe.verify.verdict import Mark, Verdict


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


@pytest.mark.parametrize(
    ("gold", "answer", "mark"),
    [
        ("72", "72", Mark.PASS),
        ("1/2", "0.5", Mark.PASS),
        ("1/12", "0.0833333333333333", Mark.PASS),
        ("1/12", "0.083", Mark.FAIL),
        ("72", "73", Mark.FAIL),
        ("x^2+1", "1+x^2", Mark.PASS),
        (r"2\sqrt{2}", r"\sqrt{8}", Mark.PASS),
        ("(1,2)", "(1, 2)", Mark.PASS),
        ("(1,2)", "(2,1)", Mark.FAIL),
        (r"\frac{\pi}{2}", r"\frac{\pi}{3}", Mark.FAIL),
        ("x<5", "x<6", Mark.FAIL),
        ("72", "z" * 2000, Mark.FAIL),
        ("72", "71 or 72", Mark.FAIL),
        ("3", "1 2 3", Mark.FAIL),
        ("3", "2, 3", Mark.FAIL),
    ],
)
def test_judge_math(gold: str, answer: str, mark: Mark) -> None:
    """Equal mathematics passes in whatever form; sympy is asked only where text and numbers do not decide."""
    assert judge_math(gold, answer).mark is mark


def test_numbers_never_reach_sympy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal numbers and unequal whole numbers are told apart without math-verify."""
    monkeypatch.setattr(verify_math, "_compare", lambda gold, answer: pytest.fail("math-verify was asked"))
    assert judge_math("1,000", "1000.0").mark is Mark.PASS
    assert judge_math("1000", "999").mark is Mark.FAIL


@pytest.mark.parametrize("answer", ["9^9^9^9", "((10!)!)!", "(" * 400 + "1"])
def test_what_explodes_never_passes_and_the_next_is_judged(answer: str) -> None:
    """Whatever sympy makes of it, nobody waits much longer than the deadline."""
    judge_math("x+y", "x + 2y")  # a worker is there
    started = time.monotonic()
    assert judge_math("x+y", answer).mark is not Mark.PASS
    assert time.monotonic() - started < 20
    assert judge_math("x+y", "y + x").mark is Mark.PASS


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


def test_unreadable_answer_fails() -> None:
    """An answer that is no mathematics fails with its own reason."""
    assert judge_math("x+1", r"\text{}").reason in ("answer cannot be read", "wrong answer")
