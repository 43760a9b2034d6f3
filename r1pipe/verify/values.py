"""Answers that need no algebra: numbers, words, letters, and lists, tuples, sets and intervals of them."""

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final, TypeAlias

from r1pipe.verify.notation import bare, enclosed, is_name, named, split, unwrapped, words
from r1pipe.verify.numbers import Quantity, quantity

DIGITS: Final = 4
"""Significant digits that a decimal needs to be taken for a fraction that no decimal is equal to."""
_NOISE: Final = Fraction(1, 10**10)
"""Relative difference of two decimals that only binary arithmetic makes."""
_NOISY: Final = 12
"""Significant digits of a decimal that somebody's arithmetic wrote."""
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
        """`tuple`, `interval` or `list`; a set is a list, and so are square brackets around more than two."""
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
    if name and gold and not is_name(name):
        return None
    value = _value(rest, gold, deep)
    name, arguments = _ARGUMENT.subn("(.)", bare(name))
    if value is None or (arguments and isinstance(value, str)):  # f(x) = x, and so f(z) = z
        return None
    return Named(name, value, rest)


_ARGUMENT: Final = re.compile(r"(?<=^[a-zA-Z])\([a-z]\)$")


def _value(text: str, gold: bool, deep: int) -> Value | None:
    found = quantity(text) or _clock(text) or words(text)
    if found is not None or not deep or not text:
        return found
    if text.startswith("\\pm"):
        return _both_signs(text)
    opening, content, closing = enclosed(text) or ("", unwrapped(text), "")
    parts = split(content)
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


def _both_signs(text: str) -> Several | None:
    one = quantity(text.removeprefix("\\pm").strip())
    if one is None:
        return None
    both = (one, replace(one, value=-one.value))
    return Several("{", "}", tuple(Named("", each, "") for each in both))


_COMMA: Final = re.compile(r"([-+]?\d+),(\d+)(\D.*)?", re.ASCII)
_THOUSANDS: Final = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+", re.ASCII)


def _readings(gold: Named, answer: Named) -> list[tuple[Value, Value]]:
    """The two as read, and once more where one explains the other's comma: `3,5` is 3.5 beside a decimal
    and a list beside a list, and `100,200` is a list beside one."""
    pairs = [(gold.value, answer.value)]
    for one, other in ((gold, answer), (answer, gold)):
        again = _with_comma(one, other)
        if again is not None:
            pairs.append((again, answer.value) if one is gold else (gold.value, again))
    return pairs


def _with_comma(one: Named, other: Named) -> Quantity | Several | None:
    if isinstance(one.value, Several) and isinstance(other.value, Quantity) and other.value.places:
        match = _COMMA.fullmatch(one.text)
        return quantity(f"{match[1]}.{match[2]}{match[3] or ''}") if match else None
    listed = isinstance(one.value, Quantity) and isinstance(other.value, Several)
    if listed and _THOUSANDS.fullmatch(one.text):
        parts = [(part, quantity(part)) for part in one.text.split(",")]
        return Several("", "", tuple(Named("", each, part) for part, each in parts if each))
    return None


def _same(gold: Value, answer: Value) -> bool:
    if isinstance(gold, Quantity) and isinstance(answer, Quantity):
        return _same_quantity(gold, answer)
    if isinstance(gold, Several) and isinstance(answer, Several):
        return _same_several(gold, answer)
    return gold == answer


def _same_several(gold: Several, answer: Several) -> bool:
    kinds = {gold.kind, answer.kind}
    if "interval" in kinds and (gold.opening, gold.closing) != (answer.opening, answer.closing):
        return False
    one_by_one = kinds != {"list"} or (gold.named_apart and not any(part.name for part in answer.parts))
    if one_by_one:
        return len(gold.parts) == len(answer.parts) and all(map(same, gold.parts, answer.parts))
    return _covers(gold.parts, answer.parts) and _covers(answer.parts, gold.parts, turned=True)


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
    noisy = max(each.digits if each.places else 0 for each in (gold, answer)) >= _NOISY
    return noisy and abs(gold.value - answer.value) <= _NOISE * abs(gold.value)


def _endless(value: Fraction) -> bool:
    """Whether no decimal is equal to it."""
    below = value.denominator
    for prime in (2, 5):
        while below % prime == 0:
            below //= prime
    return below != 1
