"""GRPO by TRL's trainer, with our engines, our verdicts, and nothing computed that is not needed.

What is added to `trl.GRPOTrainer`, each in one place:

- rollouts come from an `Engine`, each drawn with a seed of its own, so a resumed run draws what it would have
  drawn, and two processes what one would;
- a completion is judged once, where it is generated, and every named reward is read off that one judgement;
- groups whose rewards are all alike teach nothing and can be replaced (`Settings.dynamic_sampling`);
- an optimiser step is cut into micro-batches by tokens (`micro_batches`), in one call of the trainer;
- the mismatch between engine and trainer is corrected (`mismatch`) in the pass that is made anyway, and where
  the engine's numbers are the trainer's, the old policy's pass is left out;
- a checkpoint also keeps the reference model, which TRL forgets when `sync_ref_model` has replaced it;
- lengths and temperatures may change on the way: a training is made of legs (`schedule`), each by a trainer
  of its own that goes on from the checkpoint of the one before;
- the first step is proved (`proofs`) and every row guarded (`guard`, `evidence`).

GRPO: DeepSeekMath (arXiv 2402.03300) section 4.1; rewards by rule and their use: DeepSeek-R1 (2501.12948)
section 2.2; dynamic sampling: DAPO (2503.14476) section 3.2.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, TypeVar

import torch
from datasets import Dataset
from safetensors.torch import load_model, save_model
from trl import GRPOConfig

from r1pipe.errors import UsageError
from r1pipe.prompting import opens_thinking
from r1pipe.rollout import Correction, Engine, Rollout, Sampling
from r1pipe.rollout.overlap import Overlapped
from r1pipe.train import checkpoints, lora, ranks
from r1pipe.train.callbacks import Row, Watch
from r1pipe.train.determinism import derive_seed
from r1pipe.train.evidence import Sentry, rollbacks
from r1pipe.train.guard import Guard, sampled, texture
from r1pipe.train.micro_batches import SHARE, TOKEN_SHARE, Bounds, Micro, cut, passes, telling_first
from r1pipe.train.mismatch import Ratio, ratio
from r1pipe.train.proofs import FirstStep, Proved, same_vocabulary
from r1pipe.train.running import Guarded, Trained, defaults, newest, run
from r1pipe.train.schedule import Leg, legs, value_at
from r1pipe.train.text import decode_completions

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from r1pipe.stage import Work

T = TypeVar("T")

_REFERENCE = "reference.safetensors"

_DEFAULTS = {
    "logging_steps": 1,
    "shuffle_dataset": False,  # the prompts come in the order they are to be asked in
    "lr_scheduler_type": "constant",
    # One call of the trainer is one optimiser step; `micro_batches` cuts it.
    "gradient_accumulation_steps": 1,
}


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
    """Whether the answer is right; None where that could not be decided."""


Judge = Callable[[Sequence[tuple[Prompt, Rollout]]], list[Judgement]]
"""Judges a generation batch, in order. What it raises ends the run."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What r1pipe adds to GRPOConfig's options."""

    bounds: Bounds = Bounds(16)  # noqa: RUF009 (frozen)
    """Of one forward and backward pass."""
    dynamic_sampling: int = 0
    """How often groups without spread are replaced by others before the policy learns."""
    mismatch: Correction = "token_truncate"
    """How the ratio between trainer and engine is corrected."""
    mismatch_bound: float = 2.0
    """Where that ratio is cut off."""
    temperatures: Mapping[int, float] = field(default_factory=dict)
    """By step, in place of GRPOConfig's `temperature`; empty where it stays."""
    lengths: Mapping[int, int] = field(default_factory=dict)
    """By step, in place of GRPOConfig's `max_completion_length`; empty where it stays."""
    refresh_every: int | None = None
    """Steps after which the reference of a model with adapters is refreshed; others use `sync_ref_model`."""
    overlap: bool = False
    """Whether completions are judged while others are generated: worth a thread where judging waits for
    other processes."""
    guard: Guard | None = None
    """When the training is stopped, and whether its first step is proved; None: never, and no."""
    turn: int | None = None
    """The chat template's end of turn, where completions end in another token."""


