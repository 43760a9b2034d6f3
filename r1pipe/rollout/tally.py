"""What a sampling has come to: counts that add up over shards, and shares made of them."""

from collections import Counter
from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict

from r1pipe.curate.filters import Curated
from r1pipe.curate.traces import TraceRow
from r1pipe.rollout.answers import JournalRow
from r1pipe.verify.alarm import reasons_of
from r1pipe.verify.verdict import Mark


class Group(BaseModel):
    """The completions of one task, or of one difficulty."""

    model_config = ConfigDict(extra="forbid")

    generated: int = 0
    accepted: int = 0
    """Those that each alone may be kept."""

    @property
    def acceptance(self) -> float:
        """The share that is accepted."""
        return self.accepted / self.generated


class Tally(BaseModel):
    """The counts of some completions; of none where nothing is given."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    batches: int = 0
    prompts: int = 0
    """How often a prompt was asked for the first time."""
    generated: int = 0
    accepted: int = 0
    """Completions that each alone may be kept."""
    kept: int = 0
    rejected: dict[str, int] = {}
    """By reason."""
    rewritten: int = 0
    """Of those that were kept."""
    undecided: dict[str, int] = {}
    """By reason; without what a teacher refused, which is among the `rejected`."""
    judged_again: int = 0
    """Completions whose verdict was undecided and that were judged once more or oftener."""
    settled: int = 0
    """Of those, the ones that were decided in the end."""
    prompt_tokens: int = 0
    """Of all completions: a prompt counts as often as it was asked."""
    tokens: int = 0
    """Generated."""
    by_task: dict[str, Group] = {}
    by_difficulty: dict[str, Group] = {}
    """By task and difficulty, such as `countdown 3`."""

    def add(self, rows: Iterable[tuple[TraceRow, bool]]) -> None:
        """Count completions, each with whether it alone may be kept."""
        for row, accepted in rows:
            self.generated += 1
            self.accepted += accepted
            self.prompt_tokens += row["prompt_tokens"]
            groups = [self.by_task.setdefault(row["task"], Group())]
            if row["difficulty"] is not None:
                level = f"{row['task']} {_level(row['difficulty'])}"
                groups.append(self.by_difficulty.setdefault(level, Group()))
            for group in groups:
                group.generated += 1
                group.accepted += accepted
            if row["finish_reason"] != "refused":  # of which no judge was asked
                self.undecided = dict(Counter(self.undecided) + reasons_of([row]))

    def add_batch(self, rows: Iterable[JournalRow]) -> None:
        """Count one batch more as it was generated: its tokens, and what was judged again in it."""
        self.batches += 1
        for row in rows:
            self.tokens += row["tokens"]
            if row.get("judged_again"):
                self.judged_again += 1
                self.settled += row["verdict"] != Mark.UNDECIDED

    def choose(self, chosen: Curated) -> None:
        """Count what was kept of all of them, and what was not."""
        counts = chosen.counts
        self.kept = counts.pop("kept")
        self.rejected = counts
        self.rewritten = sum(row.get("source") == "rewritten" for row in chosen.kept)

    def __add__(self, other: "Tally") -> "Tally":
        mine, its = self.model_dump(), other.model_dump()
        return Tally.model_validate({name: _sum(mine[name], its[name]) for name in mine})


def _sum(one: object, other: object) -> object:
    """Numbers are added, mappings by their keys; of reasons the commonest come first."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = dict.fromkeys([*one, *other])
        both = {key: _sum(one.get(key, 0), other.get(key, 0)) for key in keys}
        if all(isinstance(value, int) for value in both.values()):
            return dict(Counter(both).most_common())
        return both
    if isinstance(one, Mapping):
        return one
    if isinstance(other, Mapping):
        return other
    return one + other  # type: ignore[operator]


def _level(difficulty: float) -> str:
    """A difficulty as a few groups: small whole numbers as they are, any other by its first digit.

    >>> [_level(each) for each in (3.0, 0.137, 1200.0)]
    ['3', '0.1', '1e+03']
    """
    return f"{difficulty:g}" if difficulty.is_integer() and difficulty <= 20 else f"{difficulty:.1g}"
