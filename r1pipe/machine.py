"""What this machine has, as far as it can be seen without loading torch."""

import os
from pathlib import Path


def has_nvidia_gpu() -> bool:
    """Whether the NVIDIA driver shows a GPU."""
    return any(Path("/proc/driver/nvidia/gpus").glob("*"))


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
