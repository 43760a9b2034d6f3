"""The second pass: the rows that are kept are copied from their files into shards.

A row that needs no change is copied byte by byte. A shard is written in one step and its marker after it, so
that a stop costs the shards that are being written.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from r1pipe import jsonl, verify
from r1pipe.card import Type, add_types, merged
from r1pipe.curate.mapping import Trace, read_trace
from r1pipe.curate.reading import BOM
from r1pipe.curate.sources import Source
from r1pipe.errors import RunFailed

_OPEN = 16  # files that are kept open


@dataclass(frozen=True, slots=True)
class Kept:
    """A row that is kept, by its place."""

    source: int
    offset: int
    length: int
    as_it_is: bool
    id: str | None = None
    """A new id; only where the row gets one."""
    verdict: dict[str, Any] | None = None
    """What a step has found of it."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of the result."""

    name: str
    rows: Sequence[Kept]


@dataclass(frozen=True, slots=True)
class WritePlan:
    """What every worker has to know."""

    sources: Sequence[Source]
    folder: Path
    """Where the shards go."""
    markers: Path
    """Where it is noted which of them are whole."""


@dataclass(frozen=True, slots=True)
class Written:
    """What is known of a shard."""

    rows: int
    bytes: int
    """Of the rows, before any compression."""
    sha256: str
    """Of the rows."""
    columns: dict[str, Type]


class Writer:
    """Writes shards; a worker has one."""

    def __init__(self, plan: WritePlan) -> None:
        self._plan = plan
        self._lines = Lines(plan.sources)

    def write(self, shard: Shard) -> Written:
        """Write a shard, unless it is there."""
        path, marker = self._plan.folder / shard.name, self._plan.markers / f"{shard.name}.json"
        if path.exists() and marker.exists():
            return Written(**jsonl.loads(marker.read_bytes()))
        digest, size = hashlib.sha256(), 0
        columns: dict[str, Type] = {}
        with jsonl.replacing(path) as file:
            for kept in shard.rows:
                line, row = self.row(kept)
                file.write(line)
                digest.update(line)
                size += len(line)
                add_types(columns, row)
        written = Written(len(shard.rows), size, digest.hexdigest(), columns)
        jsonl.write_json(marker, {name: getattr(written, name) for name in Written.__slots__})
        return written

    def row(self, kept: Kept) -> tuple[bytes, jsonl.Row]:
        """(the line that is published of a row, what it holds)."""
        line = self._lines.at(kept.source, kept.offset, kept.length)
        row = jsonl.parse_row(line)
        source = self._plan.sources[kept.source]
        if isinstance(row, str):
            raise RunFailed(_changed(source, row))
        if kept.as_it_is:
            return line.rstrip() + b"\n", row
        trace = read_trace(row, source.columns)
        if not isinstance(trace, Trace):
            raise RunFailed(_changed(source, trace))
        name = kept.id or trace.id or f"{source.label}@{kept.offset}"
        row = trace.publishable(name)
        if kept.verdict is not None:
            row |= _as_columns(kept.verdict, ours="verifier" in row)
        return jsonl.dumps(row) + b"\n", row


def _as_columns(verdict: dict[str, Any], *, ours: bool) -> dict[str, Any]:
    """A step's verdict in the columns that `sample` writes, if the row is one of `ours`; else the answer that
    was judged is `extracted`, as `answer` may be anything there."""
    told = {name: verdict[name] for name in ("verdict", "reason")}
    if not ours:
        return {**told, "extracted": verdict["extracted"]}
    judge = {"verifier": verdict["verifier"], "verifier_version": verify.VERSION}
    return {**told, "answer": verdict["extracted"], **judge}


def _changed(source: Source, found: str) -> str:
    return (
        f"'{source.given}' was changed while it was curated: a row that was there is not there any more "
        f"({found}). Run the same command again; it begins anew with the file as it is."
    )


class Lines:
    """The lines of files by their places."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._files: OrderedDict[int, IO[bytes]] = OrderedDict()

    def at(self, source: int, offset: int, length: int) -> bytes:
        """One line, without the mark that may begin a file."""
        file = self._files.pop(source, None) or open(self._sources[source].path, "rb")  # noqa: SIM115
        self._files[source] = file
        if len(self._files) > _OPEN:
            self._files.popitem(last=False)[1].close()
        if file.tell() != offset:
            file.seek(offset)
        return file.read(length).removeprefix(BOM if offset == 0 else b"")


def together(shards: Sequence[Written]) -> tuple[str, dict[str, Type]]:
    """(what tells all these rows from others, the types that hold them all), the shards in their order."""
    digest = hashlib.sha256("".join(shard.sha256 for shard in shards).encode()).hexdigest()
    columns: dict[str, Type] = {}
    for shard in shards:
        for name, type_ in shard.columns.items():
            columns[name] = merged(columns.get(name), type_)
    return digest, columns
