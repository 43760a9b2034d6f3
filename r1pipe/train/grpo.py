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
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from datasets import Dataset
from safetensors.torch import load_model, save_model
from trl import GRPOConfig

from r1pipe.errors import UsageError
from r1pipe.rollout import Engine, Sampling
from r1pipe.train import checkpoints, lora
from r1pipe.train.callbacks import Row, WorkCallback
from r1pipe.train.evidence import CollapseGuard, finish_rollback, rollbacks
from r1pipe.train.micro_batches import Micro
from r1pipe.train.proofs import FirstStep, same_vocabulary
from r1pipe.train.rollouts import ALARM_EVERY, Judge, Judgement, Prompt, Rolled, Rolling
from r1pipe.train.running import Trained, defaults, newest, on_one_gpu, release, run
from r1pipe.train.schedule import Leg, legs, value_at
from r1pipe.train.settings import Settings
from r1pipe.verify.alarm import UndecidedAlarm

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from r1pipe.stage import Work

__all__ = ["Judge", "Judgement", "Policy", "Prompt", "Settings", "boundary_of", "train"]

_REFERENCE = "reference.safetensors"

_DEFAULTS = {
    "logging_steps": 1,
    "shuffle_dataset": False,  # the prompts come in the order they are to be asked in
    "lr_scheduler_type": "constant",
}


_PLAIN = Settings()


def train(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Prompt],
    judge: Judge,
    weights: Mapping[str, float],
    engine: Engine,
    options: Mapping[str, Any],
    work: "Work",
    settings: Settings = _PLAIN,
) -> Trained:
    """Train `model` in place, one group of completions for each of `prompts`, in their order.

    `options` are `GRPOConfig`'s fields, of which `gradient_accumulation_steps` is 1: one call of the trainer
    is one optimiser step. `weights` name the rewards that add up. Goes on from the newest whole
    checkpoint in `work.dir / "trainer"`. Raises `Interrupted` after a stop that was asked for, `RunFailed`
    when a number is no longer finite.
    """
    given = defaults(work) | _DEFAULTS | dict(options)
    if not work.rank:
        finish_rollback(work.dir)
    found = newest(Path(given["output_dir"]), work)
    done = checkpoints.step_of(found) if found else 0
    steps = given["max_steps"]
    args = on_one_gpu(GRPOConfig(**given))
    boundary = boundary_of(args)
    _require_whole(settings, boundary, steps)
    if args.save_steps % boundary:
        given["save_steps"] = math.ceil(args.save_steps / boundary) * boundary
        work.say(f"Checkpoints are written every {given['save_steps']} steps, where a generation ends.")
    make = partial(
        Policy,
        model=model,
        processing_class=tokenizer,
        prompts=prompts,
        judge=judge,
        rewards=list(weights),
        engine=engine,
        settings=settings,
    )
    for leg in legs(steps, settings.temperatures, settings.lengths):
        if leg.end <= done and leg.end < steps:
            continue
        args = GRPOConfig(**given | _of_leg(settings, leg), reward_weights=list(weights.values()))
        lora.forget_reference(model)
        trained = _train_leg(make, on_one_gpu(args), leg, work)
        release()
    return trained


def _train_leg(make: Callable[..., "Policy"], args: GRPOConfig, leg: Leg, work: "Work") -> Trained:
    """Train to the end of a leg by a trainer of its own, which nothing holds any more when this returns.

    The next one has an optimiser and a reference of its own, and takes up both from the checkpoint.
    """
    trainer = make(args=args)
    settings = trainer.settings
    if settings.refresh_every is not None:
        trainer.add_callback(lora.refresher(settings.refresh_every))
    trainer.guard(settings, work)
    callback = WorkCallback(
        work,
        trainer.row,
        boundary=boundary_of(args),
        keep=trainer.keep,
        until=leg.end,
        guard=trainer.collapse_guard,
    )
    whole = run(trainer, callback)
    trained = Trained(callback.headline, int(trainer.state.num_input_tokens_seen), whole)
    trainer.accelerator.free_memory()  # it holds the optimiser as well
    return trained


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
    return int(args.steps_per_generation * args.num_iterations)


