"""What a fine-tuning will be, told before it starts: rows, tokens, steps, time. Plain Python."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from r1pipe.text import duration, quantity
from r1pipe.train.examples import Example


@dataclass(frozen=True, slots=True)
class Outlook:
    """A fine-tuning in numbers."""

    rows: int
    tokens: int
    """Of all rows once, prompts and completions."""
    completion_tokens: int
    """Those of them that have a loss."""
    longest: int
    """Tokens of the longest row."""
    epochs: float
    batch: int
    """Rows of an optimiser step."""

    @classmethod
    def of(cls, examples: Sequence[Example], epochs: float, batch: int) -> Self:
        """Of the examples that are trained on."""
        lengths = [example.length for example in examples]
        prompts = sum(example.prompt_tokens for example in examples)
        return cls(len(lengths), sum(lengths), sum(lengths) - prompts, max(lengths), epochs, batch)

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return steps_of(self.rows, self.epochs, self.batch)

    @property
    def all_tokens(self) -> int:
        """Of all epochs."""
        return round(self.tokens * self.epochs)

    def sentence(self, seconds_per_token: float | None) -> str:
        """The numbers in words; the time is that of the passes alone, and None where none was timed."""
        told = (
            f"{self.rows:,} rows of {self.tokens / self.rows:,.0f} tokens (the longest {self.longest:,}), "
            f"{quantity(self.tokens)} an epoch, {quantity(self.completion_tokens)} of them learnt "
            f"x {self.epochs:g} epochs = {quantity(self.all_tokens)} tokens in {self.steps:,} steps of "
            f"{self.batch} rows"
        )
        if seconds_per_token is None:
            return f"{told}. How long it takes, the first lines of the training tell."
        takes = duration(seconds_per_token * self.all_tokens)
        return f"{told}: about {takes} and the optimiser's part, by a timed pass over a few rows."


def steps_of(rows: int, epochs: float, batch: int) -> int:
    """Optimiser steps of so many epochs; the last batch may be short."""
    return max(1, -(-round(rows * epochs) // batch))
