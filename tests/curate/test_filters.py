"""Which completions are kept, and why the others are not."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from r1pipe.curate import Keep, curate
from r1pipe.curate.filters import at_most, deduplicate
from r1pipe.measure.samples import SampleRow, sample_row
from r1pipe.tasks.base import Item
from r1pipe.verify.verdict import Completion, Mark, Verdict

ITEM = Item("a", "nums 5 6 4 to 34", {"numbers": [5, 6, 4], "target": 34})
GOOD = "5 + 6 = 11 ; 11 + 4 = 15 no 5 * 6 = 30 ; 30 + 4 = 34 yes </think> so 34 <answer> 5 * 6 + 4 </answer>"


def _row(completion: str = GOOD, **other: Any) -> SampleRow:
    row = sample_row("countdown", ITEM, 0, Completion(completion, True, False, 30), Verdict(Mark.PASS))
    return {**row, **other}  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("row", "keep", "reason"),
    [
        (_row(), {}, None),
        (_row(truncated=True), {}, "truncated"),
        (_row(truncated=True), {"untruncated": False}, None),
        (_row(verdict="fail", reason="other numbers"), {}, "wrong: other numbers"),
        (_row(verdict="undecided", reason="timed out"), {}, "undecided: timed out"),
        (_row(verdict="fail", reason="other numbers"), {"correct": False}, None),
        (_row(f"{GOOD} more"), {}, "not well formed"),
        (_row(f"{GOOD} more"), {"well_formed": False}, None),
        (_row(reasoning=False), {}, "not well formed"),
        (_row(GOOD.replace("no", "bu")), {}, "mixed languages"),
        (_row(GOOD.replace("so", "suoyi")), {}, "mixed languages"),
        (_row(GOOD.replace("so", "suoyi")), {"single_language": 0.6}, None),
        (_row(GOOD.replace("so", "suoyi")), {"single_language": 0}, None),
        (_row(), {"language": "zh"}, "not in zh"),
        (_row(GOOD.replace("5 * 6 = 30 ; 30 + 4 = 34", "6 + 5 = 11 ; 4 + 11 = 15")), {}, "repeated attempts"),
        (_row(GOOD.replace("5 * 6 = 30 ; 30 + 4 = 34", "6 + 5 = 11 ; 4 + 11 = 15")), {"repeats": True}, None),
        (_row(), {"max_attempts": 1}, "too many attempts"),
        (_row(), {"max_attempts": 2}, None),
        (_row(), {"max_tokens": 29}, "too long"),
        (_row(), {"max_tokens": 30}, None),
        (_row("red blue", reasoning=False, opened=False), {"language": "en"}, None),
    ],
)
def test_keep(row: SampleRow, keep: dict[str, Any], reason: str | None) -> None:
    """Each option rejects what it names, with its reason, and nothing else."""
    curated = curate([row], Keep(**keep).steps())
    assert curated.rejected == ([] if reason is None else [{**row, "rejected": reason}])
    assert curated.kept == ([row] if reason is None else [])


def test_first_reason_counts() -> None:
    """A row with several faults is rejected once, by the first step that finds one."""
    row = _row(verdict="fail", reason="misses the target", truncated=True)
    assert curate([row], Keep().steps()).counts == {"kept": 0, "truncated": 1}


def test_deduplicate() -> None:
    """The same completion of the same problem is kept once, whatever its white space."""
    rows = [_row(), _row(GOOD.replace(" ", "  "), sample=1), _row(problem_id="b")]
    curated = deduplicate(rows)
    assert [row["problem_id"] for row in curated.kept] == ["a", "b"]
    assert [(row["sample"], row["rejected"]) for row in curated.rejected] == [(1, "duplicate")]


@pytest.mark.parametrize(
    ("prefer", "kept"),
    [("shortest", [("a", 1), ("a", 3), ("b", 0)]), ("first", [("a", 0), ("a", 1), ("b", 0)])],
)
def test_at_most(prefer: Any, kept: list[tuple[str, int]]) -> None:
    """So many of a problem are kept, shortest or first; of equals the earlier, and the order stays."""
    tokens = [9, 5, 7, 5]
    rows = [_row(sample=i, tokens=tokens[i]) for i in range(4)] + [_row(problem_id="b", tokens=50)]
    curated = at_most(2, prefer)(rows)
    assert [(row["problem_id"], row["sample"]) for row in curated.kept] == kept
    assert {row["rejected"] for row in curated.rejected} == {f"not among the {prefer} 2 of its problem"}


ROWS = st.builds(
    lambda problem, verdict, truncated, completion, tokens: _row(
        completion, problem_id=problem, verdict=verdict, truncated=truncated, tokens=tokens
    ),
    st.sampled_from("abc"),
    st.sampled_from(["pass", "fail", "undecided"]),
    st.booleans(),
    st.sampled_from([GOOD, GOOD.replace("no", "bu"), "no", ""]),
    st.integers(1, 50),
)


@given(st.lists(ROWS, max_size=30), st.integers(1, 3), st.sampled_from(["shortest", "first"]))
def test_counts_add_up(rows: list[SampleRow], per_problem: int, prefer: Any) -> None:
    """Whatever comes in is either kept or rejected with a reason; nothing is lost and nothing comes twice."""
    curated = curate(rows, Keep(max_tokens=40, per_problem=per_problem, prefer=prefer).steps())
    assert sum(curated.counts.values()) == len(rows)
    assert all(row["rejected"] for row in curated.rejected)
    without = [{name: value for name, value in row.items() if name != "rejected"} for row in curated.rejected]
    assert Counter(map(repr, [*curated.kept, *without])) == Counter(map(repr, rows))
    assert max(Counter(row["problem_id"] for row in curated.kept).values(), default=0) <= per_problem


def test_unknown_option() -> None:
    """A misspelt option is refused."""
    with pytest.raises(ValidationError, match="per_prolbem"):
        Keep(per_prolbem=1)  # type: ignore[call-arg]