class Policy(Rolling):
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
        self.exact = self._is_exact(engine)
        self.sampling = Sampling(
            max_new_tokens=args.max_completion_length,
            temperature=args.temperature,
            top_p=args.top_p,
            top_k=args.top_k,
            logprobs=not self.exact or boundary_of(args) > 1,
        )
        # TRL asks for the old policy where steps share a rollout, and before it asks for the reference.
        self.old_is_sampled = self.exact and self.sampling.logprobs
        self.rows: list[int] = []  # the prompt of each completion of the present generation
        self.spent: dict[str, float] = defaultdict(float)  # seconds since the last metrics row
        self.tokens = 0  # completion tokens since then
        self._present: Micro = {}  # what the loss is being computed of
        self.collapse_guard: CollapseGuard | None = None
        self.last = Rolled([], [], [])  # the last generation
        self.rollbacks = 0
        self.undecided_alarm = UndecidedAlarm(ALARM_EVERY)

    def _is_exact(self, engine: Engine) -> bool:
        """Whether the engine computes as the trainer does, which under autocast it does not."""
        return engine.exact and self.whole_distribution and self.accelerator.mixed_precision == "no"

    @property
    def whole_distribution(self) -> bool:
        """Whether completions are drawn without top_p and top_k, which training knows nothing of."""
        return bool(self.args.top_p == 1 and self.args.top_k == 0)

    def guard(self, settings: Settings, work: "Work") -> None:
        """Prove the first step and guard the training, as the settings say, and tell of it."""
        self.say = work.say
        self.rollbacks = rollbacks(work.dir)
        if settings.guard is not None and settings.guard.on and not work.rank:
            guard = settings.guard
            if not self.whole_distribution:
                # What was drawn from is not what is trained, by the mass that top_p and top_k cut off.
                guard = guard.model_copy(update={"mismatch": 0.0})
            self.collapse_guard = CollapseGuard(guard, work, self.evidence)
        if settings.guard is not None and settings.guard.proofs:
            if getattr(self, "ref_model", None) is not None:
                same_vocabulary(self.model, self.accelerator.unwrap_model(self.ref_model))
            self.first_step = FirstStep(
                exact=self.exact,
                say=work.say,
                turn=settings.turn,
                whole_distribution=self.whole_distribution,
                eos_learnt=self.top_entropy_quantile == 1 and self.off_policy_mask_threshold is None,
                clip=min(self.epsilon_low, self.epsilon_high),
                by_sequence=self.importance_sampling_level == "sequence",
            )

    def _require_finite(self, name: str, value: float) -> None:
        if self.collapse_guard is not None and not math.isfinite(value):
            self.collapse_guard.see(
                {"step": self.state.global_step + 1, name.replace("gradient ", "grad_"): value}
            )
        super()._require_finite(name, value)

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
            "rollbacks": self.rollbacks or None,
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
    "surprise",
    "repetition",
    "empty_thinking",
    "groups_without_spread",
    "groups_replaced",
    "groups_left_flat",
    "undecided",
    "probe",
    "mismatch",
    "mismatch_ratio",
    "mismatch_ratio_max",
    "mismatch_cut",
)
"""Columns that carry the names they are logged by."""


def _dataset(prompts: Sequence[Prompt], per_generation: int) -> Dataset:
    """The prompts in order, and the first ones again to fill the last generation, which TRL would drop."""
    rows = [i % len(prompts) for i in range(math.ceil(len(prompts) / per_generation) * per_generation)]
    return Dataset.from_dict({"prompt": [prompts[row].text for row in rows], "row": rows})


def _rollouts(prompts: Sequence[str], trainer: Policy) -> Micro:
    return trainer.rollouts()


def _reward(name: str) -> Callable[..., list[float | None]]:
    """The reward function TRL calls, which reads one named reward off judgements already made."""

    def reward(judgement: Sequence[Judgement], **_: Any) -> list[float | None]:
        return [one.rewards[name] for one in judgement]

    reward.__name__ = name  # TRL names its metrics after the function
    return reward
