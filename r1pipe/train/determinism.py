"""Seeds that depend on what is being drawn, not on what was drawn before it.

A run that was interrupted and one that was not then draw the same numbers. Plain Python: nothing here imports
torch.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2**63) that is a function of `parts` alone, such as `(run seed, "rollout", step)`."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def epochs_of(count: int, seed: int) -> Iterator[int]:
    """Indices of `count` rows without end: one permutation after the other, each a function of the seed."""
    epoch = 0
    while count:
        order = list(range(count))
        random.Random(derive_seed(seed, "epoch", epoch)).shuffle(order)
        yield from order
        epoch += 1


def bucketed(
    order: Sequence[int], lengths: Sequence[int], batch: int, seed: int, window: int = 32
) -> list[int]:
    """Reorder rows so that a batch holds rows of about one length and little of it is padding.

    Rows move at most `window` batches from where `order` put them, and the batches of a window are shuffled,
    so the order stays random where it matters. Every entry of `order` is kept.
    """
    result: list[int] = []
    for start in range(0, len(order), batch * window):
        # Ties keep their random order: `sorted` is stable.
        rows = sorted(order[start : start + batch * window], key=lambda row: lengths[row])
        batches = [rows[i : i + batch] for i in range(0, len(rows), batch)]
        # A short batch can only be the very last one, or all that follow it would be out of step.
        short = [batches.pop()] if len(batches[-1]) < batch else []
        random.Random(derive_seed(seed, "batches", start)).shuffle(batches)
        result += [row for rows in batches + short for row in rows]
    return result
