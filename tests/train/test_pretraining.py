"""Pretraining: every document once, in the order of the datasets, and a resume is exact."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from r1pipe.errors import Interrupted, RunFailed
from r1pipe.train import models, pretraining
from r1pipe.train.pretraining import TokenisedDocument, collate, order
from tests.tiny_model import Ear, difference, workplace

Weights = dict[str, torch.Tensor]


def documents(count: int, first: int = 20) -> list[TokenisedDocument]:
    """Documents of 3 to 12 tokens, each with a first token of its own, the EOS last."""
    return [[first + i, *range(20, 21 + i % 10), 1] for i in range(count)]


def test_every_document_once_and_dataset_after_dataset() -> None:
    """The second dataset begins where the first has ended; only within the window in which batches are sorted
    by length, 32 of them, do the two mix."""
    first, second = documents(300), documents(300, first=400)
    ordered = order([first, second], 4, seed=0)
    assert Counter(map(tuple, ordered)) == Counter(map(tuple, first + second))
    assert ordered[:300] != first
    window = 4 * 32  # 300 documents end in the third window
    assert all(document[0] < 400 for document in ordered[: 2 * window])
    assert all(document[0] >= 400 for document in ordered[3 * window :])


def test_the_order_is_a_function_of_the_seed() -> None:
    """The same again, another under another seed, and each dataset is shuffled for itself."""
    datasets = [documents(40), documents(40)]
    assert order(datasets, 4, seed=0) == order(datasets, 4, seed=0) != order(datasets, 4, seed=1)
    same = [[20, 20, 1]] * 128  # of one length: nothing moves but by the shuffle
    numbered = [[20 + i, 20, 1] for i in range(128)]
    shuffled = order([numbered, numbered, same], 1, seed=0)
    assert sorted(shuffled[:128]) == sorted(shuffled[128:256]) == numbered
    assert shuffled[:128] != shuffled[128:256]


def test_a_batch_holds_like_lengths() -> None:
    """Lengths 3 to 12, ten each, in batches of ten: a batch has one length, and they are not in order."""
    ordered = order([documents(100)], 10, seed=0)
    lengths = [[len(document) for document in ordered[i : i + 10]] for i in range(0, 100, 10)]
    assert sorted(lengths) == [[length] * 10 for length in range(3, 13)]
    assert lengths != sorted(lengths)


def test_a_batch_in_tensors() -> None:
    """Padded on the right with the padding's own token, which takes no part in the loss; the EOS does."""
    batch = collate([[5, 6, 1], [7, 1], [8, 9, 10, 1]], pad_id=3)
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[5, 6, 1, 3], [7, 1, 3, 3], [8, 9, 10, 1]],
        "attention_mask": [[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]],
        "labels": [[5, 6, 1, -100], [7, 1, -100, -100], [8, 9, 10, 1]],
    }


def test_a_padding_token_in_a_document_is_learned() -> None:
    """The mask tells the padding, not the token: where EOS and padding are one, the EOS is still learned."""
    batch = collate([[5, 1], [6, 7, 1]], pad_id=1)
    assert batch["labels"].tolist() == [[5, 1, -100], [6, 7, 1]]


def train(
    tiny: Path, folder: Path, *, stop_after: int | None = None, **options: object
) -> tuple[Weights, Ear, int]:
    """Nine steps over 33 documents, from the last checkpoint in `folder` if there is one."""
    model, _ = models.open_model(tiny)
    work, ear = workplace(folder, stop_after=stop_after)
    passed_on = {"learning_rate": 1e-2, "save_steps": 2, "logging_steps": 1, **options}
    tokens = 0
    try:
        tokens = pretraining.train(model, order([documents(33)], 4, 0), 4, passed_on, work).tokens
    except Interrupted:
        assert stop_after is not None
    return {name: value.clone() for name, value in model.state_dict().items()}, ear, tokens


def test_interrupted_is_uninterrupted(tiny: Path, tmp_path: Path) -> None:
    """In one go and with a stop after the fifth step: the weights, losses and counts are the same bits."""
    whole, ear, tokens = train(tiny, tmp_path / "whole")
    _, first, _ = train(tiny, tmp_path / "parts", stop_after=5)
    resumed, second, resumed_tokens = train(tiny, tmp_path / "parts")
    assert [row["step"] for row in first.rows] == [1, 2, 3, 4, 5]
    assert [row["step"] for row in second.rows] == [6, 7, 8, 9]
    assert difference(whole, dict(models.open_model(tiny)[0].state_dict())) > 1e-3
    assert difference(whole, resumed) == 0.0
    for name in ("loss", "grad_norm", "learning_rate", "tokens"):
        assert [row[name] for row in ear.rows] == [row[name] for row in first.rows + second.rows], name
    assert tokens == resumed_tokens == sum(map(len, documents(33)))


def test_a_row_of_metrics(tiny: Path, tmp_path: Path) -> None:
    """The loss is the mean over the batch's next tokens, worked out here; `tokens` are those read so far."""
    _, ear, _ = train(tiny, tmp_path / "run")
    model, _ = models.open_model(tiny)
    ordered = order([documents(33)], 4, 0)
    losses = [
        -model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)[range(len(ids) - 1), ids[1:]]
        for ids in ordered[:4]
    ]
    assert ear.rows[0]["loss"] == pytest.approx(torch.cat(losses).mean().item(), rel=1e-5)
    assert [row["tokens"] for row in ear.rows] == [
        sum(map(len, ordered[: 4 * step])) for step in range(1, 10)
    ]
    assert ear.rows[-1]["steps"] == 9


def test_numbers_that_leave_the_reals_end_it(tiny: Path, tmp_path: Path) -> None:
    """An absurd learning rate: the run fails with the step and the way out, and publishes nothing."""
    with pytest.raises(RunFailed, match=r"at step \d+, so the training was stopped.*Set `learning_rate`"):
        train(tiny, tmp_path / "run", learning_rate=1e30, optim="sgd", max_grad_norm=0)
