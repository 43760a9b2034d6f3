"""Whatever a worker does, each question has one answer, in its place and in time, and nothing is left."""

import io
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from r1pipe.errors import EnvironmentUnfit
from r1pipe.verify import pool as pool_module
from r1pipe.verify.pool import Pool, Unanswered, serve

ROOT = Path(__file__).parents[2]
MODULE = "tests.verify.odd_worker"


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    """Two workers with a deadline of a second, who are replaced after a thousand questions."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    before = set(psutil.Process().children(recursive=True))
    with closing(Pool(MODULE, size=2, deadline=1.0, recycle=1000)) as pool:
        yield pool
    assert set(psutil.Process().children(recursive=True)) <= before


def test_answers_come_in_the_order_of_the_questions(pool: Pool) -> None:
    """Although every tenth takes longer than those behind it, and some workers die of theirs."""
    questions = [
        ["sleep", 0.02] if i % 10 == 0 else ["die", 3] if i % 25 == 7 else ["say", i] for i in range(60)
    ]
    expected = [Unanswered("worker died") if question[0] == "die" else question for question in questions]
    assert list(pool.ask_all(questions)) == expected


def test_a_question_that_takes_too_long_is_lost(pool: Pool) -> None:
    """One that sleeps, and one that is stuck where nothing can interrupt it; the next is answered."""
    assert pool.ask(["sleep", 30]) == Unanswered("timed out")
    began = time.monotonic()
    assert pool.ask(["stuck"]) == Unanswered("timed out")
    assert time.monotonic() - began < 30
    assert pool.ask("again") == "again"


def test_the_deadline_runs_from_the_question_not_from_the_queue(pool: Pool) -> None:
    """Six questions of .6 s for two workers: the last ones wait for longer than their deadline."""
    questions = [["sleep", 0.6]] * 6
    assert list(pool.ask_all(questions)) == questions


def test_a_worker_that_eats_the_memory_dies_alone(pool: Pool) -> None:
    """The address space is limited."""
    assert pool.ask(["eat"]) == Unanswered("worker died")
    assert pool.ask("again") == "again"


def test_ctrl_c_in_the_middle_of_a_question(pool: Pool) -> None:
    """It is raised at once, and the next question does not get the answer to this one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job has it ignored
    pool.ask("a worker is there")
    interrupt = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        for _ in range(100):
            pool.ask(["sleep", 0.5])
    interrupt.join()
    signal.signal(signal.SIGINT, before)
    assert [pool.ask(["say", i]) for i in range(3)] == [["say", i] for i in range(3)]


def test_what_is_printed_is_no_answer(pool: Pool) -> None:
    """The answers have a channel of their own."""
    assert [pool.ask(["print"]), pool.ask("next")] == [["print"], "next"]


def test_it_works_from_any_thread(pool: Pool) -> None:
    """Eight threads share two workers."""
    answers: dict[int, object] = {}

    def ask(i: int) -> None:
        answers[i] = pool.ask(["say", i])

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {i: ["say", i] for i in range(8)}


def test_a_worker_killed_from_outside_costs_nobody_an_answer(pool: Pool) -> None:
    """Neither between two questions nor in the middle of one; a new worker is asked again."""
    first = pool.ask(["pid"])
    os.kill(first, signal.SIGKILL)
    time.sleep(0.1)
    second = pool.ask(["pid"])
    assert second not in (first, Unanswered("worker died"))
    killer = threading.Timer(0.2, os.kill, (second, signal.SIGKILL))
    killer.start()
    assert pool.ask(["sleep", 0.6]) == ["sleep", 0.6]
    killer.join()
    assert pool.ask(["pid"]) != second


def test_a_question_is_asked_twice_and_not_more(pool: Pool, tmp_path: Path) -> None:
    """One that kills whoever answers it is lost after two workers."""
    log = tmp_path / "log"
    assert pool.ask(["note and die", str(log)]) == Unanswered("worker died")
    assert len(log.read_text().split()) == 2
    assert pool.ask("again") == "again"


def test_a_start_that_is_killed_is_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody hears of it, unless every try is."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(pool_module, "_INHERITED", (*pool_module._INHERITED, "ODD_WORKER"))
    monkeypatch.setenv("ODD_WORKER", f"killed once {tmp_path / 'started'}")
    with closing(Pool(MODULE, size=1, deadline=5.0)) as pool:
        assert pool.ask("anything") == "anything"
    monkeypatch.setenv("ODD_WORKER", "killed")
    with (
        closing(Pool(MODULE, size=1, deadline=5.0)) as pool,
        pytest.raises(EnvironmentUnfit, match="did not start"),
    ):
        pool.ask("anything")


def test_workers_are_replaced_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many questions, since what libraries keep only grows."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with closing(Pool(MODULE, size=1, deadline=5.0, recycle=3)) as pool:
        pids = [pool.ask(["pid"]) for _ in range(7)]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]


