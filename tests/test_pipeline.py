"""The pipeline: what runs and why, side by side, and on again after kills, stops and failures.

The stages are `tests.fake_stage`; the children are real processes.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from r1pipe import jsonl, pipeline, run
from r1pipe.artifact import Artifact, Store
from r1pipe.errors import Conflict, EnvironmentUnfit, Interrupted, RunFailed, UsageError
from r1pipe.plan import config_changes
from r1pipe.recipe import Recipe, from_resolved, parse_recipe
from r1pipe.run import RunFolder
from tests import fake_stage
from tests.fake_stage import VERBS

TREE = """
name: tree
stages:
  base: {uses: count, text: base}
  zero: {uses: count, text: zero, data: base}
  cold: {uses: count, text: cold, data: base}
  r1: {uses: count, text: r1, data: cold}
  scores: {uses: count, text: scores, data: [base, zero, r1]}
"""
ROOT = Path(__file__).resolve().parent.parent


class Events:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str, dict[str, Any]]] = []

    def event(self, kind: str, stage: str, **fields: Any) -> None:
        self.all.append((kind, stage, fields))

    def of(self, kind: str) -> dict[str, dict[str, Any]]:
        """The fields of one kind of event by stage, in the order told."""
        return {stage: fields for each, stage, fields in self.all if each == kind}


@pytest.fixture
def events() -> Events:
    return Events()


def tree(*overrides: str, text: str = TREE) -> Recipe:
    return parse_recipe(text, "tree.yaml", VERBS, overrides)


def execute(recipe: Recipe, run_dir: Path, events: Events | None = None, **more: Any) -> dict[str, Artifact]:
    return pipeline.run(recipe, run_dir, sink=events, verbs=VERBS, preload=(), **more)


def reasons(recipe: Recipe, run_dir: Path, **more: Any) -> dict[str, tuple[str, list[str]]]:
    steps = pipeline.plan(recipe, Store(run_dir), verbs=VERBS, **more)
    return {step.stage: (step.action, list(step.reasons)) for step in steps}


def rows_of(artifact: Artifact) -> list[str]:
    return [row["text"] for row in artifact.rows()]


UP_TO_DATE = ("up to date", [])
FIRST = ["never completed"]


# --- What runs, and why


def test_the_whole_tree_runs_parents_first(tmp_path: Path, events: Events):
    made = execute(tree(), tmp_path / "run", events)
    assert rows_of(made["r1"]) == ["base", "cold", "r1"]
    assert made["scores"].rows()[-1]["from"] == ["base", "zero", "r1"]
    # The longest chain of dependants first: cold -> r1 -> scores before zero -> scores.
    assert list(events.of("stage_finished")) == ["base", "cold", "zero", "r1", "scores"]
    manifest = made["r1"].manifest
    assert manifest is not None
    assert [(p.role, p.name, p.path) for p in manifest.parents] == [
        ("data", made["cold"].name, f"artifacts/cold/{made['cold'].path.name}")
    ]
    assert manifest.cost.tokens == 7
    assert manifest.cost.seconds > 0
    assert manifest.cost.peak_rss_bytes is not None


def test_a_second_run_does_nothing_and_says_so(tmp_path: Path, events: Events):
    first = execute(tree(), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "artifacts").rglob("*")}
    second = execute(tree(), tmp_path, events)
    assert second == first
    assert set(events.of("stage_reused")) == set(tree().stages)
    assert not events.of("stage_started")
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "artifacts").rglob("*")}
    assert reasons(tree(), tmp_path) == dict.fromkeys(tree().order, UP_TO_DATE)


def test_before_anything_ran_the_plan_says_who_waits(tmp_path: Path):
    assert reasons(tree(), tmp_path / "none") == {
        "base": ("run", FIRST),
        "zero": ("waiting", FIRST),
        "cold": ("waiting", FIRST),
        "r1": ("waiting", FIRST),
        "scores": ("waiting", FIRST),
    }
    assert not (tmp_path / "none").exists()


def test_one_changed_value_reruns_its_stage_and_what_hangs_on_it(tmp_path: Path, events: Events):
    execute(tree(), tmp_path)
    changed = tree("stages.cold.rate=2e-6")
    assert reasons(changed, tmp_path) == {
        "base": UP_TO_DATE,
        "zero": UP_TO_DATE,
        "cold": ("run", ["config rate: 1.0 -> 2e-06"]),
        "r1": ("waiting", ["input 'cold' is made again first"]),
        "scores": ("waiting", ["input 'r1' is made again first"]),
    }
    made = execute(changed, tmp_path, events)
    started = events.of("stage_started")
    assert {name: fields["reasons"] for name, fields in started.items()} == {
        "cold": ["config rate: 1.0 -> 2e-06"],
        "r1": ["input 'cold' is now v2"],
        "scores": ["input 'r1' is now v2"],
    }
    assert made["cold"].manifest is not None
    assert made["cold"].manifest.version == 2


def test_going_back_finds_the_old_version_and_its_metrics(tmp_path: Path, events: Events):
    """The same fingerprint anywhere in the history is up to date; the curves shown are that version's."""
    old = execute(tree("stages.zero.steps=2"), tmp_path)
    execute(tree("stages.zero.steps=3"), tmp_path)
    assert len(RunFolder(tmp_path).metrics("zero").read_text().splitlines()) == 3
    again = execute(tree("stages.zero.steps=2"), tmp_path, events)
    assert again == old
    assert not events.of("stage_started")
    assert len(RunFolder(tmp_path).metrics("zero").read_text().splitlines()) == 2


