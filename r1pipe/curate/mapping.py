"""A row of any JSON Lines file as a trace: which of its columns holds what.

Rows of `sample` need no mapping. Those of others name their columns in the recipe:

    columns: {prompt: problem, completion: solution, gold: answer, domain: info.subject}
"""

import math
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from r1pipe.conversation import read_turns
from r1pipe.jsonl import Row
from r1pipe.prompting import CLOSE_THINK, OPEN_THINK, Parsed, opens_thinking, parse, render
from r1pipe.verify.verdict import Mark

if TYPE_CHECKING:
    from r1pipe.curate.words import Words

CHARACTERS_PER_TOKEN: Final = 4
"""By which tokens are estimated where a row does not tell them; English text has about so many."""


class Columns(BaseModel):
    """Which column holds what; a dot reaches into an object (`info.answer`), a number into a list."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    id: str = "id"
    """Tells the rows of a file apart; one without it is called by its file and place."""
    problem: str = "problem_id"
    """What the completions of one problem share; without it the question does."""
    question: str = "question"
    """What was asked, without any template; without it the prompt."""
    prompt: str = "prompt"
    """What the model was given."""
    completion: str = "completion"
    """What it wrote."""
    thinking: str | None = None
    """The thinking, where it has a column of its own; then `answer` names that of the rest, and the
    completion is `<think> … </think>` and the rest."""
    answer: str | None = None
    """What follows the thinking, where that has a column of its own."""
    messages: str = "messages"
    """A conversation, as a list of {role, content} or {from, value}, where a row has no completion: it ends
    in the assistant's words, which are the completion."""
    gold: str = "gold"
    """The right answer."""
    verdict: str = "verdict"
    """`pass`, `fail` or `undecided`; also true and false, 1 and 0. `unjudged` is none."""
    reason: str = "reason"
    """Why it did not pass."""
    tokens: str = "tokens"
    """Tokens of the completion."""
    truncated: str = "truncated"
    """Whether the token limit cut it off."""
    finish_reason: str = "finish_reason"
    """Else why it ended: `length` is cut off."""
    domain: str = "task"
    """What it is about, for counts and for `balance`; without it the file's name."""
    pass_rate: str = "pass_rate"
    """The share of its problem's completions that are right, or {n, c}; without it the rows are counted."""
    preference: str = "preference"
    """How good a preference model finds it: a number on any scale."""
    template: Literal["plain", "r1-zero"] = "plain"
    """`r1-zero` makes the paper's prompt of the prompt column; `plain` takes its text as the prompt."""

    @cached_property
    def moved(self) -> frozenset[str]:
        """Those that are called otherwise here and are published under their usual names."""
        names = (*_PUBLISHED, "thinking", "answer")
        usual = {Columns.model_fields[name].default for name in names}
        return frozenset(str(getattr(self, name)) for name in names if getattr(self, name) not in usual)


_PUBLISHED: Final = ("id", "question", "prompt", "completion", "messages", "gold", "verdict", "domain")
"""What is published under its usual name; `thinking` and `answer` are in the completion."""


@dataclass(slots=True)
class Trace:
    """A row as the steps see it."""

    row: Row
    id: str | None
    problem: str | None
    question: str
    prompt: str
    completion: str
    opened: bool
    """Whether the prompt ends in an opened `<think>`."""
    reasoning: bool | None
    """Whether thinking was asked for; None where the row does not say."""
    truncated: bool
    verdict: Mark | None
    reason: str
    gold: Any
    tokens: int
    counted: bool
    """Whether the row tells its tokens; else they are estimated."""
    domain: str | None
    pass_rate: float | None
    preference: float | None
    messages: list[dict[str, str]] | None
    as_it_is: bool
    """Whether the row can be trained on without a change."""
    moved: frozenset[str] = frozenset()
    """Columns that are published under the usual names, and not twice."""
    _parts: Parsed | None = field(default=None, repr=False)
    _words: "Words | None" = field(default=None, repr=False)
    _question_words: "Words | None" = field(default=None, repr=False)

    @property
    def parts(self) -> Parsed:
        """The parts of the completion."""
        if self._parts is None:
            self._parts = parse(self.completion, self.opened)
        return self._parts

    @property
    def words(self) -> "Words":
        """The words of the completion."""
        if self._words is None:
            self._words = read_words(self.completion)
        return self._words

    @property
    def question_words(self) -> "Words":
        """The words of the question."""
        if self._question_words is None:
            self._question_words = read_question(self.question)
        return self._question_words

    def publishable(self, id: str) -> Row:
        """The row as it is published: with an id, and with what a fine-tuning reads under the usual names."""
        if self.as_it_is:
            return {**self.row, "id": id}
        row = {key: value for key, value in self.row.items() if key not in self.moved}
        told: Row = {"id": id, "messages": self.messages}
        if self.messages is None:
            question = self.question if self.question != self.prompt else None
            told |= {"question": question, "prompt": self.prompt, "completion": self.completion}
        told |= {
            "gold": self.gold,
            "verdict": None if self.verdict is None else self.verdict.value,
            "task": self.domain,
        }
        return {**row, **{key: value for key, value in told.items() if value is not None}}


def read_words(text: str) -> "Words":
    """The words of a text; numpy is loaded by the first one."""
    from r1pipe.curate import words

    return words.read(text)


@lru_cache(maxsize=256)
def read_question(text: str) -> "Words":
    """The words of a question, remembered: the samples of a problem mostly stand side by side."""
    return read_words(text)


