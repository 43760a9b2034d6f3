r"""Mathematics compared by math-verify and sympy: what runs in a worker of `pool`, and nowhere else.

math-verify looks for formulas in texts and compares the last ones. Here a whole answer has to be one formula,
so its reader (latex2sympy) and its comparison (`verify`) are called without that search. They also swallow
every error; here one that says nothing about the answer, such as too little memory, ends as undecided.

In a worker's main thread an alarm can stop a comparison that takes too long, and what nothing can stop is
ended from outside.
"""

import logging
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import FrameType
from typing import Any, Final

from r1pipe.verify.channel import Trial
from r1pipe.verify.notation import bare, chain, depth, enclosed, is_name, is_named, named, named_right, split
from r1pipe.verify.numbers import split_unit
from r1pipe.verify.pool import serve
from r1pipe.verify.values import read as read_value
from r1pipe.verify.values import same as same_value
from r1pipe.verify.verdict import Mark

MARGIN_SECONDS: Final = 0.5
"""How much earlier than its deadline a worker stops a comparison itself."""
MAX_DEPTH: Final = 40
"""Of brackets in a formula; deeper ones are nobody's answer, and the reader is recursive."""
MAX_PARTS: Final = 12
"""Of a list whose parts are compared each with each."""


class Unreadable(ValueError):
    """A text that is not one formula."""


class _OutOfTime(BaseException):
    """Not an Exception, so that no handler inside sympy takes it for a failed simplification."""


def main() -> None:
    """Serve comparisons, if math-verify works on this machine as it should; else end, and be reported."""
    # It warns that its own time limit is off; ours is on, and covers reading and comparing together.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    limit = float(sys.argv[1]) - MARGIN_SECONDS
    pairs = (("1/2", "0.5"), ("x+1", "1+x"), ("2", "3"))
    judged = [compare(gold, answer)[0] for gold, answer in pairs] if let_errors_show() else []
    if judged == [Mark.PASS, Mark.PASS, Mark.FAIL]:
        serve(lambda question: answer_to(question, limit))


def answer_to(question: list[str], limit: float) -> Any:
    """What a worker says: (mark, reason) of a right answer and an answer, or why a right answer is unfit."""
    if len(question) == 2:
        return compare(question[0], question[1], limit)
    mark, reason = _guarded(lambda: _fit(question[0]), limit)
    return None if mark is Mark.PASS else reason.replace("comparison", "reading it")


def _fit(gold: str) -> tuple[Mark, str]:
    text, _ = split_unit(gold)
    readable = _parsed(text) is not None or all(
        read_value(part) is not None or _parsed(part) is not None for part in split(text)
    )
    return (Mark.PASS, "") if readable else (Mark.FAIL, "cannot be read as mathematics")


def compare(gold: str, answer: str, limit: float = 5.0) -> tuple[Mark, str]:
    """The mark of a tidied answer and the reason for it, within `limit` seconds. Main thread only."""
    return _guarded(lambda: _compare(gold, answer), limit)


def _guarded(work: Callable[[], tuple[Mark, str]], limit: float) -> tuple[Mark, str]:
    trial = Trial()  # sympy raises whatever it likes, and none of it says that an answer is wrong
    try:
        with _deadline(limit), trial:
            return work()
    except _OutOfTime:
        return Mark.UNDECIDED, "comparison timed out"
    if isinstance(trial.error, MemoryError):
        return Mark.UNDECIDED, "comparison ran out of memory"
    if isinstance(trial.error, RecursionError):
        return Mark.UNDECIDED, "comparison went too deep"
    return Mark.UNDECIDED, f"comparison broke down: {type(trial.error).__name__}"


# --- Reading


@lru_cache(maxsize=1024)
def parse(text: str) -> Any:
    """The formula that all of a tidied text is, in sympy. Raises `Unreadable`.

    latex2sympy would read `3 2` as 3 + 2, `1.2.3` and any words as products and `12_5` as 12: none is what
    anybody wrote, and a word times zero is zero.
    """
    if depth(text) > MAX_DEPTH or _NOT_ONE.search(text) or _SPOKEN.search(text):
        raise Unreadable(text)
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig  # type: ignore[import-untyped]
    from math_verify.grader import should_treat_as_complex
    from math_verify.parser import NormalizationConfig, latex2sympy, normalize_latex
    from sympy import nan, zoo

    config = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
    )
    latex = normalize_latex(_MARKED.sub(_as_subscript, text), config)
    found, trial = None, Trial()  # of a text that is no formula it says so by a bare Exception
    with trial:
        found = latex2sympy(
            latex,
            is_real=not should_treat_as_complex(latex),
            convert_degrees=False,
            normalization_config=None,
            conversion_config=ConversionConfig(lowercase_symbols=False),  # R is not r
        )
    if isinstance(trial.error, MemoryError | RecursionError):
        raise trial.error
    rest = named(text)[1]
    if trial.error is not None and text.count("=") > 1 and rest != text:
        return parse(rest)  # a chain may begin with what is none
    if found is None or found.has(nan, zoo):
        raise Unreadable(text) from trial.error
    return found