def test_a_neutral_value_or_a_renamed_parent_reruns_nothing(tmp_path: Path):
    execute(tree(), tmp_path)
    assert reasons(tree("stages.zero.every=5"), tmp_path)["zero"] == UP_TO_DATE
    renamed = tree(text=TREE.replace("cold", "warm").replace("text: warm", "text: cold"))
    (tmp_path / "artifacts" / "cold").rename(tmp_path / "artifacts" / "warm")
    assert reasons(renamed, tmp_path)["r1"] == UP_TO_DATE


def test_every_kind_of_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = execute(tree(), tmp_path)
    assert reasons(tree("seed=1"), tmp_path)["base"] == ("run", ["seed: 0 -> 1"])
    assert reasons(tree("stages.zero.data=cold"), tmp_path)["zero"] == ("run", ["input data: base -> cold"])
    assert reasons(tree(), tmp_path, force=["zero"])["zero"] == ("run", ["forced"])
    with pytest.raises(UsageError, match="no stage 'zeero' to force; did you mean 'zero'"):
        reasons(tree(), tmp_path, force=["zeero"])
    monkeypatch.setattr(fake_stage, "VERSION", 2)
    assert reasons(tree(), tmp_path)["zero"] == (
        "waiting",
        ["stage version 1 -> 2", "input 'base' is made again first"],
    )
    monkeypatch.undo()
    part = made["zero"].path / "part-00000.jsonl"
    content = part.read_bytes()
    part.unlink()
    assert reasons(tree(), tmp_path)["zero"] == ("run", [f"file missing: '{part}'"])
    part.write_bytes(content[:-2] + b" }")
    action, (reason,) = reasons(tree(), tmp_path)["zero"]
    assert action == "run"
    assert reason.startswith("file changed: ")


def test_changed_values_are_shown_as_they_are_written():
    old = {"a": 1e-6, "b": "x", "c": [1, 2], "d": None, "gone": True}
    new = {"a": 2e-6, "b": "y", "c": [1], "d": None, "new": 1}
    assert list(config_changes(old, new)) == [
        "config a: 1e-06 -> 2e-06",
        "config b: x -> y",
        "config c: [1,2] -> [1]",
        "config new: (none) -> 1",
        "config gone: true -> (none)",
    ]


