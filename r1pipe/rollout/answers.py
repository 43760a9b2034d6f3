"""The judged completions that a stage has, each in its journal as soon as it is judged."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

from r1pipe import jsonl

Row = Mapping[str, Any]


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
