"""What a step may find of a row that it looks at alone."""

from collections.abc import Callable
from typing import Any, NamedTuple

from r1pipe.curate.mapping import Trace
from r1pipe.verify.verdict import Verdict


class Fault(NamedTuple):
    """Why a row leaves."""

    reason: str
    """In a few words that can be counted."""
    evidence: Any = None
    """What shows it: a JSON value that is particular to the row."""
    aside: bool = False
    """Whether the row itself is unusable, so that it is set aside rather than rejected."""


Finding = Fault | Verdict | None
"""What is found of a row: that it leaves, its verdict, or nothing to remark."""
Look = Callable[[Trace], Finding]
"""What looks at a row."""
