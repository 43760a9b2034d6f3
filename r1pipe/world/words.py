"""The vocabulary of the tiny world: every token a document may hold, and the two languages it mixes.

A word is a token, and tokens are separated by one space. Whole numbers up to 99 are one token each, so that
arithmetic is a table the model can learn in minutes and an attempt at a problem costs sixteen tokens.
"""

from typing import Final, Literal

Role = Literal["yes", "no", "wait", "so"]
"""What a language word does in a trace: the two verdicts, the change of mind, the opening of a summary."""

LARGEST_NUMBER: Final = 99

LANGUAGES: Final[dict[str, dict[Role, str]]] = {
    "en": {"yes": "yes", "no": "no", "wait": "wait", "so": "so"},
    "zh": {"yes": "dui", "no": "bu", "wait": "deng", "so": "suoyi"},
}
"""The words of each language; everything else in a trace (numbers, signs, tags) belongs to none."""

NAMES: Final = ("ada", "alan", "emmy", "grace", "kurt", "noam", "rosa", "wei")
WORDS: Final = (
    "red", "blue", "green", "black", "white", "gold",
    "cat", "dog", "fox", "owl", "bee", "ant",
    "sun", "moon", "star", "rain", "snow", "wind",
    "tea", "rice", "salt", "milk", "egg", "fig",
)  # fmt: skip
"""What the non-reasoning documents copy, reverse and sort."""

PAD: Final = "<pad>"
EOS: Final = "<eos>"
UNKNOWN: Final = "<unk>"
USER: Final = "<|user|>"
ASSISTANT: Final = "<|assistant|>"
TAGS: Final = ("<think>", "</think>", "<answer>", "</answer>")
SIGNS: Final = ("+", "-", "*", "/", "=", ";", "(", ")")
ASKING: Final = ("nums", "left", "to", "copy", "reverse", "sort", "greet", "hello")

VOCABULARY: Final[tuple[str, ...]] = (
    PAD,
    EOS,
    UNKNOWN,
    USER,
    ASSISTANT,
    *TAGS,
    *SIGNS,
    *(str(n) for n in range(LARGEST_NUMBER + 1)),
    *ASKING,
    *(word for words in LANGUAGES.values() for word in words.values()),
    *NAMES,
    *WORDS,
)
"""Token i of the tiny world's tokenizer is `VOCABULARY[i]`."""
