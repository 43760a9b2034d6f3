"""The checks of what tiny-r1 is to show: each holds at its bound and is missed by any less."""

from typing import Any

import pytest

from bench.claims import Claim, Means, SeedResult, claims, persistence_share, resources
from bench.common import Usage

PASS_AT_1 = {
    "base": 0.21,
    "zero": 0.75,
    "cold": 0.62,
    "reasoner": 0.73,
    "sft": 0.71,
    "r1": 0.74,
    "student-base": 0.15,
    "student": 0.5,
    "student-rl": 0.4,
}
LANGUAGE = {"base": 0.9, "zero": 0.8}


def score(model: str, **changes: Any) -> dict[str, Any]:
    return {
        "problems": 600,
        "samples": 2400,
        "pass_at_1": PASS_AT_1[model],
        "stderr": 0.015,
        "pass_at_k": {"16": 0.9},
        "mean_tokens": 30.0 if model == "base" else 60.0,
        "language_consistency": LANGUAGE.get(model, 0.98),
        "truncated": 0.3 if "base" in model else 0.01,
    } | changes


def seed(number: int = 0, **changes: dict[str, Any]) -> SeedResult:
    """A run of which every claim holds, but for what `changes` says of a model's held-out scores."""
    models = {
        model: {"sets": {"held-out": score(model, **changes.get(model.replace("-", "_"), {}))}}
        for model in PASS_AT_1
    }
    return SeedResult(number, models, {"student": 50.0, "student-rl": 90.0})


def missed(*seeds: SeedResult) -> list[str]:
    return [claim.text for claim in claims(seeds) if not claim.held]


def three(**changes: dict[str, Any]) -> list[SeedResult]:
    return [seed(number, **changes) for number in range(3)]


def test_all_claims_hold() -> None:
    """Three seeds that keep every bound miss nothing, and nothing is left out of the list."""
    assert missed(*three()) == []
    assert len(claims(three())) == 17


@pytest.mark.parametrize(
    ("changes", "claim"),
    [
        ({"zero": {"pass_at_1": 0.5099}}, "zero >= base + 0.30"),
        ({"zero": {"mean_tokens": 44.9}}, "length of zero >= 1.5 x that of base"),
        ({"cold": {"pass_at_1": 0.7001}}, "reasoner >= cold + 0.03"),
        ({"sft": {"pass_at_1": 0.5099}}, "sft >= base + 0.30"),
        ({"r1": {"pass_at_1": 0.6999}}, "r1 >= 0.70"),
        ({"sft": {"pass_at_1": 0.7401}}, "r1 >= sft"),
        ({"zero": {"pass_at_1": 0.78}}, "r1 >= zero - 2 standard errors"),
        ({"zero": {"language_consistency": 0.9}}, "language consistency of zero < that of base"),
        ({"cold": {"language_consistency": 0.9699}}, "language consistency of cold >= 0.97"),
        ({"reasoner": {"language_consistency": 0.9699}}, "language consistency of reasoner >= 0.97"),
        ({"r1": {"language_consistency": 0.9699}}, "language consistency of r1 >= 0.97"),
        ({"student": {"pass_at_1": 0.4499}}, "student >= student-rl + 0.05"),
        (
            {"student": {"truncated": 0.0501}},
            "truncated on held-out problems <= 0.05 for every model but the bases (the largest)",
        ),
        ({"r1": {"problems": 599}}, "held-out problems of every model"),
        ({"r1": {"samples": 2399}}, "held-out completions of every model"),
    ],
)
def test_each_claim_can_be_missed(changes: dict[str, Any], claim: str) -> None:
    """A little less than the bound in every seed is missed, and shown as such, not rounded away."""
    assert claim in missed(*three(**changes))


def test_a_figure_at_its_bound_holds() -> None:
    """Bounds are inclusive, but for `below the base's`."""
    assert Claim("", 0.7, ">=", 0.7).held
    assert Claim("", 0.05, "<=", 0.05).held
    assert not Claim("", 0.9, "<", 0.9).held


def test_claims_are_about_means() -> None:
    """One seed below the bound is no miss when the mean is not; one seed alone is missed as too few."""
    low, high = {"zero": {"pass_at_1": 0.5}}, {"zero": {"pass_at_1": 0.8}}
    assert "zero >= base + 0.30" not in missed(seed(0, **low), seed(1, **high), seed(2))
    assert missed(seed()) == ["seeds"]
    assert missed(seed(), seed(), seed()) == ["seeds"]


def test_more_compute_for_the_student_is_a_miss() -> None:
    """The control may not have had less."""
    spent = SeedResult(0, seed().models, {"student": 91.0, "student-rl": 90.0})
    assert "CPU seconds of student <= those of student-rl" in missed(spent)


def test_what_was_not_measured_is_missed() -> None:
    """Without a model, or with it in two of three seeds only, its claims have no value."""
    without = SeedResult(2, {name: each for name, each in seed().models.items() if name != "r1"}, {})
    found = {claim.text: claim for claim in claims([seed(0), seed(1), without])}
    assert found["r1 >= 0.70"].value is None
    assert not found["r1 >= 0.70"].held
    assert not found["r1 >= sft"].held
    assert not found["held-out problems of every model"].held
    assert found["zero >= base + 0.30"].held


def test_means_and_errors() -> None:
    """Over three seeds with 0.6, 0.7, 0.8 the mean is 0.7 and its error 0.1 / sqrt(3); one has no error."""
    seeds = [seed(number, zero={"pass_at_1": 0.6 + number / 10}) for number in range(3)]
    mean = Means(seeds).of("zero", "pass_at_1")
    assert mean is not None and mean.stderr is not None
    assert mean.value == pytest.approx(0.7)
    assert mean.stderr == pytest.approx(0.1 / 3**0.5)
    assert Means(seeds[:1]).of("zero", "pass_at_1").stderr is None  # type: ignore[union-attr]
    assert Means(seeds).value("zero", "pass_at_k.16") == pytest.approx(0.9)
    assert Means(seeds).value("zero", "pass_at_k.32") is None
    error = (3 * 2 * 0.015**2) ** 0.5 / 3
    assert Means(seeds).error_of_difference("zero", "r1") == pytest.approx(error)


def test_the_share_that_is_persistence() -> None:
    """From 0.21 to 0.75 with 0.48 by persistence alone: half of the gain."""
    models = dict(seed().models)
    models["base"] = {"sets": {**models["base"]["sets"], "persist": score("base", pass_at_1=0.48)}}
    assert persistence_share(Means([SeedResult(0, models, {})])) == pytest.approx(0.5)
    assert persistence_share(Means([seed()])) is None


def test_what_a_run_may_take() -> None:
    """The longest and the largest count, of those that were measured; where none was, all is missed."""
    small, at_the_bound = Usage(600.0, 10**9, 0), Usage(900.0, 4 * 10**9, 0)
    assert [claim.held for claim in resources([small, at_the_bound])] == [True, True]
    assert [claim.held for claim in resources([Usage(900.1, 4 * 10**9 + 1, 0), small])] == [False, False]
    assert resources([small, Usage(0, 0, 0)]) == resources([small])
    assert [(claim.value, claim.held) for claim in resources([Usage(0, 0, 0)])] == [(None, False)] * 2
