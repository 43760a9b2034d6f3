"""Columns of the table of scores."""

from r1pipe.columns import COLUMNS, pass_at_1, sample_size

BY_KEY = {column.key: column for column in COLUMNS}


def test_a_rate_has_an_interval_and_a_mean_has_none() -> None:
    """By its standard error where it has one, else Wilson's."""
    truncated = BY_KEY["truncated"]
    assert truncated.interval({"truncated": 0.1, "samples": 100}) == "6 % to 17 %"
    assert truncated.interval({"truncated": 0.1, "truncated_stderr": 0.02, "samples": 100}) == "± 4 %"
    assert BY_KEY["attempts"].interval({"attempts": 4.5, "samples": 100}) == ""


def test_what_could_not_be_measured_is_a_dash() -> None:
    """Not a zero."""
    column = BY_KEY["verdict_validity"]
    assert column.text({"verdict_validity": None}) == "–" == column.text({})
    assert column.interval({"verdict_validity": None, "samples": 10}) == ""
    assert pass_at_1({"pass_at_1": None}) == "–"


def test_pass_at_1_carries_half_of_its_interval() -> None:
    """1.96 standard errors; alone where there is none, as for a single problem."""
    assert pass_at_1({"pass_at_1": 0.742, "stderr": 0.0107}) == "0.742 ± 0.021"
    assert pass_at_1({"pass_at_1": 1.0, "stderr": None}) == "1.000"


def test_the_sample_size_says_problems_and_samples() -> None:
    """As a product when every problem has the same number."""
    assert sample_size({"problems": 848, "samples": 3392}) == "848 × 4"
    assert sample_size({"problems": 3, "samples": 10}) == "3 (10 samples)"
