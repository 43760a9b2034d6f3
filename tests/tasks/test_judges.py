"""Kinds of rows: text and choices."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1pipe.tasks import Item
from r1pipe.tasks.judges import ChoiceJudge, TextJudge, difficulty_of

ROW = {"question": "Capital of France?", "choices": ["Rome", "Paris", "B", "Berlin"], "answer": "B)"}


def choice(**change: Any) -> Item | str:
    return ChoiceJudge().item({**ROW, **change}, None)


@pytest.mark.parametrize("answer", ["B)", "(b)", 1, "Paris", "paris.", "B) Paris", "B. Paris"])
def test_the_right_choice_of_a_row(answer: Any) -> None:
    """By letter, by number from 0, or by its text."""
    item = choice(answer=answer, choices=["Rome", "Paris", "Bern", "Berlin"])
    assert isinstance(item, Item)
    assert item.gold == "B"
    assert item.question.splitlines() == [
        "Capital of France?", "A) Rome", "B) Paris", "C) Bern", "D) Berlin",
        "Answer with the letter of the right choice.",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "choices", [{"A": "Rome", "B": "Paris"}, {"text": ["Rome", "Paris"], "label": ["A", "B"]}]
)
def test_forms_of_choices(choices: Any) -> None:
    """A mapping by letters, and ARC's lists."""
    item = choice(choices=choices, answer="Paris")
    assert isinstance(item, Item) and item.gold == "B"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"question": ""}, "no text under question or problem or prompt"),
        ({"choices": ["one"]}, "no list of different texts under choices or options"),
        ({"choices": ["one", "One."]}, "no list of different texts under choices or options"),
        ({"choices": None}, "no list of different texts under choices or options"),
        ({"answer": "E"}, "what stands under answer or solution is none of its 4 choices"),
        ({"answer": 4}, "what stands under answer or solution is none of its 4 choices"),
        ({"answer": True}, "what stands under answer or solution is none of its 4 choices"),
    ],
)
def test_broken_choices(change: dict[str, Any], reason: str) -> None:
    """A row that is no question with choices says why."""
    assert choice(**change) == reason


@pytest.mark.parametrize(
    ("answer", "extracted", "passes"),
    [
        ("B", "B", True), ("(B)", "B", True), ("b.", "B", True), ("**B**", "B", True),
        ("Option B", "B", True), ("\\text{B}", "B", True), ("B) Paris", "B", True), ("paris", "B", True),
        ("A", "A", False), ("B) Rome", None, False), ("A or B", None, False), ("AB", None, False),
        ("E", None, False), ("", None, False), ("B" * 3000, None, False),
    ],
)  # fmt: skip
def test_choices_are_judged(answer: str, extracted: str | None, passes: bool) -> None:
    """One choice by its letter, its text or both alike; two letters, or a letter that is none, fail."""
    item = choice(choices=["Rome", "Paris", "Bern", "Berlin"], answer="B")
    assert isinstance(item, Item)
    verdict = ChoiceJudge().judge(item, answer)
    assert verdict.passed is passes
    if extracted:
        assert verdict.extracted == extracted
    else:
        assert verdict.reason == "not one of the choices"


def test_choices_that_are_letters() -> None:
    """A letter is one before it is a text; a row that may mean either is set aside, a number is plain."""
    vitamins = ["B", "C", "A", "D"]
    item = choice(answer=1, choices=vitamins)
    assert isinstance(item, Item) and item.gold == "B"
    assert ChoiceJudge().judge(item, "B").passed and not ChoiceJudge().judge(item, "C").passed
    assert choice(answer="B", choices=vitamins) == (
        "what stands under answer or solution is one choice's letter and another one's text"
    )


def test_labels_of_the_row() -> None:
    """ARC calls some of its choices 1 to 4; the answer is one of these before it is a text."""
    item = choice(choices={"text": ["3", "1", "2", "4"], "label": ["1", "2", "3", "4"]}, answer="1")
    assert isinstance(item, Item) and item.gold == "A"


@pytest.mark.parametrize("choices", [["a", None, "c"], ["a", {"b": 1}], ["a", ""], ["a", True], "ab"])
def test_choices_that_are_none(choices: Any) -> None:
    """Nulls, empty texts and structures are no choices; a mapping's null letters are left out."""
    assert choice(choices=choices) == "no list of different texts under choices or options"
    item = choice(choices={"A": "Rome", "B": "Paris", "C": None}, answer="B")
    assert isinstance(item, Item) and item.meta["choices"] == ["Rome", "Paris"]


@given(st.text(max_size=50))
def test_a_choice_never_raises(answer: str) -> None:
    """Whatever the answer is, it is one of the choices or fails."""
    item = choice(choices=["Rome", "Paris"])
    assert isinstance(item, Item)
    verdict = ChoiceJudge().judge(item, answer)
    assert verdict.decided and (verdict.extracted in ("A", "B") or verdict.reason == "not one of the choices")


def test_text_rows() -> None:
    """The column that the recipe names comes before those that are looked for."""
    judge = TextJudge("exact", answer_column="right")
    item = judge.item({"question": "q", "answer": "no", "right": " yes  sir "}, None)
    assert isinstance(item, Item) and judge.judge(item, "yes sir").passed
    assert judge.item({"question": "q", "answer": "no"}, None) == "no text or number under right"
    assert judge.unusable([item]) == [None]
    assert judge.item({"question": "q", "right": float("nan")}, None) == "no text or number under right"
    assert judge.right_answer(item) == "yes  sir"


@pytest.mark.parametrize(
    ("row", "difficulty"),
    [
        ({"level": "Level 5"}, 5.0), ({"difficulty": 2.5}, 2.5), ({"difficulty": "3"}, 3.0),
        ({"level": "Level ?"}, None), ({"difficulty": True}, None), ({}, None),
    ],
)  # fmt: skip
def test_difficulty(row: dict[str, Any], difficulty: float | None) -> None:
    """A number under `difficulty` or `level`, MATH's way of writing it included."""
    assert difficulty_of(row) == difficulty
