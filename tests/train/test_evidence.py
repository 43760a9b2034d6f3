"""What an alarm leaves behind: the evidence, the last good checkpoint, and the way back to it."""

import json
from pathlib import Path
from typing import Any

import pytest

from r1pipe import jsonl
from r1pipe.errors import RunFailed
from r1pipe.stage import Work
from r1pipe.train import checkpoints
from r1pipe.train.evidence import CollapseGuard, finish_rollback, rollbacks
from r1pipe.train.guard import GuardConfig
from tests.tiny_model import workplace

COMPLETIONS = [{"prompt": "1 + 1", "completion": "!!!!", "rewards": {"accuracy": 0.0}}]


def checkpoint(work: Work, step: int) -> Path:
    """A sealed checkpoint of the trainer, which keeps two."""
    folder = work.dir / "trainer" / f"checkpoint-{step}"
    (folder / "inner").mkdir(parents=True)
    (folder / "model.safetensors").write_text(f"weights of step {step}")
    (folder / "inner" / "optimizer.pt").write_text("state")
    checkpoints.seal(folder)
    for old in sorted((work.dir / "trainer").glob("checkpoint-*"), key=checkpoints.step_of)[:-2]:
        for file in sorted(old.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        old.rmdir()
    return folder


def collapse(work: Work, guard: GuardConfig) -> str:
    """A training whose length falls from 200 to 10 after step 12, saved every two steps; what stopped it."""
    collapse_guard = CollapseGuard(guard, work, lambda: COMPLETIONS)
    newest = checkpoints.latest(work.dir / "trainer")
    done = checkpoints.step_of(newest) if newest else 0
    work.log({"step": 0})
    work.rewind(done)
    collapse_guard.begin(json.loads(line) for line in work.metrics.read_text().splitlines() if done)
    with pytest.raises(RunFailed) as failed:
        for step in range(done + 1, 40):
            row: dict[str, Any] = {"step": step, "length": 200.0 if step <= 12 else 10.0}
            work.log(row)
            collapse_guard.see(row)
            if step % 2 == 0:
                collapse_guard.saved(checkpoint(work, step))
    return str(failed.value)


def test_the_evidence(tmp_path: Path) -> None:
    """The alarm with the guard it was raised by, the rows up to it, the last completions; all named in the
    message.

    One bad row of the newest two, at step 13, is not yet half the way to a seventh of the length.
    """
    work, _ = workplace(tmp_path / "zero")
    said = collapse(work, GuardConfig(window=8))
    folder = work.dir / "evidence" / "step-20"
    alarm = json.loads((folder / "alarm.json").read_text())
    assert (alarm["kind"], alarm["step"], alarm["calm_until"]) == ("length", 20, 13)
    assert alarm["guard"]["length"] == 0.15 and alarm["sentence"] in said
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(21))
    assert [
        json.loads(line) for line in (folder / "completions.jsonl").read_text().splitlines()
    ] == COMPLETIONS
    assert str(folder) in said and "`guard.on: false`" in said and "`guard.rollback: true`" in said


def test_the_last_good_checkpoint_is_kept(tmp_path: Path) -> None:
    """The trainer has pruned what was saved before the trouble; that of step 12 is there, whole, and the
    step of the alarm was not saved."""
    work, _ = workplace(tmp_path / "zero")
    said = collapse(work, GuardConfig(window=8))
    good = checkpoints.latest(work.dir / "good")
    assert good is not None and checkpoints.step_of(good) == 12 and str(good) in said
    assert (good / "model.safetensors").read_text() == "weights of step 12"
    assert [path.name for path in (work.dir / "good").iterdir()] == ["checkpoint-12"]
    left = {checkpoints.step_of(path) for path in (work.dir / "trainer").iterdir()}
    assert left == {16, 18}


def test_a_kept_checkpoint_shares_its_bytes(tmp_path: Path) -> None:
    """As long as the trainer has it too, there is one copy on the disk."""
    work, _ = workplace(tmp_path / "zero")
    made = checkpoint(work, 2)
    kept = checkpoints.keep(made, work.dir / "good")
    assert (kept / "model.safetensors").samefile(made / "model.safetensors")
    assert checkpoints.is_whole(kept)


def test_without_being_asked_nothing_goes_back(tmp_path: Path) -> None:
    """The newest checkpoint stays the newest, so the same training stops at the same step again.

    Its evidence lies beside that of the first alarm.
    """
    work, _ = workplace(tmp_path / "zero")
    first, second = collapse(work, GuardConfig(window=8)), collapse(work, GuardConfig(window=8))
    assert first.replace("/step-20", "/step-20.2") == second and rollbacks(work.dir) == 0


