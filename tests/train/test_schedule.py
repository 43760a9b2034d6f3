"""Schedules: what holds at which step, and the legs that a training falls into."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, PositiveFloat, PositiveInt, ValidationError

from r1pipe.train.schedule import Leg, Steps, legs, steps_of, value_at, well_formed


class Config(BaseModel):
    """A value that may change, as a stage has it."""

    tokens: PositiveInt | Steps[PositiveInt]
    temperature: PositiveFloat | Steps[PositiveFloat] = 1.0


schedules = st.dictionaries(st.integers(1, 60), st.integers(1, 9), max_size=6).map(lambda rest: {0: 1} | rest)


def test_a_value_holds_from_its_step_on() -> None:
    """`{0: 8, 2: 16, 5: 4}`: 8 for the steps 0 and 1, 16 for 2 to 4, then 4; a bare number for ever."""
    assert [value_at({0: 8, 2: 16, 5: 4}, step) for step in range(7)] == [8, 8, 16, 16, 16, 4, 4]
    assert [value_at(steps_of(3), step) for step in (0, 10**9)] == [3, 3]


def test_the_legs_of_a_training() -> None:
    """A leg ends where any schedule changes; what would change after the last step is no leg."""
    assert list(legs(10)) == [Leg(0, 10)]
    assert list(legs(10, {0: 1, 4: 2}, {0: 1, 4: 2, 7: 1})) == [Leg(0, 4), Leg(4, 7), Leg(7, 10)]
    assert list(legs(4, {0: 1, 4: 2, 5: 3})) == [Leg(0, 4)]
    assert list(legs(1, {})) == [Leg(0, 1)]


@given(st.integers(1, 70), schedules, schedules)
def test_nothing_changes_within_a_leg(steps: int, one: dict[int, int], other: dict[int, int]) -> None:
    """Legs cover every step once, in order, and each schedule has one value over the whole of each."""
    made = list(legs(steps, one, other))
    assert [step for leg in made for step in range(leg.begin, leg.end)] == list(range(steps))
    for leg in made:
        for schedule in (one, other):
            assert len({value_at(schedule, step) for step in range(leg.begin, leg.end)}) == 1


@given(schedules.flatmap(lambda made: st.permutations(list(made.items()))))
def test_the_order_says_nothing(pairs: list[tuple[int, int]]) -> None:
    """A schedule is by rising steps however it was written: an override adds its step at the end."""
    assert list(well_formed(dict(pairs)).items()) == sorted(pairs)


@pytest.mark.parametrize("given_schedule", [{}, {1: 8}, {-1: 8, 0: 4}])
def test_a_schedule_begins_with_step_0(given_schedule: dict[int, int]) -> None:
    """Otherwise nothing would hold at the first step, or something would before it."""
    with pytest.raises(
        ValidationError, match=r"a schedule begins with step 0, e.g. \{0: 32768, 8192: 65536\}"
    ):
        Config(tokens=given_schedule)


@pytest.mark.parametrize("wrong", [0, -1, {0: 0}, {0: 8, 4: -2}, {0: 1.5}, {"first": 8}, "many"])
def test_what_is_no_value_is_none_at_any_step(wrong: Any) -> None:
    """The bounds of the bare number are those of each value; a step is a whole number."""
    with pytest.raises(ValidationError):
        Config(tokens=wrong)


def test_what_yaml_and_json_make_of_it() -> None:
    """Their keys are text, and sorted JSON puts 10 before 2; the schedule is the same, and so is its JSON."""
    made = Config.model_validate({"tokens": {"0": 32, "10": 128, "2": 64}, "temperature": {"0": 1, "8": 0.5}})
    assert list(steps_of(made.tokens).items()) == [(0, 32), (2, 64), (10, 128)]
    assert made.temperature == {0: 1.0, 8: 0.5}
    assert Config.model_validate_json(made.model_dump_json()) == made
