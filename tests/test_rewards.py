"""The named rewards."""

import pytest

from r1pipe.errors import UsageError
from r1pipe.prompting import parse
from r1pipe.rewards import REWARDS, RewardInput, make_rewards, total
from r1pipe.tasks.base import Item
from r1pipe.verify.verdict import Completion, Verdict, failed, passed, undecided

FORM = "</think> <answer> 5 </answer>"


def _rewards(
    text: str,
    verdict: Verdict,
    *,
    reasoning: bool = True,
    truncated: bool = False,
    language: str = "en",
    always: bool = False,
) -> dict[str, float | None]:
    completion = Completion(text, opened=reasoning, truncated=truncated)
    given = RewardInput(Item("a", "?", "5", reasoning), completion, parse(text, reasoning), verdict)
    rewards = make_rewards(REWARDS, language=language, language_when="always" if always else "correct")
    return {name: reward(given) for name, reward in rewards.items()}


@pytest.mark.parametrize(
    ("text", "verdict", "rewards"),
    [
        (f"5 no 5 no 5 bu 5 yes {FORM}", passed(), (1, 1, 0.75)),
        (f"5 no 5 no 5 bu 5 yes {FORM}", failed("wrong"), (0, 1, 0)),
        (f"5 + 4 = 9 {FORM}", passed(), (1, 1, 0)),  # no words, so none in the language
        (f"5 yes {FORM} and more", passed(), (1, 0, 1)),
        (FORM, passed(), (1, 0, 0)),
        ("5 yes", failed("thinking not closed"), (0, 0, 0)),
    ],
)
def test_reasoning(text: str, verdict: Verdict, rewards: tuple[float, float, float]) -> None:
    """(accuracy, format, language) of a completion that was to think."""
    assert tuple(_rewards(text, verdict).values()) == rewards


def test_language_of_wrong_answers() -> None:
    """A recipe may reward the language of wrong answers too, and may ask for another language."""
    assert _rewards(f"5 no bu {FORM}", failed("wrong"), always=True)["language"] == 0.5
    assert _rewards(f"5 bu bu no {FORM}", passed(), language="zh")["language"] == pytest.approx(2 / 3)


def test_direct_answers() -> None:
    """A question that needs no thinking wants text without tags, and has no language reward."""
    assert _rewards("red blue", passed(), reasoning=False) == {"accuracy": 1, "format": 1, "language": None}
    thought = _rewards(f"<think> hm {FORM}", passed(), reasoning=False)
    assert thought == {"accuracy": 1, "format": 0, "language": None}


def test_truncated_has_no_form() -> None:
    """A text that was cut off did not end by itself, even where it looks whole."""
    assert _rewards(f"5 yes {FORM}", failed("truncated"), truncated=True)["format"] == 0


def test_undecided_is_never_a_reward() -> None:
    """An undecided verdict makes every reward None, so that the completion is left out and not punished."""
    assert _rewards(f"5 yes {FORM}", undecided("timed out"), always=True) == dict.fromkeys(REWARDS)


def test_total() -> None:
    """The weighted sum of what was given; None when nothing was."""
    weights = {"accuracy": 1.0, "format": 0.1, "language": 0.2}
    assert total({"accuracy": 1, "format": 1, "language": 0.5}, weights) == pytest.approx(1.2)
    assert total({"accuracy": 1, "format": 0, "language": None}, weights) == 1.0
    assert total({"accuracy": None, "format": None, "language": None}, weights) is None


def test_unknown_names() -> None:
    """A misspelt reward is answered with the nearest one, an unknown language with those there are."""
    with pytest.raises(UsageError, match="did you mean 'accuracy'"):
        make_rewards(["acuracy"])
    with pytest.raises(UsageError, match="en, zh"):
        make_rewards(["accuracy"], language="fr")
