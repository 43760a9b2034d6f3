"""Artifacts: versioned, immutable checkpoints and datasets, and the store that publishes them.

    runs/<run>/artifacts/<stage>/v001-1f3a9c2e/     version, first 8 digits of the fingerprint
        manifest.json                               written last: a folder without it is no artifact
        model.safetensors, config.json, …           or part-00000.jsonl, …, README.md

What is published is never modified and never overwritten. Publishing is one rename, so a reader sees a whole
artifact or none.
"""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from r1pipe import jsonl
from r1pipe.card import Contents, dataset_card
from r1pipe.checkpoint import checkpoint_problems, weight_files
from r1pipe.errors import Conflict, RunFailed, UsageError
from r1pipe.fingerprint import canonical_json, fingerprint_of, flatten, sha256_of
from r1pipe.integrity import check_files, record_stats, seal, sha256_files, walk
from r1pipe.manifest import MANIFEST, Cost, FileEntry, Kind, Manifest, Parent, load_manifest

__all__ = [
    "Artifact",
    "Cost",
    "FileEntry",
    "Kind",
    "Lineage",
    "Manifest",
    "Parent",
    "Store",
    "canonical_json",
    "dataset_card",
    "fingerprint_of",
    "flatten",
    "lineage",
    "open_checkpoint",
    "open_dataset",
    "verify",
]

_LAST_VERSION = ".last-version"  # the highest number ever given out, for when its folder is removed
_VERSION = re.compile(r"v(\d{3,})-([0-9a-f]{8})")
_STAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LEFT_BY_TRAINERS = ("optimizer.pt", "scheduler.pt", "trainer_state.json", "training_args.bin")


@dataclass(frozen=True)
class Artifact:
    """A checkpoint or a dataset on the disk: one that a stage published, or one from outside."""

    path: Path
    """Its folder; for a dataset from outside also one `.jsonl` file."""
    kind: Kind
    manifest: Manifest | None = None
    """None for what no stage of r1pipe published."""

    @property
    def name(self) -> str:
        """`sft v003-1f3a9c2e`; for what is from outside the folder's or file's name."""
        if self.manifest is None:
            return self.path.resolve().name
        return f"{self.manifest.stage} v{self.manifest.version:03}-{self.manifest.fingerprint[:8]}"

    @cached_property
    def fingerprint(self) -> str:
        """What it was made from, or, for what is from outside, the hash of the files that are read."""
        if self.manifest is not None:
            return self.manifest.fingerprint
        files = jsonl.parts(self.path) if self.kind == "dataset" else _files_of_model(self.path)
        # A dataset's files are told apart by their order alone, so that a renamed file is the same data.
        names = ("" if self.kind == "dataset" else file.name for file in files)
        return sha256_of([list(each) for each in zip(names, sha256_files(files), strict=True)])

    @property
    def run_dir(self) -> Path | None:
        """The run that the artifact lies in, or None."""
        path = self.path.resolve()
        in_run = _VERSION.fullmatch(path.name) and path.parent.parent.name == "artifacts"
        return path.parents[2] if in_run else None

    def manifest_or_fail(self) -> Manifest:
        """The manifest of what a stage published. Raises `UsageError` for what is from outside."""
        if self.manifest is None:
            raise UsageError(
                f"'{self.path}' was published by no stage: it has no {MANIFEST}. Check the path."
            )
        return self.manifest

    def rows(self) -> list[dict[str, Any]]:
        """Return a dataset's rows; a bad one raises `UsageError`, see `read_rows` for setting it aside."""
        return list(jsonl.iter_rows(self.path))

    def read_rows(self, require: Sequence[str] = ()) -> tuple[list[dict[str, Any]], list[jsonl.BadRow]]:
        """Return a dataset's usable rows and those set aside; see `jsonl.read_rows`."""
        return jsonl.read_rows(self.path, require=require)

    def as_parent(self, role: str, run_dir: Path) -> Parent:
        """Describe it for the manifest of what is made from it in `run_dir`."""
        path, run = self.path.resolve(), run_dir.resolve()
        inside = path.relative_to(run) if path.is_relative_to(run) else path
        return Parent(role=role, name=self.name, fingerprint=self.fingerprint, path=inside.as_posix())


