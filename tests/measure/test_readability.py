"""Flags against a trace."""

import pytest

from r1pipe.measure.readability import LONGEST_PARAGRAPH, flags, repeats

LINE = "We try the next pair of numbers and see that their sum is not what was asked for at all here. "


@pytest.mark.parametrize(
    ("text", "thinking", "spoken", "truncated", "expected"),
    [
        ("short and plain", "short", 1.0, False, []),
        ("", "", None, False, []),
        ("words", "words", 0.94, False, ["language_mix"]),
        ("words", "words", 0.95, False, []),
        ("x ```python\n1\n``` y", "x", 1.0, False, []),
        ("x", "x ```python\n1\n```", 1.0, False, ["code_block"]),
        ("a" * (LONGEST_PARAGRAPH + 1), "a", 1.0, False, ["long_paragraph"]),
        ("a" * LONGEST_PARAGRAPH + "\n\n" + "a" * LONGEST_PARAGRAPH, "a", 1.0, False, []),
    ],
)
def test_each_flag_has_its_cause(
    text: str, thinking: str, spoken: float | None, truncated: bool, expected: list[str]
) -> None:
    """And code in an answer is no flaw, nor a text of no words."""
    assert flags(text, thinking, spoken, truncated) == expected


def test_all_of_them_stand_in_their_order() -> None:
    """A loop with code, in two languages, cut off."""
    every = ["language_mix", "repetition", "code_block", "long_paragraph", "truncated"]
    assert flags(LINE * 200, "```", 0.1, True) == every


@pytest.mark.parametrize(("times", "found"), [(1, False), (3, False), (4, True), (40, True)])
def test_a_passage_may_come_three_times(times: int, found: bool) -> None:
    """Twenty words, told apart by what stands between them."""
    passage = "one two three four five six seven eight nine ten " * 2
    assert repeats(" ".join(f"{passage}{i}" for i in range(times))) is found
