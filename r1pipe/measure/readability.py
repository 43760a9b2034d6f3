"""What makes a trace hard to read: each thing is found by a rule that a reader can check by eye.

The paper drops traces "with mixed languages, long paragraphs, and code blocks" (section 2.3.3); one that
repeats itself is added, as sampling with a token limit brings it about. Rows of `sample` have these as flags,
and `curate` rejects by them: the rules and the bounds are the same.
"""

from typing import Final, Literal

Flag = Literal["language_mix", "repetition", "code_block", "long_paragraph", "truncated"]
"""What may be said against a trace that passed its verdict."""

ONE_LANGUAGE: Final = 0.95
"""Share of the words that must be in one language. Some room is left, as a name or a quoted word of another
language is no mixture."""
PARAGRAPH: Final = 4_000
"""Most characters without a line break, about two pages of print."""
PASSAGE: Final = 16
"""Words of a passage of which repetition is told: more than a phrase, fewer than a step of a loop."""
REPETITION: Final = 0.5
"""Most of a trace's passages that may have come before. A statement, its use and its check come to less; a
loop up to the token limit comes to nearly all."""


def overlong_paragraph(text: str, most: int) -> str | None:
    """The longest paragraph of a text, if it has more than `most` characters."""
    if len(text) <= most:
        return None
    longest = max(text.split("\n"), key=len)
    return longest if len(longest) > most else None


def code_block(thinking: str | None) -> str | None:
    """How a block of code begins that stands in the thinking, where alone it is out of place."""
    place = (thinking or "").find("```")
    return None if thinking is None or place < 0 else thinking[place : place + 80]


def flags(
    text: str, thinking: str | None, *, repeated: float, spoken: float | None, truncated: bool
) -> list[Flag]:
    """What is to be said against a completion by the usual bounds, in the order of `Flag`.

    Args:
        text: all of it.
        thinking: the part that thinks, where there is one.
        repeated: the share of its passages of `PASSAGE` words that have come before (`words.repeated`).
        spoken: the share of its words that are in one language; None without words.
        truncated: whether the token limit cut it off.
    """
    found: list[tuple[Flag, bool]] = [
        ("language_mix", spoken is not None and spoken < ONE_LANGUAGE),
        ("repetition", repeated > REPETITION),
        ("code_block", code_block(thinking) is not None),
        ("long_paragraph", overlong_paragraph(text, PARAGRAPH) is not None),
        ("truncated", truncated),
    ]
    return [flag for flag, is_so in found if is_so]
