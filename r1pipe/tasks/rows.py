"""Questions and answers from files and data sets: `jsonl`, `math`, `logic`, `code`, `choice`, `exact`,
`open`.

They differ only in how a row is read and judged (`judges`); what they share is here.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, get_args

from pydantic import Field, model_validator

from r1pipe.errors import UsageError
from r1pipe.jsonl import BadRow
from r1pipe.prompting import Parsed
from r1pipe.stage import DataPath
from r1pipe.tasks.base import Item, Task, TruncatedRule, check_split, held_out, in_split, take
from r1pipe.tasks.code import CodeJudge
from r1pipe.tasks.countdown import CountdownJudge
from r1pipe.tasks.judges import ChoiceJudge, RowJudge, TextJudge, TextRule, difficulty_of
from r1pipe.tasks.logic import LogicJudge
from r1pipe.tasks.open_ended import OPEN, OpenJudge, Rule
from r1pipe.tasks.source import Located, read_hub, read_path
from r1pipe.tasks.spec import TaskSpec
from r1pipe.verify.isolation import Isolation
from r1pipe.verify.verdict import Verdict

JudgeName = Literal["exact", "number", "math", "choice", "logic", "code", "countdown", "open"]
ID_COLUMNS: Final = ("id", "task_id")
JUDGE_COLUMN: Final = "judge"
"""A row that has it names its own judge."""


@dataclass(frozen=True)
class Rows(Task):
    """The task; what an item's `gold` is depends on its judge, whose name is in its `meta`."""

    pool: tuple[Item, ...]
    judges: Mapping[str, RowJudge]
    bad: tuple[BadRow, ...] = ()
    name: str = "jsonl"
    truncated: TruncatedRule = "fail"

    @property
    def waits(self) -> bool:
        """Whether one of its judges does."""
        return any(self.judges[name].waits for name in {item.meta["judge"] for item in self.pool})

    def items(self, split: str, count: int | None, seed: int) -> list[Item]:
        """Rows in the order of the seed, none twice before all have come once.

        One in five is held out, by the hash of its id if the row has one, else of its question.

        Raises:
            UsageError: no such split, or nothing in it.
        """
        check_split(self, split)
        pool = [item for item in self.pool if in_split(held_out(item.meta["problem"]), split)]
        if not pool:
            raise UsageError(
                f"None of the {len(self.pool)} rows falls into the split {split!r}; set split: all."
            )
        return [item for item, _ in take(pool, count, seed)]

    def extract(self, item: Item, parsed: Parsed) -> str | None:
        """The answer as the row's judge finds it."""
        return self._judge_of(item).extract(item, parsed)

    def judge_answer(self, item: Item, answer: str) -> Verdict:
        """The verdict of the row's judge."""
        return self._judge_of(item).judge(item, answer)

    def right_answer(self, item: Item) -> str | None:
        """The row's own, if its judge knows one."""
        return self._judge_of(item).right_answer(item)

    def is_open(self, item: Item) -> bool:
        """Whether the row is judged as an open question."""
        return item.meta["judge"] == OPEN

    def _judge_of(self, item: Item) -> RowJudge:
        return self.judges[item.meta["judge"]]


