"""Numbers as people write them, read exactly, with the unit, percent sign or base beside them."""

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

from r1pipe.verify.notation import tidy

MAX_DIGITS: Final = 100
"""Characters of a number that is asked for as one."""
MAX_CHARACTERS: Final = 1000
"""Of a number that is compared with another; Python itself refuses to read much longer ones."""
_MAX_EXPONENT: Final = 400

_DIGITS: Final = r"(?:[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d{0,2}(?: \d{3})+|\d+)"
UNSIGNED: Final = rf"(?:{_DIGITS}(?:\.\d+)?|\.\d+)"
_BARE: Final = re.compile(
    rf"([-+]?) ?(?:"
    rf"(?P<fixed>\d*)\.(?P<first>\d*)\\overline ?\{{(?P<again>\d+)\}}"
    rf"|(?P<whole>\d+) ?(?:\\frac\{{(?P<top>\d+)\}}\{{(?P<under>\d+)\}}"
    rf"|(?<=\d )(?P<top2>\d+) ?/ ?(?P<under2>\d+))"
    rf"|\\frac ?\{{ ?(?P<above>-?{UNSIGNED}) ?\}} ?\{{ ?(?P<below>-?{UNSIGNED}) ?\}}"
    rf"|(?P<value>{UNSIGNED})(?: ?(?:/|\\div) ?(?P<divisor>{UNSIGNED})"
    rf"|(?: ?(?:\\times|\\cdot|\*|x) ?10 ?\^ ?|[eE])(?:\{{(?P<power>-?\d+)\}}|(?P<power2>[-+]?\d+)))?"
    rf"|10 ?\^ ?(?:\{{(?P<ten>-?\d+)\}}|(?P<ten2>-?\d+))"
    rf")",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number and what stands beside it."""

    value: Fraction
    """Of 50% it is 50."""
    places: int | None = None
    """Digits after the point of a number written as a decimal; None for a fraction."""
    digits: int = 0
    """Significant digits of a decimal."""
    percent: bool = False
    unit: str = ""
    """In one spelling where it is known, such as `cm^2`; empty for other words, which may count anything."""
    base: str = ""
    """The base it is written in, if that is said; its value is then that of its digits read in base ten."""


def number(text: str) -> Fraction | None:
    """The number that `text` is, exactly, or None: `12`, `0.5`, `1,200`, `3/4`, `\\frac{3}{4}`, `$5`."""
    text = tidy(text)
    found = _read(text) if len(text) <= MAX_DIGITS else None
    return None if found is None else found.value


def quantity(text: str) -> Quantity | None:
    """The number with a unit, percent sign or base that a tidied text is, or None."""
    if len(text) > MAX_CHARACTERS:
        return None
    match = _BARE.match(text)
    if match is None:
        return Quantity(Fraction(_SPELLED[text.lower()])) if text.lower() in _SPELLED else None
    if match.end() == len(text):
        return _read(text)
    beside = _BESIDE.fullmatch(text, match.end())
    found = _read(match[0])
    if beside is None or found is None:
        return None
    if beside["base"] or beside["base2"]:
        return Quantity(found.value, base=beside["base"] or beside["base2"]) if found.places == 0 else None
    percent = beside["percent"] is not None
    if percent or beside["degree"]:
        return Quantity(found.value, found.places, found.digits, percent, "deg" if beside["degree"] else "")
    return _counted(found, beside["text"], beside["word"], beside["exponent"] or beside["exponent2"])


def _read(text: str) -> Quantity | None:
    match = _BARE.fullmatch(text)
    if match is None:
        return None
    found = match.groupdict()
    sign = -1 if match[1] == "-" else 1
    if found["value"] is not None:
        return _decimal_or_quotient(found, sign)
    value: Fraction | None
    if found["whole"] is not None:
        part = _quotient(found["top"] or found["top2"], found["under"] or found["under2"])
        # 3\frac{5}{4} is a product, or nothing that anybody writes
        value = Fraction(found["whole"]) + part if part is not None and part < 1 else None
    elif found["above"] is not None:
        value = _quotient(found["above"], found["below"])
    elif found["again"] is not None:
        value = _repeating(found["fixed"], found["first"], found["again"])
    else:
        value = _scaled(Fraction(1), found["ten"] or found["ten2"])
    return None if value is None else Quantity(sign * value)


def _decimal_or_quotient(found: dict[str, str | None], sign: int) -> Quantity | None:
    text = re.sub("[, ]", "", found["value"] or "")
    power = found["power"] or found["power2"]
    if power is not None:
        value = _scaled(Fraction(text), power)
        return None if value is None else Quantity(sign * value)
    if found["divisor"] is not None:
        value = _quotient(text, found["divisor"])
        return None if value is None else Quantity(sign * value)
    places = len(text.partition(".")[2])
    return Quantity(sign * Fraction(text), places, len(text.replace(".", "").lstrip("0")))


def _quotient(above: str | None, below: str | None) -> Fraction | None:
    top, under = (Fraction(re.sub("[, ]", "", each or "0")) for each in (above, below))
    return top / under if under else None


def _scaled(value: Fraction, power: str | None) -> Fraction | None:
    exponent = int(power or 0)
    return value * Fraction(10) ** exponent if abs(exponent) <= _MAX_EXPONENT else None


def _repeating(fixed: str | None, first: str | None, again: str | None) -> Fraction:
    whole, first, again = fixed or "0", first or "", again or "0"
    period = Fraction(int(again), 10 ** len(again) - 1) / 10 ** len(first)
    return Fraction(int(whole + first), 10 ** len(first)) + period


# --- Beside the number

_BESIDE: Final = re.compile(
    r" ?(?:(?P<percent>%|(?:\\text\{ ?)?(?:percent|percentage|pct)(?: ?\})?)"
    r"|_(?:(?P<base>\d)|\{ ?(?P<base2>\d\d?) ?\})"
    r"|(?P<degree>\^\\circ ?(?:\\text\{ ?[CF] ?\}|[CF])?)"
    r"|\\text\{(?P<text>[^{}\d]*)\}(?:\^\{?(?P<exponent>[23])\}?)?"
    r"|(?P<word>[a-zA-Z][a-zA-Z./]+(?: [a-zA-Z.']+){0,3})(?:\^\{?(?P<exponent2>[23])\}?)?)",
    re.ASCII,
)
_SAYING_MORE: Final = (
    "and or not to is if than plus minus times over divided by mod base choose factorial root sqrt pi "
    "squared cubed half halves halfs third thirds quarter quarters maybe perhaps wrong less more "
    "fewer negative below above inverse reciprocal opposite doubled tripled halved twice thrice point "
    "except excluded excluding versus through until unless then else but true false yes no nope "
    "impossible undefined unknown imaginary remainder modulo power powers exponent sine cosine "
    "tangent logarithm without score googol infinity roughly almost nearly beyond"
)
_NO_UNIT: Final = frozenset(_SAYING_MORE.split())
"""Words that say more than what is counted; `5 or more` and `5 factorial` are not 5."""
_PART: Final = re.compile(
    r"(?:four|fif|six|seven|eigh|nin|ten|eleven|twelf|\w+teen|(?:twen|thir|for|fif|six|seven|eigh|nine)tie"
    r"|hundred|thousand|million|billion|trillion)ths?"
)
"""`5 sixths` is a fraction, `5 sixth` perhaps one."""
_SCALES: Final = {
    "ten": 10, "dozen": 12, "gross": 144, "hundred": 10**2, "thousand": 10**3, "lakh": 10**5,
    "million": 10**6, "crore": 10**7, "billion": 10**9, "trillion": 10**12,
    "quadrillion": 10**15, "quintillion": 10**18,
}  # fmt: skip
_POWER: Final = {"square": "^2", "sq": "^2", "squared": "^2", "cubic": "^3", "cu": "^3", "cubed": "^3"}
_KNOWN: Final = {
    spelling: unit
    for unit, spellings in {
        "mm": "mm millimeter millimetre",
        "cm": "cm centimeter centimetre",
        "m": "m meter metre",
        "km": "km kilometer kilometre",
        "in": "in inch inche",
        "ft": "ft foot feet",
        "yd": "yd yard",
        "mi": "mi mile",
        "mg": "mg milligram",
        "g": "g gram",
        "kg": "kg kilogram",
        "lb": "lb lbs pound",
        "oz": "oz ounce",
        "ml": "ml milliliter millilitre",
        "l": "l liter litre",
        "gal": "gal gallon",
        "s": "s sec second",
        "min": "min minute",
        "h": "h hr hour",
        "day": "day",
        "week": "week",
        "month": "month",
        "year": "year yr",
        "cent": "cent",
        "dollar": "dollar usd buck",
        "euro": "euro",
        "mph": "mph",
        "m/s": "m/s",
        "km/h": "km/h kph kmh",
        "deg": "degree deg",
        "rad": "radian rad",
    }.items()
    for spelling in spellings.split()
}  # fmt: skip
_WORDS: Final = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
)
_SPELLED: Final = {word: value for value, word in enumerate(_WORDS.split())}


def _counted(number: Quantity, text: str | None, word: str | None, exponent: str | None) -> Quantity | None:
    """The number with the words beside it, or None where they are a factor or another answer."""
    found = _split(text or word)
    scale = _scale(found[0]) if found else None
    if scale is not None:
        return _counted(Quantity(number.value * scale), " ".join(found[1:]), None, exponent)
    known = unit(text or word or "")
    if not known and any(map(_says_more, found)):
        return None
    if word is not None and not known and (len(found[0]) < 4 or "/" in word):
        return None
    if text is not None and found and len(found[0]) < 2 and not known:
        return None
    return replace(number, unit=known + (f"^{exponent}" if known and exponent else ""))


def _scale(word: str) -> int | None:
    return _SCALES.get(word) or _SCALES.get(word.removesuffix("s"))


def _says_more(word: str) -> bool:
    """Whether a word beside a number makes another one of it, or another answer."""
    return word in _NO_UNIT or word in _SPELLED or _scale(word) is not None or bool(_PART.fullmatch(word))


def _split(text: str | None) -> list[str]:
    return (text or "").lower().replace(".", " ").split()


def unit(text: str) -> str:
    """The unit that words name, in its one spelling, such as `in^2`; nothing for any other words."""
    power, name = "", ""
    for word in _split(text):
        if word in _POWER:
            power = _POWER[word]
        elif name or not (name := _KNOWN.get(word) or _KNOWN.get(word.removesuffix("s"), "")):
            return ""
    return name + power if name else ""


_ENDING: Final = re.compile(
    r"(?P<rest>.*[\w})]) ?(?:\\text\{ ?(?P<text>[^{}\d]*)\}|(?<![a-zA-Z\\])(?P<word>[a-zA-Z.]{2,}))"
    r"(?:\^\{?(?P<exponent>[23])\}?)?",
    re.ASCII,
)


def split_unit(text: str) -> tuple[str, str]:
    r"""(formula, unit) of a tidied text: `3\sqrt{13}\text{ cm}` is the formula in `cm`.

    Words in `\text{}` that are no known unit are taken off too, unless they join what is said; other words
    only if they are one.
    """
    match = _ENDING.fullmatch(text)
    if match is None:
        return text, ""
    found = _split(match["text"] or match["word"])
    known = unit(match["text"] or match["word"] or "")
    if any(map(_says_more, found)) or (not known and (match["word"] or len("".join(found)) < 2)):
        return text, ""
    return match["rest"].strip(), known + (f"^{match['exponent']}" if match["exponent"] and known else "")
