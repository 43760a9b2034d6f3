"""The ratio of trainer to engine: its weights and figures by hand, and that no number escapes its bounds."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1pipe.rollout import Correction
from r1pipe.train.mismatch import ratio

NAN = math.nan
LOG2 = math.log(2)

MASK = torch.tensor([[1, 1, 1], [1, 0, 0]])
TRAINER = torch.tensor([[LOG2, -LOG2, 2 * LOG2], [-LOG2, 99.0, 99.0]]) - 3
ENGINE = torch.full((2, 3), -3.0)
"""Ratios 2, 1/2 and 4, and in the second row 1/2; the sequences' are 4 and 1/2."""


@pytest.mark.parametrize(
    ("correction", "weights"),
    [
        ("token_truncate", [[2, 0.5, 3], [0.5, 1, 1]]),
        ("token_mask", [[2, 0.5, 0], [0.5, 1, 1]]),
        ("sequence_truncate", [[3], [0.5]]),
        ("sequence_mask", [[0], [0.5]]),
        ("none", None),
    ],
)
def test_weights(correction: Correction, weights: list[list[float]] | None) -> None:
    """Beyond 3 a ratio is cut to 3 or left out; below 1 nothing is done to it. What is padding counts 1."""
    found = ratio(TRAINER, ENGINE, MASK, correction, 3.0).weights
    if weights is None:
        assert found is None
    else:
        assert found is not None
        torch.testing.assert_close(found, torch.tensor(weights, dtype=torch.float))


def test_figures_are_taken_before_the_cut() -> None:
    """|Δ| is log 2 × (1 + 1 + 2 + 1) / 4 over tokens; the ratio's mean is (2 + 1/2 + 4 + 1/2) / 4."""
    for correction in ("token_truncate", "token_mask", "none"):
        found = ratio(TRAINER, ENGINE, MASK, correction, 3.0)
        assert found.difference == pytest.approx(5 / 4 * LOG2)
        assert (found.mean, found.largest, found.cut) == pytest.approx((7 / 4, 4, 1 / 4))


def test_figures_of_sequences() -> None:
    """|Δ| stays one of tokens; mean, largest and cut are of the two sequences: 4 and 1/2."""
    for correction in ("sequence_truncate", "sequence_mask"):
        found = ratio(TRAINER, ENGINE, MASK, correction, 3.0)
        assert found.difference == pytest.approx(5 / 4 * LOG2)
        assert (found.mean, found.largest, found.cut) == pytest.approx((9 / 4, 4, 1 / 2))


def test_a_ratio_at_the_bound_counts_in_full() -> None:
    """The bound is the largest ratio that counts, not the smallest that does not."""
    mask, zeros = torch.ones(1, 1), torch.zeros(1, 1)
    for correction in ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask"):
        found = ratio(zeros, zeros, mask, correction, 1.0)
        assert found.weights is not None and found.weights.item() == 1.0 and found.cut == 0.0


def test_what_the_engine_could_not_tell() -> None:
    """NaN: that token's weight is 1, its sequence's ratio is that of the others, no figure counts it."""
    engine = torch.tensor([[-3.0, -3.0, NAN], [NAN, 0.0, 0.0]])
    by_token = ratio(TRAINER, engine, MASK, "token_truncate", 3.0)
    assert by_token.weights is not None
    torch.testing.assert_close(by_token.weights, torch.tensor([[2, 0.5, 1], [1, 1, 1]]))
    assert by_token.difference == pytest.approx(LOG2)
    assert (by_token.mean, by_token.largest, by_token.cut) == pytest.approx((5 / 4, 2, 0))
    by_sequence = ratio(TRAINER, engine, MASK, "sequence_truncate", 3.0)
    assert by_sequence.weights is not None
    torch.testing.assert_close(by_sequence.weights, torch.tensor([[1.0], [1.0]]))
    assert by_sequence.mean == pytest.approx(1.0)


def test_nothing_to_compare() -> None:
    """A micro-batch of masked completions has the figures of an engine that is exact."""
    for correction in ("token_truncate", "sequence_mask", "none"):
        found = ratio(TRAINER, ENGINE, torch.zeros_like(MASK), correction, 2.0)
        assert (found.difference, found.mean, found.largest, found.cut) == (0, 1, 1, 0)


def test_a_token_that_the_engine_gave_no_probability() -> None:
    """-inf on the engine's side is a ratio beyond every bound: cut to it, or left out."""
    trainer, engine, mask = torch.zeros(1, 1), torch.full((1, 1), -torch.inf), torch.ones(1, 1)
    expected = {"token_truncate": 2.0, "token_mask": 0.0, "sequence_truncate": 2.0, "sequence_mask": 0.0}
    for correction, weight in expected.items():
        found = ratio(trainer, engine, mask, correction, 2.0)  # type: ignore[arg-type]
        assert found.weights is not None and found.weights.item() == weight and found.cut == 1.0


numbers = st.floats(-200, 0, width=32)


@given(
    st.lists(st.tuples(numbers, numbers | st.just(NAN), st.booleans()), min_size=6, max_size=6),
    st.sampled_from(["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]),
    st.floats(1, 10),
    numbers,
)
def test_whatever_it_is_given(
    tokens: list[tuple[float, float, bool]], correction: Correction, bound: float, other: float
) -> None:
    """Weights are from 0 to the bound, and what is masked has no part in any of the results."""
    trainer, engine, mask = (torch.tensor(column).view(2, 3) for column in zip(*tokens, strict=True))
    found = ratio(trainer, engine, mask.long(), correction, bound)
    again = ratio(
        torch.where(mask, trainer, other), torch.where(mask, engine, -other), mask.long(), correction, bound
    )
    assert found.weights is not None and again.weights is not None
    assert bool(((found.weights >= 0) & (found.weights <= bound * (1 + 1e-6))).all())
    assert torch.equal(found.weights, again.weights)
    assert (found.difference, found.mean, found.largest, found.cut) == (
        again.difference,
        again.mean,
        again.largest,
        again.cut,
    )
    assert 0 <= found.cut <= 1 and found.difference >= 0
