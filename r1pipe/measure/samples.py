"""A judged completion as one row of JSON: what `sample` and `evaluate` write, and scores and filters read."""

from typing import Any, TypedDict

from r1pipe.prompting import Parsed, parse
from r1pipe.tasks.base import Item
from r1pipe.verify.verdict import Completion, Verdict


class SampleRow(TypedDict):
    """One of the completions of one problem."""

    problem_id: str
    """The item's id; rows that share it are samples of one problem."""
    sample: int
    """Which of the problem's samples, from 0."""
    task: str
    question: str
    gold: Any
    """The item's own; countdown's holds the target that verdicts inside the trace are checked against."""
    reasoning: bool
    """Whether thinking was asked for."""
    opened: bool
    """Whether the prompt ended in an opened `<think>`."""
    completion: str
    tokens: int
    """Generated tokens, the end-of-sequence token included."""
    truncated: bool
    verdict: str
    """`pass`, `fail` or `undecided`."""
    reason: str
    """Why it did not pass."""
    answer: str | None
    """The answer that was judged; what a majority vote counts."""


def sample_row(task: str, item: Item, sample: int, completion: Completion, verdict: Verdict) -> SampleRow:
    """The row of one judged completion."""
    return SampleRow(
        problem_id=item.id,
        sample=sample,
        task=task,
        question=item.question,
        gold=item.gold,
        reasoning=item.reasoning,
        opened=completion.opened,
        completion=completion.text,
        tokens=completion.tokens,
        truncated=completion.truncated,
        verdict=verdict.mark.value,
        reason=verdict.reason,
        answer=verdict.extracted,
    )


def parsed(row: SampleRow) -> Parsed:
    """The parts of a row's completion."""
    return parse(row["completion"], row["opened"])


def target_of(row: SampleRow) -> int | None:
    """The number that a row's trace tries to reach, where the task has one."""
    gold = row["gold"]
    target = gold.get("target") if isinstance(gold, dict) else None
    return target if isinstance(target, int) else None
