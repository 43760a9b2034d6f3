"""What a step may come to."""

import pytest

from r1pipe.world.arithmetic import apply


@pytest.mark.parametrize(
    ("left", "sign", "right", "value"),
    [
        (50, "+", 49, 99),
        (50, "+", 50, None),
        (4, "-", 4, 0),
        (4, "-", 5, None),
        (9, "*", 11, 99),
        (10, "*", 10, None),
        (12, "/", 4, 3),
        (12, "/", 5, None),
        (0, "/", 7, 0),
        (7, "/", 0, None),
        (0, "/", 0, None),
    ],
)
def test_values_stay_in_the_world(left: int, sign: str, right: int, value: int | None) -> None:
    """Whole, and 0 to 99, the ends included; nothing is divided by 0."""
    assert apply(left, sign, right) == value
