"""A judged completion as one row of JSON: what `sample` and `evaluate` write, and scores and filters read."""

from typing import Any

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict  # pydantic reads the docstrings of its fields

from r1pipe.prompting import Parsed, parse
from r1pipe.tasks.base import Item
from r1pipe.verify.verdict import Completion, Verdict


@with_config(ConfigDict(extra="forbid", use_attribute_docstrings=True))
class SampleRow(TypedDict):
    """One of the completions of one problem."""

    problem_id: str
    """The item's id; rows that share it are samples of one problem."""
    sample: int
    """Which of the problem's samples, from 0."""
    task: str
    """The task's name; in a mixture, its domain."""
    question: str
    """What was asked, without the words that a template puts around it."""
    gold: Any
    """The item's own; countdown's holds the target that verdicts inside the trace are checked against."""
    reasoning: bool
    """Whether thinking was asked for."""
    opened: bool
    """Whether the prompt ended in an opened `<think>`."""
    completion: str
    """As it was generated, without the end-of-sequence token; where `opened`, it starts in the thinking."""
    tokens: int
    """Generated tokens, the end-of-sequence token included."""
    truncated: bool
    """Whether the token limit cut it off."""
    verdict: str
    """`pass`, `fail`, `undecided`, or `unjudged`: an open question's answer, which nothing but a preference
    model may say something of."""
    reason: str
    """Why it did not pass, in a few words; empty for a pass."""
    answer: str | None
    """The answer that was extracted and judged, in the judge's normal form; what a majority vote counts."""


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
