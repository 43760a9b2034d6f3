"""The collapse guard: what tells that a policy is coming apart, read off the rows of metrics. Plain Python.

Each sign is the running mean of one column, held against what that mean was before. It goes a way: 0 where it
was, 1 at its bound. At 1 the training stops; while every sign is less than half the way there, a checkpoint
counts as good. Signs that come early are known to be unreliable, so the bounds are far out: they are for
trainings that are lost, and a healthy one should never meet them.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from r1pipe.prompting import parse
from r1pipe.rewards.rules import repeated

FINITE: Final = ("loss", "grad_norm", "reward", "entropy", "kl")
"""Columns that must be numbers, whatever else is looked at."""

RUN: Final = 20
"""Tokens of a run that is looked for a second time. Sound reasoning repeats phrases of four or five tokens
all the time, and hardly ever twenty in a row; a loop repeats them whatever its period is."""

SAMPLED: Final = 32
"""Completions of a generation that `texture` is measured on: enough for a mean over a window, and a second's
work at 32,000 tokens each."""

NOISE: Final = 10.0
"""Standard deviations of a window's mean by which the reward must be down: of a thousand windows of a
training that stands still the best and the worst are seven apart."""

RECENT: Final = 4
"""The newest part of a window, one in so many of its rows, that says whether a checkpoint is good: a window
that has just begun to fill with trouble has a mean that still looks well."""

HALF_WAY: Final = 0.5
"""The way to a bound up to which a checkpoint counts as good."""


class GuardConfig(BaseModel):
    """When a training is stopped because its policy comes apart. A number of 0 turns its sign off."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    on: bool = True
    """Stop a training whose policy comes apart, with the evidence saved and the last good checkpoint kept."""
    proofs: bool = True
    """Look at the first step while it is taken: ratio 1, KL 0, EOS learnt, nothing cut."""
    window: int = Field(default=20, ge=4)
    """Rows of metrics whose mean is looked at. The first so many are what later ones are held against;
    before that nothing stops a training but a number that is not finite."""
    reward: float = Field(default=0.5, ge=0)
    """How far the mean reward may fall under its best, in spreads of single completions' rewards. Half a
    spread is the fall from 90 % right to 66 %, or from 50 % to 25 %. Healthy trainings fall by an eighth."""
    entropy: float = Field(default=0.02, ge=0, lt=1)
    """Share of its first mean that the entropy of all that is drawn may fall to. Healthy trainings lose nine
    tenths of it."""
    length: float = Field(default=0.15, ge=0, lt=1)
    """Share of their longest mean that completions may shrink to. Trainings that learn to be brief halve it;
    those that stop thinking keep a tenth."""
    repetition: float = Field(default=0.4, ge=0)
    """How much the share of what a completion says again, in runs of 20 tokens, may rise. Sound reasoning has
    next to none."""
    empty_thinking: float = Field(default=0.4, ge=0)
    """How much the share of thinking with nothing in it may rise."""
    mismatch: float = Field(default=0.2, ge=0)
    """Largest mean difference, a token, between the log-probabilities of engine and trainer. bfloat16 makes
    0.005 to 0.05; at 0.2 every token is learnt as if it were a fifth likelier or less likely than it was.
    Not looked at with top_p or top_k, which make a difference by design."""
    rollback: bool = False
    """After an alarm set aside what follows the last good checkpoint: the next run goes on from there, with
    other completions."""
    rollbacks: int = Field(default=1, ge=1)
    """How often that may happen in one training."""


@dataclass(frozen=True, slots=True)
class CollapseAlarm:
    """What was seen."""

    kind: str
    """The column that gave it, or `not finite`."""
    sentence: str
    """What was seen, over which steps, against which bound, and what to change."""
    step: int
    """The step whose row gave the alarm."""
    calm_until: int
    """The last step at which nothing pointed to trouble; a checkpoint from then is good. 0 where there is
    none."""


class CollapseDetector:
    """Sees a training's rows of metrics in order, and raises the alarm.

    It is a function of the rows it has seen: a resumed training shows it those of the metrics file again.
    """

    def __init__(self, guard: GuardConfig) -> None:
        self._signs = _signs(guard)
        self._calm_until = 0

    def see(self, row: Mapping[str, Any]) -> CollapseAlarm | None:
        """Take in the next row, which carries `step`; a column that is missing or None is passed over."""
        step = int(row["step"])
        if (broken := _not_finite(row)) is not None:
            return CollapseAlarm("not finite", broken, step, self._calm_until)
        for sign in self._signs:
            sign.see(row)
        for sign in self._signs:
            if sign.sounds:
                return CollapseAlarm(sign.column, sign.sentence(), step, self._calm_until)
        if self.calm:
            self._calm_until = step
        return None

    @property
    def calm(self) -> bool:
        """Whether nothing points to trouble now, so that a checkpoint saved at this point is a good one."""
        return all(sign.calm for sign in self._signs)


