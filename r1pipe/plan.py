"""Which stages have to run, and why; a plan reads manifests and stats, never the bytes of an artifact.

A stage is up to date when the run's history holds a whole version with the fingerprint it would have now,
made from parents with the bytes they have now. Because a fingerprint is computed from definitions alone, the
whole tree can be planned before anything runs; what making a parent again does to its bytes is known only
afterwards, so a stage is looked at once more when its turn comes.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from r1pipe import jsonl
from r1pipe.artifact import Artifact, Store, fingerprint_of, verify
from r1pipe.errors import UsageError
from r1pipe.external import Externals
from r1pipe.hints import meant
from r1pipe.hub import is_hub_id
from r1pipe.manifest import Manifest, Parent, load_manifest
from r1pipe.recipe import Recipe, StageSpec
from r1pipe.stage import Reference, RefKind, Verbs, counted

Action = Literal["run", "waiting", "up to date", "blocked"]


@dataclass(frozen=True, slots=True)
class Given:
    """One input of a stage, as far as it is known."""

    role: str
    kind: RefKind
    label: str
    """As the recipe writes it."""
    fingerprint: str
    parent: str | None = None
    """The stage it comes from; None for what is from outside the run."""
    artifact: Artifact | None = None
    """The parent's artifact; None while it still has to be made, and for what is from outside."""
    trouble: str = ""
    """Why what is from outside cannot be had any more; only a look back finds this, see `Planner`."""

    @property
    def pending(self) -> bool:
        """Whether it still has to be made."""
        return self.parent is not None and self.artifact is None


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done about one stage."""

    stage: str
    verb: str
    action: Action
    """`run` now, `waiting` for a parent that runs first, `up to date`, or `blocked`: an input is gone."""
    reasons: tuple[str, ...]
    """Why it runs, or cannot; empty when it is up to date."""
    fingerprint: str
    inputs: tuple[Given, ...] = field(repr=False)
    artifact: Artifact | None = None
    """What is up to date, or would be if its input were still there."""

    @property
    def as_json(self) -> dict[str, Any]:
        """The step for `--json` and for the run's events."""
        return {
            "stage": self.stage,
            "verb": self.verb,
            "action": self.action,
            "reasons": list(self.reasons),
            "fingerprint": self.fingerprint,
            "artifact": str(self.artifact.path) if self.artifact else None,
        }


