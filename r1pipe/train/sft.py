"""Supervised fine-tuning by TRL's trainer, on examples that are already tokens.

What is added to `trl.SFTTrainer`: batches of like length whose order is a function of the seed alone, so that
a resumed run sees the rest of the same sequence, and the guard against numbers that are not finite.
"""

import math
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from datasets.table import InMemoryTable
from trl import SFTConfig, SFTTrainer

from r1pipe.train import models, ranks
from r1pipe.train.callbacks import Row, WorkCallback
from r1pipe.train.determinism import bucketed, derive_seed, epochs_of
from r1pipe.train.examples import IGNORED, Example
from r1pipe.train.running import FiniteTrainer, Trained, defaults, on_one_gpu, run

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from r1pipe.stage import Work

_DEFAULTS = {
    "num_train_epochs": 1,  # the epochs are laid out one after the other in the dataset
    "train_sampling_strategy": "sequential",
    "dataset_kwargs": {"skip_prepare_dataset": True},
    "max_length": None,  # nothing is ever cut; what is too long was set aside
}


def order(examples: Sequence[Example], epochs: float, batch: int, seed: int) -> list[int]:
    """Which example stands where: every epoch a permutation of its own, batches of like length."""
    lengths = [example.length for example in examples]
    stream = epochs_of(len(examples), derive_seed(seed, "sft"))
    result: list[int] = []
    carried: list[int] = []  # what filled no batch; it goes first in the next epoch
    for epoch in range(math.ceil(epochs)):
        # Batches are made within an epoch: over several, a row would share its batch with its own copies.
        rows = carried + list(islice(stream, round(len(examples) * min(1, epochs - epoch))))
        whole = len(rows) // batch * batch
        carried = rows[whole:]
        result += bucketed(rows[:whole], lengths, batch, derive_seed(seed, "batches", epoch))
    return result + carried


def train(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    examples: Sequence[Example],
    epochs: float,
    batch: int,
    options: Mapping[str, Any],
    work: "Work",
) -> Trained:
    """Train `model` in place on `examples`, `batch` of them per optimiser step.

    `options` are `SFTConfig`'s fields. Goes on from the newest whole checkpoint in `work.dir / "trainer"`.
    Raises `Interrupted` after a stop that was asked for, `RunFailed` when a number is no longer finite.
    """
    rows = order(examples, epochs, batch, work.seed)
    tokens = sum(examples[row].length for row in rows)
    kept = list(examples)
    if ranks.several():
        # A row without a loss fills the last batch up, so that every rank gets as many as another; accelerate
        # would give the first rows of all once more in their place, and train on them.
        rows += [len(kept)] * (-len(rows) % batch)
        kept.append(Example([tokenizer.eos_token_id] * 2, prompt_tokens=2))
    dataset = laid_out(kept).select(rows)
    args = on_one_gpu(SFTConfig(**(defaults(work) | _DEFAULTS | dict(options))))
    trainer = Supervised(model=model, args=args, train_dataset=dataset, processing_class=tokenizer)
    callback = WorkCallback(work, _MetricRows(epochs))
    weights = run(trainer, callback)
    return Trained(callback.headline, tokens, weights)


TIMED: Final = (1 / 6, 1 / 2, 5 / 6)
"""Where the rows that are timed stand among all by their length: the mean of these places is near that of a
training, in which the time of a row grows faster than its length."""


def seconds_per_token(
    model: "PreTrainedModel", examples: Sequence[Example], micro_batch: int
) -> float | None:
    """What a token takes, forward and backward, timed on a few micro-batches; nothing of the model changes.

    The optimiser's part is left out. None on several ranks, where the weights may be in parts, and where the
    memory is too small for a pass as plain as this one.
    """
    if ranks.several():
        return None
    models.place(model)
    on_gpu = torch.cuda.is_available()
    by_length = sorted(range(len(examples)), key=lambda row: examples[row].length)
    starts = [max(0, round(place * len(by_length)) - micro_batch // 2) for place in TIMED]
    batches = [[examples[row] for row in by_length[start : start + micro_batch]] for start in starts]
    trained = model.training
    model.train()
    if on_gpu:
        model.gradient_checkpointing_enable()
    try:
        with torch.random.fork_rng(), torch.autocast("cuda", torch.bfloat16, enabled=on_gpu):
            _pass(model, batches[1])  # the first one also makes what later ones find made
            seconds = sum(_pass(model, batch) for batch in batches)
    except torch.OutOfMemoryError:
        return None
    finally:
        if on_gpu:
            model.gradient_checkpointing_disable()
        model.zero_grad(set_to_none=True)
        model.train(trained)
    return seconds / sum(example.length for batch in batches for example in batch)


def _pass(model: "PreTrainedModel", batch: Sequence[Example]) -> float:
    """The seconds of a forward and a backward pass over the rows of a batch, padded to the longest."""
    longest = max(example.length for example in batch)
    rows = [example.token_ids + [0] * (longest - example.length) for example in batch]
    labels = [example.labels + [IGNORED] * (longest - example.length) for example in batch]
    mask = [[1] * example.length + [0] * (longest - example.length) for example in batch]
    ids, learnt, real = (torch.tensor(each, device=model.device) for each in (rows, labels, mask))
    begun = time.perf_counter()
    model(input_ids=ids, attention_mask=real, labels=learnt).loss.backward()
    if ids.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def laid_out(examples: Sequence[Example]) -> Dataset:
    """The examples as columns `input_ids` and `labels` of 32-bit numbers, no Python object for each."""
    ends = np.cumsum([0, *(example.length for example in examples)])
    tokens = np.concatenate([np.frombuffer(example.packed, dtype=np.int32) for example in examples])
    labels = tokens.copy()
    for begin, example in zip(ends, examples, strict=False):  # the last end begins nothing
        labels[begin : begin + example.prompt_tokens] = IGNORED
    columns = {
        name: pa.LargeListArray.from_arrays(pa.array(ends), pa.array(values))
        for name, values in (("input_ids", tokens), ("labels", labels))
    }
    # Without a name of its own it would be named by a hash of a copy of all of it.
    return Dataset(InMemoryTable(pa.table(columns)), fingerprint="examples")


class Supervised(FiniteTrainer, SFTTrainer):
    """`trl.SFTTrainer` that stops at what is not finite."""


class _MetricRows:
    """Makes rows of metrics from TRL's logs."""

    def __init__(self, epochs: float) -> None:
        self.epochs = epochs
        self.seen = 0.0  # tokens up to the row before

    def __call__(self, logs: Row, seconds: float) -> Row:
        tokens, self.seen = logs["num_tokens"] - self.seen, logs["num_tokens"]
        return {
            "epoch": logs["epoch"] * self.epochs,
            "loss": logs["loss"],
            "token_accuracy": logs.get("mean_token_accuracy"),
            "entropy": logs.get("entropy"),
            "grad_norm": logs.get("grad_norm"),
            "learning_rate": logs.get("learning_rate"),
            "tokens_per_second": tokens / seconds,
        }
