"""Traces made readable by rule."""

import pytest

from r1pipe.curate import Rewrite, make_readable
from r1pipe.curate.rewrite import without_repeats

MIXED = "2 + 3 = 5 bu deng 3 - 2 = 1 no 2 * 3 = 6 dui </think> <answer> 2 * 3 </answer>"


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({}, "2 + 3 = 5 no wait 3 - 2 = 1 no 2 * 3 = 6 yes </think> so 2 * 3 = 6 <answer> 2 * 3 </answer>"),
        (
            {"language": "zh"},
            "2 + 3 = 5 bu deng 3 - 2 = 1 bu 2 * 3 = 6 dui </think> suoyi 2 * 3 = 6 <answer> 2 * 3 </answer>",
        ),
        (
            {"summary": False},
            "2 + 3 = 5 no wait 3 - 2 = 1 no 2 * 3 = 6 yes </think> <answer> 2 * 3 </answer>",
        ),
    ],
)
def test_words_are_translated_by_what_they_do(how: dict[str, object], text: str) -> None:
    """Verdicts and changes of mind come out in one language, and the summary opens in it."""
    assert make_readable(MIXED, opened=True, target=6, how=Rewrite.model_validate(how)) == text


def test_a_think_tag_of_its_own_stays() -> None:
    """A completion that opened its thinking itself is still whole."""
    whole = make_readable(f"<think> {MIXED}", opened=False, target=6, how=Rewrite(summary=False))
    assert whole.startswith("<think> 2 + 3 = 5 no ")
    assert whole.count("<think>") == 1


def test_an_old_summary_makes_room() -> None:
    """Only one line stands there afterwards; without a target the old one stays, translated."""
    text = MIXED.replace("</think>", "</think> suoyi 3 * 2 = 6")
    assert "</think> so 2 * 3 = 6 <answer>" in make_readable(text, opened=True, target=6, how=Rewrite())
    assert "</think> so 3 * 2 = 6 <answer>" in make_readable(text, opened=True, target=None, how=Rewrite())


@pytest.mark.parametrize(
    "text",
    [
        "2 * 3 = 6 dui </think> <answer> 2 * 3 </answer> yes",  # words after the answer
        "2 * 3 = 6 dui",  # not closed
        "Two times three: 2 * 3 = 6. </think> <answer> 2 * 3 </answer>",  # not of the tiny world
    ],
)
def test_what_is_no_whole_trace_stays(text: str) -> None:
    """A rewriting mends no form, and knows no language but its own."""
    assert make_readable(text, opened=True, target=6, how=Rewrite()) == text


@pytest.mark.parametrize(
    ("thinking", "kept"),
    [
        ("2 + 3 = 5 no wait 3 + 2 = 5 bu 2 * 3 = 6 yes", "2 + 3 = 5 no 2 * 3 = 6 yes"),
        ("2 + 3 = 5 no 3 - 2 = 1 no 2 + 3 = 5 no", "2 + 3 = 5 no 3 - 2 = 1 no"),
        ("2 + 3 = 6 no 2 + 3 = 5 yes", "2 + 3 = 6 no 2 + 3 = 5 yes"),  # the second did not fail
        ("1 + 1 = 2 ; 2 + 3 = 5 no 2 + 3 = 5 no", "1 + 1 = 2 ; 2 + 3 = 5 no 2 + 3 = 5 no"),  # another chain
        ("no no 2 + 3 = 5", "no no 2 + 3 = 5"),  # no attempt, nothing repeated
        ("", ""),
    ],
)
def test_failed_attempts_come_once(thinking: str, kept: str) -> None:
    """A second failure of the same computation goes, with the change of mind before it."""
    assert without_repeats(thinking) == kept
