"""Answers that are text, numbers or mathematics, compared with the right one.

The cheap comparisons come first: equal text, then equal numbers as exact fractions. They decide four in five
answers in microseconds. Only what is left goes to math-verify, which reads LaTeX and compares with sympy,
under a deadline.
"""

import logging
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from types import FrameType
from typing import Any, Final

from r1pipe.prompting import last_boxed
from r1pipe.verify.verdict import Verdict, failed, passed, undecided

DEADLINE_SECONDS: Final = 5.0
"""For one comparison by math-verify; honest ones take a hundredth of it."""
MAX_LENGTH: Final = 1000
"""Characters of an answer that are worth reading as mathematics; also what keeps its cost bounded."""
MAX_DIGITS: Final = 100
"""Digits of a number; Python itself refuses to read much longer ones."""


def gold_answer(text: str) -> str:
    """A worked solution's final answer: after the last `####` (GSM8K), in the last `\\boxed{}`, or all of it.

    >>> gold_answer("48 / 2 = 24, and 48 + 24 = 72\\n#### 72")
    '72'
    """
    _, mark, after = text.rpartition("####")
    if mark:
        return after.strip()
    boxed = last_boxed(text)
    return text.strip() if boxed is None else boxed


def judge_exact(gold: str, answer: str) -> Verdict:
    """Pass when the two texts are equal but for white space."""
    answer = " ".join(answer.split())
    return passed(answer) if answer == " ".join(gold.split()) else failed("wrong answer", answer)


def judge_number(gold: str, answer: str) -> Verdict:
    """Pass when the only number in `answer` equals the one in `gold`, exactly: `$1,200.` is `1200`."""
    right, given = only_number(gold), only_number(answer)
    if right is None:
        return undecided("right answer is not a number", answer)
    if given is None:
        return failed("not one number", answer)
    return passed(str(given)) if given == right else failed("wrong answer", str(given))


def judge_math(gold: str, answer: str) -> Verdict:
    """Pass when the two say the same in mathematics; undecided when that cannot be found out in time."""
    if _plain(gold) == _plain(answer):
        return passed(_plain(answer))
    right, given = number(gold), number(answer)
    if right is not None and right == given:
        return passed(str(given))
    if right is not None and given is not None and right.denominator == given.denominator == 1:
        return failed("wrong answer", str(given))  # unequal fractions may still be equal as rounded
    if len(answer) > MAX_LENGTH:
        return failed("answer too long", answer[:MAX_LENGTH])
    return _compare(gold, answer)


JUDGES: Final[dict[str, Callable[[str, str], Verdict]]] = {
    "exact": judge_exact,
    "number": judge_number,
    "math": judge_math,
}
"""By the name a recipe uses; each takes (right answer, answer given)."""


# --- Numbers

_UNSIGNED: Final = r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d+)(?:\.\d+)?|\.\d+"
_NUMBER: Final = re.compile(rf"[-+]?(?:{_UNSIGNED})", re.ASCII)
_WHOLE_NUMBER: Final = re.compile(rf"([-+]?) ?({_UNSIGNED})(?: ?/ ?(\d+))?", re.ASCII)
_FRACTION: Final = re.compile(r"([-+]?) ?\\[dt]?frac ?\{(\d+)\} ?\{(\d+)\}", re.ASCII)


def number(text: str) -> Fraction | None:
    """The number that `text` is, exactly, or None: `12`, `0.5`, `1,200`, `3/4`, `\\frac{3}{4}`, `$5`."""
    text = _plain(text).removesuffix(".")
    match = _FRACTION.fullmatch(text) or _WHOLE_NUMBER.fullmatch(text)
    if match is None or len(text) > MAX_DIGITS:
        return None
    sign, value, divisor = match.groups()
    below = int(divisor or 1)
    return Fraction(sign + re.sub("[, ]", "", value)) / below if below else None


def only_number(text: str) -> Fraction | None:
    """The number that `text` is, or else the one number that stands in it, or None: `72 dollars` holds 72."""
    whole = number(text)
    if whole is not None:
        return whole
    found = _NUMBER.findall(text)
    return number(found[0]) if len(found) == 1 else None


def _plain(text: str) -> str:
    """The text without what only dresses it: dollar signs, white space at the ends and doubled."""
    return " ".join(text.replace("\\$", "").replace("$", "").replace("{,}", ",").split())


# --- math-verify


class _OutOfTime(BaseException):
    """Not an Exception, so that no handler inside sympy takes it for a failed simplification."""


# Off the main thread nothing can stop a comparison, so what can grow without bound is not begun there.
_EXPLOSIVE: Final = re.compile(
    r"\^.*\^|\*\*.*\*\*|\^\{?\s*\d{3}|\*\*\s*\d{3}|!|\d{30}|\\(?:sum|prod)", re.DOTALL
)


@lru_cache(maxsize=65_536)
def _compare(gold: str, answer: str) -> Verdict:
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread and _EXPLOSIVE.search(gold + "\n" + answer):
        return undecided("cannot be compared within a time limit here", answer)
    try:
        with _deadline(DEADLINE_SECONDS if in_main_thread else None):
            right, given = _read(gold), _read(answer)
            if not right:
                return undecided("right answer cannot be read", answer)
            if not given:
                return failed("answer cannot be read", answer)
            return passed(answer) if _equal(right, given) else failed("wrong answer", answer)
    except _OutOfTime:
        return undecided("comparison timed out", answer)


def _read(text: str) -> list[Any]:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    # It warns that its own time limit is off; ours is on, and covers reading and comparing together.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    latex = text if "$" in text or "\\(" in text or "\\[" in text else f"${text}$"
    configs = [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()]
    return parse(latex, configs, parsing_timeout=None)


def _equal(gold: list[Any], answer: list[Any]) -> bool:
    from math_verify import verify

    # The order counts: it is not symmetric for inequalities and chains of solutions.
    return verify(gold, answer, timeout_seconds=None)


@contextmanager
def _deadline(seconds: float | None) -> Iterator[None]:
    """Raise `_OutOfTime` inside the block after so many seconds; main thread only, None sets no limit."""
    if seconds is None:
        yield
        return

    def stop(signum: int, frame: FrameType | None) -> None:
        raise _OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
