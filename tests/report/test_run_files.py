"""What is read from a run's files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1pipe import jsonl
from r1pipe.errors import UsageError
from r1pipe.report import RunFiles
from tests.fake_run import PASS_AT_1, answers, write_run


def test_scores_are_those_of_the_headline_set_with_all_sets_below(finished_run: Path) -> None:
    """The shape that `scores RUN --json` prints: keys of the held-out set at the top, `sets` beside them."""
    scores = RunFiles.open(finished_run).scores()
    assert {model: score["pass_at_1"] for model, score in scores.items()} == PASS_AT_1
    assert scores["zero"]["stderr"] == 0.01 and scores["zero"]["samples"] == 2400
    assert scores["zero"]["sets"]["seen"]["pass_at_1"] == pytest.approx(0.77)


def test_several_evaluations_are_one(finished_run: Path) -> None:
    """A model that another evaluation asked has its place by the recipe, and its answers beside the rest."""
    run = RunFiles.open(finished_run)
    first = run.stages["scores"]
    for models in (("base", "r1"), ("zero",)):
        folder = finished_run / models[0]
        manifest = first.manifest_or_fail()
        by_model = {model: manifest.metrics["models"][model] for model in models}
        jsonl.write_shards(folder, [row for row in answers() if row["model"] in models])
        run.stages[f"scores-{models[0]}"] = replace(
            first, folder=folder, manifest=manifest.model_copy(update={"metrics": {"models": by_model}})
        )
    del run.stages["scores"]
    assert list(run.scores()) == ["base", "zero", "r1"]
    assert [row["model"] for row in run.problems()[0]] == ["base", "zero", "r1"]


def test_stages_know_their_parents_and_states(tmp_path: Path) -> None:
    """From manifests where there are any, from the recipe for a stage that has none yet."""
    stages = RunFiles.open(write_run(tmp_path / "run", unfinished=("r1", "scores"))).stages
    assert {name: stage.state for name, stage in stages.items()} == {
        "base": "done",
        "zero": "done",
        "cold-data": "done",
        "sft": "done",
        "r1": "failed",
        "scores": "waiting",
    }
    assert list(stages["sft"].parents) == ["base", "cold-data"] and list(stages["r1"].parents) == ["sft"]


def test_what_the_last_recipe_does_not_make_is_outdated(finished_run: Path) -> None:
    """A value was changed and the run stopped on the way: what is there was made with the old one."""
    made = {name: stage.manifest_or_fail() for name, stage in RunFiles.open(finished_run).stages.items()}
    asked = {name: manifest.fingerprint for name, manifest in made.items()}

    def start(*more: dict[str, Any]) -> RunFiles:
        steps = [{"stage": name, "fingerprint": value} for name, value in asked.items()]
        with jsonl.Journal(finished_run / "events.jsonl") as journal:
            journal.append([{"event": "run_started", "stage": "", "steps": steps}, *more])
        return RunFiles.open(finished_run)

    assert start().outdated() == []
    asked |= dict.fromkeys(("zero", "cold-data", "scores"), "f" * 64)
    run = start({"event": "stage_started", "stage": "zero", "resumed": False})
    assert run.outdated() == ["zero", "cold-data", "scores"]
    assert {name: stage.state for name, stage in run.stages.items()} == {
        "base": "done",
        "zero": "begun",
        "cold-data": "outdated",
        "sft": "done",
        "r1": "done",
        "scores": "outdated",
    }


def test_the_artifact_the_last_run_used_counts(finished_run: Path) -> None:
    """After a value was set back an older version is the current one, whatever the numbers say."""
    first = next((finished_run / "artifacts" / "zero").iterdir())
    newer = first.with_name("v002-99999999")
    newer.mkdir()
    (newer / "manifest.json").write_bytes((first / "manifest.json").read_bytes())
    assert RunFiles.open(finished_run).stages["zero"].folder == first
    with jsonl.Journal(finished_run / "events.jsonl") as journal:
        journal.append([{"event": "stage_reused", "stage": "zero", "artifact": str(newer)}])
    assert RunFiles.open(finished_run).stages["zero"].folder == newer


def test_problems_are_the_first_ones_with_everybodys_first_sample(finished_run: Path) -> None:
    """Three, in the file's order; the models that are set side by side by habit and are there."""
    problems = RunFiles.open(finished_run).problems()
    assert [rows[0]["problem_id"] for rows in problems] == ["countdown-3:3", "countdown-3:4", "countdown-3:7"]
    assert [row["model"] for row in problems[0]] == ["base", "zero", "r1"]
    assert {row["verdict"] for row in problems[0]} == {"fail", "pass"}


def test_other_names_get_the_first_models(finished_run: Path) -> None:
    """A recipe that calls its models otherwise still shows them."""
    (rows, *_) = RunFiles.open(finished_run).problems(models=("nobody",))
    assert [row["model"] for row in rows] == list(PASS_AT_1)


def test_a_line_that_is_still_being_written_is_left_out(finished_run: Path) -> None:
    """A report of a run that is going on does not fail on its last line."""
    path = finished_run / "metrics" / "zero.jsonl"
    rows = RunFiles.open(finished_run).metrics("zero")
    with path.open("ab") as file:
        file.write(b'{"step": 310, "rew')
    assert RunFiles.open(finished_run).metrics("zero") == rows and len(rows) == 30


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    """The message says what a run's folder looks like."""
    with pytest.raises(UsageError, match=r"no run\.json.*runs/tiny-r1"):
        RunFiles.open(tmp_path)
