"""Trainer checkpoints that are whole or not there.

The Trainer writes a checkpoint file by file, so a kill leaves half of one behind that looks like any other. A
folder counts here only when it holds a marker that was written last and names every file with its size.
"""

import json
import os
import shutil
from pathlib import Path

MARKER = "whole.json"
_PREFIX = "checkpoint-"


def step_of(checkpoint: Path) -> int:
    """The optimiser step after which the checkpoint was written."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def seal(checkpoint: Path) -> None:
    """Put every file of the checkpoint on the disk, then write the marker that makes it count."""
    sizes = {}
    for path in sorted(p for p in checkpoint.rglob("*") if p.is_file() and p.name != MARKER):
        _sync(path)
        sizes[str(path.relative_to(checkpoint))] = path.stat().st_size
    beside = checkpoint / f".{MARKER}"
    beside.write_text(json.dumps({"files": sizes}, indent=1))
    _sync(beside)
    beside.replace(checkpoint / MARKER)
    _sync(checkpoint)
    _sync(checkpoint.parent)


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
    found = sorted((p for p in folder.glob(f"{_PREFIX}*") if p.name[len(_PREFIX) :].isdigit()), key=step_of)
    whole = []
    for checkpoint in found:
        if is_whole(checkpoint):
            whole.append(checkpoint)
        else:
            shutil.rmtree(checkpoint)
    return whole[-1] if whole else None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
