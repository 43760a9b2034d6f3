"""Programs in the sandbox: what they get, what they do not, and whose fault an end is."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from r1pipe.errors import EnvironmentUnfit
from r1pipe.verify import isolation as isolations
from r1pipe.verify import process, sandbox
from r1pipe.verify.isolation import ISOLATIONS, Isolation, Limits, bubblewrap
from r1pipe.verify.process import End, Ran, SandboxJob
from r1pipe.verify.sandbox import check_sandbox, run_jobs, run_python

ROOT = Path(__file__).parents[2]
SHORT = Limits(seconds=0.7, memory_mb=256)
SLEEPER = "import ctypes, time; ctypes.CDLL(None).prctl(15, b'sleeper'); time.sleep(60)"


@pytest.fixture(params=ISOLATIONS)
def isolation(request: pytest.FixtureRequest) -> Isolation:
    """Both, where both are there."""
    if request.param == "bubblewrap" and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    found: Isolation = request.param
    return found


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Nothing is known of the machine, neither before nor afterwards."""
    for cached in (check_sandbox, isolations._readable):
        cached.cache_clear()
    yield
    for cached in (check_sandbox, isolations._readable):
        cached.cache_clear()


def _fake_bwrap(folder: Path, text: str) -> None:
    (folder / "bwrap").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "bwrap").chmod(0o755)


def test_a_program_is_a_script(isolation: Isolation) -> None:
    """It reads its stdin, writes its outputs, has an exit code, and is `__main__`."""
    ran = run_python(
        "import sys\nprint(__name__, input())\nprint('odd', file=sys.stderr)\nsys.exit(3)",
        stdin=b"hello\n",
        isolation=isolation,
    )
    assert (ran.end, ran.exit_code) == (End.FINISHED, 3)
    assert (ran.stdout, ran.stderr) == (b"__main__ hello\n", b"odd\n")
    assert ran.raised is None
    assert 0 < ran.seconds < 60


@pytest.mark.parametrize(
    ("source", "end", "code", "raised"),
    [
        ("pass", End.FINISHED, 0, None),
        ("import json\njson.loads('')", End.FINISHED, 1, "JSONDecodeError"),
        ("class Odd(Exception): pass\nraise Odd", End.FINISHED, 1, "Odd"),
        ("x =", End.FINISHED, 1, "SyntaxError"),
        ("bytearray(1 << 40)", End.OUT_OF_MEMORY, 1, "MemoryError"),
        ("raise SystemExit(255)", None, None, None),
        ("import ctypes; ctypes.string_at(0)", End.CRASHED, -signal.SIGSEGV, None),
        ("while True: pass", End.TIMED_OUT, None, None),
        ("while True: print('x' * 99)", End.TOO_MUCH_OUTPUT, None, None),
    ],
)
def test_ends(
    isolation: Isolation, source: str, end: End | None, code: int | None, raised: str | None
) -> None:
    """Each way to end is told apart."""
    limits = SHORT if end is End.TIMED_OUT else Limits(seconds=20, memory_mb=256)
    ran = run_python(source, limits=limits, isolation=isolation)
    assert ran.raised == raised
    if end is None:  # by a shell's custom bubblewrap tells signals by a code above 128
        assert ran.end in (End.FINISHED, End.CRASHED)
    else:
        assert (ran.end, ran.exit_code) == (end, code)


def test_what_scripts_take_for_granted(isolation: Isolation) -> None:
    """The streams by their names, a file's name, a mark before the text, a stack of another size."""
    source = """\ufeff
import os, resource
resource.setrlimit(resource.RLIMIT_STACK, (1 << 22, 1 << 22))
print(open("/dev/stdin").read(), os.path.basename(__file__), resource.getrlimit(resource.RLIMIT_CPU)[0] > 0)
"""
    ran = run_python(source, stdin=b"hello", isolation=isolation)
    assert ran.stdout == b"hello main.py True\n", ran


def test_large_input_and_output(isolation: Isolation) -> None:
    """Megabytes go in and come out without a deadlock; what is beyond the limit is cut and ends it."""
    text = b"0123456789" * 300_000
    limits = Limits(seconds=20, output_bytes=4_000_000)
    echo = "import sys; sys.stdout.write(sys.stdin.read())"
    ran = run_python(echo, stdin=text, limits=limits, isolation=isolation)
    assert ran.end is End.FINISHED
    assert ran.stdout == text
    echo += "\nsys.stderr.write('x' * 2_000_000)"
    ran = run_python(echo, stdin=text, limits=limits, isolation=isolation)
    assert ran.end is End.TOO_MUCH_OUTPUT
    assert len(ran.stdout) + len(ran.stderr) == 4_000_000


