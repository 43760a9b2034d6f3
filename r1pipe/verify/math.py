"""Answers that are text, numbers or mathematics, compared with the right one.

The cheap comparisons come first: equal text, then equal numbers as exact fractions. They decide four in five
answers in microseconds. Only what is left goes to math-verify, which reads LaTeX and compares with sympy, in
worker processes and under a deadline (`symbolic`).
"""

import os
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final

from r1pipe.prompting import last_boxed
from r1pipe.verify.pool import Lost, Pool
from r1pipe.verify.symbolic import DEADLINE_SECONDS
from r1pipe.verify.verdict import Mark, Verdict, failed, passed, undecided

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
    return _without_algebra(gold, answer) or _compare(gold, answer)


def judge_math_all(pairs: Sequence[tuple[str, str]], jobs: int | None = None) -> list[Verdict]:
    """`judge_math` of each (right answer, answer given), in their order, on `jobs` cores or all of them."""
    cheap = [_without_algebra(gold, answer) for gold, answer in pairs]
    left = [pair for pair, verdict in zip(pairs, cheap, strict=True) if verdict is None]
    compared = iter(compare_all(left, jobs))
    return [verdict or next(compared) for verdict in cheap]


def compare_all(
    pairs: Sequence[tuple[str, str]], jobs: int | None = None, *, free: bool = False
) -> list[Verdict]:
    """What math-verify says of each pair, read as `symbolic.compare` does; equal pairs are asked once."""
    different = dict.fromkeys(pairs)
    with closing(Pool(_WORKER, size=jobs or _cores(), deadline=_HARD_DEADLINE)) as pool:
        answers = pool.ask_all((*pair, free) for pair in different)
        found = dict(zip(different, answers, strict=True))
    return [_verdict(pair[1], found[pair]) for pair in pairs]


def _without_algebra(gold: str, answer: str) -> Verdict | None:
    if _plain(gold) == _plain(answer):
        return passed(_plain(answer))
    right, given = number(gold), number(answer)
    if right is not None and right == given:
        return passed(str(given))
    if right is not None and given is not None and right.denominator == given.denominator == 1:
        return failed("wrong answer", str(given))  # unequal fractions may still be equal as rounded
    return failed("answer too long", answer[:MAX_LENGTH]) if len(answer) > MAX_LENGTH else None


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


# --- math-verify, in workers

_WORKER: Final = "r1pipe.verify.symbolic"
_HARD_DEADLINE: Final = (
    DEADLINE_SECONDS + 0.5
)  # the worker stops itself, unless it is stuck inside one operation

_lock = threading.Lock()
_pools: list[Pool] = []


@lru_cache(maxsize=65_536)
def _compare(gold: str, answer: str) -> Verdict:
    return _verdict(answer, _pool().ask((gold, answer)))


def _verdict(answer: str, found: Any) -> Verdict:
    if isinstance(found, Lost):
        return undecided(f"comparison {found.reason}", answer)
    mark, reason = found
    return Verdict(Mark(mark), reason, answer)


def _pool() -> Pool:
    """The one that single questions share; its workers start when they are needed."""
    with _lock:
        if not _pools:
            _pools.append(Pool(_WORKER, size=_cores(), deadline=_HARD_DEADLINE))
        return _pools[0]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_golds(golds: Sequence[str], jobs: int | None = None) -> list[str | None]:
    return [None] * len(golds)
