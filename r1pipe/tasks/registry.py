"""Tasks by name, as a recipe writes them, and mixtures of them."""

from collections.abc import Sequence
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Discriminator, Field, Tag, TypeAdapter

from r1pipe.errors import UsageError
from r1pipe.tasks.base import Item, Task
from r1pipe.tasks.countdown import CountdownSpec
from r1pipe.tasks.documents import DocumentsSpec
from r1pipe.tasks.gym import PREFIX, GymSpec
from r1pipe.tasks.own import OwnSpec
from r1pipe.tasks.rows import ChoiceSpec, CodeSpec, ExactSpec, LogicSpec, MathSpec, OpenSpec, RowsSpec
from r1pipe.tasks.spec import TaskSpec

_OWN: Final = "module:Class"
_NAMED: Final = ("countdown", "math", "logic", "code", "choice", "exact", "open", "jsonl", "documents")


def _kind(value: Any) -> str:
    """Whose spec a recipe's value is, by its name."""
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", value)
    if name in _NAMED:
        return str(name)
    return PREFIX if isinstance(name, str) and name.startswith(PREFIX) else _OWN


AnyTask = Annotated[
    Annotated[CountdownSpec, Tag("countdown")]
    | Annotated[MathSpec, Tag("math")]
    | Annotated[LogicSpec, Tag("logic")]
    | Annotated[CodeSpec, Tag("code")]
    | Annotated[ChoiceSpec, Tag("choice")]
    | Annotated[ExactSpec, Tag("exact")]
    | Annotated[OpenSpec, Tag("open")]
    | Annotated[RowsSpec, Tag("jsonl")]
    | Annotated[DocumentsSpec, Tag("documents")]
    | Annotated[GymSpec, Tag(PREFIX)]
    | Annotated[OwnSpec, Tag(_OWN)],
    Discriminator(_kind),
]
"""A task as a recipe may write it."""

TaskSpecs = Annotated[
    list[AnyTask], Field(min_length=1), BeforeValidator(lambda v: v if isinstance(v, list) else [v])
]
"""One task or a list of them, as a recipe may write it."""

_ADAPTER: Final[TypeAdapter[TaskSpec]] = TypeAdapter(AnyTask)


def task_spec(value: Any) -> TaskSpec:
    """The spec that a recipe's value describes; raises pydantic's `ValidationError`."""
    return _ADAPTER.validate_python(value)


def items_of(spec: TaskSpec, seed: int) -> list[tuple[Task, Item]]:
    """The items of one spec with their task."""
    task = spec.make()
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
        return told_apart([pair for spec in specs for pair in items_of(spec, seed)])
    turns = _turns([spec.weight for spec in specs], count)
    streams = [iter(_stream(spec, turns.count(i), seed)) for i, spec in enumerate(specs)]
    return told_apart([next(streams[turn]) for turn in turns])


def told_apart(pairs: list[tuple[Task, Item]]) -> list[tuple[Task, Item]]:
    """The same, if an id names one problem: traces are counted, capped and deduplicated by it.

    Raises:
        UsageError: two problems have one id.
    """
    known: dict[str, Item] = {}
    for task, item in pairs:
        if task.rewords:
            continue
        other = known.setdefault(item.id, item)
        if other.gold != item.gold or other.question != item.question:
            raise UsageError(
                f"Two problems have the id {item.id!r}: {other.question[:60]!r} and {item.question[:60]!r}. "
                "Give the rows of different files different ids."
            )
    return pairs


def _stream(spec: TaskSpec, count: int, seed: int) -> list[tuple[Task, Item]]:
    task = spec.make()
    items = task.items(spec.chosen_split, count if spec.count is None else min(count, spec.count), seed)
    if not items:
        raise UsageError(f"The task {task.name!r} gives no items of the split {spec.chosen_split!r}.")
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
