"""Questions about what is on the disk: how far a run is, what a folder holds."""

from pathlib import Path
from typing import Any, Final

from r1pipe.artifact import Artifact, Store, open_checkpoint, open_dataset
from r1pipe.errors import UsageError
from r1pipe.manifest import load_manifest
from r1pipe.plan import Planner
from r1pipe.recipe import from_resolved
from r1pipe.report.run_files import RunFiles
from stages import VERBS

_EXAMPLE: Final = "runs/x/artifacts/sft/v001-1f3a9c2e"


def stage_states(run: Path) -> list[dict[str, Any]]:
    """Each stage of a run: how far it has come, what it took, and what another run would do about it and why.

    The plan is made for the recipe the run was last started with. A stage whose input from outside is gone
    or spoilt is `blocked`; the stages below it are told as if it were still what it was.

    Raises:
        UsageError: it is not a run's folder, or this r1pipe cannot read its recipe.
    """
    files = RunFiles.open(run)
    recipe = from_resolved(files.recipe, str(files.path / "run.json"), VERBS)
    steps = {step.stage: step for step in Planner(recipe, Store(files.path), VERBS, looking_back=True).plan()}
    return [_state(files, name, steps[name].as_json) for name in recipe.order]


def _state(files: RunFiles, name: str, step: dict[str, Any]) -> dict[str, Any]:
    stage = files.stages[name]
    made = stage.manifest
    return {
        "stage": name,
        "verb": stage.verb,
        "state": stage.state,
        "progress": _progress(files, name) if stage.state == "begun" else None,
        "version": made.version if made else None,
        "artifact": str(stage.folder) if stage.folder else None,
        "seconds": made.cost.seconds if made else None,
        "tokens": made.cost.tokens if made else None,
        "peak_rss_bytes": made.cost.peak_rss_bytes if made else None,
        "next": step["action"],
        "reasons": step["reasons"],
    }


def _progress(files: RunFiles, name: str) -> dict[str, Any] | None:
    """The last step that a stage logged, and of how many; None before the first."""
    rows = files.metrics(name)
    return {"step": rows[-1]["step"], "steps": rows[-1].get("steps")} if rows else None


def open_artifact(path: Path) -> Artifact:
    """Open a folder as what its manifest says it is; without one, as a checkpoint or a dataset from outside.

    Raises:
        UsageError: it is neither.
    """
    manifest = load_manifest(path)
    if manifest is not None:
        return Artifact(path, manifest.kind, manifest)
    if (path / "run.json").is_file():
        made = [stage.folder for stage in RunFiles.open(path).stages.values() if stage.folder]
        example = made[-1] if made else _EXAMPLE
        raise UsageError(f"{path} is the folder of a run. Give one of its artifacts, e.g. {example}")
    if path.is_file() or any(path.glob("part-*.jsonl")):
        return open_dataset(path)
    if (path / "config.json").exists() or any(path.glob("v*-*")):
        return open_checkpoint(path)
    what = "it holds neither a model nor rows" if path.exists() else "there is nothing at that path"
    raise UsageError(f"{path} is no artifact: {what}. Its folder looks like {_EXAMPLE}")
