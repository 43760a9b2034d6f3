"""Whether files are what they were: hashed once, then trusted while (inode, mtime, size) stay the same."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from r1pipe import jsonl, machine
from r1pipe.errors import RunFailed
from r1pipe.manifest import MANIFEST, FileEntry

Stat = list[int]
"""[inode, mtime in nanoseconds, size]"""


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_files(paths: Sequence[Path]) -> list[str]:
    """Return the SHA-256 of each file, in order; a core each, as hashing leaves Python's lock to others."""
    with ThreadPoolExecutor(max(1, min(len(paths), machine.cores()))) as pool:
        return list(pool.map(sha256_file, paths))


def walk(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder except its manifest, sorted by path."""
    for path in sorted(folder.rglob("*")):
        if not path.is_dir() and path != folder / MANIFEST:
            yield path


def seal(folder: Path) -> tuple[FileEntry, ...]:
    """Hash every file of a finished folder and put it all on the disk."""
    paths = list(walk(folder))
    entries = [
        FileEntry(path=path.relative_to(folder).as_posix(), size=path.stat().st_size, sha256=digest)
        for path, digest in zip(paths, sha256_files(paths), strict=True)
    ]
    for path in paths:
        jsonl.fsync(path)
    for each in sorted({folder, *(path.parent for path in paths)}, reverse=True):
        jsonl.fsync(each)
    return tuple(entries)


def check_files(folder: Path, files: Iterable[FileEntry], record: Path | None, *, deep: bool) -> list[str]:
    """Return what is wrong with a folder's files, one sentence each.

    A file is read again when `deep` is set or when its (inode, mtime, size) are not those in `record`, as
    after the run was copied to another disk; then `record` is brought up to date. Without one all are read.
    """
    known = {} if deep or record is None else _read_record(record)
    stats: dict[str, Stat] = {}
    problems = []
    for entry in files:
        path = folder / entry.path
        try:
            stat = _stat(path)
        except FileNotFoundError:
            problems.append(f"file missing: '{path}'")
            continue
        if stat[2] != entry.size:
            problems.append(f"file changed: '{path}' has {stat[2]:,} bytes, {entry.size:,} were published")
        elif known.get(entry.path) != stat and sha256_file(path) != entry.sha256:
            problems.append(f"file changed: '{path}' has other bytes than were published")
        else:
            stats[entry.path] = stat
    if record is not None and stats != known and not problems:
        _write_record(record, stats)
    return problems


def record_stats(folder: Path, files: Iterable[FileEntry], record: Path) -> None:
    """Note the files' (inode, mtime, size), to be called right after they were hashed."""
    _write_record(record, {entry.path: _stat(folder / entry.path) for entry in files})


def _write_record(record: Path, stats: Mapping[str, Stat]) -> None:
    """Write a record; where that is not possible the files are read again next time, nothing worse."""
    with suppress(RunFailed):
        jsonl.write_json(record, stats)


def _read_record(record: Path) -> dict[str, Stat]:
    try:
        known = jsonl.loads(record.read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _stat(path: Path) -> Stat:
    found = path.stat()
    return [found.st_ino, found.st_mtime_ns, found.st_size]
