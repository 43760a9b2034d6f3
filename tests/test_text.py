"""How numbers read, and the interval of a share."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1pipe.text import duration, half_width, percent, quantity, shortened, wilson


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1m 00s"),
        (192, "3m 12s"),
        (3599.6, "1h 00m"),
        (7500, "2h 05m"),
        (273_600, "3d 4h"),
    ],
)
def test_a_duration_has_at_most_two_units_and_never_sixty_of_one(seconds: float, text: str) -> None:
    """Rounding happens before the units are chosen, so that 59.6 seconds are a minute."""
    assert duration(seconds) == text


def test_quantities_have_three_digits() -> None:
    """Counts that round up to the next thousand are written in it."""
    assert [quantity(v) for v in (950, 999.9, 8123, 1_540_000)] == ["950", "1k", "8.12k", "1.54M"]


def test_a_small_share_is_not_shown_as_none() -> None:
    """0 % is only what is 0; half a percent keeps its digit."""
    assert [percent(v) for v in (0, 0.004, 0.0096, 0.123, 1)] == ["0 %", "0.4 %", "1 %", "12 %", "100 %"]


def test_wilson_equals_the_textbook() -> None:
    """For 8 of 10 the interval is 0.490 to 0.943 (Newcombe 1998, method 3); for none of 10 it starts at 0."""
    low, high = wilson(0.8, 10)
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)
    assert wilson(0, 10)[0] == 0 and round(wilson(0, 10)[1], 3) == 0.278


@given(st.floats(0, 1), st.integers(1, 10_000))
def test_wilson_holds_the_share_and_stays_between_0_and_1(share: float, count: int) -> None:
    """Whatever was seen lies in its own interval."""
    low, high = wilson(share, count)
    assert 0 <= low <= share + 1e-9 and share - 1e-9 <= high <= 1


def test_no_trials_have_no_interval() -> None:
    """An interval of nothing is an error, not 0 to 1."""
    with pytest.raises(ValueError, match="at least one"):
        wilson(0.5, 0)


def test_half_width_is_95_percent() -> None:
    """1.96 standard errors."""
    assert math.isclose(half_width(0.01), 0.0196)


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    """The answer stands at the end, so the end is kept."""
    assert shortened("a" * 50 + "b" * 50 + "answer", 30) == "a" * 20 + " […] " + "bbbbanswer"
    assert shortened("short", 30) == "short"
