"""No answer breaks the judge: none passes that is wrong, none raises, none outlives its deadline."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psutil
import pytest

from r1pipe.prompting import parse
from r1pipe.verify import math as verify_math
from r1pipe.verify.math import judge_math, judge_number
from r1pipe.verify.pool import Pool
from r1pipe.verify.verdict import Mark
from tests.verify.torture_answers import CHEAP, GOLDS, SLOW

DEADLINE = 1.0
"""Seconds; a worker stops itself half a second earlier."""
SLACK = 20.0
"""Seconds that a busy machine may take on top: it is a hang that is looked for, not a delay."""


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    """What `judge_math` asks while these tests run: two workers with a short deadline."""
    before = set(psutil.Process().children(recursive=True))
    with closing(Pool("r1pipe.verify.symbolic", size=2, deadline=DEADLINE)) as pool:
        pool.ask(["x", "y"])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(verify_math, "_shared_pool", lambda: pool)
            yield pool
    assert set(psutil.Process().children(recursive=True)) <= before


def judged(gold: str, answer: str) -> Mark:
    """The mark of an answer, which must come in time."""
    began = time.monotonic()
    mark = judge_math(gold, answer).mark
    assert time.monotonic() - began < DEADLINE + 1 + SLACK
    return mark


def test_there_are_enough() -> None:
    """Sixty at least, and no two the same."""
    assert len(CHEAP) + len(SLOW) >= 60
    assert len({*CHEAP.values(), *SLOW.values()}) == len(CHEAP) + len(SLOW)


@pytest.mark.parametrize("name", CHEAP)
def test_hostile_answers_never_pass(pool: Pool, name: str) -> None:
    """Against whatever is right; the rule that wants one number in an answer is not taken in either."""
    marks = [judged(gold, CHEAP[name]) for gold in GOLDS]
    assert Mark.PASS not in marks
    assert judge_number("123", CHEAP[name]).mark is Mark.FAIL


def test_what_takes_long_is_stopped_and_the_pool_stays_whole(pool: Pool) -> None:
    """Two at a time, from threads, as a trainer might ask; then honest answers are judged as ever."""
    with ThreadPoolExecutor(2) as threads:
        marks = list(threads.map(lambda answer: judged("x^2+1", answer), SLOW.values()))
    assert Mark.PASS not in marks
    assert judged("x^2+1", "1+x^2") is Mark.PASS
    assert judged("x^2+1", "2+x^2") is Mark.FAIL


@pytest.mark.parametrize("name", CHEAP)
def test_hostile_completions_never_pass(pool: Pool, name: str) -> None:
    """Wherever it stands in a completion, with thinking and without."""
    text = CHEAP[name]
    for completion in (text, f"hm </think> <answer>{text}</answer>", f"{text} </think> \\boxed{{{text}}}"):
        for opened in (True, False):
            answer = parse(completion, opened).answer
            assert answer is None or judged("x^2+1", answer) is not Mark.PASS
