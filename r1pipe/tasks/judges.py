"""How one row of a file becomes an item, and how answers to it are judged: one class for each kind of row."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar, Final, Literal, Protocol

from r1pipe.prompting import Parsed
from r1pipe.tasks.base import Item
from r1pipe.verify.math import JUDGES, check_golds, gold_answer, only_number
from r1pipe.verify.verdict import Verdict, failed, passed

TextRule = Literal["exact", "number", "math"]

QUESTION_COLUMNS: Final = ("question", "problem", "prompt")
ANSWER_COLUMNS: Final = ("answer", "solution")
CHOICES_COLUMNS: Final = ("choices", "options")
DIFFICULTY_COLUMNS: Final = ("difficulty", "level")


class RowJudge(Protocol):
    """What a kind of row needs; the ids, the splits and the order of items are the task's affair."""

    waits: ClassVar[bool]
    """Whether a judgement waits for another process."""

    def item(self, row: Mapping[str, Any], question: str | None) -> Item | str:
        """The item that a row describes, or why it describes none.

        `question` is the text that the recipe's `question_column` gives; without it the row's own is found.
        """
        ...

    def unusable(self, items: Sequence[Item]) -> list[str | None]:
        """Of each item why no answer to it could be judged, or None. Asked once, before anything is."""
        ...

    def extract(self, item: Item, parsed: Parsed) -> str | None:
        """The answer to an item in a completion, or None."""
        ...

    def judge(self, item: Item, answer: str) -> Verdict:
        """The verdict on an answer. Never raises on any answer."""
        ...

    def right_answer(self, item: Item) -> str | None:
        """An answer that must pass, or None where the row holds none."""
        ...


class Plain:
    """What most kinds of row have in common."""

    waits: ClassVar[bool] = False

    def unusable(self, items: Sequence[Item]) -> list[str | None]:
        """Nothing more to be found out than when the row was read."""
        return [None] * len(items)

    def extract(self, item: Item, parsed: Parsed) -> str | None:
        """What the completion marks as its answer."""
        return parsed.answer

    def right_answer(self, item: Item) -> str | None:
        """The row's own."""
        return item.gold if isinstance(item.gold, str) else None


@dataclass(frozen=True)
class TextJudge(Plain):
    """Answers that are text, a number or mathematics; `gold` is taken out of a worked solution."""

    rule: TextRule = "math"
    answer_column: str | None = None

    waits: ClassVar[bool] = True

    def item(self, row: Mapping[str, Any], question: str | None) -> Item | str:
        """From a question and an answer."""
        question = question or text_under(row, QUESTION_COLUMNS)
        columns = (self.answer_column,) if self.answer_column else ANSWER_COLUMNS
        answer = under(row, columns)
        if question is None:
            return f"no text under {' or '.join(QUESTION_COLUMNS)}"
        if not _is_answer(answer):
            return f"no text or number under {' or '.join(columns)}"
        gold = gold_answer(str(answer))
        if not gold:
            return "the answer marks a final answer and leaves it empty"
        if self.rule == "number" and only_number(gold) is None:
            return f"the answer {gold[:60]!r} is not a number"
        return Item("", question, gold)

    def unusable(self, items: Sequence[Item]) -> list[str | None]:
        """Right answers that mathematics cannot be compared with."""
        if self.rule != "math":
            return super().unusable(items)
        return check_golds([item.gold for item in items])

    def judge(self, item: Item, answer: str) -> Verdict:
        """By the rule."""
        return JUDGES[self.rule](item.gold, answer)


# --- Choices

MAX_LENGTH: Final = 2000
"""Characters of an answer that is one of the choices."""
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LETTER: Final = re.compile(
    r"(?:\\text\{)?(?:option|choice|answer)?\s*[(\[]?\s*([A-Za-z])\s*[)\]]?\}?\s*(?:[.):,-]\s*(.*))?",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True)