def test_a_forced_stage_with_the_same_bytes_reruns_nothing_else(tmp_path: Path, events: Events):
    """What was made again and came out the same is no reason to make its children again."""
    execute(tree(), tmp_path)
    execute(tree(), tmp_path, events, force=["cold"])
    assert list(events.of("stage_started")) == ["cold"]
    assert reasons(tree(), tmp_path) == dict.fromkeys(tree().order, UP_TO_DATE)


def test_a_file_from_outside_counts_by_its_content(tmp_path: Path, events: Events):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "one"}\n')
    recipe = tree(text=f"name: t\nstages: {{a: {{uses: count, data: {rows}}}}}")
    execute(recipe, tmp_path / "run")
    os.utime(rows, ns=(1, 1))
    assert reasons(recipe, tmp_path / "run")["a"] == UP_TO_DATE
    rows.write_text('{"text": "two"}\n')
    assert reasons(recipe, tmp_path / "run")["a"] == ("run", [f"input '{rows}' has changed"])
    moved = rows.rename(tmp_path / "moved.jsonl")
    made = execute(tree(text=f"name: t\nstages: {{a: {{uses: count, data: {moved}}}}}"), tmp_path / "run")
    assert rows_of(made["a"]) == ["two", ""]


def test_what_cannot_be_opened_is_told_with_its_place_before_anything_runs(tmp_path: Path, events: Events):
    (tmp_path / "empty.jsonl").touch()
    recipe = tree(text=f"name: t\nstages:\n  a: {{uses: count, data: {tmp_path}/empty.jsonl}}")
    with pytest.raises(UsageError, match=r"^tree.yaml:3:26: The data .* is empty"):
        execute(recipe, tmp_path / "run", events)
    assert not events.all


