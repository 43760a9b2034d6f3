"""Near duplicates: MinHash sketches of word 5-grams, candidates by locality-sensitive hashing, and clusters.

A text is the set of its 5-grams, and two texts are as near as the Jaccard index of their sets. A sketch has
256 places, each equal in two texts with just that probability (Broder, 1997). One hash of each 5-gram
serves all places: its upper bits say which place it competes for (one-permutation hashing, Li et al.,
2012), and the places that stay empty, as most do for a short text, are filled by the least under a hash of
their own. Two sets agree in a place if the least of their union is in both, whichever way it was found, so
that nothing is biased (the argument of Dahlgaard et al., Fast similarity sketching, 2017).

256 permutations of the 5-grams would take many times as long. The library `rensa` is as exact and
fast, and wants the 5-grams as strings, which take longer to make than all that is done here.

The places are cut into 32 bands of 8. Two texts that agree in a whole band are a candidate pair, which
those at Jaccard j are with probability 1 - (1 - j^8)^32: 99.7 % at 0.8, 12 % at 0.5, 0.2 % at 0.3.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from r1pipe.curate.words import Hashes, Places, mix, shingles

SHINGLE: Final = 5
"""Words of an n-gram, as in datatrove and in FineWeb."""
BANDS: Final = 32
ROWS: Final = 8
SIZE: Final = BANDS * ROWS
SKETCH: Final[Any] = np.dtype([("keys", "<u4", (BANDS,)), ("places", "u1", (SIZE,))])
"""What is kept of a text, 384 bytes: a hash of each band, and 8 bits of each place for the estimate."""

Sketches: TypeAlias = npt.NDArray[np.void]
"""[texts] of `SKETCH`: an array, or a file mapped by `np.memmap(path, SKETCH, "r")`."""
Exact = Callable[[Places, Places], npt.NDArray[np.float64]]
"""The Jaccard indices of pairs of texts, given by their numbers, from the texts themselves."""

_PLACE_BITS: Final = SIZE.bit_length() - 1
_NO_KEY: Final = 2**32 - 1  # of a text without words, which is near to none
_NEIGHBOURS: Final = 8  # so many that share a band's key are compared with each; of more, also the first
_AT_ONCE: Final = 1 << 16  # pairs whose sketches are compared in one go: 32 MiB
_ASKED_AT_ONCE: Final = 1 << 10
_ASKED_PER_TEXT: Final = 1  # half a millisecond each


def sketch(hashes: Hashes) -> Sketches:
    """The sketch of a text by its words: [words] -> [] of `SKETCH`."""
    made = np.zeros((), SKETCH)
    if not len(hashes):
        made["keys"] = _NO_KEY
        return made
    places = minima(shingles(hashes, SHINGLE))
    made["places"] = places >> np.uint64(32)
    keys = (places * _constants()[1]).reshape(BANDS, ROWS).sum(axis=1, dtype=np.uint64)
    mix(keys)
    made["keys"] = np.minimum(keys >> np.uint64(32), _NO_KEY - 1)
    return made


def minima(grams: Hashes) -> Hashes:
    """The least hash in each place: [grams, at least one] -> [256], each equal in two sets by their
    Jaccard."""
    ordered = np.sort(grams)  # by place, and in each the least first
    places = ordered >> np.uint64(64 - _PLACE_BITS)
    first = np.flatnonzero(np.concatenate(([True], places[1:] != places[:-1])))
    filled = places[first].astype(np.int64)
    found: Hashes = np.empty(SIZE, np.uint64)
    found[filled] = ordered[first]
    if len(filled) < SIZE:
        is_empty: npt.NDArray[np.bool_] = np.ones(SIZE, np.bool_)
        is_empty[filled] = False
        empty = np.flatnonzero(is_empty)
        found[empty] = (grams * _constants()[0][empty, None]).min(axis=1)
    return found


def estimates(sketches: Sketches, some: Places, others: Places) -> npt.NDArray[np.float64]:
    """The estimated Jaccard indices of pairs: [pairs]; the standard error is at most 0.031, and 0.025 at
    0.8."""
    found = np.empty(len(some))
    for at in range(0, len(some), _AT_ONCE):
        now = slice(at, at + _AT_ONCE)
        same = sketches["places"][some[now]] == sketches["places"][others[now]]
        found[now] = same.mean(axis=1)
    return np.maximum(0.0, (found - 2**-8) / (1 - 2**-8))  # 8 bits of unequal places agree by chance


def jaccard(some: Hashes, others: Hashes) -> float:
    """The exact Jaccard index of two texts by their words; of two texts without words 0."""
    one, other = (_different(shingles(hashes, SHINGLE)) for hashes in (some, others))
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / max(1, len(one) + len(other) - common)


def _different(grams: Hashes) -> Hashes:
    """The n-grams, sorted, each once; `np.unique` takes several times as long for as few as a text has."""
    ordered = np.sort(grams)
    first: npt.NDArray[np.bool_] = np.ones(len(ordered), np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first]


# --- Candidates


def candidates(sketches: Sketches) -> Iterator[tuple[Places, Places]]:
    """Pairs of texts that agree in a band, band by band; a pair that agrees in several comes as often.

    Where many share a key not all their pairs come, and still they hang together: each is paired with its
    eight neighbours and with the first, in an order that differs from band to band. Memory is that of a few
    arrays of one number a text, whatever is found.
    """
    for band in range(BANDS):
        yield from _sharing(np.ascontiguousarray(sketches["keys"][:, band]), int(_constants()[0][band]))


def _sharing(keys: npt.NDArray[np.uint32], factor: int) -> Iterator[tuple[Places, Places]]:
    """Pairs with the same key; `factor`, an odd number, shuffles those that share one."""
    numbers = np.flatnonzero(keys != _NO_KEY).astype(np.uint64)
    if len(numbers) < 2:
        return
    lower = np.uint64(2**32 - 1)
    shuffled = (numbers * np.uint64(factor)) & lower
    ordered = np.sort((keys[numbers].astype(np.uint64) << np.uint64(32)) | shuffled)
    same = ordered[1:] >> np.uint64(32) == ordered[:-1] >> np.uint64(32)
    shared = np.concatenate((same, [False])) | np.concatenate(([False], same))
    ordered = ordered[shared]
    key = ordered >> np.uint64(32)
    number = ((ordered * np.uint64(pow(factor, -1, 1 << 32))) & lower).astype(np.int64)
    for apart in range(1, _NEIGHBOURS + 1):
        together = np.flatnonzero(key[apart:] == key[:-apart])
        yield number[together], number[together + apart]
    first = key.searchsorted(key)
    far = np.flatnonzero(np.arange(len(key)) - first > _NEIGHBOURS)
    yield number[first[far]], number[far]


# --- Clusters


def clusters(
    sketches: Sketches, threshold: float = 0.8, exact: Exact | None = None, margin: float = 0.06
) -> Places:
    """Join what is near, directly or through others: [texts] -> [texts], the number of the cluster's first
    text.

    Pairs count as near by their estimate. With `exact` it is asked where the estimate is within `margin` of
    the threshold, if the two are not in one cluster already; a margin of 0.06 is 2.4 standard errors at
    0.8. Of traces that share a template any number of pairs may be that close: beyond one pair a text on the
    average the estimate decides, so that time and memory grow with the texts and not with their pairs.
    """
    labels = np.arange(len(sketches))
    least, sure = (threshold - margin, threshold + margin) if exact else (threshold, threshold)
    doubtful: Hashes = np.empty(0, np.uint64)
    for some, others in candidates(sketches):
        some, others = _apart(labels, some, others)
        found = estimates(sketches, some, others)
        join(labels, some[found >= sure], others[found >= sure])
        between = (found >= least) & (found < sure)
        some, others, found = some[between], others[between], found[between]
        pairs = (np.minimum(some, others) << 32 | np.maximum(some, others)).astype(np.uint64)
        room = max(0, _ASKED_PER_TEXT * len(sketches) - len(doubtful))
        doubtful = np.union1d(doubtful, np.setdiff1d(pairs, doubtful)[:room])
        near = (found >= threshold) & np.isin(pairs, doubtful, invert=True)
        join(labels, some[near], others[near])
    if exact is not None:
        _settle(labels, doubtful, threshold, exact)
    return labels


def _settle(labels: Places, pairs: Hashes, threshold: float, exact: Exact) -> None:
    """Ask for the exact index of pairs, but of those that what was asked before has put together."""
    for at in range(0, len(pairs), _ASKED_AT_ONCE):
        now = pairs[at : at + _ASKED_AT_ONCE]
        lower = np.uint64(2**32 - 1)
        some, others = _apart(labels, (now >> np.uint64(32)).astype(np.int64), (now & lower).astype(np.int64))
        if len(some):
            near = exact(some, others) >= threshold
            join(labels, some[near], others[near])


def join(labels: Places, some: Places, others: Places) -> None:
    """Put pairs into one cluster each, in place; a cluster's label is the least number in it."""
    while len(some):
        one, other = labels[some], labels[others]
        np.minimum.at(labels, np.maximum(one, other), np.minimum(one, other))
        while not np.array_equal(labels, further := labels[labels]):
            labels[:] = further
        some, others = _apart(labels, some, others)


def kept(labels: Places, rank: npt.NDArray[Any]) -> Places:
    """Which text stands for its cluster, the one of the least rank and of these the first: [texts] ->
    [texts].

    A text is dropped when the number is not its own, and the number says for the sake of which.
    """
    order = np.lexsort((rank, labels))
    names, begins = np.unique(labels[order], return_index=True)
    return order[begins][np.searchsorted(names, labels)]


def _apart(labels: Places, some: Places, others: Places) -> tuple[Places, Places]:
    """The pairs that are not in one cluster."""
    apart = labels[some] != labels[others]
    return some[apart], others[apart]


@cache
def _constants() -> tuple[Hashes, Hashes]:
    """Odd factors: a place's own hash is a 5-gram's times the first, a band's is a sum over places times
    the second."""
    factors: Hashes = np.arange(1, 2 * SIZE + 1, dtype=np.uint64)
    mix(factors)
    factors |= np.uint64(1)
    return factors[:SIZE], factors[SIZE:]
