"""One generation of a GRPO training: completions by an engine, judged where they are generated.

Each completion is drawn with a seed of its own, so a resumed run draws what it would have drawn, and two
processes what one would. It is judged once, and every named reward is read off that one judgement. Groups
whose rewards are all alike teach nothing and can give way to others: dynamic sampling, DAPO (arXiv
2503.14476) section 3.2.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from r1pipe.errors import RunFailed
from r1pipe.prompting import opens_thinking
from r1pipe.rollout import Engine, Rollout, Sampling
from r1pipe.rollout.overlap import Overlapped, Placed
from r1pipe.train import ranks
from r1pipe.train.callbacks import Row
from r1pipe.train.determinism import derive_seed
from r1pipe.train.guard import sampled, texture
from r1pipe.train.micro_batches import Micro
from r1pipe.train.steps import Stepping
from r1pipe.train.text import decode_completions
from r1pipe.verify.alarm import UndecidedAlarm

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question, rendered and tokenised; `row` is what the judge knows it by."""

    row: int
    text: str
    token_ids: list[int]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a completion is worth."""

    rewards: Mapping[str, float | None]
    """By name; None leaves the completion out of its group's advantages."""
    passed: bool | None
    """Whether the answer is right; None where that could not be decided, or nothing says it."""
    reason: str | None = None
    """Why it could not."""
    judged: bool = True
    """Whether there is anything by which it could."""

    @property
    def undecided(self) -> bool:
        """Whether a judge was to say whether it is right, and did not come to it."""
        return self.passed is None and self.judged


Judge = Callable[[Sequence[tuple[Prompt, Rollout]]], list[Judgement]]
"""Judges a generation or a part of one, in order. What it raises ends the run."""

ALARM_EVERY: Final = 50
"""Generations after which it is said again that too many verdicts are undecided."""


@dataclass(slots=True)
class Rolled:
    """Completions that stand side by side: groups, one after the other."""

    prompts: list[Prompt]
    completions: list[Rollout]
    judgements: list[Judgement]

    def put(self, places: Sequence[int], others: "Rolled") -> None:
        """Replace the completions at these places."""
        for place, prompt, completion, judgement in zip(
            places, others.prompts, others.completions, others.judgements, strict=True
        ):
            self.prompts[place] = prompt
            self.completions[place] = completion
            self.judgements[place] = judgement


