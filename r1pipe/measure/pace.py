"""How fast work goes, and when it will be done."""

from collections import deque
from typing import Final

_RECENT: Final = 20
"""Batches that the speed is taken from; one alone says little, and old ones knew another load."""


class Pace:
    """The speed of the last batches, in completions and in accepted ones."""

    def __init__(self) -> None:
        self._batches: deque[tuple[float, int, int]] = deque(maxlen=_RECENT)

    def add(self, seconds: float, completions: int, accepted: int) -> None:
        """Take in a batch that was made just now."""
        self._batches.append((seconds, completions, accepted))

    @property
    def accepted_per_second(self) -> float:
        """0 before anything was made."""
        return self._rate(2)

    def eta(self, completions: int, accepted: int | None) -> float | None:
        """Seconds until so many more `completions` are made, or so many `accepted` if that comes first.

        None before anything was made.
        """
        speed = self._rate(1)
        if not speed:
            return None
        times = [completions / speed]
        if accepted is not None and self.accepted_per_second:
            times.append(accepted / self.accepted_per_second)
        return min(times)

    def _rate(self, column: int) -> float:
        seconds = sum(each[0] for each in self._batches)
        return sum(each[column] for each in self._batches) / seconds if seconds else 0.0
