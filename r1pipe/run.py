"""A run's folder: who may write in it, what happened in it, and the work that is not finished yet.

run.json                the recipe as resolved, seed, versions, host
events.jsonl            what happened, append-only
metrics/<stage>.jsonl   one row per logged step, of the version that counts now
logs/<stage>.log        what a stage's libraries print, and tracebacks
artifacts/              see `artifact.Store`
work/<stage>/           unfinished work; begun.json in it says of which fingerprint
lock, lock.json         held by the one writer; who that is
"""

import filecmp
import os
import platform
import shlex
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock

from r1pipe import jsonl
from r1pipe.artifact import Artifact, Store
from r1pipe.errors import Conflict
from r1pipe.manifest import code_version, library_versions
from r1pipe.recipe import Recipe
from r1pipe.text import now

BEGUN = "begun.json"
ASIDE_METRICS = "metrics.jsonl"  # beside the work of a config that was put aside


class RunFolder:
    """The layout of a run, and the changes made to it."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.store = Store(self.path)

    def metrics(self, stage: str) -> Path:
        """Return the file of a stage's metrics."""
        return self.path / "metrics" / f"{stage}.jsonl"

    def log(self, stage: str) -> Path:
        """Return the file of what a stage prints."""
        return self.path / "logs" / f"{stage}.log"

    def work(self, stage: str) -> Path:
        """Return the folder of a stage's unfinished work."""
        return self.path / "work" / stage

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the run's one writer. Raises `Conflict` when somebody else is.

        The kernel drops the lock of a process that dies; the note beside it serves for the message only.
        """
        note = self.path / "lock.json"
        lock = filelock.FileLock(self.path / "lock")
        with jsonl.writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(blocking=False)
            except filelock.Timeout:
                raise Conflict(self._held_by(note)) from None
        try:
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now(), "command": _command()}
            jsonl.write_json(note, holder)
            yield
        finally:
            note.unlink(missing_ok=True)
            lock.release()

    def _held_by(self, note: Path) -> str:
        who, stop = "another process", "stop it"
        with suppress(OSError, ValueError):
            holder = jsonl.loads(note.read_bytes())
            who = "process {pid} on {host} since {since} ({command})".format(**holder)
            stop = f"stop it (kill -INT {holder['pid']})"
        return f"The run '{self.path}' is held by {who}. Wait for it, {stop}, or give another run folder."

    def describe(self, recipe: Recipe, jobs: int) -> None:
        """Write `run.json`."""
        description = {
            "recipe": recipe.resolved(),
            "seed": recipe.seed,
            "started": now(),
            "command": _command(),
            "jobs": jobs,
            "code_version": code_version(),
            "libraries": dict(library_versions()),
            "host": {
                "name": socket.gethostname(),
                "system": platform.platform(),
                "processor": _processor(),
                "cores": os.cpu_count(),
            },
        }
        jsonl.write_json(self.path / "run.json", description)

    def tell(self, kind: str, stage: str, fields: dict[str, Any]) -> None:
        """Append to `events.jsonl`; progress is not worth keeping, and rows are in the metrics."""
        if kind in ("progress", "log"):
            return
        with jsonl.Journal(self.path / "events.jsonl") as journal:
            journal.append([{"time": now(), "event": kind, "stage": stage, **fields}])

    def holds_other_work(self, stage: str, fingerprint: str) -> bool:
        """Whether something was begun of the stage with other options, or of other inputs."""
        return self.work(stage).is_dir() and _begun(self.work(stage)) != fingerprint

    def begin(self, stage: str, fingerprint: str) -> bool:
        """Prepare a stage's work folder; return whether it holds work of this fingerprint to go on from.

        Work that was begun with another fingerprint is put aside with its metrics, one per stage: who goes
        back to that config finds it again.
        """
        work, metrics = self.work(stage), self.metrics(stage)
        aside = self.path / "work" / ".aside"
        if self.holds_other_work(stage, fingerprint):
            begun = _begun(work)
            for old in aside.glob(f"{stage}@*"):
                if not old.name.endswith(fingerprint):
                    shutil.rmtree(old)
            if begun is None:
                shutil.rmtree(work)
            else:
                self._put_aside(stage, begun)
        if not work.is_dir():
            metrics.unlink(missing_ok=True)  # of another config
            if (kept := aside / f"{stage}@{fingerprint}").is_dir():
                os.replace(kept, work)
        if work.is_dir():
            if (work / ASIDE_METRICS).exists():
                os.replace(work / ASIDE_METRICS, metrics)
            return True
        jsonl.write_json(work / BEGUN, {"fingerprint": fingerprint, "seconds": 0.0, "cpu_seconds": 0.0})
        return False

    def _put_aside(self, stage: str, begun: str) -> None:
        work, metrics = self.work(stage), self.metrics(stage)
        aside = self.path / "work" / ".aside"
        aside.mkdir(exist_ok=True)
        if metrics.exists():
            os.replace(metrics, work / ASIDE_METRICS)
        os.replace(work, aside / f"{stage}@{begun}")

    def finished(self, stage: str, artifact: Artifact) -> None:
        """Keep the metrics with their version, and remove the work that led to it."""
        _copy(self.metrics(stage), self._kept_metrics(stage, artifact))
        shutil.rmtree(self.work(stage), ignore_errors=True)

    def reused(self, stage: str, artifact: Artifact) -> None:
        """Put back the metrics of a version that counts again; end what a kill after publishing left.

        Work that was begun with another fingerprint keeps its metrics, put aside together.
        """
        if (begun := _begun(self.work(stage))) not in (None, artifact.fingerprint):
            for old in (self.path / "work" / ".aside").glob(f"{stage}@*"):
                shutil.rmtree(old)
            self._put_aside(stage, str(begun))
        kept, current = self._kept_metrics(stage, artifact), self.metrics(stage)
        if kept.exists():
            _copy(kept, current)
        else:
            _copy(current, kept)
        if _begun(self.work(stage)) == artifact.fingerprint:
            shutil.rmtree(self.work(stage), ignore_errors=True)

    def _kept_metrics(self, stage: str, artifact: Artifact) -> Path:
        return self.path / "metrics" / ".versions" / stage / f"{artifact.path.name}.jsonl"


def _copy(source: Path, target: Path) -> None:
    if source.exists() and not (target.exists() and filecmp.cmp(source, target, shallow=False)):
        jsonl.write_text(target, source.read_text())


def _begun(work: Path) -> str | None:
    with suppress(OSError, ValueError, KeyError):
        return str(jsonl.loads((work / BEGUN).read_bytes())["fingerprint"])
    return None


def _command() -> str:
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
