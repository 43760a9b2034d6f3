"""Programs that a model wrote, each in a fresh process that can reach nothing and is gone afterwards.

With bubblewrap a program has namespaces of its own for users, processes, network, IPC and host name. It sees
the interpreter with its libraries, read-only, an empty /tmp in memory, and an environment of a few constants.
A filter of system calls keeps it a single process (`seccomp`). `limits-only` is for machines without
bubblewrap and protects from accidents: the same limits and the same filter, but the program can read what the
user can read and write where the user can write.

Memory is bounded as a whole: one process, whose address space is limited, with a /tmp of limited size. Output
is read while it comes, and no further than its limit. A program's time starts when everything around it is in
place, so a busy machine takes nothing of it; what fails until then is the sandbox's failure. Programs die
with this process, even if that is killed.
"""

import platform
import selectors
import time
from collections.abc import Sequence
from functools import cache
from typing import Final

from r1pipe.errors import EnvironmentUnfit
from r1pipe.verify.isolation import Isolation, Limits
from r1pipe.verify.process import End, Process, Ran, SandboxJob

START_SECONDS: Final = 60.0
"""For a sandbox to be set up; it takes 30 ms, and on a busy machine it has taken seconds."""
_GRACE: Final = 0.2  # seconds for the other processes to end by themselves after the first
_LOOK_EVERY: Final = 0.1  # seconds between two looks at the number of threads
_PROBE: Final = """
import os
try:
    os.fork()
except PermissionError:
    print(6 * int(input()))
"""
_NO_SANDBOX: Final = {
    "bubblewrap": "User namespaces must be allowed: in docker by --security-opt seccomp=unconfined, on "
    "Ubuntu by sysctl kernel.apparmor_restrict_unprivileged_userns=0; and bubblewrap has to be 0.7 or newer. "
    "The isolation limits-only does without, and does not protect this machine from a program with ill will.",
    "limits-only": "It needs Linux 5.3 or newer with seccomp; judge code on another machine.",
}


def run_python(
    source: str, *, stdin: bytes = b"", limits: Limits | None = None, isolation: Isolation = "bubblewrap"
) -> Ran:
    """Run a program as a script of its own. May be called from any thread.

    Raises:
        EnvironmentUnfit: the sandbox does not work on this machine.
    """
    check_sandbox(isolation)
    return run_jobs([SandboxJob("program", {"source": source}, limits or Limits(), stdin)], isolation)[0]


@cache
def check_sandbox(isolation: Isolation) -> None:
    """Make sure, once in a process, that a program can be run, and cannot start another one.

    Raises:
        EnvironmentUnfit: it cannot; the message says what to install or to change.
    """
    if platform.system() != "Linux":
        raise EnvironmentUnfit("Programs can be run on Linux only; judge code there, or in a container.")
    job = SandboxJob("program", {"source": _PROBE}, Limits(seconds=START_SECONDS), b"7\n")
    (ran,) = run_jobs([job], isolation)
    if (ran.end, ran.stdout) != (End.FINISHED, b"42\n"):
        said = (ran.detail or ran.stderr.decode(errors="replace")).strip() or str(ran.end)
        raise EnvironmentUnfit(f"The sandbox ({isolation}) does not work: {said}. {_NO_SANDBOX[isolation]}")


def run_jobs(jobs: Sequence[SandboxJob], isolation: Isolation) -> list[Ran]:
    """Run processes side by side until that of the first job has ended; then the others have to end too.

    Their time is that of the first job's limits, and starts when all of them have started.

    Raises:
        EnvironmentUnfit: bubblewrap is asked for and not installed, or this machine is of an unknown kind.
    """
    processes: list[Process] = []
    try:
        for job in jobs:
            processes.append(Process(job, isolation))
        _attend(processes, jobs[0].limits.seconds)
    except OSError as error:  # this machine has no process, memory or descriptor left for it
        return [Ran(End.LOST, detail=str(error)) for _ in jobs]
    finally:
        for process in processes:
            process.stop()
    return [process.ran() for process in processes]


def _attend(processes: Sequence[Process], seconds: float) -> None:
    """Read what they write until all have ended, one has gone too far, or the time is up."""
    first, ends = processes[0], time.monotonic() + START_SECONDS
    running = closing = False
    with selectors.DefaultSelector() as selector:
        for process in processes:
            selector.register(process.handle, selectors.EVENT_READ, process)
            for stream in process.streams:
                selector.register(stream.descriptor, selectors.EVENT_READ, stream)
        while not all(process.ended for process in processes):
            left = ends - time.monotonic()
            if left <= 0:
                first.verdict = None if first.ended else End.TIMED_OUT
                return
            for key, _ in selector.select(min(left, _LOOK_EVERY)):
                if key.data.ready():
                    selector.unregister(key.fileobj)
            for process in processes:
                process.look()
            if any(process.verdict for process in processes):
                return
            if first.ended and not closing:
                ends, closing = time.monotonic() + _GRACE, True
            elif not running and not closing and all(process.started for process in processes):
                ends, running = time.monotonic() + seconds, True
