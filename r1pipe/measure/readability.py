"""What makes a trace hard to read, as flags: each is looked for by a rule that a reader can check by eye.

The paper drops traces "with mixed languages, long paragraphs, and code blocks" (section 2.3.3); a thinking
that repeats itself is added, as sampling with a token limit brings it about.
"""

from collections import Counter
from typing import Final, Literal

Flag = Literal["language_mix", "repetition", "code_block", "long_paragraph", "truncated"]
"""What may be said against a trace that passed its verdict."""

MIXED_BELOW: Final = 0.95
"""Share of the words in the commonest language below which a trace mixes them. Some room is left, as a name
or a quoted word of another language is no mixture."""
WINDOW: Final = 20
"""Words that have to come again, one after another, to be a repetition; AM-Thinking takes 20 tokens."""
MOST_REPEATS: Final = 3
"""How often they may come. A statement, its use and its check are three; loops come to dozens."""
LONGEST_PARAGRAPH: Final = 3000
"""Characters without an empty line, about a page and a half of print."""


def flags(text: str, thinking: str | None, spoken: float | None, truncated: bool) -> list[Flag]:
    """What is to be said against a completion, in the order of `Flag`.

    Args:
        text: all of it.
        thinking: the part that thinks, where there is one; only there is code out of place.
        spoken: the share of its words that are in one language; None without words.
        truncated: whether the token limit cut it off.
    """
    found: list[tuple[Flag, bool]] = [
        ("language_mix", spoken is not None and spoken < MIXED_BELOW),
        ("repetition", repeats(text)),
        ("code_block", "```" in (thinking or "")),
        ("long_paragraph", max(map(len, text.split("\n\n"))) > LONGEST_PARAGRAPH),
        ("truncated", truncated),
    ]
    return [flag for flag, is_so in found if is_so]


def repeats(text: str) -> bool:
    """Whether some `WINDOW` words come one after another more than `MOST_REPEATS` times.

    >>> repeats("so it is . " * 40), repeats("so it is . " * 4)
    (True, False)
    """
    words = text.split()
    if len(words) < WINDOW + MOST_REPEATS:  # the windows may overlap
        return False
    windows = Counter(hash(tuple(words[i : i + WINDOW])) for i in range(len(words) - WINDOW + 1))
    return max(windows.values()) > MOST_REPEATS