def test_a_plan_hashes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Planning 16 stages reads manifests and stats: what was published is not read again."""
    lines = ["stages:", "  s0: {uses: count}"]
    lines += [f"  s{n}: {{uses: count, data: [s{n - 1}, s{n // 2}]}}" for n in range(1, 16)]
    recipe = tree(text="\n".join(lines))
    execute(recipe, tmp_path)
    hashed: list[Path] = []
    monkeypatch.setattr("r1pipe.integrity.sha256_file", hashed.append)  # through which all is hashed
    assert len(pipeline.plan(recipe, Store(tmp_path), verbs=VERBS)) == 16
    assert hashed == []


# --- What is left on the disk


def test_the_run_folder_tells_what_happened(tmp_path: Path):
    execute(tree("stages.base.steps=2"), tmp_path, jobs=2)
    assert {path.name for path in tmp_path.iterdir()} >= {
        "run.json", "events.jsonl", "metrics", "artifacts", "logs", "lock",
    }  # fmt: skip
    described = json.loads((tmp_path / "run.json").read_text())
    assert described["seed"] == 0
    assert described["jobs"] == 2
    assert from_resolved(described["recipe"], "run.json", VERBS) == tree("stages.base.steps=2")
    told = [(row["event"], row["stage"]) for row in jsonl.iter_rows(tmp_path / "events.jsonl")]
    assert told[0] == ("run_started", "")
    assert told[1:4] == [("stage_started", "base"), ("say", "base"), ("stage_finished", "base")]
    assert told[-1] == ("run_finished", "")
    finished = [row for row in jsonl.iter_rows(tmp_path / "events.jsonl") if row["event"] == "stage_finished"]
    assert finished[0]["metrics"] == {"steps": 2, "processes": 1}
    assert finished[0]["cost"]["tokens"] == 7
    assert 10_000_000 < finished[0]["cost"]["peak_rss_bytes"] < 10_000_000_000
    assert list(jsonl.iter_rows(tmp_path / "metrics" / "base.jsonl")) == [{"step": 1}, {"step": 2}]
    assert not any(path.is_dir() for path in (tmp_path / "work").iterdir())


# --- Side by side


def test_independent_stages_run_side_by_side(tmp_path: Path, events: Events):
    recipe = tree("stages.zero.pause=0.5", "stages.cold.pause=0.5")
    execute(recipe, tmp_path, events, jobs=2)
    order = [(kind, stage) for kind, stage, _ in events.all if stage in ("zero", "cold") and "stage_" in kind]
    assert [kind for kind, _ in order] == ["stage_started"] * 2 + ["stage_finished"] * 2


def test_a_second_process_on_a_run_is_told_who_holds_it(tmp_path: Path, events: Events):
    with RunFolder(tmp_path).writing(), pytest.raises(Conflict) as caught:
        execute(tree(), tmp_path, events)
    said = str(caught.value)
    assert caught.value.exit_code == 3
    assert f"is held by process {os.getpid()} on " in said
    assert " since 20" in said
    assert f"Wait for it, stop it (kill -INT {os.getpid()}), or give another run folder." in said
    assert not events.all
    execute(tree(), tmp_path, events)
    assert len(events.of("stage_finished")) == 5


# --- Failures


def test_a_failed_stage_lets_the_others_finish(tmp_path: Path, events: Events):
    with pytest.raises(RunFailed) as caught:
        execute(tree("stages.cold.fails=raise"), tmp_path, events)
    log = tmp_path / "logs" / "cold.log"
    assert str(caught.value) == (
        f"Stage 'cold' failed: ValueError: the numbers do not add up. Its log is {log}\n"
        "What was finished is kept: once this is put right, the same command goes on from there."
    )
    assert "Traceback (most recent call last)" in log.read_text()
    assert list(events.of("stage_finished")) == ["base", "zero"]
    assert {name: f["because"] for name, f in events.of("stage_skipped").items()} == {
        "r1": "'cold' is missing",
        "scores": "'r1' is missing",
    }
    assert events.of("run_finished")[""]["exit_code"] == 1
    again = Events()
    execute(tree(), tmp_path, again)
    assert set(again.of("stage_reused")) == {"base", "zero"}
    assert set(again.of("stage_finished")) == {"cold", "r1", "scores"}


@pytest.mark.parametrize(
    ("how", "kind", "said"),
    [
        ("usage", UsageError, "Stage 'a' failed: Row 3 has no answer. Its log is"),
        (
            "kill",
            RunFailed,
            "Stage 'a' failed: its process was killed, as the system does when memory is out",
        ),
        ("exit", RunFailed, "Stage 'a' failed: its process ended with exit code 3 and said nothing. Its log"),
        ("full", RunFailed, "is full; free some space. Its log is"),
        (
            "hang",
            RunFailed,
            "Stage 'a' failed: its process ended itself, as vLLM did not come back from a step",
        ),
    ],
)
def test_every_end_has_its_message(tmp_path: Path, how: str, kind: type[Exception], said: str):
    with pytest.raises(kind) as caught:
        execute(tree(text=f"name: t\nstages: {{a: {{uses: count, fails: {how}}}}}"), tmp_path)
    assert said in str(caught.value)
    assert caught.value.exit_code == kind.exit_code
    if how == "hang":
        assert "in _fail" in (tmp_path / "logs" / "a.log").read_text()


def test_options_are_checked_before_anything_runs(tmp_path: Path, events: Events):
    with pytest.raises(UsageError) as caught:
        execute(
            tree("stages.r1.trainer={beta: 1, gamma: 2}", "stages.base.trainer={delta: 3}"), tmp_path, events
        )
    assert str(caught.value).splitlines() == [
        "--set stages.base.trainer={delta: 3}: stages.base.trainer.delta: no such option",
        "--set stages.r1.trainer={beta: 1, gamma: 2}: stages.r1.trainer.gamma: no such option",
    ]
    assert not events.of("stage_started")


def test_what_the_machine_lacks_is_no_wrong_config(tmp_path: Path, events: Events):
    """Exit code 4 where a right config is on the wrong machine; 2, and all told, where anything is wrong."""
    with pytest.raises(EnvironmentUnfit) as caught:
        execute(tree("stages.base.needs=GPU", "stages.r1.needs=vLLM"), tmp_path, events)
    assert caught.value.exit_code == 4
    assert str(caught.value).splitlines() == [
        "--set stages.base.needs=GPU: stages.base.needs: there is no GPU; buy one",
        "--set stages.r1.needs=vLLM: stages.r1.needs: there is no vLLM; buy one",
    ]
    assert events.of("run_finished")[""]["exit_code"] == 4
    with pytest.raises(UsageError) as wrong:
        execute(tree("stages.base.needs=GPU", "stages.r1.trainer={gamma: 2}"), tmp_path, events)
    assert wrong.value.exit_code == 2
    assert str(wrong.value).splitlines() == [
        "--set stages.r1.trainer={gamma: 2}: stages.r1.trainer.gamma: no such option",
        "--set stages.base.needs=GPU: stages.base.needs: there is no GPU; buy one",
    ]
    assert not events.of("stage_started")


# --- Kills, stops, and on again


SLOW = """
name: slow
stages:
  base: {uses: count, text: base, steps: 40, pause: 0.05}
  next: {uses: count, text: next, data: base}
