"""Whether a trained model ends its answers: what is asked, what is said, and when the stage fails."""

from pathlib import Path
from typing import Any

import pytest

from r1pipe import jsonl
from r1pipe.errors import RunFailed
from r1pipe.rollout import Rollout
from r1pipe.train import stopping
from r1pipe.train.examples import Example
from r1pipe.train.stopping import StopCheck
from tests.tiny_model import workplace


def examples(*lengths: int) -> list[Example]:
    """One for each number of completion tokens, each with a prompt of its own of two tokens."""
    return [Example([5, 20 + i, *[30] * length], 2) for i, length in enumerate(lengths)]


def noted(folder: Path, rows: list[Example], how: StopCheck, context: int = 64) -> dict[str, Any]:
    stopping.note(folder, rows, how, context, seed=0)
    told: dict[str, Any] = jsonl.loads((folder / "stop-check.json").read_bytes())
    return told


def test_different_prompts_whose_completions_are_short(tmp_path: Path) -> None:
    """Completions of at most half the limit, each prompt once, and twice the room of the longest of them."""
    rows = examples(4, 6, 30, 8) + examples(5)  # the last has the first one's prompt
    told = noted(tmp_path, rows, StopCheck(prompts=9, max_new_tokens=20))
    assert sorted(told["prompts"]) == [[5, 20], [5, 21], [5, 23]]
    assert told["max_new_tokens"] == 16
    assert len(noted(tmp_path, rows, StopCheck(prompts=2, max_new_tokens=20))["prompts"]) == 2
    assert noted(tmp_path, rows, StopCheck(max_new_tokens=200), context=40)["max_new_tokens"] == 38


def test_no_completion_is_short_enough(tmp_path: Path) -> None:
    """Then nothing is asked, and it is said why."""
    work, ear = workplace(tmp_path)
    stopping.note(work.dir, examples(30, 40), StopCheck(max_new_tokens=50), 64, seed=0)
    assert stopping.check(tmp_path / "nowhere", StopCheck(max_new_tokens=50), work) == {}
    assert "the shortest completion has 30 tokens" in ear.said


def test_nothing_is_asked_where_nothing_is_to_be(tmp_path: Path) -> None:
    """Prompts of 0: the model is not opened."""
    work, ear = workplace(tmp_path)
    stopping.note(work.dir, examples(3), StopCheck(prompts=0), 64, seed=0)
    assert stopping.check(tmp_path / "nowhere", StopCheck(prompts=0), work) == {}
    assert ear.said == ""


@pytest.mark.parametrize(
    ("ended", "least", "said"),
    [
        (4, 0.0, "100 % of 4 answers to training prompts end by themselves within 6 tokens."),
        (1, 0.0, "25 % of 4 answers to training prompts end by themselves within 6 tokens: it may not know"),
    ],
)
def test_what_is_said(
    ended: int, least: float, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The share that stops; below nine in ten with what to do about it."""
    answers = [Rollout([1], "stop")] * ended + [Rollout([2] * 6, "length")] * (4 - ended)
    monkeypatch.setattr(stopping, "_answers", lambda *_: answers)
    work, ear = workplace(tmp_path)
    how = StopCheck(least=least)
    stopping.note(work.dir, examples(3, 3, 3, 3), how, 64, seed=0)
    assert stopping.check(tmp_path, how, work) == {"stops": ended / 4, "stop_prompts": 4}
    assert ear.said.startswith(said)


def test_too_few_fail_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the recipe asks for a share, with the way to publish all the same."""
    monkeypatch.setattr(stopping, "_answers", lambda *_: [Rollout([2], "length")] * 4)
    work, _ = workplace(tmp_path)
    stopping.note(work.dir, examples(3, 3, 3, 3), StopCheck(), 64, seed=0)
    with pytest.raises(RunFailed, match=r"asks for 50 %.*lower `stop_check.least`: nothing is trained anew"):
        stopping.check(tmp_path, StopCheck(least=0.5), work)


def test_a_full_memory_loses_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was trained is published all the same; any other error is one."""
    import torch

    def fail(error: Exception) -> Any:
        def answers(*_: Any) -> Any:
            raise error

        monkeypatch.setattr(stopping, "_answers", answers)

    work, ear = workplace(tmp_path)
    stopping.note(work.dir, examples(3), StopCheck(), 64, seed=0)
    fail(torch.OutOfMemoryError("full"))
    assert stopping.check(tmp_path, StopCheck(least=1.0), work) == {}
    assert "was not asked: the GPU's memory is full" in ear.said
    fail(RuntimeError("else"))
    with pytest.raises(RuntimeError, match="else"):
        stopping.check(tmp_path, StopCheck(), work)


def test_a_real_model_is_asked(tiny: Path, tmp_path: Path) -> None:
    """A random one hardly ever draws its EOS: the share is that of its answers, and the same each time."""
    work, ear = workplace(tmp_path)
    stopping.note(work.dir, examples(3, 4, 5), StopCheck(), 64, seed=0)
    told = stopping.check(tiny, StopCheck(), work)
    assert told["stop_prompts"] == 3 and 0 <= told["stops"] <= 1
    assert told == stopping.check(tiny, StopCheck(), work)
    assert "of 3 answers to training prompts end by themselves within 10 tokens" in ear.said
