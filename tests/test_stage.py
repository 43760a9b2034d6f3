"""What a stage is given: references, the config that counts, metrics that survive a resume."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, ValidationError

from r1pipe import jsonl
from r1pipe.artifact import Artifact
from r1pipe.errors import Interrupted
from r1pipe.stage import (
    NEUTRAL,
    CheckpointRef,
    DataPath,
    DatasetRef,
    Inputs,
    Reference,
    StageConfig,
    Verbs,
    Work,
    counted,
    references,
)


class Task(BaseModel):
    name: str = "countdown"
    path: DataPath | None = None
    shown: Annotated[int, NEUTRAL] = 3


class Config(StageConfig):
    model: CheckpointRef
    data: DatasetRef | list[DatasetRef]
    reference: CheckpointRef | None = None
    tasks: list[Task] = Field(default=[])
    rewards: dict[str, float] = Field(default={})
    every: Annotated[int, Field(ge=1), NEUTRAL] = 10


class Kept:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, dict[str, Any]]] = []

    def event(self, kind: str, stage: str, **fields: Any) -> None:
        self.told.append((kind, stage, fields))


def test_references_are_found_in_unions_lists_and_nested_models():
    config = Config(model="base", data=["a", "b"], tasks=[Task(), Task(path="x.jsonl")])
    assert references(config) == [
        Reference("model", "checkpoint", "base"),
        Reference("data", "dataset", "a", 0),
        Reference("data", "dataset", "b", 1),
        Reference("tasks.1.path", "path", "x.jsonl"),
    ]
    one = Config(model="base", data="a", reference="old")
    assert [(each.role, each.value, each.index) for each in references(one)] == [
        ("model", "base", None),
        ("data", "a", None),
        ("reference", "old", None),
    ]


def test_what_counts_is_the_config_without_neutral_fields_and_single_references():
    """A renamed stage or a moved file is the same input; the names in a list may show in the result."""
    config = Config(
        model="base", data=["a", "b"], tasks=[Task(path="x")], rewards={"accuracy": 1.0}, every=3, threads=2
    )
    assert counted(config) == {
        "threads": 2,
        "data": ["a", "b"],
        "reference": None,
        "tasks.0.name": "countdown",
        "rewards.accuracy": 1.0,
    }


def test_a_config_is_strict_and_frozen():
    with pytest.raises(ValidationError):
        Config(model="base", data="a", modle="b")
    with pytest.raises(ValidationError):
        Config(model="base", data="a", threads=0)
    with pytest.raises(ValidationError):
        Config(model="base", data="a").threads = 2


def test_inputs_are_found_by_role_and_told_apart_by_label(tmp_path: Path):
    first, second = (Artifact(tmp_path / name, "dataset") for name in "ab")
    inputs = Inputs({"model": [("base", first)], "data": [("a", first), ("b", second)]})
    assert inputs.one("model") is first
    assert inputs.many("data") == [first, second]
    assert inputs.labels("data") == ["a", "b"]
    assert inputs.many("reference") == inputs.labels("reference") == []
    for role in ("data", "reference"):
        with pytest.raises(LookupError):
            inputs.one(role)


def test_rows_are_kept_told_and_cut_on_a_resume(tmp_path: Path):
    sink = Kept()
    work = Work(tmp_path, "zero", 0, sink, tmp_path / "metrics" / "zero.jsonl")
    work.rewind(5)  # nothing there yet
    for step in (1, 2, 3, 4):
        work.log({"step": step})
    work.rewind(2)
    work.log({"step": 3, "again": True})
    assert list(jsonl.iter_rows(work.metrics)) == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]
    work.rewind(3)
    assert len(list(jsonl.iter_rows(work.metrics))) == 3
    work.rewind(0)
    assert work.metrics.read_bytes() == b""
    assert sink.told[-1] == ("log", "zero", {"row": {"step": 3, "again": True}})


def test_a_stage_learns_that_it_is_to_stop(tmp_path: Path):
    work = Work(tmp_path, "zero", 0, Kept(), tmp_path / "zero.jsonl")
    work.pause_point()
    assert not work.stopping()
    work.stop.set()
    assert work.stopping()
    with pytest.raises(Interrupted, match="'zero' stopped"):
        work.pause_point()


def test_verbs_are_imported_when_they_are_used():
    verbs = Verbs({"count": "tests.fake_stage", "none": "tests.there_is_no_such_module"})
    assert list(verbs) == ["count", "none"]
    assert len(verbs) == 2
    assert "none" in verbs
    assert "nothing" not in verbs
    assert verbs["count"] is verbs.module("count").Config
    with pytest.raises(ModuleNotFoundError):
        verbs["none"]


def test_reading_a_recipe_with_every_verb_imports_no_heavy_library():
    """`--help`, `plan` and messages about mistakes come at once because the configs are plain Python."""
    probe = """
import sys
from r1pipe import pipeline
from stages import VERBS
for verb in VERBS:
    try:
        VERBS[verb]
    except ModuleNotFoundError as error:
        assert error.name == VERBS.modules[verb], error
heavy = {"torch", "transformers", "trl", "datasets", "accelerate", "vllm", "ray", "pandas", "huggingface_hub"}
sys.exit(", ".join(sorted(heavy & set(sys.modules))) or 0)
"""
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
