"""The vocabulary: one token a word, no word in two rooms."""

from collections import Counter

from r1pipe.world.words import LANGUAGES, LARGEST_NUMBER, NAMES, VOCABULARY, WORDS


def test_no_word_is_two_tokens_or_two_words_one() -> None:
    """165 different words, none with a space in it; tokens 0 to 2 are the special ones."""
    assert [word for word, count in Counter(VOCABULARY).items() if count > 1] == []
    assert len(VOCABULARY) == 165
    assert VOCABULARY[:3] == ("<pad>", "<eos>", "<unk>")
    assert all(word.split() == [word] for word in VOCABULARY)
    assert {str(n) for n in range(LARGEST_NUMBER + 1)} <= set(VOCABULARY)
    assert str(LARGEST_NUMBER + 1) not in VOCABULARY


def test_a_word_tells_its_language() -> None:
    """Both languages have a word for every role, share none, and none is a word that documents copy."""
    english, chinese = LANGUAGES["en"], LANGUAGES["zh"]
    assert list(LANGUAGES) == ["en", "zh"]
    assert english.keys() == chinese.keys() == {"yes", "no", "wait", "so"}
    words = [*english.values(), *chinese.values()]
    assert len(set(words)) == 8
    assert not set(words) & {*NAMES, *WORDS}
