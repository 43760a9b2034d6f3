"""reasoning-gym's tasks by name: its generators ask, its scorers judge, in workers with a deadline."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from random import Random
from typing import Any, Final

from pydantic import Field, field_validator

from r1pipe import jsonl
from r1pipe.errors import EnvironmentUnfit, UsageError
from r1pipe.tasks.base import Item, Task, TruncatedRule, check_split, held_out, in_split
from r1pipe.tasks.spec import TaskSpec
from r1pipe.verify.notation import tidy
from r1pipe.verify.numbers import number, quantity
from r1pipe.verify.pool import Pool, Unanswered, shared
from r1pipe.verify.verdict import Mark, Verdict, failed, undecided

PREFIX: Final = "gym:"
MAX_LENGTH: Final = 10_000
"""Characters of an answer; a board or a grid takes a few hundred."""
SCORE_SECONDS: Final = 5.5
GENERATE_SECONDS: Final = 60.0
"""For a worker to make one batch of items."""
_BATCH: Final = 16
_WORKER: Final = "r1pipe.tasks.gym_worker"


@dataclass(frozen=True)
class Gym(Task):
    """The task; `gold` is the generator's own answer, or None where it gives none and only scores."""

    generator: str
    config: str
    """JSON: the generator's options, with its own seed and size."""
    size: int
    truncated: TruncatedRule = "fail"

    @property
    def name(self) -> str:
        """`gym:chain_sum`."""
        return f"{PREFIX}{self.generator}"

    @property
    def waits(self) -> bool:
        """A worker judges."""
        return True

    def items(self, split: str, count: int | None, seed: int) -> list[Item]:
        """Different items in the order of the seed, again from the start once all have come.

        One in five is held out, by the hash of its question.

        Raises:
            UsageError: the generator refuses its options or is too slow, or the split is empty.
        """
        check_split(self, split)
        found: dict[str, Item] = {}
        for item in self._drawn(seed):
            if in_split(held_out(item.question), split):
                found.setdefault(item.id, item)
            if len(found) == count:
                break
        if not found:
            raise UsageError(f"{self.name}: none of its {self.size} items is in the split {split!r}.")
        items = list(found.values())
        return [items[i % len(items)] for i in range(len(items) if count is None else count)]

    def _drawn(self, seed: int) -> Iterator[Item]:
        order = list(range(self.size))
        Random(f"{seed}:{self.name}").shuffle(order)
        with closing(Pool(_WORKER, size=1, deadline=GENERATE_SECONDS)) as pool:
            for start in range(0, len(order), _BATCH):
                indices = order[start : start + _BATCH]
                made = pool.ask(["entries", self.generator, self.config, indices])
                if isinstance(made, Unanswered):
                    raise UsageError(f"{self.name}: making items {made.reason}. Ask for easier ones.")
                if isinstance(made, str):
                    raise UsageError(f"{self.name}: {made}. See `r1pipe tasks gym`.")
                yield from (self._item(index, **entry) for index, entry in zip(indices, made, strict=True))

    def _item(self, index: int, question: str, answer: str | None) -> Item:
        digest = hashlib.sha256(question.encode(errors="replace")).hexdigest()[:16]
        return Item(f"{self.name}:{digest}", question, answer, meta={"index": index})

    def judge_answer(self, item: Item, answer: str) -> Verdict:
        """The verdict of the generator's scorer: full marks pass, anything less fails."""
        if len(answer) > MAX_LENGTH:
            return failed("answer too long", answer[:200])
        if item.gold is not None and (trouble := _plainly_wrong(item.gold, answer)):
            return failed(trouble, answer)
        index = item.meta["index"]
        found = _pool().ask(["score", self.generator, self.config, index, item.question, answer])
        if isinstance(found, Unanswered):
            return undecided(f"scorer {found.reason}", answer)
        mark, reason = found
        return Verdict(Mark(mark), reason, answer)


_HEDGES: Final = re.compile(r"\b(?:or|not|either|maybe|nan)\b", re.IGNORECASE)


def _plainly_wrong(gold: str, answer: str) -> str | None:
    """What makes an answer wrong whatever a scorer says; several of them look for the right one in a text.

    They would pass `44 or 7` for 44, `not` and the right answer, `-44`, and a `nan` that equals no number.
    """
    allowed = {word.lower() for word in _HEDGES.findall(gold)}
    if any(word.lower() not in allowed for word in _HEDGES.findall(answer)):
        return "more than one answer"
    right = number(gold)
    if right is None:
        return None
    given = quantity(tidy(answer))
    if given is None:
        return "not one number"
    return "wrong answer" if (given.value > 0, given.value < 0) != (right > 0, right < 0) else None


def _pool() -> Pool:
    """The one that all judging shares."""
    return shared(_WORKER, SCORE_SECONDS)


class GymSpec(TaskSpec):
    """Any of reasoning-gym's generators by name, `gym:chain_sum`, judged by its own scorer."""

    name: str = f"{PREFIX}<generator>"
    config: dict[str, Any] = Field(default={})
    """The generator's own options, its `seed` among them, which is 0 if not given."""
    size: int = Field(default=1000, ge=1, le=1_000_000)
    """How many different items there are to draw from."""

    @field_validator("name")
    @classmethod
    def _named(cls, name: str) -> str:
        if not name.removeprefix(PREFIX).isidentifier():
            raise ValueError(f"name a generator, {PREFIX}chain_sum for one; `r1pipe tasks gym` lists them")
        return name

    @field_validator("config")
    @classmethod
    def _plain(cls, config: dict[str, Any]) -> dict[str, Any]:
        if "size" in config:
            raise ValueError("`size` stands beside `config`, not in it")
        return config

    def make(self) -> Gym:
        """The task. Raises `EnvironmentUnfit` where reasoning-gym is not installed."""
        if find_spec("reasoning_gym") is None:
            raise EnvironmentUnfit(
                f"The task {self.name!r} needs reasoning-gym, which is not there: pip install 'r1pipe[gym]'"
            )
        config = jsonl.dumps({"seed": 0, "size": self.size, **self.config}).decode()
        return Gym(self.name.removeprefix(PREFIX), config, self.size, self.truncated)


def generators() -> list[str]:
    """The names of all generators; none where reasoning-gym is not installed.

    Raises:
        EnvironmentUnfit: it is, and cannot be asked.
    """
    if find_spec("reasoning_gym") is None:
        return []
    with closing(Pool(_WORKER, size=1, deadline=GENERATE_SECONDS)) as pool:
        found = pool.ask(["names"])
    if isinstance(found, Unanswered):
        raise EnvironmentUnfit(f"reasoning-gym could not be asked for its generators: {found.reason}.")
    return list(found)
