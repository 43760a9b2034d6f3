"""The judged completions that a stage has, each in its journal as soon as it is judged."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

from r1pipe import jsonl
from r1pipe.measure.samples import SampleRow

Row = Mapping[str, Any]


class JournalRow(SampleRow, total=False):
    """A line of a shard's journal: a judged completion, and what is known of how it was made."""

    engine: str | None
    engine_version: str | None
    time: str
    """When it was judged; ISO 8601, UTC."""
    judged_again: int
    """How often it was judged once more, its verdict having been undecided."""
    refused: bool
    """Whether the one who was asked would not answer, so that there is nothing to judge."""


class Answers:
    """Rows by what names them: those that the journal held, and those that come."""

    def __init__(self, journal: jsonl.Journal, key: Callable[[Row], Hashable]) -> None:
        """`key` gives what names a row."""
        self._journal = journal
        self._key = key
        self._rows = {key(row): row for row in journal.rows()}

    def __contains__(self, key: Hashable) -> bool:
        return key in self._rows

    def __getitem__(self, key: Hashable) -> jsonl.Row:
        return self._rows[key]

    def add(self, rows: Iterable[Row]) -> None:
        """Keep those that are new; when this returns they are on the disk. One thread at a time."""
        fresh = {self._key(row): dict(row) for row in rows if self._key(row) not in self._rows}
        self._journal.append(fresh.values())
        self._rows |= fresh

    def replace(self, rows: Iterable[Row]) -> None:
        """Put rows in the place of those of the same name; when this returns they are on the disk.

        The journal keeps both, and the later line counts.
        """
        fresh = {self._key(row): dict(row) for row in rows}
        self._journal.append(fresh.values())
        self._rows |= fresh
