"""Which language the words of a text are in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1pipe.measure.language import consistency, count_words


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("5 + 4 = 9 no 5 * 6 = 30 dui", {"en": 1, "zh": 1}),
        ("wait no yes so", {"en": 4}),
        ("deng bu dui suoyi", {"zh": 4}),
        ("<think> 5 + 4 = 9 </think> copy red", {}),
        ("", {}),
        # Outside the tiny world's vocabulary words are told apart by script
        ("Let me think again", {"en": 4}),
        ("让我 check", {"en": 1, "zh": 2}),
        ("x + y = \\frac{1}{2}, где x", {"other": 1}),
        ("naïve", {"en": 1}),
        ("<think> hm", {"en": 1}),
        ("なるほど 안녕", {"other": 2}),
    ],
)
def test_count_words(text: str, counts: dict[str, int]) -> None:
    """Numbers, signs, tags, LaTeX commands and single letters belong to no language."""
    assert count_words(text) == counts


@pytest.mark.parametrize(
    ("text", "language", "share"),
    [
        ("5 no 6 no 7 dui", None, 2 / 3),
        ("5 no 6 no 7 dui", "en", 2 / 3),
        ("5 no 6 no 7 dui", "zh", 1 / 3),
        ("bu bu", "en", 0.0),
        ("bu bu", None, 1.0),
        ("5 + 4 = 9", None, None),
        ("5 + 4 = 9", "en", None),
    ],
)
def test_consistency(text: str, language: str | None, share: float | None) -> None:
    """The share of the named language, or of the commonest; None where there are no words."""
    assert consistency(text, language) == share


@given(st.text())
def test_shares_add_up(text: str) -> None:
    """For any text the languages' shares are between 0 and 1 and the commonest is the largest."""
    share = consistency(text)
    if share is not None:
        shares = [consistency(text, language) or 0.0 for language in ("en", "zh", "other")]
        assert sum(shares) == pytest.approx(1.0)
        assert share == max(shares) <= 1.0
