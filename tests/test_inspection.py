"""How far a run is, and what a folder holds. The stages are `tests.fake_stage`."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from r1pipe import cli, jsonl, pipeline
from r1pipe.errors import UsageError
from r1pipe.inspection import open_artifact, stage_states
from r1pipe.recipe import parse_recipe
from r1pipe.views import status_table
from stages import VERBS
from tests import fake_stage
from tests.folders import checkpoint, pretend

TREE = """
name: tree
stages:
  base: {uses: count, text: base}
  zero: {uses: count, text: zero, data: base}
"""


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of which the base was lost after it had been finished."""
    monkeypatch.setattr(VERBS, "modules", fake_stage.VERBS.modules)
    recipe = parse_recipe(TREE, "tree.yaml", VERBS)
    made = pipeline.run(recipe, tmp_path / "run", preload=())
    (made["base"].path / "part-00000.jsonl").unlink()
    return tmp_path / "run"


def test_the_states_say_what_is_and_what_the_next_run_does(run_dir: Path) -> None:
    """The reasons are those that `plan` and the log give."""
    base, zero = stage_states(run_dir)
    assert (base["state"], base["version"], base["tokens"], base["next"]) == ("done", 1, 7, "run")
    assert base["reasons"] and base["reasons"][0].startswith("file missing")
    assert zero["reasons"] == ["input 'base' is made again first"]


def test_a_stage_that_was_begun_says_how_far_it_is(run_dir: Path) -> None:
    """Running or stopped: the files look alike."""
    with jsonl.Journal(run_dir / "events.jsonl") as journal:
        journal.append([{"event": "stage_started", "stage": "zero", "resumed": False}])
    jsonl.write_rows(run_dir / "metrics" / "zero.jsonl", [{"step": 1, "steps": 4}, {"step": 2, "steps": 4}])
    base, zero = stage_states(run_dir)
    assert (base["state"], base["progress"]) == ("done", None)
    assert (zero["state"], zero["progress"]) == ("begun", {"step": 2, "steps": 4})
    assert status_table([zero]).rows[0][2] == "begun, step 2 of 4"


def test_a_folder_is_opened_as_what_it_is(run_dir: Path) -> None:
    """By its manifest; without one, by what lies in it."""
    (folder,) = [path for path in (run_dir / "artifacts" / "zero").iterdir() if path.is_dir()]
    assert open_artifact(folder).name.startswith("zero v001-")
    (folder / "manifest.json").unlink()
    assert open_artifact(folder).kind == "dataset"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nothing", "there is nothing at that path. Its folder looks like runs/x/artifacts/sft/v001-"),
        (".", "it holds neither a model nor rows. Its folder looks like runs/x/artifacts/sft/v001-"),
        ("run/artifacts/zero", "holds the versions of a stage. Give one of them: v001-"),
        ("run", r"run is the folder of a run. Give one of its artifacts, e.g. \S+/artifacts/zero/v001-"),
    ],
)
def test_what_is_no_artifact_says_what_one_looks_like(
    run_dir: Path, path: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path to nothing, some folder, a stage's folder and a run's; where there is one, it is named."""
    monkeypatch.chdir(run_dir.parent)
    with pytest.raises(UsageError, match=said):
        open_artifact(Path(path))


OUTSIDE = """
name: outside
stages:
  tuned: {uses: sft, model: models/base, data: [rows.jsonl, more.jsonl]}
  zero: {uses: rl, model: tuned, task: {name: jsonl, path: ask.jsonl}}
  next: {uses: sft, model: zero, data: [more.jsonl]}
  scores: {uses: evaluate, models: [zero, next]}
"""
DONE = ("done", "up to date", [])


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with a finished run, whose stages took files and a model from that folder."""
    monkeypatch.chdir(tmp_path)
    checkpoint(tmp_path / "models" / "base")
    for name in ("rows", "more", "ask"):
        (tmp_path / f"{name}.jsonl").write_text('{"question": "1 + 1", "answer": "2"}\n')
    pretend(parse_recipe(OUTSIDE, "outside.yaml", VERBS), tmp_path / "run")
    return tmp_path


def states() -> dict[str, tuple[str, str, list[str]]]:
    found = stage_states(Path("run"))
    return {each["stage"]: (each["state"], each["next"], each["reasons"]) for each in found}


def test_a_stage_whose_input_is_gone_is_blocked_and_the_others_are_as_they_were(outside: Path) -> None:
    """A file, a task's file, a model's folder whose path could also be a hub id, and one that was spoilt."""
    assert states() == dict.fromkeys(("tuned", "zero", "next", "scores"), DONE)
    (outside / "rows.jsonl").unlink()
    (outside / "ask.jsonl").unlink()
    shutil.rmtree(outside / "models")
    assert states() == {
        "tuned": (
            "done",
            "blocked",
            [f"input 'models/base' is gone from {outside}", f"input 'rows.jsonl' is gone from {outside}"],
        ),
        "zero": ("done", "blocked", [f"input 'ask.jsonl' is gone from {outside}"]),
        "next": DONE,
        "scores": DONE,
    }
    (outside / "more.jsonl").write_text("")
    empty = "input 'more.jsonl': The data 'more.jsonl' is empty. One JSON object per line is expected."
    assert states()["next"] == ("done", "blocked", [empty])


def test_a_stage_that_was_never_made_is_blocked_too(outside: Path) -> None:
    """The stages below it wait for it, as they would if nothing were gone."""
    shutil.rmtree(outside / "run" / "artifacts" / "zero")
    (outside / "ask.jsonl").unlink()
    gone = f"input 'ask.jsonl' is gone from {outside}"
    assert states()["zero"] == ("waiting", "blocked", [gone, "never completed"])
    assert states()["next"] == ("done", "waiting", ["input 'zero' is made again first"])


@pytest.mark.parametrize("command", ["status", "report", "check", "lineage"])
def test_a_run_can_be_looked_at_without_what_it_was_made_from(outside: Path, command: str) -> None:
    """Everything that reads a run ends with 0."""
    for path in ("rows.jsonl", "more.jsonl", "ask.jsonl"):
        (outside / path).unlink()
    shutil.rmtree(outside / "models")
    (tuned,) = (path for path in (outside / "run/artifacts/tuned").iterdir() if path.is_dir())
    target = str(tuned) if command == "lineage" else "run"
    done = CliRunner().invoke(cli.app, [command, target])
    assert (done.exit_code, done.stderr) == (0, "")
    assert {
        "status": f"blocked; input 'ask.jsonl' is gone from {outside}",
        "report": "run/report.html",
        "check": "whole",
        "lineage": "rows.jsonl (as data, no longer there)",
    }[command] in done.stdout


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_damaged_record_of_a_run_is_one_message(tmp_path: Path, text: str) -> None:
    """Not the library's complaint about some byte."""
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UsageError, match=r"run\.json is damaged\. Run the recipe again in this folder"):
        stage_states(tmp_path)
