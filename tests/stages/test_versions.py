"""A stage whose results change says so by its `VERSION`: otherwise an older run calls them up to date."""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice

import pytest

from r1pipe.tasks import Item, mixture, task_spec
from r1pipe.world.corpus import Habits, Mix, documents
from r1pipe.world.demonstrations import demonstrations
from stages import corpus, evaluate, rl, sample

MIX = Mix(sums=1, drills=1, single=1, short=1, search=1, plain=1)
HABITS = Habits(lost=0.2)


def written_by_the_solver() -> Iterator[str]:
    """The first demonstrations."""
    made = demonstrations(0, temperature=5.0, language="en", summary=True)
    return (f"{item.id} {completion}" for item, completion in islice(made, 20))


def asked() -> Iterator[str]:
    """The first items of the tiny world's tasks, in the order of a seed."""
    specs = [task_spec(each) for each in ({"name": "countdown", "weight": 3}, "documents")]
    items: list[Item] = [item for _, item in mixture(specs, 40, 0)]
    return (f"{item.id} {item.question}" for item in items)


@pytest.mark.parametrize(
    ("versions", "texts", "known"),
    [
        (
            (corpus.VERSION,),
            (row["text"] for row in documents(100, 0, MIX, HABITS)),
            ((2,), "4dbb1598b4714a35"),
        ),
        ((sample.VERSION,), written_by_the_solver(), ((5,), "a2731a53fa899723")),
        ((sample.VERSION, rl.VERSION, evaluate.VERSION), asked(), ((5, 4, 4), "35ef09547fe95ac2")),
    ],
    ids=["corpus", "demonstrations", "what is asked"],
)
def test_a_change_of_what_is_made_is_a_new_version(
    versions: tuple[int, ...], texts: Iterable[str], known: tuple[tuple[int, ...], str]
) -> None:
    """If this fails, results have changed: raise the `VERSION` of each stage, and write the new pair here."""
    assert (versions, hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]) == known
