"""Programs judged by their tests.

Either the tests call functions: then they run in one sandbox and the program in another, and only data passes
between them (`channel`), so nothing that the program prints, replaces or ends can make a test pass. Or the
tests are pairs of an input and its output: then the program runs once for each, and its whole output is
compared here.
"""

import json
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from r1pipe.verify.inside import BEYOND, PRELUDE
from r1pipe.verify.isolation import Isolation, Limits
from r1pipe.verify.process import End, Ran, SandboxJob
from r1pipe.verify.sandbox import check_sandbox, run_jobs, run_python
from r1pipe.verify.verdict import Verdict, failed, passed, undecided

ALL_PAIRS: Final = 10
"""All pairs of a program together may take this many times the seconds of one."""
_TESTS_MEMORY_MB: Final = 256  # more than the program's, so that no answer is too large for the tests


@dataclass(frozen=True, slots=True)
class FunctionTests:
    """Tests that call what a program defines."""

    names: Sequence[str]
    """What the tests use of the program; everything else of it they never see."""
    tests: Sequence[str]
    """Sources that raise an error where the program is wrong, run in this order in one namespace."""
    prelude: str = ""
    """A source that runs before, without the program: imports and helpers."""


@dataclass(frozen=True, slots=True)
class PairTests:
    """Inputs with the outputs that a program has to print."""

    pairs: Sequence[tuple[str, str]]


def judge_program(
    program: str,
    tests: FunctionTests | PairTests,
    *,
    limits: Limits | None = None,
    isolation: Isolation = "bubblewrap",
) -> Verdict:
    """The verdict on a program: pass if every test passes.

    The limits are those of one process. What the program does to itself is a fail, however it dies; only the
    failures of the sandbox (with a reason that begins with "sandbox") and of the tests are undecided.

    Raises:
        EnvironmentUnfit: the sandbox does not work on this machine.
    """
    check_sandbox(isolation)
    if isinstance(tests, FunctionTests):
        return _judge_functions(program, tests, limits or Limits(), isolation)
    return _judge_pairs(program, tests, limits or Limits(), isolation)


def same_output(got: str, expected: str) -> bool:
    """Whether a whole output is the expected one, white space at the end of lines and of the text aside.

    >>> same_output("1 2 \\n3", "1 2\\n3\\n\\n"), same_output("1", "1\\n2"), same_output(" 1", "1")
    (True, False, False)
    """
    return _lines(got) == _lines(expected)


def _lines(text: str) -> list[str]:
    lines = text.replace("\r\n", "\n").split("\n")  # what else may part lines is part of them here
    return "\n".join(line.rstrip() for line in lines).rstrip().split("\n")


def _judge_pairs(program: str, tests: PairTests, limits: Limits, isolation: Isolation) -> Verdict:
    ends = time.monotonic() + ALL_PAIRS * limits.seconds
    for given, expected in tests.pairs:
        left = ends - time.monotonic()
        if left <= 0:
            return failed("timed out")
        output = max(limits.output_bytes, 2 * len(expected.encode(errors="surrogatepass")))
        each = replace(limits, seconds=min(limits.seconds, left), output_bytes=output)
        ran = run_python(
            program, stdin=given.encode(errors="surrogatepass"), limits=each, isolation=isolation
        )
        if ran.end is not End.FINISHED or ran.exit_code:
            return _ended(ran)
        # Bytes that are no text become halves of surrogate pairs, which no expected output holds.
        if not same_output(ran.stdout.decode(errors="surrogateescape"), expected):
            return failed("wrong output")
    return passed()


def _judge_functions(program: str, tests: FunctionTests, limits: Limits, isolation: Isolation) -> Verdict:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        more = replace(limits, memory_mb=limits.memory_mb + _TESTS_MEMORY_MB)
        parts = {
            "names": list(tests.names),
            "tests": list(tests.tests),
            "prelude": tests.prelude,
        }
        judge, judged = run_jobs(
            [
                SandboxJob("tests", parts, more, channel=ours),
                SandboxJob("offer", {"source": program}, limits, channel=theirs),
            ],
            isolation,
        )
    if End.LOST in (judge.end, judged.end):
        return _ended(judge if judge.end is End.LOST else judged)
    if judged.end in (End.TOO_MUCH_OUTPUT, End.TOO_MANY_THREADS):
        return _ended(judged)
    if not judge.report:
        return undecided("sandbox: no result") if judge.end is End.FINISHED else _ended(judge)
    reason = json.loads(judge.report)["reason"]
    if reason == "lost":
        return _ended(judged)
    if reason == BEYOND or reason.startswith(PRELUDE):
        return undecided(reason)
    return failed("out of memory" if reason == "raised MemoryError" else reason) if reason else passed()


def _ended(ran: Ran) -> Verdict:
    """The verdict on a process that did not come to the end of its tests."""
    if ran.end is End.LOST:
        return undecided(f"sandbox: {ran.detail}")
    if ran.end is End.FINISHED:
        return failed(f"raised {ran.raised}" if ran.raised else "ended early")
    return failed("ended early" if ran.end is End.STOPPED else str(ran.end))
