"""Texts as hashes of words, against a plain reading of the same rules."""

import doctest
import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1pipe.curate import words as module
from r1pipe.curate.words import among, ngrams, read, shingles

# What mathematics looks like, and what breaks a reader: signs, commands, digits, and a few other alphabets.
MESSY = st.text(st.sampled_from("aBc1290.,\\(){}[]!|+-*/=<>^_%&~$?'\" \n\tleftfrac"), max_size=60)
ANY = st.text(
    st.one_of(st.characters(), st.sampled_from("aß½ﬁ²ée\u0301中あไ\u0e49कि٣−×\ud800👍x1.")), max_size=40
)


def _spans(text: str) -> list[str]:
    words = read(text)
    return [words.between(at, at + 1) for at in range(len(words.hashes))]


def _plain(text: str) -> tuple[list[str], list[str]]:
    """Words, and words with signs, of an ASCII text by a regular expression."""
    text = re.sub(r"\\[()\[\]!|]", "  ", text)
    text = re.sub(rf"\\(?:{'|'.join(module._TYPESETTING)})(?![A-Za-z])", " ", text)
    text = re.sub(r"\\[dtc]frac(?![A-Za-z])", r"\\frac", text)
    text = re.sub(r"(?<=[a-z][a-z])!|(?<![a-z0-9()\[\]+*/=<>^_%|&~!-])!", " ", text, flags=re.I)
    found = re.findall(r"[a-z]+|\d+(?:\.\d+)*|[-+*/=<>^_!%|&~()\[\]]", text.lower())
    return [one for one in found if one[0].isalnum()], found


def test_examples():
    """The docstrings say what is so."""
    assert doctest.testmod(module).failed == 0


@given(MESSY)
def test_words_of_ascii(text: str):
    """Fast and plain reading agree on the words, in number, order and equality."""
    plain, _ = _plain(text)
    words = read(text)
    assert len(words.hashes) == len(plain)
    by_hash = dict(zip(words.hashes.tolist(), plain, strict=True))
    by_word = dict(zip(plain, words.hashes.tolist(), strict=True))
    assert [by_hash[one] for one in words.hashes.tolist()] == plain
    assert [by_word[one] for one in plain] == words.hashes.tolist()
    for span, word in zip(_spans(text), plain, strict=True):
        assert span.lower() == word or word == "frac"


@given(
    st.text(st.sampled_from("aA1. +-()\\$"), max_size=4), st.text(st.sampled_from("aA1. +-()\\$"), max_size=4)
)
def test_exact_is_words_and_signs(one: str, other: str):
    """Two texts are the same if a plain reading finds the same words and signs in the same order."""
    plain = _plain(one)[1], _plain(other)[1]
    if plain[0] or plain[1]:
        assert (read(one).exact == read(other).exact) == (plain[0] == plain[1])
    else:
        assert (read(one).exact == read(other).exact) == (one.strip() == other.strip())


@given(ANY)
def test_any_text_can_be_read(text: str):
    """Whatever the characters are, lone surrogates included, words are stretches of the text, in order."""
    words = read(text)
    assert len(words.hashes) == len(words.starts) == len(words.ends)
    edges = np.column_stack((words.starts, words.ends)).ravel()
    assert (np.diff(edges) >= 0).all()
    letters = set("".join(_spans(text))) - {"."}
    # Of Han characters Python knows those that its version of Unicode has.
    assert all(
        unicodedata.category(each)[0] in "LMN" or "\U00020000" <= each <= "\U000323af" for each in letters
    )


@given(MESSY)
def test_one_reading_for_all_alphabets(text: str):
    """What else is in a text does not change how its ASCII is read."""
    assert read(f"{text} é").hashes[:-1].tolist() == read(text).hashes.tolist()


