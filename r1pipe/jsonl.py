"""Durable JSON Lines: a journal that survives kills and full disks, shards, and files replaced in one step.

Two rules hold for everything here. A writer that returns has put the bytes on the disk (`fsync`, the folder
included). A reader never sees half of anything: files are replaced by a rename, and the one line that a kill
can leave half-written, the journal's last, is repaired on opening.
"""

import errno
import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self, cast

import orjson

from r1pipe import zstd
from r1pipe.errors import RunFailed, UsageError

Row = dict[str, Any]

PARTS = ("part-*.jsonl", "part-*.jsonl.zst")
"""What the files of a dataset's folder are called."""
_BLOCK = 1 << 16  # bytes read at a time when looking for the last line's start
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, slots=True)
class BadRow:
    """A line that was set aside."""

    path: str
    line: int
    """Counted from 1."""
    reason: str
    text: str
    """The whole line as it stands in the file; bytes that are no UTF-8 are replaced."""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}"


# --- One value


def dumps(obj: Any) -> bytes:
    """Return compact JSON without a newline.

    Dataclasses, dates, enums and numpy numbers are understood; NaN and infinities become null, since JSON has
    none. Raises `TypeError` on anything else.
    """
    try:
        return orjson.dumps(obj, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:  # orjson stops at 64 bits, answers in number theory do not
        return json.dumps(obj, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def loads(text: bytes | str) -> Any:
    """Parse JSON; raises `ValueError`. Integers are exact, however long."""
    found = orjson.loads(text)
    try:
        return json.loads(text) if _may_be_rounded(found) else found
    except RecursionError:
        raise ValueError("nested too deep") from None


def _may_be_rounded(found: Any) -> bool:
    """Whether it holds a float so large that orjson may have made it of an integer beyond 64 bits."""
    if isinstance(found, float):
        return abs(found) >= 2**63
    if not isinstance(found, dict | list):
        return False
    # Most values are texts, of which there is nothing to ask.
    for value in found.values() if isinstance(found, dict) else found:
        if isinstance(value, _NOT_TEXT) and _may_be_rounded(value):
            return True
    return False


_NOT_TEXT: Final = (float, dict, list)


# --- Reading


def parts(path: Path | str) -> list[Path]:
    """Return the files that hold the rows: the file itself, or a dataset folder's `part-*.jsonl` in order.

    The parts may be compressed, `part-00000.jsonl.zst`. Raises `UsageError` when there is none.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(each for pattern in PARTS for each in path.glob(pattern))
        if not found:
            raise UsageError(_no_parts(path))
        return found
    if not path.exists():
        where = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise UsageError(f"There is no data file '{path}'{where}. Check the path.")
    return [path]


def read_rows(path: Path | str, *, require: Sequence[str] = ()) -> tuple[list[Row], list[BadRow]]:
    """Read a JSON Lines file or a dataset folder; return its rows and the lines set aside.

    A line is set aside when it is not one JSON object or when a key of `require` is missing or null; blank
    lines are passed over. Raises `UsageError` when nothing is there or no usable row is left.
    """
    rows: list[Row] = []
    bad: list[BadRow] = []
    for row in _scan(path, require):
        if isinstance(row, BadRow):
            bad.append(row)
        else:
            rows.append(row)
    if not rows:
        found = f"none of its {len(bad)} rows can be used. The first: {bad[0]}." if bad else "it is empty."
        raise UsageError(f"The data '{path}' holds no rows: {found} One JSON object per line is expected.")
    return rows, bad


def iter_rows(path: Path | str) -> Iterator[Row]:
    """Yield the rows of a file or a dataset folder one by one; the first bad one raises `UsageError`."""
    for row in _scan(path, ()):
        if isinstance(row, BadRow):
            raise UsageError(f"{row}. Correct or remove this line.")
        yield row


def scan(part: Path, require: Sequence[str] = ()) -> Iterator[tuple[int, Row | BadRow]]:
    """Yield (line, row or bad row) of one file, `.gz`, `.zst` or plain.

    Raises `UsageError` if it cannot be read, `EnvironmentUnfit` if what reads `.zst` is not installed.
    """
    try:
        with opened(part) as file:
            for number, line in enumerate(file, start=1):
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")  # some editors begin UTF-8 files with this mark
                if line.strip():
                    row = parse_row(line, require)
                    if isinstance(row, str):
                        text = line.decode("utf-8", "replace").rstrip("\r\n")
                        yield number, BadRow(str(part), number, row, text)
                    else:
                        yield number, row
    except DAMAGED as error:
        raise UsageError(unreadable(part, error)) from error


DAMAGED = (OSError, EOFError, zlib.error)
"""What reading may raise: a compressed file may be cut short or damaged."""


def unreadable(part: Path, error: BaseException) -> str:
    """What is said of a file whose reading raised one of `DAMAGED`."""
    said = str(getattr(error, "strerror", None) or error).rstrip(".")
    return f"The data file '{part}' cannot be read: {said}. Check it, or copy it here again."


def opened(part: Path) -> IO[bytes]:
    """Open a file to read its bytes, those that are meant where it is compressed: `.gz`, `.zst`."""
    if part.suffix == ".gz":
        return cast(IO[bytes], gzip.open(part))
    return zstd.reading(part) if part.suffix == ".zst" else open(part, "rb")


def _scan(path: Path | str, require: Sequence[str]) -> Iterator[Row | BadRow]:
    for part in parts(path):
        yield from (row for _, row in scan(part, require))


def parse_row(line: bytes, require: Sequence[str] = ()) -> Row | str:
    """Return the row that a line holds, or the reason why it holds none."""
    try:
        row = loads(line)
    except ValueError as error:
        cut = "" if line.endswith(b"\n") else "; the file ends in the middle of a line"
        return f"not JSON ({error}){cut}"
    if not isinstance(row, dict):
        return f"a JSON {type(row).__name__}, not an object"
    missing = [key for key in require if row.get(key) is None]
    if missing:
        has = ", ".join(row) or "nothing"
        return f"no {' and no '.join(repr(key) for key in missing)}; the row has: {has}"
    return row


def _no_parts(folder: Path) -> str:
    others = sorted(each.name for each in folder.glob("*.jsonl"))
    if others:
        return f"The folder '{folder}' has no part-*.jsonl. Give one of its files: {', '.join(others[:5])}."
    return f"The folder '{folder}' is no dataset: it has no part-*.jsonl. Give a dataset or a .jsonl file."


# --- Writing


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Turn what the file system refuses into `RunFailed` with the way out."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise RunFailed(
                f"The disk is full: '{path}' could not be written. Nothing that was finished is lost. Free "
                "some space and run the same command again: it goes on from there."
            ) from error
        raise RunFailed(
            f"'{path}' could not be written: {error.strerror or error}. Nothing that was finished is lost. "
            "Check the folder's permissions and run the same command again."
        ) from error


def fsync(path: Path) -> None:
    """Put a file on the disk, or a folder's names; else a new or renamed file can vanish in a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path | str, text: str) -> None:
    """Write or replace a file in one step; the folder is made when missing."""
    with replacing(Path(path)) as file:
        file.write(text.encode())


def write_json(path: Path | str, obj: Any) -> None:
    """Write or replace a file with indented JSON in one step; the folder is made when missing."""
    option = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    text = orjson.dumps(obj, option=option)
    with replacing(Path(path)) as file:
        file.write(text)


def write_rows(path: Path | str, rows: Iterable[Row | BadRow]) -> int:
    """Write or replace one file of rows in one step; return their number. Takes lines set aside as well.

    The rows may be made while they are written: no more than one of them is held.
    """
    count = 0
    with replacing(Path(path)) as file:
        for row in rows:
            file.write(dumps(row) + b"\n")
            count += 1
    return count


def write_shards(folder: Path | str, rows: Iterable[Row], *, rows_per_shard: int = 10_000) -> int:
    """Write rows as `part-00000.jsonl`, `part-00001.jsonl`, … and return their number.

    Parts that an earlier attempt left behind are replaced or removed, so the folder holds these rows and no
    others. No rows at all make one empty part.
    """
    folder = Path(folder)
    names: set[str] = set()
    total = 0
    for number, batch in enumerate(_batches(rows, rows_per_shard)):
        path = folder / f"part-{number:05}.jsonl"
        total += write_rows(path, batch)
        names.add(path.name)
    with writing(folder):
        for stale in folder.glob("part-*.jsonl"):
            if stale.name not in names:
                stale.unlink()
        fsync(folder)
    return total


def _batches(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """Cut into lists of `size`; there is always a first one, if only an empty one."""
    iterator = iter(rows)
    batch = list(islice(iterator, size))
    while True:
        yield batch
        if not (batch := list(islice(iterator, size))):
            return


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Give a file beside `path` to write to, then put it in `path`'s place; `.zst` is compressed.

    Its name is always the same, so what a kill leaves behind is overwritten by the next attempt.
    """
    beside = path.with_name(f".{path.name}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(beside, "wb") as file:
                if path.suffix == ".zst":
                    with zstd.writing(file) as compressed:
                        yield compressed
                else:
                    yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        fsync(path.parent)


# --- The journal


class Journal:
    """An append-only file of rows for work that must not be lost; it has one writer.

    Opening it repairs what a kill may have left: a last line without its newline is completed when its object
    is whole, else cut off and kept in `<path>.torn`. So a later row is never glued to a torn one.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.broken: list[BadRow] = []
        """Lines that the last `rows()` passed over; they stay in the file."""
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            new = not self.path.exists()
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                if new:
                    fsync(self.path.parent)
                self._repair()
            except BaseException:
                self.close()
                raise

    def append(self, rows: Iterable[Row]) -> None:
        """Write the rows; when this returns they are on the disk.

        On a full disk the rows that fit are kept, whole lines only, and `RunFailed` is raised.
        """
        text = memoryview(b"".join(dumps(row) + b"\n" for row in rows))
        if not text:
            return
        with writing(self.path):
            try:
                while text:
                    text = text[os.write(self._file, text) :]
            except BaseException:
                self._cut(self._start_of_last_line(), keep=False)
                raise
            os.fsync(self._file)

    def rows(self) -> list[Row]:
        """Return all rows in the order they were written; what cannot be read is listed in `broken`."""
        found = list(_scan(self.path, ()))
        self.broken = [row for row in found if isinstance(row, BadRow)]
        return [row for row in found if not isinstance(row, BadRow)]

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _repair(self) -> None:
        start, size = self._start_of_last_line(), self._size()
        if start == size:
            return
        # A prefix of a JSON object is never a JSON object: what parses lacks its newline and nothing else.
        if isinstance(parse_row(os.pread(self._file, size - start, start)), dict):
            os.write(self._file, b"\n")
            os.fsync(self._file)
        else:
            self._cut(start, keep=True)

    def _cut(self, start: int, *, keep: bool) -> None:
        """Shorten the file to `start` bytes; with `keep` the rest is first put aside in `<path>.torn`."""
        if keep:
            with open(self.path.with_name(f"{self.path.name}.torn"), "ab") as torn:
                torn.write(os.pread(self._file, self._size() - start, start) + b"\n")
                torn.flush()
                os.fsync(torn.fileno())
        os.ftruncate(self._file, start)
        os.fsync(self._file)

    def _start_of_last_line(self) -> int:
        """Return where the unfinished last line begins; the file's size when it ends in a newline."""
        end = self._size()
        while end > 0:
            start = max(0, end - _BLOCK)
            newline = os.pread(self._file, end - start, start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
        return 0

    def _size(self) -> int:
        return os.fstat(self._file).st_size
