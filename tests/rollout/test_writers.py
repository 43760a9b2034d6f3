"""Writers: judged and kept beside generation, and asked again for what is missing."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from r1pipe.measure.samples import SampleRow
from r1pipe.rollout import Finished, Rollout, Sampling, choose
from r1pipe.rollout.asking import Question, ask
from r1pipe.rollout.specs import TransformersSpec
from r1pipe.rollout.writers import CheckpointReader, ModelWriter, longest
from r1pipe.tasks import mixture, task_spec


class Kept:
    """Keeps rows, and says when there are some."""

    def __init__(self) -> None:
        self.rows: list[SampleRow] = []
        self.some = threading.Event()

    def __call__(self, rows: Sequence[SampleRow]) -> None:
        self.rows += rows
        self.some.set()


class Waiting:
    """An engine that goes on after its first rollout only when that has been kept."""

    def __init__(self, kept: Kept, *, exact: bool = False) -> None:
        self.kept = kept
        self.exact = exact
        self.closed = False
        self.asked: list[list[int]] = []
        """The seeds of each call."""

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        seeds: Sequence[int],
        finished: Finished,
    ) -> list[Rollout]:
        self.asked.append(list(seeds))
        rollouts = [Rollout([7 + place], "length") for place in range(len(prompts))]
        for place in reversed(range(len(prompts))):
            finished(place, rollouts[place])
            assert self.kept.some.wait(10)
        return rollouts

    def close(self) -> None:
        self.closed = True


def questions(reader: CheckpointReader, count: int) -> list[Question]:
    return ask(mixture([task_spec("countdown")], count, 0), "chat", reader.tokenizer, 32).questions


def test_what_is_whole_is_judged_and_kept_beside_generation(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last is kept while the engine still holds the others back; each with its question and its text."""
    kept, reader, said = Kept(), CheckpointReader.of(tiny), list[str]()
    engine = Waiting(kept)
    monkeypatch.setattr(choose, "open_engine", lambda *_, **__: (engine, "Chosen."))
    writer = ModelWriter(tiny, TransformersSpec(), reader, longest=64, batch=8, say=said.append)
    asked = questions(reader, 3)
    written = writer.write([(question, 5) for question in asked], Sampling(1), [0, 1, 2], kept)
    words = [reader.tokenizer.decode([7 + place]) for place in range(3)]
    assert [(row["problem_id"], row["sample"], row["completion"]) for row in reversed(kept.rows)] == [
        (question.item.id, 5, word) for question, word in zip(asked, words, strict=True)
    ]
    assert written.tokens == 3 and written.seconds is not None
    assert all(row["truncated"] for row in kept.rows)
    writer.write([(asked[0], 0)], Sampling(1), [0], kept)
    assert said == ["Chosen."] and not engine.closed
    writer.close()
    assert engine.closed


@pytest.mark.parametrize(("exact", "seeds", "made"), [(True, [5, 6, 7], [0, 1, 2]), (False, [5, 7], [0, 2])])
def test_what_is_known_is_made_again_only_for_the_same_bits(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, exact: bool, seeds: list[int], made: list[int]
) -> None:
    """Of three the second is known: an exact engine gets the whole batch, another one the others, with their
    seeds."""
    kept, reader = Kept(), CheckpointReader.of(tiny)
    engine = Waiting(kept, exact=exact)
    monkeypatch.setattr(choose, "open_engine", lambda *_, **__: (engine, ""))
    writer = ModelWriter(tiny, TransformersSpec(), reader, longest=64, batch=8, say=lambda text: None)
    asked = questions(reader, 3)
    written = writer.write([(each, 0) for each in asked], Sampling(1), [5, 6, 7], kept, known={1})
    assert engine.asked == [seeds] and written.tokens == len(made)
    assert [row["problem_id"] for row in reversed(kept.rows)] == [asked[place].item.id for place in made]


def test_an_engine_is_opened_for_what_will_be_asked(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest prompt and its completion; not before anything is written, and nothing is closed then."""
    opened: list[dict[str, Any]] = []
    kept, reader = Kept(), CheckpointReader.of(tiny)

    def open_engine(spec: Any, folder: Path, **given: Any) -> tuple[Waiting, str]:
        opened.append({"spec": spec, "folder": folder, **given})
        return Waiting(kept), ""

    monkeypatch.setattr(choose, "open_engine", open_engine)
    asked, sampling = questions(reader, 2), Sampling(10)
    most = longest(asked, sampling)
    assert most == max(len(question.token_ids) for question in asked) + 10
    spec = TransformersSpec()
    writer = ModelWriter(tiny, spec, reader, longest=most, batch=8, say=lambda text: None)
    writer.close()
    assert opened == [] and reader.context == 64
    writer.write([(asked[0], 0)], sampling, [0], kept)
    ids = {"eos_id": reader.tokenizer.eos_token_id, "pad_id": reader.tokenizer.pad_token_id}
    assert opened == [{"spec": spec, "folder": tiny, "context": most, "batch": 8, **ids}]