"""


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that runs SLOW in `tmp_path / "run"`, in the middle of its first stage."""
    process = _started(tmp_path, SLOW)
    try:
        _read_until(process, "'step': 3}")
        yield process
    finally:
        process.kill()
        process.wait()


def _started(folder: Path, recipe: str) -> subprocess.Popen[str]:
    """A process that runs a recipe of fake stages in `folder / "run"`."""
    (folder / "slow.yaml").write_text(recipe)
    command = [sys.executable, "-m", "tests.fake_stage", str(folder / "slow.yaml"), str(folder / "run"), "1"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True)


def _read_until(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(f"the process ended without saying {text!r}")


def _steps(run_dir: Path) -> list[dict[str, int]]:
    return list(jsonl.iter_rows(run_dir / "work" / "base" / "steps.jsonl"))


def _goes_on(run_dir: Path) -> None:
    """Run it again in this process: it goes on from the steps done and makes the same in the end."""
    done = len(_steps(run_dir))
    assert 3 <= done < 40
    events = Events()
    made = execute(parse_recipe(SLOW, "slow.yaml", VERBS, ["stages.base.pause=0"]), run_dir, events)
    assert events.of("stage_started")["base"]["resumed"] is True
    assert events.of("stage_finished")["base"]["metrics"] == {"steps": 40, "processes": 2}
    assert rows_of(made["next"]) == ["base", "next"]
    logged = [row["step"] for row in jsonl.iter_rows(run_dir / "metrics" / "base.jsonl")]
    assert logged == list(range(1, 41))


def test_after_a_kill_of_the_parent_the_next_run_goes_on(tmp_path: Path, slow: subprocess.Popen[str]):
    """The child ends with its parent: it writes no step more, and the lock is free."""
    child = _steps(tmp_path / "run")[0]["pid"]
    slow.kill()
    slow.wait()
    deadline = time.monotonic() + 10
    while _alive(child):
        assert time.monotonic() < deadline, "the child outlived its parent by 10 seconds"
        time.sleep(0.01)
    _goes_on(tmp_path / "run")


def test_after_a_kill_of_the_child_the_next_run_goes_on(tmp_path: Path, slow: subprocess.Popen[str]):
    os.kill(_steps(tmp_path / "run")[0]["pid"], signal.SIGKILL)
    assert slow.wait(timeout=20) == 1
    _goes_on(tmp_path / "run")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_once_saves_and_stops(tmp_path: Path, slow: subprocess.Popen[str], number: signal.Signals):
    os.killpg(slow.pid, number)  # the whole group, as a terminal does
    assert slow.wait(timeout=20) == 130
    assert slow.stdout is not None
    said = slow.stdout.read()
    assert "stage_stopped base" in said
    assert "the same command goes on from there" in said
    assert jsonl.loads((tmp_path / "run/work/base/begun.json").read_bytes())["seconds"] > 0.1
    _goes_on(tmp_path / "run")


def test_ctrl_c_twice_stops_at_once(tmp_path: Path):
    """A stage that does not come to a point where it can save is ended; what it had saved is kept."""
    process = _started(tmp_path, SLOW.replace("pause: 0.05", "pause: 60"))
    _read_until(process, "stage_started base")
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.2)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=10) == 130


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_work_of_another_config_is_put_aside_and_found_again(tmp_path: Path):
    folder = RunFolder(tmp_path)
    one, two, three = ("1" * 64, "2" * 64, "3" * 64)
    assert folder.begin("a", one) is False
    (folder.work("a") / "saved").write_text("one")
    jsonl.write_rows(folder.metrics("a"), [{"step": 1, "of": "one"}])
    assert folder.begin("a", one) is True
    assert folder.begin("a", two) is False
    assert not (folder.work("a") / "saved").exists()
    assert not folder.metrics("a").exists()
    jsonl.write_rows(folder.metrics("a"), [{"step": 1, "of": "two"}])
    assert folder.begin("a", one) is True
    assert (folder.work("a") / "saved").read_text() == "one"
    assert list(jsonl.iter_rows(folder.metrics("a"))) == [{"step": 1, "of": "one"}]
    assert folder.begin("a", two) is True
    assert list(jsonl.iter_rows(folder.metrics("a"))) == [{"step": 1, "of": "two"}]
    folder.begin("a", three)  # one is kept aside, the one begun last
    assert folder.begin("a", one) is False
    (folder.work("a") / run.BEGUN).unlink()
    assert folder.begin("a", one) is False


