"""The arithmetic of a training's batches: plain numbers, checked before anything is loaded.

Five sizes stand one inside the other, and TRL counts one of them in a unit of its own: `steps_per_generation`
are micro-batches, not optimiser steps. In the paper 32 questions x 16 are an optimiser step of 512 completions,
and 16 such steps learn from one rollout of 8,192. On 8 GPUs with micro-batches of 4 that is a gradient
accumulation of 16 and `steps_per_generation` = 16 x 16 = 256; with 16 in its place the rollout has 512.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """How a stage's batches are cut. A supervised stage has groups of one, and no rollout."""

    prompts_per_step: int
    """Prompts (or rows) that one optimiser step learns from."""
    group_size: int
    """Completions of each prompt."""
    micro_batch: int
    """Completions that a process computes at once."""
    minibatches: int = 1
    """Optimiser steps that learn from one rollout."""
    processes: int = 1
    """Processes that train side by side, a GPU each."""
    tokens: int | None = None
    """Tokens that a completion (or a row) has at most, if that is known."""
    words: tuple[str, str] = ("prompts_per_step x group_size", "prompts_per_step")
    """What messages call an optimiser step's completions, and the field that changes their number."""

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
    def gradient_accumulation_steps(self) -> int:
        """Micro-batches of one process whose gradients are summed for one optimiser step."""
        return self.completions_per_step // (self.micro_batch * self.processes)

    @property
    def steps_per_generation(self) -> int:
        """Micro-batches of one process in one rollout, as TRL counts; `GRPOConfig.steps_per_generation`."""
        return self.minibatches * self.gradient_accumulation_steps

    @property
    def tokens_per_step(self) -> int | None:
        """Tokens that one optimiser step learns from at most, prompts left out."""
        return None if self.tokens is None else self.completions_per_step * self.tokens

    def problems(self) -> list[str]:
        """What does not divide, each with its way out, and beginning with the key to change."""
        completions, at_once = self.completions_per_step, self.micro_batch * self.processes
        if completions % at_once == 0:
            return []
        whole, field = self.words
        on = f" on each of {self.processes} processes" if self.processes > 1 else ""
        said = f"{whole} = {completions} cannot be cut into micro-batches of micro_batch = {self.micro_batch}{on}"
        if completions % self.processes:
            size = _next_multiple(self.prompts_per_step, self.processes)
            return [f"{field}: {said}; set {field}: {size}, a multiple of the processes"]
        share = completions // self.processes
        best = max(size for size in range(1, min(self.micro_batch, share) + 1) if share % size == 0)
        return [f"micro_batch: {said}; set micro_batch: {best}, a divisor of {share}"]

    @property
    def as_json(self) -> dict[str, Any]:
        """The numbers for `--json`."""
        return {
            "prompts_per_step": self.prompts_per_step,
            "group_size": self.group_size,
            "completions_per_step": self.completions_per_step,
            "completions_per_rollout": self.completions_per_rollout,
            "minibatches": self.minibatches,
            "processes": self.processes,
            "micro_batch": self.micro_batch,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
            "steps_per_generation": self.steps_per_generation,
            "tokens_per_step": self.tokens_per_step,
        }


def _next_multiple(size: int, of: int) -> int:
    return -(-size // of) * of
