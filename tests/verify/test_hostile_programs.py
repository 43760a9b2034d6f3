"""Every hostile program has its verdict in time, gets nothing that it wants, and leaves nothing behind."""

import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from r1pipe.verify.isolation import ISOLATIONS, Isolation, Limits
from r1pipe.verify.process import End, Ran
from r1pipe.verify.programs import FunctionTests, judge_program
from r1pipe.verify.sandbox import check_sandbox, run_python
from r1pipe.verify.verdict import Mark, Verdict
from tests.verify.hostile_programs import CHEATS, SCRIPTS, SQUARES, cheat, honest, script

LIMITS = Limits(seconds=0.5, memory_mb=256, files_mb=16)
LONGER = replace(LIMITS, seconds=30.0)
ENDLESS = {
    "nothing more to say", "questions instead of answers", "an endless call", "an endless beginning",
    "an error whose text is endless",
}  # fmt: skip
"""Cheats that nothing but a deadline ends; the others end by themselves, on a busy machine too."""
BUSY = 8.0
"""Seconds that a busy machine may add to a deadline; the promise is one."""

PROMISED_BY_LIMITS = [
    "fork bomb", "fork by the system call", "fork by the other ABI", "a shell", "a spawned process",
    "multiprocessing", "another program in its place", "a daemon", "thread bomb", "bomb of small threads",
    "a great bytearray", "memory by and by", "memory whatever it costs", "mapped memory", "files in memory",
    "System V memory", "a great file", "recursion without end", "an endless loop", "a deaf loop",
    "a thread that stays", "an exit that hangs", "waiting for input", "output without end",
    "errors without end", "closed and asleep", "its environment", "our server", "a server of its own",
    "kill the parent", "stop the parent", "outlive the parent", "say that it was killed",
    "a name that is no text", "kill itself at the end of its time", "a shell that ends its own time",
    "kill itself by the call", "kill itself by a file", "kill itself by a timer",
]  # fmt: skip
"""What accidents are made of; reading and writing what the user can is not among it."""


@dataclass
class World:
    """What a program might want to reach, and what there was before any of them ran."""

    canary: Path
    secret: str
    port: int = 0
    connections: list[str] = field(default_factory=list)
    results: dict[tuple[str, Isolation], Ran] = field(default_factory=dict)
    began: float = field(default_factory=time.time)
    before: set[str] = field(default_factory=lambda: leftovers(0.0))

    def run(self, name: str, isolation: Isolation, limits: Limits = LIMITS) -> Ran:
        """What comes of one script."""
        folders = {sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parent.parent)}
        text = script(
            name,
            CANARY=self.canary,
            HOME=Path.home(),
            PORT=self.port,
            PARENT=os.getpid(),
            INTERPRETER=folders,
        )
        return run_python(text, limits=limits, isolation=isolation)


