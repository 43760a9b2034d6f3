"""The corpus stage: a dataset that holds no held-out problem."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from r1pipe.artifact import open_dataset
from r1pipe.stage import Inputs, Outcome
from r1pipe.tasks.countdown import problems
from r1pipe.world.corpus import Habits, Mix, documents
from stages import corpus
from tests.tiny_model import workplace


def run(folder: Path, seed: int = 0, **changes: object) -> Outcome:
    work, _ = workplace(folder, seed)
    config = corpus.Config.model_validate({"documents": 500, **changes})
    return corpus.run(config, Inputs({}), work)


def test_what_is_published(tmp_path: Path) -> None:
    """The documents in order, none about a held-out problem; the metrics count rows, kinds and tokens."""
    outcome = run(tmp_path / "corpus")
    assert outcome.kind == "dataset"
    rows = open_dataset(outcome.path).rows()
    assert rows == list(documents(500, 0, Mix(), Habits()))
    held_out = {problem.id for problem in problems(split="held-out")}
    asked = {row["problem"] for row in rows} - {""}
    assert len(asked) > 200
    assert not asked & held_out
    assert outcome.metrics["rows"] == 500
    kinds = outcome.metrics["kinds"]
    assert kinds == {kind: sum(row["kind"] == kind for row in rows) for kind in kinds}
    assert sum(kinds.values()) == 500
    assert outcome.tokens == outcome.metrics["tokens"] == sum(len(row["text"].split()) for row in rows)


def test_the_seed_makes_the_corpus(tmp_path: Path) -> None:
    """The same files again, other files under another seed; a stopped stage that begins anew leaves nothing
    of what it had begun."""
    one, again, other = run(tmp_path / "one"), run(tmp_path / "again"), run(tmp_path / "other", seed=1)

    def files(outcome: Outcome) -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in outcome.path.iterdir()}

    assert files(one) == files(again) != files(other)
    assert files(run(tmp_path / "one")) == files(again)


def test_shares_are_set_in_the_recipe(tmp_path: Path) -> None:
    """A mix of its own: what is 0 does not come."""
    mix = dict.fromkeys(Mix.model_fields, 0.0) | {"sums": 1, "plain": 1}
    assert set(run(tmp_path / "corpus", mix=mix).metrics["kinds"]) == {"sums", "plain"}


@pytest.mark.parametrize("mix", [{"sums": -1}, {"sum": 1}, dict.fromkeys(Mix.model_fields, 0.0)])
def test_a_mix_of_nothing_is_refused(mix: dict[str, float]) -> None:
    """A negative share, a misspelt kind, and no kind at all."""
    with pytest.raises(ValidationError):
        corpus.Config.model_validate({"mix": mix})


@pytest.mark.parametrize("name", ["short_attempts", "search_attempts"])
@pytest.mark.parametrize("bounds", [[3, 2], [0, 2]])
def test_bounds_that_cross_are_refused(name: str, bounds: list[int]) -> None:
    """At least one attempt, and the fewest no more than the most; the message says which bounds are meant."""
    with pytest.raises(ValidationError, match=name):
        corpus.Config.model_validate({"habits": {name: bounds}})
