"""Scores from judged samples."""

from math import sqrt
from typing import Any

import pytest

from r1pipe.errors import UsageError
from r1pipe.measure.samples import SampleRow, sample_row, target_of
from r1pipe.measure.scores import score
from r1pipe.tasks.base import Item
from r1pipe.verify.verdict import Completion, Mark, Verdict

ITEM = Item("countdown-3:4-5-6:34", "nums 5 6 4 to 34", {"numbers": [5, 6, 4], "target": 34})


def _row(problem: str, sample: int, mark: str = "pass", completion: str = "", **other: Any) -> SampleRow:
    row = sample_row("countdown", ITEM, sample, Completion(completion, True, False, 10), Verdict(Mark(mark)))
    return {**row, "problem_id": problem, **other}  # type: ignore[typeddict-item]


def test_sample_row() -> None:
    """The row holds what a later reader needs to judge and measure the completion again."""
    completion = Completion("5 </think> <answer> 5 </answer>", True, False, 9)
    assert sample_row("countdown", ITEM, 3, completion, Verdict(Mark.FAIL, "other numbers", "5")) == {
        "problem_id": "countdown-3:4-5-6:34",
        "sample": 3,
        "task": "countdown",
        "question": "nums 5 6 4 to 34",
        "gold": {"numbers": [5, 6, 4], "target": 34},
        "reasoning": True,
        "opened": True,
        "completion": "5 </think> <answer> 5 </answer>",
        "tokens": 9,
        "truncated": False,
        "verdict": "fail",
        "reason": "other numbers",
        "answer": "5",
    }


def test_target_of() -> None:
    """Only a gold with a whole target has one."""
    assert target_of(_row("a", 0)) == 34
    assert target_of(_row("a", 0, gold="red blue")) is None


def test_passing() -> None:
    """pass@1 is the mean of the shares 1, 1/2, 0; its error is their deviation 1/2 over the root of 3."""
    rows = [
        _row("a", 0),
        _row("a", 1),
        _row("b", 0),
        _row("b", 1, "fail"),
        _row("c", 0, "fail"),
        _row("c", 1, "fail"),
    ]
    scores = score(rows)
    assert (scores["problems"], scores["samples"], scores["undecided"]) == (3, 6, 0)
    assert scores["pass_at_1"] == pytest.approx(0.5)
    assert scores["stderr"] == pytest.approx(0.5 / sqrt(3))
    assert scores["pass_at_k"] == {"1": pytest.approx(0.5), "2": pytest.approx(2 / 3)}


def test_clusters_are_wider_than_samples() -> None:
    """Samples of one problem are not independent: four equal ones are worth as much as one."""
    once = [_row("a", 0), _row("b", 0, "fail"), _row("c", 0)]
    often = [_row(row["problem_id"], i, row["verdict"]) for row in once for i in range(4)]
    assert score(often)["stderr"] == score(once)["stderr"]


def test_undecided_is_in_no_rate() -> None:
    """An undecided sample is counted and changes neither pass@1 nor pass@k."""
    rows = [_row("a", 0), _row("a", 1, "undecided"), _row("b", 0, "fail"), _row("c", 0, "undecided")]
    scores = score(rows)
    assert (scores["problems"], scores["samples"], scores["undecided"]) == (3, 4, 2)
    assert scores["pass_at_1"] == 0.5
    assert scores["pass_at_k"] == {"1": 0.5}


def test_nothing_decided() -> None:
    """Without a decided sample there is no rate, and not a rate of zero."""
    scores = score([_row("a", 0, "undecided")])
    assert (scores["pass_at_1"], scores["stderr"], scores["pass_at_k"]) == (None, None, {})


def test_one_problem_has_no_error() -> None:
    """The spread over problems is unknown when there is one."""
    assert score([_row("a", 0), _row("a", 1)])["stderr"] is None


def test_majority_counts_answers() -> None:
    """maj@k votes over the answers in the order of the samples."""
    answers = [("fail", "x"), ("pass", "y"), ("pass", "y"), ("fail", "z")]
    rows = [_row("a", i, mark, answer=answer) for i, (mark, answer) in enumerate(answers)]
    assert score(rows[::-1])["maj_at_k"] == {"1": 0.5, "2": 0.5, "4": 1.0}


def test_texts() -> None:
    """Lengths, truncation, form and what happens inside the thinking, over two traces."""
    whole = "5 + 4 = 9 ; 9 + 6 = 15 no 5 * 6 = 31 ; 31 + 4 = 34 yes </think> <answer> 5 * 6 + 4 </answer>"
    cut = "5 + 4 = 9 ; 9 + 6 = 15 no 4 + 5 = 9 ; 6 + 9 = 15 bu"
    scores = score(
        [_row("a", 0, completion=whole, tokens=30), _row("b", 0, "fail", cut, tokens=20, truncated=True)]
    )
    assert scores["mean_tokens"] == 25
    assert scores["truncated"] == 0.5
    assert scores["well_formed"] == 0.5
    assert scores["attempts"] == 2.0
    assert scores["reflection"] == 1.0
    assert scores["language_consistency"] == 0.75
    assert scores["repeated_attempts"] == 0.25
    assert scores["arithmetic_validity"] == 0.75
    assert scores["verdict_validity"] == 1.0


def test_prose_has_no_attempts() -> None:
    """Not even none, although an empty thinking beside it would be in the grammar."""
    prose = "Let us try five plus four. </think> <answer> 9 </answer>"
    scores = score([_row("a", 0, completion=prose), _row("b", 0, completion="</think> <answer> 9 </answer>")])
    inside = ("attempts", "repeated_attempts", "arithmetic_validity", "verdict_validity")
    assert [scores[name] for name in inside] == [None] * 4


def test_no_thinking_asked_for() -> None:
    """Questions that need no thinking have a form and no trace."""
    scores = score([_row("a", 0, completion="red blue", gold="red blue", reasoning=False, opened=False)])
    assert scores["well_formed"] == 1.0
    inside = ("attempts", "reflection", "language_consistency", "repeated_attempts", "arithmetic_validity")
    assert [scores[name] for name in inside] == [None] * 5


def test_no_rows() -> None:
    """Nothing to score is a usage error."""
    with pytest.raises(UsageError, match="no samples"):
        score([])
