"""The evaluate stage: who is asked what, what is kept, and that a kill changes nothing."""

from pathlib import Path
from typing import Any

import pytest

from r1pipe import jsonl
from r1pipe.artifact import Artifact
from r1pipe.measure.scores import score
from r1pipe.stage import Inputs
from stages import evaluate
from tests.tiny_model import Ear, workplace, write_tiny

HELD_OUT = {"task": {"name": "countdown", "split": "held-out"}, "problems": 3, "samples": 2}
SMALL = {
    "models": ["base", "zero"],
    "sets": {"held-out": HELD_OUT},
    "template": "chat",
    "max_new_tokens": 16,
    "batch": 4,
}


def config(**changes: Any) -> evaluate.Config:
    return evaluate.Config.model_validate({**SMALL, **changes})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("base"))


def evaluated(folder: Path, tiny: Path, **changes: Any) -> tuple[list[dict[str, Any]], dict[str, Any], Ear]:
    """The rows, the metrics and what was told of an evaluation of one checkpoint under each name."""
    made = config(**changes)
    work, ear = workplace(folder)
    outcome = evaluate.run(made, given(made, tiny), work)
    assert outcome.kind == "dataset"
    rows = list(jsonl.iter_rows(outcome.path))
    assert outcome.tokens == sum(row["tokens"] for row in rows)
    return rows, outcome.metrics, ear


def given(made: evaluate.Config, *paths: Path) -> Inputs:
    """The models by name; where one path is given, it is everybody's."""
    several = paths if len(paths) > 1 else paths * len(made.models)
    artifacts = [Artifact(path, "checkpoint") for path in several]
    return Inputs({"models": list(zip(made.models, artifacts, strict=True))})


def test_all_are_asked_the_same(tiny: Path, tmp_path: Path) -> None:
    """One checkpoint under two names gets the same problems and random numbers, and so the same rows."""
    rows, metrics, ear = evaluated(tmp_path / "scores", tiny)
    by_model = {
        name: [{**row, "model": ""} for row in rows if row["model"] == name] for name in ("base", "zero")
    }
    assert by_model["base"] == by_model["zero"]
    assert [(row["problem_id"], row["sample"]) for row in by_model["base"]] == [
        (problem, sample) for problem in dict.fromkeys(row["problem_id"] for row in rows) for sample in (0, 1)
    ]
    assert len({row["problem_id"] for row in rows}) == 3
    assert {row["set"] for row in rows} == {"held-out"}
    scores = metrics["models"]["base"]["held-out"]
    assert scores == score([row for row in rows if row["model"] == "base"])  # type: ignore[misc]
    assert (scores["problems"], scores["samples"]) == (3, 6)
    assert [(row["step"], row["steps"], row["model"], row["set"]) for row in ear.rows] == [
        (1, 2, "base", "held-out"),
        (2, 2, "zero", "held-out"),
    ]
    assert ear.rows[0]["pass_at_1"] == scores["pass_at_1"]