def test_threads_and_files_work(isolation: Isolation) -> None:
    """What an honest program may do: threads, event loops, files in its own folder, the libraries."""
    source = """
import asyncio, os, threading
seen = []
for i in range(8):
    thread = threading.Thread(target=seen.append, args=(i,)); thread.start(); thread.join()
async def main():
    await asyncio.sleep(0)
    return len(seen)
with open("note.txt", "w") as file:
    file.write(str(asyncio.run(main())))
print(open("note.txt").read(), os.path.expanduser("~") == os.getcwd(), "note.txt" in os.listdir("."))
"""
    ran = run_python(source, isolation=isolation)
    assert ran.stdout == b"8 True True\n", ran


def test_as_many_threads_as_are_promised(isolation: Isolation) -> None:
    """Their stacks are all that they take of the memory."""
    source = """
import threading
done = threading.Event()
threads = [threading.Thread(target=done.wait) for _ in range(50)]
for thread in threads:
    thread.start()
done.set()
print(len(threads))
"""
    assert run_python(source, isolation=isolation).stdout == b"50\n"


def test_the_same_every_time(isolation: Isolation) -> None:
    """The order of a set does not change from one run to the next."""
    source = "print({str(i) for i in range(50)})"
    assert len({run_python(source, isolation=isolation).stdout for _ in range(3)}) == 1


def test_many_at_once_from_any_thread(isolation: Isolation) -> None:
    """Each gets its own answer."""
    with ThreadPoolExecutor(8) as threads:
        ran = list(threads.map(lambda i: run_python(f"print({i} ** 2)", isolation=isolation), range(24)))
    assert [each.stdout for each in ran] == [b"%d\n" % i**2 for i in range(24)]