def texture(
    texts: Sequence[str], token_ids: Sequence[Sequence[int]], opened: Sequence[bool]
) -> dict[str, float]:
    """The columns that are read off completions: `repetition`, and `empty_thinking` where any of them thinks.

    `repetition` is the mean share of a completion's runs of `RUN` tokens that it had said before; of tokens,
    since a policy that writes "!!!!" writes no words. `empty_thinking` is the share of the thinking that was
    begun, by the prompt (`opened`) or the completion, and has nothing in it.
    """
    thoughts = [parse(text, begun).thinking for text, begun in zip(texts, opened, strict=True)]
    begun = [thought for thought in thoughts if thought is not None]
    columns = {"repetition": fmean(repeated(ids, RUN) for ids in token_ids)} if token_ids else {}
    return columns | ({"empty_thinking": sum(not thought for thought in begun) / len(begun)} if begun else {})


def sampled(count: int) -> range:
    """The places of at most `SAMPLED` completions among `count`, evenly spread."""
    return range(0, count, max(1, math.ceil(count / SAMPLED)))


def not_finite(name: str, value: float, step: int) -> str:
    """The sentence about a number that has left the reals."""
    return (
        f"The {name} became {value} at step {step}. Set `learning_rate` or `trainer.max_grad_norm` lower and "
        "run again."
    )


def _not_finite(row: Mapping[str, Any]) -> str | None:
    for column in FINITE:
        value = row.get(column)
        if isinstance(value, float) and not math.isfinite(value):
            return not_finite(column.replace("grad_norm", "gradient norm"), value, int(row["step"]))
    return None


# --- The signs


