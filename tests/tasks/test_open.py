"""Open questions: what is asked, and that nothing is called right that nobody judged."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from r1pipe.errors import UsageError
from r1pipe.tasks import open_ended, task_spec
from r1pipe.tasks.base import Task
from r1pipe.tasks.open_ended import Rule
from r1pipe.verify.verdict import Completion, Mark, Verdict, failed, passed, unjudged


def opened(path: Path, *rows: dict[str, Any], **options: Any) -> Task:
    """The task of some rows."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return task_spec({"name": "open", "path": str(path), **options}).make()


def judged(task: Task, text: str, *, truncated: bool = False, opens: bool = False) -> Verdict:
    """The verdict on an answer to its first question."""
    return task.judge(task.items("all", None, 0)[0], Completion(text, opens, truncated))


def test_questions_and_the_files_own_answers(tmp_path: Path) -> None:
    """From the usual columns, or a conversation's first question and the answer to it; none is needed."""
    said = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello?"}]
    task = opened(
        tmp_path / "a.jsonl",
        {"prompt": "Write a poem."},
        {"question": "Who are you?", "answer": "I do ####what I can."},
        {
            "messages": [
                *said,
                {"role": "assistant", "content": " Hello! "},
                {"role": "user", "content": "Bye"},
            ]
        },
        {"conversations": [{"from": "human", "value": "Say yes."}, {"from": "gpt", "value": "Yes."}]},
        {"messages": [{"role": "user", "content": "Alone"}]},
        {"messages": [{"role": "assistant", "content": "Nobody asked."}]},
        {"prompt": "Write a poem."},
    )
    items = {item.question: item.gold for item in task.items("all", None, 0)}
    assert items == {
        "Write a poem.": None,
        "Who are you?": "I do ####what I can.",
        "Hello?": "Hello!",
        "Say yes.": "Yes.",
        "Alone": None,
    }
    columns = "question or problem or prompt"
    assert [(bad.line, bad.reason) for bad in task.bad] == [
        (6, f"no text under {columns}, nor a user's words in messages; the row has: messages"),
        (7, "the id 'row-5161653c2d6015e2' came before"),
    ]


def test_columns_of_other_names(tmp_path: Path) -> None:
    """As of any task of rows; an answer's column that is named is the only one that is looked at."""
    row = {"frage": "Wer?", "antwort": "Ich.", "answer": "Me."}
    task = opened(tmp_path / "a.jsonl", row, question_column="frage", answer_column="antwort")
    assert [(each.question, each.gold) for each in task.items("all", None, 0)] == [("Wer?", "Ich.")]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Hello there.", unjudged("no rule")),
        (" \n ", failed("no answer")),
        ("", failed("no answer")),
    ],
)
def test_nothing_judges_without_a_rule(tmp_path: Path, text: str, verdict: Verdict) -> None:
    """A whole answer is neither a pass nor a fail, and not undecided; an empty one fails."""
    task = opened(tmp_path / "a.jsonl", {"prompt": "Greet."}, reasoning=False)
    assert judged(task, text) == verdict
    assert judged(task, text, truncated=True) == failed("truncated")
    assert (verdict.decided, verdict.judged) == (True, verdict.mark is Mark.FAIL)


def test_thinking_is_no_part_of_the_answer(tmp_path: Path) -> None:
    """Where thinking is asked for it must be there and closed; a rule sees what follows it."""
    task = opened(tmp_path / "a.jsonl", {"prompt": "Greet."}, rule={"not_contains": "hm"})
    assert judged(task, "hm </think> Hello.", opens=True) == passed("Hello.")
    assert judged(task, "hm </think> <answer> Hello. </answer>", opens=True) == passed("Hello.")
    assert judged(task, "hm", opens=True) == failed("thinking not closed")
    assert judged(task, "hm </think> ", opens=True) == failed("no answer")
    assert judged(task, "Hello.") == failed("no answer")
    assert judged(task, "so </think> Hm.", opens=True) == failed("contains 'hm'", "Hm.")


