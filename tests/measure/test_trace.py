"""What happens inside the thinking."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1pipe.measure.trace import ArithmeticStep, Attempt, TraceMeasures, measure, read_trace, reflects
from r1pipe.world.words import VOCABULARY


def test_read_trace() -> None:
    """A trace comes apart into its attempts, each with its steps and its verdict in either language."""
    trace = read_trace(
        "5 + 4 = 9 left 6 to 34 ; 9 + 6 = 15 no wait 6 * 4 = 24 ; 24 + 5 = 29 bu "
        "5 * 6 = 30 left 4 to 34 ; 30 + 4 = 34 dui"
    )
    assert trace.regular and trace.reflections == 1
    assert trace.attempts == (
        Attempt((ArithmeticStep(5, "+", 4, 9), ArithmeticStep(9, "+", 6, 15)), False),
        Attempt((ArithmeticStep(6, "*", 4, 24), ArithmeticStep(24, "+", 5, 29)), False),
        Attempt((ArithmeticStep(5, "*", 6, 30), ArithmeticStep(30, "+", 4, 34)), True),
    )
    assert [attempt.value for attempt in trace.attempts] == [15, 29, 34]


@pytest.mark.parametrize(
    ("thinking", "values", "regular"),
    [
        ("", [], True),
        ("5 + 4 = 9", [9], True),
        ("5 + 4 = 9 6 + 4 = 10", [9, 10], True),  # no `;`, so the second step begins another attempt
        ("5 + 4 = 9 wait 6 + 4 = 10 yes", [9, 10], True),
        ("wait 5 + 4 = 9 yes", [9], True),
        ("5 + 4 = 9 left 1 2 to 11 ; 9 + 1 = 10 left 2 to 11 ; 10 + 2 = 12 no", [12], True),
        ("5 + 4 = 9 left 1 to 10 left 1 to 10 ; 9 + 1 = 10 yes", [10], False),
        ("5 + 4 = 9 left 1 to 10 9 + 1 = 10 yes", [9, 10], True),  # as without the aim
        ("5 + 4 = 9 left 1 to 10 yes", [9], False),
        ("5 + 4 = 9 left to 10 ; 9 + 1 = 10 yes", [10], False),
        ("5 + 4 = 9 left 1 to ; 9 + 1 = 10 yes", [10], False),
        ("5 + 4 = 9 left 1", [9], False),
        ("left 1 to 9 5 + 4 = 9 yes", [9], False),
        ("5 + 4 = 9 yes yes", [9], False),
        ("yes", [], False),
        ("5 + 4 = 9 ; yes", [9], False),
        ("; 5 + 4 = 9", [9], False),
        ("wait wait 5 + 4 = 9", [9], False),
        ("5 + 4 = red 5 + 4 = 9 no", [9], False),
        ("5 + 4 =", [], False),
    ],
)
def test_irregular_traces(thinking: str, values: list[int], regular: bool) -> None:
    """What is out of place is stepped over and marks the trace; the attempts around it are still counted."""
    trace = read_trace(thinking)
    assert ([attempt.value for attempt in trace.attempts], trace.regular) == (values, regular)


@pytest.mark.parametrize(
    ("step", "holds"),
    [
        (ArithmeticStep(5, "+", 4, 9), True),
        (ArithmeticStep(5, "+", 4, 8), False),
        (ArithmeticStep(5, "-", 4, 1), True),
        (ArithmeticStep(4, "-", 5, 1), False),
        (ArithmeticStep(6, "*", 4, 24), True),
        (ArithmeticStep(24, "/", 6, 4), True),
        (ArithmeticStep(25, "/", 6, 4), False),
        (ArithmeticStep(0, "/", 0, 0), False),
        (ArithmeticStep(0, "/", 5, 0), True),
    ],
)
def test_step_holds(step: ArithmeticStep, holds: bool) -> None:
    """A step is valid when it is true; division must come out whole."""
    assert step.holds is holds


def test_measure() -> None:
    """Every count of one trace: 4 attempts, one made before, 8 steps, 7 true, 4 verdicts, 3 right."""
    thinking = (
        "5 + 4 = 9 ; 9 + 6 = 15 no 4 + 5 = 9 ; 6 + 9 = 15 bu "
        "wait 6 * 4 = 25 ; 25 + 5 = 30 yes 5 * 6 = 30 ; 30 + 4 = 34 yes"
    )
    assert measure(thinking, 34) == TraceMeasures(
        reflection=True,
        language_consistency=0.8,
        attempts=4,
        repeated_attempts=1,
        steps=8,
        valid_steps=7,
        verdicts=4,
        valid_verdicts=3,
        regular=True,
    )


def test_verdicts_need_a_target() -> None:
    """Without the target no verdict is counted; a no that should be yes is invalid."""
    assert measure("5 + 4 = 9 yes").verdicts == 0
    assert (measure("5 + 4 = 9 no", 9).verdicts, measure("5 + 4 = 9 no", 9).valid_verdicts) == (1, 0)


@pytest.mark.parametrize(
    ("thinking", "reflection"),
    [
        ("5 + 4 = 9 no", False),
        ("5 + 4 = 9 no 5 + 6 = 11 no", True),
        ("5 + 4 = 9 5 + 6 = 11 no", False),
        ("5 + 4 = 9 wait", True),
        ("5 + 4 = 9 yes", False),
    ],
)
def test_reflection(thinking: str, reflection: bool) -> None:
    """A word of reflection, or going on after a failed attempt; stopping at one is none."""
    assert measure(thinking, 9).reflection is reflection


@pytest.mark.parametrize(
    ("text", "reflection"),
    [
        ("Wait, that is not right.", True),
        ("Let me double-check this.", True),
        ("We re-examine and reconsidered", True),
        ("Alternatively, add them.", True),
        ("等一下", True),
        ("The waiter serves 5 tables, however many there are.", False),
        ("Add 5 and 4.", False),
    ],
)
def test_free_text(text: str, reflection: bool) -> None:
    """Text outside the grammar is searched for words of reflection, and nothing else is claimed about it."""
    assert reflects(text) is reflection
    measures = measure(text, 9)
    assert (measures.reflection, measures.attempts, measures.steps, measures.verdicts) == (
        reflection,
        None,
        0,
        0,
    )


WORDS = [word for word in VOCABULARY if not word.isdigit()] + ["5", "4", "9", "5 + 4 = 9"] * 10


@given(st.one_of(st.text(), st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join)))
def test_any_text(text: str) -> None:
    """Counting never raises, and no part is larger than its whole."""
    measures = measure(text, 9)
    attempts = measures.attempts or 0
    assert 0 <= measures.repeated_attempts <= max(attempts - 1, 0)
    assert 0 <= measures.valid_steps <= measures.steps
    assert 0 <= measures.valid_verdicts <= measures.verdicts <= attempts <= measures.steps
