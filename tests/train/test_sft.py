"""Fine-tuning: the loss is on completions alone, every row comes as often as there are epochs, a resume is
exact."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from r1pipe.errors import Interrupted
from r1pipe.train import models, sft
from r1pipe.train.examples import Example
from tests.tiny_model import Ear, difference, timeless, workplace

Weights = dict[str, torch.Tensor]


def examples() -> list[Example]:
    """Twenty rows of 3 to 22 tokens, the first two of each the prompt."""
    return [Example([5 + i, 9, *range(20, 20 + i), 1], 2) for i in range(20)]


def train(
    tiny: Path,
    folder: Path,
    *,
    stop_after: int | None = None,
    rows: list[Example] | None = None,
    **options: Any,
) -> tuple[Weights, Ear, int]:
    model, tokenizer = models.open_model(tiny)
    work, ear = workplace(folder, stop_after=stop_after)
    passed_on = {"per_device_train_batch_size": 4, "learning_rate": 1e-2, "save_steps": 2, "logging_steps": 1}
    tokens = 0
    try:
        given = examples() if rows is None else rows
        tokens = sft.train(model, tokenizer, given, 1.5, 4, {**passed_on, **options}, work).tokens
    except Interrupted:
        assert stop_after is not None
    return {name: value.clone() for name, value in model.state_dict().items()}, ear, tokens


def test_the_columns_are_the_examples() -> None:
    """Packed into Arrow's arrays, each row is what its example says, prompts without a loss."""
    columns = sft.laid_out(examples())
    assert [row["input_ids"] for row in columns] == [each.token_ids for each in examples()]
    assert [row["labels"] for row in columns] == [each.labels for each in examples()]
    assert columns[3] == {"input_ids": [8, 9, 20, 21, 22, 1], "labels": [-100, -100, 20, 21, 22, 1]}


def test_every_row_comes_as_often_as_there_are_epochs() -> None:
    """One and a half epochs of 20 rows: each once, ten of them twice, and what the trainer sees is 30
    rows."""
    counts = Counter(sft.order(examples(), 1.5, 4, seed=0))
    assert sorted(counts.values()) == [1] * 10 + [2] * 10
    assert sft.order(examples(), 1.5, 4, seed=0) != sft.order(examples(), 1.5, 4, seed=1)


def test_a_batch_holds_no_row_twice() -> None:
    """Five epochs of eight rows in batches of four: sorted over all of them, copies of a row would stand
    together."""
    rows = sft.order(examples()[:8], 5, 4, seed=0)
    assert len(rows) == 40
    assert all(len(set(rows[start : start + 4])) == 4 for start in range(0, 40, 4))


def test_rows_that_fill_no_batch_are_carried_on() -> None:
    """Three epochs of five rows in batches of four: every row three times, and only the last batch is
    short."""
    rows = sft.order(examples()[:5], 3, 4, seed=0)
    assert Counter(rows) == dict.fromkeys(range(5), 3)


def test_interrupted_is_uninterrupted(tiny: Path, tmp_path: Path) -> None:
    """Eight steps in one go and with a stop after the fifth, in the second epoch: equal bit for bit."""
    whole, ear, tokens = train(tiny, tmp_path / "whole")
    _, first, _ = train(tiny, tmp_path / "parts", stop_after=5)
    resumed, second, resumed_tokens = train(tiny, tmp_path / "parts")
    assert [row["step"] for row in first.rows] == [1, 2, 3, 4, 5]
    assert [row["step"] for row in second.rows] == [6, 7, 8]
    assert difference(whole, dict(models.open_model(tiny)[0].state_dict())) > 1e-3
    assert difference(whole, resumed) == 0.0
    assert [row["loss"] for row in ear.rows] == [row["loss"] for row in first.rows + second.rows]
    assert (
        tokens
        == resumed_tokens
        == sum(len(examples()[i].token_ids) for i in sft.order(examples(), 1.5, 4, 0))
    )


def test_a_resumed_training_has_the_intervals_of_now(tiny: Path, tmp_path: Path) -> None:
    """Stopped under a checkpoint every 2 steps and a row at each; from there on it is every 3, for both."""
    train(tiny, tmp_path / "run", stop_after=2)
    _, ear, _ = train(tiny, tmp_path / "run", save_steps=3, logging_steps=3)
    assert [row["step"] for row in ear.rows] == [3, 6, 8]
    kept = sorted(path.name for path in (tmp_path / "run" / "trainer").glob("checkpoint-*"))
    assert kept == ["checkpoint-6", "checkpoint-8"]


def test_a_stop_within_a_row_changes_no_row(tiny: Path, tmp_path: Path) -> None:
    """Eight steps, a row every five and a checkpoint, which has a row too, every three: asked to stop after
    the fourth, it does so after the fifth, and all rows are what they are undisturbed."""
    options = {"logging_steps": 5, "save_steps": 3}
    _, ear, _ = train(tiny, tmp_path / "whole", **options)
    _, first, _ = train(tiny, tmp_path / "parts", stop_after=4, **options)
    _, second, _ = train(tiny, tmp_path / "parts", **options)
    assert [row["step"] for row in first.rows] == [3, 5]
    assert [row["step"] for row in second.rows] == [6, 8]
    assert timeless(ear.rows) == timeless(first.rows + second.rows)


def test_the_last_row_is_the_last_step(tiny: Path, tmp_path: Path) -> None:
    """Eight steps logged every three: steps 3, 6 and 8, and the epochs count up to the 1.5 that were asked
    for."""
    _, ear, _ = train(tiny, tmp_path / "run", logging_steps=3, save_steps=6)
    assert [row["step"] for row in ear.rows] == [3, 6, 8]
    assert ear.rows[-1]["epoch"] == pytest.approx(1.5)


def test_no_loss_on_the_prompt(tiny: Path, tmp_path: Path) -> None:
    """The first logged loss is the mean over completion tokens, EOS included, worked out here by hand."""
    rows = [Example([5, 9, 20, 21, 1], 2), Example([6, 9, 1], 2)] * 2
    _, ear, _ = train(tiny, tmp_path / "run", rows=rows)
    model, _ = models.open_model(tiny)
    total, count = 0.0, 0
    for row in rows:  # the four rows of the first epoch are the first batch
        logprobs = model(torch.tensor([row.token_ids])).logits[0].log_softmax(-1)
        for position in range(row.prompt_tokens, len(row.token_ids)):
            total -= logprobs[position - 1, row.token_ids[position]].item()
            count += 1
    assert count == 8
    assert ear.rows[0]["loss"] == pytest.approx(total / count, rel=1e-5)
