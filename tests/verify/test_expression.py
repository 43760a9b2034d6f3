"""Arithmetic written by a model: exact, bounded, and never executed."""

import time
from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1pipe.verify.expression import MAX_DEPTH, MAX_LENGTH, ExpressionError, evaluate


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("34", 34),
        ("( 5 * 6 ) + 4", 34),
        ("(5*6)+4", 34),
        ("2 - 3 - 4", -5),
        ("24 / 4 / 2", 3),
        ("2 + 3 * 4", 14),
        ("8 / ( 3 - 8 / 3 )", 24),
        ("1 / 3", Fraction(1, 3)),
        ("- 3 + 5", 2),
        ("5 * - 3", -15),
        ("5 × 6 ÷ 3 − 1", 9),
        ("007", 7),
    ],
)
def test_value(text: str, value: Fraction | int) -> None:
    """Precedence, associativity, signs and typographic operators are as in mathematics, division exact."""
    assert evaluate(text).value == value


def test_numbers_and_text() -> None:
    """The numbers come in the order written, and spellings that differ in white space share one text."""
    expression = evaluate(" (5*6)  +4")
    assert expression.numbers == (5, 6, 4)
    assert expression.text == evaluate("( 5 * 6 ) + 4").text == "( 5 * 6 ) + 4"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("5 / ( 3 - 3 )", "division by zero"),
        ("1234567", "number too large"),
        ("9 ** 9 ** 9", "not an expression"),
        ("5 + 4 = 9", "not an expression"),
        ("5 6", "not an expression"),
        ("( 5", "not an expression"),
        ("5 )", "not an expression"),
        ("5 +", "not an expression"),
        ("- - 5", "not an expression"),
        ("1.5 + 2", "not an expression"),
        ("٣ + 4", "not an expression"),
        ("__import__('os')", "not an expression"),
        ("(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1), "too deep"),
        ("1+" * MAX_LENGTH + "1", "too long"),
    ],
)
def test_refused(text: str, reason: str) -> None:
    """What is no expression of the grammar is refused with a reason that can be counted."""
    with pytest.raises(ExpressionError, match=reason):
        evaluate(text)


def test_deepest_allowed() -> None:
    """The bound on depth is the depth that is still read."""
    assert evaluate("(" * MAX_DEPTH + "7" + ")" * MAX_DEPTH).value == 7


Tree = tuple[str, Fraction | None, tuple[int, ...]]
"""Text, value (None where it divides by zero), and numbers."""


def _join(left: Tree, sign: str, right: Tree) -> Tree:
    text, numbers = f"({left[0]}) {sign} ({right[0]})", left[2] + right[2]
    if left[1] is None or right[1] is None or (sign == "/" and right[1] == 0):
        return text, None, numbers
    operations = {
        "+": left[1] + right[1],
        "-": left[1] - right[1],
        "*": left[1] * right[1],
        "/": left[1] / (right[1] or 1),
    }
    return text, operations[sign], numbers


_TREES = st.recursive(
    st.integers(0, 999999).map(lambda n: (str(n), Fraction(n), (n,))),
    lambda trees: st.builds(_join, trees, st.sampled_from("+-*/"), trees),
    max_leaves=8,
)


@given(_TREES)
def test_agrees_with_fractions(tree: Tree) -> None:
    """Any tree of operations has the value that exact fractions give it, or divides by zero where they do."""
    text, value, numbers = tree
    if value is None:
        with pytest.raises(ExpressionError, match="division by zero"):
            evaluate(text)
    else:
        expression = evaluate(text)
        assert (expression.value, expression.numbers) == (value, numbers)


@given(st.one_of(st.text(), st.text(alphabet="0123456789+-*/() ", max_size=MAX_LENGTH + 10)))
def test_any_text_ends_quickly(text: str) -> None:
    """Whatever the text, reading it ends at once, in a value or in an ExpressionError and nothing else."""
    started = time.process_time()
    try:
        evaluate(text)
    except ExpressionError as error:
        assert str(error)
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize("text", ["9*" * 199 + "9", "999999*" * 57 + "1", "(" * 399, "1/" * 199 + "1"])
def test_longest_expressions_end_quickly(text: str) -> None:
    """The costliest texts within the bound on length take milliseconds."""
    started = time.process_time()
    with suppress(ExpressionError):
        evaluate(text)
    assert time.process_time() - started < 0.5
