"""A stage whose results change says so by its `VERSION`: otherwise an older run calls them up to date."""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from r1pipe.tasks import Item, mixture, task_spec
from r1pipe.world.corpus import Habits, Mix, documents
from r1pipe.world.demonstrations import demonstrations
from stages import corpus, curate, evaluate, rl, sample
from tests.curating import kept, ledger, row, run, write

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
        ((sample.VERSION,), written_by_the_solver(), ((6,), "a2731a53fa899723")),
        ((sample.VERSION, rl.VERSION, evaluate.VERSION), asked(), ((6, 4, 4), "35ef09547fe95ac2")),
    ],
    ids=["corpus", "demonstrations", "what is asked"],
)
def test_a_change_of_what_is_made_is_a_new_version(
    versions: tuple[int, ...], texts: Iterable[str], known: tuple[tuple[int, ...], str]
) -> None:
    """If this fails, results have changed: raise the `VERSION` of each stage, and write the new pair here."""
    assert (versions, hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]) == known


STEPS = [
    "verify",
    "truncated",
    "correct",
    "format",
    {"name": "language", "at_least": 0.9},
    {"name": "readability", "repetition": 0.3},
    {"name": "exact", "of": "question"},
    "exact",
    {"name": "near", "threshold": 0.75},
    {"name": "cap", "count": 2, "prefer": "diverse"},
    {"name": "pass-rate", "at_least": 0.6},
    {"name": "balance", "by": ["domain", "difficulty"], "rows": 60},
]


def test_a_change_of_what_is_curated_is_a_new_version(tmp_path: Path) -> None:
    """As above, of `curate`: what is kept of a few hundred rows, what is not, and why."""
    rows = []
    for number in range(300):
        seed = number % 160
        words = [f"w{seed * k % 9973}" for k in range(1, 40 + seed % 30)] * (1 + 3 * (seed % 31 == 0))
        other = " mais oui nous savons que la somme est plus que cela" * (6 * (seed % 29 == 0))
        text = f"we know that the {' '.join(words)} is what it is{other}{' indeed' * (number % 4 == 0)}"
        completion = f"{text} </think> <answer> {seed % 7} </answer>"
        made = row(number % 40, id=f"r{number}", completion=completion, verdict=None)
        made |= {"gold": "9" if number % 11 == 0 else str(seed % 7), "task": ("math", "code")[seed % 3 == 0]}
        made |= {"question": row(38)["question"]} if number % 40 == 39 else {}
        rows.append({**made, "truncated": number % 37 == 0, "opened": True})
    wrong = [{**each, "id": f"{each['id']}-wrong", "verdict": "fail"} for each in rows]
    mixed = {"name": "mix", "data": str(write(tmp_path / "mixed.jsonl", wrong)), "rows": 3}
    file = write(tmp_path / "rows.jsonl", rows)
    outcome, _ = run(tmp_path / "run", file, steps=[*STEPS, mixed], validation=0.1)
    told = [*kept(outcome), *kept(outcome, "validation"), *ledger(outcome)]
    assert len({each["name"] for each in ledger(outcome)}) == 9
    digest = hashlib.sha256(repr(told).encode()).hexdigest()[:16]
    assert (curate.VERSION, digest) == (2, "e12317fd43803776")