@dataclass
class RowReader:
    """Makes items of rows, and sets aside those that make none."""

    judges: Mapping[str, RowJudge]
    judge: str
    """Of the rows that name none."""
    question_column: str | None = None
    reasoning: bool = True
    bad: list[BadRow] = field(default_factory=list)

    def pool(self, rows: Sequence[Located]) -> tuple[Item, ...]:
        """The items of the rows that can be asked, in order; the others are in `bad` afterwards."""
        pool: dict[str, tuple[Item, Located]] = {}
        questions: set[str] = set()
        for each in rows:
            item = self._item(each.row)
            if isinstance(item, Item) and item.id in pool:
                item = f"the id {item.id!r} came before"
            if isinstance(item, Item) and item.question in questions:
                item = "the question came before"
            if isinstance(item, Item):
                pool[item.id] = item, each
                questions.add(item.question)
            else:
                self.bad.append(each.bad(item))
        for name, judge in self.judges.items():
            asked = [item for item, _ in pool.values() if item.meta["judge"] == name]
            for item, reason in zip(asked, judge.unusable(asked), strict=True):
                if reason is not None:
                    self.bad.append(pool.pop(item.id)[1].bad(reason))
        return tuple(item for item, _ in pool.values())

    def _item(self, row: Mapping[str, Any]) -> Item | str:
        named = row.get(JUDGE_COLUMN)
        named = self.judge if named is None else named
        if not isinstance(named, str) or named not in self.judges:
            return f"there is no judge {named!r}; there are {', '.join(self.judges)}"
        question = None
        if self.question_column is not None:
            question = _filled(self.question_column, row)
            if not question:
                return _without(f"no text under {self.question_column}", row)
        item = self.judges[named].item(row, question)
        if isinstance(item, str):
            return _without(item, row) if item.startswith("no ") else item
        name = next((row[key] for key in ID_COLUMNS if row.get(key) not in (None, "")), None)
        if isinstance(name, bool) or not isinstance(name, str | int | None):
            return f"an id is a text or a whole number, not {name!r}"
        problem = item.id or (" ".join(item.question.split()) if name is None else str(name))
        digest = hashlib.sha256(problem.encode(errors="replace")).hexdigest()[:16]
        return replace(
            item,
            id=item.id or (f"row-{digest}" if name is None else str(name)),
            reasoning=self.reasoning,
            difficulty=difficulty_of(row) if item.difficulty is None else item.difficulty,
            meta={**item.meta, "judge": named, "problem": problem},
        )


def _without(reason: str, row: Mapping[str, Any]) -> str:
    """The reason, and what is there instead."""
    return f"{reason}; the row has: {', '.join(map(str, row)) or 'nothing'}"


def _filled(column: str, row: Mapping[str, Any]) -> str | None:
    """What stands under a column, or a text in which each `{column}` is replaced by what stands there."""
    columns = re.findall(r"\{([^{}]+)\}", column) or [column]
    if any(not isinstance(row.get(each), str) for each in columns):
        return None
    if columns == [column]:
        return str(row[column]).strip()
    return re.sub(r"\{([^{}]+)\}", lambda match: row[match[1]], column).strip()


# --- As a recipe writes them


class DataSpec(TaskSpec):
    """The base of the tasks that are read from a file or a data set."""

    path: DataPath | None = None
    """A `.jsonl`, `.jsonl.gz` or `.parquet` file, or a dataset's folder; its bytes count, not its place."""
    dataset: str | None = None
    """In place of `path`: a data set on the Hugging Face hub, `org/name[@revision]`."""
    dataset_config: str | None = None
    """Which of the data set's configurations, where it has several: `main` for openai/gsm8k."""
    dataset_split: str = "train"
    """Which of the data set's own splits is read."""
    question_column: str | None = Field(default=None, min_length=1)
    """The column of the question, or a text with columns in it: `{Body} {Question}`."""
    answer_column: str | None = None
    """The column of the right answer; `answer` or `solution` when it is not set."""
    reasoning: bool = True
    """Whether the prompt opens `<think>`."""

    judge: JudgeName
    """How answers are judged; a row may name another in a column `judge`."""

    @model_validator(mode="after")
    def _one_source(self) -> "DataSpec":
        if (self.path is None) == (self.dataset is None):
            raise ValueError(f"task {self.name!r} needs a path or a dataset, and not both")
        if self.path is not None and (self.dataset_config is not None or self.dataset_split != "train"):
            raise ValueError("dataset_config and dataset_split belong to `dataset`, not to `path`")
        if self.answer_column is not None and self.judge in ("logic", "code", "countdown"):
            raise ValueError(f"judge {self.judge!r} knows its columns by itself, and takes no answer_column")
        return self

    @property
    def answers_directly(self) -> bool:
        """Whether right answers are texts that are asked for without thinking."""
        return not self.reasoning and self.judge in (*get_args(TextRule), OPEN)

    def make(self) -> Rows:
        """Read the rows.

        Raises:
            UsageError: the file is missing or empty, or no row of it can be asked.
            EnvironmentUnfit: the hub cannot be reached.
        """
        rows, bad = self._read()
        reader = RowReader(self.judges(), self.judge, self.question_column, self.reasoning, bad)
        pool = reader.pool(rows)
        if not pool:
            raise UsageError(
                f"No row of '{self.path or self.dataset}' can be asked as {self.name}. The first: "
                f"{reader.bad[0]}. Name its columns with question_column and answer_column."
            )
        return Rows(pool, reader.judges, tuple(reader.bad), self.name, self.truncated)

    def _read(self) -> tuple[list[Located], list[BadRow]]:
        if self.path is not None:
            return read_path(self.path)
        assert self.dataset is not None
        name, _, revision = self.dataset.partition("@")
        return read_hub(name, self.dataset_config, self.dataset_split, revision or None), []

    def judges(self) -> dict[str, RowJudge]:
        """Every judge by the name that a row may ask for it by."""
        texts: dict[str, RowJudge] = {
            rule: TextJudge(rule, self.answer_column) for rule in get_args(TextRule)
        }
        others: dict[str, RowJudge] = {
            "choice": ChoiceJudge(self.answer_column),
            "logic": LogicJudge(),
            "countdown": CountdownJudge(),
            "code": CodeJudge(),
            OPEN: OpenJudge(answer_column=self.answer_column),
        }
        return texts | others


