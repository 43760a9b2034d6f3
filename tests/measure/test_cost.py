"""What generating costs, and when it will be done."""

import pytest
from pydantic import ValidationError

from r1pipe.measure.cost import Price
from r1pipe.measure.pace import Pace


@pytest.mark.parametrize(
    ("price", "usd"),
    [
        ({"gpu_hour": 2.5, "gpus": 4}, 5.0),
        ({"million_tokens": 2.0}, 6.0),
        ({"million_prompt_tokens": 0.5, "million_tokens": 2.0}, 6.05),
        ({"gpu_hour": 2.0, "million_tokens": 1.0}, 4.0),
    ],
)
def test_by_time_and_by_tokens(price: dict[str, float], usd: float) -> None:
    """Half an hour, in which 100,000 tokens were read and three millions written."""
    assert Price.model_validate(price).of(seconds=1800, prompt_tokens=100_000, tokens=3_000_000) == usd


@pytest.mark.parametrize("price", [{}, {"gpus": 8}, {"gpu_hour": 0}])
def test_a_price_of_nothing_is_a_mistake(price: dict[str, float]) -> None:
    """Rather than traces for nothing."""
    with pytest.raises(ValidationError, match="leave out price where nothing is paid"):
        Price.model_validate(price)


def test_the_end_is_where_the_first_of_two_targets_is_met() -> None:
    """Ten completions and two accepted in five seconds: 2 and 0.4 in a second."""
    pace = Pace()
    assert pace.eta(10, 1) is None and pace.accepted_per_second == 0
    pace.add(5.0, 10, 2)
    assert pace.eta(100, None) == 50.0
    assert pace.eta(100, 4) == pytest.approx(10.0)
    assert pace.eta(4, 400) == 2.0


def test_without_one_accepted_the_completions_tell_the_end() -> None:
    """No division by nothing."""
    pace = Pace()
    pace.add(5.0, 10, 0)
    assert pace.eta(20, 4) == 10.0


def test_what_was_long_ago_counts_no_more() -> None:
    """Twenty batches of one a second after a slow one."""
    pace = Pace()
    pace.add(1000.0, 1, 1)
    for _ in range(20):
        pace.add(1.0, 1, 1)
    assert pace.eta(7, None) == 7.0
