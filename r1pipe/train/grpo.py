"""GRPO by TRL's trainer, with our engines, our verdicts, and little time spent on padding.

What is added to `trl.GRPOTrainer`, each in one place:

- rollouts come from an `Engine` and are seeded by (run seed, step), so a resumed run draws what it would have
  drawn;
- a completion is judged once, where it is generated, and every named reward is read off that one judgement;
- `packed` gives a micro-batch completions of like length and cuts it to its own longest row;
- a checkpoint also keeps the reference model, which TRL forgets when `sync_ref_model` has replaced it.

GRPO: DeepSeekMath (arXiv 2402.03300) section 4.1; rewards by rule and their use: DeepSeek-R1 (2501.12948)
section 2.2.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from datasets import Dataset
from safetensors.torch import load_model, save_model
from trl import GRPOConfig, GRPOTrainer

from r1pipe.rollout import Engine, Rollout, Sampling
from r1pipe.train.callbacks import Row, Watch
from r1pipe.train.determinism import derive_seed
from r1pipe.train.running import Guarded, Trained, defaults, run

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from r1pipe.stage import Work

T = TypeVar("T")

_REFERENCE = "reference.safetensors"

ORDER_FREE_LOSSES = frozenset({"grpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"})
"""Losses whose sum over an optimiser step does not depend on which rows share a micro-batch.