class RowsSpec(DataSpec):
    """Rows of your own, judged by the rule you name, for the file or row by row."""

    name: Literal["jsonl"] = "jsonl"
    judge: JudgeName = "math"
    """How answers are judged: exact, number, math, choice, logic, code, countdown or open. A row may name
    another in a column `judge`."""


class MathSpec(DataSpec):
    """Problems as in GSM8K and MATH; the right answer after `####`, in a `\\boxed{}` or in a column."""

    name: Literal["math"] = "math"
    judge: Literal["math"] = "math"


class ExactSpec(DataSpec):
    """Questions whose answer is one text, compared but for white space."""

    name: Literal["exact"] = "exact"
    judge: Literal["exact"] = "exact"


class OpenSpec(DataSpec):
    """Open questions, such as writing and translation: no right answer, but a rule where you name one."""

    name: Literal["open"] = "open"
    judge: Literal["open"] = "open"
    rule: Rule | None = None
    """What answers have to be like: `{contains: …, not_contains: …, matches: …, at_least: …, at_most: …}`. A
    row may bring its own in a column `rule`. Without one answers are kept and told to be unjudged."""

    def judges(self) -> dict[str, RowJudge]:
        """The same, open questions being judged by the recipe's rule."""
        return {**super().judges(), OPEN: OpenJudge(self.rule, self.answer_column)}


class ChoiceSpec(DataSpec):
    """Multiple choice: rows with `choices`, and the right one by letter, number or text."""

    name: Literal["choice"] = "choice"
    judge: Literal["choice"] = "choice"


class LogicSpec(DataSpec):
    """Knights and knaves, judged by the whole assignment."""

    name: Literal["logic"] = "logic"
    judge: Literal["logic"] = "logic"


class CodeSpec(DataSpec):
    """Python programs judged by tests in a sandbox: HumanEval's, MBPP's, and pairs of input and output."""

    name: Literal["code"] = "code"
    judge: Literal["code"] = "code"
    isolation: Isolation = "bubblewrap"
    """`bubblewrap` needs the program of that name; `limits-only` does not hold hostile programs."""
    seconds: float = Field(default=6.0, gt=0)
    """A program that takes longer fails."""
    memory_mb: int = Field(default=512, ge=64)
    """Mebibytes that a program may use."""

    def judges(self) -> dict[str, RowJudge]:
        """The same, programs being run as the recipe says."""
        own = CodeJudge(isolation=self.isolation, seconds=self.seconds, memory_mb=self.memory_mb)
        return {**super().judges(), "code": own}
