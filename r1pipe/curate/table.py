"""All rows of a curation as columns of numbers: what the steps that look at many rows see.

A row takes about 90 bytes here, whatever its text; the texts stay in their files. Text that repeats, reasons
and domains, is a number too, and `Vocabulary` knows its word.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from r1pipe.curate.words import mix

Array: TypeAlias = npt.NDArray[Any]
Numbers: TypeAlias = npt.NDArray[np.int64]
Of = Literal["question", "trace"]
Compare = Callable[[Of, Numbers, Numbers], Array]
"""The exact Jaccard indices of pairs of rows."""

STAYS: Final = -1
"""In `lost`: no step that looks at the row alone rejects it."""
READING: Final = 0
"""The number of the reading, which comes before the first step: what is no trace is set aside by it."""
NOBODY: Final = -1
"""In `other`: the row went because of no other one."""

ROW: Final[Any] = np.dtype(
    [
        ("source", "u2"),  # which file
        ("line", "i8"),  # counted from 1; within its chunk until all chunks are joined
        ("offset", "i8"),  # of its first byte in the file
        ("length", "i8"),  # bytes, its newline included
        ("id", "u8"),  # these four are hashes
        ("problem", "u8"),
        ("question", "u8"),
        ("trace", "u8"),
        ("tokens", "u4"),
        ("counted", "u1"),  # whether the row tells its tokens
        ("as_it_is", "u1"),  # whether the row is published byte by byte
        ("domain", "u2"),
        ("verdict", "i1"),  # see VERDICTS, after a step `verify`
        ("pass_rate", "f4"),  # the row's own; NaN for none
        ("lost", "i1"),  # the first step that looks at it alone and rejects it, READING, or STAYS
        ("aside", "u1"),  # whether it is set aside then, rather than rejected
        ("why", "u2"),  # that step's reason
    ]
)
"""What reading finds of a row."""

MOST_WORDS: Final = 10_000
OTHERS: Final = "(others)"

VERDICTS: Final = {None: -1, "fail": 0, "pass": 1, "undecided": 2}


class Vocabulary:
    """Words as numbers, in the order in which they came; beyond `MOST_WORDS` all new ones are one."""

    def __init__(self, words: Iterable[str] = ()) -> None:
        self._numbers: dict[str, int] = {}
        for word in words:
            self.number(word)

    def number(self, word: str) -> int:
        """The number of a word, a new one for a new word."""
        if len(self._numbers) >= MOST_WORDS and word not in self._numbers:
            word = OTHERS
        return self._numbers.setdefault(word, len(self._numbers))

    @property
    def words(self) -> list[str]:
        """All words; a word's number is its place."""
        return list(self._numbers)

    def numbers(self, words: Sequence[str]) -> Array:
        """The numbers of several words: [words]."""
        return np.array([self.number(word) for word in words], np.uint16)


@dataclass(frozen=True, slots=True)
class Loss:
    """Rows that a step rejects for one reason."""

    rows: Numbers
    reason: str
    others: Numbers | None = None
    """For each the row that it went because of."""
    values: Array | None = None
    """For each the number that decided it."""


@dataclass
class Table:
    """Every row of every file, and what has become of it."""

    rows: Array
    """[rows] of `ROW`, file by file."""
    joins: Numbers
    """[sources]: the step with which the rows of a file come in; 0 for those that are there at first."""
    reasons: Vocabulary
    domains: Vocabulary
    sketches: Mapping[str, Array] = field(default_factory=dict)
    """By `question` and `trace`: [rows] of `near.SKETCH`, where a step needs them."""
    seed: int = 0

    def __post_init__(self) -> None:
        count = len(self.rows)
        self.left: Array = np.full(count, STAYS, np.int16)
        """The step with which each row left."""
        self.why: Array = np.zeros(count, np.uint16)
        """Its reason, in `reasons`."""
        self.aside: Array = np.zeros(count, np.bool_)
        """Whether it was set aside, rather than rejected."""
        self.other: Numbers = np.full(count, NOBODY, np.int64)
        self.value: Array = np.full(count, np.nan, np.float32)
        self.renamed: Array = np.zeros(count, np.bool_)
        """Whether its id is another row's in another input, so that it gets a new one."""

    def present(self, step: int) -> Numbers:
        """The rows that a step sees: those that have come in, and that no step before it has taken."""
        return np.flatnonzero((self.left == STAYS) & (self.joins[self.rows["source"]] <= step))

    def take(self, step: int, losses: Iterable[Loss]) -> None:
        """Let rows leave."""
        for loss in losses:
            self.left[loss.rows] = step
            self.why[loss.rows] = self.reasons.number(loss.reason)
            if loss.others is not None:
                self.other[loss.rows] = loss.others
            if loss.values is not None:
                self.value[loss.rows] = loss.values

    def take_alone(self, step: int) -> None:
        """Let those rows leave that the step rejected when they were read, each looked at alone."""
        rows = self.present(step)
        rows = rows[self.rows["lost"][rows] == step]
        self.left[rows] = step
        self.why[rows] = self.rows["why"][rows]
        self.aside[rows] = self.rows["aside"][rows] == 1

    def shuffled(self, rows: Numbers, purpose: int = 0) -> npt.NDArray[np.uint64]:
        """A number for each row that is as good as random, and depends on its id and the seed alone."""
        mixed = self.rows["id"][rows] + np.uint64(
            (self.seed * 2 + 1) * 0x9E3779B97F4A7C15 + purpose & (1 << 64) - 1
        )
        return scrambled(mixed)


def scrambled(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Numbers as good as random, each made of one number alone."""
    mixed = numbers.copy()
    mix(mixed)
    return mixed