def _files_of_model(folder: Path) -> list[Path]:
    """Return the files that decide what the model is: config, weights, tokenizer, templates."""
    weights = set(weight_files(folder))
    kept = {".json", ".model", ".txt", ".jinja"}
    return [
        path
        for path in sorted(folder.iterdir())
        if path.name in weights or (path.suffix in kept and path.name not in (*_LEFT_BY_TRAINERS, MANIFEST))
    ]


# --- Opening what a path names


def open_checkpoint(path: Path | str) -> Artifact:
    """Open a checkpoint's folder, ours or a plain Hugging Face one.

    Raises `UsageError` with every missing, cut or damaged piece and the way out.
    """
    folder = _folder(Path(path).expanduser(), "checkpoint")
    manifest = _manifest_for(folder, "checkpoint")
    if problems := checkpoint_problems(folder):
        raise UsageError(f"'{path}' cannot be used as a checkpoint. {' '.join(problems)}")
    return Artifact(folder, "checkpoint", manifest)


def open_dataset(path: Path | str) -> Artifact:
    """Open a dataset's folder or one `.jsonl` file; raises `UsageError` when no row can be in it."""
    path = Path(path).expanduser()
    manifest = _manifest_for(_folder(path, "dataset"), "dataset") if path.is_dir() else None
    files = jsonl.parts(path)
    if manifest is None and not any(file.stat().st_size for file in files):
        raise UsageError(f"The data '{path}' is empty. One JSON object per line is expected.")
    return Artifact(path, "dataset", manifest)


def _folder(folder: Path, kind: Kind) -> Path:
    if not folder.is_dir():
        what = "a file" if folder.exists() else "not there"
        raise UsageError(f"A {kind}'s folder is expected, '{folder}' is {what}. Check the path.")
    if versions := sorted(each.name for each in folder.iterdir() if _VERSION.fullmatch(each.name)):
        newest = ", ".join(versions[-3:])
        raise UsageError(f"'{folder}' holds the versions of a stage. Give one of them: {newest}.")
    return folder


def _manifest_for(folder: Path, kind: Kind) -> Manifest | None:
    manifest = load_manifest(folder)
    if manifest is None and (folder / MANIFEST).exists():
        raise UsageError(f"'{folder / MANIFEST}' is damaged. Copy the artifact again, or make it again.")
    if manifest is not None and manifest.kind != kind:
        raise UsageError(
            f"'{folder}' is a {manifest.kind}, a {kind} is expected here. Give another artifact."
        )
    # A lost shard would otherwise be read as a smaller dataset; `verify` looks closer.
    for entry in manifest.files if manifest else ():
        path = folder / entry.path
        if not path.exists() or path.stat().st_size != entry.size:
            raise UsageError(
                f"'{path}' is missing or was changed. Copy the artifact again, or make it again."
            )
    return manifest


# --- Verifying


def verify(artifact: Artifact, *, deep: bool) -> list[str]:
    """Return what is wrong with a published artifact, one sentence each; an empty list is a good sign.

    Shallow: files whose (inode, mtime, size) are those noted when they were hashed are trusted, others read.
    Deep: every byte is read, and files that were added are named too. What came from outside has no manifest
    to be compared with; for a checkpoint the pieces are looked for.
    """
    if artifact.manifest is None:
        return checkpoint_problems(artifact.path) if artifact.kind == "checkpoint" else []
    files = artifact.manifest.files
    problems = check_files(artifact.path, files, _stat_record(artifact), deep=deep)
    if deep:
        known = {artifact.path / entry.path for entry in files}
        problems += [f"file added: '{path}'" for path in walk(artifact.path) if path not in known]
    return problems


def _stat_record(artifact: Artifact) -> Path | None:
    """Where the files' stats are noted: beside the artifact, as nothing may change inside."""
    if artifact.run_dir is None:
        return None
    return artifact.path.with_name(f".{artifact.path.name}.stat.json")


