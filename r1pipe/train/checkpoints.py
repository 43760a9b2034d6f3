"""Trainer checkpoints that are whole or not there.

The Trainer writes a checkpoint file by file, so a kill leaves half of one behind that looks like any other. A
folder counts here only when it holds a marker that was written last and names every file with its size.
"""

import json
import os
import shutil
from pathlib import Path

from r1pipe import jsonl

MARKER = "whole.json"
_PREFIX = "checkpoint-"


def step_of(checkpoint: Path) -> int:
    """The optimiser step after which the checkpoint was written."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def at(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"{_PREFIX}{step}"


def seal(checkpoint: Path) -> None:
    """Put every file of the checkpoint on the disk, then write the marker that makes it count."""
    sizes = {}
    for path in sorted(p for p in checkpoint.rglob("*") if p.is_file() and p.name != MARKER):
        jsonl.fsync(path)
        sizes[str(path.relative_to(checkpoint))] = path.stat().st_size
    beside = checkpoint / f".{MARKER}"
    beside.write_text(json.dumps({"files": sizes}, indent=1))
    jsonl.fsync(beside)
    beside.replace(checkpoint / MARKER)
    jsonl.fsync(checkpoint)
    jsonl.fsync(checkpoint.parent)


def is_whole(checkpoint: Path) -> bool:
    """Whether the marker is there and every file it names still has its size."""
    marker = checkpoint / MARKER
    if not marker.is_file():
        return False
    sizes: dict[str, int] = json.loads(marker.read_text())["files"]
    return all(
        (checkpoint / name).is_file() and (checkpoint / name).stat().st_size == size
        for name, size in sizes.items()
    )


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint in a trainer's folder. Halves left by a kill are removed."""
    whole = []
    for checkpoint in _found(folder):
        if is_whole(checkpoint):
            whole.append(checkpoint)
        else:
            shutil.rmtree(checkpoint)
    return whole[-1] if whole else None


def keep(checkpoint: Path, folder: Path) -> Path:
    """Keep a sealed checkpoint in `folder`, in place of the one kept there, beyond what the trainer prunes.

    The files are shared with the original by hard links where the file system has them, so that keeping one
    costs nothing until the trainer removes its own.
    """
    kept = _linked(checkpoint, folder)
    for other in _found(folder):
        if other != kept:
            shutil.rmtree(other)
    return kept


def go_back(folder: Path, good: Path | None, aside: Path) -> None:
    """Make `good` the newest checkpoint of a trainer's folder; the later ones are moved to `aside`.

    Without a good one all are moved, and the training begins anew.
    """
    if good is not None and not (folder / good.name).exists():
        _linked(good, folder)
    for later in _found(folder):
        if good is None or step_of(later) > step_of(good):
            aside.mkdir(parents=True, exist_ok=True)
            later.replace(aside / later.name)
    jsonl.fsync(folder)


def _found(folder: Path) -> list[Path]:
    """All that look like checkpoints, whole or not, in the order of their steps."""
    return sorted((p for p in folder.glob(f"{_PREFIX}*") if p.name[len(_PREFIX) :].isdigit()), key=step_of)


def _linked(checkpoint: Path, folder: Path) -> Path:
    """A second checkpoint of the same files in `folder`; whole or not there."""
    beside, target = folder / f".{checkpoint.name}", folder / checkpoint.name
    for left in (beside, target):
        shutil.rmtree(left, ignore_errors=True)
    shutil.copytree(checkpoint, beside, copy_function=_link)
    beside.replace(target)
    jsonl.fsync(folder)
    return target


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target)
        jsonl.fsync(Path(target))
