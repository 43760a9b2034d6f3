"""Next-token training from random weights, on documents grouped by length so that little is spent on padding."""

from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import Trainer

_POOL = 16  # batches that are sorted together: enough that a batch's lengths agree, few enough that order stays random


class Documents(Dataset[list[int]]):
    """Token ids of documents."""

    def __init__(self, documents: Sequence[list[int]]) -> None:
        self.documents = documents

    def __len__(self) -> int:
        return len(self.documents)

    def __getitem__(self, index: int) -> list[int]:
        return self.documents[index]


class BucketedBatches(Sampler[list[int]]):
    """Batches of documents of like length, in an order that is a function of the seed and the epoch.

    The documents are shuffled, cut into pools of 16 batches, sorted by length within a pool and cut into batches, whose
    order is shuffled again. The last, smaller batch is kept.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate at the start of each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        rng = Random(f"{self.seed}:{self.epoch}")
        order = list(range(len(self.lengths)))
        rng.shuffle(order)
        pool = self.batch_size * _POOL
        order = [i for start in range(0, len(order), pool) for i in sorted(order[start : start + pool], key=self.lengths.__getitem__)]
        batches = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        rng.shuffle(batches)
        return iter(batches)


def collate(documents: Sequence[list[int]], pad_id: int) -> dict[str, torch.Tensor]:
    """`input_ids`, `attention_mask` and `labels` (-100 on padding), each [documents, longest], padded on the right."""
    longest = max(map(len, documents))
    ids = torch.tensor([document + [pad_id] * (longest - len(document)) for document in documents])
    lengths = torch.tensor([len(document) for document in documents])
    mask = (torch.arange(longest) < lengths[:, None]).long()
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


class PretrainingTrainer(Trainer):
    """transformers' Trainer over `Documents` in bucketed batches."""

    train_dataset: Documents

    def __init__(self, *args: Any, pad_id: int, **kwargs: Any) -> None:
        super().__init__(*args, data_collator=lambda rows: collate(rows, pad_id), **kwargs)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches as `BucketedBatches` lays them."""
        batches = BucketedBatches(
            [len(document) for document in self.train_dataset.documents],
            self.args.per_device_train_batch_size,
            self.args.seed,
        )
        loader: DataLoader[Any] = DataLoader(
            self.train_dataset, batch_sampler=batches, collate_fn=self.data_collator
        )
        return self.accelerator.prepare(loader)
