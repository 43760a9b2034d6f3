"""Questions and answers of your own, one JSON object a line."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from r1pipe.errors import UsageError
from r1pipe.jsonl import BadRow, dumps, parts, read_rows
from r1pipe.tasks.base import Item, JudgeRule, Task, TruncatedRule, check_split, held_out, in_split, take
from r1pipe.verify.math import JUDGES, gold_answer, only_number
from r1pipe.verify.verdict import Verdict

QUESTION_COLUMNS: Final = ("question", "problem", "prompt")
ANSWER_COLUMNS: Final = ("answer", "solution")


@dataclass(frozen=True)
class Rows(Task):
    """The task `jsonl`; `gold` is the right answer's text, taken out of a worked solution if it is one."""

    name: ClassVar[str] = "jsonl"
    pool: tuple[Item, ...]
    bad: tuple[BadRow, ...] = ()
    """Rows that were set aside, each with its place and the reason."""
    rule: JudgeRule = "math"
    truncated: TruncatedRule = "fail"

    @classmethod
    def read(
        cls,
        path: Path | str,
        *,
        rule: JudgeRule = "math",
        question_column: str | None = None,
        answer_column: str | None = None,
        reasoning: bool = True,
        truncated: TruncatedRule = "fail",
    ) -> "Rows":
        """Read `{id?, question, answer}` rows from a file or a dataset's folder.

        A row without a question or a usable answer, and one whose id came before, is set aside in `bad`.

        Raises:
            UsageError: the file is missing or empty, or no row of it can be used.
        """
        rows, bad = read_rows(path)
        questions = (question_column,) if question_column else QUESTION_COLUMNS
        answers = (answer_column,) if answer_column else ANSWER_COLUMNS
        pool: dict[str, Item] = {}
        for row, place in zip(rows, _places(path, bad), strict=True):
            item = _item(row, questions, answers, rule=rule, reasoning=reasoning)
            if isinstance(item, Item) and item.id in pool:
                item = f"the id {item.id!r} came before"
            if isinstance(item, Item):
                pool[item.id] = item
            else:
                bad.append(BadRow(*place, item, dumps(row).decode()))
        if not pool:
            raise UsageError(
                f"No row of '{path}' can be asked. The first: {bad[0]}. "
                "Name its columns with question_column and answer_column."
            )
        return cls(tuple(pool.values()), tuple(bad), rule, truncated)

    def items(self, split: str, count: int | None, seed: int) -> list[Item]:
        """Rows in the order of the seed, none twice before all have come once.

        One in five is held out, by the hash of its question.

        Raises:
            UsageError: no such split, or nothing in it.
        """
        check_split(self, split)
        pool = [item for item in self.pool if in_split(held_out(item.question), split)]
        if not pool:
            raise UsageError(
                f"None of the {len(self.pool)} rows falls into the split {split!r}; set split: all."
            )
        return [item for item, _ in take(pool, count, seed)]

    def judge_answer(self, item: Item, answer: str) -> Verdict:
        """The verdict by the rule that the recipe chose."""
        return JUDGES[self.rule](item.gold, answer)


def _places(path: Path | str, bad: Sequence[BadRow]) -> Iterator[tuple[str, int]]:
    """(file, line) of every row that could be read."""
    set_aside = {(row.path, row.line) for row in bad}
    for part in parts(path):
        with open(part, "rb") as file:
            for line, text in enumerate(file, start=1):
                if text.strip(b"\xef\xbb\xbf\r\n\t ") and (str(part), line) not in set_aside:
                    yield str(part), line


def _item(
    row: Mapping[str, Any],
    questions: Sequence[str],
    answers: Sequence[str],
    *,
    rule: JudgeRule,
    reasoning: bool,
) -> Item | str:
    """The item a row describes, or why it describes none."""
    question, answer = _first(row, questions), _first(row, answers)
    if not isinstance(question, str) or not question.strip():
        return f"no text under {' or '.join(questions)}"
    if isinstance(answer, bool) or not isinstance(answer, str | int | float) or not str(answer).strip():
        return f"no text or number under {' or '.join(answers)}"
    gold = gold_answer(str(answer))
    if not gold:
        return "the answer marks a final answer and leaves it empty"
    if rule == "number" and only_number(gold) is None:
        return f"the answer {gold[:60]!r} is not a number"
    name = row.get("id")
    digest = hashlib.sha256(question.encode()).hexdigest()[:16]
    return Item(str(name) if name is not None else f"row-{digest}", question.strip(), gold, reasoning)


def _first(row: Mapping[str, Any], columns: Sequence[str]) -> Any:
    return next((row[column] for column in columns if column in row), None)