def train(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Prompt],
    judge: Judge,
    weights: Mapping[str, float],
    engine: Engine,
    options: Mapping[str, Any],
    work: "Work",
    settings: Settings = Settings(),
) -> Trained:
    """Train `model` in place, one group of completions for each of `prompts`, in their order.

    `options` are `GRPOConfig`'s fields; `weights` name the rewards that add up. Goes on from the newest whole
    checkpoint in `work.dir / "trainer"`. Raises `Interrupted` after a stop that was asked for, `RunFailed`
    when a number is no longer finite.
    """
    given = defaults(work) | _DEFAULTS | dict(options)
    found = newest(Path(given["output_dir"]), work)
    done = checkpoints.step_of(found) if found else 0
    steps = given["max_steps"]
    args = GRPOConfig(**given)
    boundary = boundary_of(args)
    _require_whole(settings, boundary, steps)
    if args.save_steps % boundary:
        given["save_steps"] = math.ceil(args.save_steps / boundary) * boundary
        work.say(f"Checkpoints are written every {given['save_steps']} steps, where a generation ends.")
    for leg in legs(steps, settings.temperatures, settings.lengths):
        if leg.end <= done and leg.end < steps:
            continue
        args = GRPOConfig(**given | _of_leg(settings, leg), reward_weights=list(weights.values()))
        lora.forget_reference(model)
        trainer = Policy(
            model=model,
            args=args,
            processing_class=tokenizer,
            prompts=prompts,
            judge=judge,
            rewards=list(weights),
            engine=engine,
            settings=settings,
        )
        if settings.refresh_every is not None:
            trainer.add_callback(lora.refresher(settings.refresh_every))
        trainer.guard(settings, work)
        watch = Watch(
            work, trainer.row, boundary=boundary, keep=trainer.keep, until=leg.end, sentry=trainer.sentry
        )
        whole = run(trainer, watch)
    return Trained(watch.headline, int(trainer.state.num_input_tokens_seen), whole)


def _of_leg(settings: Settings, leg: Leg) -> dict[str, Any]:
    """GRPOConfig's options that hold in this leg."""
    options: dict[str, Any] = {}
    if settings.temperatures:
        options["temperature"] = value_at(settings.temperatures, leg.begin)
    if settings.lengths:
        options["max_completion_length"] = value_at(settings.lengths, leg.begin)
    return options


def _require_whole(settings: Settings, boundary: int, steps: int) -> None:
    """A leg ends where a generation does; raises `UsageError` where a schedule says otherwise."""
    for leg in legs(steps, settings.temperatures, settings.lengths):
        if leg.end < steps and leg.end % boundary:
            raise UsageError(
                f"A schedule changes at step {leg.end}, in the middle of a rollout that lasts {boundary} "
                f"steps; let it change at a multiple of {boundary}."
            )


def boundary_of(args: GRPOConfig) -> int:
    """Optimiser steps between two points where no completion is left over: only there is a resume exact."""
    micro_batches = args.steps_per_generation * args.num_iterations
    return math.lcm(micro_batches, args.gradient_accumulation_steps) // args.gradient_accumulation_steps


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