@given(st.text(st.sampled_from("aBcé中ßΣ ½1"), max_size=20))
def test_case_and_form_do_not_matter(text: str):
    """Capitals, and letters composed or not, are the same words."""
    for other in (text.upper(), unicodedata.normalize("NFD", text)):
        assert read(other).hashes.tolist() == read(text).hashes.tolist()


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("", []),
        ("?!", []),
        ("Don't say 3.14, 1,000 or 2x.", ["Don", "t", "say", "3.14", "1", "000", "or", "2", "x"]),
        (r"\frac{1}{2}\left(x_1\right)\text{ cm}", ["frac", "1", "2", "x", "1", "cm"]),
        ("我们有 12 个苹果 and 3", [*"我们有", "12", *"个苹果", "and", "3"]),
        ("สวัสดี", [*"สวัสดี"]),
        ("naïve ΔΩ Ⅻ", ["naïve", "δω", "xii"]),
        ("क्षि किताब", ["क्षि", "किताब"]),
    ],
)
def test_what_a_word_is(text: str, spans: list[str]):
    """Runs of letters, runs of digits with a decimal point, and single characters where no spaces are
    used."""
    assert _spans(text) == spans


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("What is $2+3$?", "what is 2 + 3", True),
        ("What is $2+3$?", "what is 2 - 3", False),
        (r"\(\dfrac{a}{b}\right)", r"$\frac{a}{b})", True),
        (r"\left(\frac{1}{2}, 3\right)", r"(\tfrac 12, 3)", False),  # 12 is a number
        ("3 × 4 − 2 ≤ x", "3 * 4 - 2 < x", True),
        ("10,\\!000 people", "10,000 people", True),
        ("0.5", "0 5", False),
        ("１２．５ｘ", "12.5x", True),  # noqa: RUF001
        ("wait… 3…5 “so”", 'wait... 3...5 "so"', True),
        ("Well done! 5! is 120", "well done 5! is 120", True),
        ("(n)! + x!", "(n) + x", False),
        ("???", "!!!", False),
        ("???", " ??? ", True),
    ],
)
def test_the_same_text(one: str, other: str, same: bool):
    """Spacing, case, punctuation and typesetting do not count, operators do."""
    assert (read(one).exact == read(other).exact) is same


def test_hashes_stay():
    """Sketches outlive a process: hashes are the same on every machine, and a change of them is noticed."""
    words = read(r"Let \(x\) be 3.5 中")
    assert words.hashes.tolist() == [
        10246009570129635304,
        2081633316375545278,
        10120066841962471278,
        15443344593156743601,
        11690563533394039994,
    ]
    assert words.exact == 16458126840156132095


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 9))
def test_ngrams(numbers: list[int], n: int):
    """There is one for each place with n words from there on, equal for equal words and no others."""
    hashes = np.array(numbers, np.uint64)
    plain = [tuple(numbers[at : at + n]) for at in range(len(numbers) - n + 1)]
    found = ngrams(hashes, n).tolist()
    assert len(found) == len(plain)
    assert len(set(found)) == len(set(plain)) == len(set(zip(found, plain, strict=True)))


def test_long_texts():
    """A text beyond the first tables of powers has the words of its parts."""
    part = read("one two three. ").hashes.tolist()
    assert read("one two three. " * 5000).hashes.tolist() == part * 5000


def test_shingles_of_short_texts():
    """Fewer words than an n-gram are one shingle; none have none."""
    hashes = read("a b c").hashes
    assert shingles(hashes, 5).tolist() == ngrams(hashes, 3).tolist()
    assert len(shingles(hashes, 5)) == 1
    assert len(shingles(hashes, 2)) == 2
    assert len(shingles(hashes[:0], 5)) == 0


def test_among():
    """Membership in a sorted array, beyond both of its ends too."""
    known = np.array([3, 5, 2**63], np.uint64)
    values = np.array([0, 3, 4, 5, 2**63, 2**64 - 1], np.uint64)
    assert among(values, known).tolist() == [False, True, False, True, True, False]
