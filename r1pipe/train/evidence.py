"""What the guard does in a training's folder: the evidence, the last good checkpoint, and the way back to it.

    evidence/step-57/     alarm.json, rows.jsonl, completions.jsonl; what a rollback set aside
    evidence/step-57.2/   of the second alarm at that step
    good/checkpoint-40/   the last checkpoint saved while nothing pointed to trouble
    rollbacks.jsonl       one row for each time the training went back
    rollback.json         the rollback that is under way

The trainer keeps its two newest checkpoints, and trouble is known to be trouble only a window after it began;
so a good one is kept beside them. Plain Python.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from r1pipe import jsonl
from r1pipe.errors import RunFailed
from r1pipe.train import checkpoints
from r1pipe.train.guard import CollapseAlarm, CollapseDetector, GuardConfig

if TYPE_CHECKING:
    from r1pipe.stage import Work

Row = Mapping[str, Any]

ROWS: Final = 100
"""Rows of metrics that are kept as evidence: several windows before the alarm, and the window itself."""

_EVIDENCE: Final = "evidence"
_GOOD: Final = "good"
_DECIDED: Final = "rollback.json"


def rollbacks(folder: Path) -> int:
    """How often the training in this folder has gone back; rollouts are drawn by another seed for each."""
    return len(_rows(folder / "rollbacks.jsonl"))


def finish_rollback(folder: Path) -> None:
    """Count a rollback that was decided on, and set aside what followed; without one do nothing.

    A kill leaves the rest to the next call: a training makes one before it looks where to go on from.
    """
    decided = folder / _DECIDED
    if not decided.exists():
        return
    told = jsonl.loads(decided.read_bytes())
    if rollbacks(folder) < told["number"]:
        with jsonl.Journal(folder / "rollbacks.jsonl") as journal:
            journal.append([told["row"]])
    step = told["row"]["to"]
    good = checkpoints.at(folder / _GOOD, step) if step else None
    checkpoints.go_back(folder / "trainer", good, folder / _EVIDENCE / told["evidence"])
    decided.unlink()
    jsonl.fsync(folder)


class CollapseGuard:
    """The guard of one training."""

    def __init__(self, guard: GuardConfig, work: "Work", completions: Callable[[], Iterable[Row]]) -> None:
        """`completions` are those of the last generation, with their rewards, as rows."""
        self.guard = guard
        self.work = work
        self._completions = completions
        self._detector = CollapseDetector(guard)

    def begin(self, rows: Iterable[Row]) -> None:
        """Start over, with the rows of the steps that are done."""
        self._detector = CollapseDetector(self.guard)
        for row in rows:
            self._detector.see(row)

    def see(self, row: Row) -> None:
        """Look at the next row. On an alarm the evidence is saved and `RunFailed` raised."""
        alarm = self._detector.see(row)
        if alarm is not None:
            evidence = self._save(alarm)
            raise RunFailed(f"{self._stopped(alarm, evidence)} {self._way_out(alarm, evidence)}")

    def saved(self, checkpoint: Path) -> None:
        """Keep a checkpoint that was just sealed, if nothing points to trouble."""
        if self._detector.calm:
            checkpoints.keep(checkpoint, self._good)

    @property
    def _good(self) -> Path:
        return self.work.dir / _GOOD

    def _save(self, alarm: CollapseAlarm) -> Path:
        folder = _unused(self.work.dir / _EVIDENCE / f"step-{alarm.step}")
        jsonl.write_json(folder / "alarm.json", asdict(alarm) | {"guard": self.guard.model_dump()})
        jsonl.write_rows(folder / "rows.jsonl", _rows(self.work.metrics)[-ROWS:])
        jsonl.write_rows(folder / "completions.jsonl", (dict(row) for row in self._completions()))
        return folder

    def _stopped(self, alarm: CollapseAlarm, evidence: Path) -> str:
        good = checkpoints.latest(self._good)
        kept = f"The last good checkpoint is {good}." if good else "No checkpoint had been saved before that."
        return (
            f"The training was stopped at step {alarm.step}. {alarm.sentence} The alarm, the rows before it "
            f"and the last completions are in {evidence}. {kept}"
        )

    def _way_out(self, alarm: CollapseAlarm, evidence: Path) -> str:
        done, good = rollbacks(self.work.dir), checkpoints.latest(self._good)
        where = f"step {checkpoints.step_of(good)}" if good else "the start"
        if not self.guard.rollback:
            return (
                f"Or run again with `guard.rollback: true`: at the next alarm it goes back to {where} and "
                "draws other completions from there. With `guard.on: false` it goes on unguarded."
            )
        if done >= self.guard.rollbacks:
            return (
                f"It has already gone back as often as `guard.rollbacks` = {self.guard.rollbacks} allows. "
                "With `guard.on: false` it goes on unguarded."
            )
        row = {"kind": alarm.kind, "from": alarm.step, "to": checkpoints.step_of(good) if good else 0}
        # Written first: a kill after this finds it on the next start.
        decision = {"number": done + 1, "row": row, "evidence": evidence.name}
        jsonl.write_json(self.work.dir / _DECIDED, decision)
        finish_rollback(self.work.dir)
        return (
            f"What followed was set aside (rollback {done + 1} of {self.guard.rollbacks}): run again to go "
            f"on from {where} with other completions."
        )


def _unused(folder: Path) -> Path:
    """The folder, or the first of `<folder>.2`, `<folder>.3`, ... that is not there."""
    numbered = (folder.with_name(f"{folder.name}.{i}") for i in count(2))
    return next(each for each in chain([folder], numbered) if not each.exists())


def _rows(path: Path) -> list[jsonl.Row]:
    if not path.exists():
        return []
    with jsonl.Journal(path) as journal:
        return journal.rows()
