"""What this machine has, as far as it can be seen without loading torch, and what a process asks of it."""

import ctypes
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from r1pipe.errors import EnvironmentUnfit

_PR_SET_PDEATHSIG = 1


def has_nvidia_gpu() -> bool:
    """Whether the NVIDIA driver shows a GPU."""
    return any(Path("/proc/driver/nvidia/gpus").glob("*"))


def gpus() -> int:
    """How many GPUs this process may use."""
    if torch := sys.modules.get("torch"):
        return int(torch.cuda.device_count())
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def node_rank() -> int:
    """Which of the machines of one run this is: `NODE_RANK`, or as Slurm counts them; the first is 0."""
    return int(os.environ.get("NODE_RANK") or os.environ.get("SLURM_NODEID") or 0)


def batch_job() -> str:
    """Which job of the batch system this is, empty for none: the machines of one run have it in common."""
    return os.environ.get("SLURM_JOB_ID", "")


def main_address() -> tuple[str, int]:
    """Where the first machine listens for the others: `MASTER_ADDR` and `MASTER_PORT`."""
    return os.environ.get("MASTER_ADDR") or socket.gethostname(), int(os.environ.get("MASTER_PORT") or 29500)


def default_jobs() -> int:
    """How many stages to run side by side unless told: two where there are cores for it, one on a GPU.

    A tree rarely has more than two stages ready at once, and each holds a model in memory.
    """
    if has_nvidia_gpu():
        return 1
    return min(cores(), 2)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device() -> str:
    """What this process computes on: the GPU's name, or `cpu`."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return str(torch.cuda.get_device_name())
    return "cpu"


def peak_rss(who: int = resource.RUSAGE_SELF) -> int:
    """Return the most memory this process ever held, in bytes; or, of `RUSAGE_CHILDREN`, one of those that
    ended."""
    kibibytes = 1024 if sys.platform == "linux" else 1  # macOS counts bytes
    return resource.getrusage(who).ru_maxrss * kibibytes


def use_threads(threads: int) -> None:
    """Set the number for the libraries already loaded, and by the environment for those still to come."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(threads)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)


@contextmanager
def full_memory_explained(ways_out: str) -> Iterator[None]:
    """Raise `EnvironmentUnfit` with the `ways_out` where torch runs out of the accelerator's memory.

    A stage's `run` is decorated with it: the memory may be full wherever a model is opened, asked or trained.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_full_memory(error):
            raise
        told = (str(error).strip().splitlines() or ["out of memory"])[0]
        raise EnvironmentUnfit(f"The accelerator's memory is full: {told} {ways_out}") from error


def is_full_memory(error: RuntimeError) -> bool:
    """Whether an error says that the accelerator's memory is full."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def print_into(log: Path) -> None:
    """Append what this process and its children print to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(descriptor, stream.fileno())
    os.close(descriptor)


def die_with_the_parent() -> None:
    """Have this process killed when the thread that started it ends; only Linux knows how."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
