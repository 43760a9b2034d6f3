"""A finished run of a small tree, as files: made in milliseconds, for tests of what reads runs."""

from pathlib import Path
from typing import Any

from r1pipe import jsonl
from r1pipe.manifest import Cost, Manifest, Parent

STAGES: dict[str, dict[str, Any]] = {
    "base": {"uses": "pretrain"},
    "zero": {"uses": "rl", "model": "base"},
    "cold-data": {"uses": "sample", "model": "zero"},
    "sft": {"uses": "sft", "model": "base", "data": "cold-data"},
    "r1": {"uses": "rl", "model": "sft"},
    "scores": {"uses": "evaluate", "models": ["base", "zero", "r1"]},
}
PASS_AT_1 = {"base": 0.21, "zero": 0.75, "r1": 0.74}


def score(pass_at_1: float, problems: int = 600) -> dict[str, Any]:
    """One model's scores on one set, in `evaluate`'s shape."""
    return {
        "problems": problems,
        "samples": 4 * problems,
        "undecided": 0,
        "pass_at_1": pass_at_1,
        "stderr": 0.01,
        "pass_at_k": {"1": pass_at_1, "2": pass_at_1 + 0.1, "4": pass_at_1 + 0.15},
        "mean_tokens": 64.25,
        "truncated": 0.004,
        "well_formed": 0.99,
        "attempts": 4.5,
        "reflection": 0.9,
        "language_consistency": 0.81,
        "repeated_attempts": 0.1,
        "arithmetic_validity": 0.98,
        "verdict_validity": None,
    }


def answers() -> list[dict[str, Any]]:
    """The evaluation's rows: four problems, one sample of each model; the base is always wrong."""
    return [
        {
            "model": model,
            "set": "held-out",
            "problem_id": f"countdown-3:{number}",
            "question": f"nums 5 6 {number} to 34",
            "sample": 0,
            "completion": f"5 + {number} no </think> so <answer> 5 + <b>{model}</b> </answer>",
            "answer": "5",
            "verdict": "fail" if model == "base" else "pass",
            "reason": "wrong value" if model == "base" else "",
            "tokens": 12,
        }
        for model in PASS_AT_1
        for number in (3, 4, 7, 9)
    ]


def write_run(folder: Path, *, unfinished: tuple[str, ...] = ()) -> Path:
    """Write the run into `folder` and return it; `unfinished` stages have no artifact."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = {"name": "tiny", "description": "", "seed": 7, "stages": STAGES}
    jsonl.write_json(folder / "run.json", {"recipe": recipe})
    made: dict[str, Parent] = {}
    for number, (name, section) in enumerate(STAGES.items()):
        if name not in unfinished:
            parents = [made[each] for each in _parents(section)]
            made[name] = _artifact(folder, name, section, f"{number + 1:x}" * 64, parents)
    for name, key in (("zero", "reward"), ("base", "loss")):
        with jsonl.Journal(_ready(folder / "metrics" / f"{name}.jsonl")) as journal:
            journal.append(
                {"step": 10 * i, "steps": 300, key: 0.01 * i, "length": 30.0 + i} for i in range(1, 31)
            )
    events = [
        {"event": "stage_finished", "stage": name, "artifact": str(folder / made[name].path)} for name in made
    ]
    events += [{"event": "stage_failed", "stage": name, "error": "no memory"} for name in unfinished[:1]]
    with jsonl.Journal(folder / "events.jsonl") as journal:
        journal.append(events)
    return folder


def _parents(section: dict[str, Any]) -> list[str]:
    named = [section.get("model"), section.get("data"), *section.get("models", [])]
    return [name for name in named if name]


def _artifact(
    run: Path, name: str, section: dict[str, Any], fingerprint: str, parents: list[Parent]
) -> Parent:
    verb = section["uses"]
    folder = run / "artifacts" / name / f"v001-{fingerprint[:8]}"
    folder.mkdir(parents=True)
    metrics: dict[str, Any] = {"kept": 4} if verb == "sample" else {}
    if verb == "evaluate":
        metrics["models"] = {
            model: {"held-out": score(value), "seen": score(value + 0.02)}
            for model, value in PASS_AT_1.items()
        }
    if verb in ("evaluate", "sample"):
        jsonl.write_shards(folder, answers())
    manifest = Manifest(
        kind="dataset" if verb in ("evaluate", "sample") else "checkpoint",
        stage=name,
        verb=verb,
        stage_version=1,
        fingerprint=fingerprint,
        version=1,
        parents=tuple(parents),
        config={key: value for key, value in section.items() if key != "uses"},
        fingerprint_config={},
        seed=7,
        metrics=metrics,
        cost=Cost(seconds=192.0, cpu_seconds=190.0, tokens=1_540_000, peak_rss_bytes=438_000_000),
        created="2026-01-02T03:04:05+00:00",
        code_version="0.1.0",
        libraries={"torch": "2.13.0"},
    )
    jsonl.write_json(folder / "manifest.json", manifest.model_dump(mode="json"))
    path = folder.relative_to(run).as_posix()
    return Parent(role="model", name=f"{name} {folder.name}", fingerprint=fingerprint, path=path)


def _ready(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
