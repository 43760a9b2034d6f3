"""How often a policy solves each prompt, measured before RL, so that only prompts are asked that teach.

A group of completions that are all right or all wrong has no advantage. Prompts that the policy always
solves, or never, give such groups and cost as much as others (open-r1's filter keeps .2 to .8, DAPO's .1 to
.6).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from r1pipe import jsonl
from r1pipe.measure.samples import SampleRow
from r1pipe.rollout.asking import Question

Key = tuple[str, str]
"""(task, id of the item)."""

Ask = Callable[[Sequence[tuple[Question, int]]], list[SampleRow]]
"""Generates and judges one completion for each (question, sample), in order."""


class PassRate(BaseModel):
    """Which prompts are asked, by how often the policy solves them."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    samples: int = Field(default=8, ge=1)
    """Completions per prompt that the rate is measured by."""
    least: float = Field(default=0.01, ge=0, le=1)
    """Prompts that are solved less often are left out; what is never solved teaches nothing."""
    most: float = Field(default=0.99, ge=0, le=1)
    """Prompts that are solved more often are left out."""

    @model_validator(mode="after")
    def _least_is_less(self) -> "PassRate":
        if self.least > self.most:
            raise ValueError(f"pass_rate: least = {self.least} is above most = {self.most}")
        return self


@dataclass(frozen=True, slots=True)
class Rate:
    """What was seen of one prompt."""

    passed: int
    decided: int

    def reason_against(self, bounds: PassRate) -> str | None:
        """Why the prompt is not asked, or None."""
        if self.decided == 0:
            return "no verdict on it could be decided"
        share = self.passed / self.decided
        if share < bounds.least:
            return f"too hard: solved {self.passed} of {self.decided} times"
        if share > bounds.most:
            return f"too easy: solved {self.passed} of {self.decided} times"
        return None


class Rates:
    """The rates measured so far, in a journal: a stage that was stopped measures on where it was."""

    def __init__(self, journal: Path, bounds: PassRate, others: Sequence[Path] = ()) -> None:
        """`others` are journals of other processes, which are read and not written."""
        self._path = journal
        self._bounds = bounds
        with jsonl.Journal(journal):
            pass  # repairs what a kill has left
        # In one order in all processes: of what two of them have measured, all know the same.
        # Somebody may be writing in the others: a line that is not whole yet is no row.
        scanned = (row for path in sorted([journal, *others]) for _, row in jsonl.scan(path))
        rows = [row for row in scanned if not isinstance(row, jsonl.BadRow)]
        self._known = {(row["task"], row["id"]): Rate(row["passed"], row["decided"]) for row in rows}

    def measure(self, questions: Sequence[Question], ask: Ask, *, batch: int) -> Iterator[tuple[int, int]]:
        """Ask what is not known yet, about `batch` completions at a time; yield (done, all) prompts."""
        once = distinct(questions)
        left = [question for question in once if key_of(question) not in self._known]
        per_batch = max(1, batch // self._bounds.samples)
        for start in range(0, len(left), per_batch):
            asked = left[start : start + per_batch]
            samples = self._bounds.samples
            rows = ask([(question, sample) for question in asked for sample in range(samples)])
            self._add(asked, [rows[i : i + samples] for i in range(0, len(rows), samples)])
            yield len(once) - len(left) + start + len(asked), len(once)

    def _add(self, asked: Sequence[Question], rows: Sequence[Sequence[SampleRow]]) -> None:
        fresh = {
            key_of(question): Rate(
                sum(row["verdict"] == "pass" for row in group),
                sum(row["verdict"] in ("pass", "fail") for row in group),
            )
            for question, group in zip(asked, rows, strict=True)
        }
        with jsonl.Journal(self._path) as opened:
            opened.append(
                {"task": task, "id": item, "passed": rate.passed, "decided": rate.decided}
                for (task, item), rate in fresh.items()
            )
        self._known |= fresh

    def reason_against(self, question: Question) -> str | None:
        """Why a measured prompt is not asked, or None."""
        return self._known[key_of(question)].reason_against(self._bounds)

    def rows(self) -> list[dict[str, Any]]:
        """Every prompt with its rate, and the reason where it is not asked."""
        return [
            {
                "task": task,
                "id": item,
                "passed": rate.passed,
                "decided": rate.decided,
                "left_out": rate.reason_against(self._bounds),
            }
            for (task, item), rate in self._known.items()
        ]


def key_of(question: Question) -> Key:
    """What names a prompt, however often it is asked."""
    return question.task.name, question.item.id


def distinct(questions: Sequence[Question]) -> list[Question]:
    """Each prompt once, in the order in which they first come."""
    return list({key_of(question): question for question in questions}.values())
