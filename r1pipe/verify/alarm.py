"""The alarm on undecided verdicts: more than a few, and what a training learns is no longer what was asked.

One sentence, the same wherever completions are judged: how many, of what, for which reasons, what to look at.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

from r1pipe.text import percent
from r1pipe.verify.verdict import Mark

LIMIT: Final = 0.01
"""Share of undecided verdicts above which it is said."""
WINDOW: Final = 512
"""Completions that a running alarm looks back on."""
FEWEST: Final = 200
"""Completions a running alarm hears before it says anything."""
TOLD: Final = 3
"""Reasons that are named, the most frequent first."""


def undecided_sentence(reasons: Mapping[str, int], of: int, which: str = "") -> str | None:
    """The sentence about undecided verdicts by reason among `of` completions; None up to `LIMIT`.

    `which` stands before their number, such as `the last `.

    >>> undecided_sentence({"comparison timed out": 15, "truncated": 1}, 512, "the last ")[:84]
    'Undecided verdicts: 3 % of the last 512 completions (3 % comparison timed out, 0.2 %'
    """
    undecided = sum(reasons.values())
    if not of or undecided / of <= LIMIT:
        return None
    named = Counter(reasons).most_common(TOLD)
    told = [f"{percent(count / of)} {reason}" for reason, count in named]
    told += [f"{percent((undecided - sum(n for _, n in named)) / of)} others"] if len(reasons) > TOLD else []
    return (
        f"Undecided verdicts: {percent(undecided / of)} of {which}{of} completions ({', '.join(told)}). "
        f"They are left out and never count as wrong. {_advice(named[0][0])}"
    )


def _advice(reason: str) -> str:
    """What to look at, by the most frequent reason."""
    if "truncated" in reason:
        return "Set `max_new_tokens` higher, or `truncated: fail` on the task."
    if "time" in reason:
        return "Look whether the machine is overloaded, and at the answers that take the judge so long."
    return "Look at the problems' own answers, and at whether the task's `judge` suits them."


def reasons_of(rows: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """The reasons of the judged rows whose `verdict` is undecided."""
    return Counter(str(row["reason"]) for row in rows if row["verdict"] == Mark.UNDECIDED)


class UndecidedAlarm:
    """Hears verdicts as they come, and says so when too many of the last ones are undecided."""

    def __init__(self, patience: int) -> None:
        """`patience` is the number of batches before it says so again."""
        self._patience = patience
        self._silent = 0  # batches for which it stays silent
        self._last: deque[str] = deque(maxlen=WINDOW)  # a reason, or nothing for a decided one

    def hear(self, reasons: Iterable[str | None]) -> str | None:
        """Take in a batch of verdicts, of each why it is undecided or None; return what is to be said now."""
        self._last.extend(reason or "" for reason in reasons)
        self._silent -= 1
        if self._silent > 0 or len(self._last) < FEWEST:
            return None
        said = undecided_sentence(Counter(filter(None, self._last)), len(self._last), "the last ")
        if said is not None:
            self._silent = self._patience
        return said