class Rolling(Stepping):
    """A GRPO trainer whose completions come from an engine and whose rewards come from a judge."""

    prompts: Sequence[Prompt]
    """What may be asked; a row of TRL's data set is a place in it."""
    judge: Judge
    engine: Engine
    sampling: Sampling
    rows: Sequence[int] = ()
    """The prompt of each completion of the present generation."""
    tokens: int = 0
    """Completion tokens since the last row of metrics."""
    rollbacks: int = 0
    """How often the training was rolled back: its completions are then drawn anew."""
    last: Rolled
    """The last generation."""
    undecided_alarm: UndecidedAlarm
    """Hears every generation's verdicts."""
    say: Callable[[str], None]
    """Told when too many of them are undecided."""

    def _generate_and_score_completions(self, inputs: list[Micro]) -> Micro:
        # TRL hands the prompts' text to `rollout_func`, not their rows.
        self.rows = [example["row"] for example in inputs]
        rows: Micro = super()._generate_and_score_completions(inputs)
        self.sampled = None
        return rows

    def rollouts(self) -> Micro:
        """Generate and judge one completion for each of `self.rows`; what TRL wants from a `rollout_func`."""
        with self.timed("sync"):
            probe = self.engine.sync()
        if probe is not None:
            self._log_metric("probe", probe)
        before = self.tokens
        with ranks.gathered(self.model):
            rolled = self._roll([self.prompts[row] for row in self.rows], range(len(self.rows)))
            self._count(rolled.judgements)
            surprise = self._surprise(rolled.completions)
            self._replace_flat(rolled)
        self.engine.rest()
        self.tokens = before + ranks.total(self.tokens - before)
        self.last = rolled
        for name, value in (self._texture() | surprise).items():
            self._log_metric(name, value)
        if self._proving:
            assert self.first_step is not None
            self.first_step.generated([p.token_ids for p in rolled.prompts], rolled.completions)
        told = self.sampling.logprobs or self._proving
        self.sampled = [_told(each) for each in rolled.completions] if told else None
        return {
            "prompt_ids": [prompt.token_ids for prompt in rolled.prompts],
            "completion_ids": [completion.token_ids for completion in rolled.completions],
            "logprobs": self.sampled,
            "judgement": rolled.judgements,
        }

    def _roll(self, prompts: list[Prompt], places: Sequence[int], *purpose: int) -> Rolled:
        """One judged completion for each, and the places they are drawn for.

        `purpose` tells one batch of a generation from another.
        """
        seeds = self._seeds(places, *purpose)
        told = self.sampling.logprobs or self._proving or self._entropy_guarded
        sampling = replace(self.sampling, logprobs=told)
        asked = [prompt.token_ids for prompt in prompts]
        # An engine on the trainer's own modules computes in the trainer's precision.
        precision = self.accelerator.autocast() if self.engine.exact else nullcontext()
        if self.settings.overlap:

            def judge(placed: Sequence[Placed]) -> list[Judgement]:
                return self.judge([(prompts[i], each) for i, each in placed])

            with Overlapped(judge) as judging:
                with self.timed("generation"), precision:
                    completions = self.engine.generate(
                        asked, sampling, seeds=seeds, finished=judging.finished
                    )
                with self.timed("reward"):
                    judgements = judging.results(len(prompts))
        else:
            with self.timed("generation"), precision:
                completions = self.engine.generate(asked, sampling, seeds=seeds)
            with self.timed("reward"):
                judgements = self.judge(list(zip(prompts, completions, strict=True)))
        self.tokens += sum(len(completion.token_ids) for completion in completions)
        return Rolled(prompts, completions, judgements)

    def _seeds(self, places: Sequence[int], *purpose: int) -> list[int]:
        """Of the run's seed, the step, and a completion's place among those of all ranks."""
        first = self.accelerator.process_index * len(self.rows)
        again = ("rollback", self.rollbacks) if self.rollbacks else ()
        # The optimiser's step: TRL's own counter starts anew after a resume.
        parts = (self.args.seed, "rollout", *again, self.state.global_step, *purpose)
        return [derive_seed(*parts, first + place) for place in places]

    @property
    def _proving(self) -> bool:
        """Whether the first step is under way, and looked at."""
        return self.first_step is not None and self.state.global_step == 0

    @property
    def _entropy_guarded(self) -> bool:
        guard = self.settings.guard
        return guard is not None and guard.on and guard.entropy > 0

    def _surprise(self, completions: Sequence[Rollout]) -> dict[str, float]:
        """Mean -log p of all tokens that were drawn on all ranks, where the engine tells them.

        Its expectation is the entropy of what is sampled from. TRL's `entropy` is of the rows of a step,
        which leaves out those without an advantage.
        """
        if not (self.sampling.logprobs or self._entropy_guarded):
            return {}
        told = [logp for each in completions for logp in _told(each) if math.isfinite(logp)]
        sums, counts = zip(*ranks.each([sum(told), len(told)]), strict=True)
        return {"surprise": -sum(sums) / sum(counts)} if sum(counts) else {}

    def _texture(self) -> dict[str, float]:
        """What the guard reads off some of the completions."""
        rolled = self.last
        places = sampled(len(rolled.completions))
        ids = [rolled.completions[place].token_ids for place in places]
        opened = [opens_thinking(rolled.prompts[place].text) for place in places]
        return texture(decode_completions(self.processing_class, ids), ids, opened)

    def evidence(self) -> list[Row]:
        """The last generation's completions, with what they were worth."""
        rolled = self.last
        texts = decode_completions(self.processing_class, [each.token_ids for each in rolled.completions])
        return [
            {
                "row": prompt.row,
                "prompt": prompt.text,
                "completion": text,
                "tokens": len(completion.token_ids),
                "finish": completion.finish,
                "passed": judgement.passed,
                "rewards": dict(judgement.rewards),
            }
            for prompt, completion, judgement, text in zip(
                rolled.prompts, rolled.completions, rolled.judgements, texts, strict=True
            )
        ]

    def _replace_flat(self, rolled: Rolled) -> None:
        """Replace groups without spread by groups of other prompts, as often as the settings allow.

        The other prompts are any of the training's, chosen by the run's seed; what they are asked with is
        drawn anew. Raises nothing: a group that stays flat has no advantage, and moves nothing.
        """
        replaced = 0
        for attempt in range(1, self.settings.dynamic_sampling + 1):
            flat = [place for place, group in enumerate(self._groups(rolled.judgements)) if _is_flat(group)]
            if not flat:
                break
            size = self.num_generations
            chosen = self._seeds([place * size for place in flat], attempt, -1)
            others = [self.prompts[seed % len(self.prompts)] for seed in chosen]
            places = [place * size + i for place in flat for i in range(size)]
            rolled.put(places, self._roll([each for each in others for _ in range(size)], places, attempt))
            replaced += len(flat)
        if self.settings.dynamic_sampling:
            groups = self._groups(rolled.judgements)
            self._log_metric("groups_replaced", replaced / len(groups))
            self._log_metric("groups_left_flat", sum(map(_is_flat, groups)) / len(groups))

    def _groups(self, judgements: Sequence[Judgement]) -> list[Sequence[float | None]]:
        return _batched([self._total(judgement) for judgement in judgements], self.num_generations)

    def _count(self, judgements: Sequence[Judgement]) -> None:
        """Log what TRL does not: right answers, undecided ones, and groups that teach nothing.

        Once for a generation; judges that overlap see it in parts.
        """
        # TRL takes the mean of all that is logged on all ranks, so each completion is logged by itself.
        for judgement in judgements:
            self._log_metric("undecided", judgement.undecided)
            if judgement.passed is not None:
                self._log_metric("accuracy", judgement.passed)
        for group in self._groups(judgements):
            self._log_metric("groups_without_spread", _is_flat(group))
        reasons = [(each.reason or "no reason") if each.undecided else None for each in judgements]
        if said := self.undecided_alarm.hear(reasons):
            self.say(said)

    def _total(self, judgement: Judgement) -> float | None:
        """The weighted sum of the rewards that were given, or None if none was."""
        weighted = zip(judgement.rewards.values(), self.args.reward_weights, strict=True)
        given = [reward * weight for reward, weight in weighted if reward is not None]
        return sum(given) if given else None


def _batched(values: Sequence[T], size: int) -> list[Sequence[T]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def _is_flat(group: Sequence[float | None]) -> bool:
    """Whether all decided completions of a group got the same reward, so that none has an advantage."""
    given = [total for total in group if total is not None]
    return not given or max(given) - min(given) < 1e-6


def _told(rollout: Rollout) -> list[float]:
    """The engine's log-probabilities. What it does not tell is no number, so it ends the run."""
    if rollout.logprobs is None or len(rollout.logprobs) != len(rollout.token_ids):
        told = 0 if rollout.logprobs is None else len(rollout.logprobs)
        raise RunFailed(
            f"The engine told {told} log-probabilities for {len(rollout.token_ids)} tokens, so what it drew "
            "cannot be compared with the policy. Write `engine: transformers`, and report this."
        )
    return rollout.logprobs
