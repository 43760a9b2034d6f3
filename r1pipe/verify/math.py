"""Answers that are text, numbers or mathematics, compared with the right one.

What needs no algebra comes first (`values`): it decides nearly all answers in microseconds. Only what is left
goes to math-verify, which reads LaTeX and compares with sympy, in worker processes and under a deadline
(`symbolic`).
"""

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import closing
from fractions import Fraction
from typing import Any, Final

from r1pipe.machine import cores
from r1pipe.prompting import boxed_answer
from r1pipe.verify.notation import bare, named, split, tidy
from r1pipe.verify.numbers import UNSIGNED, Quantity, number
from r1pipe.verify.pool import Pool, Unanswered, shared
from r1pipe.verify.values import Named, read, same
from r1pipe.verify.verdict import Mark, Verdict, failed, passed, undecided

MAX_LENGTH: Final = 1000
"""Characters of an answer that are worth reading as mathematics; also what keeps its cost bounded."""
DEADLINE_SECONDS: Final = 5.5
"""From the question to the kill of a worker. It stops itself a little earlier, unless it is stuck inside one
operation; honest comparisons take a hundredth of it."""


def gold_answer(text: str) -> str:
    """A worked solution's final answer: after the last `####` (GSM8K), in the last `\\boxed{}`, or all of it.

    >>> gold_answer("48 / 2 = 24, and 48 + 24 = 72\\n#### 72")
    '72'
    """
    _, mark, after = text.rpartition("####")
    if mark:
        return after.strip()
    boxed = boxed_answer(text)
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
    """Pass when the two say the same in mathematics; undecided when that cannot be found out in time.

    The rules stand in `docs/verdicts.md`. Works from any thread.
    """
    return _without_algebra(gold, answer) or _compared(gold, answer)


def judge_math_all(pairs: Sequence[tuple[str, str]], jobs: int | None = None) -> list[Verdict]:
    """`judge_math` of each (right answer, answer given), in their order, on `jobs` cores or all of them."""
    verdicts = [_without_algebra(gold, answer) for gold, answer in pairs]
    left = [pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict is None]
    compared = iter(_compare_all(left, jobs))
    return [verdict or next(compared) for verdict in verdicts]


def check_golds(golds: Sequence[str], jobs: int | None = None) -> list[str | None]:
    """For each right answer None if answers can be judged against it, else why not.

    Numbers and words are read here, the rest by math-verify on `jobs` cores or all of them; equal ones once.
    """
    reasons: dict[str, str | None] = {}
    unsure: list[str] = []
    for gold in dict.fromkeys(golds):
        reasons[gold] = unfit(gold)
        if reasons[gold] is None and read(tidy(gold), gold=True) is None:
            unsure.append(gold)
    if unsure:
        with closing(_new_pool(jobs, len(unsure))) as pool:
            for gold, found in zip(unsure, pool.ask_all([tidy(gold)] for gold in unsure), strict=True):
                reasons[gold] = (
                    f"could not be read: {found.reason}" if isinstance(found, Unanswered) else found
                )
    return [reasons[gold] for gold in golds]


_NO_ANSWERS: Final = frozenset(
    ("proof", "notfound", "none", "na", "null", "nan", "unknown", "noanswer", "seesolution", "todo", "tbd")
)
"""What stands in data sets where there is no right answer; letters only."""


def unfit(gold: str) -> str | None:
    """Why no answer can be judged against this gold, as far as a look at it tells; None where one can."""
    if not gold.strip() or not tidy(gold):
        return "empty"
    if len(gold) > MAX_LENGTH:
        return f"longer than {MAX_LENGTH} characters"
    letters = re.sub(r"[\W_]", "", re.sub(r"\\(?:text|mathrm|mbox)(?![a-z])", "", gold)).lower()
    return "not an answer" if letters in _NO_ANSWERS else None


def _without_algebra(gold: str, answer: str) -> Verdict | None:
    """The verdict, or None where mathematics has to be compared."""
    if len(answer) > MAX_LENGTH and answer != gold:
        return failed("answer too long", answer[:MAX_LENGTH])
    if len(gold) > MAX_LENGTH and answer != gold:
        return undecided("right answer too long", answer)
    if gold.isdecimal() and answer.isdecimal() and gold.isascii() and answer.isascii():  # most of all answers
        value = answer.lstrip("0") or "0"
        return passed(value) if value == (gold.lstrip("0") or "0") else failed("wrong answer", value)
    right, given = tidy(gold), tidy(answer)
    if not right:
        return undecided("right answer is empty", given)
    if not given:
        return failed("answer is empty", given)
    if bare(right) == bare(given):
        return passed(_canonical(given))
    right_value = read(right, gold=True)
    if right_value is None:
        return None
    if chosen := _choice(right_value, given):
        return passed(chosen)
    given_value = read(given)
    if given_value is None:
        return _without_value(right_value, given)
    if right_value.name and given_value.name and right_value.name != given_value.name:
        return None  # f(x) and f(y) may define the same
    extracted = _canonical(given)
    return passed(extracted) if same(right_value, given_value) else failed("wrong answer", extracted)


_CHOICE: Final = re.compile(
    r"(?:\\text\{)?\(?([A-J])(?:\}?\)\}?|[.:]) "
    r"(?![-+=*^])(?!.*(?<![a-zA-Z])(?:or|and|not|maybe)(?![a-zA-Z]))\S"
)
_ANY_CHOICE: Final = re.compile(r"(?<![a-zA-Z])[A-J](?:\}?\)|[.:]|(?![a-zA-Z]))")