def test_nothing_is_kept(isolation: Isolation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither descriptors nor folders nor processes, also of those that were stopped."""
    check_sandbox(isolation)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = set(os.listdir("/proc/self/fd")), set(psutil.Process().children())
    for source in ("pass", "while True: pass", "open('a', 'w').write('b' * 1000)"):
        run_python(source, limits=Limits(seconds=0.3), isolation=isolation)
    assert (set(os.listdir("/proc/self/fd")), set(psutil.Process().children())) == before
    assert list(tmp_path.iterdir()) == []


def test_it_dies_with_us(isolation: Isolation, tmp_path: Path) -> None:
    """Also when this process is killed and can do nothing about it."""
    code = f"from r1pipe.verify.sandbox import *; run_python({SLEEPER!r}, isolation={isolation!r})"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment)
    try:
        _sleeper(parent.pid)
        family = psutil.Process(parent.pid).children(recursive=True)
    finally:
        parent.kill()
        parent.wait()
    _, alive = psutil.wait_procs(family, timeout=30)
    assert alive == []


def _sleeper(pid: int) -> psutil.Process:
    """The process among the descendants of `pid` that runs SLEEPER, once it does."""
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        for each in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if each.name() == "sleeper":
                    return each
        time.sleep(0.05)
    raise AssertionError("it did not start")


def test_without_bubblewrap(unchecked: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It refuses, and says what to install and what else there is; the weaker way is asked for by name."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentUnfit) as refused:
        run_python("print(1)")
    for words in ("apt install bubblewrap", "dnf install bubblewrap", "pacman -S bubblewrap", "limits-only"):
        assert words in str(refused.value)
    assert refused.value.exit_code == 4
    assert run_python("print(1)", isolation="limits-only").stdout == b"1\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo 'bwrap: No permissions to create new namespace' >&2; exit 1", "No permissions to create"),
        ("exit 0", "it did not start"),
    ],
)
def test_bubblewrap_that_does_not_work(
    unchecked: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, said: str
) -> None:
    """It is tried once before it is trusted, and its own words are passed on with what can be done."""
    _fake_bwrap(tmp_path, text)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(EnvironmentUnfit, match=said) as refused:
        check_sandbox("bubblewrap")
    assert "User namespaces must be allowed" in str(refused.value)


def test_a_sandbox_that_isolates_nothing(
    unchecked: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One that starts the program without the filter is found out by the first program."""
    _fake_bwrap(tmp_path, 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(EnvironmentUnfit):
        check_sandbox("bubblewrap")


def test_another_system(unchecked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere than on Linux nothing is run."""
    monkeypatch.setattr(sandbox.platform, "system", lambda: "Darwin")
    with pytest.raises(EnvironmentUnfit, match="Linux only"):
        run_python("print(1)", isolation="limits-only")


def test_python_in_the_home_folder(unchecked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter whose folder would show the home folder is refused."""
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    monkeypatch.setattr(sys, "prefix", "/somewhere")
    monkeypatch.setattr(Path, "home", lambda: Path("/somewhere/people/me"))
    with pytest.raises(EnvironmentUnfit, match="installed in /somewhere, where the home folder"):
        bubblewrap(Limits())


def test_a_loss_is_not_the_programs(
    isolation: Isolation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A sandbox that worked and does not any more: lost, and said why."""
    check_sandbox(isolation)
    monkeypatch.setattr(process.sys, "executable", str(tmp_path / "missing"))
    ran = run_python("print(1)", isolation=isolation)
    assert (ran.end, ran.exit_code) == (End.LOST, None)
    assert "missing" in ran.detail


def test_a_machine_without_room(isolation: Isolation, monkeypatch: pytest.MonkeyPatch) -> None:
    """No descriptor left in the middle of a start: lost, and what was started is gone."""
    check_sandbox(isolation)

    def refuse(pid: int) -> int:
        raise OSError(24, "Too many open files")

    before = set(os.listdir("/proc/self/fd")), set(psutil.Process().children())
    monkeypatch.setattr(os, "pidfd_open", refuse)
    ran = run_python(SLEEPER, isolation=isolation)
    assert (ran.end, ran.detail) == (End.LOST, "[Errno 24] Too many open files")
    assert (set(os.listdir("/proc/self/fd")), set(psutil.Process().children())) == before


def test_a_start_has_a_deadline(isolation: Isolation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not start in time is stopped and lost."""
    check_sandbox(isolation)
    monkeypatch.setattr(sandbox, "START_SECONDS", 0.3)
    monkeypatch.setattr(process, "_BOOT", "import time; time.sleep(60)")
    ran = run_python("print(1)", isolation=isolation)
    assert (ran.end, ran.detail) == (End.LOST, "it did not start in time")
    assert ran.seconds < 30


def test_killed_from_outside(isolation: Isolation) -> None:
    """Whoever kills a program from outside has not judged it."""
    check_sandbox(isolation)
    with ThreadPoolExecutor(1) as threads:
        limits = Limits(seconds=60)
        waiting = threads.submit(run_python, SLEEPER, limits=limits, isolation=isolation)
        _sleeper(os.getpid()).kill()
        ran = waiting.result(60)
    assert (ran.end, ran.detail) == (End.LOST, "it was killed from outside")


def test_the_others_end_after_the_first(isolation: Isolation) -> None:
    """Once the first process has ended, the rest has a moment, and is stopped."""
    check_sandbox(isolation)
    jobs = [
        SandboxJob("program", {"source": "print(1)"}, Limits(seconds=60)),
        SandboxJob("program", {"source": "import time; time.sleep(60)"}, Limits()),
    ]
    first, second = run_jobs(jobs, isolation)
    assert (first.end, first.stdout) == (End.FINISHED, b"1\n")
    assert (second.end, second.exit_code) == (End.STOPPED, None)
    assert second.seconds < 30


class _Fake:
    """A process that ends at once, or starts when it is looked at and never ends."""

    def __init__(self, ends: bool) -> None:
        self.handle, self._other = os.pipe()
        self.streams: list[process.Stream] = []
        self.verdict: End | None = None
        self.ended = self.started = False
        if ends:
            os.write(self._other, b"x")

    def ready(self) -> bool:
        self.ended = True
        return True

    def look(self) -> None:
        self.started = True

    def close(self) -> None:
        os.close(self.handle)
        os.close(self._other)


def test_who_starts_late_gets_no_time_of_his_own() -> None:
    """Once the first has ended, a process that has only just started is not waited for."""
    fakes = [_Fake(ends=True), _Fake(ends=False)]
    begun = time.monotonic()
    sandbox._attend(fakes, seconds=60)  # type: ignore[arg-type]
    assert time.monotonic() - begun < 30
    assert [fake.verdict for fake in fakes] == [None, None]
    for fake in fakes:
        fake.close()


def test_what_a_process_died_of() -> None:
    """The last line of the traceback names it, whatever the message holds."""
    told = b"Traceback (most recent call last):\n  ...\nValueError: a: b\n"
    assert Ran(End.FINISHED, 1, stderr=told).raised == "ValueError"
    assert Ran(End.FINISHED, 0, stderr=told).raised is None
    assert Ran(End.FINISHED, 2, stderr=told).raised is None
    assert Ran(End.FINISHED, 1, stderr=told.replace(b"ValueError: a: b", b"a.b.Odd")).raised == "Odd"
    assert Ran(End.FINISHED, 1, stderr=told + b"so far, so good\n").raised is None
    assert Ran(End.FINISHED, 1, stderr=b"ValueError: a: b\n").raised is None
    assert Ran(End.FINISHED, 1).raised is None


def test_processes_that_are_gone() -> None:
    """Looking at one that has just ended finds nothing, and is no error."""
    gone = 1 << 22
    assert (process._children(gone), process._threads(gone), process._files(gone)) == ([], 0, 0)
