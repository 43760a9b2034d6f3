"""Questions that have no one right answer: writing, translation, talk; judged by a rule where there is one.

DeepSeek-R1 paper, section 2.3.3: the fifth of the training data that is not reasoning.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from r1pipe.conversation import read_turn
from r1pipe.prompting import Parsed
from r1pipe.tasks.base import Item
from r1pipe.tasks.judges import ANSWER_COLUMNS, QUESTION_COLUMNS, Plain, text_under, under
from r1pipe.verify.verdict import Verdict, failed, passed, undecided, unjudged

if TYPE_CHECKING:
    import regex

OPEN: Final = "open"
"""The judge's name."""
RULE_COLUMN: Final = "rule"
"""A row that has it brings its own rule."""
UNJUDGED: Final = "no rule"
"""The reason of a verdict where nothing says whether the answer is good."""

SECONDS: Final = 2.0
"""That a regular expression may take on one answer. Some take longer than any machine lasts."""

_Texts = Annotated[
    list[Annotated[str, Field(min_length=1)]], BeforeValidator(lambda v: [v] if isinstance(v, str) else v)
]


class Rule(BaseModel):
    """What an answer has to be like, as a recipe or a row writes it. All that is set must hold."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    contains: _Texts = Field(default=[])
    """Texts that each must stand in the answer; upper and lower case are the same."""
    not_contains: _Texts = Field(default=[])
    """Texts of which none may."""
    matches: str | None = None
    """A regular expression that must be found in it (Python's, where `^` and `$` are a line's ends)."""
    at_least: int | None = Field(default=None, ge=1)
    """Fewest words."""
    at_most: int | None = Field(default=None, ge=1)
    """Most words."""

    @field_validator("matches")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None and (mistake := _mistake_in(pattern)) is not None:
            raise ValueError(f"{pattern!r} is no regular expression: {mistake}")
        return pattern

    @model_validator(mode="after")
    def _says_something(self) -> "Rule":
        if not self.model_dump(exclude_defaults=True):
            raise ValueError(f"the rule is empty; it takes {', '.join(type(self).model_fields)}")
        if self.at_least and self.at_most and self.at_least > self.at_most:
            raise ValueError(f"at_least is {self.at_least} and at_most {self.at_most}: no answer could pass")
        return self

    def broken_by(self, answer: str) -> str | None:
        """What of it an answer does not keep, in a few words; None for one that keeps all.

        Raises `TimeoutError` where the regular expression takes longer than `SECONDS`.
        """
        folded, words = answer.casefold(), len(answer.split())
        for text in self.contains:
            if text.casefold() not in folded:
                return f"does not contain {text[:60]!r}"
        for text in self.not_contains:
            if text.casefold() in folded:
                return f"contains {text[:60]!r}"
        if self.matches is not None and not _compiled(self.matches).search(answer, timeout=SECONDS):
            return f"does not match {self.matches[:60]!r}"
        if self.at_least is not None and words < self.at_least:
            return f"fewer than {self.at_least} words"
        return (
            f"more than {self.at_most} words" if self.at_most is not None and words > self.at_most else None
        )


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> "regex.Pattern[str]":
    import regex  # unlike re's, its expressions take a deadline

    return regex.compile(pattern, regex.MULTILINE)


def _mistake_in(pattern: str) -> str | None:
    import regex

    try:
        _compiled(pattern)
    except (regex.error, OverflowError, RecursionError) as error:
        return str(error)
    return None


@dataclass(frozen=True)
class OpenJudge(Plain):
    """Any answer that keeps the rule passes; without one nothing is judged, which is what its verdicts say.

    `gold` is the file's own answer where it has one. It is what `answers: gold` writes, and nothing is
    compared with it.
    """

    rule: Rule | None = None
    """Of rows that bring none."""
    answer_column: str | None = None

    waits: ClassVar[bool] = False

    def item(self, row: Mapping[str, Any], question: str | None) -> Item | str:
        """From a question, or from a conversation's first one with the answer that follows it."""
        first, reply = _conversation(row)
        question = question or text_under(row, QUESTION_COLUMNS) or first
        if question is None:
            return f"no text under {' or '.join(QUESTION_COLUMNS)}, nor a user's words in messages"
        columns = (self.answer_column,) if self.answer_column else ANSWER_COLUMNS
        gold = text_under(row, columns)
        if gold is None and self.answer_column is None:
            gold = reply
        rule = self.rule
        if (own := under(row, (RULE_COLUMN,))) is not None:
            try:
                rule = Rule.model_validate(_written(own))
            except ValidationError as error:
                return f"its rule cannot be read: {_first_mistake(error)}"
        meta = {} if rule is None else {"rule": rule.model_dump(exclude_defaults=True)}
        return Item("", question, gold, meta=meta)

    def extract(self, item: Item, parsed: Parsed) -> str | None:
        """All that follows the thinking; None where that is nothing."""
        return parsed.shown(item.reasoning) or None

    def judge(self, item: Item, answer: str) -> Verdict:
        """By the rule, if there is one."""
        if "rule" not in item.meta:
            return unjudged(UNJUDGED)
        try:
            broken = Rule.model_validate(item.meta["rule"]).broken_by(answer)
        except TimeoutError:
            return undecided("the regular expression timed out", answer)
        return passed(answer) if broken is None else failed(broken, answer)

    def right_answer(self, item: Item) -> str | None:
        """None: many would do."""
        return None


def _conversation(row: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """(the first user's words, the assistant's that follow at once)."""
    turns = row.get("messages", row.get("conversations"))
    told = [read_turn(each) for each in turns] if isinstance(turns, list) else []
    for turn, following in pairwise([*told, None]):
        if turn is not None and turn["role"] == "user" and (asked := turn["content"].strip()):
            if following is None or following["role"] != "assistant":
                return asked, None
            return asked, following["content"].strip() or None
    return None, None


def _written(rule: Any) -> Any:
    """A row's rule without the keys that Parquet gives to every row."""
    if not isinstance(rule, Mapping):
        return rule
    return {key: value for key, value in rule.items() if value is not None}


def _first_mistake(error: ValidationError) -> str:
    found = error.errors()[0]
    place = ".".join(map(str, found["loc"]))
    return f"{f'{place}: ' if place else ''}{found['msg']}"