def test_work_of_other_options_is_said_to_begin_anew(tmp_path: Path, events: Events):
    """Where a stage was begun with other options or inputs, and nowhere else."""
    RunFolder(tmp_path / "run").begin("zero", "1" * 64)
    execute(tree(), tmp_path / "run", events)
    said = [stage for kind, stage, fields in events.all if kind == "say" and "begins anew" in fields["text"]]
    assert said == ["zero"]


def test_a_light_stage_alone_loads_nothing_heavy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The server that children are forked from is told to load it only where a stage that is due needs it."""
    told: list[Any] = []
    monkeypatch.setattr(pipeline, "fork_server", told.append)
    more: dict[str, Any] = {"verbs": VERBS, "preload": ("heavy",)}
    pipeline.run(tree(), tmp_path / "heavy", **more)
    pipeline.run(tree(), tmp_path / "heavy", **more)
    monkeypatch.setattr(VERBS.module("count"), "LIGHT", True, raising=False)
    pipeline.run(tree(), tmp_path / "light", **more)
    assert told == [("heavy",), ()]


def test_reusing_a_version_leaves_begun_work_its_metrics(tmp_path: Path):
    """A changed value was tried and stopped; going back and forth mixes nothing."""
    execute(tree(), tmp_path)
    folder, other = RunFolder(tmp_path), "f" * 64
    assert folder.begin("zero", other) is False
    jsonl.write_rows(folder.metrics("zero"), [{"step": 1, "of": "other"}])
    execute(tree(), tmp_path)
    assert list(jsonl.iter_rows(folder.metrics("zero"))) == [{"step": 1}]
    assert folder.begin("zero", other) is True
    assert list(jsonl.iter_rows(folder.metrics("zero"))) == [{"step": 1, "of": "other"}]


def test_a_kill_right_after_publishing_leaves_nothing_behind(tmp_path: Path):
    """The artifact is whole, so it counts; the work that led to it goes, its metrics stay."""
    made = execute(tree(), tmp_path)
    folder = RunFolder(tmp_path)
    for path in (tmp_path / "metrics" / ".versions" / "zero").iterdir():
        path.unlink()
    folder.work("zero").mkdir()
    jsonl.write_json(folder.work("zero") / run.BEGUN, {"fingerprint": made["zero"].fingerprint})
    execute(tree(), tmp_path)
    assert not folder.work("zero").exists()
    execute(tree("stages.zero.steps=2"), tmp_path)
    execute(tree(), tmp_path)
    assert list(jsonl.iter_rows(folder.metrics("zero"))) == [{"step": 1}]


# --- A stage alone


def test_a_stage_alone_leaves_its_artifact_where_it_was_asked_to(tmp_path: Path, events: Events):
    out = tmp_path / "out"
    config = fake_stage.Config(text="alone", steps=2)
    made = pipeline.run_alone("count", config, out, sink=events, verbs=VERBS, preload=())
    assert (made.path, rows_of(made)) == (out, ["alone"])
    assert (out / "manifest.json").exists()
    again = pipeline.run_alone("count", config, out, sink=events, verbs=VERBS, preload=())
    assert again.manifest == made.manifest
    assert len(events.of("stage_finished")) == len(events.of("stage_reused")) == 1
    with pytest.raises(Conflict, match="is there already and holds something else"):
        pipeline.run_alone("count", fake_stage.Config(text="b"), out, verbs=VERBS, preload=())
    assert rows_of(made) == ["alone"]
    child = pipeline.run_alone(
        "count", fake_stage.Config(data=str(out)), tmp_path / "b", verbs=VERBS, preload=()
    )
    assert child.manifest is not None
    assert child.manifest.parents[0].fingerprint == made.fingerprint


def test_a_stage_alone_that_lost_a_file_says_so_and_can_be_made_again(tmp_path: Path):
    """Called up to date, it could be neither used nor made again."""

    def call() -> Artifact:
        return pipeline.run_alone("count", fake_stage.Config(), tmp_path / "out", verbs=VERBS, preload=())

    made = call()
    next(made.path.glob("part-*.jsonl")).unlink()
    with pytest.raises(Conflict, match=r"was changed since it was made: .*part-00000\.jsonl.* Remove it"):
        call()
    shutil.rmtree(made.path)
    assert call().fingerprint == made.fingerprint
    assert next(made.path.glob("part-*.jsonl")).exists()


@pytest.mark.parametrize("out", [".", "..", "/"])
def test_a_stage_alone_needs_a_folder_with_a_name(out: str):
    with pytest.raises(UsageError, match="is no folder of the artifact's own"):
        pipeline.run_alone("count", fake_stage.Config(), out, verbs=VERBS, preload=())


def test_a_model_that_cannot_be_had_is_one_clear_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from r1pipe.hub import fetch_model

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        EnvironmentUnfit, match=r"The model org/name@abc is not on this machine, and .* cannot"
    ):
        fetch_model("org/name@abc")
    with pytest.raises(UsageError, match="is no id of the Hugging Face hub"):
        fetch_model("org/bad--name..x")


def test_an_interrupt_before_the_first_stage_is_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "fork_server", interrupted)
    with pytest.raises(Interrupted):
        execute(tree(), tmp_path)


def test_a_stage_alone_on_a_machine_that_lacks_something(tmp_path: Path):
    """As in a recipe: exit code 4, in the words of its check."""
    with pytest.raises(EnvironmentUnfit, match=r"stages\.count\.needs: there is no GPU; buy one$") as caught:
        pipeline.run_alone("count", fake_stage.Config(needs="GPU"), tmp_path / "out", verbs=VERBS, preload=())
    assert caught.value.exit_code == 4