@pytest.mark.parametrize(
    ("rule", "answer", "broken"),
    [
        ({"contains": "Ada"}, "hello ADA", None),
        ({"contains": ["Ada", "Wei"]}, "hello ada", "does not contain 'Wei'"),
        ({"not_contains": ["sorry", "cannot"]}, "I CANNOT", "contains 'cannot'"),
        ({"matches": r"^\d+\.$"}, "So\n12.", None),
        ({"matches": r"^\d+\.$"}, "So 12.", r"does not match '^\\d+\\.$'"),
        ({"at_least": 2, "at_most": 3}, "a", "fewer than 2 words"),
        ({"at_least": 2, "at_most": 3}, "a b c", None),
        ({"at_least": 2, "at_most": 3}, "a b c d", "more than 3 words"),
        ({"contains": "b", "at_most": 1}, "a b", "more than 1 words"),
    ],
)
def test_rules(rule: dict[str, Any], answer: str, broken: str | None) -> None:
    """All that a rule says must hold; what does not is told."""
    assert Rule.model_validate(rule).broken_by(answer) == broken


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({}, "the rule is empty; it takes contains, not_contains, matches, at_least, at_most"),
        ({"matches": "("}, "is no regular expression: missing \\)"),
        ({"at_least": 3, "at_most": 2}, "at_least is 3 and at_most 2: no answer could pass"),
        ({"at_least": "3"}, "at_least: Input should be a valid integer"),
        ({"contain": "x"}, "contain: Extra inputs are not permitted"),
        ("short", "Input should be a valid dictionary"),
    ],
)
def test_rules_that_cannot_be_read(tmp_path: Path, rule: Any, message: str) -> None:
    """A row with one is set aside with the reason, and a recipe with one is refused."""
    rows = [{"prompt": "one", "rule": rule}, {"prompt": "two", "rule": {"contains": "x", "at_most": None}}]
    task = opened(tmp_path / "a.jsonl", *rows)
    (bad,) = task.bad
    assert bad.line == 1 and "its rule cannot be read: " in bad.reason
    assert [item.meta["rule"] for item in task.items("all", None, 0)] == [{"contains": ["x"]}]
    with pytest.raises(ValidationError, match=message.split(": ")[-1]):
        task_spec({"name": "open", "path": "a.jsonl", "rule": rule})


def test_a_row_may_bring_its_own_rule(tmp_path: Path) -> None:
    """It goes before the recipe's."""
    task = opened(
        tmp_path / "a.jsonl",
        {"prompt": "Greet.", "rule": {"contains": "Ada"}},
        rule={"at_most": 1},
        reasoning=False,
    )
    assert judged(task, "hello Ada") == passed("hello Ada")


def test_an_endless_expression_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that would search for years is stopped, and the answer is not called wrong for it."""
    monkeypatch.setattr(open_ended, "SECONDS", 0.05)
    task = opened(tmp_path / "a.jsonl", {"prompt": "a"}, rule={"matches": r"^(a|aa)+$"}, reasoning=False)
    verdict = judged(task, "a" * 50 + "b")
    assert (verdict.mark, verdict.reason) == (Mark.UNDECIDED, "the regular expression timed out")


def test_a_rule_belongs_to_this_task(tmp_path: Path) -> None:
    """Other tasks say whose it is; a row of any file may ask for this judge."""
    with pytest.raises(ValidationError, match="task 'math' takes no 'rule'; it belongs to task 'open'"):
        task_spec({"name": "math", "path": "a.jsonl", "rule": {"at_most": 3}})
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "Greet.", "judge": "open"}\n{"prompt": "1 + 1", "answer": "2"}\n')
    task = task_spec({"name": "jsonl", "path": str(path)}).make()
    assert {item.question: task.is_open(item) for item in task.items("all", None, 0)} == {
        "Greet.": True,
        "1 + 1": False,
    }
    (tmp_path / "empty.jsonl").write_text('{"text": "no question"}\n')
    with pytest.raises(UsageError, match=r"No row of .* can be asked as open.*question_column"):
        task_spec({"name": "open", "path": str(tmp_path / "empty.jsonl")}).make()
