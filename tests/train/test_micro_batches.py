"""Cutting a step: what stands together, what is trimmed, and what each part counts for."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from r1pipe.train.micro_batches import Bounds, Micro, cut, passes, telling_first, trim


def rows_of(
    lengths: list[int], prompts: list[int] | None = None, advantages: list[float] | None = None
) -> Micro:
    """Completions of these lengths after prompts of one token, each token being its row's number."""
    prompts = prompts or [1] * len(lengths)
    width, before = max(lengths), max(prompts)
    mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    prompt_mask = (torch.arange(before) >= before - torch.tensor(prompts)[:, None]).long()
    numbers = torch.arange(len(lengths))[:, None]
    return {
        "prompt_ids": prompt_mask * numbers,
        "prompt_mask": prompt_mask,
        "completion_ids": mask * numbers,
        "completion_mask": mask,
        "advantages": torch.tensor(advantages or [1.0] * len(lengths)),
        "num_items_in_batch": torch.tensor(sum(lengths)),
    }


def numbers(micro: Micro) -> list[int]:
    return [int(row.max()) for row in micro["completion_ids"]]


def test_the_longest_stand_together() -> None:
    """Two rows a pass: 9 and 7 tokens, 4 and 2, then the one of 1; a pass is as wide as its longest row."""
    micro_batches = cut(rows_of([2, 9, 1, 4, 7]), "grpo", Bounds(2), keep=5)
    assert [numbers(micro) for micro in micro_batches] == [[1, 4], [3, 0], [2]]
    assert [micro["completion_ids"].shape[1] for micro in micro_batches] == [9, 4, 1]


def test_tokens_bound_a_pass() -> None:
    """At most 12 tokens, prompts and padding included: 9 + 1 alone, 4 + 1 twice, 1 + 1; 19 + 1 alone too."""
    micro_batches = cut(rows_of([4, 9, 1, 4, 19]), "grpo", Bounds(16, 12), keep=5)
    assert [numbers(micro) for micro in micro_batches] == [[4], [1], [0, 3], [2]]
    assert passes(rows_of([4, 4], prompts=[1, 3]), Bounds(16, 12)) == [[0], [1]]
    assert passes(rows_of([4, 4], prompts=[1, 2]), Bounds(16, 12)) == [[0, 1]]


def test_shares() -> None:
    """Of a mean over completions two rows of five are two fifths; "bnpo" goes by tokens; "dapo" divides by
    the generation's tokens itself."""
    rows = rows_of([2, 9, 1, 4, 7])

    def shares(loss: str) -> list[float]:
        return [micro["share"] for micro in cut(rows, loss, Bounds(2), keep=5)]

    assert shares("grpo") == shares("dr_grpo") == [2 / 5, 2 / 5, 1 / 5]
    assert shares("bnpo") == [16 / 23, 6 / 23, 1 / 23]
    assert shares("dapo") == shares("cispo") == [1, 1, 1]


def test_rows_without_advantage_come_last() -> None:
    """They are left out by `keep`, and the shares stay those of the whole step."""
    rows, telling = telling_first(rows_of([2, 9, 1, 4], advantages=[0.0, 0.5, 1e-9, -0.5]))
    assert (telling, numbers(rows)) == (2, [1, 3, 0, 2])
    (micro,) = cut(rows, "grpo", Bounds(8), keep=telling)
    assert (numbers(micro), micro["share"]) == ([1, 3], 0.5)
    assert numbers(cut(rows, "grpo", Bounds(8), keep=0)[0]) == [1], "a pass needs a row"


def test_as_many_passes_as_others_need() -> None:
    """Four passes where one would do, or where but one row has an advantage: all processes meet in each."""
    rows = rows_of([2, 9, 1, 4])
    assert [numbers(micro) for micro in cut(rows, "grpo", Bounds(8), keep=4, count=3)] == [[1], [3], [0, 2]]
    assert sorted(n for micro in cut(rows, "grpo", Bounds(8), keep=1, count=4) for n in numbers(micro)) == [
        0,
        1,
        2,
        3,
    ]


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=30),
    st.integers(1, 8),
    st.none() | st.integers(1, 100),
    st.integers(1, 5),
)
def test_every_row_once(lengths: list[int], most_rows: int, most_tokens: int | None, count: int) -> None:
    """No row is lost or doubled, bounds hold but for a row by itself, and shares add up to 1."""
    bounds, count = Bounds(most_rows, most_tokens), min(count, len(lengths))
    micro_batches = cut(rows_of(lengths), "grpo", bounds, keep=len(lengths), count=count)
    assert sorted(n for micro in micro_batches for n in numbers(micro)) == list(range(len(lengths)))
    assert len(micro_batches) >= count
    assert abs(sum(micro["share"] for micro in micro_batches) - 1) < 1e-6
    for micro in micro_batches:
        rows, width = micro["completion_ids"].shape
        assert rows <= most_rows
        assert rows == 1 or most_tokens is None or rows * (width + 1) <= most_tokens


def test_trim_keeps_what_any_row_attends_to() -> None:
    """Prompts are padded on the left and completions on the right; scalars and ratios per sequence stay."""
    micro = {
        "prompt_ids": torch.tensor([[0, 0, 5], [0, 6, 7]]),
        "prompt_mask": torch.tensor([[0, 0, 1], [0, 1, 1]]),
        "completion_ids": torch.tensor([[1, 2, 0, 0], [3, 0, 0, 0]]),
        "completion_mask": torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0]]),
        "advantages": torch.tensor([1.0, -1.0]),
        "importance_sampling_ratio": torch.ones(2, 1),
        "num_items_in_batch": torch.tensor(3),
    }
    trimmed = trim(micro)
    assert trimmed["prompt_ids"].tolist() == [[0, 5], [6, 7]]
    assert trimmed["completion_ids"].tolist() == [[1, 2], [3, 0]]
    assert trimmed["completion_mask"].tolist() == [[1, 1], [1, 0]]
    assert trimmed["importance_sampling_ratio"].shape == (2, 1)
    assert trimmed["num_items_in_batch"] == 3


def test_a_batch_of_masked_completions_keeps_a_column() -> None:
    """`truncated: mask` can mask a whole micro-batch; a model cannot read a row of no columns."""
    micro = {
        "prompt_mask": torch.ones(2, 3, dtype=torch.long),
        "completion_mask": torch.zeros(2, 4, dtype=torch.long),
    }
    assert trim(micro)["completion_mask"].shape == (2, 1)
