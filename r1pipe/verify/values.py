"""Answers that need no algebra: numbers, words, letters, and lists, tuples, sets and intervals of them."""

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final, TypeAlias

from r1pipe.verify.expression import ExpressionError, evaluate
from r1pipe.verify.notation import (
    bare,
    chain,
    enclosed,
    is_named,
    named,
    named_right,
    split,
    unwrapped,
    words,
)
from r1pipe.verify.numbers import Quantity, quantity

DIGITS: Final = 4
"""Significant digits that a decimal needs to be taken for a fraction that no decimal is equal to."""
_NOISE: Final = Fraction(1, 10**10)
"""Relative difference of two decimals that only binary arithmetic makes."""
_NOISY: Final = 12
"""Significant digits of a decimal that somebody's arithmetic wrote."""
_EXACT: Final = 10
"""Significant digits that are all meant; a number of more is not taken for another one."""
_DEEPEST: Final = 4
_MOST: Final = 100


@dataclass(frozen=True, slots=True)
class Several:
    """More than one value, and what encloses them."""

    opening: str
    """`(`, `[`, `{` or nothing."""
    closing: str
    parts: "tuple[Named, ...]"

    @property
    def kind(self) -> str:
        """`tuple`, `ratio`, `interval` or `list`; a set is a list, and square brackets around three too."""
        if self.opening == ":":
            return "ratio"
        if self.opening == "(" and self.closing == ")":
            return "tuple"
        if "[" in (self.opening, self.closing) or "]" in (self.opening, self.closing):
            return "list" if self.opening + self.closing == "[]" and len(self.parts) > 2 else "interval"
        return "list"

    @property
    def named_apart(self) -> bool:
        """Whether each has a name of its own, as in `w = 16, d = 3`."""
        names = {part.name for part in self.parts}
        return "" not in names and len(names) == len(self.parts)


@dataclass(frozen=True, slots=True)
class Named:
    """A value and the name it was given, as in `x = 5`; mostly none."""

    name: str
    value: "Value"
    text: str
    """As it was written, without the name."""


Value: TypeAlias = Quantity | str | Several
"""A number, words or a letter, or several of them."""


def read(text: str, *, gold: bool = False) -> Named | None:
    """What a tidied text says, or None where that takes algebra.

    On the left of a right answer's equation only a name is taken for one: `2x + z = 1` is not 1.
    """
    return _named(text, gold, _DEEPEST)


def same(gold: Named, answer: Named) -> bool:
    """Whether an answer says what the right one does; the rules stand in `docs/verdicts.md`."""
    if gold.name and answer.name and gold.name != answer.name:
        return False
    return any(_same(*pair) for pair in _readings(gold, answer))


def _named(text: str, gold: bool, deep: int) -> Named | None:
    name, rest = named(text) if len(split(text)) == 1 else ("", text)
    if name and not (named_right(text) if gold else _says_one(text, rest)):
        return None
    value = _value(rest, gold, deep)
    name, arguments = _ARGUMENT.subn("(.)", bare(name))
    if value is None or (arguments and isinstance(value, str)):  # f(x) = x, and so f(z) = z
        return None
    return Named(name, value, rest)


def _says_one(text: str, right: str) -> bool:
    """Whether the left of an answer's equation is a name for the right side, or the same number."""
    first, *between, end = chain(text) if "=" in text else ["", text]
    if is_named(end) and end != right:
        return True  # 4 = x
    last, middle = _worked_out(right), [_worked_out(side) for side in between]
    if any(value is not None and value != last for value in middle):
        return False
    return is_named(first) or (last is not None and _worked_out(first) == last)


def _worked_out(text: str) -> Fraction | None:
    """The number that a text or its arithmetic is."""
    found = quantity(text)
    if found is not None:
        return found.value
    try:
        return evaluate(_SIGNS.sub(lambda match: _SIGN[match[0]], text)).value
    except ExpressionError:
        return None


_SIGN: Final = {"\\times": "*", "\\cdot": "*", "\\div": "/"}
_SIGNS: Final = re.compile(r"\\(?:times|cdot|div)(?![a-z])")
_ARGUMENT: Final = re.compile(r"(?<=^[a-zA-Z])\([a-z]\)$")


def _value(text: str, gold: bool, deep: int) -> Value | None:
    found = quantity(text) or _clock(text) or _date(text) or words(text) or _ratio(text)
    if found is not None or not deep or not text:
        return found
    if text.startswith("\\pm"):
        return _both_signs(text)
    opening, content, closing = enclosed(text) or ("", unwrapped(text), "")
    parts = [content] if _THOUSANDS.fullmatch(content) and ",0" in content else split(content)
    if len(parts) == 1:
        return _value(content, gold, deep - 1) if content != text else None
    if len(parts) > _MOST:
        return None
    several = []
    for part in parts:
        each = _named(part, gold, deep - 1)
        if each is None:
            return None
        several.append(each)
    return Several(opening, closing, tuple(several))


_CLOCK: Final = re.compile(
    r"(\d{1,2}) ?: ?([0-5]\d)(?: ?: ?([0-5]\d))? ?(?:\\text\{ ?)?([ap])?(?:\.?m\.?)?(?: ?\})?", re.ASCII
)


def _clock(text: str) -> str | None:
    """A time of day in one spelling. `7:32` may be a ratio; `7:05` and `7:32 pm` are none."""
    match = _CLOCK.fullmatch(text)
    if match is None or not (match[2].startswith("0") or match[3] or match[4]):
        return None
    return ":".join(each for each in match.groups() if each)


_DATE: Final = re.compile(r"\d{4}-\d{1,2}-\d{1,2}|\d{1,2}/\d{1,2}/\d{4}", re.ASCII)


