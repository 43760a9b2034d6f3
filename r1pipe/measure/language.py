"""Which language a text is in, word by word.

Text in the tiny world's vocabulary is counted by its word lists, where a number or a sign belongs to no
language. Any other text is counted by script: a Latin word is one word of English, a Han character one word
of Chinese, and a word in any other script one of neither.
"""

import re
from collections import Counter
from functools import cache
from typing import Final, Literal, get_args

from r1pipe.world.words import LANGUAGES, VOCABULARY

Language = Literal["en", "zh"]
LANGUAGE_NAMES: Final[tuple[Language, ...]] = get_args(Language)
OTHER: Final = "other"
"""What words in a script of neither language are counted under."""

# Mathematics is in no language: commands of LaTeX, and single Latin letters, which are mostly variables.
_NO_WORD: Final = re.compile(r"\\[A-Za-z]+|<[^<>\s]{1,20}>")
_LATIN: Final = re.compile(r"[A-Za-z\u00c0-\u024f]{2,}")
_HAN: Final = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_OTHER: Final = re.compile(r"[\u0400-\u052f\u0590-\u0dff\u0e00-\u0eff\u3040-\u30ff\uac00-\ud7af]+")


def count_words(text: str) -> Counter[str]:
    """How many words of each language `text` holds.

    >>> count_words("5 + 4 = 9 no 5 * 6 = 30 dui")
    Counter({'en': 1, 'zh': 1})
    """
    tokens = text.split()
    if in_tiny_world(tokens):
        known = _tiny_words()
        return Counter(known[token] for token in tokens if token in known)
    text = _NO_WORD.sub(" ", text)
    counts = {
        "en": len(_LATIN.findall(text)),
        "zh": len(_HAN.findall(text)),
        OTHER: len(_OTHER.findall(text)),
    }
    return Counter({language: count for language, count in counts.items() if count})


def consistency(text: str, language: str | None = None) -> float | None:
    """The share of the words of `text` that are in `language`, or in its commonest one when none is named.

    None when it holds no words at all. DeepSeek-R1 paper, section 2.3.2.
    """
    counts = count_words(text)
    total = counts.total()
    if total == 0:
        return None
    return (max(counts.values()) if language is None else counts[language]) / total


def in_tiny_world(tokens: list[str]) -> bool:
    """Whether every token is one of the tiny world's."""
    return _vocabulary().issuperset(tokens)


@cache
def _vocabulary() -> frozenset[str]:
    return frozenset(VOCABULARY)


@cache
def _tiny_words() -> dict[str, str]:
    return {word: language for language, words in LANGUAGES.items() for word in words.values()}
