"""What a recipe takes from outside its run: a model's folder, a data file, a model on the hub."""

import os
from pathlib import Path
from typing import Any

from r1pipe import jsonl
from r1pipe.artifact import Artifact, open_checkpoint, open_dataset
from r1pipe.errors import UsageError
from r1pipe.hub import fetch_model, hub_fingerprint, is_hub_id
from r1pipe.stage import RefKind


def open_external(kind: RefKind, value: str) -> Artifact:
    """Open what a path or a hub id names, downloading it if need be; `UsageError` when it is unfit."""
    if kind != "checkpoint":
        return open_dataset(Path(value).expanduser())
    if not Path(value).expanduser().exists() and not is_hub_id(value) and is_hub_id(f"{value}@main"):
        raise UsageError(
            f"There is nothing at the path '{value}'. Check it; for the model of that name on the Hugging "
            f"Face hub write '{value}@main'."
        )
    return open_checkpoint(fetch_model(value) if is_hub_id(value) else Path(value).expanduser())


class Externals:
    """Fingerprints by content, which are read again only when a file's (inode, mtime, size) changed."""

    def __init__(self, run_dir: Path) -> None:
        self._file = run_dir / ".inputs.json"
        self._known: dict[str, dict[str, Any]] = {}
        if self._file.exists():
            self._known = jsonl.loads(self._file.read_bytes())

    def fingerprint(self, kind: RefKind, value: str) -> str:
        """Return the fingerprint of what `value` names. Raises `UsageError` when it cannot be opened."""
        if kind == "checkpoint" and is_hub_id(value):
            return hub_fingerprint(value)
        artifact = open_external(kind, value)
        if artifact.manifest is not None:
            return artifact.fingerprint
        key, stats = f"{kind} {artifact.path.resolve()}", _stats(artifact.path)
        if self._known.get(key, {}).get("stats") != stats:
            self._known[key] = {"stats": stats, "fingerprint": artifact.fingerprint}
            if self._file.parent.is_dir():  # a plan alone leaves nothing behind
                jsonl.write_json(self._file, self._known)
        return str(self._known[key]["fingerprint"])


def _stats(path: Path) -> list[list[int | str]]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [[file.name, *_stat(os.stat(file))] for file in files if file.is_file()]


def _stat(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_ino, found.st_mtime_ns, found.st_size