_NOT_ONE: Final = re.compile(
    r"(?<!_)\d \d|\d\.\d*\.\d|(?<![\w}])[\d.]+ ?_|\d ?'|\\not(?![a-z])|:.*:", re.ASCII
)
_MARKED: Final = re.compile(r"([a-zA-Z])(?:('+)|\^\{?(\\prime|T|\\top|\\intercal)(?![a-zA-Z])\}?)")


def _as_subscript(match: re.Match[str]) -> str:
    """Primes and the sign of a transposed matrix, which latex2sympy drops, as another name."""
    mark = "t" * 5 if match[3] in ("T", "\\top", "\\intercal") else "p" * (4 + len(match[2] or "'"))
    return f"{match[1]}_{{{mark}}}"


_SPOKEN: Final = re.compile(
    r"(?<![a-zA-Z\\{])(?:(?!sqrt|arc(?:sin|cos|tan)|infinity)[a-zA-Z]{5,}|(?:not|but|sure|maybe)(?![a-zA-Z]))"
)


def _parsed(text: str) -> Any:
    try:
        return parse(text)
    except Unreadable:
        return None


# --- Comparing


def _compare(gold: str, answer: str) -> tuple[Mark, str]:
    (gold, gold_unit), (answer, unit) = split_unit(gold), split_unit(answer)
    if gold_unit and unit and gold_unit != unit:
        return Mark.FAIL, "another unit"
    sides = _judged(gold, answer)
    if sides is None:
        return Mark.FAIL, "wrong answer"
    gold, answer = sides
    right, given = _parsed(gold), _parsed(answer)
    if _RATIO.search(gold):
        return (Mark.PASS, "") if _same_ratio(gold, answer) else (Mark.FAIL, "wrong answer")
    in_parts = min(len(split(gold)), len(split(answer))) > 1 and not _REGION.search(gold + answer)
    if not in_parts and right is not None and given is not None and equal(right, given):
        return Mark.PASS, ""
    if any(same(gold, answer) for same in (_same_function, _same_region, _same_parts)):
        return Mark.PASS, ""
    if right is None and len(split(gold)) < 2:
        return Mark.UNDECIDED, "right answer cannot be read"
    return Mark.FAIL, "answer cannot be read" if given is None else "wrong answer"


def _judged(gold: str, answer: str) -> tuple[str, str] | None:
    """What is compared of the two: the right sides where the left ones only name them, or None where an
    equation cannot be what the other is.
    """
    (name, right), (other, given) = _equation(gold), _equation(answer)
    if not name and not other:
        return gold, answer
    if name and other:
        one, two = _CALLED.fullmatch(bare(name)), _CALLED.fullmatch(bare(other))
        if one and two and one[1] == two[1] and one[2] != two[2] and not (one[2] + two[2]).isalpha():
            return None
        return (right, given) if is_name(name) and bare(name) == bare(other) else (gold, answer)
    if name:
        return (right, answer) if named_right(gold) else None
    between = [side for side in chain(answer)[1:-1] if not re.search(r"[a-zA-Z]", side)]
    stands = all(_holds(side, given) for side in between) and (is_named(other) or _holds(other, given))
    return (gold, given) if stands else None


_RATIO: Final = re.compile(r"^[^:<>]+(?::[^:<>]+){2,}$")


def _same_ratio(gold: str, answer: str) -> bool:
    """Ratios of three and more, such as `1:\\sqrt{3}:2`; of two they are quotients."""
    right, given = ([_parsed(part) for part in text.split(":")] for text in (gold, answer))
    if None in right or None in given or len(right) != len(given):
        return False
    return all(equal(one * given[0], other * right[0]) for one, other in zip(right, given, strict=True))


_CALLED: Final = re.compile(r"([a-zA-Z]'*)\((.+)\)")


def _equation(text: str) -> tuple[str, str]:
    return named(text) if len(split(text)) == 1 and not _REGION.search(text) else ("", text)


def _holds(left: str, right: str) -> bool:
    """Whether the two sides of an equation are the same, as in `\\sqrt{49} = 7`."""
    one, two = _parsed(left), _parsed(right)
    return one is not None and two is not None and equal(one, two)


def equal(gold: Any, answer: Any) -> bool:
    """Whether two formulas are equal to math-verify. The order counts: see its documentation on relations."""
    from math_verify import verify
    from sympy import Symbol

    if isinstance(gold, Symbol) and isinstance(answer, Symbol):
        return bool(gold == answer)  # math-verify does not look at their case
    return verify([gold], [answer], allow_set_relation_comp=True, timeout_seconds=None, raise_on_error=True)


