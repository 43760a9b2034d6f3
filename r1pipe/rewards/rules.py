"""The named rewards; docs/rewards.md has the formula, the range and the source of each."""

import math
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from difflib import get_close_matches
from typing import Final, Literal, get_args

from r1pipe.errors import UsageError
from r1pipe.measure.language import LANGUAGE_NAMES, consistency
from r1pipe.rewards.base import Reward, RewardInput, each

RewardName = Literal["accuracy", "format", "language", "overlong", "repetition", "preference"]
REWARDS: Final[tuple[RewardName, ...]] = get_args(RewardName)
LanguageWhen = Literal["correct", "always"]

Scorer = Callable[[Sequence[tuple[str, str]]], list[float]]
"""The preference model: a logit, which has no bounds, for each (question, answer)."""


def make_rewards(
    names: Iterable[str],
    *,
    language: str = "en",
    language_when: LanguageWhen = "correct",
    max_new_tokens: int = 512,
    overlong_buffer: int | None = None,
    repetition_ngram: int = 4,
    scorer: Scorer | None = None,
) -> dict[str, Reward]:
    """The rewards of these names.

    `overlong_buffer` is a quarter of `max_new_tokens` when it is not given. `scorer` is what `preference`
    asks.

    Raises:
        UsageError: an unknown name or language, or `preference` without a scorer.
    """
    if language not in LANGUAGE_NAMES:
        raise UsageError(f"Unknown language {language!r}; there are {', '.join(LANGUAGE_NAMES)}.")
    buffer = max(1, max_new_tokens // 4) if overlong_buffer is None else overlong_buffer
    known: dict[str, Reward] = {
        "accuracy": each(accuracy),
        "format": each(form),
        "language": each(language_of(language, language_when)),
        "overlong": each(overlong(max_new_tokens, buffer)),
        "repetition": each(repetition(repetition_ngram)),
    }
    if scorer is not None:
        known["preference"] = preference(scorer)
    return {name: known.get(name) or _unknown(name) for name in names}


def accuracy(given: RewardInput) -> float | None:
    """1 when the answer is right, else 0; None where nothing judges it. DeepSeek-R1 paper, section 2.2.2."""
    return float(given.verdict.passed) if given.verdict.judged else None


def form(given: RewardInput) -> float:
    """The reward `format`: 1 when the completion ended by itself in the form that its question asks for.

    A question to reason about wants `<think> … </think> [summary] <answer> … </answer>` and nothing after;
    any other wants text without tags. DeepSeek-R1 paper, section 2.2.2.
    """
    return float(given.parsed.fits(given.item.reasoning) and not given.completion.truncated)


def language_of(language: str, when: LanguageWhen) -> Callable[[RewardInput], float | None]:
    """The reward `language`: the share of the thinking's words that are in `language`; without any words, 0.

    With `correct` a wrong answer earns 0, so that nothing is to be had by being fluent and wrong. A question
    that needs no thinking has no such reward: None. DeepSeek-R1 paper, section 2.3.2.
    """

    def rule(given: RewardInput) -> float | None:
        if not given.item.reasoning:
            return None
        if when == "correct" and given.verdict.judged and not given.verdict.passed:
            return 0.0
        return consistency(given.parsed.thinking or "", language) or 0.0

    return rule


def overlong(longest: int, buffer: int) -> Callable[[RewardInput], float]:
    """0 up to `longest` - `buffer` tokens, and from there in a straight line to -1 at `longest`.

    The soft overlong punishment of DAPO (arXiv 2503.14476), equation 13.
    """

    def rule(given: RewardInput) -> float:
        return max(-1.0, min(0.0, (longest - buffer - given.completion.tokens) / buffer))

    return rule


def repetition(ngram: int) -> Callable[[RewardInput], float]:
    """-(1 - distinct / all) over the runs of `ngram` words in the whole completion; 0 where it has none.

    A character of a script that puts no spaces between words counts as a word. After open-r1's repetition
    penalty and "Demystifying Long CoT" (arXiv 2502.03373), section 4.3.
    """

    def rule(given: RewardInput) -> float:
        return -repeated(_WORD.findall(given.completion.text.lower()), ngram)

    return rule


def repeated(units: Sequence[Hashable], length: int) -> float:
    """The share of the runs of `length` units that had come before, from 0 to 1; 0 where there is no run."""
    runs = list(zip(*(units[i:] for i in range(length)), strict=False))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def preference(scorer: Scorer) -> Reward:
    """The preference model's logit for each answer by the logistic function, so between 0 and 1.

    The model sees the question and what follows the thinking, never the thinking itself, so that its opinion
    leaves the reasoning alone (DeepSeek-R1 paper, section 2.3.4). Where nothing is left to see, or a thinking
    that was asked for is missing or open, the reward is 0 and the model is not asked.
    """

    def reward(batch: Sequence[RewardInput]) -> list[float | None]:
        shown = [(given.item.question, given.parsed.shown(given.item.reasoning)) for given in batch]
        return [*preferences(scorer, shown)]

    return reward


def preferences(scorer: Scorer, shown: Sequence[tuple[str, str]]) -> list[float]:
    """A preference model's opinion of each (question, answer as a reader sees it), from 0 to 1.

    An empty answer gets 0 and is not asked about; what is no number stays none (nan).
    """
    found = [0.0] * len(shown)
    places = [place for place, (_, answer) in enumerate(shown) if answer]
    for place, logit in zip(places, scorer([shown[place] for place in places]), strict=True):
        found[place] = _logistic(logit)
    return found


# Thai and Lao, Burmese, Khmer; kana; Han.
_UNSPACED: Final = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
)
_WORD: Final = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")


def _logistic(logit: float) -> float:
    """1 / (1 + e^-logit) without overflow; nan for what is no logit, so that it ends the run."""
    if not math.isfinite(logit):
        return math.nan
    power = math.exp(-abs(logit))
    return (1.0 if logit >= 0 else power) / (1.0 + power)


def _unknown(name: str) -> Reward:
    if name in REWARDS:
        raise UsageError(f"The reward {name!r} needs a preference model; set `preference_model`.")
    nearest = get_close_matches(name, REWARDS, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
    raise UsageError(f"Unknown reward {name!r}; there are {', '.join(REWARDS)}{hint}")
