"""Rows of one's own behind a task: an input like any other, wherever in a config the task stands.

The stages are the real ones; their artifacts are `tests.folders.pretend`'s, so that none has to run.
"""

from pathlib import Path

import pytest

from r1pipe import pipeline
from r1pipe.artifact import Store
from r1pipe.errors import UsageError
from r1pipe.recipe import Recipe, parse_recipe
from r1pipe.tasks import task_spec
from stages import VERBS
from tests.folders import checkpoint, pretend

RECIPE = """\
stages:
  zero: {uses: rl, model: ./model, task: {name: jsonl, path: one.jsonl}}
  traces:
    uses: sample
    model: zero
    task: [countdown, {name: jsonl, path: two.jsonl}]
  scores:
    uses: evaluate
    models: [./model]
    sets:
      own: {task: {name: jsonl, path: two.jsonl}}
      held-out: {task: countdown}
"""
ROW = '{"question": "1 + 1", "answer": "2"}\n'
UP_TO_DATE = ("up to date", ())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder: a model and two files of rows; what a recipe names is relative to it."""
    monkeypatch.chdir(tmp_path)
    checkpoint(tmp_path / "model")
    for name in ("one", "two"):
        (tmp_path / f"{name}.jsonl").write_text(ROW)
    return tmp_path


def read(text: str = RECIPE, *overrides: str) -> Recipe:
    return parse_recipe(text, "r.yaml", VERBS, overrides)


def plan(recipe: Recipe) -> dict[str, tuple[str, tuple[str, ...]]]:
    steps = pipeline.plan(recipe, Store("run"))
    return {step.stage: (step.action, step.reasons) for step in steps}


def test_a_changed_byte_makes_the_stages_that_ask_it_out_of_date(here: Path):
    """RL, sampling and evaluation: each names the file, and the others stay as they are."""
    pretend(read(), here / "run")
    assert plan(read()) == dict.fromkeys(("zero", "traces", "scores"), UP_TO_DATE)
    (here / "two.jsonl").write_text(ROW.replace('"2"', '"3"'))
    changed = ("run", ("input 'two.jsonl' has changed",))
    assert plan(read()) == {"zero": UP_TO_DATE, "traces": changed, "scores": changed}
    (here / "two.jsonl").write_text(ROW)
    (here / "one.jsonl").write_text(ROW.replace("1 + 1", "1 + 2"))
    assert plan(read()) == {
        "zero": ("run", ("input 'one.jsonl' has changed",)),
        "traces": ("waiting", ("input 'zero' is made again first",)),
        "scores": UP_TO_DATE,
    }


def test_a_moved_file_reruns_nothing(here: Path):
    """Its bytes count, and not its name."""
    pretend(read(), here / "run")
    (here / "one.jsonl").rename(here / "moved.jsonl")
    assert plan(read(RECIPE, "stages.zero.task.path=moved.jsonl"))["zero"] == UP_TO_DATE


def test_a_missing_file_is_told_with_its_place(here: Path):
    """As with other data: file, line and column of the path, before anything runs, and all at once."""
    for name in ("one", "two"):
        (here / f"{name}.jsonl").unlink()
    with pytest.raises(UsageError) as caught:
        read()
    assert str(caught.value).splitlines() == [
        "r.yaml:2:62: 'stages.zero.task.path': nothing is at the path 'one.jsonl'",
        "r.yaml:6:43: 'stages.traces.task.1.path': nothing is at the path 'two.jsonl'",
        "r.yaml:11:39: 'stages.scores.sets.own.task.path': nothing is at the path 'two.jsonl'",
    ]
    with pytest.raises(UsageError, match=r"^--set stages\.zero\.task\.path=x: 'stages\.zero\.task\.path': "):
        read("\n".join(RECIPE.splitlines()[:2]), "stages.zero.task.path=x")


def test_an_empty_file_is_told_with_its_place(here: Path):
    """Found by the plan, which opens what the recipe names."""
    (here / "one.jsonl").write_text("")
    with pytest.raises(UsageError, match=r"^r\.yaml:2:62: The data 'one\.jsonl' is empty\."):
        plan(read())


def test_a_path_from_home_is_read_where_it_was_looked_for(here: Path, monkeypatch: pytest.MonkeyPatch):
    """The recipe's check and the task itself open the same file."""
    monkeypatch.setenv("HOME", str(here))
    assert plan(read(RECIPE, "stages.zero.task.path=~/one.jsonl"))["zero"] == ("run", ("never completed",))
    task = task_spec({"name": "jsonl", "path": "~/one.jsonl"}).make()
    assert [item.question for item in task.items("all", None, 0)] == ["1 + 1"]
