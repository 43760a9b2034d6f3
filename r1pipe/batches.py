"""The arithmetic of a training's batches: how a step is shared out and cut, in plain numbers.

Five sizes stand one inside the other, and TRL counts one of them in a unit of its own:
`steps_per_generation` are its calls, `gradient_accumulation_steps` of which are an optimiser step. In the
paper 32 questions x 16 are an optimiser step of 512 completions, and 16 such steps learn from one rollout of
8,192. With calls of 4 completions and an accumulation of 128 that is `steps_per_generation` = 16 x 128; with
16 in its place the rollout has 64.

RL hands a call the whole of a process's share of a step and cuts it itself, by length, so its micro-batches
need not be equal. A supervised stage is cut by TRL.
"""

from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """How a stage's batches are cut. A supervised stage has groups of one, and no rollout."""

    prompts_per_step: int
    """Prompts (or rows) that one optimiser step learns from."""
    group_size: int
    """Completions of each prompt."""
    micro_batch: int
    """Completions that a process computes at once; at most so many, in RL."""
    minibatches: int = 1
    """Optimiser steps that learn from one rollout."""
    processes: int = 1
    """Processes that train side by side, a GPU each."""
    tokens: int | None = None
    """Tokens that a completion (or a row) has at most, if that is known."""
    rollouts: bool = True
    """Whether the completions are generated; a supervised stage is given its `batch_size` rows."""

    @classmethod
    def of_rollouts(
        cls,
        prompts_per_step: int,
        group_size: int,
        micro_batch: int,
        *,
        minibatches: int,
        processes: int,
        tokens: int,
    ) -> Self:
        """How RL's completions are cut: whole groups to each process, whose prompt it reads once.

        Raises `ValueError` where the prompts cannot be shared out evenly.
        """
        _share(prompts_per_step, "prompts_per_step", processes)
        return cls(
            prompts_per_step,
            group_size,
            micro_batch,
            minibatches=minibatches,
            processes=processes,
            tokens=tokens,
        )

    @classmethod
    def of_rows(cls, batch_size: int, micro_batch: int | None, *, processes: int, tokens: int | None) -> Self:
        """How a supervised stage's rows are cut: at most `micro_batch` at once, or a process's whole share.

        Raises `ValueError` where the rows cannot be shared out evenly, or a share not cut into such pieces.
        """
        share = _share(batch_size, "batch_size", processes)
        micro = min(micro_batch or share, share)
        if share % micro:
            per = f" / {processes} processes" if processes > 1 else ""
            raise ValueError(
                f"batch_size{per} = {share} rows cannot be cut into micro-batches of micro_batch = {micro}; "
                f"choose a divisor of {share}"
            )
        return cls(batch_size, 1, micro, processes=processes, tokens=tokens, rollouts=False)

    @property
    def completions_per_step(self) -> int:
        """Completions of one optimiser step, over all processes."""
        return self.prompts_per_step * self.group_size

    @property
    def prompts_per_rollout(self) -> int:
        """Prompts that are asked at once."""
        return self.prompts_per_step * self.minibatches

    @property
    def completions_per_rollout(self) -> int:
        """Completions generated at once; `GRPOConfig.generation_batch_size`."""
        return self.completions_per_step * self.minibatches

    @property
    def completions_per_process(self) -> int:
        """Completions of one optimiser step on one process."""
        return self.completions_per_step // self.processes

    @property
    def micro_batches(self) -> int:
        """Micro-batches of one process in one optimiser step; the fewest, where tokens bound them too."""
        return -(-self.completions_per_process // self.micro_batch)

    @property
    def per_device_train_batch_size(self) -> int:
        """Completions of one call of the trainer."""
        return self.completions_per_process if self.rollouts else self.micro_batch

    @property
    def gradient_accumulation_steps(self) -> int:
        """Calls of the trainer in one optimiser step."""
        return self.completions_per_process // self.per_device_train_batch_size

    @property
    def steps_per_generation(self) -> int:
        """Calls of the trainer that learn from one rollout, as TRL counts."""
        return self.minibatches * self.gradient_accumulation_steps

    @property
    def trainer_options(self) -> dict[str, int]:
        """The numbers as TRL's configs call them."""
        calls = {
            "per_device_train_batch_size": self.per_device_train_batch_size,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
        }
        if not self.rollouts:
            return calls
        return calls | {
            "num_generations": self.group_size,
            "steps_per_generation": self.steps_per_generation,
        }

    @property
    def tokens_per_step(self) -> int | None:
        """Tokens that one optimiser step learns from at most, prompts left out."""
        return None if self.tokens is None else self.completions_per_step * self.tokens

    @property
    def sentence(self) -> str:
        """The numbers in words."""
        told = (
            f"Each step learns from {self.prompts_per_step} prompts x {self.group_size} = "
            f"{self.completions_per_step:,} completions"
        )
        if self.processes > 1:
            told += f", {self.completions_per_process:,} on each of {self.processes} processes"
        if self.minibatches > 1:
            told += f"; {self.minibatches} steps share a rollout of {self.completions_per_rollout:,}"
        return f"{told}."

    @property
    def as_json(self) -> dict[str, Any]:
        """The numbers for `--json`."""
        return {
            "prompts_per_step": self.prompts_per_step,
            "group_size": self.group_size,
            "completions_per_step": self.completions_per_step,
            "completions_per_rollout": self.completions_per_rollout if self.rollouts else None,
            "minibatches": self.minibatches,
            "processes": self.processes,
            "micro_batch": self.micro_batch,
            "micro_batches": self.micro_batches,
            "per_device_train_batch_size": self.per_device_train_batch_size,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
            "steps_per_generation": self.steps_per_generation if self.rollouts else None,
            "tokens_per_step": self.tokens_per_step,
        }


def _share(total: int, of: str, processes: int) -> int:
    """What one process gets of `total` (`of` in messages). Raises `ValueError` if it does not divide."""
    if total % processes:
        fitting = [number for number in range(1, total + 1) if total % number == 0]
        nearest = sorted(fitting, key=lambda number: abs(number - processes))[:2]
        raise ValueError(
            f"{of} = {total} cannot be shared out evenly among processes = {processes}; "
            f"choose a multiple of {processes}, or {' or '.join(map(str, sorted(nearest)))} processes"
        )
    return total // processes
