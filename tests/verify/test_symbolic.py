"""What runs in a worker: reading and comparing formulas, and saying when that could not be done."""

import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from r1pipe.verify import symbolic
from r1pipe.verify.math import _without_algebra
from r1pipe.verify.notation import tidy
from r1pipe.verify.symbolic import Unreadable, answer_to, compare, equal, let_errors_show, parse
from r1pipe.verify.verdict import Mark
from tests.verify.answer_cases import RULES


@pytest.fixture(autouse=True)
def grader() -> Iterator[None]:
    """Leaves math-verify's module as it was."""
    from math_verify import grader

    yield
    vars(grader).pop("Exception", None)


@pytest.mark.parametrize(
    "text", ["", "{", "3 2", "1.2.3", "12_5", r"\foo{x}", "1/0", "(" * 60 + "1" + ")" * 60]
)
def test_what_is_not_one_formula_is_not_read(text: str) -> None:
    """Not even where latex2sympy would make something of it."""
    with pytest.raises(Unreadable):
        parse(text)


def test_the_order_of_the_two_does_not_matter_to_regions() -> None:
    """math-verify alone takes an interval for an inequality in one direction only."""
    for pair in ((r"(-\infty,-5)", "k<-5"), ("k<-5", r"(-\infty,-5)")):
        assert compare(*pair) == (Mark.PASS, "")
    assert equal(parse("k<-5"), parse(r"(-\infty,-5)"))


@pytest.mark.parametrize(
    ("gold", "answer", "mark", "reason"),
    [
        ("x+1", "1+x", Mark.PASS, ""),
        ("x+1", "x+2", Mark.FAIL, "wrong answer"),
        ("x+1", "{", Mark.FAIL, "answer cannot be read"),
        ("{", "x+1", Mark.UNDECIDED, "right answer cannot be read"),
        (r"x\text{ cm}", r"x\text{ m}", Mark.FAIL, "another unit"),
        (r"\sqrt{2}, \text{Anna}", r"\text{Anna}, \sqrt{2}", Mark.PASS, ""),
        (r"\sqrt{2}, \text{Anna}", r"\text{Anna}, \sqrt{3}", Mark.FAIL, "wrong answer"),
    ],
)
def test_compare(gold: str, answer: str, mark: Mark, reason: str) -> None:
    """The reason says whose fault it is."""
    assert compare(gold, answer) == (mark, reason)


def test_the_rules_that_take_algebra() -> None:
    """As a worker applies them: `test_math` asks one, here it is asked directly."""
    cases = [case for cases in RULES.values() for case in cases if _without_algebra(*case[:2]) is None]
    assert len(cases) > 50
    assert [(*pair, compare(*map(tidy, pair))[0]) for *pair, _ in cases] == cases


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "comparison ran out of memory"),
        (RecursionError(), "comparison went too deep"),
        (TypeError(), "comparison broke down: TypeError"),
    ],
)
def test_trouble_is_undecided(monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str) -> None:
    """It is the machine's or sympy's, and says nothing about the answer."""

    def troubled(gold: Any, answer: Any) -> bool:
        raise error

    monkeypatch.setattr(symbolic, "equal", troubled)
    assert compare("x+1", "1+x") == (Mark.UNDECIDED, reason)


@pytest.mark.parametrize("error", [MemoryError, RecursionError])
def test_trouble_in_reading_is_undecided(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    """A formula that did not fit into memory is not one that cannot be read."""
    from math_verify import parser

    def troubled(*arguments: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr(parser, "latex2sympy", troubled)
    assert compare("u+1", "u+2")[0] is Mark.UNDECIDED


def test_math_verify_swallows_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    """It catches every Exception and calls the formulas unequal; with the patch it lets these two through."""
    from math_verify import grader

    def out_of_memory(expression: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(grader, "simplify", out_of_memory)
    pair = (r"\sin(x)^2", r"1 - \cos(x)^2 + y")
    assert compare(*pair)[0] is Mark.FAIL
    assert let_errors_show()
    assert compare(*pair) == (Mark.UNDECIDED, "comparison ran out of memory")


def test_a_math_verify_that_still_swallows_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new version might; then no worker starts."""
    from math_verify import grader

    monkeypatch.setattr(grader, "safe_sympy_doit", lambda expression: expression)
    assert not let_errors_show()


def test_a_worker_stops_itself_in_time() -> None:
    """The alarm ends a comparison that takes too long, and is off afterwards."""
    began = time.monotonic()
    assert compare("x^2+1", "9^{9^{9^{9}}}", limit=0.3) == (Mark.UNDECIDED, "comparison timed out")
    assert time.monotonic() - began < 20
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_questions() -> None:
    """A pair is compared; a right answer alone is read, and the reason told why it is unfit."""
    assert answer_to(["x", "x"], 5.0) == (Mark.PASS, "")
    assert answer_to(["x^2"], 5.0) is None
    assert answer_to([r"\text{Anna}, \sqrt{2}\text{ cm}"], 5.0) is None
    assert answer_to([r"\foo"], 5.0) == "cannot be read as mathematics"
    assert answer_to([r"10^{10^{10}}!"], 0.3) in (None, "reading it timed out")


def test_a_worker_serves_only_if_it_judges_as_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    """The self-test comes before the first question."""
    served: list[Any] = []
    monkeypatch.setattr(sys, "argv", ["worker", "5.5", "0"])
    monkeypatch.setattr(symbolic, "serve", served.append)
    symbolic.main()
    assert len(served) == 1 and served[0](["x", "x"]) == (Mark.PASS, "")
    monkeypatch.setattr(symbolic, "compare", lambda gold, answer: (Mark.PASS, ""))
    symbolic.main()
    assert len(served) == 1
