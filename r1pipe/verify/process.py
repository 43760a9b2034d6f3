"""One process in its sandbox: how it is started, read, watched and ended, and what came of it."""

import contextlib
import fcntl
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from socket import socket
from typing import Any, Final, Literal

from r1pipe.verify import channel, inside
from r1pipe.verify.isolation import ENVIRONMENT, Isolation, Limits, bubblewrap
from r1pipe.verify.seccomp import program_filter

_KILL_TRIES, _KILL_SECONDS = 10, 0.05
_PIECE: Final = 1 << 16  # bytes read at once
_KEPT: Final = 1 << 16  # bytes kept of what only trusted code writes
_BOOT: Final = """
import json, sys, types
with open(int(sys.argv[1]), "rb") as file:
    job = json.load(file)
for name, text in job["modules"].items():
    sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name, "exec"), sys.modules[name].__dict__)
sys.modules["r1pipe.verify.inside"].main(job)
"""


class End(StrEnum):
    """How a process came to its end."""

    FINISHED = "finished"
    """By itself, with an exit code."""
    TIMED_OUT = "timed out"
    OUT_OF_MEMORY = "out of memory"
    TOO_MUCH_OUTPUT = "too much output"
    TOO_MANY_THREADS = "too many threads"
    TOO_MANY_FILES = "too many files"
    CRASHED = "crashed"
    """By a signal that it brought upon itself, such as a segmentation fault."""
    STOPPED = "stopped"
    """By us, since nobody needed it any more."""
    LOST = "lost"
    """The sandbox failed, or somebody outside killed it. This says nothing about the program."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of one process."""

    end: End
    exit_code: int | None = None
    """As `subprocess` has it, negative for a signal; None where it was ended from outside."""
    stdout: bytes = b""
    stderr: bytes = b""
    seconds: float = 0.0
    """Wall time since the start of its sandbox."""
    report: bytes = b""
    """What trusted code inside had to tell."""
    detail: str = ""
    """Of a loss, what is known of it."""

    @property
    def raised(self) -> str | None:
        """The name of the error that the program died of, read off the end of its stderr."""
        if self.exit_code != 1 or b"Traceback (most recent call last)" not in self.stderr:
            return None
        last = self.stderr.decode(errors="replace").rstrip().rpartition("\n")[2]
        found = re.match(r"(?:\w+\.)*(\w+)(?::|$)", last)
        return found[1] if found else None


@dataclass(frozen=True, slots=True)
class SandboxJob:
    """A process to be."""

    role: Literal["program", "offer", "tests"]
    """Which function of `inside` it runs."""
    parts: Mapping[str, Any]
    """What that function needs, JSON."""
    limits: Limits
    stdin: bytes = b""
    channel: socket | None = None
    """One end of a connected pair, which is closed here when the process has it."""


@dataclass(eq=False, slots=True)
class Stream:
    """A pipe that is read while it is being filled."""

    descriptor: int
    take: Callable[[bytes], object]

    def ready(self) -> bool:
        """Read a piece; true at the end. Raises BlockingIOError when there is none yet."""
        piece = os.read(self.descriptor, _PIECE)
        self.take(piece)
        return not piece


