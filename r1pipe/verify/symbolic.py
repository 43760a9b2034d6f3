"""Mathematics compared by math-verify and sympy: what runs in a worker of `pool`, and nowhere else.

In a worker's main thread an alarm can stop a comparison that takes too long, and what nothing can stop is
ended from outside.
"""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from r1pipe.verify.pool import serve
from r1pipe.verify.verdict import Mark

DEADLINE_SECONDS: Final = 5.0
"""For reading and comparing one pair; honest ones take a hundredth of it."""


_ENVIRONMENTS: Final = ("$", "\\(", "\\[")


class _OutOfTime(BaseException):
    """Not an Exception, so that no handler inside sympy takes it for a failed simplification."""


def main() -> None:
    """Serve comparisons, if math-verify works on this machine as it should; else end, and be reported."""
    # It warns that its own time limit is off; ours is on, and covers reading and comparing together.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    judged = [compare(gold, answer)[0] for gold, answer in (("1/2", "0.5"), ("x+1", "1+x"), ("2", "3"))]
    if judged == [Mark.PASS, Mark.PASS, Mark.FAIL]:
        serve(lambda question: compare(*question))


def compare(gold: str, answer: str, free: bool = False) -> tuple[Mark, str]:
    """The mark of an answer and the reason for it. Main thread only.

    All of the answer has to be one formula: of `71 or 72` none is taken for it. With `free` both are texts in
    which math-verify may look for their last formula; that is for texts that mark no answer, never a reward.
    """
    try:
        with _deadline(DEADLINE_SECONDS):
            if free and equal(read(gold, free=True), read(answer, free=True)):
                return Mark.PASS, ""
            right, given = read(gold), read(answer)
            if not right:
                return Mark.UNDECIDED, "right answer cannot be read"
            if not given:
                return Mark.FAIL, "answer cannot be read"
            return (Mark.PASS, "") if equal(right, given) else (Mark.FAIL, "wrong answer")
    except _OutOfTime:
        return Mark.UNDECIDED, "comparison timed out"
    except MemoryError:
        return Mark.UNDECIDED, "comparison ran out of memory"
    except RecursionError:
        return Mark.UNDECIDED, "comparison went too deep"


def read(text: str, *, free: bool = False) -> list[Any]:
    """What math-verify makes of a text; empty when it finds no mathematics in it."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    if free:
        return parse(text, parsing_timeout=None)
    latex = text if any(mark in text for mark in _ENVIRONMENTS) else f"${text}$"
    configs = [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()]
    return parse(latex, configs, parsing_timeout=None)


def equal(gold: list[Any], answer: list[Any]) -> bool:
    """Whether one of the answer's readings is one of the right answer's."""
    from math_verify import verify

    # The order counts: it is not symmetric for inequalities and chains of solutions.
    return verify(gold, answer, timeout_seconds=None)


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raise `_OutOfTime` inside the block after so many seconds; main thread only."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise _OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