def read_trace(row: Row, columns: Columns) -> Trace | str:
    """The trace that a row holds, or in a few words why it holds none."""
    said = _said(row, columns)
    if isinstance(said, str):
        return said
    question, prompt, completion, messages, as_it_is = said
    if not completion.strip():
        return "the completion is empty"
    tokens, told_domain = _at(row, columns.tokens), _at(row, columns.domain)
    told_id, problem = (_name(_at(row, column)) for column in (columns.id, columns.problem))
    counted = isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 0
    told_verdict = _at(row, columns.verdict)
    verdict = _mark(told_verdict)
    as_it_is = as_it_is and (told_verdict is None or str(told_verdict) in _WORDS)
    if verdict is _UNREADABLE:
        return f"no verdict: {told_verdict!r:.60} in {columns.verdict!r}"
    asked = row.get("reasoning")
    return Trace(
        row=row,
        id=told_id,
        problem=problem,
        question=question,
        prompt=prompt,
        completion=completion,
        opened=opens_thinking(prompt),
        reasoning=asked if isinstance(asked, bool) else None,
        truncated=_at(row, columns.truncated) is True or _at(row, columns.finish_reason) == "length",
        verdict=verdict if isinstance(verdict, Mark) else None,
        reason=str(_at(row, columns.reason) or ""),
        gold=_at(row, columns.gold),
        tokens=tokens if counted else -(-len(completion) // CHARACTERS_PER_TOKEN),
        counted=counted,
        domain=_name(told_domain),
        pass_rate=_rate(_at(row, columns.pass_rate)),
        preference=_number(_at(row, columns.preference)),
        messages=messages,
        moved=columns.moved,
        as_it_is=as_it_is and not columns.moved and told_id is not None and row["id"] == told_id,
    )


_Said = tuple[str, str, str, list[dict[str, str]] | None, bool]


def _said(row: Row, columns: Columns) -> _Said | str:
    """(question, prompt, completion, messages, whether nothing had to be made), or why there is none."""
    completion, usual = _at(row, columns.completion), True
    if columns.thinking is not None and columns.answer is not None:
        thinking, answer = _at(row, columns.thinking), _at(row, columns.answer)
        if not isinstance(thinking, str) or not isinstance(answer, str):
            return _no_text(row, columns.thinking, columns.answer)
        completion, usual = f"{OPEN_THINK}\n{thinking.strip()}\n{CLOSE_THINK}\n\n{answer.strip()}", False
    elif completion is None and (messages := _at(row, columns.messages)) is not None:
        return _conversation(messages, columns.messages)
    prompt = _at(row, columns.prompt)
    if not isinstance(prompt, str) or not isinstance(completion, str):
        return _no_text(row, columns.prompt, columns.completion)
    question = _at(row, columns.question)
    question = question if isinstance(question, str) and question else prompt
    if columns.template == "r1-zero":
        thinks = completion.lstrip().startswith(OPEN_THINK)
        prompt, usual = render("r1-zero", prompt, reasoning=thinks), False
        completion = completion.lstrip().removeprefix(OPEN_THINK) if thinks else completion
    usual = usual and (columns.prompt, columns.completion) == ("prompt", "completion")
    return question, prompt, completion if usual else _apart(prompt, completion), None, usual


def _apart(prompt: str, completion: str) -> str:
    """A completion that was no continuation of this prompt, with a space where it would run into it: a
    fine-tuning reads one right after the other."""
    runs_into = completion.strip() and not prompt[-1:].isspace() and not completion[:1].isspace()
    return f" {completion}" if runs_into else completion


def _no_text(row: Row, *columns: str) -> str:
    return f"no text in {' and '.join(map(repr, columns))}; the row has: {', '.join(row)[:200] or 'nothing'}"


def _conversation(messages: Any, column: str) -> _Said | str:
    told = read_turns(messages, column)
    if isinstance(told, str):
        return told
    question = "\n\n".join(each["content"] for each in told[:-1] if each["role"] == "user")
    usual = column == "messages" and told == messages
    return question, question, told[-1]["content"], told, usual


def _at(row: Row, column: str) -> Any:
    """What stands in a column, None where there is no such; a name with dots may also be a key itself."""
    if column in row or "." not in column:
        return row.get(column)
    value: Any = row
    for key in column.split("."):
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value


_WORDS: Final = frozenset(mark.value for mark in Mark)
"""The verdicts that are published as they are; others' are written in these words."""
_UNREADABLE: Final = object()
_MARKS: Final[dict[Any, Mark]] = {
    **{mark.value: mark for mark in Mark},
    **dict.fromkeys((True, 1, "true", "True", "correct", "yes"), Mark.PASS),
    **dict.fromkeys((False, 0, "false", "False", "incorrect", "wrong", "no"), Mark.FAIL),
}


def _mark(value: Any) -> Mark | object | None:
    if value is None or value == Mark.UNJUDGED:
        return None
    if isinstance(value, Mark):
        return value
    hashable = isinstance(value, str | int | float | bool)
    return _MARKS.get(value, _UNREADABLE) if hashable else _UNREADABLE


def _name(value: Any) -> str | None:
    """A name or a number as a name."""
    if isinstance(value, str) and value:
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _rate(value: Any) -> float | None:
    if isinstance(value, dict):
        n, c = value.get("n"), value.get("c")
        return c / n if isinstance(n, int) and isinstance(c, int) and 0 <= c <= n and n > 0 else None
    share = _number(value)
    return share if share is not None and 0 <= share <= 1 else None


def _number(value: Any) -> float | None:
    """A finite number as one."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and abs(value) < math.inf else None
