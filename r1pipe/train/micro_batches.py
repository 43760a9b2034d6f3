"""Cutting an optimiser step into forward passes, by rows and tokens, with little computed on padding.

TRL pads all completions of a generation to the longest of them and cuts it into micro-batches of as many
rows. Here the rows of a step are sorted by length and put together up to a number of rows and of tokens, and
each micro-batch is cut to its own longest row. The step's loss and gradient are those of the uncut step: only
columns go that no row of a micro-batch attends to, and rows whose advantage is zero, where nothing else pulls
on them; and every micro-batch carries the `share` that makes the mean of its rows a part of the step's, and
the `token_share` that does so for a mean of its tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

Micro = dict[str, Any]
"""What is trained on at once: tensors by name, the first dimension a completion each."""

TOKEN_LOSSES: Final = frozenset({"dapo", "cispo", "vespo"})
"""Losses that TRL divides by the tokens of the whole generation: what a micro-batch adds needs no share."""

SHARE: Final = "share"
"""The key of what a micro-batch's loss is multiplied by."""

TOKEN_SHARE: Final = "token_share"
"""The key of a micro-batch's part of the step's tokens, by which means over tokens add up."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one forward and backward pass may hold."""

    rows: int
    """Most completions."""
    tokens: int | None = None
    """Most tokens, prompts and padding included; a longer completion stands alone."""


_NO_ADVANTAGE = 1e-6  # a group of equal rewards has a mean that differs from them by rounding


def telling_first(rows: Micro) -> tuple[Micro, int]:
    """Order the rows so that those with an advantage come first, else as they stand; and count those."""
    telling = rows["advantages"].abs() > _NO_ADVANTAGE
    order = torch.cat([telling.nonzero()[:, 0], (~telling).nonzero()[:, 0]])
    return select(rows, order), int(telling.sum())


def cut(rows: Micro, loss_type: str, bounds: Bounds, *, keep: int, count: int = 1) -> list[Micro]:
    """Cut the first `keep` rows of a step into micro-batches, the longest completions first.

    There are at least `count` micro-batches: with several processes all need as many, since each of them is a
    meeting. At least one row, and as many as micro-batches, are kept.
    """
    lengths = _lengths(rows)
    kept = max(keep, count, 1)
    groups = _grouped(lengths[:kept], _widest(rows, "prompt_mask")[:kept], bounds)
    while len(groups) < count:
        largest = max(range(len(groups)), key=lambda i: len(groups[i]))
        half = len(groups[largest]) // 2
        groups[largest : largest + 1] = [groups[largest][:half], groups[largest][half:]]
    whole, tokens = _weight(rows, loss_type), _weight(rows, "bnpo")
    result = []
    for group in groups:
        micro = trim(select(rows, torch.tensor(group, device=rows["advantages"].device)))
        share = 1.0 if loss_type in TOKEN_LOSSES else _weight(micro, loss_type) / whole
        result.append(micro | {SHARE: share, TOKEN_SHARE: float(micro["completion_mask"].sum()) / tokens})
    return result


def passes(rows: Micro, bounds: Bounds) -> list[list[int]]:
    """Which rows to read together where nothing is learned from them: all of them, as `cut` would."""
    return _grouped(_lengths(rows), _widest(rows, "prompt_mask"), bounds)


def _grouped(lengths: Sequence[int], prompts: Sequence[int], bounds: Bounds) -> list[list[int]]:
    groups: list[list[int]] = []
    longest = prompt = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        prompt = max(prompt, prompts[row])
        tokens = (len(groups[-1]) + 1) * (longest + prompt) if groups else 0
        if not groups or len(groups[-1]) == bounds.rows or (bounds.tokens and tokens > bounds.tokens):
            groups.append([])
            longest, prompt = lengths[row], prompts[row]
        groups[-1].append(row)
    return groups


def _weight(rows: Micro, loss_type: str) -> float:
    """What a loss's mean is over: "bnpo" averages tokens, the others completions."""
    if loss_type == "bnpo":
        return max(float(rows["completion_mask"].sum()), 1.0)
    return float(len(rows["completion_mask"]))


def _lengths(rows: Micro) -> list[int]:
    return _widest(rows, "completion_mask")


def _widest(rows: Micro, mask: str) -> list[int]:
    lengths: list[int] = rows[mask].sum(1).tolist()
    return lengths


def select(rows: Micro, order: torch.Tensor) -> Micro:
    """These rows, in this order; scalars stay."""
    return {
        key: value[order] if isinstance(value, torch.Tensor) and value.dim() else value
        for key, value in rows.items()
    }


def trim(micro: Micro) -> Micro:
    """Cut the columns left of the longest prompt and right of the longest completion.

    Tensors are [rows, prompt] for names that start with "prompt", [rows, completion] for every other one of
    two dimensions; [rows] and scalars stay. A column is kept while any row has a token in it, and at least
    one always is.
    """
    prompt = max(1, int(micro["prompt_mask"].sum(1).max()))
    # A truncated completion can be masked out whole and still have tokens, so length is read off the last
    # kept column.
    kept = micro["completion_mask"].any(0).nonzero()
    completion = int(kept[-1]) + 1 if len(kept) else 1
    columns = micro["completion_mask"].shape[1]

    def narrow(key: str, value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or value.dim() < 2:
            return value
        if key.startswith("prompt"):
            return value[:, -prompt:]
        # [rows, 1] is one importance ratio for a whole sequence.
        return value[:, :completion] if value.shape[1] == columns else value

    return {key: narrow(key, value) for key, value in micro.items()}
