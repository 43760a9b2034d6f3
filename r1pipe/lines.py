"""What happens in a run, as lines of text: pure functions from events to words.

The events are those of `r1pipe.stage.Sink`. A line names no stage; whoever prints it puts that in front.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from r1pipe.errors import Interrupted
from r1pipe.text import duration, percent, quantity

Row = Mapping[str, Any]

_NUMBERS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("loss", "loss", "{:.3f}".format),
    ("divergence", "divergence", "{:.3f}".format),
    ("reward", "reward", "{:.3f}".format),
    ("accuracy", "accuracy", "{:.3f}".format),
    ("pass_at_1", "pass@1", "{:.3f}".format),
    ("length", "length", "{:.1f}".format),
    ("mean_tokens", "length", "{:.1f}".format),
    ("truncated", "truncated", percent),
    ("acceptance", "accepted", percent),
    ("accepted_per_second", "accepted/s", quantity),
    ("groups_without_spread", "no spread", percent),
    ("undecided", "undecided", percent),
    ("kl", "kl", "{:.4f}".format),
    ("tokens_per_second", "tokens/s", quantity),
    ("usd_per_accepted", "a trace costs", "${:.2g}".format),
)
"""Column of a metrics row, what it is called, how it reads. In reinforcement learning the loss says nothing
(its gradient does), so it is shown only for rows that have no reward."""

_GROUPS = (("acceptance_by_task", "by task"), ("acceptance_by_difficulty", "by difficulty"))
"""Columns of shares by name, and what they are called; shown where there are several, not too many."""
_MOST_GROUPS = 6

_PARTS = ("opening", "generation", "judging", "reward", "sync", "logprobs", "training")
"""What a step's time is spent on; a part that a row does not have took none."""


def metrics_line(row: Row) -> str:
    """One logged step: where it is, whose it is, its numbers, where the time went, how long it will take.

    >>> metrics_line({"step": 20, "steps": 130, "reward": 0.512, "length": 58.2, "tokens_per_second": 8123.0})
    'step 20/130  reward 0.512  length 58.2  tokens/s 8.12k'
    """
    return "  ".join(_pieces(row))


def _pieces(row: Row) -> Iterator[str]:
    if "step" in row:
        yield f"step {row['step']}/{row['steps']}" if "steps" in row else f"step {row['step']}"
    if "model" in row:
        yield f"{row['model']} on {row['set']}"
    for key, label, reads in _NUMBERS:
        value = row.get(key)
        if value is None or (key == "loss" and "reward" in row) or (key == "undecided" and not value):
            continue
        yield f"{label} {reads(value)}"
    for key, label in _GROUPS:
        groups = row.get(key) or {}
        if 1 < len(groups) <= _MOST_GROUPS:
            yield f"{label}: {', '.join(f'{name} {percent(share)}' for name, share in groups.items())}"
    spent = [float(row.get(f"seconds_{part}") or 0) for part in _PARTS]
    if sum(spent) > 0:
        shares = (f"{part} {percent(s / sum(spent))}" for part, s in zip(_PARTS, spent, strict=True) if s)
        yield f"time: {', '.join(shares)}"
    if row.get("eta") is not None:
        yield f"ETA {duration(row['eta'])}"


def event_line(kind: str, fields: Mapping[str, Any]) -> str | None:
    """One event of a run as a sentence, or None for an event that is not told in words (`progress`)."""
    teller = _TELLERS.get(kind)
    return teller(fields) if teller else None


def _started(fields: Mapping[str, Any]) -> str:
    begun = "goes on" if fields.get("resumed") else "starts"
    return f"{begun} ({fields.get('verb', 'stage')}){_because(fields)}"


def _finished(fields: Mapping[str, Any]) -> str:
    cost = fields.get("cost") or {}
    took = f" in {duration(cost['seconds'])}" if cost.get("seconds") is not None else ""
    return f"done{took}: {fields.get('artifact', '')}".rstrip(": ")


def _run_started(fields: Mapping[str, Any]) -> str:
    steps = list(fields.get("steps") or ())
    left = sum(step["action"] != "up to date" for step in steps)
    return f"run {fields['run']}: {left} of {len(steps)} stages to run"


def _run_finished(fields: Mapping[str, Any]) -> str:
    ends = {0: "done in", Interrupted.exit_code: "stopped after"}
    return f"{ends.get(fields['exit_code'], 'failed after')} {duration(fields['seconds'])}"


def _because(fields: Mapping[str, Any]) -> str:
    reasons = list(fields.get("reasons") or ())
    return f": {'; '.join(reasons)}" if reasons else ""


_TELLERS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "log": lambda fields: metrics_line(fields["row"]),
    "say": lambda fields: str(fields["text"]),
    "run_started": _run_started,
    "run_finished": _run_finished,
    "stage_started": _started,
    "stage_reused": lambda fields: f"up to date: {fields.get('artifact', '')}",
    "stage_finished": _finished,
    "stage_failed": lambda fields: f"failed: {fields.get('error', '')}",
    "stage_stopped": lambda fields: "stopped; the same command goes on from here",
    "stage_skipped": lambda fields: f"not run: {fields.get('because', 'what it needs is missing')}",
}