class Policy(Guarded, Proved):
    """`trl.GRPOTrainer` with the additions this module's docstring names."""

    def __init__(
        self,
        *,
        model: "PreTrainedModel",
        args: GRPOConfig,
        processing_class: "PreTrainedTokenizerBase",
        prompts: Sequence[Prompt],
        judge: Judge,
        rewards: Sequence[str],
        engine: Engine,
        settings: Settings,
    ) -> None:
        super().__init__(
            model=model,
            reward_funcs=[_reward(name) for name in rewards],
            args=args,
            train_dataset=_dataset(prompts, args.generation_batch_size // args.num_generations),
            processing_class=processing_class,
            rollout_func=_rollouts,
        )
        self.prompts = prompts
        self.judge = judge
        self.engine = engine
        self.settings = settings
        # What is sampled exactly as the trainer computes it needs no correction, and is the old policy's.
        self.exact = engine.exact and args.top_p == 1 and args.top_k == 0
        self.sampling = Sampling(
            max_new_tokens=args.max_completion_length,
            temperature=args.temperature,
            top_p=args.top_p,
            top_k=args.top_k,
            logprobs=not self.exact or boundary_of(args) > 1,
        )
        # TRL asks for the old policy where steps share a rollout, and before it asks for the reference.
        self._old_is_sampled = self.exact and self.sampling.logprobs
        self.rows: list[int] = []  # the prompt of each completion of the present generation
        self.spent: dict[str, float] = defaultdict(float)  # seconds since the last metrics row
        self.tokens = 0  # completion tokens since then
        self._sampled: list[list[float]] | None = None  # this generation's log-probabilities, by the engine
        self._present: Micro = {}  # what the loss is being computed of
        self.sentry: Sentry | None = None
        self._rolled = Rolled([], [], [])  # the last generation
        self._rollbacks = 0

    def guard(self, settings: Settings, work: "Work") -> None:
        """Prove the first step and guard the training, as the settings say."""
        self._rollbacks = rollbacks(work.dir)
        if settings.guard is not None and settings.guard.on and not work.rank:
            self.sentry = Sentry(settings.guard, work, self.evidence)
        if settings.guard is not None and settings.guard.proofs:
            if getattr(self, "ref_model", None) is not None:
                same_vocabulary(self.model, self.accelerator.unwrap_model(self.ref_model))
            self.first_step = FirstStep(
                exact=self.exact and self.accelerator.mixed_precision == "no",
                say=work.say,
                turn=settings.turn,
                whole_distribution=self.sampling.top_p == 1 and self.sampling.top_k == 0,
                eos_learnt=self.top_entropy_quantile == 1 and self.off_policy_mask_threshold is None,
            )

    # --- Rollouts

    def _generate_and_score_completions(self, inputs: list[Micro]) -> Micro:
        # TRL hands the prompts' text to `rollout_func`, not their rows.
        self.rows = [example["row"] for example in inputs]
        rows: Micro = super()._generate_and_score_completions(inputs)
        self._sampled = None
        return rows

    def rollouts(self) -> Micro:
        """Generate and judge one completion for each of `self.rows`; what TRL wants from a `rollout_func`."""
        with self._timed("sync"):
            self.engine.sync()
        before = self.tokens
        with ranks.gathered(self.model):
            rolled = self._roll([self.prompts[row] for row in self.rows], range(len(self.rows)))
            self._count(rolled.judgements)
            self._replace_flat(rolled)
        self.tokens = before + ranks.total(self.tokens - before)
        self._rolled = rolled
        for name, value in self._texture().items():
            self._log_metric(name, value)
        if self._proving:
            assert self.first_step is not None
            self.first_step.generated([p.token_ids for p in rolled.prompts], rolled.completions)
        told = self.sampling.logprobs or self._proving
        self._sampled = [each.logprobs or [] for each in rolled.completions] if told else None
        return {
            "prompt_ids": [prompt.token_ids for prompt in rolled.prompts],
            "completion_ids": [completion.token_ids for completion in rolled.completions],
            "logprobs": self._sampled,
            "judgement": rolled.judgements,
        }

    def _roll(self, prompts: list[Prompt], places: Sequence[int], *purpose: int) -> Rolled:
        """One judged completion for each, and the places they are drawn for.

        `purpose` tells one batch of a generation from another.
        """
        seeds = self._seeds(places, *purpose)
        sampling = replace(self.sampling, logprobs=self.sampling.logprobs or self._proving)
        asked = [prompt.token_ids for prompt in prompts]
        if self.settings.overlap:
            with Overlapped(lambda placed: self.judge([(prompts[i], each) for i, each in placed])) as judging:
                with self._timed("generation"):
                    completions = self.engine.generate(
                        asked, sampling, seeds=seeds, finished=judging.finished
                    )
                with self._timed("reward"):
                    judgements = judging.results(len(prompts))
        else:
            with self._timed("generation"):
                completions = self.engine.generate(asked, sampling, seeds=seeds)
            with self._timed("reward"):
                judgements = self.judge(list(zip(prompts, completions, strict=True)))
        self.tokens += sum(len(completion.token_ids) for completion in completions)
        return Rolled(prompts, completions, judgements)

    def _seeds(self, places: Sequence[int], *purpose: int) -> list[int]:
        """Of the run's seed, how much came before, and a completion's place among those of all ranks."""
        first = self.accelerator.process_index * len(self.rows)
        again = ("rollback", self._rollbacks) if self._rollbacks else ()
        parts = (self.args.seed, "rollout", *again, self._micro_batches(), *purpose)
        return [derive_seed(*parts, first + place) for place in places]

    @property
    def _proving(self) -> bool:
        """Whether the first step is under way, and looked at."""
        return self.first_step is not None and self.state.global_step == 0

    def _texture(self) -> dict[str, float]:
        """What the guard reads off some of the completions."""
        rolled = self._rolled
        places = sampled(len(rolled.completions))
        ids = [rolled.completions[place].token_ids for place in places]
        opened = [opens_thinking(rolled.prompts[place].text) for place in places]
        return texture(decode_completions(self.processing_class, ids), ids, opened)

    def evidence(self) -> list[Row]:
        """The last generation's completions, with what they were worth."""
        rolled = self._rolled
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

    def _micro_batches(self) -> int:
        """How many of TRL's micro-batches came before this generation."""
        accumulated = self.args.gradient_accumulation_steps
        # TRL's own counter starts anew after a resume; the optimiser's step does not.
        return int(self.state.global_step * accumulated + self._step % accumulated)

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
        """Log what TRL does not: right answers, undecided ones, and groups that teach nothing."""
        # TRL takes the mean of all that is logged on all ranks, so each completion is logged by itself.
        for judgement in judgements:
            self._log_metric("undecided", judgement.passed is None)
            if judgement.passed is not None:
                self._log_metric("accuracy", judgement.passed)
        for group in self._groups(judgements):
            self._log_metric("groups_without_spread", _is_flat(group))

    def _total(self, judgement: Judgement) -> float | None:
        """The weighted sum of the rewards that were given, or None if none was."""
        weighted = zip(judgement.rewards.values(), self.args.reward_weights, strict=True)
        given = [reward * weight for reward, weight in weighted if reward is not None]
        return sum(given) if given else None

    # --- One optimiser step

    def training_step(
        self, model: torch.nn.Module, inputs: Any, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Forward and backward over the micro-batches of one call; return the loss of all of them."""
        model.train()
        prepared = self._prepare_inputs(inputs)
        began = {name: len(values) for name, values in self._metrics["train"].items()}
        micro_batches = self._cut(prepared)
        loss = torch.zeros((), device=self.accelerator.device)
        sync = self.accelerator.sync_gradients
        for i, micro in enumerate(micro_batches):
            # Gradients are summed here, and meet those of other processes once.
            self.accelerator.gradient_state._set_sync_gradients(sync and i + 1 == len(micro_batches))
            with self._alone(model, last=i + 1 == len(micro_batches)):
                with self.compute_loss_context_manager():
                    part = self.compute_loss(model, micro)
                self.accelerator.backward(part)
            loss += part.detach()
        self.accelerator.gradient_state._set_sync_gradients(sync)
        self._merge(began, [float(micro["completion_mask"].sum()) for micro in micro_batches])
        self._step += 1
        self._require_finite("loss", loss.item())
        self.prove()
        return loss

    def _require_finite(self, name: str, value: float) -> None:
        if self.sentry is not None and not math.isfinite(value):
            self.sentry.see({"step": self.state.global_step + 1, name.replace("gradient ", "grad_"): value})
        super()._require_finite(name, value)

    @contextmanager
    def _alone(self, model: torch.nn.Module, *, last: bool) -> Iterator[None]:
        """Keep a gradient from being exchanged with other processes before the last micro-batch."""
        if last or self.accelerator.num_processes == 1:
            yield
        else:
            with self.accelerator.no_sync(model):
                yield

    def _cut(self, rows: Micro) -> list[Micro]:
        kept = len(rows["advantages"])
        if self._advantage_is_all():
            rows, kept = telling_first(rows)
        micro_batches = cut(rows, self.loss_type, self.settings.bounds, keep=kept)
        if self.accelerator.num_processes > 1:
            here = torch.tensor(len(micro_batches), device=self.accelerator.device)
            most = int(self.accelerator.gather(here[None]).max())
            micro_batches = cut(rows, self.loss_type, self.settings.bounds, keep=kept, count=most)
        return micro_batches

    def _advantage_is_all(self) -> bool:
        """Whether a completion without advantage pulls on nothing, so that it need not be computed."""
        others = self._entropy_bonus_enabled or self.top_entropy_quantile < 1 or self.aux_loss_enabled
        return self.beta == 0 and not others

    def _merge(self, began: Mapping[str, int], tokens: Sequence[float]) -> None:
        """Make one figure of those that TRL logged for each micro-batch, by the tokens of each."""
        for name, values in self._metrics["train"].items():
            fresh = values[began.get(name, 0) :]
            if len(fresh) == len(tokens) > 1:
                values[began.get(name, 0) :] = [_merged(name, fresh, tokens)]

    def _compute_loss(self, model: torch.nn.Module, inputs: Micro) -> torch.Tensor:
        self._present = dict(inputs)
        bonus = self._entropy_weight()  # TRL may move it on within this call
        with ranks.ragged(self.accelerator):  # micro-batches have rows of their own number on every rank
            loss: torch.Tensor = super()._compute_loss(model, self._present)
        means = self._means(bonus)
        return (loss - means) * inputs[SHARE] + means * inputs[TOKEN_SHARE]

    def _entropy_weight(self) -> float:
        """What TRL is about to multiply the entropy by."""
        if not self._entropy_bonus_enabled:
            return 0.0
        held_back = self.use_adaptive_entropy and self._last_world_entropy > self.args.entropy_target
        return 0.0 if held_back else float(self.entropy_coef)

    def _means(self, bonus: float) -> torch.Tensor:
        """The part of TRL's present loss that is a mean over tokens, whatever the loss itself divides by."""
        entropies, mask, aux_loss = (
            self._present[name] for name in ("entropies", "entropy_mask", "aux_loss")
        )
        means = torch.zeros((), device=self.accelerator.device)
        if bonus:
            means = means - bonus * (entropies * mask).sum() / mask.sum().clamp(min=1)
        if aux_loss is not None:
            means = means + self.router_aux_loss_coef * aux_loss
        return means / self.current_gradient_accumulation_steps

    def get_high_entropy_mask(
        self, entropies: torch.Tensor, mask: torch.Tensor, threshold: float
    ) -> torch.Tensor:
        """As TRL's, the quantile being that of the micro-batch; the entropy bonus acts on these tokens."""
        chosen: torch.Tensor = super().get_high_entropy_mask(entropies, mask, threshold)
        self._present["entropy_mask"] = chosen
        return chosen

    # --- Log-probabilities

    def _get_per_token_logps_and_entropies(
        self,
        model: torch.nn.Module,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **others: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """As TRL's, [rows, logits_to_keep]; with gradients also the place where the mismatch is corrected.

        Without gradients these are the reference's or the old policy's log-probabilities of a whole
        generation, which TRL computes at its full padded width. `others` are inputs of vision models.
        """
        plain = not any(value is not None for value in others.values())
        if torch.is_grad_enabled() or batch_size is None or not plain:
            result: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None] = (
                super()._get_per_token_logps_and_entropies(
                    model, input_ids, attention_mask, logits_to_keep, batch_size, **others
                )
            )
            if torch.is_grad_enabled():
                self._hear(*result)
            return result
        if self._old_is_sampled and self._sampled is not None:
            # Once: the reference is asked for next, and with adapters it is the same object.
            sampled, self._sampled = self._sampled, None
            return _padded(sampled, logits_to_keep, input_ids.device), None, None
        # Ranks read in passes of their own number.
        with self._timed("logprobs"), ranks.gathered(model):
            return self._logps(model, input_ids, attention_mask, logits_to_keep), None, None

    def _hear(
        self, logps: torch.Tensor, entropies: torch.Tensor | None, aux_loss: torch.Tensor | None
    ) -> None:
        """Note what the pass over the present micro-batch gave, and correct the mismatch by it."""
        mask = self._present["completion_mask"]
        self._present |= {"entropies": entropies, "entropy_mask": mask, "aux_loss": aux_loss}
        if "sampling_per_token_logps" in self._present and not self.exact:
            self._correct(logps.detach())

    def _logps(
        self, model: torch.nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor, columns: int
    ) -> torch.Tensor:
        """Log-probabilities [rows, columns], completions of like length at a time, each at its own width."""
        logps = torch.zeros(input_ids.shape[0], columns, device=input_ids.device)
        prompt = input_ids.shape[1] - columns
        masks = {"prompt_mask": attention_mask[:, :prompt], "completion_mask": attention_mask[:, prompt:]}
        for rows in passes(masks, self.settings.bounds):
            # Prompts are padded on the left, so what is kept is one stretch.
            kept = attention_mask[rows].any(0).nonzero()
            first, last = int(kept[0]), max(int(kept[-1]), prompt) + 1
            ids, mask = input_ids[rows, first:last], attention_mask[rows, first:last]
            part, _, _ = super()._get_per_token_logps_and_entropies(model, ids, mask, last - prompt)
            logps[rows, : last - prompt] = part.to(logps.dtype)
        return logps

    def _correct(self, logps: torch.Tensor) -> None:
        """Weight this micro-batch's advantages by trainer / engine; TRL reads them after this pass.

        The trainer's side is the policy that the completions were drawn from: the old one, which where there
        has been no update since is the present one, `logps` [rows, tokens].
        """
        micro = self._present
        trainer = micro.get("old_per_token_logps", logps)
        found = ratio(
            trainer,
            micro["sampling_per_token_logps"],
            micro["completion_mask"],
            self.settings.mismatch,
            self.settings.mismatch_bound,
        )
        if found.weights is not None:
            micro["advantages"] = micro["advantages"][:, None] * found.weights
        self._log_ratio(found)

    def _log_ratio(self, found: Ratio) -> None:
        metrics = self._metrics["train"]
        metrics["mismatch"].append(found.difference)
        metrics["mismatch_ratio"].append(found.mean)
        metrics["mismatch_ratio_max"].append(found.largest)
        metrics["mismatch_cut"].append(found.cut)

    # --- What is told and kept

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        began = perf_counter()
        yield
        self.spent[what] += perf_counter() - began

    def row(self, logs: Row, seconds: float) -> Row:
        """The metrics of the steps since the last row."""
        spent, tokens = self.spent, self.tokens
        self.spent, self.tokens = defaultdict(float), 0
        return {
            "reward": logs.get("reward"),
            "reward_spread": logs.get("reward_std"),
            **self._by_reward(logs),
            "accuracy": logs.get("accuracy"),
            "length": logs.get("completions/mean_length"),
            "truncated": logs.get("completions/clipped_ratio"),
            **{name: logs.get(name) for name in _COUNTED},
            "clipped": logs.get("clip_ratio/region_mean", logs.get("cispo_clip_ratio")),
            "entropy": logs.get("entropy"),
            "kl": logs.get("kl"),
            "grad_norm": logs.get("grad_norm"),
            "loss": logs["loss"],
            "learning_rate": logs.get("learning_rate"),
            "rollbacks": self._rollbacks or None,
            "tokens_per_second": tokens / seconds,
            **{f"seconds_{what}": spent[what] for what in _TIMED if what in spent or what in _ALWAYS},
            "seconds_training": seconds - sum(spent.values()),
        }

    def _by_reward(self, logs: Row) -> Row:
        """Each reward's mean over a generation's completions and, as `<name>_spread`, its deviation."""
        columns: Row = {}
        for name in self.reward_func_names:
            columns[name] = logs.get(f"rewards/{name}/mean")
            columns[f"{name}_spread"] = logs.get(f"rewards/{name}/std")
        return columns

    def keep(self, checkpoint: Path) -> None:
        """Put the reference model into a checkpoint, if it is no longer the one training began with."""
        if self.args.sync_ref_model and self.is_world_process_zero():
            save_model(self.accelerator.unwrap_model(self.ref_model), str(checkpoint / _REFERENCE))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.args.sync_ref_model:
            load_model(
                self.accelerator.unwrap_model(self.ref_model), str(Path(resume_from_checkpoint) / _REFERENCE)
            )


_TIMED: Final = ("generation", "reward", "sync", "logprobs")
"""What is timed by itself; the rest of a step is training."""

_ALWAYS: Final = ("generation", "reward")

_COUNTED: Final = (
    "repetition",
    "empty_thinking",
    "groups_without_spread",
    "groups_replaced",
    "groups_left_flat",
    "undecided",
    "mismatch",
    "mismatch_ratio",
    "mismatch_ratio_max",
    "mismatch_cut",
)
"""Columns that carry the names they are logged by."""


def _merged(name: str, values: Sequence[float], tokens: Sequence[float]) -> float:
    if name.endswith(("_max", "/max")):
        return max(values)
    if name.endswith(("_min", "/min")):
        return min(values)
    known = [(value, weight) for value, weight in zip(values, tokens, strict=True) if not math.isnan(value)]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if total else math.nan


def _padded(rows: Sequence[Sequence[float]], columns: int, device: torch.device) -> torch.Tensor:
    """[rows, columns], zeros after each row's end."""
    padded = torch.zeros(len(rows), columns)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = torch.tensor(row)
    return padded.to(device)


def _dataset(prompts: Sequence[Prompt], per_generation: int) -> Dataset:
    """The prompts in order, and the first ones again to fill the last generation, which TRL would drop."""
    rows = [i % len(prompts) for i in range(math.ceil(len(prompts) / per_generation) * per_generation)]
    return Dataset.from_dict({"prompt": [prompts[row].text for row in rows], "row": rows})


def _batched(values: Sequence[T], size: int) -> list[Sequence[T]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def _is_flat(group: Sequence[float | None]) -> bool:
    """Whether all decided completions of a group got the same reward, so that none has an advantage."""
    given = [total for total in group if total is not None]
    return not given or max(given) - min(given) < 1e-6


def _rollouts(prompts: Sequence[str], trainer: Policy) -> Micro:
    return trainer.rollouts()


def _reward(name: str) -> Callable[..., list[float | None]]:
    """The reward function TRL calls, which reads one named reward off judgements already made."""

    def reward(judgement: Sequence[Judgement], **_: Any) -> list[float | None]:
        return [one.rewards[name] for one in judgement]

    reward.__name__ = name  # TRL names its metrics after the function
    return reward
