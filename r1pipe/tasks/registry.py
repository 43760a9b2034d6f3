"""Tasks by name, as a recipe writes them, and mixtures of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from r1pipe.errors import UsageError
from r1pipe.stage import DataPath
from r1pipe.tasks.base import Item, JudgeRule, Split, Task, TruncatedRule
from r1pipe.tasks.countdown import Countdown, Wording
from r1pipe.tasks.documents import Documents
from r1pipe.tasks.rows import Rows

TaskName = Literal["countdown", "documents", "jsonl"]

_OWN_FIELDS: Final[dict[TaskName, tuple[str, ...]]] = {
    "countdown": ("numbers", "wording"),
    "jsonl": ("path", "question_column", "answer_column", "judge", "reasoning"),
}


class TaskSpec(BaseModel):
    """A task as a recipe writes it: a bare name, or a mapping of these fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: TaskName
    """`countdown`, `documents`, or `jsonl` for rows of your own."""
    split: Split | None = None
    """`seen`, `held-out` or `all`; the default is `seen` for the tiny world's tasks and `all` for `jsonl`."""
    count: int | None = Field(default=None, ge=1)
    """How many items are used; one pass over the split when it is not set."""
    weight: float = Field(default=1.0, gt=0)
    """Its share of a mixture, beside the other tasks' weights."""
    truncated: TruncatedRule = "fail"
    """What a completion that the token limit cut off counts as: `fail`, or `undecided` to leave it out."""
    numbers: Literal[3, 4] = 3
    """countdown: how many numbers; four are a harder tier that is held out whole."""
    wording: Wording = "tokens"
    """countdown: `tokens` for the tiny world, `sentence` for a model that reads English."""
    path: DataPath | None = None
    """jsonl: the file, or a dataset's folder; what is in it counts, not where it lies."""
    question_column: str | None = None
    """jsonl: the column that holds the question; `question`, `problem` or `prompt` when it is not set."""
    answer_column: str | None = None
    """jsonl: the column that holds the right answer; `answer` or `solution` when it is not set."""
    judge: JudgeRule = "math"
    """jsonl: `exact` compares text, `number` compares numbers, `math` asks math-verify as well."""
    reasoning: bool = True
    """jsonl: whether the prompt opens `<think>`."""

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _whole(self) -> "TaskSpec":
        for owner, fields in _OWN_FIELDS.items():
            for field in fields if owner != self.name else ():
                # Not `model_fields_set`: a resolved recipe names every field, and is validated again.
                if getattr(self, field) != type(self).model_fields[field].default:
                    raise ValueError(f"task {self.name!r} takes no {field!r}; it belongs to task {owner!r}")
        if self.name == "jsonl" and self.path is None:
            raise ValueError("task 'jsonl' needs a path")
        if self.name == "countdown" and self.numbers == 4 and self.split == "seen":
            raise ValueError("countdown with 4 numbers is held out whole; set split: held-out")
        return self

    @property
    def chosen_split(self) -> Split:
        """The split that is meant when none is written."""
        if self.split is not None:
            return self.split
        if self.name == "jsonl":
            return "all"
        return "held-out" if self.name == "countdown" and self.numbers == 4 else "seen"


TaskSpecs = Annotated[list[TaskSpec], BeforeValidator(lambda v: v if isinstance(v, list) else [v])]
"""One task or a list of them, as a recipe may write it."""


def make_task(spec: TaskSpec) -> Task:
    """The task that a spec describes.

    Raises:
        UsageError: a file of rows is missing, or no row of it can be used.
    """
    if spec.name == "countdown":
        return Countdown(numbers=spec.numbers, wording=spec.wording, truncated=spec.truncated)
    if spec.name == "documents":
        return Documents(truncated=spec.truncated)
    assert spec.path is not None
    return Rows.read(
        Path(spec.path).expanduser(),
        rule=spec.judge,
        question_column=spec.question_column,
        answer_column=spec.answer_column,
        reasoning=spec.reasoning,
        truncated=spec.truncated,
    )


def items_of(spec: TaskSpec, seed: int) -> list[tuple[Task, Item]]:
    """The items of one spec with their task."""
    task = make_task(spec)
    return [(task, item) for item in task.items(spec.chosen_split, spec.count, seed)]


def mixture(specs: Sequence[TaskSpec], count: int | None, seed: int) -> list[tuple[Task, Item]]:
    """`count` items of several tasks, interleaved so that every stretch holds them by their weights.

    Item i is a function of the seed and i, so a longer mixture starts with a shorter one. A spec's own
    `count` bounds how many different items it gives before they come again. Without `count`, every spec gives
    its items once, one spec after another.

    Raises:
        UsageError: no spec, a spec that gives no items, or two problems under one id.
    """
    if not specs:
        raise UsageError("A mixture needs at least one task.")
    if count is None:
        return _told_apart([pair for spec in specs for pair in items_of(spec, seed)])
    turns = _turns([spec.weight for spec in specs], count)
    streams = [iter(_stream(spec, turns.count(i), seed)) for i, spec in enumerate(specs)]
    return _told_apart([next(streams[turn]) for turn in turns])


def _told_apart(pairs: list[tuple[Task, Item]]) -> list[tuple[Task, Item]]:
    """The same, if an id names one problem: traces are counted, capped and deduplicated by it."""
    known: dict[str, Item] = {}
    for task, item in pairs:
        if not isinstance(task, Rows):  # the tiny world asks a problem in several orders of its numbers
            continue
        other = known.setdefault(item.id, item)
        if other.gold != item.gold and other.question != item.question:
            raise UsageError(
                f"Two problems have the id {item.id!r}: {other.question[:60]!r} and {item.question[:60]!r}. "
                "Give the rows of different files different ids."
            )
    return pairs


def _stream(spec: TaskSpec, count: int, seed: int) -> list[tuple[Task, Item]]:
    task = make_task(spec)
    items = task.items(spec.chosen_split, count if spec.count is None else min(count, spec.count), seed)
    return [(task, items[i % len(items)]) for i in range(count)]


def _turns(weights: Sequence[float], count: int) -> list[int]:
    """Which spec each position goes to: the one that is furthest behind its share, the first of equals."""
    total, given, turns = sum(weights), [0] * len(weights), []
    for position in range(1, count + 1):
        behind = [weight * position / total - had for weight, had in zip(weights, given, strict=True)]
        turn = max(range(len(weights)), key=behind.__getitem__)
        given[turn] += 1
        turns.append(turn)
    return turns
