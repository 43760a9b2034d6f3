"""What of a benchmark's items stands in a text.

An item is found by the first of three rules: the whole text says the same, which alone finds an item of fewer
than eight words; 13 words in a row are the item's; half of the item's 8-grams are in the text. One size of
n-grams is not enough: of MATH train, 8-grams flag one problem in twelve for phrases that every competition
uses, and 13-grams find no problem of fewer words.

An n-gram counts for nothing if it is in more than three items of the benchmark, being its template; if 13
words are made of such 8-grams alone; or if half of its words or more are of phrases that are allowed.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from r1pipe import jsonl
from r1pipe.curate.phrases import COMPETITION
from r1pipe.curate.words import Hashes, Places, Words, among, mix, ngrams, read
from r1pipe.errors import UsageError
from r1pipe.text import shortened

Rule = Literal["exact", "13-gram", "8-gram"]
LONG: Final = 13
SHORT: Final = 8
TEXT_COLUMNS: Final = ("problem", "question", "prompt", "text")
"""Where an item's text is looked for when nobody says where."""
ID_COLUMNS: Final = ("unique_id", "task_id", "problem_id", "id", "ID")

_LEAST_WORDS: Final = 3  # of an allowed phrase
_EVIDENCE: Final = 300  # characters of a text that are shown at most
_BYTE, _IN_BYTE = np.uint64(3), np.uint64(7)
_FILTER_BITS: Final = (16, 27)  # the filter has 2^16 to 2^27 places: 8 KiB to 16 MiB


# --- Benchmarks


@dataclass(frozen=True, slots=True)
class Item:
    """A problem of a benchmark."""

    benchmark: str
    id: str
    text: str


def read_benchmark(
    path: Path | str, name: str | None = None, columns: Sequence[str] = (), id_column: str | None = None
) -> list[Item]:
    """The items of a JSON Lines file, `.gz` or plain.

    Args:
        name: what hits call it; the file's name without its ending when not given.
        columns: where an item's text is; several are put together. When not given it is the first of
            `TEXT_COLUMNS` that the file has.
        id_column: what an item is called by, else the first of `ID_COLUMNS` that the file has, else its line.

    Raises:
        UsageError: the file has other columns, a row without text, or no rows.
    """
    path = Path(path)
    name = name or path.name.partition(".")[0]
    items: list[Item] = []
    for line, row in (each for part in jsonl.parts(path) for each in jsonl.scan(part)):
        if isinstance(row, jsonl.BadRow):
            raise UsageError(f"The benchmark '{name}' cannot be read: {row}. Correct or remove this line.")
        columns = columns or _columns(row, path)
        texts = [row.get(column) for column in columns]
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise UsageError(_no_text(path, line, columns, row))
        found = id_column or next((column for column in ID_COLUMNS if column in row), None)
        if id_column is not None and id_column not in row:
            raise UsageError(_no_text(path, line, [id_column], row))
        items.append(Item(name, str(row[found]) if found else f"line {line}", "\n".join(map(str, texts))))
    if not items:
        raise UsageError(f"The benchmark '{path}' is empty. Give a JSON Lines file with one item a line.")
    return items


def _columns(row: jsonl.Row, path: Path) -> Sequence[str]:
    found = next((column for column in TEXT_COLUMNS if isinstance(row.get(column), str)), None)
    if found is None:
        raise UsageError(
            f"The benchmark '{path}' has none of the columns {', '.join(TEXT_COLUMNS)}; it has: "
            f"{', '.join(row)}. Name the one that holds the problems."
        )
    return (found,)


def _no_text(path: Path, line: int, columns: Sequence[str], row: jsonl.Row) -> str:
    wanted = " and ".join(f"'{column}'" for column in columns)
    return (
        f"The benchmark '{path}' has no text in {wanted} at line {line}; the row has: {', '.join(row)}. "
        "Name the column that holds the problems, or remove the line."
    )


# --- The index


@dataclass(frozen=True, slots=True)
class Hit:
    """An item that a text gives away."""

    rule: Rule
    benchmark: str
    item: str
    evidence: str
    """What of the text says so: its longest stretch that is also in the item, or the whole, shortened."""
    share: float
    """How many of the item's 8-grams are in the text, templates left out of both; 1 for the rule `exact`."""


