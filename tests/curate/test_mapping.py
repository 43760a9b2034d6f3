"""Rows of any file as traces."""

from typing import Any

import pytest

from r1pipe.curate.mapping import Columns, Trace, read_trace
from r1pipe.verify.verdict import Mark
from tests.curating import row


def trace(found: dict[str, Any], **columns: Any) -> Trace:
    made = read_trace(found, Columns(**columns))
    assert isinstance(made, Trace), made
    return made


def test_our_own_rows_need_no_mapping() -> None:
    """Everything has its usual name, and the row is published as it is."""
    found = trace(row(1, finish_reason="stop"))
    assert (found.id, found.problem, found.domain, found.gold) == ("p1#0", "p1", "math", "3")
    assert (found.question, found.opened, found.reasoning) == ("What is 1 and 2 together?", True, True)
    assert (found.verdict, found.tokens, found.counted, found.truncated) == (Mark.PASS, 30, True, False)
    assert found.parts.answer == "3"
    assert found.as_it_is
    assert found.publishable("p1#0") == row(1, finish_reason="stop")


def test_mapped_columns_are_published_under_the_usual_names() -> None:
    """Once and not twice; what is not mapped stays, and a dot reaches into an object."""
    other = {
        "problem": "1+1?",
        "solution": "It is \\boxed{2}.",
        "info": {"answer": "2", "subject": "sums"},
        "n": 7,
    }
    found = trace(other, prompt="problem", completion="solution", gold="info.answer", domain="info.subject")
    assert (found.question, found.completion, found.gold, found.domain) == (
        "1+1?",
        " It is \\boxed{2}.",
        "2",
        "sums",
    )
    assert (found.id, found.problem, found.verdict, found.counted, found.tokens) == (
        None,
        None,
        None,
        False,
        5,
    )
    assert not found.as_it_is
    assert found.publishable("x") == {
        "info": {"answer": "2", "subject": "sums"},
        "n": 7,
        "id": "x",
        "prompt": "1+1?",
        "completion": " It is \\boxed{2}.",
        "gold": "2",
        "task": "sums",
    }


def test_thinking_with_a_column_of_its_own() -> None:
    """The completion is put together from it and the rest."""
    other = {"prompt": "1+1?", "think": " one and one ", "says": "2"}
    found = trace(other, thinking="think", answer="says")
    assert found.completion == " <think>\none and one\n</think>\n\n2"
    assert found.publishable("x") == {"id": "x", "prompt": "1+1?", "completion": found.completion}


def test_the_papers_prompt() -> None:
    """`r1-zero` opens the thinking in the prompt, which is then not opened twice; the question is kept."""
    found = trace({"prompt": "1+1?", "completion": "<think> two </think> 2"}, template="r1-zero")
    assert found.prompt.endswith("User: 1+1? Assistant: <think>")
    assert (found.completion, found.opened, found.parts.thinking) == (" two </think> 2", True, "two")
    assert found.publishable("x")["question"] == "1+1?"
    direct = trace({"prompt": "1+1?", "completion": "2"}, template="r1-zero")
    assert (direct.opened, direct.completion) == (False, " 2")


@pytest.mark.parametrize(
    ("column", "conversation"),
    [
        ("messages", [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]),
        ("conversations", [{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": "2"}]),
    ],
)
def test_conversations(column: str, conversation: list[dict[str, str]]) -> None:
    """TRL's and ShareGPT's; they are published as `messages`, which a fine-tuning reads."""
    found = trace({"id": "a", column: conversation}, messages=column)
    assert (found.question, found.completion) == ("1+1?", "2")
    assert found.publishable("a")["messages"] == [
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "2"},
    ]
    assert found.as_it_is == (column == "messages")


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ({"prompt": "1+1?"}, "no text in 'prompt' and 'completion'; the row has: prompt"),
        ({"prompt": 5, "completion": "2"}, "no text in 'prompt' and 'completion'"),
        ({"prompt": "1+1?", "completion": " \n"}, "the completion is empty"),
        ({"messages": "hello"}, "'messages' is not a list"),
        ({"messages": [{"role": "user", "content": "1+1?"}]}, "'messages' is not a list"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]},
            "does not end in",
        ),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": 2}]},
            "is not a list",
        ),
        ({"prompt": "a", "completion": "b", "verdict": "perhaps"}, "no verdict: 'perhaps' in 'verdict'"),
        ({"prompt": "a", "completion": "b", "verdict": ["pass"]}, "no verdict"),
    ],
)
def test_what_is_no_trace(found: dict[str, Any], reason: str) -> None:
    """The reason says what is missing."""
    said = read_trace(found, Columns())
    assert isinstance(said, str)
    assert reason in said


@pytest.mark.parametrize(
    ("column", "value", "mark"),
    [
        ("verdict", True, Mark.PASS),
        ("verdict", 0, Mark.FAIL),
        ("verdict", "undecided", Mark.UNDECIDED),
        ("verdict", None, None),
        ("info.correct", 1, Mark.PASS),
    ],
)
def test_verdicts(column: str, value: Any, mark: Mark | None) -> None:
    """As words, truth values and numbers."""
    found = {"prompt": "a", "completion": "b", "verdict": value, "info": {"correct": value}}
    assert trace(found, verdict=column).verdict is mark


@pytest.mark.parametrize(("value", "published"), [(True, "pass"), (0, "fail"), ("correct", "pass")])
def test_a_verdict_in_other_words_is_published_in_ours(value: Any, published: str) -> None:
    """A column of one type, which an export reads; a verdict in our words leaves the row as it is."""
    found = trace(row(1, verdict=value))
    assert not found.as_it_is
    assert found.publishable("p1#0") == row(1, verdict=published)
    assert trace(row(1, verdict="unjudged")).as_it_is


@pytest.mark.parametrize(
    ("value", "rate"),
    [
        (0.25, 0.25),
        ({"n": 8, "c": 2}, 0.25),
        ({"n": 0, "c": 0}, None),
        (7, None),
        (True, None),
        ("0.5", None),
    ],
)
def test_pass_rates(value: Any, rate: float | None) -> None:
    """As a share or as counts; anything else says nothing."""
    assert trace(row(1, pass_rate=value)).pass_rate == rate


def test_truncated_by_either_column() -> None:
    """A flag, or the reason why it ended."""
    assert trace(row(1, truncated=True)).truncated
    assert trace({"prompt": "a", "completion": "b", "finish_reason": "length"}).truncated
    assert trace({"prompt": "a", "completion": "b", "end": "length"}, finish_reason="end").truncated
