"""Take in an existing model, by path or from the Hugging Face hub, as an artifact of the run.

The copy is the run's own: it opens by itself, and it stays what it was when the folder or the branch it came
from moves on.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from r1pipe import jsonl
from r1pipe.checkpoint import weight_files
from r1pipe.hub import is_hub_id
from r1pipe.manifest import MANIFEST
from r1pipe.stage import CheckpointRef, Inputs, Outcome, StageConfig, Work

VERSION = 1
SUMMARY = "Take in an existing model, by path or Hugging Face id, checked and its revision noted."

_BESIDE_WEIGHTS = {".json", ".model", ".txt", ".jinja"}  # config, tokenizer, templates
_LEFT_OUT = {MANIFEST, "trainer_state.json"}  # another artifact's, a trainer's


class Config(StageConfig):
    """What the `checkpoint` stage reads from a recipe."""

    makes: ClassVar = "checkpoint"

    model: CheckpointRef
    """A model's folder, or `org/name@revision` on the Hugging Face hub; a commit pins it for good."""


def run(config: Config, inputs: Inputs, work: Work) -> Outcome:
    """Copy what `from_pretrained` reads, and nothing else; weights in safetensors only."""
    source = inputs.one("model").path
    target = work.dir / "published"
    with jsonl.writing(target):
        target.mkdir(exist_ok=True)
        for path in _files(source):
            _take(path, target / path.name)
    metrics = {"bytes": sum(path.stat().st_size for path in target.iterdir())}
    if not is_hub_id(config.model):
        return Outcome("checkpoint", target, metrics)
    name, commit = config.model.partition("@")[0], source.name
    if not config.model.endswith(f"@{commit}"):
        work.say(f"{config.model} is at commit {commit}. To have the same one always: model: {name}@{commit}")
    return Outcome("checkpoint", target, {**metrics, "revision": commit})


def _files(folder: Path) -> Iterator[Path]:
    weights = set(weight_files(folder))
    for path in sorted(folder.iterdir()):
        beside = path.suffix in _BESIDE_WEIGHTS and path.name not in _LEFT_OUT
        if path.is_file() and (path.name in weights or beside):
            yield path


def _take(path: Path, target: Path) -> None:
    """Copy a file; one from the hub's cache, where nothing changes, is linked if the disk is the same."""
    target.unlink(missing_ok=True)  # left by an attempt that was stopped
    if path.is_symlink():
        try:
            os.link(path.resolve(), target)
            return
        except OSError:  # another disk, or a file system without links
            pass
    shutil.copyfile(path, target)
