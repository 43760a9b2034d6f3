"""Arithmetic written by a model, read without `eval`.

The grammar, over decimal integers of at most six digits:

    expression = term { ("+" | "-") term }
    term       = factor { ("*" | "/") factor }
    factor     = [ "-" ] ( integer | "(" expression ")" )

Values are exact fractions. Length and depth are bounded, so a reading ends at once whatever the text is;
there are no powers, because `9**9**9**9` once hung every grader that used `eval`.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

MAX_LENGTH: Final = 400
"""Characters in an expression; the longest honest answer over six numbers is a tenth of that."""
MAX_DEPTH: Final = 30
"""Parentheses inside parentheses; keeps the recursion far from the interpreter's own limit."""
MAX_DIGITS: Final = 6

_TOKEN: Final = re.compile(r"\s*([0-9]+|[-+*/()])", re.ASCII)
_TYPOGRAPHIC: Final = str.maketrans("\u00d7\u00b7\u00f7\u2212", "**/-")  # as print and LLMs write them


class ExpressionError(ValueError):
    """The text is not an expression of this grammar; the message says why in a few words."""


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression that was read."""

    value: Fraction
    numbers: tuple[int, ...]
    """The integers in it, in the order they were written."""
    text: str
    """The expression with one space between tokens, which equal spellings share."""


def evaluate(text: str) -> Expression:
    """Read `text` as exact arithmetic.

    >>> evaluate("(5*6)+4")
    Expression(value=Fraction(34, 1), numbers=(5, 6, 4), text='( 5 * 6 ) + 4')

    Raises:
        ExpressionError: the text is no expression, is too long or too deep, or divides by zero.
    """
    tokens = _tokens(text)
    reader = _Reader(tokens)
    value = reader.expression(depth=0)
    if reader.token is not None:
        raise ExpressionError("not an expression")
    return Expression(value, tuple(int(t) for t in tokens if t.isdigit()), " ".join(tokens))


def _tokens(text: str) -> list[str]:
    if len(text) > MAX_LENGTH:
        raise ExpressionError("too long")
    text = text.translate(_TYPOGRAPHIC).rstrip()
    tokens, position = [], 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ExpressionError("not an expression")
        if len(match[1]) > MAX_DIGITS:
            raise ExpressionError("number too large")
        tokens.append(match[1])
        position = match.end()
    if not tokens:
        raise ExpressionError("empty")
    return tokens


class _Reader:
    """Recursive descent over a list of tokens; `token` is the next one, None at the end."""

    def __init__(self, tokens: list[str]) -> None:
        self._rest = iter(tokens)
        self.token = next(self._rest, None)

    def _take(self) -> str | None:
        token, self.token = self.token, next(self._rest, None)
        return token

    def expression(self, depth: int) -> Fraction:
        value = self._term(depth)
        while self.token in ("+", "-"):
            sign = self._take()
            operand = self._term(depth)
            value = value + operand if sign == "+" else value - operand
        return value

    def _term(self, depth: int) -> Fraction:
        value = self._factor(depth)
        while self.token in ("*", "/"):
            sign = self._take()
            operand = self._factor(depth)
            if sign == "/" and operand == 0:
                raise ExpressionError("division by zero")
            value = value * operand if sign == "*" else value / operand
        return value

    def _factor(self, depth: int) -> Fraction:
        token = self._take()
        if token == "-":
            token = self._take()
            return -self._atom(token, depth)
        return self._atom(token, depth)

    def _atom(self, token: str | None, depth: int) -> Fraction:
        if token is not None and token.isdigit():
            return Fraction(int(token))
        if token != "(":
            raise ExpressionError("not an expression")
        if depth == MAX_DEPTH:
            raise ExpressionError("too deep")
        value = self.expression(depth + 1)
        if self._take() != ")":
            raise ExpressionError("not an expression")
        return value
