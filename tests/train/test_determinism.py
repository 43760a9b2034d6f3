"""Seeds and orders are functions of what they are for, and nothing is lost or repeated on the way."""

from collections import Counter
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from r1pipe.train.determinism import bucketed, derive_seed, epochs_of


def test_a_seed_is_the_same_on_every_machine() -> None:
    """The value is written down here: a change of the derivation would change every published run."""
    assert derive_seed(0, "rollout", 3) == 3520546360019930582


def test_parts_do_not_run_together() -> None:
    """("1", 23) and ("12", 3) differ, and so do the number 1 and the text "1"."""
    assert len({derive_seed("1", 23), derive_seed("12", 3), derive_seed(1, 23), derive_seed("1", "23")}) == 4


def test_every_epoch_is_a_permutation_of_its_own() -> None:
    """Three epochs of five rows hold every row three times, and no two epochs have one order."""
    rows = list(islice(epochs_of(5, seed=1), 15))
    epochs = [tuple(rows[i : i + 5]) for i in (0, 5, 10)]
    assert [sorted(epoch) for epoch in epochs] == [[0, 1, 2, 3, 4]] * 3
    assert len(set(epochs)) == 3
    assert rows == list(islice(epochs_of(5, seed=1), 15))
    assert rows != list(islice(epochs_of(5, seed=2), 15))


def test_nothing_has_no_epochs() -> None:
    """An empty dataset ends instead of looping for ever."""
    assert list(epochs_of(0, seed=0)) == []


@given(st.lists(st.integers(1, 99), max_size=70), st.integers(1, 7), st.integers(0, 3))
def test_buckets_keep_every_row(lengths: list[int], batch: int, seed: int) -> None:
    """Bucketing is a permutation of the order it was given, whatever divides into whatever."""
    order = list(range(len(lengths)))[::-1]
    assert Counter(bucketed(order, lengths, batch, seed, window=3)) == Counter(order)


def test_a_batch_holds_like_lengths() -> None:
    """Ten lengths in batches of two: each batch is a neighbouring pair, and the batches are not in order."""
    lengths = [5, 1, 9, 3, 7, 2, 8, 4, 6, 10]
    rows = [lengths[i] for i in bucketed(range(10), lengths, 2, seed=0)]
    pairs = [tuple(rows[i : i + 2]) for i in range(0, 10, 2)]
    assert sorted(pairs) == [(1, 2), (3, 4), (5, 6), (7, 8), (9, 10)]
    assert pairs != sorted(pairs)


def test_the_short_batch_is_the_last() -> None:
    """Five rows in batches of two: the odd row stands at the end, so that no later batch is out of step."""
    assert bucketed(range(5), [1, 2, 3, 4, 5], 2, seed=0)[-1] == 4
