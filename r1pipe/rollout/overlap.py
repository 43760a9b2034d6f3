"""Judging while generation goes on: each rollout is handed over when it is whole, not when all are."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

from r1pipe.rollout.engine import Rollout

R = TypeVar("R")
T = TypeVar("T")
Placed = tuple[int, Rollout]
"""A rollout and the place of its prompt."""


class Overlapped(Generic[R, T]):
    """One background thread that judges what has finished, as much at a time as has come together.

        with Overlapped(judge) as overlapped:
            engine.generate(prompts, sampling, seeds=seeds, finished=overlapped.finished)
            verdicts = overlapped.results(len(prompts))

    `judge` gives one result for each rollout, in order, and may depend on nothing else that it is given
    beside it: which rollouts come together is chance. Also when generation fails, what had finished is
    judged before the block is left.
    """

    def __init__(self, judge: Callable[[Sequence[tuple[int, R]]], Sequence[T]]) -> None:
        self._judge = judge
        self._thread = ThreadPoolExecutor(1, "judging")
        self._waiting: deque[tuple[int, R]] = deque()
        self._rounds: deque[Future[None]] = deque()
        self._made: dict[int, T] = {}

    def finished(self, place: int, rollout: R) -> None:
        """Take one rollout; returns at once. What the judge raised in the meantime is raised here already."""
        while self._rounds and self._rounds[0].done():
            self._rounds.popleft().result()
        self._waiting.append((place, rollout))
        self._rounds.append(self._thread.submit(self._round))

    def results(self, count: int) -> list[T]:
        """What came of the places 0 to `count` - 1, once all are judged. What the judge raised is raised."""
        for round_ in self._rounds:
            round_.result()
        return [self._made[place] for place in range(count)]

    def _round(self) -> None:
        """Judge all that wait; a round that was begun for a rollout which an earlier one took has none."""
        placed = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if placed:
            made = self._judge(placed)
            self._made |= {place: each for (place, _), each in zip(placed, made, strict=True)}

    def __enter__(self) -> "Overlapped[R, T]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()
