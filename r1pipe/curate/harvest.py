"""Choosing while rows still come in."""

from collections.abc import Sequence

from r1pipe.curate.filters import Curated, CurationStep, Keep, RejectedRow, bare, curate, each
from r1pipe.measure.samples import SampleRow


class Harvest:
    """Rows as they come in, parted as `curate` would part them all together."""

    def __init__(self, keep: Keep, limit: int | None = None) -> None:
        self._filters = [each(filter_) for filter_ in keep.filters()]
        self._together: list[CurationStep] = keep.together()
        self._limit = limit
        self._kept: list[SampleRow] = []
        self._different: dict[str, set[str]] = {}  # of each problem, the kept completions
        self._rejected: list[RejectedRow] = []
        self.generated = 0
        """Rows that came in."""
        self.undecided = 0
        """Of those, the ones without a verdict."""

    @property
    def accepted(self) -> int:
        """Rows that each alone may be kept."""
        return len(self._kept)

    def accepted_of(self, problem: str) -> int:
        """How many different rows of a problem, by its id, may each alone be kept."""
        return len(self._different.get(problem, ()))

    def add(self, rows: Sequence[SampleRow]) -> list[bool]:
        """Take in a batch; return of each row whether it alone may be kept."""
        self.generated += len(rows)
        self.undecided += sum(row["verdict"] == "undecided" for row in rows)
        parted = curate(rows, self._filters)
        self._kept += parted.kept
        self._rejected += parted.rejected
        for row in parted.kept:
            self._different.setdefault(row["problem_id"], set()).add(bare(row["completion"]))
        accepted = set(map(id, parted.kept))
        return [id(row) in accepted for row in rows]

    def full(self) -> bool:
        """Whether there are as many rows to keep as are wanted."""
        if self._limit is None or self.accepted < self._limit:
            return False
        return len(curate(self._kept, self._together).kept) >= self._limit

    def chosen(self) -> Curated:
        """Part all rows that came in; of more than are wanted the first are kept."""
        steps = self._together if self._limit is None else [*self._together, first(self._limit)]
        last = curate(self._kept, steps)
        chosen = Curated(last.kept, [*self._rejected, *last.rejected])
        assert sum(chosen.counts.values()) == self.generated, "a row was lost"
        return chosen


def first(count: int) -> CurationStep:
    """Keep so many rows in all."""

    def step(rows: Sequence[SampleRow]) -> Curated:
        return Curated(list(rows[:count]), [{**row, "rejected": "beyond the limit"} for row in rows[count:]])

    return step