# --- The store


class Store:
    """A run's artifacts. It has one writer, the holder of the run's lock, and any number of readers."""

    def __init__(self, run_dir: Path | str) -> None:
        self.run_dir = Path(run_dir)
        self.root = self.run_dir / "artifacts"

    def versions(self, stage: str) -> list[Artifact]:
        """Return the stage's whole artifacts, oldest first."""
        found = []
        for _, path in self._numbered(stage):
            manifest = load_manifest(path)
            if manifest is not None:
                found.append(Artifact(path, manifest.kind, manifest))
        return found

    def find(self, stage: str, fingerprint: str) -> Artifact | None:
        """Return the newest version with this fingerprint, anywhere in the run's history."""
        return next(
            (each for each in reversed(self.versions(stage)) if each.fingerprint == fingerprint), None
        )

    def latest(self, stage: str) -> Artifact | None:
        """Return the newest version."""
        return next(iter(reversed(self.versions(stage))), None)

    def publish(
        self, stage: str, folder: Path | str, manifest: Manifest, card: Contents | None = None
    ) -> Artifact:
        """Publish a finished folder as the stage's next version; `version` and `files` are filled in.

        `card` is what the card of a dataset tells, where the stage knows it; else its rows are read for it.
        A folder inside the run is moved, one from outside is copied. A kill at any moment leaves the folder
        where it was or the artifact whole. Raises `RunFailed` when the folder is no whole checkpoint or
        dataset, or when the disk is full.
        """
        folder = Path(folder)
        _check_unpublished(stage, folder, manifest)
        partial = self._into_run(stage, folder)
        with jsonl.writing(self.root / stage):
            for litter in partial.rglob(".*.tmp"):  # a kill in the middle of jsonl's replacing leaves these
                litter.unlink()
            if manifest.kind == "dataset":
                jsonl.write_text(partial / "README.md", dataset_card(partial, manifest, card))
            number = self._next_number(stage)
            whole = manifest.model_copy(update={"version": number, "files": seal(partial)})
            jsonl.write_json(partial / MANIFEST, whole.model_dump())
            path = self.root / stage / f"v{number:03}-{whole.fingerprint[:8]}"
            if path.exists():
                raise Conflict(f"'{path}' is already there: another process publishes in this run. Stop one.")
            jsonl.write_text(path.parent / _LAST_VERSION, f"{number}\n")
            os.rename(partial, path)
            jsonl.fsync(path.parent)
        artifact = Artifact(path, whole.kind, load_manifest(path))
        record = _stat_record(artifact)
        if record is not None:
            record_stats(path, whole.files, record)
        return artifact

    def _numbered(self, stage: str) -> Iterator[tuple[int, Path]]:
        """Yield (number, path) of everything that looks like a version, lowest number first."""
        folder = self.root / stage
        if not folder.is_dir():
            return
        matches = ((_VERSION.fullmatch(path.name), path) for path in folder.iterdir())
        yield from sorted((int(match[1]), path) for match, path in matches if match)

    def _next_number(self, stage: str) -> int:
        """Return a number that was never given out, also when the version that had it was removed since."""
        given = [number for number, _ in self._numbered(stage)]
        memory = self.root / stage / _LAST_VERSION
        if memory.exists():
            given.append(int(memory.read_text()))
        return max(given, default=0) + 1

    def _may_move(self, folder: Path, target: Path) -> bool:
        """Whether the folder is this run's unfinished work and lies where a rename reaches it."""
        path = folder.resolve()
        inside = path.is_relative_to(self.run_dir.resolve()) and not path.is_relative_to(self.root.resolve())
        same_disk = path.stat().st_dev == target.stat().st_dev
        return inside and same_disk and not any(each.is_symlink() for each in (folder, *folder.rglob("*")))

    def _into_run(self, stage: str, folder: Path) -> Path:
        """Return the folder itself when it can be moved, else a copy of it beside the versions."""
        target = self.root / stage
        with jsonl.writing(target):
            target.mkdir(parents=True, exist_ok=True)
            jsonl.fsync(self.root)
            for stale in target.glob(".partial-*"):  # copies that a kill left; their originals are elsewhere
                shutil.rmtree(stale)
        if self._may_move(folder, target):
            return folder
        partial = target / f".partial-{os.getpid()}"
        try:
            _copy(folder, partial)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        return partial