class Process:
    """A job on its way. Raises OSError where the machine cannot start it."""

    def __init__(self, job: SandboxJob, isolation: Isolation) -> None:
        self.verdict: End | None = None
        """Why it has to be stopped, or was."""
        self.ended = False
        self.streams: list[Stream] = []
        self._limits, self._wrapped = job.limits, isolation == "bubblewrap"
        self._out, self._err, self._report, self._status = (bytearray() for _ in range(4))
        self._begun, self._seconds = time.monotonic(), 0.0
        self._ours = contextlib.ExitStack()  # descriptors and a folder that live as long as the process
        with contextlib.ExitStack() as undo, contextlib.ExitStack() as theirs:
            undo.push(self._ours)
            self._process = self._start(job, theirs)
            undo.callback(self._process.wait)
            undo.callback(self._process.kill)
            self.handle = self._own(os.pidfd_open(self._process.pid))
            undo.pop_all()

    @property
    def started(self) -> bool:
        """Whether its limits are in place, so that its time runs."""
        return self._report.startswith(inside.STARTED)

    def ready(self) -> bool:
        """It has ended."""
        self.ended = True
        return True

    def look(self) -> None:
        """See that it keeps to those limits that the kernel does not know."""
        for pid in self._members() if self.started and not self.ended else ():
            if _threads(pid) > self._limits.threads:
                self.verdict = self.verdict or End.TOO_MANY_THREADS
            elif self._wrapped and _files(pid) > self._limits.files:
                self.verdict = self.verdict or End.TOO_MANY_FILES

    def stop(self) -> None:
        """End it if it has not ended, and give back all that it held."""
        if not self.ended:
            self.verdict = self.verdict or End.STOPPED
        self._kill()
        for stream in self.streams:
            os.set_blocking(stream.descriptor, False)
            with contextlib.suppress(BlockingIOError):
                while not stream.ready():
                    pass
        self._seconds = time.monotonic() - self._begun
        self._ours.close()

    def ran(self) -> Ran:
        """What came of it, once it was stopped."""
        code = self._exit_code()
        end, detail = self._end(code), ""
        if end is End.LOST:
            said = self._err.decode(errors="replace").strip()[-500:]
            detail = "it was killed from outside" if self.started else said or "it did not start in time"
        report = bytes(self._report).removeprefix(inside.STARTED)
        kept = None if self.verdict else code
        return Ran(end, kept, bytes(self._out), bytes(self._err), self._seconds, report, detail)

    # --- Starting

    def _start(self, job: SandboxJob, theirs: contextlib.ExitStack) -> "subprocess.Popen[bytes]":
        report = self._pipe(theirs, self._tell(self._report))
        given = [report]
        if job.channel:
            theirs.enter_context(job.channel)
            given.append(job.channel.fileno())
        command, folder = self._surroundings(given, theirs)
        task = {
            **job.parts,
            "role": job.role,
            "report": report,
            "limits": job.limits.resources,
            "confine": "" if self._wrapped else program_filter().hex(),
            "parent": os.getpid(),
            "channel": job.channel.fileno() if job.channel else None,
            "modules": _modules(),
        }
        # Python's own JSON: it also writes texts that are no Unicode, which a program may be.
        given.append(_sealed(json.dumps(task).encode(), theirs))
        return subprocess.Popen(
            [*command, sys.executable, "-sP", "-c", _BOOT, str(given[-1])],
            stdin=_sealed(job.stdin, theirs),
            stdout=self._pipe(theirs, self._hear(self._out)),
            stderr=self._pipe(theirs, self._hear(self._err)),
            pass_fds=given,
            cwd=folder,
            env={**ENVIRONMENT, "HOME": folder if folder != "/" else "/tmp"},
            start_new_session=True,
        )

    def _surroundings(self, given: list[int], theirs: contextlib.ExitStack) -> tuple[list[str], str]:
        """The command before the program's, and the folder to start in; adds to what is `given`."""
        if not self._wrapped:
            folder = tempfile.TemporaryDirectory(prefix="r1pipe-program-", ignore_cleanup_errors=True)
            return [], self._ours.enter_context(folder)
        status = self._pipe(theirs, self._tell(self._status))
        rules = _sealed(program_filter(), theirs)
        given += [status, rules]
        by_number = ["--json-status-fd", str(status), "--seccomp", str(rules), "--"]
        return [*bubblewrap(self._limits), *by_number], "/"

    def _pipe(self, theirs: contextlib.ExitStack, take: Callable[[bytes], object]) -> int:
        """A pipe that is read here; its other end."""
        reading, writing = os.pipe()
        theirs.callback(os.close, writing)
        self.streams.append(Stream(self._own(reading), take))
        return writing

    def _own(self, descriptor: int) -> int:
        self._ours.callback(os.close, descriptor)
        return descriptor

    def _hear(self, kept: bytearray) -> Callable[[bytes], object]:
        """For what the program writes: kept up to the limit, beyond which it has to stop."""

        def take(piece: bytes) -> None:
            kept.extend(piece[: self._limits.output_bytes - len(self._out) - len(self._err)])
            if len(self._out) + len(self._err) >= self._limits.output_bytes:
                self.verdict = self.verdict or End.TOO_MUCH_OUTPUT

        return take

    def _tell(self, kept: bytearray) -> Callable[[bytes], object]:
        """For what only trusted code writes."""
        return lambda piece: kept.extend(piece[: _KEPT - len(kept)])

    # --- Ending

    def _members(self) -> list[int]:
        """The process that runs the program: with bubblewrap its only child."""
        return _children(self._process.pid) if self._wrapped else [self._process.pid]

    def _kill(self) -> None:
        """Kill the program first: bubblewrap ends after it, so when that is gone, everything is."""
        for _ in range(_KILL_TRIES if self._wrapped else 0):
            for pid in self._members():
                with contextlib.suppress(ProcessLookupError):
                    handle = os.pidfd_open(pid)
                    try:
                        if pid in self._members():  # the handle is of this child, and of none with its number
                            signal.pidfd_send_signal(handle, signal.SIGKILL)
                    finally:
                        os.close(handle)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_KILL_SECONDS)
                return
        self._process.kill()
        self._process.wait()

    def _exit_code(self) -> int | None:
        """The program's exit code; None where it did not come so far."""
        if not self._wrapped:
            return self._process.returncode
        found = re.search(rb'"exit-code": (\d+)', self._status)
        code = int(found[1]) if found else None
        return code if code is None or code <= 128 else 128 - code  # a shell's custom for signals

    def _end(self, code: int | None) -> End:
        if not self.started:
            return End.LOST
        if self.verdict:
            return self.verdict
        if code is None or code == -signal.SIGKILL:
            return End.LOST
        if code < 0:
            return End.CRASHED
        died_of = Ran(End.FINISHED, code, stderr=bytes(self._err)).raised
        return End.OUT_OF_MEMORY if died_of == "MemoryError" else End.FINISHED


@cache
def _modules() -> dict[str, str]:
    """The source of what runs inside, by name, in the order in which it is to be loaded."""
    packages = {"r1pipe": "", "r1pipe.verify": ""}
    return packages | {module.__name__: inspect.getsource(module) for module in (channel, inside)}


def _sealed(content: bytes, theirs: contextlib.ExitStack) -> int:
    """A file in memory that can be read once and changed by nobody."""
    descriptor = os.memfd_create("r1pipe", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    theirs.callback(os.close, descriptor)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _threads(pid: int) -> int:
    try:  # as bytes: a program may give itself a name that is no text
        found = re.search(rb"^Threads:\s*(\d+)", Path(f"/proc/{pid}/status").read_bytes(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0


def _files(pid: int) -> int:
    """How many files there are in the /tmp that a process sees."""
    try:
        found = os.statvfs(f"/proc/{pid}/root/tmp")
    except OSError:
        return 0
    return found.f_files - found.f_ffree