def _choice(right: Named, given: str) -> str | None:
    """The letter, if it is right and what follows it is only what that choice says: `C) 42`."""
    match = _CHOICE.match(given) if isinstance(right.value, str) and len(right.value) == 1 else None
    alone = match is not None and len(_ANY_CHOICE.findall(given)) == 1
    return match[1] if match and alone and match[1] == right.value else None


def _without_value(right: Named, given: str) -> Verdict | None:
    """What is known of an answer that cannot be read without algebra."""
    value = right.value
    if (isinstance(value, str) and len(value) > 1) or (isinstance(value, Quantity) and value.base):
        return failed("wrong answer", bare(given))
    if isinstance(value, Quantity):
        rest = named(given)[1]
        if len(split(rest)) > 1:
            return failed("more than one answer", bare(given))
        if _TOO_LARGE.search(given):
            return failed("too large", given)
        if _left_to_do(rest):
            return failed("arithmetic left to do", bare(given))
        if _WORD.search(rest) or not re.search(r"[\d\\]", rest):
            return failed("not a number", bare(given))
    return None


_WORD: Final = re.compile(r"(?<![a-zA-Z\\{])(?!sqrt)[a-zA-Z]{4,}")  # in a number, only `\text{}` holds words
_TOO_LARGE: Final = re.compile(
    r"\d{5,}[)}]? ?!|\^ ?\{? ?-?\d{5,}|\^ ?\{? ?\d{2,} ?\^ ?\{? ?(?:[4-9]|\d\d)|\^ ?\{? ?\d ?\^ ?\{? ?\d\d"
    r"|\\d?binom ?\{ ?(?:\d{5,}|\d+ ?\^)",
    re.ASCII,
)
"""Factorials, powers and binomials that no number of `MAX_LENGTH` characters is equal to, and at which sympy
would work until its time is up."""

_ARITHMETIC: Final = re.compile(r"\\(?:frac|times|cdot|div)(?![a-zA-Z])")
_LEFT_TO_DO: Final = re.compile(r"[\d)}] ?[-+*(#] ?[-\d.({#]", re.ASCII)


def _left_to_do(text: str) -> bool:
    """Whether a text is sums and products of numerals, such as `49 + 216`."""
    signs = _ARITHMETIC.sub(lambda match: "" if match[0] == "\\frac" else "#", text)
    return bool(_LEFT_TO_DO.search(signs)) and not re.search(r"[a-zA-Z\\^!|_]", signs)


def _canonical(given: str) -> str:
    """The form that equal answers share, as far as that can be known without algebra; for counting votes."""
    answer = read(given)
    if answer is None:
        return bare(given)
    value = answer.value
    if isinstance(value, Quantity) and not (value.percent or value.unit or value.base):
        return str(value.value)
    return value if isinstance(value, str) else bare(answer.text)


JUDGES: Final[dict[str, Callable[[str, str], Verdict]]] = {
    "exact": judge_exact,
    "number": judge_number,
    "math": judge_math,
}
"""By the name a recipe uses; each takes (right answer, answer given)."""


_NUMBER: Final = re.compile(rf"[-+]?{UNSIGNED}", re.ASCII)


def only_number(text: str) -> Fraction | None:
    """The number that `text` is, or else the one number that stands in it, or None: `72 dollars` holds 72."""
    whole = number(text)
    if whole is not None:
        return whole
    found = _NUMBER.findall(text)
    return number(found[0]) if len(found) == 1 else None


# --- math-verify, in workers

_WORKER: Final = "r1pipe.verify.symbolic"
_MOST_KEPT: Final = 65_536

_lock = threading.Lock()
_found: OrderedDict[tuple[str, str], Verdict] = OrderedDict()


def _compared(gold: str, answer: str) -> Verdict:
    """What math-verify says of a pair; asked once, unless nobody could say."""
    pair = (tidy(gold), tidy(answer))
    with _lock:
        verdict = _found.get(pair)
    if verdict is None:
        answered = _shared_pool().ask(pair)
        verdict = _verdict(pair[1], answered)
        if not isinstance(answered, Unanswered):
            with _lock:
                _found[pair] = verdict
                if len(_found) > _MOST_KEPT:
                    _found.popitem(last=False)
    return verdict


def _compare_all(pairs: Sequence[tuple[str, str]], jobs: int | None) -> list[Verdict]:
    """What math-verify says of each pair; equal pairs are asked once."""
    tidied = [(tidy(gold), tidy(answer)) for gold, answer in pairs]
    different = list(dict.fromkeys(tidied))
    with closing(_new_pool(jobs, len(different))) as pool:
        found = dict(zip(different, pool.ask_all(different), strict=True))
    return [_verdict(pair[1], found[pair]) for pair in tidied]


def _verdict(answer: str, found: Any) -> Verdict:
    if isinstance(found, Unanswered):
        return undecided(f"comparison {found.reason}", _canonical(answer))
    mark, reason = found
    return Verdict(Mark(mark), reason, _canonical(answer))


def _shared_pool() -> Pool:
    """The one that single questions share."""
    return shared(_WORKER, DEADLINE_SECONDS)


def _new_pool(jobs: int | None, questions: int) -> Pool:
    return Pool(_WORKER, size=max(1, min(jobs or cores(), questions)), deadline=DEADLINE_SECONDS)
