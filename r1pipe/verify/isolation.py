"""What surrounds a program: its limits, its environment, and what bubblewrap lets it see."""

import math
import os
import resource
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal, get_args

from r1pipe.errors import EnvironmentUnfit

Isolation = Literal["bubblewrap", "limits-only"]
ISOLATIONS: Final[tuple[Isolation, ...]] = get_args(Isolation)
"""`bubblewrap`: nothing to reach and nothing to leave behind. `limits-only`: no protection from ill will."""

ENVIRONMENT: Final = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # the same program has the same verdict every time, also where sets have an order
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",  # each thread would take 64 MiB of address space for itself
}
"""All of a program's environment; nothing of ours is in it."""

_NOBODY: Final = "65534"
_OPEN_FILES: Final = 64
_SYSTEM: Final = ("/usr", "/bin", "/lib", "/lib32", "/lib64", "/sbin", "/nix/store")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one process may use."""

    seconds: float = 6.0
    """Wall time."""
    memory_mb: int = 512
    """Address space, MiB."""
    output_bytes: int = 1 << 20
    """What it may write to stdout and stderr together."""
    files_mb: int = 16
    """Size of one file, and with bubblewrap of all files together, MiB."""
    threads: int = 64
    files: int = 1000
    """Files that bubblewrap keeps in memory: each takes a kilobyte that no size counts."""

    @property
    def resources(self) -> dict[str, int]:
        """The kernel's part of the limits, by the names in `resource`.

        Of CPU time there is as much as all cores give until the deadline, and some more: it ends what nobody
        is left to end, and never what is in time.
        """
        return {
            "RLIMIT_AS": self.memory_mb << 20,
            "RLIMIT_CPU": (math.ceil(self.seconds) + 5) * (os.cpu_count() or 1),
            "RLIMIT_FSIZE": self.files_mb << 20,
            "RLIMIT_NOFILE": _OPEN_FILES,
            "RLIMIT_CORE": 0,
            "RLIMIT_MEMLOCK": 0,
            "RLIMIT_MSGQUEUE": 0,
        }


def bubblewrap(limits: Limits) -> list[str]:
    """The command that a program's own command follows, after what is given by descriptor and `--`.

    The interpreter's folders, with the libraries that are installed there, and /usr can be read; /tmp can be
    written, up to `files_mb`; nothing else of the disk is there.

    Raises:
        EnvironmentUnfit: bubblewrap is not installed, or the interpreter lies where too much would be seen.
    """
    program = shutil.which("bwrap")
    if program is None:
        raise EnvironmentUnfit(
            "Programs that a model writes are run in bubblewrap, and there is no bwrap here. Install it: "
            "apt install bubblewrap, dnf install bubblewrap, or pacman -S bubblewrap. The isolation "
            "limits-only does without, and does not protect this machine from a program with ill will."
        )
    # Before bubblewrap, as its filter refuses a limit of CPU time: a program could kill itself by one.
    seconds = limits.resources["RLIMIT_CPU"]
    most = resource.getrlimit(resource.RLIMIT_CPU)[1]
    seconds = seconds if most == resource.RLIM_INFINITY else min(seconds, most)
    return [
        *("/bin/sh", "-c", f'ulimit -t {seconds} && exec "$@"', "sh", program),
        *("--unshare-all", "--unshare-user", "--uid", _NOBODY, "--gid", _NOBODY, "--hostname", "sandbox"),
        *("--cap-drop", "ALL", "--new-session", "--die-with-parent", "--as-pid-1"),
        *("--proc", "/proc", "--size", str(limits.files_mb << 20), "--tmpfs", "/tmp"),
        *_readable(),
        # Without these /proc and the root, which lies in memory, could be written.
        *("--remount-ro", "/proc", "--remount-ro", "/", "--chdir", "/tmp"),
    ]


@cache
def _readable() -> tuple[str, ...]:
    """The arguments that show the interpreter and the system's libraries."""
    found = ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for device in ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"):
        found += ["--dev-bind", device, device]
    for number, stream in enumerate(("stdin", "stdout", "stderr")):
        found += ["--symlink", f"/proc/self/fd/{number}", f"/dev/{stream}"]
    for folder in map(Path, _SYSTEM):
        if folder.is_symlink():
            found += ["--symlink", os.readlink(folder), str(folder)]
        elif folder.is_dir():
            found += ["--ro-bind", str(folder), str(folder)]
    for folder in _interpreter():
        found += ["--ro-bind", str(folder), str(folder)]
    return tuple(found)


def _interpreter() -> Iterator[Path]:
    """The folders that this interpreter needs besides /usr, each of them once."""
    real = Path(sys.executable).resolve().parent.parent
    shown = list(map(Path, _SYSTEM))
    for folder in sorted({Path(sys.prefix), Path(sys.base_prefix), real}):
        if any(folder.is_relative_to(each) for each in shown):
            continue
        if Path.home().is_relative_to(folder):
            raise EnvironmentUnfit(
                f"This Python is installed in {folder}, where the home folder {Path.home()} lies too, and a "
                "program in the sandbox would see both. Use a virtual environment with a Python of its own."
            )
        shown.append(folder)
        yield folder
