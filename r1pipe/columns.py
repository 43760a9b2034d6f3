"""The columns of a table of scores: their order, what they are called, what they mean, how a value reads."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from r1pipe.text import half_width, percent, wilson

Score = Mapping[str, Any]
"""One model's scores on one set of problems, as `evaluate` leaves them in its manifest."""


@dataclass(frozen=True, slots=True)
class Column:
    """One number of a model's scores."""

    key: str
    label: str
    meaning: str
    reads: Callable[[float], str]
    share: bool = False
    """Whether it is a rate over completions, so that it has an interval."""

    def text(self, score: Score) -> str:
        """The value as people read it; a dash where there is none."""
        value = score.get(self.key)
        return "–" if value is None else self.reads(value)

    def interval(self, score: Score) -> str:
        """The 95 % interval of a rate: from its standard error if it has one, else Wilson's."""
        value, samples = score.get(self.key), score.get("samples")
        if not self.share or value is None:
            return ""
        stderr = score.get(f"{self.key}_stderr")
        if stderr is not None:
            return f"± {self.reads(half_width(stderr))}"
        if not samples:
            return ""
        low, high = wilson(value, samples)
        return f"{self.reads(low)} to {self.reads(high)}"


COLUMNS: tuple[Column, ...] = (
    Column("mean_tokens", "tokens", "mean length of a completion, in tokens", "{:.1f}".format),
    Column("truncated", "truncated", "completions that the token limit cut off", percent, share=True),
    Column("attempts", "attempts", "attempts tried in one completion, mean", "{:.2f}".format),
    Column("reflection", "reflection", "completions with a word of reflection in them", percent, share=True),
    Column(
        "language_consistency",
        "language",
        "words in the commonest language of their thinking, among all its words",
        "{:.3f}".format,
    ),
    Column("repeated_attempts", "repeated", "attempts that had been tried before", percent),
    Column(
        "arithmetic_validity",
        "arithmetic",
        "steps of the thinking whose arithmetic is right",
        "{:.3f}".format,
    ),
    Column(
        "verdict_validity",
        "verdicts",
        "attempts whose own verdict is right",
        "{:.3f}".format,
    ),
)


def pass_at_1(score: Score) -> str:
    """`0.742 ± 0.021`, the half-width being that of the 95 % interval."""
    value, stderr = score["pass_at_1"], score.get("stderr")
    if value is None:  # no verdict was decided
        return "–"
    return f"{value:.3f}" if stderr is None else f"{value:.3f} ± {half_width(stderr):.3f}"


def sample_size(score: Score) -> str:
    """`848 × 4`: problems and samples of each."""
    problems, samples = score.get("problems"), score.get("samples")
    if not problems or not samples:
        return "–"
    each = samples / problems
    return f"{problems} × {each:.0f}" if each == round(each) else f"{problems} ({samples} samples)"
