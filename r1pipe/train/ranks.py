"""What the ranks of one training agree on. With one process every function is free and says what it is told.

All of these are collective: every rank calls them, in the same order.
"""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, broadcast, gather
from torch import distributed
from torch.distributed.fsdp import FSDPModule

from r1pipe.errors import RunFailed

if TYPE_CHECKING:
    from transformers import Trainer


def meet(on_gpu: bool, wait_minutes: float) -> None:
    """Form the group of all ranks, by gloo on a CPU and nccl on GPUs; none waits longer for another."""
    PartialState(cpu=not on_gpu, timeout=timedelta(minutes=wait_minutes))
    if not on_gpu and os.environ.get("ACCELERATE_USE_FSDP") == "true":
        # accelerate shards on accelerators alone, and would take DDP on a CPU without a word. Nothing of
        # FSDP2 itself needs a GPU, and tests are to run the path that GPUs take.
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


@contextmanager
def patience(wait_minutes: float) -> Iterator[None]:
    """Say what it means that a collective inside gave up. (nccl says nothing: it ends the process.)"""
    try:
        yield
    except RuntimeError as error:
        if "Timed out waiting" not in str(error):  # gloo's words
            raise
        raise RunFailed(
            f"A process waited {wait_minutes:g} minutes for another one, and gave up. The other ranks' logs "
            "may say what held that one up. If it was only slow, over a long rollout or its judging, set "
            "`wait_minutes` higher."
        ) from error


def several() -> bool:
    """Whether this process is one of several ranks."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def first() -> bool:
    """Whether this process is the first rank, or the only one."""
    return not several() or distributed.get_rank() == 0


def barrier() -> None:
    """Wait until every rank is here."""
    if several():
        distributed.barrier()


def count() -> int:
    """How many ranks there are."""
    return distributed.get_world_size() if several() else 1


def agreed(flag: bool) -> bool:
    """The first rank's flag, in all of them."""
    if not several():
        return flag
    return bool(broadcast(torch.tensor(int(flag), device=PartialState().device)).item())


def total(number: int) -> int:
    """The sum over the ranks."""
    if not several():
        return number
    return int(gather(torch.tensor(number, device=PartialState().device)).sum().item())


def each(numbers: Sequence[float]) -> list[list[float]]:
    """The numbers of every rank, in the order of the ranks."""
    if not several():
        return [list(numbers)]
    here = torch.tensor([numbers], dtype=torch.float32, device=PartialState().device)
    told: list[list[float]] = gather(here).tolist()
    return told


def worst(number: float) -> float:
    """The number, or in all ranks one that is not finite if any has such a one."""
    told = (of_rank[0] for of_rank in each([number]))
    return next((other for other in told if not math.isfinite(other)), number)


def leave_to_first() -> None:
    """Let the first rank fail, with all it has to write before: the others wait until its end is theirs.

    Whoever launched them ends them once the first has failed. On another machine its end breaks the barrier.
    """
    if not first():
        with suppress(RuntimeError):
            barrier()


@contextmanager
def ragged(accelerator: Accelerator) -> Iterator[None]:
    """Let ranks gather tensors of unequal length: what is missing is NaN, which TRL's extremes ignore."""
    plain = accelerator.gather

    def gather_padded(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dim():
            tensor = accelerator.pad_across_processes(tensor, pad_index=torch.nan)
        return plain(tensor)

    accelerator.gather = gather_padded if several() else plain
    try:
        yield
    finally:
        accelerator.gather = plain


def whole_weights(trainer: "Trainer") -> dict[str, torch.Tensor] | None:
    """Weights gathered from all ranks, on the CPU of the first; None where each rank's model holds them."""
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    return trainer.accelerator.get_state_dict(trainer.model_wrapped) if sharded else None


@contextmanager
def gathered(model: torch.nn.Module) -> Iterator[None]:
    """Hold all weights of a sharded model, so that a forward pass inside waits for no other rank.

    Ranks sample for different numbers of steps; a gathering in each would wait for one that never comes.
    """
    shards = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for shard in shards:
        shard.set_reshard_after_forward(False, recurse=False)
        shard.unshard()
    try:
        yield
    finally:
        for shard in shards:
            shard.set_reshard_after_forward(True, recurse=False)
            shard.reshard()
