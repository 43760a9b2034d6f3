"""Values that change in the course of a training, and the legs it falls into. Plain Python."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator

Number = TypeVar("Number", int, float)


def well_formed(steps: Mapping[int, Any]) -> dict[int, Any]:
    """A schedule by rising steps, however it was written down; raises `ValueError` unless it begins at 0.

    An override adds its step last, and JSON with sorted keys puts 10 before 2: the order says nothing.
    """
    if not steps or min(steps) != 0:
        raise ValueError("a schedule begins with step 0, e.g. {0: 32768, 8192: 65536}")
    return dict(sorted(steps.items()))


Steps = Annotated[dict[int, Number], AfterValidator(well_formed)]
"""`{0: 32768, 8192: 65536}`: from the step on that stands before it, a value holds."""


def steps_of(value: Number | Mapping[int, Number]) -> Mapping[int, Number]:
    """A bare number as a schedule that never changes."""
    return value if isinstance(value, Mapping) else {0: value}


def value_at(steps: Mapping[int, Number], step: int) -> Number:
    """What holds at a step, counted from 0."""
    return steps[max(begin for begin in steps if begin <= step)]


@dataclass(frozen=True, slots=True)
class Leg:
    """A stretch of a training over which nothing changes."""

    begin: int
    end: int
    """The step after its last one."""


def legs(steps: int, *schedules: Mapping[int, Any]) -> Iterator[Leg]:
    """The legs of a training of `steps` steps, in order; they cover all of it."""
    begins = sorted({begin for schedule in schedules for begin in schedule if begin < steps} | {0})
    for begin, end in zip(begins, [*begins[1:], steps], strict=True):
        yield Leg(begin, end)
