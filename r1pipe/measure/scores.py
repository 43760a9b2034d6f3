"""A model's scores from its judged samples."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import sqrt
from statistics import fmean, stdev
from typing import Any

from r1pipe.errors import UsageError
from r1pipe.measure.passk import majority_at_k, pass_at_k
from r1pipe.measure.samples import SampleRow, parsed, target_of
from r1pipe.measure.trace import TraceMeasures, measure

Scores = dict[str, Any]
"""JSON; the keys are described under `score`. A value that nothing could be measured for is None."""


def score(rows: Sequence[SampleRow], ks: Sequence[int] = ()) -> Scores:
    """The scores over n problems with their samples.

    - `problems`, `samples` (of all problems together), `undecided`: counts. What is undecided is in no rate
      of passing. `unjudged`, where there are any: answers to open questions without a rule; nor are they.
    - `pass_at_1`: mean over problems of the share of samples that pass. `stderr`: its standard error,
      clustered by problem: the deviation of the problems' shares over the square root of their number.
    - `pass_at_k`, `maj_at_k`: `{"1": …, "2": …, "4": …}`, over the problems that have k decided samples; the
      powers of two up to the most samples when no `ks` are named. A k that no problem has samples for is
      None.
    - `mean_tokens`: generated tokens, the end-of-sequence token included. `truncated`: share cut off by the
      limit. `well_formed`: share in the form that was asked for.
    - Inside the thinking, over the samples that were to think: `attempts` (mean), `reflection` (share of
      samples), `language_consistency` (mean share of the commonest language, over samples with words),
      `repeated_attempts` (share of attempts), `arithmetic_validity` (share of steps), `verdict_validity`
      (share of verdicts).

    Raises:
        UsageError: no rows.
    """
    if not rows:
        raise UsageError("There are no samples to score; was `problems` or `samples` set to 0?")
    return {
        **_passing(rows, ks),
        "mean_tokens": fmean(row["tokens"] for row in rows),
        "truncated": fmean(row["truncated"] for row in rows),
        "well_formed": fmean(parsed(row).fits(row["reasoning"]) and not row["truncated"] for row in rows),
        **_thinking(rows),
    }


def _passing(rows: Sequence[SampleRow], ks: Sequence[int]) -> Scores:
    decided: dict[str, list[SampleRow]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["sample"]):
        if row["verdict"] in ("pass", "fail"):
            decided[row["problem_id"]].append(row)
    problems = [_Problem(samples) for samples in decided.values()]
    shares = [problem.share for problem in problems]
    most = max((problem.samples for problem in problems), default=0)
    ks = ks or [2**i for i in range(most.bit_length())]
    unjudged = sum(row["verdict"] == "unjudged" for row in rows)
    return {
        "problems": len({row["problem_id"] for row in rows}),
        "samples": len(rows),
        "undecided": sum(row["verdict"] == "undecided" for row in rows),
        **({"unjudged": unjudged} if unjudged else {}),
        "pass_at_1": fmean(shares) if shares else None,
        "stderr": stdev(shares) / sqrt(len(shares)) if len(shares) > 1 else None,
        "pass_at_k": {str(k): _mean([p.pass_at(k) for p in problems if p.samples >= k]) for k in ks},
        "maj_at_k": {str(k): _mean([p.majority_at(k) for p in problems if p.samples >= k]) for k in ks},
    }


class _Problem:
    """The decided samples of one problem."""

    def __init__(self, rows: Sequence[SampleRow]) -> None:
        self.passed = [row["verdict"] == "pass" for row in rows]
        self.answers = [row["answer"] for row in rows]
        self.samples = len(rows)
        self.share = fmean(self.passed)

    def pass_at(self, k: int) -> float:
        return pass_at_k(self.samples, sum(self.passed), k)

    def majority_at(self, k: int) -> float:
        return majority_at_k(self.answers, self.passed, k)


def _thinking(rows: Iterable[SampleRow]) -> Scores:
    traces = [measure(parsed(row).thinking or "", target_of(row)) for row in rows if row["reasoning"]]
    # Where one text is prose, so is a model's other writing: that an empty one has no attempts says nothing.
    by_grammar = [] if any(trace.attempts is None for trace in traces) else traces
    spoken = [t.language_consistency for t in traces if t.language_consistency is not None]
    return {
        "attempts": _mean([trace.attempts or 0 for trace in by_grammar]),
        "reflection": _mean([trace.reflection for trace in traces]),
        "language_consistency": _mean(spoken),
        "repeated_attempts": _share(by_grammar, "repeated_attempts", "attempts"),
        "arithmetic_validity": _share(by_grammar, "valid_steps", "steps"),
        "verdict_validity": _share(by_grammar, "valid_verdicts", "verdicts"),
    }


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _share(traces: Sequence[TraceMeasures], part: str, whole: str) -> float | None:
    """All traces' `part` over all traces' `whole`, so that a long trace counts for more than a short one."""
    total = sum(getattr(trace, whole) for trace in traces)
    return sum(getattr(trace, part) for trace in traces) / total if total else None