def _date(text: str) -> str | None:
    return text if _DATE.fullmatch(text) else None


def _ratio(text: str) -> Several | None:
    """A ratio of three numbers and more, with 1 for the first that is not zero; of two it is a quotient."""
    parts = [quantity(part.strip()) for part in text.split(":")] if text.count(":") > 1 else []
    found = [part for part in parts if part is not None and not part.unit]
    by = next((part.value for part in found if part.value), None)
    if by is None or len(found) < len(parts):
        return None
    return Several(":", "", tuple(Named("", replace(part, value=part.value / by), "") for part in found))


def _both_signs(text: str) -> Several | None:
    one = quantity(text.removeprefix("\\pm").strip())
    if one is None:
        return None
    both = (one, replace(one, value=-one.value))
    return Several("{", "}", tuple(Named("", each, "") for each in both))


_COMMA: Final = re.compile(r"([-+]?\d+),(\d+)(\D.*)?", re.ASCII)
_SURE_COMMA: Final = re.compile(r"[-+]?\d+,\d{2,}", re.ASCII)
"""In a right answer: `3,4` is rather two numbers than 3.4."""
_THOUSANDS: Final = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+", re.ASCII)


def _readings(gold: Named, answer: Named) -> list[tuple[Value, Value]]:
    """The two as read, and once more where one explains the other's comma: `3,5` is 3.5 beside a decimal
    in the right answer and a list beside a list, and `100,200` is a list beside one."""
    pairs = [(gold.value, answer.value)]
    if isinstance(answer.value, Several) and isinstance(gold.value, Quantity):
        if gold.value.places and (again := _with_point(answer.text)):
            pairs.append((gold.value, again))
        if listed := _without_thousands(gold.text):
            pairs.append((listed, answer.value))
    decimal = isinstance(gold.value, Several) and isinstance(answer.value, Quantity) and answer.value.places
    if decimal and _SURE_COMMA.fullmatch(gold.text) and (again := _with_point(gold.text)):
        pairs.append((again, answer.value))
    if isinstance(gold.value, Several) and (listed := _without_thousands(answer.text)):
        pairs.append((gold.value, listed))
    return pairs


def _with_point(text: str) -> Quantity | None:
    match = _COMMA.fullmatch(text)
    return quantity(f"{match[1]}.{match[2]}{match[3] or ''}") if match else None


def _without_thousands(text: str) -> Several | None:
    if not _THOUSANDS.fullmatch(text) or ",0" in text:
        return None
    parts = [(part, quantity(part)) for part in text.split(",")]
    return Several("", "", tuple(Named("", each, part) for part, each in parts if each))


def _same(gold: Value, answer: Value) -> bool:
    if isinstance(gold, Quantity) and isinstance(answer, Quantity):
        return _same_quantity(gold, answer)
    if isinstance(gold, Several) and isinstance(answer, Several):
        return _same_several(gold, answer)
    return gold == answer


def _same_several(gold: Several, answer: Several) -> bool:
    kinds = {gold.kind, answer.kind}
    if len(kinds) > 1 and "ratio" in kinds:
        return False
    if "interval" in kinds and (gold.opening, gold.closing) != (answer.opening, answer.closing):
        return False
    ordered = kinds != {"list"} or gold.opening == answer.opening == "["
    one_by_one = ordered or (gold.named_apart and not any(part.name for part in answer.parts))
    if one_by_one:
        return len(gold.parts) == len(answer.parts) and all(map(same, gold.parts, answer.parts))
    points = all(isinstance(part.value, Several) for part in (*gold.parts, *answer.parts))
    if points or "{" in (gold.opening, answer.opening):
        return _covers(gold.parts, answer.parts) and _covers(answer.parts, gold.parts, turned=True)
    return _match(gold.parts, answer.parts)


def _match(gold: tuple[Named, ...], answer: tuple[Named, ...]) -> bool:
    """Whether each of these is one of those, and each of those one of these."""
    left = list(answer)
    for one in gold:
        found = next((each for each in left if same(one, each)), None)
        if found is None:
            return False
        left.remove(found)
    return not left


def _covers(these: tuple[Named, ...], those: tuple[Named, ...], turned: bool = False) -> bool:
    """Whether each of these is among those."""
    return all(any(same(two, one) if turned else same(one, two) for two in those) for one in these)


def _same_quantity(gold: Quantity, answer: Quantity) -> bool:
    if gold.unit and answer.unit and gold.unit != answer.unit:
        return False
    if gold.base and answer.base and gold.base != answer.base:
        return False
    if gold.percent == answer.percent:
        return _equal(gold, answer)
    worked_out = [replace(each, value=each.value / 100) if each.percent else each for each in (gold, answer)]
    return _equal(gold, answer) or worked_out[0].value == worked_out[1].value


def _equal(gold: Quantity, answer: Quantity) -> bool:
    if gold.value == answer.value:
        return True
    for fraction, decimal in ((gold, answer), (answer, gold)):
        exact = fraction.places is None and decimal.places and decimal.digits >= DIGITS
        if exact and _endless(fraction.value):
            return round(fraction.value, decimal.places or 0) == decimal.value
    short, long = sorted((gold, answer), key=lambda each: each.digits)
    noisy = long.places and long.digits >= _NOISY and short.digits <= _EXACT and short.places is not None
    near = abs(gold.value - answer.value) <= _NOISE * abs(gold.value)
    return bool(noisy) and near and round(long.value, short.places or 0) == short.value


def _endless(value: Fraction) -> bool:
    """Whether no decimal is equal to it."""
    below = value.denominator
    for prime in (2, 5):
        while below % prime == 0:
            below //= prime
    return below != 1
