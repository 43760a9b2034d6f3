"""A text as hashes of its words: what deduplication and decontamination compare.

No loop goes over the words: a word's hash is a polynomial over its characters, the difference of two prefix
sums scaled back to where the word begins, and an n-gram's hash is the same over the hashes of its words.
All arithmetic is modulo 2^64, which is how numpy's unsigned integers wrap.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import xxhash

Hashes: TypeAlias = npt.NDArray[np.uint64]
Places: TypeAlias = npt.NDArray[np.int64]

_BLANK, _LETTER, _DIGIT, _ALONE, _SIGN = range(5)
"""What a character is: a gap; part of a word; part of a number; a word by itself; an operator, which is no
word and yet tells one formula from another."""
_SIGNS: Final = "+-*/=<>^_!%|&~()[]"
_LIKE: Final = dict(zip("−–×·⋅∗÷∕≤≥", "--****//<>", strict=True))  # noqa: RUF001
"""Signs that are written in several ways; LaTeX's names for them are words."""
_DELIMITERS: Final = r"()[]!|"
"""After a backslash these open and close formulas, or are space."""
_ALONE_FROM_TO: Final = (
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF)),  # Thai and Lao, Burmese, Khmer
    *((0x3005, 0x3007), (0x3040, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF)),  # CJK
    *((0xF900, 0xFAFF), (0x20000, 0x323AF)),
)
"""Scripts that put no space between words, as ranges of code points."""
_SPACELESS: Final = re.compile("[" + "".join(f"{chr(a)}-{chr(b)}" for a, b in _ALONE_FROM_TO) + "]")
_UNIFORM: Final = (
    *((0x3400, 0x4DBF, _ALONE), (0x4E00, 0x9FFF, _ALONE), (0xAC00, 0xD7A3, _LETTER)),  # Han and Hangul
    *((0xD800, 0xF8FF, _BLANK), (0x20000, 0x2F7FF, _ALONE), (0x30000, 0x323AF, _ALONE)),
)
"""Ranges of characters that are all alike and stay as they are, so that nobody need look at each."""
_ALPHABETS_END: Final = 0x32400
"""From here on there are private characters, tags and variants."""

_TYPESETTING: Final = (
    "left", "right", "big", "bigl", "bigr", "bigg", "biggl", "biggr", "displaystyle", "textstyle", "limits",
    "quad", "qquad", "text", "textbf", "textit", "textrm", "mbox", "mathrm", "mathbf", "mathit",
    "operatorname", "hspace", "vspace", "noindent",
)  # fmt: skip
"""LaTeX commands that change how a formula looks and not what it says; they are no words."""
_FRACTIONS: Final = ("dfrac", "tfrac", "cfrac")
"""LaTeX commands that say `frac`."""

_MASK: Final = 2**64 - 1
_UTF8: Final = ("utf-8", "surrogatepass")
_CHARACTER_BASE: Final = 0x9E3779B97F4A7C15
_WORD_BASE: Final = 0xD6E8FEB86659FD93
"""Odd, so that their powers have inverses modulo 2^64."""


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a text, in order."""

    text: str
    """The text that the places are in: as given, or in Unicode's compatibility form where it has letters that
    can be written in several ways."""
    hashes: Hashes
    """[n]; of letters, of digits (with a decimal point), of one character of a script without spaces."""
    starts: Places
    """[n]"""
    ends: Places
    """[n]; one past the last character."""
    exact: int
    """64 bits that are equal for texts with the same words and signs, whatever their case, spacing,
    punctuation and typesetting."""

    def between(self, first: int, end: int) -> str:
        """The text from the word `first` to the one before `end`."""
        return self.text[int(self.starts[first]) : int(self.ends[end - 1])]


def read(text: str) -> Words:
    r"""Find the words of a text.

    >>> words = read(r"Is \(\dfrac12 + X\) over 1.50?")
    >>> [words.between(at, at + 1) for at in range(len(words.hashes))]
    ['Is', 'dfrac', '12', 'X', 'over', '1.50']
    >>> words.exact == read(r"is $\frac12+x$ over 1.50").exact != read(r"is $\frac12-x$ over 1.50").exact
    True
    """
    text, characters, kinds, hashes = _characters(text)
    _read_in_context(characters, kinds)
    starts, ends = _bounds(kinds)
    found = _sums(hashes, _CHARACTER_BASE, starts, ends)
    mix(found)
    starts, ends, found = _without_typesetting(characters, starts, ends, found)
    words = (kinds.take(starts) != _SIGN).nonzero()[0]
    exact = _whole(found) if len(found) else xxhash.xxh3_64_intdigest(text.strip().encode(*_UTF8))
    return Words(text, found.take(words), starts.take(words) - 1, ends.take(words) - 1, exact)


def ngrams(hashes: Hashes, n: int) -> Hashes:
    """Hashes of the n words that begin at each place: [words] -> [words - n + 1], none where words are
    fewer."""
    count = max(0, len(hashes) - n + 1)
    before, inverses = _prefix_sums(hashes, _WORD_BASE)
    found: Hashes = before[n : n + count] - before[:count]
    found *= inverses[:count]
    mix(found)
    return found


def shingles(hashes: Hashes, n: int) -> Hashes:
    """The n-grams, or all words as one where they are fewer than n; a text without words has none."""
    return ngrams(hashes, min(n, len(hashes))) if len(hashes) else hashes


def repeated(hashes: Hashes, length: int) -> float:
    """Of the passages of so many words, four at least, the share that has come before; four words of each
    stand for all of it.

    >>> round(repeated(read("and so on we go once more " * 10).hashes, 16), 2)
    0.87
    """
    count = len(hashes) - length + 1
    if count < 1:
        return 0.0
    passages: Hashes = hashes[:count].copy()
    for third, factor in enumerate(_FACTORS, start=1):
        place = third * (length - 1) // len(_FACTORS)
        passages += hashes[place : place + count] * factor
    passages.sort()
    return float((passages[1:] == passages[:-1]).sum() / count)


_FACTORS: Final = tuple(
    np.uint64(odd) for odd in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


def mix(hashes: Hashes) -> None:
    """Let each bit depend on all others, in place (the finaliser of splitmix64, a permutation)."""
    for shift, factor in _ROUNDS:
        hashes ^= hashes >> shift
        hashes *= factor
    hashes ^= hashes >> _LAST_SHIFT


_ROUNDS: Final = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)
_LAST_SHIFT: Final = np.uint64(31)


def _mixed(number: int) -> int:
    """The same of one number, which numpy's calls would cost more than it."""
    for shift, factor in _ROUNDS:
        number ^= number >> int(shift)
        number = number * int(factor) & _MASK
    return number ^ number >> int(_LAST_SHIFT)


