"""Files of answers judged in one go: what `r1pipe verify` does.

A row holds the right answer as `gold` and an answer as `pred`, or a `prompt`, its `completion` and the right
`answer`. `equal` is the truth, where somebody knows it.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1pipe import jsonl
from r1pipe.errors import UsageError
from r1pipe.prompting import opens_thinking, parse
from r1pipe.tasks.source import read_path
from r1pipe.verify.extract import written_answer, written_gold
from r1pipe.verify.math import JUDGES, gold_answer, judge_math_all
from r1pipe.verify.verdict import Mark, Verdict, failed


@dataclass(frozen=True, slots=True)
class Case:
    """A row, as far as judging goes."""

    row: jsonl.Row
    gold: str
    answer: str | None
    """None where a completion gives none."""
    equal: bool | None
    """The truth, if the row tells it."""


@dataclass(frozen=True, slots=True)
class Judged:
    """All rows of the files with their verdicts, in their order."""

    cases: Sequence[Case]
    verdicts: Sequence[Verdict]
    set_aside: Sequence[jsonl.BadRow]
    seconds: float

    @property
    def summary(self) -> dict[str, Any]:
        """The counts. An undecided row of which the truth is known does not agree with it."""
        marks = Counter(verdict.mark for verdict in self.verdicts)
        known = [
            (case.equal, verdict)
            for case, verdict in zip(self.cases, self.verdicts, strict=True)
            if case.equal is not None
        ]
        agree = sum(verdict.decided and verdict.passed == equal for equal, verdict in known)
        return {
            "rows": len(self.cases),
            "passed": marks[Mark.PASS],
            "failed": marks[Mark.FAIL],
            "undecided": marks[Mark.UNDECIDED],
            "agree": agree,
            "agreement": agree / len(known) if known else None,
            "false_pass": sum(verdict.passed and not equal for equal, verdict in known),
            "false_fail": sum(verdict.mark is Mark.FAIL and equal for equal, verdict in known),
            "reasons": dict(
                Counter(verdict.reason for verdict in self.verdicts if not verdict.decided).most_common()
            ),
            "set_aside": len(self.set_aside),
            "seconds": round(self.seconds, 3),
            "rows_per_second": round(len(self.cases) / self.seconds, 1) if self.seconds else None,
        }

    def rows(self) -> list[jsonl.Row]:
        """Each row with what came of it."""
        return [
            {
                **case.row,
                "verdict": str(verdict.mark),
                "reason": verdict.reason,
                "extracted": verdict.extracted,
            }
            for case, verdict in zip(self.cases, self.verdicts, strict=True)
        ]


def judge_files(paths: Sequence[Path], rule: str, jobs: int | None = None) -> Judged:
    """Judge every row by a rule of `JUDGES`, `jobs` at a time.

    Raises:
        UsageError: a file is not there, or no row of them can be judged.
    """
    cases: list[Case] = []
    set_aside: list[jsonl.BadRow] = []
    for path in paths:
        rows, bad = read_path(path)
        set_aside += bad
        for each in rows:
            case = _case(each.row)
            if isinstance(case, Case):
                cases.append(case)
            else:
                set_aside.append(each.bad(case))
    if not cases:
        first = f" The first: {set_aside[0]}." if set_aside else ""
        raise UsageError(
            f"No row of {', '.join(map(str, paths))} can be judged.{first} "
            "A row needs `gold` and `pred`, or `prompt`, `completion` and `answer`."
        )
    begun = time.perf_counter()
    verdicts = _judge(cases, rule, jobs)
    return Judged(cases, verdicts, set_aside, time.perf_counter() - begun)


def _judge(cases: Sequence[Case], rule: str, jobs: int | None) -> list[Verdict]:
    given = [(case.gold, case.answer) for case in cases if case.answer is not None]
    judge = JUDGES[rule]
    found = iter(judge_math_all(given, jobs) if rule == "math" else [judge(*pair) for pair in given])
    return [failed("no answer") if case.answer is None else next(found) for case in cases]


def _case(row: jsonl.Row) -> Case | str:
    """The case a row is, or why it is none."""
    equal = row.get("equal")
    if equal is not None and not isinstance(equal, bool):
        return "`equal` is neither true nor false"
    if "gold" in row and "pred" in row:
        gold, text = row["gold"], row["pred"]
        if not _readable(gold) or not _readable(text):
            return "`gold` or `pred` is neither a text nor a number"
        return Case(row, written_gold(str(gold)), written_answer(str(text)), equal)
    if {"prompt", "completion", "answer"} <= row.keys():
        prompt, text, gold = row["prompt"], row["completion"], row["answer"]
        if not isinstance(prompt, str) or not isinstance(text, str) or not _readable(gold):
            return "`prompt`, `completion` or `answer` is no text"
        return Case(row, gold_answer(str(gold)), parse(text, opens_thinking(prompt)).answer, equal)
    return "it has neither `gold` and `pred` nor `prompt`, `completion` and `answer`"


def _readable(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)
