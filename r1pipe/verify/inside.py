"""What runs inside the sandbox: limits first, then a program, or a program's functions, or tests of them.

The text of this module and of `channel` is handed to a bare interpreter by `sandbox`, since nothing of this
project is to be seen from inside. They import the standard library only, and of that little: every program
waits for it.
"""

import json
import os
import resource
import signal
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Final

from r1pipe.verify.channel import Lost, Peer, Trial

STARTED: Final = b"started\n"
PRELUDE: Final = "the tests' own beginning"
"""What a reason begins with that is not the program's."""
BEYOND: Final = "the tests give away an object of their own, and only data can be given"
"""A reason that is not the program's either."""
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SECCOMP_MODE_FILTER: Final = 2


def main(job: Mapping[str, Any]) -> None:
    """Do what the job says. The report's end is told that all is in place before foreign code runs."""
    limit(job["limits"])
    if job["confine"]:
        confine(bytes.fromhex(job["confine"]), job["parent"])
    os.write(job["report"], STARTED)  # fails if nobody waits any more: then nothing is to run
    _ROLES[job["role"]](job)


def limit(limits: Mapping[str, int]) -> None:
    """Lower the limits of this process by the names they have in `resource`, for good.

    One that is already as low is left: of CPU time the filter around bubblewrap's programs allows no other.
    """
    for name, value in limits.items():
        what = getattr(resource, name)
        soft, hard = resource.getrlimit(what)
        least = value if hard == resource.RLIM_INFINITY else min(value, hard)
        if (soft, hard) != (least, least):
            resource.setrlimit(what, (least, least))


def confine(filter_: bytes, parent: int) -> None:
    """What bubblewrap does before it starts a program: the filter of calls, and death with the parent.

    Raises OSError where the kernel refuses.
    """
    import ctypes  # late: bubblewrap's programs need not wait for it

    libc = ctypes.CDLL(None, use_errno=True)

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))

    program = Program(len(filter_) // 8, filter_)
    for call in (
        (_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0),
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0),
    ):
        if libc.prctl(*call):
            raise OSError(ctypes.get_errno(), f"prctl({call[0]}) is refused")
    if os.getppid() != parent:
        raise OSError("the parent is gone")


def run_program(job: Mapping[str, Any]) -> None:
    """A program as a script of its own: its stdin, its stdout, its exit code."""
    os.close(job["report"])
    main_module = sys.modules["__main__"] = ModuleType("__main__")
    sys.argv[:] = ["main.py"]
    _run(job["source"], main_module)


def _run(source: str, module: ModuleType, file: str = "main.py") -> None:
    """A source as Python runs a file: with a name, and without the mark that may be before its text."""
    module.__file__ = file
    exec(compile(source.removeprefix("\ufeff"), file, "exec"), module.__dict__)


def offer_program(job: Mapping[str, Any]) -> None:
    """A program's functions, for the tests at the other end of the channel to call."""
    os.close(job["report"])
    module = sys.modules["program"] = ModuleType("program")

    def load() -> Mapping[str, Any]:
        _run(job["source"], module, "program.py")
        return module.__dict__

    Peer(job["channel"], answers=("names", "call", "get", "set", "special"), load=load).serve()
    os._exit(0)  # at once: nothing that the program has prepared for its end is worth waiting for


def run_tests(job: Mapping[str, Any]) -> None:
    """The tests, one source after the other, in a namespace where the program's names are remote objects.

    What came of them is written to the report: `reason`, empty when all of them passed.
    """
    peer = Peer(job["channel"], answers=("call",))
    trial, reason = Trial(), ""
    namespace: dict[str, Any] = {"__name__": "tests"}
    prepared = False
    try:
        with trial:
            exec(compile(job["prelude"], "prelude.py", "exec"), namespace)
            prepared = True
            _test(peer, job, namespace)
    except Lost:
        reason = "lost"
    except SystemExit:
        reason = "test failed"
    if isinstance(trial.error, AssertionError):
        reason = "test failed"
    elif trial.error is not None:
        reason = f"raised {type(trial.error).__name__}"
    if reason and not prepared:  # nothing of the program had run yet
        reason = f"{PRELUDE} {reason}"
    elif reason and peer.refused:
        reason = BEYOND
    os.write(job["report"], json.dumps({"reason": reason}).encode() + b"\n")
    os._exit(0)  # at once: what the tests left behind is nobody's affair


def _test(peer: Peer, job: Mapping[str, Any], namespace: dict[str, Any]) -> None:
    offered = peer.request("names", job["names"])
    for name in job["names"]:
        namespace.pop(name, None)  # what a prompt begins is not what the program makes of it
        if name in offered:
            namespace[name] = peer.decode(offered[name])
    for i, source in enumerate(job["tests"], start=1):
        exec(compile(source, f"test-{i}.py", "exec"), namespace)


_ROLES: Final = {"program": run_program, "offer": offer_program, "tests": run_tests}
