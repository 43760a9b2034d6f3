"""Which language a text is in, word by word.

Text in the tiny world's vocabulary is counted by its word lists, where a number or a sign belongs to no
language. Any other text is counted by script where the script tells: a Han character is one word of Chinese,
or of Japanese where its sentence holds kana; Hangul, Cyrillic, Arabic, Hebrew and Devanagari stand for the
most spoken of the languages written in them. Words in Latin letters are told apart by `identify`.
"""

import re
from collections import Counter
from functools import cache
from typing import Final, Literal, get_args
from unicodedata import normalize

from r1pipe.measure.identify import Break, languages_of
from r1pipe.world.words import LANGUAGES, VOCABULARY

Language = Literal["en", "zh", "es", "fr", "de", "it", "pt", "nl", "ru", "ja", "ko", "ar", "he", "hi"]
LANGUAGE_NAMES: Final[tuple[Language, ...]] = get_args(Language)

# Mathematics and programs are in no language: code, commands of LaTeX, and single letters, which are mostly
# variables.
_NO_WORD: Final = re.compile(r"```.*?(?:```|\Z)|(?<!`)`[^`\n]+`(?!`)|\\[A-Za-z]+|<[^<>\s]{1,20}>", re.DOTALL)
_TOKEN: Final = re.compile(
    r"""
      (?P<latin> [A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff]{2,} )
    | (?P<han>   [\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+ )
    | (?P<ja>    [\u3041-\u309f]+ | [\u30a1-\u30fa\u30fc-\u30ff\uff66-\uff9d]+ )
    | (?P<ko>    [\u1100-\u11ff\u3131-\u318e\uac00-\ud7af]+ )
    | (?P<ru>    [\u0400-\u052f]{2,} )
    | (?P<ar>    [\u0620-\u065f\u066e-\u06d3\u06fa-\u06ff\u0750-\u077f]{2,} )
    | (?P<he>    [\u0591-\u05ea]{2,} )
    | (?P<hi>    [\u0900-\u0963\u0971-\u097f]{2,} )
    | (?P<other> [\u0700-\u08ff\u0980-\u0dff\u0e01-\u0e4e\u0e81-\u0ece]+ )
    | (?P<stop>  [.!?](?=\s|$) | [\n\u3002\uff01\uff1f] )
    | (?P<comma> [,;:](?=\s|$) | [\uff0c\uff1b\uff1a\u3001\u2013\u2014\u2026] )
    """,
    re.VERBOSE,
)
"""Words by script, and the breaks between them. A group named by a language counts as a word of it."""


def count_words(text: str) -> Counter[str]:
    """How many words of each language `text` holds.

    >>> count_words("5 + 4 = 9 no 5 * 6 = 30 dui")
    Counter({'en': 1, 'zh': 1})
    """
    tokens = text.split()
    if in_tiny_world(tokens):
        known = _tiny_words()
        return Counter(known[token] for token in tokens if token in known)
    counts: Counter[str] = Counter()
    latin: list[str] = []
    breaks: list[Break] = []  # what follows each of them
    han = kana = 0  # characters and words of the present sentence
    for match in _TOKEN.finditer(normalize("NFC", _NO_WORD.sub(" ", text)) + "\n"):
        script = match.lastgroup or ""
        if script == "latin":
            latin.append(match[0])
            breaks.append("")
        elif script == "han":
            han += len(match[0])
        elif script == "comma":
            breaks[-1:] = [breaks[-1] or ","] if breaks else []
        elif script == "stop":
            breaks[-1:] = ["."] if breaks else []
            counts["ja" if kana else "zh"] += han
            han = kana = 0
        else:
            kana += script == "ja"
            counts[script] += 1
    counts.update(languages_of(latin, breaks))
    return +counts


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
