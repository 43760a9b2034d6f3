"""Programs and their tests. What cheats try is in test_hostile_programs."""

import shutil
from pathlib import Path

import pytest

from r1pipe.verify import programs
from r1pipe.verify.inside import BEYOND
from r1pipe.verify.isolation import Limits
from r1pipe.verify.process import End, Ran, SandboxJob
from r1pipe.verify.programs import FunctionTests, PairTests, judge_program, same_output
from r1pipe.verify.verdict import Mark, Verdict, failed, passed, undecided

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
LIMITS = Limits(seconds=20.0, memory_mb=256)
SHORT = Limits(seconds=0.7, memory_mb=256)


@pytest.mark.parametrize(
    ("program", "verdict"),
    [
        ("print(int(input()) * 2)", passed()),
        ("print(int(input()) * 2, end=' \\n\\n')", passed()),
        ("print(2)", failed("wrong output")),
        ("n = int(input())\nprint(n * 2)\nprint(n)", failed("wrong output")),
        ("print('2\\n6')", failed("wrong output")),
        ("print(int(input()) * 2)\nraise KeyError('x')", failed("raised KeyError")),
        ("print(int(input()) * 2)\nraise SystemExit(3)", failed("ended early")),
        ("while True: pass", failed("timed out")),
        ("x = [0] * (1 << 40)", failed("out of memory")),
        ("print(int(input(", failed("raised SyntaxError")),
        ("print('\ud800')", failed("raised UnicodeEncodeError")),
    ],
)
def test_pairs(program: str, verdict: Verdict) -> None:
    """The whole output counts, for every input, each in a process of its own."""
    limits = SHORT if verdict.reason == "timed out" else LIMITS
    assert judge_program(program, PairTests([("1\n", "2"), ("3\n", "6\n")]), limits=limits) == verdict


@pytest.mark.parametrize(
    ("got", "expected", "same"),
    [
        ("1\n2\n", "1\n2", True),
        ("1  \n2\t\n\n\n", "1\n2", True),
        ("1\r\n2", "1\n2", True),
        ("", "\n", True),
        ("1\n\n2", "1\n2", False),
        (" 1", "1", False),
        ("1\n", "1\n2", False),
        ("1\n2\n3", "1\n2", False),
        ("1.0", "1", False),
        ("YES", "yes", False),
        ("1\x0c2", "1\n2", False),
        ("1\u20282", "1\n2", False),
        ("1\x85", "1", True),
        ("1\r2", "1\n2", False),
    ],
)
def test_outputs(got: str, expected: str, same: bool) -> None:
    """White space at the ends of lines and of the text is all that is forgiven."""
    assert same_output(got, expected) is same


def test_what_is_no_text_is_wrong() -> None:
    """A byte that is no UTF-8 is not the sign that stands for such bytes."""
    program = "import sys; sys.stdout.buffer.write(b'\\xff')"
    assert judge_program(program, PairTests([("", "\ufffd")]), limits=LIMITS) == failed("wrong output")


def test_a_long_output_has_room() -> None:
    """What is expected may always be written; twice as much may not."""
    tests, limits = PairTests([("", "x" * 5000)]), Limits(seconds=20.0, memory_mb=256, output_bytes=100)
    assert judge_program("print('x' * 5000)", tests, limits=limits) == passed()
    assert judge_program("print('x' * 10_000)", tests, limits=limits) == failed("too much output")