@dataclass(frozen=True, slots=True)
class _Postings:
    """In which items an n-gram is."""

    grams: Hashes
    """[grams], sorted."""
    begins: Places
    """[grams + 1]; where in `items` those of a gram begin."""
    items: Places

    @classmethod
    def of(cls, grams_of: Sequence[Hashes]) -> "_Postings":
        """From the n-grams of each item, no one twice."""
        grams = np.concatenate([np.empty(0, np.uint64), *grams_of])
        items: Places = np.repeat(np.arange(len(grams_of)), [len(each) for each in grams_of])
        order = np.argsort(grams, kind="stable")
        names, begins = np.unique(grams[order], return_index=True)
        return cls(names, np.append(begins, len(grams)), items[order])

    def places(self, grams: Hashes) -> dict[int, list[int]]:
        """At which of these n-grams each item is met; items that are not met are left out."""
        found: dict[int, list[int]] = {}
        for place in np.flatnonzero(among(grams, self.grams)) if len(self.grams) else ():
            row = self.grams.searchsorted(grams[place])
            for item in self.items[self.begins[row] : self.begins[row + 1]]:
                found.setdefault(int(item), []).append(int(place))
        return found


class ContaminationIndex:
    """Items of benchmarks, to be looked for in texts."""

    def __init__(
        self,
        items: Iterable[Item],
        allowed: Iterable[str] = COMPETITION,
        containment: float = 0.5,
        template_items: int = 3,
    ) -> None:
        """Read the items; of those that say the same in one benchmark the first stands for all.

        Args:
            allowed: phrases of three words or more that give nothing away; those of the field when not given.
            containment: the share of an item's 8-grams that flags a text.
            template_items: an n-gram in more items of one benchmark than this counts for nothing.

        Raises:
            UsageError: an allowed phrase is shorter.
        """
        self._containment = containment
        self._items: list[Item] = []
        self._exact: dict[int, list[int]] = {}
        words = self._take(items)
        phrases = _by_length(allowed)
        own = _own_words(words, phrases)
        salts = _salts([item.benchmark for item in self._items])
        short = _rare(
            [_of_own_words(*each, SHORT) for each in zip(words, own, strict=True)], salts, template_items
        )
        long = [
            _of_more_than_templates(each, mine, kept)
            for each, mine, kept in zip(words, own, short, strict=True)
        ]
        self._short = _Postings.of(short)
        self._long = _Postings.of(_rare(long, salts, template_items))
        self._sizes = [len(each) for each in short]
        self._shift, self._filter = _filter(self._short.grams)

    def _take(self, items: Iterable[Item]) -> list[Hashes]:
        words: list[Hashes] = []
        seen: set[tuple[str, int]] = set()
        texts: set[tuple[str, str]] = set()  # an evaluation asks each of its items many times
        for item in items:
            if (item.benchmark, item.text) in texts:
                continue
            texts.add((item.benchmark, item.text))
            found = read(item.text)
            if (item.benchmark, found.exact) not in seen:
                seen.add((item.benchmark, found.exact))
                self._exact.setdefault(found.exact, []).append(len(self._items))
                self._items.append(item)
                words.append(found.hashes)
        return words

    @property
    def sizes(self) -> Counter[str]:
        """How many different items each benchmark has."""
        return Counter(item.benchmark for item in self._items)

    @property
    def exact_only(self) -> Counter[str]:
        """How many of them only the rule `exact` can find: they are short, or made of templates."""
        return Counter(
            item.benchmark for item, size in zip(self._items, self._sizes, strict=True) if not size
        )

    def find(self, words: Words, lines: bool = False) -> list[Hit]:
        """The items that a text gives away, each by the first rule that finds it.

        With `lines` an item is also found where one line of the text is the whole of it, as in a prompt that
        says more on other lines.
        """
        hits: dict[int, Hit] = {}
        for whole in [words, *(_lines(words) if lines else ())]:
            for item in self._exact.get(whole.exact, ()):
                hits.setdefault(item, self._hit("exact", item, shortened(whole.text, _EVIDENCE), 1.0))
        grams = ngrams(words.hashes, SHORT)
        if len(perhaps := self._perhaps(grams)):
            hits |= {item: hit for item, hit in self._overlaps(words, grams, perhaps) if item not in hits}
        return list(hits.values())

    def _perhaps(self, grams: Hashes) -> Places:
        """The places of 8-grams that may be of an item: all that are, and of the others one in thirty."""
        bits = grams >> self._shift
        marks = self._filter.take((bits >> _BYTE).view(np.int64))
        marks >>= (bits & _IN_BYTE).astype(np.uint8)
        marks &= 1
        return marks.nonzero()[0]

    def _overlaps(self, words: Words, grams: Hashes, perhaps: Places) -> Iterator[tuple[int, Hit]]:
        """What shares enough; an item's 13 words in a row hold at least one of its 8-grams."""
        met = self._short.places(grams[perhaps])
        long = self._long.places(ngrams(words.hashes, LONG)) if met else {}
        for item, places in met.items():
            at = perhaps[places]
            share = len(np.unique(grams[at])) / self._sizes[item]
            if item in long:
                yield item, self._hit("13-gram", item, _longest(words, long[item], LONG), share)
            elif share >= self._containment:
                yield item, self._hit("8-gram", item, _longest(words, at.tolist(), SHORT), share)

    def _hit(self, rule: Rule, item: int, evidence: str, share: float) -> Hit:
        return Hit(rule, self._items[item].benchmark, self._items[item].id, evidence, share)


