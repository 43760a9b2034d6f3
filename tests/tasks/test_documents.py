"""Questions that need no thinking."""

from random import Random

import pytest

from r1pipe.tasks.documents import KINDS, Documents, draw_document, is_held_out, write_document
from r1pipe.verify.verdict import Completion
from r1pipe.world.words import NAMES, VOCABULARY, WORDS


@pytest.mark.parametrize("kind", KINDS)
def test_documents_are_right(kind: str) -> None:
    """Each kind's answer follows from its question by the kind's own rule, in the tiny world's words."""
    for seed in range(50):
        document = write_document(kind, Random(seed))
        asked, *words = document.question.split()
        answer = document.answer.split()
        assert asked == kind
        assert set(document.question.split() + answer) <= set(VOCABULARY)
        if kind == "greet":
            assert answer == ["hello", *words] and set(words) <= set(NAMES)
        elif kind == "sort":
            assert [int(word) for word in answer] == sorted(int(word) for word in words)
        else:
            assert answer == (words if kind == "copy" else words[::-1]) and set(words) <= set(WORDS)


def test_split() -> None:
    """Seen and held-out documents share no question; about one document in five is held out."""
    task = Documents()
    seen = {item.question for item in task.items("seen", 400, 0)}
    held_out = {item.question for item in task.items("held-out", 200, 1)}
    assert not seen & held_out
    assert all(is_held_out(question) for question in held_out)
    assert 40 < sum(is_held_out(item.question) for item in task.items("all", 400, 2)) < 120
    assert not any(is_held_out(draw_document(Random(i))[0]) for i in range(200))


def test_items() -> None:
    """The four kinds take turns, no document comes twice, and a longer list starts with the shorter one."""
    items = Documents().items("seen", 200, 5)
    assert [item.meta["kind"] for item in items[:8]] == list(KINDS) * 2
    assert len({item.id for item in items}) == 200
    assert items[:30] == Documents().items("seen", 30, 5)
    assert not any(item.reasoning for item in items)


def test_more_items_than_documents() -> None:
    """A list longer than there are different greetings still ends."""
    assert len(Documents().items("held-out", 600, 0)) == 600


def test_judge() -> None:
    """The words count, the white space between them does not; thinking about it is allowed."""
    task = Documents()
    item = task.items("seen", 1, 0)[0]
    assert task.judge(item, Completion(f" {item.gold.replace(' ', '  ')}\n", False)).passed
    assert task.judge(item, Completion(f"so </think> <answer> {item.gold} </answer>", True)).passed
    wrong = task.judge(item, Completion(f"{item.gold} {item.gold}", False))
    assert (wrong.passed, wrong.reason) == (False, "wrong words")
    assert task.judge(item, Completion("", False)).reason == "no answer"