def test_all_pairs_have_a_deadline_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that is slow on every input has not the time of all of them."""
    monkeypatch.setattr(programs, "ALL_PAIRS", 1)
    slow = "import time; time.sleep(0.4); print(1)"
    assert judge_program(slow, PairTests([("", "1")] * 50), limits=SHORT) == failed("timed out")
    monkeypatch.setattr(programs, "ALL_PAIRS", 0)
    assert judge_program(slow, PairTests([("", "1")]), limits=SHORT) == failed("timed out")


@pytest.mark.parametrize(
    ("program", "tests", "verdict"),
    [
        ("f = lambda x: sorted(x)", ["assert f([2, 1]) == [1, 2]", "x = [1]", "assert f(x) == x"], passed()),
        ("def f(x): x.sort()", ["x = [2, 1]\nassert f(x) is None\nassert x == [1, 2]"], passed()),
        ("def f(n):\n    yield from range(n)", ["assert list(f(3)) == [0, 1, 2]"], passed()),
        ("def f(x): raise ValueError(x)", ["try:\n    f(1)\nexcept ValueError:\n    pass"], passed()),
        ("class f:\n    def g(self, x): return x", ["assert f().g(3) == 3"], passed()),
        ("def f(g): return g(2)", ["assert f(lambda x: x + 1) == 3"], passed()),
        ("def f(x): return x", ["assert f(1) == 1", "assert f(2) == 1"], failed("test failed")),
        ("def f(x): return x", ["assert g(1) == 1"], failed("raised NameError")),
        ("def f(x): return [0] * (1 << 40)", ["assert f(1) == 1"], failed("out of memory")),
        ("def f(x): return x", ["[0] * (1 << 40)"], failed("out of memory")),
        ("def f(x):\n    while True: pass", ["assert f(1) == 1"], failed("timed out")),
        ("print('x' * 9_000_000)", ["assert f(1) == 1"], failed("too much output")),
        ("f = str", ["while True: print(f('x') * 1000)"], failed("too much output")),
        ("f = str", ["import os", "os._exit(0)"], undecided("sandbox: no result")),
        ("import sys\ndef f(x): sys.exit(x)", ["try:\n    f(2)\nexcept SystemExit:\n    pass"], passed()),
        ("def f(x): return x.value", ["class A: value = 1\nassert f(A()) == 1"], undecided(BEYOND)),
        (
            "def f(x):\n    try: x.value\n    except PermissionError: return 1",
            ["class A: value = 1\nassert f(A()) == 1"],
            passed(),
        ),
        ("if __name__ == '__main__': input()\nf = str", ["assert f(1) == '1'"], passed()),
    ],
)
def test_functions(program: str, tests: list[str], verdict: Verdict) -> None:
    """The tests call what they name, with the same results as in one process."""
    limits = SHORT if verdict.reason == "timed out" else LIMITS
    assert judge_program(program, FunctionTests(["f"], tests), limits=limits) == verdict


def test_without_isolation_by_name() -> None:
    """The weaker mode judges the same."""
    tests = FunctionTests(["f"], ["assert half(f(3)) == 3"], prelude="def half(x): return x / 2")
    assert judge_program("def f(x): return 2 * x", tests, isolation="limits-only") == passed()
    assert judge_program("print(1)", PairTests([("", "1")]), isolation="limits-only") == passed()


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_sandbox_is_no_verdict(monkeypatch: pytest.MonkeyPatch, lost: int) -> None:
    """Whichever of the two processes is lost: undecided, with what is known."""

    def run(jobs: list[SandboxJob], isolation: str) -> list[Ran]:
        ran = [Ran(End.FINISHED, 0, report=b'{"reason": "test failed"}') for _ in jobs]
        ran[min(lost, len(ran) - 1)] = Ran(End.LOST, detail="no memory")
        return ran

    monkeypatch.setattr(programs, "run_jobs", run)
    verdict = judge_program("f = 1", FunctionTests(["f"], ["assert f"]))
    assert verdict == undecided("sandbox: no memory")
    assert verdict.mark is Mark.UNDECIDED
    monkeypatch.setattr(programs, "run_python", lambda *_, **__: Ran(End.LOST, detail="no memory"))
    assert judge_program("print(1)", PairTests([("", "1")])) == undecided("sandbox: no memory")


def test_a_broken_sandbox_is_undecided(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing can be started any more, on a machine where it could."""
    assert judge_program("print(1)", PairTests([("", "1")])) == passed()
    (tmp_path / "bwrap").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    for tests in (PairTests([("", "1")]), FunctionTests(["f"], ["assert f"])):
        assert judge_program("f = print(1)", tests).reason.startswith("sandbox: ")