def among(values: Hashes, known: Hashes) -> npt.NDArray[np.bool_]:
    """Which of the values are in `known`, which is sorted and not empty."""
    places: Places = known.searchsorted(values)
    places[places == len(known)] = 0
    return known[places] == values


# --- Characters


@dataclass(frozen=True, slots=True)
class _Alphabet:
    """What is known of each code point."""

    letters: npt.NDArray[np.uint32]
    """The code point that it is compared as."""
    kinds: npt.NDArray[np.uint8]
    hashes: Hashes
    unsettled: npt.NDArray[np.bool_]
    """Whether a text with it is to be put into its compatibility form first."""


def _characters(text: str) -> tuple[str, npt.NDArray[np.uint32], npt.NDArray[np.uint8], Hashes]:
    """The text, its characters, their kinds and hashes, with a gap before and after: [n + 2]."""
    if text.isascii():
        characters = np.frombuffer(f"\0{text}\0".encode("ascii"), np.uint8)
        kinds, hashes = _ascii()
        return text, characters, kinds.take(characters), hashes.take(characters)
    alphabet = _alphabet()
    characters = _code_points(text)
    if alphabet.unsettled[characters].any():
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
        characters = _code_points(text)
    return (
        text,
        alphabet.letters.take(characters),
        alphabet.kinds.take(characters),
        alphabet.hashes.take(characters),
    )


def _code_points(text: str) -> npt.NDArray[np.uint32]:
    found = np.frombuffer(f"\0{text}\0".encode("utf-32-le", "surrogatepass"), np.uint32)
    return np.minimum(found, _ALPHABETS_END)


@cache
def _ascii() -> tuple[npt.NDArray[np.uint8], Hashes]:
    letters = [_as_one(chr(code)) for code in range(128)]
    kinds = np.array([_kind(each) for each in letters], np.uint8)
    return kinds, _hashes_of(np.array([ord(each) for each in letters], np.uint32))


@cache
def _alphabet() -> _Alphabet:
    letters: npt.NDArray[np.uint32] = np.arange(_ALPHABETS_END + 1, dtype=np.uint32)
    kinds: npt.NDArray[np.uint8] = np.zeros(len(letters), np.uint8)
    unsettled: npt.NDArray[np.bool_] = np.zeros(len(letters), bool)
    begin = 0
    for first, last, kind in (*_UNIFORM, (_ALPHABETS_END, _ALPHABETS_END, _BLANK)):
        kinds[first : last + 1] = kind
        for code in range(begin, first):
            letter = _as_one(chr(code))
            unsettled[code] = not letter or unicodedata.combining(chr(code))
            letters[code] = ord(letter or chr(code))
            kinds[code] = _kind(letter or chr(code))
        begin = last + 1
    return _Alphabet(letters, kinds, _hashes_of(letters), unsettled)


def _as_one(character: str) -> str:
    """The one character that it is compared as, or nothing where it becomes several."""
    if character in _LIKE:
        return _LIKE[character]
    if character == character.casefold() and unicodedata.is_normalized("NFKC", character):
        return character
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", character).casefold())
    if all(_kind(each) == _BLANK for each in folded) and len(folded) > 1:
        return " "  # the dots of an ellipsis
    return folded if len(folded) == 1 else ""


