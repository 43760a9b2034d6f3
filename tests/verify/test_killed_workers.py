"""Twenty thousand comparisons while somebody kills workers at random."""

import random
import threading
from contextlib import closing, suppress

import psutil
import pytest

from r1pipe.verify.pool import Pool, Unanswered

CHECKS = 20_000
KILL_EVERY = (1.5, 3.0)
"""Seconds between two kills; a worker takes most of one to start."""
STOP_AFTER = 30.0
"""Seconds of killing; the rest is left in peace, so that the test ends on a slow machine too."""


def question(i: int) -> tuple[str, str]:
    """One whose answer is known: right for even numbers. There are 400 different ones."""
    i %= 400
    return f"x^2+{i}", f"{i + i % 2}+x^2"


def kill_now_and_then(stop: threading.Event, others: set[psutil.Process], killed: list[int]) -> None:
    """Kill one worker, whatever it is doing, until told to stop."""
    chance = random.Random(0)
    for _ in range(int(STOP_AFTER / KILL_EVERY[0])):
        if stop.wait(chance.uniform(*KILL_EVERY)):
            return
        workers = [child for child in psutil.Process().children() if child not in others]
        if workers:
            victim = chance.choice(workers)
            with suppress(psutil.NoSuchProcess):
                victim.kill()
                killed.append(victim.pid)


@pytest.mark.slow
def test_no_kill_costs_a_verdict() -> None:
    """Each question has its answer, once and in its place, and it is the one it has in peace.

    A question whose worker is killed twice may be lost; with kills this far apart nearly none is.
    """
    stop, killed = threading.Event(), list[int]()
    others = set(psutil.Process().children())
    with closing(Pool("r1pipe.verify.symbolic", size=2, deadline=30.0)) as pool:
        killer = threading.Thread(target=kill_now_and_then, args=(stop, others, killed))
        killer.start()
        try:
            answers = list(pool.ask_all(question(i) for i in range(CHECKS)))
        finally:
            stop.set()
            killer.join()
    right, wrong = ["pass", ""], ["fail", "wrong answer"]
    expected = [wrong if i % 2 else right for i in range(CHECKS)]
    lost = [i for i, answer in enumerate(answers) if isinstance(answer, Unanswered)]
    assert len(answers) == CHECKS
    assert [i for i in range(CHECKS) if answers[i] != expected[i]] == lost
    assert len(lost) <= len(killed) / 2
    assert killed, "nobody was killed, so nothing was shown"