class ChoiceJudge(Plain):
    """Multiple choice; `gold` is the right letter, and the choices are in `meta`."""

    answer_column: str | None = None

    def item(self, row: Mapping[str, Any], question: str | None) -> Item | str:
        """From a question, its choices, and the right one by letter, by number from 0, or by its text."""
        question = question or text_under(row, QUESTION_COLUMNS)
        if question is None:
            return f"no text under {' or '.join(QUESTION_COLUMNS)}"
        given = under(row, CHOICES_COLUMNS)
        choices = _choices(given)
        if not 2 <= len(choices) <= len(_LETTERS) or len(set(map(_same_text, choices)) - {""}) < len(choices):
            return f"no list of different texts under {' or '.join(CHOICES_COLUMNS)}"
        columns = (self.answer_column,) if self.answer_column else ANSWER_COLUMNS
        places = _places_of(under(row, columns), choices, _labels(given))
        if len(places) > 1:
            return f"what stands under {' or '.join(columns)} is one choice's letter and another one's text"
        if not places:
            return f"what stands under {' or '.join(columns)} is none of its {len(choices)} choices"
        (place,) = places
        listed = "\n".join(f"{letter}) {choice}" for letter, choice in zip(_LETTERS, choices, strict=False))
        asked = f"{question}\n{listed}\nAnswer with the letter of the right choice."
        return Item("", asked, _LETTERS[place], meta={"choices": choices})

    def judge(self, item: Item, answer: str) -> Verdict:
        """Pass when the answer is the right letter, with or without its text, or the text alone.

        A letter is one before it is a text: where a choice's text is `C`, the answer `C` means the third.
        """
        choices = item.meta["choices"]
        by_letter = _by_letter(answer, choices)
        place = _by_text(answer, choices) if by_letter is None else by_letter
        if place is None:
            return failed("not one of the choices", answer[:200])
        letter = _LETTERS[place]
        return passed(letter) if letter == item.gold else failed("wrong choice", letter)


def _choices(value: Any) -> list[str]:
    """The choices' texts: a list, a mapping by letters, or ARC's `{text: […], label: […]}`; else nothing."""
    if isinstance(value, Mapping):
        texts = value.get("text")
        value = (
            texts
            if isinstance(texts, list)
            else [value[key] for key in sorted(value) if value[key] is not None]
        )
    if not isinstance(value, list) or not all(type(each) in (str, int, float) for each in value):
        return []
    return [str(each).strip() for each in value]


def _labels(value: Any) -> list[str]:
    """What the row itself calls its choices, where it does."""
    labels = value.get("label") if isinstance(value, Mapping) else None
    return [str(label) for label in labels] if isinstance(labels, list) else []


def _places_of(answer: Any, choices: Sequence[str], labels: Sequence[str]) -> set[int]:
    """Which choices a row may mean by its answer: its own label, a number from 0, a letter, or a text."""
    if str(answer) in labels[: len(choices)]:
        return {labels.index(str(answer))}
    if isinstance(answer, int) and not isinstance(answer, bool):
        return {answer} & set(range(len(choices)))
    if not isinstance(answer, str):
        return set()
    return {place for place in (_by_letter(answer, choices), _by_text(answer, choices)) if place is not None}


def _by_text(answer: str, choices: Sequence[str]) -> int | None:
    texts = [_same_text(choice) for choice in choices]
    return texts.index(_same_text(answer)) if _same_text(answer) in texts else None


def _by_letter(answer: str, choices: Sequence[str]) -> int | None:
    """`B`, `(b)`, `Option B`, `B) Paris`; None where what follows the letter is not that choice's text."""
    match = _LETTER.fullmatch(answer.strip().strip("*$ ").rstrip(".")) if len(answer) <= MAX_LENGTH else None
    if match is None:
        return None
    place, rest = _LETTERS.index(match[1].upper()), match[2]
    if place >= len(choices) or (rest and _same_text(rest) != _same_text(choices[place])):
        return None
    return place


def _same_text(text: str) -> str:
    return " ".join(text.split()).rstrip(".").casefold()


# --- Rows


def _is_answer(value: Any) -> bool:
    """Whether a value is a text that says something, or a finite number."""
    if isinstance(value, str):
        return bool(value.strip())
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def under(row: Mapping[str, Any], columns: Sequence[str]) -> Any:
    """What stands under the first of these columns that the row has."""
    return next((row[column] for column in columns if row.get(column) is not None), None)


def text_under(row: Mapping[str, Any], columns: Sequence[str]) -> str | None:
    """The text under the first of these columns that the row has; None where that is no text or empty."""
    value = under(row, columns)
    return value.strip() or None if isinstance(value, str) else None


def difficulty_of(row: Mapping[str, Any]) -> float | None:
    """The number under `difficulty` or `level`; MATH writes `Level 5`."""
    value = under(row, DIFFICULTY_COLUMNS)
    if isinstance(value, str) and (found := re.fullmatch(r"(?:Level )?(\d{1,3}(?:\.\d+)?)", value)):
        return float(found[1])
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