def test_going_back(tmp_path: Path) -> None:
    """The good checkpoint becomes the trainer's newest, the later ones lie with the evidence, and it is
    counted.

    The next alarm finds the allowance used up, and says so; nothing is moved any more.
    """
    work, _ = workplace(tmp_path / "zero")
    guard = GuardConfig(window=8, rollback=True)
    said = collapse(work, guard)
    assert "rollback 1 of 1" in said and "go on from step 12 with other completions" in said
    newest = checkpoints.latest(work.dir / "trainer")
    assert newest is not None and newest.name == "checkpoint-12"
    aside = sorted(path.name for path in (work.dir / "evidence" / "step-20").glob("checkpoint-*"))
    assert aside == ["checkpoint-16", "checkpoint-18"]
    assert rollbacks(work.dir) == 1
    row = json.loads((work.dir / "rollbacks.jsonl").read_text())
    assert row == {"kind": "length", "from": 20, "to": 12}
    again = collapse(work, guard)
    assert "gone back as often as `guard.rollbacks` = 1 allows" in again and rollbacks(work.dir) == 1
    newest = checkpoints.latest(work.dir / "trainer")
    assert newest is not None and newest.name == "checkpoint-18"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        pytest.param(jsonl.Journal, "append", id="before it is counted"),
        pytest.param(checkpoints, "go_back", id="before anything is moved"),
        pytest.param(Path, "replace", id="before the first is moved"),
        pytest.param(Path, "unlink", id="when all is moved"),
    ],
)
def test_a_kill_while_going_back(
    module: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it comes the next start counts the rollback once, and goes on from the good checkpoint."""
    work, _ = workplace(tmp_path / "zero")
    for step in (2, 4):
        checkpoint(work, step)
    checkpoints.keep(work.dir / "trainer" / "checkpoint-2", work.dir / "good")
    checkpoint(work, 6)
    collapse_guard = CollapseGuard(GuardConfig(rollback=True), work, lambda: COMPLETIONS)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(module, name, killed)
        collapse_guard.see({"step": 7, "loss": float("nan")})
    for _ in range(2):
        finish_rollback(work.dir)
        assert [path.name for path in sorted((work.dir / "trainer").glob("*"))] == ["checkpoint-2"]
        assert sorted(path.name for path in (work.dir / "evidence" / "step-7").glob("checkpoint-*")) == [
            "checkpoint-4",
            "checkpoint-6",
        ]
        assert rollbacks(work.dir) == 1
    checkpoint(work, 4)
    finish_rollback(work.dir)
    assert (work.dir / "trainer" / "checkpoint-4").is_dir(), "what is trained afterwards stays"


def test_going_back_twice_from_one_step(tmp_path: Path) -> None:
    """Each alarm has evidence of its own, and what each rollback set aside lies with it."""
    work, _ = workplace(tmp_path / "zero")
    guard = GuardConfig(window=8, rollback=True, rollbacks=2)
    assert "rollback 1 of 2" in collapse(work, guard)
    first = (work.dir / "evidence" / "step-20" / "alarm.json").read_text()
    assert "rollback 2 of 2" in collapse(work, guard.model_copy(update={"length": 0.16}))
    for name in ("step-20", "step-20.2"):
        folder = work.dir / "evidence" / name
        assert sorted(path.name for path in folder.iterdir()) == [
            "alarm.json",
            "checkpoint-16",
            "checkpoint-18",
            "completions.jsonl",
            "rows.jsonl",
        ]
    assert (work.dir / "evidence" / "step-20" / "alarm.json").read_text() == first
    assert rollbacks(work.dir) == 2


def test_going_back_to_the_start(tmp_path: Path) -> None:
    """With no good checkpoint the training begins anew."""
    work, _ = workplace(tmp_path / "zero")
    bad = checkpoint(work, 2)
    collapse_guard = CollapseGuard(GuardConfig(rollback=True), work, lambda: COMPLETIONS)
    with pytest.raises(RunFailed, match="go on from the start with other completions"):
        collapse_guard.see({"step": 3, "loss": float("nan")})
    assert checkpoints.latest(work.dir / "trainer") is None and not bad.exists()
    assert (work.dir / "evidence" / "step-3" / "checkpoint-2").is_dir()


def test_half_a_kept_checkpoint_is_none(tmp_path: Path) -> None:
    """A kill while one is being kept leaves the one before it."""
    work, _ = workplace(tmp_path / "zero")
    checkpoints.keep(checkpoint(work, 2), work.dir / "good")
    (work.dir / "good" / ".checkpoint-4").mkdir()
    (work.dir / "good" / ".checkpoint-4" / "model.safetensors").write_text("half")
    good = checkpoints.latest(work.dir / "good")
    assert good is not None and checkpoints.step_of(good) == 2
    assert checkpoints.keep(checkpoint(work, 4), work.dir / "good").name == "checkpoint-4"