def leftovers(began: float) -> set[str]:
    """Processes of ours or of the sandbox's, and folders of programs."""
    found = {f"process {child.pid}" for child in psutil.Process().children(recursive=True)}
    for process in psutil.process_iter(["ppid", "cmdline", "create_time"]):
        orphan = process.info["ppid"] == 1 and process.info["create_time"] >= began
        if orphan and "r1pipe.verify.inside" in " ".join(process.info["cmdline"] or ()):
            found.add(f"process {process.pid}")
    return found | set(map(str, Path(tempfile.gettempdir()).iterdir()))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A canary in the home folder, a secret in the environment, a server; all scripts run, two at a time."""
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    for isolation in ISOLATIONS:
        check_sandbox(isolation)
    before, tempfile.tempdir = tempfile.tempdir, str(tmp_path_factory.mktemp("programs"))
    secret = uuid4().hex
    os.environ["R1PIPE_TEST_SECRET"] = secret
    descriptor, path = tempfile.mkstemp(prefix=".r1pipe-canary-", dir=Path.home())
    os.write(descriptor, secret.encode())
    os.close(descriptor)
    world = World(Path(path), secret)
    server = socket.create_server(("127.0.0.1", 0))
    world.port = server.getsockname()[1]
    threading.Thread(target=_accept, args=(server, world.connections), daemon=True).start()
    cases: list[tuple[str, Isolation]] = [(name, "bubblewrap") for name in SCRIPTS]
    cases += [(name, "limits-only") for name in PROMISED_BY_LIMITS]
    try:
        with ThreadPoolExecutor(2) as threads:
            found = threads.map(lambda case: world.run(*case), cases)
            world.results.update(zip(cases, found, strict=True))
        yield world
    finally:
        server.close()
        tempfile.tempdir = before
        world.canary.unlink(missing_ok=True)
        os.environ.pop("R1PIPE_TEST_SECRET")


def _accept(server: socket.socket, seen: list[str]) -> None:
    while True:
        try:
            connection, address = server.accept()
        except OSError:  # the server is closed
            return
        seen.append(str(address))
        connection.close()


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_hostile_program_gets_nothing(world: World, name: str) -> None:
    """It ends in time, says nothing that it should not know, and cannot pass for a failure of
    the sandbox, which would be no verdict."""
    ran = world.results[name, "bubblewrap"]
    assert ran.end not in (End.LOST, End.STOPPED), ran
    assert ran.seconds < LIMITS.seconds + 1 + BUSY
    said = (ran.stdout + ran.stderr).decode(errors="replace")
    printed = ran.stdout.decode(errors="replace")
    assert "REACHED" not in printed and world.secret not in said
    assert len(ran.stdout) + len(ran.stderr) <= LIMITS.output_bytes


@pytest.mark.parametrize("name", PROMISED_BY_LIMITS)
def test_what_limits_alone_promise(world: World, name: str) -> None:
    """One process with bounded time, memory and output, an environment of constants, and no socket."""
    ran = world.results[name, "limits-only"]
    assert ran.end not in (End.LOST, End.STOPPED), ran
    assert ran.seconds < LIMITS.seconds + 1 + BUSY
    assert b"REACHED" not in ran.stdout and world.secret.encode() not in ran.stdout + ran.stderr
    assert len(ran.stdout) + len(ran.stderr) <= LIMITS.output_bytes


@pytest.mark.parametrize("name", ["an endless loop", "a deaf loop", "fork bomb", "closed and asleep"])
def test_what_does_not_end_is_timed_out(world: World, name: str) -> None:
    """In both modes."""
    for isolation in ISOLATIONS:
        assert world.results[name, isolation].end is End.TIMED_OUT


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("memory by and by", End.OUT_OF_MEMORY),
        ("output without end", End.TOO_MUCH_OUTPUT),
        ("errors without end", End.TOO_MUCH_OUTPUT),
        ("bomb of small threads", End.TOO_MANY_THREADS),
        ("a million files", End.TOO_MANY_FILES),
        ("a segmentation fault", End.CRASHED),
        ("say that it was killed", End.CRASHED),
        ("a flood and an exit", End.FINISHED),
    ],
)
def test_ends_are_told_apart(world: World, name: str, end: End) -> None:
    """The way a program ended is known, and long before its deadline."""
    assert world.run(name, "bubblewrap", LONGER).end is end


def test_nothing_is_left(world: World) -> None:
    """No process, no folder; the canary is what it was; nobody called the server."""
    ends = time.monotonic() + 10  # the kernel takes a moment to clear a large process away
    while (left := leftovers(world.began) - world.before) and time.monotonic() < ends:
        time.sleep(0.1)
    assert left == set()
    assert world.canary.read_text() == world.secret
    assert world.connections == []


@pytest.fixture(scope="module")
def verdicts() -> dict[str, Verdict]:
    """The verdict on every cheat, two at a time."""
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    with ThreadPoolExecutor(2) as threads:
        return dict(zip(CHEATS, threads.map(_verdict, CHEATS), strict=True))


def _verdict(name: str) -> Verdict:
    program, tests = cheat(name)
    return judge_program(program, FunctionTests(["f"], tests), limits=LIMITS if name in ENDLESS else LONGER)


@pytest.mark.parametrize("name", CHEATS)
def test_a_cheat_fails(verdicts: dict[str, Verdict], name: str) -> None:
    """It does not pass, and it is decided: nobody escapes a verdict by breaking what judges."""
    assert verdicts[name].mark is Mark.FAIL, verdicts[name]
    assert verdicts[name].reason


def test_reasons_can_be_counted(verdicts: dict[str, Verdict]) -> None:
    """A reason is one of a few words, and the same for the same deed."""
    expected = {
        "exit": "ended early",
        "exit at once in a call": "ended early",
        "equal to everything": "test failed",
        "an endless call": "timed out",
        "an endless beginning": "timed out",
        "an answer that fills the memory": "out of memory",
        "an answer that holds itself": "raised RecursionError",
        "output without end in a call": "too much output",
        "no program": "raised SyntaxError",
        "no function": "raised NameError",
        "only the first": "test failed",
    }
    assert {name: verdicts[name].reason for name in expected} == expected


def test_the_honest_program_passes() -> None:
    """The tests that the cheats fail can be passed."""
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    assert judge_program(honest(), FunctionTests(["f"], SQUARES), limits=LONGER).passed
