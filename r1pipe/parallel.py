"""Training on several processes: what a recipe says of it, and what it needs of a machine.

Everything that a recipe counts (`batch_size`, `prompts_per_step`, `steps`) is of all processes together, so a
recipe means the same training on one GPU and on eight.
"""

from importlib.util import find_spec
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from r1pipe import machine
from r1pipe.recipe import Recipe
from r1pipe.stage import NEUTRAL, StageConfig

Parallel = Literal["ddp", "fsdp2", "zero2", "zero3"]
"""Names of the accelerate configs in recipes/accelerate/."""


class ParallelConfig(StageConfig):
    """What every stage that trains on several processes reads from a recipe."""

    # Neutral, like the machine: the batches are the same and sums are rounded in another order. A training
    # that was stopped goes on with another number, and a finished one is no reason to train again.
    processes: Annotated[int, Field(ge=1), NEUTRAL] = 1
    """Processes that share each step's batch: one for each GPU, or one for each core of a CPU."""
    nodes: Annotated[int, Field(ge=1), NEUTRAL] = 1
    """Machines that the processes are spread over evenly; see recipes/slurm/r1pipe.sbatch."""
    parallel: Parallel = "ddp"
    """What a process holds: `ddp` all, `fsdp2` its part of weights, gradients and optimiser; `zero2` and
    `zero3` the same by DeepSpeed, which is installed apart (`pip install deepspeed`)."""

    wait_minutes: Annotated[float, Field(gt=0), NEUTRAL] = 180
    """Minutes that a process waits for the others before it gives up. One may take much longer over its share
    of a rollout, or of the judging; that one has died is noticed at once."""

    @property
    def spread(self) -> bool:
        """Whether ranks of their own are launched. One sharded process is, as its checkpoints differ."""
        return self.processes > 1 or self.parallel != "ddp"

    @model_validator(mode="after")
    def _nodes_divide(self) -> Self:
        if self.processes % self.nodes:
            raise ValueError(
                f"processes = {self.processes} cannot be spread evenly over nodes = {self.nodes}; "
                f"choose a multiple of {self.nodes}"
            )
        return self


def everywhere(recipe: Recipe, gpus: int | None, nodes: int | None) -> list[str]:
    """The overrides that make every training of a recipe use so many GPUs on each of so many machines.

    With machines alone, each has as many processes as this one has GPUs.
    """
    if gpus is None and nodes is None:
        return []
    nodes = nodes or 1
    processes = nodes * (gpus or machine.gpus() or 1)
    return [
        f"stages.{name}.{field}"
        for name, spec in recipe.stages.items()
        if isinstance(spec.config, ParallelConfig)
        for field in (f"processes={processes}", f"nodes={nodes}")
    ]


def lacking(parallel: Parallel, processes: int) -> list[str]:
    """What this machine lacks for so many processes on it, one sentence each, beginning with the key."""
    found = []
    gpus = machine.gpus()
    if parallel.startswith("zero"):
        if find_spec("deepspeed") is None:
            found.append(
                f"parallel: {parallel} needs DeepSpeed, which is not installed; `pip install deepspeed`, or "
                "choose `fsdp2`, which shards the same and needs nothing more"
            )
        elif not gpus:
            found.append(f"parallel: {parallel} needs GPUs, and this machine shows none; choose `ddp`")
    if 0 < gpus < processes:
        found.append(
            f"processes: {processes} on one machine need as many GPUs, and this one shows {gpus}; "
            "lower `processes`, or spread them over several `nodes`"
        )
    return found
