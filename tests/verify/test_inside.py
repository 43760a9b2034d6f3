"""What runs inside the sandbox, run here: the roles and the order in which things are put in place."""

import contextlib
import ctypes
import json
import os
import resource
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from r1pipe.verify import inside
from r1pipe.verify.channel import Lost


class Exit(BaseException):
    """In place of the end of this process."""


@pytest.fixture
def report() -> Iterator[tuple[int, int]]:
    """A pipe for the report; whoever gets its writing end closes it."""
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        with contextlib.suppress(OSError):
            os.close(descriptor)


@pytest.fixture(autouse=True)
def stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process does not end, keeps its limits and its main module."""

    def leave(code: int) -> None:
        raise Exit(code)

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(sys, "argv", ["pytest"])
    for name in ("__main__", "program"):
        monkeypatch.setitem(sys.modules, name, sys.modules.get(name, sys))


def _tests(report: int, source: str, tests: list[str], prelude: str = "") -> None:
    """Run tests here and the program that they are of in a thread."""
    ours, theirs = socket.socketpair()
    offer = {"source": source, "channel": theirs.detach(), "report": os.dup(report)}
    thread = threading.Thread(target=_offer, args=(offer,))
    thread.start()
    job = {"names": ["f"], "tests": tests, "prelude": prelude, "channel": ours.fileno(), "report": report}
    with pytest.raises(Exit):
        inside.run_tests(job)
    ours.shutdown(socket.SHUT_RDWR)
    ours.detach()
    thread.join(10)
    assert not thread.is_alive()


def _offer(job: dict[str, Any]) -> None:
    with contextlib.suppress(Exit, Lost):
        inside.offer_program(job)


@pytest.mark.parametrize(
    ("source", "tests", "prelude", "reason"),
    [
        ("def f(x): return x * x", ["assert f(3) == 9", "assert f(4) == 16"], "", ""),
        ("def f(x): return x * x", ["assert half(f(4)) == 8"], "def half(x): return x // 2", ""),
        ("def f(x): return x * x\ndef half(x): return 8", ["assert half(f(4)) == 8"], "", "raised NameError"),
        ("def f(x): return 9", ["assert f(3) == 9", "assert f(4) == 16"], "", "test failed"),
        ("def f(x): return 9", ["raise SystemExit"], "", "test failed"),
        ("def g(x): return 9", ["assert f(3) == 9"], "def f(x): return 9", "raised NameError"),
        ("def f(x): return y", ["assert f(3) == 9"], "", "raised NameError"),
        ("def f(x)", ["assert f(3) == 9"], "", "raised SyntaxError"),
    ],
)
def test_tests(report: tuple[int, int], source: str, tests: list[str], prelude: str, reason: str) -> None:
    """All of them have to pass, and the reason says what came in between."""
    _tests(report[1], source, tests, prelude)
    assert json.loads(os.read(report[0], 1000)) == {"reason": reason}


def test_limits_come_before_foreign_code(
    report: tuple[int, int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Limits, then the filter, then the word that all is in place, then the program, as a main module."""
    order: list[Any] = []
    monkeypatch.setattr(inside, "limit", lambda limits: order.append(limits))
    monkeypatch.setattr(inside, "confine", lambda rules, parent: order.append((rules, parent)))
    limits = {"RLIMIT_CORE": 0}
    job = {"role": "program", "limits": limits, "confine": "0102", "parent": 7, "report": report[1]}
    inside.main({**job, "source": "import sys; print(__name__, sys.argv)"})
    assert order == [limits, (b"\x01\x02", 7)]
    assert os.read(report[0], 1000) == inside.STARTED
    assert os.read(report[0], 1000) == b""  # closed before the program ran
    assert capsys.readouterr().out == "__main__ ['main.py']\n"


def test_nothing_runs_when_nobody_waits(report: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The start is reported first; where that fails, the program has not begun."""
    monkeypatch.setattr(inside, "limit", lambda limits: None)
    os.close(report[0])
    job = {"role": "program", "limits": {}, "confine": "", "report": report[1], "source": "raise KeyError"}
    with pytest.raises(BrokenPipeError):
        inside.main(job)


def test_limits_only_sink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never above what there is, and for good: the hard limit is the same."""
    seen: dict[int, tuple[int, int]] = {}
    there = {
        resource.RLIMIT_CORE: (0, 10),
        resource.RLIMIT_AS: (-1, resource.RLIM_INFINITY),
        resource.RLIMIT_CPU: (5, 5),
    }
    monkeypatch.setattr(resource, "getrlimit", there.__getitem__)
    monkeypatch.setattr(resource, "setrlimit", seen.__setitem__)
    inside.limit({"RLIMIT_CORE": 20, "RLIMIT_AS": 30, "RLIMIT_CPU": 5})  # the last is there already
    assert seen == {resource.RLIMIT_CORE: (10, 10), resource.RLIMIT_AS: (30, 30)}


class _Kernel:
    """Takes down what is asked of prctl."""

    def __init__(self, refuses: int = -1) -> None:
        self.calls: list[int] = []
        self.refuses = refuses

    def prctl(self, option: int, *_: Any) -> int:
        self.calls.append(option)
        return -1 if option == self.refuses else 0


def test_confinement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Death with the parent, no new privileges, the filter; and no start without one of them."""
    kernel = _Kernel()
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: kernel)
    inside.confine(bytes(16), os.getppid())
    assert kernel.calls == [1, 38, 22]
    with pytest.raises(OSError, match="the parent is gone"):
        inside.confine(bytes(16), -1)
    kernel.refuses = 22
    with pytest.raises(OSError, match=r"prctl\(22\) is refused"):
        inside.confine(bytes(16), os.getppid())
