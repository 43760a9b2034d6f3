"""The benchmark of resuming: when it kills, and what it makes of the two runs."""

from pathlib import Path
from typing import Any

import pytest

from bench.resume import Kill, comparison, differing, in_the_middle, went_on
from r1pipe import jsonl

STAGES = {"base": "pretrain", "zero": "rl", "general": "sample", "traces": "sample"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of four stages that has only begun."""
    jsonl.write_json(
        tmp_path / "run.json",
        {"recipe": {"stages": {name: {"uses": verb} for name, verb in STAGES.items()}}},
    )
    return tmp_path


def log(run: Path, stage: str, last: int, steps: int) -> list[dict[str, Any]]:
    """Write the metrics of the first steps, each of which took its own time."""
    rows = [{"step": step, "steps": steps, "eta": step / 7} for step in range(1, last + 1)]
    jsonl.write_rows(run / "metrics" / f"{stage}.jsonl", rows)
    return rows


def checkpoint(run: Path, stage: str, step: int, *, whole: bool = True) -> None:
    """Write a trainer's checkpoint as far as the benchmark looks at it."""
    name = "whole.json" if whole else "model.safetensors"
    jsonl.write_text(run / "work" / stage / "trainer" / f"checkpoint-{step}" / name, "{}")


def test_a_training_is_killed_half_way_with_a_whole_checkpoint(run: Path) -> None:
    """Neither before the half, nor while there is nothing to go on from, nor after the last step."""
    assert in_the_middle(run, "rl", set()) is None
    rows = log(run, "zero", 3, 6)
    checkpoint(run, "zero", 3, whole=False)
    assert in_the_middle(run, "rl", set()) is None
    checkpoint(run, "zero", 2)
    assert in_the_middle(run, "rl", set()) == Kill("zero", "rl", 3, 6, 2, rows[:2])
    assert in_the_middle(run, "rl", {"zero"}) is None
    assert in_the_middle(run, "pretrain", set()) is None
    log(run, "zero", 2, 6)
    assert in_the_middle(run, "rl", set()) is None
    log(run, "zero", 6, 6)
    assert in_the_middle(run, "rl", set()) is None


def test_a_sampling_is_killed_after_its_first_batches(run: Path) -> None:
    """It goes on from its journal; one of a single batch cannot be caught, and one that is done neither."""
    log(run, "general", 1, 1)
    assert in_the_middle(run, "sample", set()) is None
    rows = log(run, "traces", 2, 8)
    assert in_the_middle(run, "sample", set()) == Kill("traces", "sample", 2, 8, 2, rows)
    (run / "artifacts" / "traces" / "v001-1f3a9c2e").mkdir(parents=True)
    assert in_the_middle(run, "sample", set()) is None


def test_a_stage_went_on_if_the_rows_before_the_kill_are_the_same(run: Path) -> None:
    """A stage that begins anew logs the same steps with other times."""
    kill = Kill("zero", "rl", 3, 6, 2, log(run, "zero", 3, 6)[:2])
    log(run, "zero", 6, 6)
    assert went_on(run, kill)
    jsonl.write_rows(run / "metrics" / "zero.jsonl", [{**row, "eta": 0.5} for row in log(run, "zero", 6, 6)])
    assert not went_on(run, kill)


def test_two_outcomes_are_compared_file_by_file() -> None:
    """A file that differs, one that is in one run only, and a stage that is in one run only; of these the
    weights decide whether the weights are the same."""
    whole = {
        "scores": {"zero": 0.5},
        "files": {
            "zero": {"model.safetensors": "a", "config.json": "b"},
            "traces": {"part-00000.jsonl": "c"},
        },
    }
    same = {"same_scores": True, "same_weights": True, "weights": {"zero": "a"}}
    assert comparison(whole, whole) == {**same, "differing_files": {"zero": [], "traces": []}}
    files = {"zero": {"model.safetensors": "a", "config.json": "x", "new.json": "d"}}
    assert comparison(whole, {"scores": {}, "files": files}) == {
        **same,
        "same_scores": False,
        "differing_files": {"zero": ["config.json", "new.json"], "traces": ["part-00000.jsonl"]},
    }
    other = {"scores": {"zero": 0.5}, "files": {**whole["files"], "zero": {"model.safetensors": "y"}}}
    assert differing(whole, other)["zero"] == ["config.json", "model.safetensors"]
    assert comparison(whole, other)["same_weights"] is False
