r"""The answer in a text that somebody wrote freely: what it marks, or else what it says last.

Only for files of answers. A completion that is rewarded has to mark its answer (`prompting.parse`).
"""

import re
from typing import Final

from r1pipe.prompting import CLOSE_THINK, marked_answer
from r1pipe.verify.expression import ExpressionError, evaluate
from r1pipe.verify.math import gold_answer
from r1pipe.verify.notation import named, tidy

LONGEST_TEXT: Final = 10_000
"""Characters, from its end, of a text in which an answer is looked for that nothing marks."""
LONGEST_ANSWER: Final = 300
"""Characters of a text without formulas that may be an answer as a whole."""

_FORMULA: Final = re.compile(
    r"\$\$(?P<a>[^$]+)\$\$|(?<!\\)\$(?P<b>(?:\\\$|[^$])+?)(?<!\\)\$"
    r"|(?<!\\)\\\[(?P<c>(?:[^\\]|\\(?!\]))+)\\\]|(?<!\\)\\\((?P<d>(?:[^\\]|\\(?!\)))+)\\\)"
)
_PLAIN: Final = re.compile(r"[-+$\d.,% ]*", re.ASCII)
_JOINT: Final = re.compile(r"[ \t]*(?:,|;|,?[ \t]*(?:and|or))?[ \t]*")
_SPOKEN: Final = re.compile(r"[^\W\d_]{3,}")
_BESIDE: Final = re.compile(
    r"\b(?:and|or|percent|percentage|pct|[a-z]{1,2}|degrees?|dollars?|meters?|inches|feet|miles?|units?)\b"
)
_WORD: Final = re.compile(r"[^\W\d_]{2,}")
_JOINING: Final = re.compile(r"\b(?:and|or)\b")
_LABEL: Final = re.compile(r"[^\W\d_]{3,} ?:")
_COMMAND: Final = re.compile(r"\\[a-zA-Z]+(?:\{[^{}]*\})?")
_UNSIGNED: Final = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,3}(?: \d{3})+(?!\d)|\d+)(?:[.,]\d+)?|\.\d+"
_NUMBER: Final = rf"[-+]?(?:{_UNSIGNED})(?:/\d+)?%?"
_NUMBERS: Final = re.compile(rf"(?<![\w.^])[$€£]?({_NUMBER}(?:(?:, | and | or |, and |, or ){_NUMBER})*)")


def written_answer(text: str) -> str:
    """The answer of a text: what it marks, its last formulas, its last number, or else all of it."""
    _, closed, after = text.rpartition(CLOSE_THINK)
    text = (after if closed else text).strip()
    marked = marked_answer(text)
    return _last_said(text if marked is None else marked)


def written_gold(text: str) -> str:
    """The right answer in a text: what a worked solution ends in, or a long one says last; else all of it."""
    _, box, rest = text.rpartition("\\boxed{")
    if box and rest.count("{") >= rest.count("}"):
        return rest.strip()  # a box that was cut off
    answer = gold_answer(text)
    return _last_said(answer) if len(answer) > LONGEST_ANSWER else answer


def _last_said(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text
    text = text[-LONGEST_TEXT:]
    formulas = list(_FORMULA.finditer(text))
    outside = _FORMULA.sub(lambda match: " " * len(match[0]), text) if formulas else _COMMAND.sub("", text)
    if len(text) <= LONGEST_ANSWER and not _is_prose(outside, bool(formulas)):
        return text
    numbers = list(_NUMBERS.finditer(outside if formulas else text))
    if formulas and (not numbers or numbers[-1].start() < formulas[-1].start()):
        return _worked_out(_last_formulas(text, formulas))
    return numbers[-1][1] if numbers else text


def _is_prose(text: str, formulas: bool) -> bool:
    """Whether words say more than what a formula or number counts: `3 cats and 4 dogs` is an answer."""
    if formulas:
        found = _SPOKEN.findall(_BESIDE.sub("", text.lower()))
        return len(found) > 1 or any(len(word) > 3 for word in found)
    return len(_WORD.findall(_JOINING.sub("", text))) > 2 or bool(_LABEL.match(text))


def _worked_out(formula: str) -> str:
    """The value of sums and products of whole numbers, and what a calculation ends in.

    This formula was found, and not given as an answer.
    """
    left, right = named(tidy(formula))
    if left and not re.search(r"(?<![a-zA-Z\\])[a-zA-Z]", left):
        return right
    try:
        return str(evaluate(formula).value)
    except ExpressionError:
        return formula


def _last_formulas(text: str, formulas: list[re.Match[str]]) -> str:
    """The last formula, with those before it that only an `and`, `or` or comma parts from it."""
    said = []
    for formula, before in zip(reversed(formulas), [*reversed(formulas[:-1]), None], strict=True):
        said.append(next(group for group in formula.groups() if group is not None).strip())
        if before is None or not _JOINT.fullmatch(text, before.end(), formula.start()):
            break
        if before.end() == formula.start():
            break
    return ", ".join(reversed(said))
