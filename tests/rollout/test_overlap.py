"""Judging beside generation: every rollout once, in order, and no mistake is lost."""

import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import wait

import pytest

from r1pipe.rollout.engine import Rollout
from r1pipe.rollout.overlap import Overlapped, Placed


def rollout(place: int) -> Rollout:
    return Rollout([place, 1], "stop")


def doubled(placed: Sequence[Placed]) -> list[int]:
    return [2 * each.token_ids[0] for _, each in placed]


def test_results_stand_in_the_order_of_the_places():
    """However they come, and whichever come together; nothing at all is a list without results."""
    order = list(range(200))
    random.Random(0).shuffle(order)
    with Overlapped(doubled) as overlapped:
        for place in order:
            overlapped.finished(place, rollout(place))
        assert overlapped.results(200) == [2 * place for place in range(200)]
    with Overlapped(doubled) as nothing:
        assert nothing.results(0) == []


def test_each_is_judged_once_and_what_waits_is_judged_together():
    """While the first is judged three more come: they are the second round, and there is no third."""
    begun, go_on = threading.Event(), threading.Event()
    rounds: list[list[int]] = []

    def judge(placed: Sequence[Placed]) -> list[int]:
        rounds.append([place for place, _ in placed])
        begun.set()
        assert go_on.wait(10)
        return doubled(placed)

    with Overlapped(judge) as overlapped:
        overlapped.finished(3, rollout(3))
        assert begun.wait(10)  # judging goes on in another thread while this one goes on generating
        for place in (0, 2, 1):
            overlapped.finished(place, rollout(place))
        go_on.set()
        assert overlapped.results(4) == [0, 2, 4, 6]
    assert rounds == [[3], [0, 2, 1]]


def judge_of(refused: int) -> Callable[[Sequence[Placed]], list[int]]:
    def judge(placed: Sequence[Placed]) -> list[int]:
        if any(place == refused for place, _ in placed):
            raise LookupError("a judge's mistake")
        return doubled(placed)

    return judge


def test_what_the_judge_raises_comes_out_of_results():
    """For the last rollout there is nothing else left that could raise it."""
    with Overlapped(judge_of(2)) as overlapped:
        for place in range(3):
            overlapped.finished(place, rollout(place))
        with pytest.raises(LookupError, match="a judge's mistake"):
            overlapped.results(3)


def test_what_the_judge_raises_breaks_off_the_generation():
    """The next rollout that is whole hears of it, not the end of them all."""
    with Overlapped(judge_of(1)) as overlapped:
        overlapped.finished(0, rollout(0))
        overlapped.finished(1, rollout(1))
        wait(overlapped._rounds)
        with pytest.raises(LookupError, match="a judge's mistake"):
            overlapped.finished(2, rollout(2))


def test_as_many_results_as_rollouts():
    """A judge that leaves one out would shift all verdicts after it."""
    with Overlapped(lambda placed: []) as overlapped:
        overlapped.finished(0, rollout(0))
        with pytest.raises(ValueError, match="shorter"):
            overlapped.results(1)


def test_what_had_finished_is_judged_when_the_engine_fails():
    """The block is left with the engine's error, and no thread stays behind."""
    threads, judged = threading.active_count(), list[int]()

    def judge(placed: Sequence[Placed]) -> list[int]:
        judged.extend(place for place, _ in placed)
        return doubled(placed)

    with pytest.raises(MemoryError), Overlapped(judge) as overlapped:
        for place in range(50):
            overlapped.finished(place, rollout(place))
        raise MemoryError
    assert judged == list(range(50))
    assert threading.active_count() == threads