class _Sign:
    """One column's running mean, and how far it has gone from what it was to what it must not be."""

    def __init__(
        self,
        kind: str,
        column: str,
        window: int,
        *,
        against: Literal["first", "best", "nothing"],
        limit: Callable[[float], float],
        ratios: bool = False,
        advice: str,
    ) -> None:
        """`against` says which window is the reference, and `limit` makes the bound of its mean.

        With `ratios` the way is measured in ratios: from 1 to 1/2 is as far as from 1/2 to 1/4.
        """
        self.kind = kind
        self.column = column
        self.steps: deque[int] = deque(maxlen=window)
        self.values: deque[float] = deque(maxlen=window)
        self.reference: float | None = 0.0 if against == "nothing" else None
        self.reference_steps: tuple[int, int] | None = None
        self._against = against
        self._limit = limit
        self._scale = _log if ratios else float
        self._advice = advice

    def see(self, row: Mapping[str, Any]) -> None:
        """Take in a row, if it has this column."""
        value = row.get(self.column)
        if value is None:
            return
        self.steps.append(int(row["step"]))
        self.values.append(float(value))
        if len(self.values) == self.values.maxlen and self._is_reference():
            self.take_reference()

    def _is_reference(self) -> bool:
        if self._against == "best":
            return self.reference is None or self.mean > self.reference
        return self.reference is None

    def take_reference(self) -> None:
        """Hold later windows against the present one."""
        self.reference, self.reference_steps = self.mean, (self.steps[0], self.steps[-1])

    @property
    def mean(self) -> float:
        """Of the window."""
        return fmean(self.values)

    @property
    def recent(self) -> float:
        """The mean of the window's newest part."""
        return fmean(list(self.values)[-max(1, len(self.values) // RECENT) :])

    def limit(self, reference: float) -> float:
        """The mean that must not be reached."""
        return self._limit(reference)

    @property
    def sounds(self) -> bool:
        """Whether the window's mean has reached its bound."""
        return len(self.values) == self.values.maxlen and self.way(self.mean) >= 1

    @property
    def calm(self) -> bool:
        """Whether what came last is less than half the way there."""
        return not self.values or self.way(self.recent) < HALF_WAY

    def way(self, mean: float) -> float:
        """0 where `mean` is the reference, 1 at the bound; 0 while there is no reference."""
        if self.reference is None:
            return 0.0
        at, end, now = (self._scale(x) for x in (self.reference, self.limit(self.reference), mean))
        return (at - now) / (at - end) if at != end else 0.0

    def sentence(self) -> str:
        """What was seen, over which steps, against which bound, and what to change."""
        assert self.reference is not None
        over = f"the mean over steps {self.steps[0]} to {self.steps[-1]} is {self.mean:.3g}"
        if self.reference_steps is not None:
            first, last = self.reference_steps
            over += f", where it was {self.reference:.3g} over steps {first} to {last}"
        bound = f"`guard.{self.column}` sets the bound at {self.limit(self.reference):.3g}"
        return f"{self.kind}: {over}, and {bound}. {self._advice}"


class _Length(_Sign):
    """Passes over rows most of whose completions were cut off: their length is the limit's, not the policy's.

    A base model that rambles up to the limit and learns to stop is not held against its rambling.
    """

    def see(self, row: Mapping[str, Any]) -> None:
        if (row.get("truncated") or 0.0) < 0.5:
            super().see(row)


class _Entropy(_Sign):
    """Reads `surprise` where it is told: `entropy` may leave out completions without an advantage, and those
    of a policy that always writes the same have none."""

    def see(self, row: Mapping[str, Any]) -> None:
        surprise = row.get("surprise")
        super().see(row if surprise is None else {**row, "entropy": surprise})


class _Reward(_Sign):
    """The reward may fall by some spreads of single completions, and by what chance can do besides."""

    def __init__(self, guard: GuardConfig) -> None:
        super().__init__(
            "The reward fell far under its best",
            "reward",
            guard.window,
            against="best",
            limit=float,
            advice="Set `learning_rate` lower, or `kl` higher.",
        )
        self._allowed = guard.reward
        self._spreads: deque[float] = deque(maxlen=guard.window)
        self._spread_of_best = 0.0
        self._before: float | None = None
        self._squares, self._pairs = 0.0, 0  # of the differences from row to row

    def see(self, row: Mapping[str, Any]) -> None:
        if (reward := row.get("reward")) is not None:
            self._spreads.append(float(row.get("reward_spread") or 0.0))
            if self._before is not None:
                self._squares += (reward - self._before) ** 2
                self._pairs += 1
            self._before = reward
        super().see(row)

    def take_reference(self) -> None:
        super().take_reference()
        self._spread_of_best = fmean(self._spreads)

    def limit(self, reference: float) -> float:
        # The larger spread: where nearly all is right it is nearly nothing, and the bound would be at hand.
        allowed = self._allowed * max(self._spread_of_best, fmean(self._spreads))
        return reference - max(allowed, NOISE * self._deviation_of_means())

    def _deviation_of_means(self) -> float:
        """Of a window's mean, by the differences from row to row: a trend is not taken for noise."""
        return math.sqrt(self._squares / max(1, self._pairs) / 2 / len(self.values))


def _signs(guard: GuardConfig) -> list[_Sign]:
    """The signs that are on."""
    again = "Give the reward `repetition` a weight, or set `learning_rate` lower."
    unread = "Look in the evidence for a reward that is had without thinking, and at its weight."
    signs = [
        _Reward(guard),
        _Entropy(
            "The entropy collapsed",
            "entropy",
            guard.window,
            against="first",
            limit=lambda first: guard.entropy * first,
            ratios=True,
            advice="Set `learning_rate` lower or `clip_high` higher, and `temperature` to 1.",
        ),
        _Length(
            "The length of completions collapsed",
            "length",
            guard.window,
            against="best",
            limit=lambda longest: guard.length * longest,
            ratios=True,
            advice="Look in the evidence for a reward that pays for brevity, and set `learning_rate` lower.",
        ),
        _Sign(
            "The completions repeat themselves",
            "repetition",
            guard.window,
            against="first",
            limit=lambda first: first + guard.repetition,
            advice=again,
        ),
        _Sign(
            "The thinking is empty",
            "empty_thinking",
            guard.window,
            against="first",
            limit=lambda first: first + guard.empty_thinking,
            advice=unread,
        ),
        _Sign(
            "The engine no longer samples from the policy",
            "mismatch",
            guard.window,
            against="nothing",
            limit=lambda _: guard.mismatch,
            advice="Look at the engine's dtype and whether weights reach it, or set `engine: transformers`.",
        ),
    ]
    return [sign for sign in signs if getattr(guard, sign.column) > 0]


def _log(value: float) -> float:
    return math.log(max(value, 1e-12))