_FUNCTION: Final = re.compile(r"([a-zA-Z])\(([a-zA-Z])\)", re.ASCII)


def _same_function(gold: str, answer: str) -> bool:
    """Two definitions of a function that call its argument differently: `f(x) = x^2` and `f(z) = z^2`."""
    (left, body), (other_left, other_body) = named(gold), named(answer)
    one, two = _FUNCTION.fullmatch(bare(left)), _FUNCTION.fullmatch(bare(other_left))
    if one is None or two is None or one[1] != two[1] or one[2] == two[2]:
        return False
    right, given = _parsed(body), _parsed(other_body)
    if right is None or given is None or one[2] in {str(symbol) for symbol in given.free_symbols}:
        return False
    to = next((symbol for symbol in right.free_symbols if str(symbol) == one[2]), None)
    renamed = {symbol: to for symbol in given.free_symbols if str(symbol) == two[2]}
    return to is not None and equal(right, given.subs(renamed))


_MEMBER: Final = re.compile(r"^[a-zA-Z] ?\\in(?![a-z]) ?")
_SET_OF: Final = re.compile(r"\\\{ ?[a-zA-Z](?: ?\\in ?\\mathbb ?\{R\})? ?(?:\\mid|\||:) ?(.*)\\\}")
_REGION: Final = re.compile(r"[<>]|\\(?:le|ge|lt|gt|in)(?![a-z])")
_OR: Final = re.compile(r",? ?\\text\{ *or *\} ?|,? ?(?<![a-zA-Z\\])or(?![a-zA-Z]) ?|\\lor(?![a-z]) ?")
_AND: Final = re.compile(r",? ?\\text\{ *and *\} ?|,? ?(?<![a-zA-Z\\])and(?![a-zA-Z]) ?|\\land(?![a-z]) ?")


def _same_region(gold: str, answer: str) -> bool:
    r"""Inequalities, intervals and `x \in`: which numbers they let through, whatever the variable."""
    if not (_REGION.search(gold) or _REGION.search(answer)):
        return False
    right, given = _region(gold), _region(answer)
    return right is not None and given is not None and equal(right, given)


def _region(text: str) -> Any:
    from sympy import Intersection, Set, Union

    if condition := _SET_OF.fullmatch(text.strip()):
        return _region(condition[1])
    for joint, join in ((_OR, Union), (_AND, Intersection)):
        parts = joint.split(text)
        if len(parts) > 1:
            regions = [_region(part) for part in parts]
            return None if None in regions else join(*regions)
    found = _parsed(_MEMBER.sub("", text))
    if getattr(found, "is_Relational", False) or type(found).__name__ == "And":
        try:
            return found.as_set()
        except (NotImplementedError, TypeError, ValueError, AttributeError):  # of two variables, for one
            return None
    return found if isinstance(found, Set) else None


def _same_parts(gold: str, answer: str) -> bool:
    """Lists, sets and tuples part by part: math-verify sorts them, and some formulas have no order."""
    around, other_around = enclosed(gold) or ("", gold, ""), enclosed(answer) or ("", answer, "")
    ordered = around[0] in ("(", "[")
    if (ordered or other_around[0] in ("(", "[")) and around[::2] != other_around[::2]:
        return False
    parts, others = split(around[1]), split(other_around[1])
    if len(parts) != len(others) or not 1 < len(parts) <= MAX_PARTS:
        return False
    if ordered:
        return all(map(_same_part, parts, others))
    for part in parts:
        found = next((other for other in others if _same_part(part, other)), None)
        if found is None:
            return False
        others.remove(found)
    return True


def _same_part(gold: str, answer: str) -> bool:
    (name, gold), (other, answer) = named(gold), named(answer)
    if name and (not is_name(name) or (other and bare(name) != bare(other))):
        return False
    if bare(gold) == bare(answer):
        return True
    value, given_value = read_value(gold), read_value(answer)
    if value is not None and given_value is not None:
        return same_value(value, given_value)
    right, given = _parsed(gold), _parsed(answer)
    return right is not None and given is not None and equal(right, given)


# --- What may not be swallowed


def let_errors_show() -> bool:
    """Make math-verify's comparison pass on that memory or depth ran out, and say whether it now does.

    It tries one strategy after the other inside `except Exception`, and so takes a machine's trouble for
    two formulas that differ. Its module gets a narrower meaning of that name.
    """
    from math_verify import grader

    ordinary = {*Exception.__subclasses__(), *RuntimeError.__subclasses__()}
    ordinary -= {RuntimeError, RecursionError, MemoryError}
    grader.Exception = tuple(ordinary)  # looked up there before it is looked up among the builtins
    try:
        grader.safe_sympy_doit(_Exhausting())
    except MemoryError:
        return True
    return False


class _Exhausting:
    def doit(self) -> None:
        raise MemoryError


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