def test_a_worker_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is called wrong for it."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(pool_module, "_INHERITED", (*pool_module._INHERITED, "ODD_WORKER"))
    monkeypatch.setenv("ODD_WORKER", "broken")
    with (
        closing(Pool(MODULE, size=1, deadline=1.0)) as pool,
        pytest.raises(EnvironmentUnfit, match="did not start"),
    ):
        pool.ask("anything")


class Ended(BaseException):
    """What `os._exit` raises here."""


def test_the_workers_side() -> None:
    """It says that it is ready, answers line by line, bounds itself, and ends at once when it breaks down."""
    limits: dict[int, int] = {}

    def end(code: int) -> None:
        raise Ended(code)

    def answer(question: object) -> object:
        if question == "stop":
            raise MemoryError
        return [question, question]

    ours, theirs = os.pipe()
    before = set(threading.enumerate())
    with pytest.MonkeyPatch.context() as patch:  # pytest itself uses some of these
        patch.setattr(sys, "argv", ["worker", "2.0", "1000"])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'"one"\n["two"]\n"stop"\n')))
        patch.setattr(os, "_exit", end)
        patch.setattr(os, "dup", lambda number: theirs)
        patch.setattr(os, "dup2", lambda number, other: os.close(number))
        patch.setattr(resource, "getrlimit", lambda what: (0, resource.RLIM_INFINITY))
        patch.setattr(resource, "setrlimit", lambda what, bounds: limits.update({what: bounds[0]}))
        patch.setattr(threading, "excepthook", lambda arguments: None)
        with pytest.raises(Ended):
            serve(answer)
        for listener in set(threading.enumerate()) - before:
            listener.join()
    assert os.read(ours, 1000) == b'"ready"\n["one","one"]\n[["two"],["two"]]\n'
    assert limits[resource.RLIMIT_AS] == 1000 and limits[resource.RLIMIT_CPU] >= 4
    os.close(ours)
    os.close(theirs)


def test_a_limit_that_the_machine_sets_lower_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing raises what an administrator bounded."""
    bounds: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda what: (50, 100))
    monkeypatch.setattr(resource, "setrlimit", lambda what, both: bounds.append(both))
    pool_module._limit(resource.RLIMIT_AS, 200)
    pool_module._limit(resource.RLIMIT_AS, 20)
    assert bounds == [(100, 100), (20, 100)]


def test_a_wild_answer_is_no_answer(pool: Pool) -> None:
    """A worker that writes without an end is taken for dead."""
    assert pool.ask(["shout"]) == Unanswered("worker died")


@pytest.mark.parametrize("busy", [False, True])
def test_workers_die_with_their_parent(busy: bool) -> None:
    """Killed, it can end nothing itself."""
    question = '["sleep", 600]' if busy else '"x"'
    code = f"""
import threading, sys
from r1pipe.verify.pool import Pool
pool = Pool("{MODULE}", size=1, deadline=900.0)
print(pool.ask(["pid"]), flush=True)
pool.ask({question})
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    ) as parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        time.sleep(0.3)
        parent.kill()
    worker.wait(timeout=10)


def test_a_closed_pool_answers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """And starts no worker again."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pool = Pool(MODULE, size=1, deadline=5.0)
    assert pool.ask("anything") == "anything"
    pool.close()
    for _ in range(2):
        with pytest.raises(ValueError, match="the pool is closed"):
            pool.ask("anything")


def test_a_fork_lets_go_of_its_parents_workers(pool: Pool) -> None:
    """It ends none of them, reads none of their answers, keeps none of their pipes, and has its own pools."""
    pid = pool.ask(["pid"])
    theirs = next(worker for worker in pool._workers if worker.process.pid == pid)
    assert theirs.process.stdin is not None
    pipe = theirs.process.stdin.fileno()
    pool_module._shared["test"] = pool
    child = os.fork()
    if child == 0:
        try:
            os.fstat(pipe)
        except OSError:
            os._exit(0 if pool._closed and not pool._workers and not pool_module._shared else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert pool_module._shared.pop("test") is pool
    assert pool.ask(["pid"]) == pid


def test_ctrl_c_while_a_worker_starts_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ended before anybody hears of it."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    spawned: list[pool_module._Worker] = []

    def interrupted(worker: pool_module._Worker, ends: float) -> None:
        spawned.append(worker)
        raise KeyboardInterrupt

    monkeypatch.setattr(pool_module._Worker, "_answer", interrupted)
    with closing(Pool(MODULE, size=1, deadline=5.0)) as pool, pytest.raises(KeyboardInterrupt):
        pool.ask("anything")
    assert [worker.process.returncode for worker in spawned] == [-signal.SIGKILL]
