"""The files that a curation reads: what they are called, how they are cut, whether they changed."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from r1pipe import jsonl
from r1pipe.curate.mapping import Columns
from r1pipe.errors import UsageError

CHUNK: Final = 32 << 20
"""Bytes that a worker reads in one go at most: seconds of work, and what a kill may cost."""
_LEAST_CHUNK: Final = 4 << 20
_PIECES: Final = 64  # of a small input, so that no worker waits long for the last one
LONGEST: Final = 64 << 20
"""Bytes of the longest line that is read; a longer one is set aside."""

Stat = list[int]
"""[inode, mtime in nanoseconds, size]"""


def stat_of(path: Path) -> Stat:
    """The state of a file."""
    found = path.stat()
    return [found.st_ino, found.st_mtime_ns, found.st_size]


@dataclass(frozen=True, slots=True)
class Source:
    """One file."""

    given: Path
    """As it was given."""
    path: Path
    """What is read: the file, or what was unpacked of it."""
    label: str
    """What it is called in ids and in the ledger: as much of its path as tells it from the others."""
    input: int
    """Of which input it is a part."""
    columns: Columns
    joins: int = 0
    """The step with which its rows come in; 0 is the beginning."""

    @property
    def stat(self) -> Stat:
        """What changes when the file does."""
        return stat_of(self.given)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stretch of a file; its rows are those of the lines that begin in it."""

    number: int
    source: int
    begin: int
    end: int


def sources(inputs: Sequence[tuple[Path, Columns, int]]) -> list[Source]:
    """The files of all inputs, each given as (path, columns, the step with which it comes in).

    Raises `UsageError` for a file that is given twice.
    """
    given = [
        (part, number, columns, joins)
        for number, (path, columns, joins) in enumerate(inputs)
        for part in jsonl.parts(path)
    ]
    seen: set[Path] = set()
    for part, *_ in given:
        if part.resolve() in seen:
            raise UsageError(
                f"'{part}' is given twice, so that each of its rows would come in twice. Name it once, in "
                "`data` or in the `data` of a step `mix`."
            )
        seen.add(part.resolve())
    labels = labelled([part for part, *_ in given])
    return [
        Source(part, part, label, number, columns, joins)
        for label, (part, number, columns, joins) in zip(labels, given, strict=True)
    ]


def labelled(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of paths that tell them apart.

    >>> labelled([Path("a/x/part.jsonl"), Path("b/x/part.jsonl"), Path("c.jsonl")])
    ['a/x/part.jsonl', 'b/x/part.jsonl', 'c.jsonl']
    """
    whole = [path.resolve().parts for path in paths]
    depth = 1
    labels = [parts[-1:] for parts in whole]
    while len(set(labels)) < len(set(whole)):
        depth += 1
        labels = [
            parts[-depth:] if labels.count(label) > 1 else label
            for parts, label in zip(whole, labels, strict=True)
        ]
    return ["/".join(label) for label in labels]


def unpacked(source: Source, folder: Path, working: Callable[[], None]) -> Source:
    """The source with a file to read from any byte on: compressed ones are unpacked into `folder`.

    `working` is called now and then, and may raise to stop.
    """
    if source.given.suffix not in (".gz", ".zst"):
        return source
    target = folder / f"{source.input:03}-{source.label.replace('/', '-')}.jsonl"
    note = target.with_suffix(".json")
    if not (target.exists() and note.exists() and jsonl.loads(note.read_bytes()) == source.stat):
        stat = source.stat
        with jsonl.replacing(target) as unpacking:
            for block in _blocks(source.given):
                working()
                unpacking.write(block)
        jsonl.write_json(note, stat)
    return Source(source.given, target, source.label, source.input, source.columns, source.joins)


def _blocks(path: Path) -> Iterator[bytes]:
    """What a compressed file holds; `UsageError` where it cannot be read, which is no matter of writing."""
    try:
        with jsonl.opened(path) as file:
            while block := file.read(1 << 20):
                yield block
    except jsonl.DAMAGED as error:
        raise UsageError(jsonl.unreadable(path, error)) from error


def chunks(files: Sequence[Source], most: int) -> list[Chunk]:
    """All files, cut into pieces of at most so many bytes, smaller ones where there is little to read."""
    ends = [os.stat(source.path).st_size for source in files]
    size = min(most, max(_LEAST_CHUNK, sum(ends) // _PIECES))
    cuts = [
        (number, begin, min(begin + size, end))
        for number, end in enumerate(ends)
        for begin in range(0, end, size)
    ]
    return [Chunk(number, *cut) for number, cut in enumerate(cuts)]


def lines(
    path: Path, begin: int, end: int, longest: int = LONGEST
) -> Iterator[tuple[int, int, bytes | None]]:
    """Yield (offset, bytes, line) of each line that begins in `begin` … `end`; None for a too long one."""
    with open(path, "rb") as file:
        offset = begin
        if begin:  # the line that begins before is another chunk's, and so is its end
            file.seek(begin - 1)
            offset = begin - 1 + _skip_line(file)
        while offset < end and (line := file.readline(longest + 1)):
            length = len(line)
            if length > longest and not line.endswith(b"\n"):
                length += _skip_line(file)
                yield offset, length, None
            else:
                yield offset, length, line
            offset += length


def _skip_line(file: IO[bytes]) -> int:
    """Read to the end of a line; return how many bytes that took."""
    skipped = 0
    while piece := file.readline(1 << 20):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped
