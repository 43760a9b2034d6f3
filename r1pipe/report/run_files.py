"""What a run's files say, gathered for whoever shows it: the report, the scores, the answers side by side.

Nothing but the files is needed: a run that was copied from another machine, or that is still going on, reads
the same.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from r1pipe import jsonl
from r1pipe.errors import UsageError
from r1pipe.manifest import MANIFEST, Manifest, load_manifest

HEADLINE_SET = "held-out"
"""The set whose scores stand for a model; a run that has none is represented by its first set."""
SIDE_BY_SIDE = ("base", "zero", "r1", "student")
"""Models whose answers are set beside each other, where a run has them."""

_VERSION = re.compile(r"v(\d+)-[0-9a-f]{8}")
"""The name of an artifact's folder."""


@dataclass(frozen=True)
class Stage:
    """One stage of a run, as far as it has come."""

    name: str
    verb: str
    parents: Sequence[str]
    """Stages of the same run it is made from."""
    folder: Path | None
    """Its newest whole artifact; None while there is none."""
    manifest: Manifest | None
    state: str
    """`done`; `outdated`: made with another config than the run was last started with; `failed`; `begun`, and
    stopped or still running; `waiting`."""

    def manifest_or_fail(self) -> Manifest:
        """The manifest of a stage that is known to have one."""
        if self.manifest is None:
            raise LookupError(f"stage {self.name!r} has no artifact yet")
        return self.manifest


@dataclass(frozen=True)
class RunFiles:
    """A run's folder, read."""

    path: Path

    @classmethod
    def open(cls, path: Path | str) -> "RunFiles":
        """Open a run's folder.

        Raises:
            UsageError: it is not the folder of a run.
        """
        path = Path(path)
        if not (path / "run.json").is_file():
            why = "it has no run.json" if path.exists() else "there is nothing at that path"
            raise UsageError(
                f"{path} is not the folder of a run: {why}. "
                "Give the folder that `r1pipe run` wrote, e.g. runs/tiny-r1."
            )
        return cls(path)

    @cached_property
    def record(self) -> dict[str, Any]:
        """`run.json`: the recipe as resolved, seed, versions, host.

        Raises:
            UsageError: the file is damaged.
        """
        path = self.path / "run.json"
        with suppress(ValueError):
            record = jsonl.loads(path.read_bytes())
            if isinstance(record, dict) and isinstance(record.get("recipe"), dict):
                return record
        raise UsageError(f"{path} is damaged. Run the recipe again in this folder: that writes it anew.")

    @property
    def recipe(self) -> dict[str, Any]:
        """The resolved recipe."""
        recipe: dict[str, Any] = self.record["recipe"]
        return recipe

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """`events.jsonl`, oldest first."""
        return _rows(self.path / "events.jsonl")

    def metrics(self, stage: str) -> list[dict[str, Any]]:
        """The logged rows of a stage, by step; none for a stage that logs nothing."""
        return _rows(self.path / "metrics" / f"{stage}.jsonl")

    @cached_property
    def stages(self) -> dict[str, Stage]:
        """The recipe's stages in its order."""
        sections: Mapping[str, Any] = self.recipe.get("stages", {})
        return {name: self._stage(name, section, sections) for name, section in sections.items()}

    def _stage(self, name: str, section: Mapping[str, Any], sections: Mapping[str, Any]) -> Stage:
        folder = self._current(name)
        manifest = load_manifest(folder) if folder else None
        named = (
            [parent.name.split()[0] for parent in manifest.parents]
            if manifest
            else [text for text in _strings(section) if text != name]
        )
        parents = [parent for parent in dict.fromkeys(named) if parent in sections]
        verb = str(section.get("uses", ""))
        return Stage(name, verb, parents, folder, manifest, self._state(name, manifest))

    def _state(self, name: str, manifest: Manifest | None) -> str:
        last = self._last_event(name)
        if last == "stage_failed":
            return "failed"
        if last in ("stage_started", "stage_stopped"):
            return "begun"
        if manifest is None:
            return "waiting"
        return "done" if self._asked_for.get(name) in (None, manifest.fingerprint) else "outdated"

    @cached_property
    def _asked_for(self) -> dict[str, str]:
        """The fingerprint of each stage by the plan the run was last started with."""
        started = (event["steps"] for event in reversed(self.events) if event["event"] == "run_started")
        return {step["stage"]: step["fingerprint"] for step in next(started, [])}

    def outdated(self) -> list[str]:
        """Stages whose artifact is there, and is not what the recipe as last run makes."""
        asked = self._asked_for
        return [
            name
            for name, stage in self.stages.items()
            if stage.manifest and asked.get(name) not in (None, stage.manifest.fingerprint)
        ]

    def _current(self, stage: str) -> Path | None:
        """The artifact the last run made or reused; before its end, the highest version."""
        whole = {
            folder.name: folder
            for folder in (self.path / "artifacts" / stage).glob("v*")
            if _VERSION.fullmatch(folder.name) and (folder / MANIFEST).is_file()
        }
        for event in reversed(self.events):
            if event.get("stage") == stage and event.get("event") in ("stage_finished", "stage_reused"):
                told = Path(str(event.get("artifact"))).name
                if told in whole:
                    return whole[told]
                break
        return max(whole.values(), key=_number, default=None)

    def _last_event(self, stage: str) -> str:
        kinds = (str(event["event"]) for event in reversed(self.events) if event["stage"] == stage)
        return next((kind for kind in kinds if kind.startswith("stage_")), "")

    def evaluations(self) -> list[Stage]:
        """The finished stages that evaluate."""
        return [stage for stage in self.stages.values() if stage.verb == "evaluate" and stage.manifest]

    def scores(self) -> dict[str, dict[str, Any]]:
        """Every model's scores: those of the headline set, and under `sets` those of each set.

        Several evaluations add up; where two give the same set of the same model, the first counts. Models
        stand in the order of the recipe's stages.
        """
        sets: dict[str, dict[str, Any]] = {}
        for stage in self.evaluations():
            for model, by_set in stage.manifest_or_fail().metrics.get("models", {}).items():
                known = sets.setdefault(model, {})
                known.update({name: score for name, score in by_set.items() if name not in known})
        order = list(self.stages)
        models = sorted(sets, key=lambda model: order.index(model) if model in order else len(order))
        return {
            model: {**by_set[headline(by_set)], "sets": by_set} for model in models if (by_set := sets[model])
        }

    def problems(self, count: int = 3, models: Sequence[str] = SIDE_BY_SIDE) -> list[list[dict[str, Any]]]:
        """The first `count` headline problems: for each, the first sample of every model that was asked for.

        The first ones, not chosen ones, of those that all were asked, in whichever evaluation. `models` that
        are in none are left out; if none is in one, the first four that are stand in for them.
        """
        folders = [stage.folder for stage in self.evaluations() if stage.folder is not None]
        return _first_answers([row for folder in folders for row in jsonl.iter_rows(folder)], count, models)


def _number(folder: Path) -> int:
    return int(folder.name.removeprefix("v").partition("-")[0])


def headline(by_set: Iterable[str]) -> str:
    """The set that stands for a model."""
    names = list(by_set)
    return HEADLINE_SET if HEADLINE_SET in names else names[0]


def _first_answers(
    rows: list[dict[str, Any]], count: int, models: Sequence[str]
) -> list[list[dict[str, Any]]]:
    rows = [row for row in rows if "problem_id" in row and "completion" in row]
    if not rows:
        return []
    chosen_set = headline(dict.fromkeys(row["set"] for row in rows))
    rows = [row for row in rows if row["set"] == chosen_set]
    there = list(dict.fromkeys(row["model"] for row in rows))
    wanted = [model for model in models if model in there] or there[:4]
    answers: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        answers.setdefault(row["problem_id"], {}).setdefault(row["model"], row)
    complete = [by_model for by_model in answers.values() if all(model in by_model for model in wanted)]
    return [[by_model[model] for model in wanted] for by_model in complete[:count]]


def _rows(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file that may still be growing; none if it is not there."""
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline is still being written
    return [jsonl.loads(line) for line in lines if line]


def _strings(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)
