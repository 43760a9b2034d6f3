"""How far a run is, and what a folder holds. The stages are `tests.fake_stage`."""

from pathlib import Path

import pytest

from r1pipe import pipeline
from r1pipe.errors import UsageError
from r1pipe.inspection import open_artifact, stage_states
from r1pipe.recipe import parse_recipe
from stages import VERBS
from tests import fake_stage

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


def test_a_folder_is_opened_as_what_it_is(run_dir: Path) -> None:
    """By its manifest; without one, by what lies in it."""
    (folder,) = [path for path in (run_dir / "artifacts" / "zero").iterdir() if path.is_dir()]
    assert open_artifact(folder).name.startswith("zero v001-")
    (folder / "manifest.json").unlink()
    assert open_artifact(folder).kind == "dataset"


def test_nothing_is_no_artifact(tmp_path: Path) -> None:
    """The message shows what one looks like."""
    with pytest.raises(UsageError, match="artifacts/sft/v001-"):
        open_artifact(tmp_path / "nothing")
