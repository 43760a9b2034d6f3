"""Writers: judged beside generation, in the order in which they were asked."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from r1pipe.rollout import Finished, Rollout, Sampling, choose
from r1pipe.rollout.asking import Question, ask
from r1pipe.rollout.specs import TransformersSpec
from r1pipe.rollout.writers import CheckpointReader, ModelWriter, longest
from r1pipe.tasks import Item, mixture, task_spec
from r1pipe.tasks.countdown import Countdown
from r1pipe.verify.verdict import Completion, Verdict


class Heard(Countdown):
    """Countdown that says when it judges."""

    def __init__(self) -> None:
        super().__init__()
        self.judged = threading.Event()

    def judge(self, item: Item, completion: Completion) -> Verdict:
        verdict = super().judge(item, completion)
        self.judged.set()
        return verdict


class Waiting:
    """An engine that goes on after its first rollout only when that has been judged."""

    def __init__(self, task: Heard) -> None:
        self.task = task
        self.closed = False

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        seeds: Sequence[int],
        finished: Finished,
    ) -> list[Rollout]:
        rollouts = [Rollout([7 + place], "length") for place in range(len(prompts))]
        for place in reversed(range(len(prompts))):
            finished(place, rollouts[place])
            assert self.task.judged.wait(10)
        return rollouts

    def close(self) -> None:
        self.closed = True


def questions(task: Any, reader: CheckpointReader, count: int) -> list[Question]:
    items = [item for _, item in mixture([task_spec("countdown")], count, 0)]
    return ask([(task, item) for item in items], "chat", reader.tokenizer, 32).questions


def test_judging_goes_on_beside_generation(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last is judged while the engine still holds the others back; the rows stand as they were asked."""
    task, reader, said = Heard(), CheckpointReader.of(tiny), list[str]()
    engine = Waiting(task)
    monkeypatch.setattr(choose, "open_engine", lambda *_, **__: (engine, "Chosen."))
    writer = ModelWriter(tiny, TransformersSpec(), reader, longest=64, batch=8, say=said.append)
    asked = questions(task, reader, 3)
    written = writer.write([(question, 5) for question in asked], Sampling(1), [0, 1, 2])
    words = [reader.tokenizer.decode([7 + place]) for place in range(3)]
    assert [(row["problem_id"], row["sample"], row["completion"]) for row in written.rows] == [
        (question.item.id, 5, word) for question, word in zip(asked, words, strict=True)
    ]
    assert written.tokens == 3 and written.seconds is not None
    assert all(row["truncated"] for row in written.rows)
    writer.write([(asked[0], 0)], Sampling(1), [0])
    assert said == ["Chosen."] and not engine.closed
    writer.close()
    assert engine.closed


def test_an_engine_is_opened_for_what_will_be_asked(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest prompt and its completion; not before anything is written, and nothing is closed then."""
    opened: list[dict[str, Any]] = []
    task, reader = Heard(), CheckpointReader.of(tiny)

    def open_engine(spec: Any, folder: Path, **given: Any) -> tuple[Waiting, str]:
        opened.append({"spec": spec, "folder": folder, **given})
        return Waiting(task), ""

    monkeypatch.setattr(choose, "open_engine", open_engine)
    asked, sampling = questions(task, reader, 2), Sampling(10)
    most = longest(asked, sampling)
    assert most == max(len(question.token_ids) for question in asked) + 10
    spec = TransformersSpec()
    writer = ModelWriter(tiny, spec, reader, longest=most, batch=8, say=lambda text: None)
    writer.close()
    assert opened == [] and reader.context == 64
    writer.write([(asked[0], 0)], sampling, [0])
    ids = {"eos_id": reader.tokenizer.eos_token_id, "pad_id": reader.tokenizer.pad_token_id}
    assert opened == [{"spec": spec, "folder": tiny, "context": most, "batch": 8, **ids}]
