"""What a running trainer tells its stage, and how a stage stops it."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from r1pipe import jsonl
from r1pipe.errors import RunFailed
from r1pipe.train import checkpoints, ranks
from r1pipe.train.evidence import CollapseGuard

if TYPE_CHECKING:
    from r1pipe.stage import Work

Row = dict[str, Any]

_CLOCKS = ("eta", "seconds_", "tokens_per_second")


class WorkCallback(TrainerCallback):
    """Ties a trainer to the `work` handle of the stage it runs in.

    It turns the trainer's logs into rows, reports progress, seals each checkpoint after `keep` has put into
    it what the trainer leaves out, and stops at the next step that can be resumed from when the user asks to
    stop. Of several ranks the first one decides that and seals; `keep` is called in all.
    """

    def __init__(
        self,
        work: "Work",
        row: Callable[[Row, float], Row],
        *,
        boundary: int = 1,
        keep: Callable[[Path], None] | None = None,
        until: int | None = None,
        guard: CollapseGuard | None = None,
    ) -> None:
        """`row` makes a metrics row from the trainer's logs and the seconds since the row before.

        `boundary` is the number of optimiser steps between two points that a run can be resumed from exactly.
        A training that goes on under other arguments after the step `until` is saved and ends there. `guard`
        looks at every row, before a checkpoint of the same step is written.
        """
        self.work = work
        self.row = row
        self.boundary = boundary
        self.keep = keep
        self.until = until
        self.guard = guard
        self.stopped = False
        self.last: Row = {}
        self._began = self._logged = 0.0
        self._first = 0

    @property
    def headline(self) -> Row:
        """The last row without its times: what two runs with one seed have in common."""
        return {key: value for key, value in self.last.items() if not key.startswith(_CLOCKS)}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clocks; after a resume the metrics of steps that will be done again are cut.

        A checkpoint brings the intervals it was written under, which would count in place of those of `args`.
        """
        state.compute_steps(args, state.max_steps)
        self._began = self._logged = time.perf_counter()
        self._first = state.global_step
        self.recall(state.global_step)

    def recall(self, step: int) -> None:
        """Cut the metrics after `step`, and take up the last row: after the last step no other will come."""
        self.work.rewind(step)
        rows: list[Row] = []
        if not self.work.rank and self.work.metrics.exists():
            with jsonl.Journal(self.work.metrics) as journal:
                rows = journal.rows()
        self.last = rows[-1] if rows else self.last
        if self.guard is not None:
            self.guard.begin(rows)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Report progress, see that the last step is logged, and stop where a resume is exact.

        No checkpoint holds what a row is the mean of, so every one has a row, and a stop waits for one.
        """
        self.work.progress(state.global_step, state.max_steps, "steps")
        unfinished = state.global_step < state.max_steps
        if unfinished and state.global_step == self.until:
            control.should_save = control.should_training_stop = True
        control.should_log = control.should_log or control.should_save or not unfinished
        resumable = unfinished and control.should_log and state.global_step % self.boundary == 0
        if resumable and ranks.agreed(self.work.stopping()):
            self.stopped = control.should_save = control.should_training_stop = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Row | None = None,
        **kwargs: Any,
    ) -> None:
        """One row for each logged step; the summary that ends a training is not one."""
        if self.work.rank or not logs or "loss" not in logs:
            return
        now = time.perf_counter()
        seconds, self._logged = now - self._logged, now
        left = (now - self._began) / (state.global_step - self._first) * (state.max_steps - state.global_step)
        row = {"step": state.global_step, "steps": state.max_steps, **self.row(logs, seconds), "eta": left}
        self.last = {key: _short(value) for key, value in row.items() if value is not None}
        self.work.log(self.last)
        if self.guard is not None:
            self.guard.see(self.last)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Complete the checkpoint and make it count."""
        checkpoint = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if self.keep is not None:
            self.keep(checkpoint)
        ranks.barrier()  # every rank has written its part
        if not self.work.rank:
            checkpoints.seal(checkpoint)
            if self.guard is not None:
                self.guard.saved(checkpoint)


def require_finite(name: str, value: float, step: int, folder: Path) -> None:
    """Stop a training whose numbers have left the reals, before they reach the weights or a checkpoint."""
    if not math.isfinite(value):
        raise RunFailed(
            f"The {name} became {value} at step {step}, so the training was stopped. The last good "
            f"checkpoint is in {folder}. Set `learning_rate` or `trainer.max_grad_norm` lower and run again."
        )


def _short(value: Any) -> Any:
    """Six significant digits: what a reader and a plot need."""
    return float(f"{value:.6g}") if isinstance(value, float) else value
