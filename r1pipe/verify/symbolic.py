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


_LONGEST_FORMULA: Final = 200
_ENVIRONMENTS: Final = ("$", "\\(", "\\[", "\\boxed", "\\begin")


class _OutOfTime(BaseException):
    """Not an Exception, so that no handler inside sympy takes it for a failed simplification."""


def main() -> None:
    """Serve comparisons, if math-verify works on this machine as it should; else end, and be reported."""
    # It warns that its own time limit is off; ours is on, and covers reading and comparing together.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    judged = [compare(gold, answer)[0] for gold, answer in (("1/2", "0.5"), ("x+1", "1+x"), ("2", "3"))]
    if judged == [Mark.PASS, Mark.PASS, Mark.FAIL]:
        serve(lambda pair: compare(*pair))


def compare(gold: str, answer: str) -> tuple[Mark, str]:
    """The mark of an answer and the reason for it. Main thread only."""
    try:
        with _deadline(DEADLINE_SECONDS):
            right, given = read(gold), read(answer)
            if equal(right, given):
                return Mark.PASS, ""
            if _bare(gold) or _bare(answer):  # `x^2+1` is mathematics only once it says so
                formula = read(f"${gold}$") if _bare(gold) else right
                formula_given = read(f"${answer}$") if _bare(answer) else given
                if equal(formula, formula_given):
                    return Mark.PASS, ""
                right, given = right or formula, given or formula_given
            if not right:
                return Mark.UNDECIDED, "right answer cannot be read"
            return Mark.FAIL, "wrong answer" if given else "answer cannot be read"
    except _OutOfTime:
        return Mark.UNDECIDED, "comparison timed out"
    except MemoryError:
        return Mark.UNDECIDED, "comparison ran out of memory"
    except RecursionError:
        return Mark.UNDECIDED, "comparison went too deep"


def read(text: str) -> list[Any]:
    """What math-verify makes of a text; empty when it finds no mathematics in it."""
    from math_verify import parse

    return parse(text, parsing_timeout=None)


def _bare(text: str) -> bool:
    """Whether it is short and in no LaTeX environment, so that all of it may be one formula."""
    return len(text) <= _LONGEST_FORMULA and not any(mark in text for mark in _ENVIRONMENTS)


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