def _lines(words: Words) -> Iterator[Words]:
    lines = words.text.splitlines()
    return (read(line) for line in lines if len(lines) > 1 and line.strip())


def _longest(words: Words, places: Sequence[int], n: int) -> str:
    """The text of the longest stretch of n-grams that follow each other, the first of equally long ones."""
    starts = [place for before, place in zip([-2, *places], places) if place != before + 1]  # noqa: B905
    ends = [place for place, after in zip(places, [*places[1:], -2]) if after != place + 1]  # noqa: B905
    first, last = max(zip(starts, ends, strict=True), key=lambda stretch: stretch[1] - stretch[0])
    return shortened(words.between(first, last + n), _EVIDENCE)


def _by_length(phrases: Iterable[str]) -> dict[int, Hashes]:
    """The phrases as n-grams, sorted, by their numbers of words."""
    found: dict[int, list[Hashes]] = {}
    for phrase in phrases:
        words = read(phrase).hashes
        if len(words) < _LEAST_WORDS:
            raise UsageError(
                f"The allowed phrase '{phrase}' has {len(words)} of the {_LEAST_WORDS} words that one needs "
                "at least. Give more of the words that it stands among."
            )
        found.setdefault(len(words), []).append(ngrams(words, len(words)))
    return {length: np.unique(np.concatenate(each)) for length, each in found.items()}


def _own_words(words: Sequence[Hashes], phrases: Mapping[int, Hashes]) -> list[npt.NDArray[np.bool_]]:
    """Which words of each item are of no phrase; looked for in all items at once: they are many and short."""
    if not words:
        return []
    sizes = [len(each) for each in words]
    ends = np.cumsum(sizes)
    item_ends: Places = np.repeat(ends, sizes)
    every = np.concatenate(words)
    own: npt.NDArray[np.bool_] = np.ones(len(every), bool)
    for length, known in phrases.items():
        places = np.flatnonzero(among(ngrams(every, length), known))
        for first in places[places + length <= item_ends[places]]:
            own[first : first + length] = False
    return np.split(own, ends[:-1])


def _of_own_words(words: Hashes, own: npt.NDArray[np.bool_], n: int) -> Hashes:
    """The n-grams of an item that are its own by more than half."""
    return ngrams(words, n)[_in_a_row(own, n) > n // 2]


def _in_a_row(marks: npt.NDArray[np.bool_], n: int) -> Places:
    """How many marks are in n places in a row, from each place: [places] -> [places - n + 1]."""
    if len(marks) < n:
        return np.empty(0, np.int64)
    return np.convolve(marks.astype(np.int64), np.ones(n, np.int64), "valid")


def _of_more_than_templates(words: Hashes, own: npt.NDArray[np.bool_], short: Hashes) -> Hashes:
    """The 13-grams of an item that are its own, and hold at least one of the 8-grams that are left of it."""
    if not len(short) or len(words) < LONG:
        return words[:0]
    left = _in_a_row(among(ngrams(words, SHORT), short), LONG - SHORT + 1) > 0
    return ngrams(words, LONG)[left & (_in_a_row(own, LONG) > LONG // 2)]


def _rare(grams_of: Sequence[Hashes], salts: Hashes, most: int) -> list[Hashes]:
    """The different n-grams of each item that are in no more items of its benchmark, sorted."""
    each = [np.unique(grams) for grams in grams_of]
    if not each:
        return each
    here = np.concatenate([grams ^ salt for grams, salt in zip(each, salts, strict=True)])
    _, which, counts = np.unique(here, return_inverse=True, return_counts=True)
    cuts = np.cumsum([len(grams) for grams in each])[:-1]
    kept = np.split(counts[which] <= most, cuts)
    return [grams[those] for grams, those in zip(each, kept, strict=True)]


def _salts(benchmarks: Sequence[str]) -> Hashes:
    """A number for each item that is its benchmark's."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(benchmarks), start=1)}
    salts = np.array([numbers[name] for name in benchmarks], np.uint64)
    mix(salts)
    return salts


def _filter(grams: Hashes) -> tuple[np.uint64, npt.NDArray[np.uint8]]:
    """A bit for each value of an n-gram's upper bits, and by how much to shift to get at these."""
    least, most = _FILTER_BITS
    bits = min(most, max(least, len(grams).bit_length() + 5))  # more would not stay in a core's cache
    shift = np.uint64(64 - bits)
    places = grams >> shift
    filled: npt.NDArray[np.uint8] = np.zeros(1 << (bits - 3), np.uint8)
    marks = np.uint8(1) << (places & np.uint64(7)).astype(np.uint8)
    np.bitwise_or.at(filled, (places >> np.uint64(3)).astype(np.int64), marks)
    return shift, filled
