"""Choosing in batches comes to the same as choosing at once."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1pipe.curate import Harvest, Keep, curate
from r1pipe.measure.samples import SampleRow, sample_row
from r1pipe.tasks.base import Item
from r1pipe.verify.verdict import Completion, Mark, Verdict


def row(problem: str, sample: int, text: str, mark: Mark = Mark.PASS) -> SampleRow:
    item = Item(problem, "q", "a", reasoning=False)
    return sample_row(
        "documents", item, sample, Completion(text, False, False, len(text)), Verdict(mark, "why")
    )


rows = st.lists(
    st.builds(
        row,
        st.sampled_from("ab"),
        st.integers(0, 9),
        st.sampled_from(["x", "xx", "xxx"]),
        st.sampled_from(list(Mark)),
    ),
    max_size=12,
)


@given(rows, st.integers(1, 5), st.sampled_from([None, 1, 2]))
def test_batches_do_not_matter(given_rows: list[SampleRow], size: int, per_problem: int | None) -> None:
    """However the rows are cut, the same are kept, and for every reason the same number rejected."""
    keep = Keep(per_problem=per_problem)
    harvest = Harvest(keep)
    for start in range(0, len(given_rows), size):
        harvest.add(given_rows[start : start + size])
    assert harvest.chosen().kept == curate(given_rows, keep.steps()).kept
    assert harvest.chosen().counts == curate(given_rows, keep.steps()).counts
    assert harvest.generated == len(given_rows)
    assert harvest.undecided == Counter(each["verdict"] for each in given_rows)["undecided"]
    assert not harvest.full()


@pytest.mark.parametrize(("limit", "full"), [(1, True), (2, True), (3, False)])
def test_full_counts_what_would_be_kept(limit: int, full: bool) -> None:
    """A duplicate and a wrong answer bring no limit nearer; of more than the limit the first are kept."""
    harvest = Harvest(Keep(), limit)
    harvest.add([row("a", 0, "x"), row("a", 1, "x"), row("a", 2, "z", Mark.FAIL), row("b", 0, "y")])
    assert harvest.full() is full
    assert [each["problem_id"] for each in harvest.chosen().kept] == ["a", "b"][:limit]
    assert harvest.chosen().counts == {
        "kept": min(limit, 2),
        "duplicate": 1,
        "wrong: why": 1,
        **({"beyond the limit": 1} if limit == 1 else {}),
    }