class Planner:
    """Plans a recipe against what its run holds already."""

    def __init__(
        self,
        recipe: Recipe,
        store: Store,
        verbs: Verbs,
        force: Collection[str] = (),
        *,
        looking_back: bool = False,
    ) -> None:
        """`force` names stages to run again whatever their state; `UsageError` for one there is not.

        `looking_back` is for a run's record, with nothing to be begun: where something from outside is gone
        or spoilt, it is taken to be what the stage was made from, and the stage is `blocked`.
        """
        for name in force:
            if name not in recipe.stages:
                raise UsageError(f"There is no stage '{name}' to force{meant(name, recipe.stages)}")
        self.recipe = recipe
        self.steps: dict[str, Step] = {}
        self._store = store
        self._verbs = verbs
        self._forced = set(force)
        self._looking_back = looking_back
        self._externals = Externals(store.run_dir)

    def plan(self) -> list[Step]:
        """Look at every stage, parents first; `UsageError` with all from outside that cannot be used."""
        if not self._looking_back:
            self._open_all()
        return [self.look(name) for name in self.recipe.order]

    def _open_all(self) -> None:
        troubles: list[str] = []
        for name in self.recipe.order:
            for reference in self.recipe.stages[name].inputs:
                try:
                    self._from_outside(name, reference)
                except UsageError as error:
                    troubles.append(str(error))
        if troubles:
            raise UsageError("\n".join(dict.fromkeys(troubles)))

    def look(self, name: str) -> Step:
        """Look at one stage; its parents were looked at before."""
        spec = self.recipe.stages[name]
        inputs = tuple(self._given(name, reference) for reference in spec.inputs)
        if self._looking_back:
            inputs = tuple(self._as_they_were(name, inputs))
        parents = [(given.role, given.fingerprint) for given in inputs]
        version = self._verbs.module(spec.uses).VERSION
        fingerprint = fingerprint_of(spec.uses, version, counted(spec.config), parents, self.recipe.seed)
        artifact, reasons = self._state(spec, fingerprint, inputs)
        if troubles := [given.trouble for given in inputs if given.trouble]:
            step = Step(name, spec.uses, "blocked", (*troubles, *reasons), fingerprint, inputs, artifact)
        elif artifact is not None:
            step = Step(name, spec.uses, "up to date", (), fingerprint, inputs, artifact)
        else:
            action: Action = "waiting" if any(given.pending for given in inputs) else "run"
            step = Step(name, spec.uses, action, tuple(reasons), fingerprint, inputs)
        self.steps[name] = step
        return step

    def made(self, name: str, artifact: Artifact) -> None:
        """Note that a stage was run; it is no longer forced."""
        self._forced.discard(name)
        old = self.steps[name]
        self.steps[name] = Step(name, old.verb, "up to date", (), old.fingerprint, old.inputs, artifact)

    def _given(self, stage: str, reference: Reference) -> Given:
        role, kind, label = reference.role, reference.kind, reference.value
        try:
            outside = self._from_outside(stage, reference)
        except UsageError as error:
            if not self._looking_back:
                raise
            there = Path(label).expanduser().exists()
            trouble = f"input '{label}': {error.__cause__}" if there else _gone(label)
            return Given(role, kind, label, "", trouble=trouble)
        if outside is not None:
            return Given(role, kind, label, outside)
        parent = self.steps[label]
        return Given(role, kind, label, parent.fingerprint, label, parent.artifact)

    def _from_outside(self, stage: str, reference: Reference) -> str | None:
        """The fingerprint of a path or a hub id; None for a stage. `UsageError` says where it is named."""
        if reference.kind != "path" and reference.value in self.recipe.stages:
            return None
        try:
            return self._externals.fingerprint(reference.kind, reference.value)
        except UsageError as error:
            raise UsageError(f"{self.recipe.place(stage, reference.role)}: {error}") from error

    def _as_they_were(self, stage: str, inputs: tuple[Given, ...]) -> Iterator[Given]:
        """Yield the inputs, with the fingerprint that the newest version recorded for what is gone."""
        latest = self._store.latest(stage)
        recorded = _by_role(_manifest(latest), inputs) if latest else [None] * len(inputs)
        for given, parent in zip(inputs, recorded, strict=True):
            trouble = given.trouble
            if parent and self._was_a_folder(given, parent):
                trouble = _gone(given.label)
            then = parent.fingerprint if parent else ""
            yield replace(given, fingerprint=then, trouble=trouble) if trouble else given

    def _was_a_folder(self, given: Given, recorded: Parent) -> bool:
        """Whether what reads as a hub id was a path when the stage ran: `models/base` is either."""
        reads_as_id = given.parent is None and given.kind == "checkpoint" and is_hub_id(given.label)
        return reads_as_id and Path(given.label).resolve() == self._store.run_dir.resolve() / recorded.path

    def _state(
        self, spec: StageSpec, fingerprint: str, inputs: tuple[Given, ...]
    ) -> tuple[Artifact | None, list[str]]:
        """Return the version that is up to date, or the reasons why none is."""
        versions = self._store.versions(spec.name)
        if spec.name in self._forced:
            return None, ["forced"]
        if not versions:
            return None, ["never completed"]
        reasons: list[str] = []
        for artifact in reversed(versions):
            if artifact.fingerprint == fingerprint:
                stale = verify(artifact, deep=False) or self._moved_on(artifact, inputs)
                if not stale:
                    return artifact, []
                reasons = reasons or stale
        latest = _manifest(versions[-1])
        return None, reasons or list(self._changes(spec, latest, inputs)) or ["another fingerprint"]

    def _moved_on(self, artifact: Artifact, inputs: tuple[Given, ...]) -> list[str]:
        """Say which parents no longer have the bytes the artifact was made from.

        A parent made again with the same bytes is no reason; neither is one whose old version was removed.
        """
        reasons = []
        for given, recorded in zip(inputs, _by_role(_manifest(artifact), inputs), strict=True):
            if given.pending:
                reasons.append(f"input '{given.label}' is made again first")
            elif given.artifact is not None and recorded is not None:
                then = load_manifest(self._store.run_dir / recorded.path)
                if then is not None and _content(then) != _content(_manifest(given.artifact)):
                    reasons.append(_is_now(given))
        return reasons

    def _changes(self, spec: StageSpec, latest: Manifest, inputs: tuple[Given, ...]) -> Iterator[str]:
        """Compare the stage as it is now with the newest version."""
        if latest.verb != spec.uses:
            yield f"uses: {latest.verb} -> {spec.uses}"
            return
        version = self._verbs.module(spec.uses).VERSION
        if latest.stage_version != version:
            yield f"stage version {latest.stage_version} -> {version}"
        yield from config_changes(latest.fingerprint_config, counted(spec.config))
        if latest.seed != self.recipe.seed:
            yield f"seed: {latest.seed} -> {self.recipe.seed}"
        for given, recorded in zip(inputs, _by_role(latest, inputs), strict=True):
            stage = _stage_of(recorded) if recorded else None
            if recorded is None or stage != given.parent:
                before = "(none)" if recorded is None else stage or recorded.name
                yield f"input {given.role}: {before} -> {given.label}"
            elif given.pending:
                yield f"input '{given.label}' is made again first"
            elif recorded.fingerprint != given.fingerprint:
                yield _is_now(given)


def config_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Yield `config trainer.learning_rate: 1e-06 -> 2e-06` for every dotted key that differs."""
    for key in [*new, *(key for key in old if key not in new)]:
        before, after = (_shown(each[key]) if key in each else "(none)" for each in (old, new))
        if before != after:
            yield f"config {key}: {before} -> {after}"


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value) if isinstance(value, float) else None
    text = jsonl.dumps(value).decode() if text is None else text
    return text if len(text) <= 60 else f"{text[:57]}..."


def _gone(label: str) -> str:
    where = "" if Path(label).expanduser().is_absolute() else f" from {Path.cwd()}"
    return f"input '{label}' is gone{where}"


def _is_now(given: Given) -> str:
    if given.artifact is None:
        return f"input '{given.label}' has changed"
    return f"input '{given.label}' is now v{_manifest(given.artifact).version}"


def _by_role(manifest: Manifest, inputs: tuple[Given, ...]) -> list[Parent | None]:
    """Return the parent recorded for each input: the nth of a role then for the nth of that role now."""
    left: dict[str, list[Parent]] = {}
    for parent in manifest.parents:
        left.setdefault(parent.role, []).append(parent)
    return [left[given.role].pop(0) if left.get(given.role) else None for given in inputs]


def _stage_of(parent: Parent) -> str | None:
    """Return the stage of this run that made the parent; None for what came from outside."""
    parts = Path(parent.path).parts
    return parts[1] if parts[0] == "artifacts" else None


def _content(manifest: Manifest) -> dict[str, str]:
    """Return the hash of every file; the README is left out, as it names the versions of the parents."""
    return {entry.path: entry.sha256 for entry in manifest.files if entry.path != "README.md"}


def _manifest(artifact: Artifact) -> Manifest:
    assert artifact.manifest is not None, "what a store holds has a manifest"
    return artifact.manifest
