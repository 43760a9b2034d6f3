"""Next-token training from random weights, by transformers' Trainer.

Documents of like length share a batch, so that little is spent on padding, and datasets are read one after
another: what stands in the first is learned first.
"""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset
from transformers import TrainingArguments

from r1pipe.train.callbacks import Row, WorkCallback
from r1pipe.train.determinism import bucketed, derive_seed, epochs_of
from r1pipe.train.running import FiniteTrainer, Trained, defaults, on_one_gpu, run

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from r1pipe.stage import Work

TokenisedDocument = list[int]
"""A document's token ids, its EOS last."""


def order(datasets: Sequence[Sequence[TokenisedDocument]], batch: int, seed: int) -> list[TokenisedDocument]:
    """Every document once, dataset after dataset, shuffled within each, batches of like length.

    Two datasets mix in the 32 batches about their seam, in which documents are sorted by length.
    """
    documents = [document for dataset in datasets for document in dataset]
    shuffled: list[int] = []
    for number, dataset in enumerate(datasets):
        first = len(shuffled)
        one_epoch = islice(epochs_of(len(dataset), derive_seed(seed, "documents", number)), len(dataset))
        shuffled += [first + i for i in one_epoch]
    lengths = [len(document) for document in documents]
    return [documents[i] for i in bucketed(shuffled, lengths, batch, derive_seed(seed, "batches"))]


def train(
    model: "PreTrainedModel",
    documents: Sequence[TokenisedDocument],
    batch: int,
    options: Mapping[str, Any],
    work: "Work",
) -> Trained:
    """Train `model` in place on `documents` in their order, `batch` of them per step.

    `options` are `TrainingArguments`' fields. Goes on from the newest whole checkpoint in the work's folder.
    Raises `Interrupted` after a stop that was asked for, `RunFailed` when a number is no longer finite.
    """
    sizes = [sum(map(len, documents[i : i + batch])) for i in range(0, len(documents), batch)]
    args = TrainingArguments(
        **(defaults(work) | {"num_train_epochs": 1, "train_sampling_strategy": "sequential"} | dict(options)),
        per_device_train_batch_size=batch,
    )
    pad_id = model.config.get_text_config().pad_token_id
    trainer = FiniteTrainer(
        model=model,
        args=on_one_gpu(args),
        train_dataset=_Documents(documents),
        data_collator=lambda rows: collate(rows, pad_id),
    )
    callback = WorkCallback(work, _MetricRows(sizes))
    run(trainer, callback)
    return Trained(callback.headline, sum(sizes))


def collate(documents: Sequence[TokenisedDocument], pad_id: int) -> dict[str, torch.Tensor]:
    """`input_ids`, `attention_mask` and `labels`, each [documents, longest], padded on the right.

    Labels are -100 on the padding.
    """
    longest = max(map(len, documents))
    ids = torch.tensor([document + [pad_id] * (longest - len(document)) for document in documents])
    lengths = torch.tensor([len(document) for document in documents])
    mask = (torch.arange(longest) < lengths[:, None]).long()
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


class _Documents(Dataset[TokenisedDocument]):
    def __init__(self, documents: Sequence[TokenisedDocument]) -> None:
        self.documents = documents

    def __len__(self) -> int:
        return len(self.documents)

    def __getitem__(self, index: int) -> TokenisedDocument:
        return self.documents[index]


class _MetricRows:
    """Makes rows of metrics from the Trainer's logs."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = sizes  # tokens of each step
        self.step: int | None = None  # the step of the row before, where this process saw one

    def __call__(self, logs: Row, seconds: float) -> Row:
        step = round(logs["epoch"] * len(self.sizes))
        speed = sum(self.sizes[self.step : step]) / seconds if self.step is not None else None
        self.step = step
        return {
            "loss": float(logs["loss"]),
            "grad_norm": logs.get("grad_norm"),
            "learning_rate": logs.get("learning_rate"),
            "tokens": sum(self.sizes[:step]),
            "tokens_per_second": speed,
        }
