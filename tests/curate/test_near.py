"""Near duplicates: sketches that estimate without bias, bands that miss nothing, clusters."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1pipe.curate import near
from r1pipe.curate.near import (
    BANDS,
    ROWS,
    SIZE,
    SKETCH,
    Sketches,
    candidates,
    clusters,
    estimates,
    jaccard,
    join,
    kept,
    minima,
    sketch,
)
from r1pipe.curate.words import Hashes, Places, read


def _sets(count: int, common: int, random: np.random.Generator) -> tuple[Hashes, Hashes]:
    """Two sets of so many random n-grams each, of which so many are in both."""
    grams = random.integers(0, 2**64, 2 * count - common, dtype=np.uint64)
    return grams[:count], grams[count - common :]


def _texts(count: int, changed: int, random: np.random.Generator) -> tuple[Hashes, Hashes]:
    """A text of random words and the same with its last words changed."""
    words = random.integers(0, 2**64, count, dtype=np.uint64)
    other = words.copy()
    other[count - changed :] = random.integers(0, 2**64, changed, dtype=np.uint64)
    return words, other


def _sketches(texts: list[Hashes]) -> Sketches:
    return np.array([sketch(text) for text in texts], SKETCH)


def _pairs(made: Sketches) -> list[tuple[int, int]]:
    """The candidates, the lesser number first."""
    both = [np.sort(np.column_stack(pairs)) for pairs in candidates(made)]
    return [(one, other) for one, other in np.concatenate(both).tolist()]


@pytest.mark.parametrize("count", [1, 2, 7, 40, 250, 700, 4000])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_places_agree_by_the_jaccard_index(count: int, share: float):
    """The mean over many pairs is the index, and an estimate is no farther from it than with 256
    permutations.

    Most places of the small sets are filled by their own hashes, those of the large ones by the common hash.
    """
    random = np.random.default_rng(count)
    pairs = [_sets(count, round(share * count), random) for _ in range(200)]
    true = round(share * count) / (2 * count - round(share * count))
    found = np.array([(minima(one) == minima(other)).mean() for one, other in pairs])
    error = np.sqrt(max(true * (1 - true), 1e-12) / SIZE)
    assert abs(found.mean() - true) <= 4 * error / np.sqrt(len(pairs))
    assert found.std() <= 1.2 * error


def test_estimates_allow_for_chance():
    """Of 256 places with 8 bits kept, unequal texts agree in one by chance; the estimate takes it off."""
    random = np.random.default_rng(0)
    made = _sketches([random.integers(0, 2**64, 300, dtype=np.uint64) for _ in range(400)])
    some, others = np.arange(0, 400, 2), np.arange(1, 400, 2)
    same = (made["places"][some] == made["places"][others]).mean()
    assert same == pytest.approx(1 / 256, rel=0.15)
    assert estimates(made, some, others).mean() < 0.003
    assert estimates(made, some, some).tolist() == [1.0] * 200


@pytest.mark.parametrize("words", [30, 120, 1500])
def test_bands_find_near_pairs(words: int, monkeypatch: pytest.MonkeyPatch):
    """Of pairs at Jaccard 0.8, 99 % and more are candidates, of short texts too; of those at 0.3 a few."""
    random = np.random.default_rng(words)
    for index, least, most in ((0.8, 0.99, 1.0), (0.3, 0.0, 0.02)):
        common = 2 * words * index / (1 + index)
        pairs = [_sets(words, int(np.ceil(common)), random) for _ in range(600)]
        monkeypatch.setattr(near, "shingles", lambda grams, _: grams)
        made = _sketches([one for pair in pairs for one in pair])
        found = set(_pairs(made))
        assert least <= len(found) / len(pairs) <= most
        assert all(other == one + 1 for one, other in found)
    assert pytest.approx(0.9972, abs=1e-4) == 1 - (1 - 0.8**ROWS) ** BANDS


def test_short_texts():
    """Texts of fewer words than an n-gram are near to the same words alone, and those of none to nothing."""
    texts = ["a b", "A, b!", "a b c", "b a", "", "?", "a"]
    made = _sketches([read(text).hashes for text in texts])
    assert clusters(made).tolist() == [0, 0, 2, 3, 4, 5, 6]
    assert not any(len(some) for some, _ in candidates(made[4:6]))
    assert clusters(made[:0]).tolist() == []


def test_jaccard():
    """Over the sets of 5-grams; texts without words are not alike."""
    one, other = read("a b c d e f g").hashes, read("a b c d e f x").hashes
    assert jaccard(one, other) == 2 / 4  # abcde, bcdef; cdefg, cdefx
    assert jaccard(one, one) == 1.0
    assert jaccard(one[:0], one[:0]) == 0.0
    assert jaccard(read("a b").hashes, read("a b").hashes) == 1.0


def test_clusters_of_texts():
    """Near texts come together, also through others; far ones stay apart."""
    random = np.random.default_rng(1)
    words, near_it = _texts(1000, 60, random)  # Jaccard 0.88
    through = near_it.copy()
    through[:60] = random.integers(0, 2**64, 60, dtype=np.uint64)  # 0.88 of near_it, 0.78 of words
    far = _texts(1000, 400, random)
    texts = [far[0], words, through, far[1], near_it]
    assert jaccard(words, through) < 0.8 < jaccard(words, near_it)
    assert clusters(_sketches(texts)).tolist() == [0, 1, 1, 3, 1]


def test_many_alike():
    """All of a large number of copies hang together, and few pairs are looked at."""
    random = np.random.default_rng(2)
    one, other = (sketch(random.integers(0, 2**64, 200, dtype=np.uint64)) for _ in range(2))
    made = np.array([one, other] * 2000, SKETCH)
    assert set(clusters(made).tolist()) == {0, 1}
    first = next(iter(candidates(made)))
    assert len(first[0]) == len(made) - 2


def test_a_template_does_not_ask_for_all_pairs():
    """Texts that are all near the threshold of each other: one exact comparison for each at most."""
    random = np.random.default_rng(4)
    template = random.integers(0, 2**64, 1000, dtype=np.uint64)
    texts = [template.copy() for _ in range(60)]
    for text in texts:
        text[(first := int(random.integers(0, 880))) : first + 60] = random.integers(0, 2**64, 60, np.uint64)
        text[(first := int(random.integers(0, 880))) : first + 60] = random.integers(0, 2**64, 60, np.uint64)
    asked = 0

    def exact(some: Places, others: Places) -> np.ndarray:
        nonlocal asked
        asked += len(some)
        return np.zeros(len(some))

    found = clusters(_sketches(texts), threshold=0.9, exact=exact, margin=0.5)
    assert asked == len(texts)
    assert len(found) == len(texts)


def test_exact_is_asked_in_doubt_alone():
    """The exact index decides about pairs near the threshold, and what is clear is not asked."""
    random = np.random.default_rng(3)
    texts = [one for changed in (20, 110, 190, 600) for one in _texts(1000, changed, random)]
    asked: list[tuple[int, int]] = []

    def exact(some: Places, others: Places) -> np.ndarray:
        pairs = list(zip(some.tolist(), others.tolist(), strict=True))
        asked.extend(pairs)
        return np.array([jaccard(texts[a], texts[b]) for a, b in pairs])

    made = _sketches(texts)
    assert clusters(made, exact=exact).tolist() == [0, 0, 2, 2, 4, 5, 6, 7]
    assert asked == [(2, 3)]  # 0.80; the others are at 0.96, 0.68 and 0.25
    asked.clear()
    assert clusters(made, threshold=0.9, exact=exact, margin=0.3).tolist() == [0, 0, 2, 3, 4, 5, 6, 7]
    assert set(asked) == {(0, 1), (2, 3), (4, 5)}


def test_mapped_from_a_file(tmp_path: Path):
    """Sketches need not be in memory: a file of them does as well."""
    random = np.random.default_rng(4)
    made = _sketches([*_texts(500, 10, random), *_texts(500, 10, random)])
    made.tofile(tmp_path / "sketches")
    assert clusters(np.memmap(tmp_path / "sketches", SKETCH, "r")).tolist() == [0, 0, 2, 2]


@settings(max_examples=60)
@given(st.integers(1, 30), st.data())
def test_join(count: int, data: st.DataObject):
    """Labels are the least numbers of the components, whatever the pairs and their order."""
    number = st.integers(0, count - 1)
    pairs = data.draw(st.lists(st.tuples(number, number), max_size=40))
    cut = data.draw(st.integers(0, len(pairs)))
    labels = np.arange(count)
    for some in (pairs[:cut], pairs[cut:]):
        join(labels, *np.array(some, np.int64).reshape(-1, 2).T)
    plain = list(range(count))
    for _ in range(count):
        for a, b in pairs:
            plain = [min(plain[a], plain[b]) if x in (plain[a], plain[b]) else x for x in plain]
    assert labels.tolist() == plain


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-2, 2)), max_size=20))
def test_kept(rows: list[tuple[int, int]]):
    """One text of a cluster stands for it: that of the least rank, the first of several."""
    first = {label: at for at, (label, _) in reversed(list(enumerate(rows)))}
    labels = np.array([first[label] for label, _ in rows], np.int64)
    chosen = kept(labels, np.array([rank for _, rank in rows], np.int64)).tolist()
    for at, (label, _) in enumerate(rows):
        mine = [other for other, (name, _) in enumerate(rows) if name == label]
        assert chosen[at] == min(mine, key=lambda other: (rows[other][1], other))


def test_all_pairs_of_a_few():
    """Nine or fewer that share a key are all compared with each other."""
    one = sketch(np.arange(100, dtype=np.uint64))
    found = _pairs(np.array([one] * 9, SKETCH))
    assert set(found) == set(combinations(range(9), 2))
    assert len(found) == BANDS * 36
