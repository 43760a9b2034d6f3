"""What all trainers share: defaults that fit the machine, a guard against NaN, and going on after a stop."""

import gc
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from transformers import PrinterCallback, Trainer, TrainingArguments

from r1pipe.errors import Interrupted
from r1pipe.train import checkpoints, ranks
from r1pipe.train.callbacks import Row, WorkCallback, require_finite

if TYPE_CHECKING:
    from r1pipe.stage import Work


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training came to."""

    metrics: Row
    """The last row of metrics, without its times."""
    tokens: int
    """Tokens the trainer saw, prompts and completions, over the whole training."""
    weights: dict[str, torch.Tensor] | None = None
    """What to publish, in the first rank, where ranks share the weights; None where the model holds them."""


class FiniteTrainer(Trainer):
    """A trainer that stops at a loss or gradient that is not finite, before it reaches the weights.

    What one of several ranks finds all know, and the first one says it: it has the guard and the evidence.
    """

    def training_step(
        self, model: torch.nn.Module, inputs: Any, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """As the trainer's own; raises `RunFailed` on a loss that is not finite."""
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        self._require_finite("loss", ranks.worst(loss.item()))
        return loss

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self._require_finite("gradient norm", float(norm))
        return norm

    def _require_finite(self, name: str, value: float) -> None:
        """Raise `RunFailed` on a `value`, the same in all ranks, that is not finite."""
        if not math.isfinite(value):
            ranks.leave_to_first()
        require_finite(name, value, self.state.global_step + 1, Path(str(self.args.output_dir)))


def defaults(work: "Work") -> dict[str, Any]:
    """Arguments that TRL's defaults get wrong on some machines, or leave to chance."""
    on_gpu = torch.cuda.is_available()
    met = (
        {"accelerator_config": {"use_configured_state": True}} if work.rank is not None else {}
    )  # ranks.meet
    return met | {
        "output_dir": str(work.dir / "trainer"),
        "seed": work.seed,
        "use_cpu": not on_gpu,
        "bf16": on_gpu,
        "gradient_checkpointing": on_gpu,
        "report_to": "none",
        "disable_tqdm": True,
        "ddp_find_unused_parameters": False,  # there are none, and looking for them takes time
        "logging_nan_inf_filter": False,  # it would hide what `FiniteTrainer` looks for
        "save_strategy": "steps",
        "save_total_limit": 2,  # the older checkpoint may go only once the newer one is sealed
    }


A = TypeVar("A", bound=TrainingArguments)


def on_one_gpu(args: A) -> A:
    """Have a process use one GPU, however many it sees: the Trainer would take all of them by DataParallel.

    Several GPUs have a process each (`processes`).
    """
    args._n_gpu = min(args.n_gpu, 1)
    return args


def release() -> None:
    """Give back the memory of what nothing holds any more: trainers hold themselves, in cycles."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def newest(folder: Path, work: "Work") -> Path | None:
    """The checkpoint to go on from, the same in all ranks; the first one removes halves left by a kill."""
    if not work.rank:
        checkpoints.latest(folder)
    ranks.barrier()
    return checkpoints.latest(folder)


def run(trainer: Trainer, callback: WorkCallback) -> dict[str, torch.Tensor] | None:
    """Train to the end, from the newest whole checkpoint if there is one; return `Trained.weights`.

    Raises `Interrupted` when the user asked to stop: a checkpoint has been written, and the next call goes on
    from it.
    """
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(callback)
    found = newest(Path(str(trainer.args.output_dir)), callback.work)
    trainer.train(resume_from_checkpoint=str(found) if found else None)
    if callback.stopped:
        done, of = trainer.state.global_step, trainer.state.max_steps
        raise Interrupted(
            f"Stage '{callback.work.name}' stopped after step {done} of {of}. Run it again to go on."
        )
    return ranks.whole_weights(trainer)