def _copy(folder: Path, target: Path) -> None:
    """Copy what is not hidden; links, as in the Hugging Face cache, become what they point at."""
    with jsonl.writing(target):
        target.mkdir()
        for path in walk(folder):
            name = path.relative_to(folder)
            if not any(part.startswith(".") for part in name.parts):
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target / name)


def _check_unpublished(stage: str, folder: Path, manifest: Manifest) -> None:
    if not _STAGE.fullmatch(stage):
        raise UsageError(f"'{stage}' is no name for a stage: letters, digits, '.', '_' and '-' are.")
    if manifest.stage != stage:
        raise ValueError(f"the manifest is of stage {manifest.stage!r}, not {stage!r}")
    if not folder.is_dir():
        raise RunFailed(f"Stage '{stage}' made nothing: there is no folder '{folder}'.")
    if manifest.kind == "checkpoint" and (problems := checkpoint_problems(folder)):
        raise RunFailed(f"Stage '{stage}' made no whole checkpoint in '{folder}'. {' '.join(problems)}")
    if manifest.kind == "dataset" and not any(
        part.stat().st_size for pattern in jsonl.PARTS for part in folder.glob(pattern)
    ):
        raise RunFailed(f"Stage '{stage}' made no rows. What it left, rejects included, is in '{folder}'.")


# --- Lineage


@dataclass(frozen=True)
class Lineage:
    """An artifact and what it was made from, back to the roots."""

    role: str
    """What it was used as: the config's field; empty for the artifact that was asked about."""
    name: str
    fingerprint: str
    path: Path
    manifest: Manifest | None
    """None for what is from outside, and for what is no longer there."""
    note: str = ""
    """`from outside`, `no longer there` or `replaced by other data`; empty when all is as recorded."""
    parents: tuple["Lineage", ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values, without the manifests' file lists and configs."""
        of_manifest = {"kind", "verb", "seed", "metrics", "cost", "created"}
        known = self.manifest.model_dump(mode="json", include=of_manifest) if self.manifest else {}
        return {
            "role": self.role,
            "name": self.name,
            "fingerprint": self.fingerprint,
            "path": str(self.path),
            "note": self.note,
            **known,
            "parents": [parent.as_dict() for parent in self.parents],
        }


def lineage(artifact: Artifact) -> Lineage:
    """Return where an artifact comes from, read from manifests alone; what was removed since is marked so."""
    parents = _parents_of(artifact.manifest, artifact.run_dir, {artifact.fingerprint})
    note = "" if artifact.manifest else "from outside"
    return Lineage("", artifact.name, artifact.fingerprint, artifact.path, artifact.manifest, note, parents)


def _parents_of(manifest: Manifest | None, run_dir: Path | None, below: set[str]) -> tuple[Lineage, ...]:
    parents = manifest.parents if manifest else ()
    return tuple(_ancestor(parent, run_dir, below) for parent in parents)


def _ancestor(parent: Parent, run_dir: Path | None, below: set[str]) -> Lineage:
    path = Path(parent.path) if run_dir is None else run_dir / parent.path
    node = Lineage(parent.role, parent.name, parent.fingerprint, path, load_manifest(path))
    if node.manifest is None:
        return replace(node, note="from outside" if path.exists() else "no longer there")
    # A fingerprint hashes those of its parents, so a circle can only come from a manifest changed by hand.
    if node.manifest.fingerprint != node.fingerprint or node.fingerprint in below:
        return replace(node, manifest=None, note="replaced by other data")
    run_of_parent = Artifact(path, node.manifest.kind, node.manifest).run_dir
    return replace(node, parents=_parents_of(node.manifest, run_of_parent, below | {node.fingerprint}))