def _kind(character: str) -> int:
    if character in _SIGNS:
        return _SIGN
    category = unicodedata.category(character)
    if category[0] not in "LMN":
        return _BLANK
    if _SPACELESS.match(character):
        return _ALONE
    return _DIGIT if category == "Nd" else _LETTER


def _hashes_of(letters: npt.NDArray[np.uint32]) -> Hashes:
    hashes = letters.astype(np.uint64) + np.uint64(1)
    mix(hashes)
    return hashes


def _read_in_context(characters: npt.NDArray[np.uint32], kinds: npt.NDArray[np.uint8]) -> None:
    """A point between digits belongs to the number; a bracket after a backslash is no sign, nor is the mark
    of an exclamation, which follows a whole word."""
    points = (characters == ord(".")).nonzero()[0]
    if len(points):
        kinds[points[(kinds[points - 1] == _DIGIT) & (kinds[points + 1] == _DIGIT)]] = _DIGIT
    marks = (characters == ord("!")).nonzero()[0]
    if len(marks):
        before = kinds[marks - 1]
        of_a_word = (before == _LETTER) & (kinds[marks - 2] == _LETTER)
        kinds[marks[of_a_word | (before == _BLANK)]] = _BLANK
    after = (characters == ord("\\")).nonzero()[0] + 1
    if len(after):
        kinds[after[_delimiters()[np.minimum(characters[after], 128)]]] = _BLANK


@cache
def _delimiters() -> npt.NDArray[np.bool_]:
    return np.array([chr(code) in _DELIMITERS for code in range(129)])


# --- Words


def _bounds(kinds: npt.NDArray[np.uint8]) -> tuple[Places, Places]:
    """Where words and signs begin and end: each run of letters or digits, each character that stands
    alone."""
    inside = kinds[1:-1]
    filled = inside != _BLANK
    single = inside >= _ALONE
    change = inside[1:] != inside[:-1]
    begins, stops = single.copy(), single
    begins[1:] |= change
    stops[:-1] |= change
    begins[:1] = stops[-1:] = True  # beyond them there is a gap
    starts = (begins & filled).nonzero()[0]
    starts += 1
    ends = (stops & filled).nonzero()[0]
    ends += 2
    return starts, ends


def _without_typesetting(
    characters: npt.NDArray[np.uint32], starts: Places, ends: Places, hashes: Hashes
) -> tuple[Places, Places, Hashes]:
    commands = (characters.take(starts - 1) == ord("\\")).nonzero()[0]
    if not len(commands):
        return starts, ends, hashes
    fractions, fraction, typesetting = _commands()
    names = hashes[commands]
    hashes[commands[among(names, fractions)]] = fraction
    silent = commands[among(names, typesetting)]
    if not len(silent):
        return starts, ends, hashes
    return np.delete(starts, silent), np.delete(ends, silent), np.delete(hashes, silent)


@cache
def _commands() -> tuple[Hashes, Hashes, Hashes]:
    """Hashes of what says `frac`, of `frac`, and of what says nothing."""
    return np.sort(_words(_FRACTIONS)), _words(["frac"])[0], np.sort(_words(_TYPESETTING))


def _words(names: Sequence[str]) -> Hashes:
    return np.concatenate([read(name).hashes for name in names])


# --- Sums


def _sums(hashes: Hashes, base: int, starts: Places, ends: Places) -> Hashes:
    """The sum over each stretch of hash x base^place, where the first place of a stretch counts as 0."""
    before, inverses = _prefix_sums(hashes, base)
    found = before.take(ends)
    found -= before.take(starts)
    found *= inverses.take(starts)
    return found


def _prefix_sums(hashes: Hashes, base: int) -> tuple[Hashes, Hashes]:
    """The sums of hash x base^place before each place, [n + 1], and the inverses of the powers."""
    powers, inverses = _powers(base, _room(len(hashes)))
    before: Hashes = np.empty(len(hashes) + 1, np.uint64)
    before[0] = 0
    np.multiply(hashes, powers[: len(hashes)], out=before[1:])
    np.cumsum(before[1:], out=before[1:])
    return before, inverses


def _whole(hashes: Hashes) -> int:
    """The n-gram of all of them, and their number."""
    powers, _ = _powers(_WORD_BASE, _room(len(hashes)))
    whole = _mixed(int((hashes * powers[: len(hashes)]).sum()))
    return _mixed(whole + len(hashes) & _MASK)


def _room(count: int) -> int:
    """The power of two that has room for so many, at least 16,384: so that few tables are made."""
    return max(1 << 14, 1 << count.bit_length())


@lru_cache(maxsize=16)
def _powers(base: int, count: int) -> tuple[Hashes, Hashes]:
    """The powers of a base modulo 2^64 and their inverses, from the power 0 on."""
    return _geometric(base, count), _geometric(pow(base, -1, 1 << 64), count)


def _geometric(base: int, count: int) -> Hashes:
    factors: Hashes = np.full(count, base, np.uint64)
    factors[0] = 1
    return np.cumprod(factors)
