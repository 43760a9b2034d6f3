"""Flags against a trace."""

import pytest

from r1pipe.measure.readability import PARAGRAPH, code_block, flags, overlong_paragraph


@pytest.mark.parametrize(
    ("text", "thinking", "spoken", "expected"),
    [
        ("short and plain", "short", 1.0, []),
        ("", "", None, []),
        ("words", "words", 0.94, ["language_mix"]),
        ("words", "words", 0.95, []),
        ("x ```python\n1\n``` y", "x", 1.0, []),
        ("```python\n1\n```", None, 1.0, []),
        ("x", "x ```python\n1\n```", 1.0, ["code_block"]),
        ("a" * (PARAGRAPH + 1), "a", 1.0, ["long_paragraph"]),
        ("a" * PARAGRAPH + "\n" + "a" * PARAGRAPH, "a", 1.0, []),
    ],
)
def test_each_flag_has_its_cause(
    text: str, thinking: str | None, spoken: float | None, expected: list[str]
) -> None:
    """And code in an answer is no flaw, nor a text of no words."""
    assert flags(text, thinking, repeated=0.5, spoken=spoken, truncated=False) == expected


def test_all_of_them_stand_in_their_order() -> None:
    """A loop with code, in two languages, cut off."""
    every = ["language_mix", "repetition", "code_block", "long_paragraph", "truncated"]
    assert flags("so it is. " * 500, "```", repeated=0.51, spoken=0.1, truncated=True) == every


def test_what_is_shown_of_them() -> None:
    """The paragraph itself, and how the code begins."""
    assert overlong_paragraph("a\nbcd\nef", 2) == "bcd"
    assert overlong_paragraph("a\nbcd\nef", 3) is None
    assert code_block(f"so ```{'x' * 100}") == f"```{'x' * 77}"