"bnpo" does: it divides each micro-batch by that micro-batch's tokens.
"""

TOKEN_LOSSES = frozenset({"dapo", "cispo", "vespo"})
"""Losses divided by the tokens of the whole generation, however many rows a micro-batch has."""

_NO_ADVANTAGE = 1e-6  # a group of equal rewards has a mean that differs from them by rounding

_DEFAULTS = {
    "logging_steps": 1,
    "shuffle_dataset": False,  # the prompts come in the order they are to be asked in
    "lr_scheduler_type": "constant",
}

Micro = dict[str, Any]
"""What TRL trains on at once: tensors by name, the first dimension a completion each."""


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


def train(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Prompt],
    judge: Judge,
    weights: Mapping[str, float],
    engine: Engine,
    options: Mapping[str, Any],
    work: "Work",
) -> Trained:
    """Train `model` in place, one group of completions for each of `prompts`, in their order.

    `options` are `GRPOConfig`'s fields; `weights` name the rewards that add up. Goes on from the newest whole
    checkpoint in `work.dir / "trainer"`. Raises `Interrupted` after a stop that was asked for, `RunFailed`
    when a number is no longer finite.
    """
    args = GRPOConfig(**(defaults(work) | _DEFAULTS | dict(options)), reward_weights=list(weights.values()))
    boundary = boundary_of(args)
    if args.save_steps % boundary:
        args.save_steps = math.ceil(args.save_steps / boundary) * boundary
        work.say(f"Checkpoints are written every {args.save_steps} steps, where a generation ends.")
    trainer = Policy(
        model=model,
        args=args,
        processing_class=tokenizer,
        prompts=prompts,
        judge=judge,
        rewards=list(weights),
        engine=engine,
    )
    watch = Watch(work, trainer.row, boundary=boundary, keep=trainer.keep)
    run(trainer, watch)
    return Trained(watch.headline, int(trainer.state.num_input_tokens_seen))


def boundary_of(args: GRPOConfig) -> int:
    """Optimiser steps between two points where no completion is left over: only there is a resume exact."""
    micro_batches = args.steps_per_generation * args.num_iterations
    return math.lcm(micro_batches, args.gradient_accumulation_steps) // args.gradient_accumulation_steps


class Policy(Guarded, GRPOTrainer):
    """`trl.GRPOTrainer` with the four additions this module's docstring names."""

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
        self.sampling = Sampling(
            max_new_tokens=args.max_completion_length,
            temperature=args.temperature,
            top_p=args.top_p,
            top_k=args.top_k,
        )
        self.rows: list[int] = []  # the prompt of each completion of the present generation
        self.spent = {"generation": 0.0, "reward": 0.0}  # seconds since the last metrics row
        self.tokens = 0  # completion tokens since then
        self._buffered_inputs: list[Micro] | None = None  # TRL's: the micro-batches of this generation
        self._trimmed: list[Micro] | None = None  # the same list, once it has been packed

    def _generate_and_score_completions(self, inputs: list[Micro]) -> Micro:
        # TRL hands the prompts' text to `rollout_func`, not their rows.
        self.rows = [example["row"] for example in inputs]
        return super()._generate_and_score_completions(inputs)

    def rollouts(self) -> Micro:
        """Generate and judge one completion for each of `self.rows`; what TRL wants from a `rollout_func`."""
        began = time.perf_counter()
        prompts = [self.prompts[row] for row in self.rows]
        completions = self.engine.generate([p.token_ids for p in prompts], self.sampling, seeds=self._seeds())
        generated = time.perf_counter()
        judgements = self.judge(list(zip(prompts, completions, strict=True)))
        self.spent["generation"] += generated - began
        self.spent["reward"] += time.perf_counter() - generated
        self.tokens += sum(len(completion.token_ids) for completion in completions)
        self._count(judgements)
        return {
            "prompt_ids": [p.token_ids for p in prompts],
            "completion_ids": [completion.token_ids for completion in completions],
            "logprobs": None,
            "judgement": judgements,
        }

    def _seeds(self) -> list[int]:
        """Of this generation's completions: of the run's seed, how much came before, and each one's place."""
        accumulated = self.args.gradient_accumulation_steps
        # TRL's own counter starts anew after a resume; the optimiser's step does not.
        micro_batches = self.state.global_step * accumulated + self._step % accumulated
        first = self.accelerator.process_index * len(self.rows)
        places = range(first, first + len(self.rows))
        return [derive_seed(self.args.seed, "rollout", micro_batches, place) for place in places]

    def _count(self, judgements: Sequence[Judgement]) -> None:
        """Log what TRL does not: right answers, undecided ones, and groups that teach nothing."""
        decided = [j.passed for j in judgements if j.passed is not None]
        self._log_metric("undecided", 1 - len(decided) / len(judgements))
        if decided:
            self._log_metric("accuracy", sum(decided) / len(decided))
        groups = _batched([self._total(judgement) for judgement in judgements], self.num_generations)
        flat = [group for group in groups if _is_flat(group)]
        self._log_metric("groups_without_spread", len(flat) / len(groups))

    def _total(self, judgement: Judgement) -> float | None:
        """The weighted sum of the rewards that were given, or None if none was."""
        weighted = zip(judgement.rewards.values(), self.args.reward_weights, strict=True)
        given = [reward * weight for reward, weight in weighted if reward is not None]
        return sum(given) if given else None

    def _prepare_inputs(self, generation_batch: Any) -> Micro:
        inputs: Micro = super()._prepare_inputs(generation_batch)
        if not self.model.training or self._buffered_inputs is None:
            return inputs
        if self._buffered_inputs is not self._trimmed:  # a new generation was cut into micro-batches
            window = self.args.gradient_accumulation_steps if self._order_free() else 1
            drop = self._order_free() and self.loss_type in TOKEN_LOSSES and self.beta == 0
            self._buffered_inputs = self._trimmed = packed(self._buffered_inputs, window, drop=drop)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def _get_per_token_logps_and_entropies(
        self,
        model: torch.nn.Module,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **others: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        # Under no_grad these are the reference's (or old policy's) log-probabilities of a whole generation,
        # which TRL computes at its full padded width. `others` are inputs of vision models.
        plain = not any(value is not None for value in others.values())
        if torch.is_grad_enabled() or batch_size is None or not plain:
            result: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None] = (
                super()._get_per_token_logps_and_entropies(
                    model, input_ids, attention_mask, logits_to_keep, batch_size, **others
                )
            )
            return result
        logps = torch.zeros(input_ids.shape[0], logits_to_keep, device=input_ids.device)
        prompt = input_ids.shape[1] - logits_to_keep
        order = attention_mask[:, prompt:].sum(1).argsort(stable=True)
        for rows in order.split(batch_size):
            kept = (
                attention_mask[rows].any(0).nonzero()
            )  # prompts are padded on the left, so this is one stretch
            first, last = int(kept[0]), max(int(kept[-1]), prompt) + 1
            ids, mask = input_ids[rows, first:last], attention_mask[rows, first:last]
            cut, _, _ = super()._get_per_token_logps_and_entropies(model, ids, mask, last - prompt)
            logps[rows, : last - prompt] = cut.to(logps.dtype)
        return logps, None, None

    def _order_free(self) -> bool:
        """Whether a step's gradient stays the same when rows move between its micro-batches."""
        shared = self._entropy_bonus_enabled or self.top_entropy_quantile < 1 or self.aux_loss_enabled
        accumulated, generated = self.args.gradient_accumulation_steps, self.args.steps_per_generation
        aligned = generated % accumulated == 0 or accumulated % generated == 0
        return aligned and not shared and self.loss_type in ORDER_FREE_LOSSES

    def row(self, logs: Row, seconds: float) -> Row:
        """The metrics of the steps since the last row."""
        spent, tokens = self.spent, self.tokens
        self.spent, self.tokens = dict.fromkeys(spent, 0.0), 0
        return {
            "reward": logs.get("reward"),
            "reward_spread": logs.get("reward_std"),
            **self._by_reward(logs),
            "accuracy": logs.get("accuracy"),
            "length": logs.get("completions/mean_length"),
            "truncated": logs.get("completions/clipped_ratio"),
            "groups_without_spread": logs.get("groups_without_spread"),
            "undecided": logs.get("undecided"),
            "entropy": logs.get("entropy"),
            "kl": logs.get("kl"),
            "grad_norm": logs.get("grad_norm"),
            "loss": logs["loss"],
            "learning_rate": logs.get("learning_rate"),
            "tokens_per_second": tokens / seconds,
            "seconds_generation": spent["generation"],
            "seconds_reward": spent["reward"],
            "seconds_training": seconds - spent["generation"] - spent["reward"],
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
        if self.args.sync_ref_model:
            save_model(self.accelerator.unwrap_model(self.ref_model), str(checkpoint / _REFERENCE))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.args.sync_ref_model:
            load_model(
                self.accelerator.unwrap_model(self.ref_model), str(Path(resume_from_checkpoint) / _REFERENCE)
            )


def packed(micro_batches: Sequence[Micro], window: int, *, drop: bool = False) -> list[Micro]:
    """Sort completions by length within every `window` micro-batches, and cut each to its own longest row.

    TRL pads all completions of a generation to the longest of them. `window` is the number of micro-batches
    whose gradients are summed before the weights change, or 1 where a loss depends on which rows stand
    together. The loss and its gradient are those of the uncut micro-batches: only columns that no row of a
    micro-batch attends to go, and with `drop` the rows whose advantage is zero, which late in a training are
    a third of them.
    """
    result = []
    for group in _batched(micro_batches, window):
        joined = {key: _join([micro[key] for micro in group]) for key in group[0]}
        order = joined["completion_mask"].sum(1).argsort(stable=True)
        if drop:
            telling = joined["advantages"][order].abs() > _NO_ADVANTAGE
            # A micro-batch without rows cannot be computed, so each gets one at least.
            order = torch.cat([order[telling], order[~telling]])[: max(int(telling.sum()), len(group))]
        for rows in order.tensor_split(len(group)):
            result.append(trim({key: v[rows] if v.dim() else v for key, v in joined.items()}))
    return result


def trim(micro: Micro) -> Micro:
    """Cut the columns left of the longest prompt and right of the longest completion.

    Tensors are [rows, prompt] for names that start with "prompt", [rows, completion] for every other one of
    two dimensions; [rows] and scalars stay. A column is kept while any row has a token in it, and at least
    one always is.
    """
    prompt = max(1, int(micro["prompt_mask"].sum(1).max()))
    # A truncated completion can be masked out whole and still have tokens, so length is read off the last
    # kept column.
    kept = micro["completion_mask"].any(0).nonzero()
    completion = int(kept[-1]) + 1 if len(kept) else 1
    columns = micro["completion_mask"].shape[1]

    def cut(key: str, value: torch.Tensor) -> torch.Tensor:
        if value.dim() < 2:
            return value
        if key.startswith("prompt"):
            return value[:, -prompt:]
        # [rows, 1] is one importance ratio for a whole sequence.
        return value[:, :completion] if value.shape[1] == columns else value

    return {key: cut(key, value) for key, value in micro.items()}


def _dataset(prompts: Sequence[Prompt], per_generation: int) -> Dataset:
    """The prompts in order, and the first ones again to fill the last generation, which TRL would drop."""
    rows = [i % len(prompts) for i in range(math.ceil(len(prompts) / per_generation) * per_generation)]
    return Dataset.from_dict({"prompt": [prompts[row].text for row in rows], "row": rows})


def _batched(values: Sequence[T], size: int) -> list[Sequence[T]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def _join(values: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat(list(values)) if values[0].dim() else values[0]


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
