"""Reinforcement learning by GRPO, with rewards from rules and from a preference model."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from r1pipe import jsonl, machine, parallel
from r1pipe.batches import BatchPlan
from r1pipe.measure.language import Language
from r1pipe.parallel import ParallelConfig
from r1pipe.prompting import Template
from r1pipe.rewards import LanguageWhen, Reward, RewardName, check_rewards, make_rewards
from r1pipe.rollout import Correction, Engine, Sampling, choose
from r1pipe.rollout.pass_rates import PassRate
from r1pipe.rollout.specs import AnyEngine, AutoSpec, untrainable
from r1pipe.stage import NEUTRAL, CheckpointRef, Findings, Inputs, Outcome, Work
from r1pipe.tasks import TaskSpecs
from r1pipe.train import lora
from r1pipe.train.determinism import derive_seed
from r1pipe.train.guard import GuardConfig
from r1pipe.train.lora import Lora
from r1pipe.train.schedule import Steps, legs, steps_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from r1pipe.train.grpo import Prompt, Settings
    from r1pipe.train.prompts import TrainingPrompts

VERSION = 4
SUMMARY = "Train a policy by GRPO on tasks whose answers a program can judge."

_TRL_NAMES: Final = {
    "num_generations": "group_size",
    "per_device_train_batch_size": "prompts_per_step",
    "gradient_accumulation_steps": "micro_batch",
    "steps_per_generation": "minibatches",
    "generation_batch_size": "minibatches",
    "max_steps": "steps",
    "learning_rate": "learning_rate",
    "beta": "kl",
    "sync_ref_model": "reference_every",
    "ref_model_sync_steps": "reference_every",
    "loss_type": "loss_type",
    "epsilon": "clip",
    "epsilon_high": "clip_high",
    "importance_sampling_level": "ratio",
    "scale_rewards": "scale_rewards",
    "temperature": "temperature",
    "max_completion_length": "max_new_tokens",
    "mask_truncated_completions": "truncated",
    "reward_weights": "rewards",
    "vllm_importance_sampling_correction": "mismatch",
    "vllm_importance_sampling_mode": "mismatch",
    "vllm_importance_sampling_clip_max": "mismatch_bound",
    "vllm_importance_sampling_cap": "mismatch_bound",
    "vllm_gpu_memory_utilization": "engine.memory",
    "vllm_tensor_parallel_size": "engine.tensor_parallel",
    "vllm_enable_sleep_mode": "engine.sleep",
    "vllm_max_model_length": "max_new_tokens",
    "vllm_server_base_url": "engine.url",
    "vllm_server_timeout": "engine.timeout",
    "save_steps": "save_every",
    "logging_steps": "log_every",
}
"""GRPOConfig's options that the stage's own fields set."""

PRESETS: Final[dict[str, dict[str, Any]]] = {
    "paper": {
        "group_size": 16,
        "prompts_per_step": 32,
        "minibatches": 16,
        "learning_rate": 3e-6,
        "kl": 0.001,
        "reference_every": 400,
        "loss_type": "grpo",
        "scale_rewards": "group",
        "clip": 10.0,
        "temperature": 1.0,
        "max_new_tokens": 32768,
        "micro_batch": 64,
        "micro_tokens": 65536,
    }
}
"""Values that a preset puts in place of the defaults. `paper`: DeepSeek-R1 (2501.12948v2), Methods: 32
questions x 16 a step, 8,192 completions a rollout in 16 minibatches, one pass over each; its clip of 10 is
that of the first RL stage of R1, R1-Zero's is not told."""


class Config(ParallelConfig):
    """What the `rl` stage reads from a recipe. `minibatches` optimiser steps learn from one fresh rollout."""

    makes: ClassVar = "checkpoint"

    model: CheckpointRef
    """The policy to start from."""
    task: TaskSpecs
    """What is asked: one task, or several mixed by their weights."""
    template: Template = "r1-zero"
    """How a question becomes a prompt: `r1-zero` (the paper's, for a base), `chat` or `plain`."""
    rewards: dict[RewardName, float] = Field(default={"accuracy": 1.0, "format": 0.1}, min_length=1)
    """The named rewards and the weight of each in the sum. `accuracy`, `format`, `language` and `preference`
    are from 0 to 1, `overlong` and `repetition` from -1 to 0."""
    language: Language = "en"
    """The language that the reward `language` asks the thinking to keep to."""
    language_when: LanguageWhen = "correct"
    """Whether the reward `language` is for right answers only (`correct`) or for all (`always`, as in R1)."""
    overlong_buffer: int | None = Field(default=None, ge=1)
    """Tokens before `max_new_tokens` over which the reward `overlong` falls from 0 to -1; a quarter of
    `max_new_tokens` when it is not set."""
    repetition_ngram: int = Field(default=4, ge=1)
    """Words in a row that the reward `repetition` compares."""
    preference_model: CheckpointRef | None = None
    """The sequence classifier with one label that the reward `preference` asks; only with that reward."""
    preference_batch: int = Field(default=16, ge=1)
    """Answers that the preference model scores at once: less needs less memory."""
    preference_max_tokens: int = Field(default=2048, ge=1)
    """Tokens of question and answer that the preference model reads; what is longer is cut at its end."""
    preset: Literal["paper"] | None = None
    """`paper` sets what the paper tells of its RL in place of the defaults here; what is written beside it
    counts."""
    engine: AnyEngine = AutoSpec()
    """Who generates: `auto`, `transformers`, `vllm` or `vllm-server`."""
    group_size: int = Field(default=8, ge=2)
    """Completions per prompt; a completion's advantage is measured against its group."""
    prompts_per_step: int = Field(default=32, ge=1)
    """Prompts per optimiser step, which learns from `prompts_per_step` x `group_size` completions; of all
    processes together."""
    minibatches: int = Field(default=1, ge=1)
    """Optimiser steps that share a rollout. Its prompts are generated at once, `minibatches` x
    `prompts_per_step` of them, and cut into as many steps; after the first of them the policy is no longer
    the one that wrote."""
    steps: int = Field(default=100, ge=1)
    """Optimiser steps."""
    learning_rate: float = Field(default=1e-6, gt=0)
    """AdamW's, constant unless `trainer.lr_scheduler_type` says otherwise. No setting matters more."""
    kl: float = Field(default=0.0, ge=0)
    """Weight of the KL term against the reference model; 0 loads no reference. The paper: 0.001."""
    reference_every: int | None = Field(default=None, ge=1)
    """Steps after which the reference becomes the policy of that moment; never when it is not set. The paper:
    400."""
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"] = "dapo"
    """How token losses add up: `grpo` averages each completion first, `dapo` all tokens of the step alike."""
    ratio: Literal["token", "sequence"] = "token"
    """Whether new and old policy are compared token by token, or once for a completion (GSPO)."""
    clip: float = Field(default=0.2, ge=0)
    """How far the ratio of new to old policy may leave 1 before a token pulls no more."""
    clip_high: float | None = Field(default=None, gt=0)
    """The bound above 1, where it is another than `clip` (DAPO's clip-higher: 0.28). With `cispo` it is the
    largest ratio itself (ScaleRL: 5)."""
    scale_rewards: Literal["none", "group", "batch"] = "none"
    """What advantages are divided by: nothing, the spread of the group (the paper), or that of the batch."""
    dynamic_sampling: int = Field(default=0, ge=0)
    """How often, before a step, groups whose rewards are all alike give way to groups of other prompts."""
    pass_rate: PassRate | None = None
    """Ask only prompts that the policy solves sometimes; measured before training."""
    temperature: PositiveFloat | Steps[PositiveFloat] = 1.0
    """Of the rollouts. Advantages are right for 1.0, the policy's own distribution. By steps:
    `{0: 1.0, 8192: 0.7}`."""
    max_new_tokens: PositiveInt | Steps[PositiveInt] = 512
    """A completion that reaches this many tokens is cut off and counts as truncated. By steps:
    `{0: 32768, 8192: 65536}`."""
    truncated: Literal["keep", "mask"] = "keep"
    """Whether completions that were cut off are learned from, by the rewards they got (`keep`), or left out
    of the loss (`mask`)."""
    mismatch: Correction = "token_truncate"
    """How each token's loss is weighted where the engine is not exactly the trainer: by the ratio of the two,
    cut off at `mismatch_bound` or left out beyond it (`_mask`); of tokens, or of whole sequences."""
    mismatch_bound: float = Field(default=2.0, ge=1)
    """The largest ratio of trainer to engine that counts in full."""
    micro_batch: int = Field(default=16, ge=1)
    """Most completions per forward and backward pass of a process: less needs less memory and gives the same
    step."""
    micro_tokens: int | None = Field(default=None, ge=1)
    """Most tokens per pass, prompts and padding included. Memory goes by tokens: with this set, `micro_batch`
    may be large."""
    lora: Lora | None = None
    """Train adapters in place of the weights, e.g. `{r: 16}`: a fraction of the memory. The published policy
    has them merged, and they lie beside it in `adapter/`."""
    save_every: Annotated[int, Field(ge=1), NEUTRAL] = 10
    """Steps between checkpoints that a stopped stage goes on from."""
    log_every: Annotated[int, Field(ge=1), NEUTRAL] = 1
    """Steps between rows of metrics; a checkpoint has one too, and Ctrl-C waits for one."""
    guard: Annotated[GuardConfig, NEUTRAL] = GuardConfig()
    """When a policy that comes apart is stopped, and whether the first step is proved."""
    trainer: dict[str, Any] = Field(default={})
    """Further options of TRL's GRPOConfig, by their names there."""

    @property
    def longest(self) -> int:
        """The most tokens that a completion ever has."""
        return max(steps_of(self.max_new_tokens).values())

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, given: Any) -> Any:
        """Put a preset's values where none is written; an unknown one is told of by its field."""
        preset = given.get("preset") if isinstance(given, dict) else None
        return PRESETS.get(preset, {}) | given if isinstance(preset, str) else given

    @model_validator(mode="after")
    def _loss_is_whole(self) -> "Config":
        if self.loss_type == "cispo" and (self.clip_high is None or self.clip_high < 1):
            raise ValueError(
                "loss_type cispo bounds the ratio itself by clip_high, which has to be 1 or more; "
                "set clip_high: 5 (ScaleRL's)"
            )
        if self.loss_type == "luspo" and self.ratio != "sequence":
            raise ValueError("loss_type luspo has one ratio for a whole completion; set ratio: sequence")
        if self.loss_type == "vespo" and self.mismatch.startswith("sequence"):
            raise ValueError(
                "loss_type vespo makes one ratio for a whole completion of those of its tokens; "
                "set mismatch: token_truncate or token_mask"
            )
        if self.reference_every is not None and self.kl == 0:
            raise ValueError(
                f"reference_every = {self.reference_every} has no use with kl: 0, which has no reference; "
                "set kl, e.g. 0.001, or reference_every: null"
            )
        return self

    @model_validator(mode="after")
    def _batches_divide(self) -> "Config":
        batches(self)  # raises where it does not divide
        for leg in legs(self.steps, steps_of(self.temperature), steps_of(self.max_new_tokens)):
            if leg.end < self.steps and leg.end % self.minibatches:
                raise ValueError(
                    f"a schedule changes at step {leg.end}, in the middle of a rollout of {self.minibatches} "
                    f"minibatches; let it change at a multiple of {self.minibatches}"
                )
        return self

    @model_validator(mode="after")
    def _samples_where_it_trains(self) -> "Config":
        if self.parallel == "zero3":
            raise ValueError(
                "parallel: zero3 is for sft and distill: a policy that samples needs its weights whole, and "
                "DeepSpeed's stage 3 gathers them layer by layer; set parallel: fsdp2"
            )
        if said := untrainable(self.engine):
            raise ValueError(said)
        if refused := lora.unshardable(self.lora, self.parallel):
            raise ValueError(refused)
        if self.parallel != "ddp" and self.reference_every is not None:
            raise ValueError(
                f"parallel = {self.parallel} does not go with reference_every: a reference that moves is "
                "kept whole by every process; set parallel: ddp"
            )
        return self

    @model_validator(mode="after")
    def _rewards_are_whole(self) -> "Config":
        least = min(steps_of(self.max_new_tokens).values())
        if self.overlong_buffer is not None and self.overlong_buffer >= least:
            raise ValueError(
                f"overlong_buffer = {self.overlong_buffer} must be less than max_new_tokens = "
                f"{least}; else every completion is punished"
            )
        if "overlong" in self.rewards and len(steps_of(self.max_new_tokens)) > 1:
            raise ValueError(
                "the reward `overlong` punishes what comes near one limit, and max_new_tokens has several; "
                "leave out the reward, or the schedule"
            )
        if "preference" in self.rewards and self.preference_model is None:
            raise ValueError("the reward `preference` needs `preference_model`: a sequence classifier")
        if "preference" not in self.rewards and self.preference_model is not None:
            raise ValueError(
                "`preference_model` has no use without the reward `preference`; give it a weight in `rewards`"
            )
        return self


def batches(config: Config) -> BatchPlan:
    """How the completions of a step and of a rollout are cut."""
    return BatchPlan.of_rollouts(
        config.prompts_per_step,
        config.group_size,
        config.micro_batch,
        minibatches=config.minibatches,
        processes=config.processes,
        tokens=config.longest,
    )


def check(config: Config) -> Findings:
    """Find what this machine lacks, and what is wrong with the options passed through to the trainer."""
    here = config.processes // config.nodes
    lacking = parallel.lacking(config.parallel, here) + lora.lacking(config.lora)
    found = Findings(lacking=lacking)
    found += choose.check_engine(config.engine, steps_of(config.temperature).values())
    if not config.trainer:
        return found
    from trl import GRPOConfig

    from r1pipe.train.options import check_trainer

    return found + check_trainer(GRPOConfig, config.trainer, _TRL_NAMES, _options(config))


@machine.full_memory_explained(
    "Set `micro_batch` lower, which gives the same step, or bound a pass by `micro_tokens`; where sampling "
    "needs the memory, set `max_new_tokens` lower, or with vLLM `engine.memory`; or train adapters, as by "
    "`lora: {r: 16}`."
)
def run(config: Config, inputs: Inputs, work: Work) -> Outcome:
    """Train the policy; publish it, with what it was asked and what was set aside."""
    from r1pipe.train import grpo, judging, launching, models, prompts

    if config.spread and work.rank is None:
        return launching.on_processes(config, inputs, work)
    folder = inputs.one("model").path
    model, tokenizer = lora.open_policy(folder, config.lora, work)
    rewards = _rewards(config, inputs, model)
    weights = {str(name): weight for name, weight in config.rewards.items()}
    asked = _prompts(config, model, tokenizer, work)
    for checked in check_rewards(asked.tried(), rewards, weights, config.language):
        work.say(checked.sentence)
    turn = _proved(config, model, tokenizer, asked.prompts, work) if config.guard.proofs else None
    rates = None
    with closing(_engine(config, folder, model, tokenizer, asked.longest, work)) as engine:
        if config.pass_rate is not None:
            models.place(model)
            rates = prompts.measure_pass_rates(
                config.pass_rate,
                asked.questions,
                engine,
                tokenizer,
                _first_sampling(config),
                work,
                batch=batches(config).completions_per_step,
            )
            asked.leave_out(rates, work.say)
        asked.fill()
        trained = grpo.train(
            model,
            tokenizer,
            asked.prompts,
            judging.RewardJudge(asked.items, tokenizer, rewards),
            weights,
            engine,
            _options(config),
            work,
            _settings(config, turn, waits=any(task.waits for task, _ in asked.items)),
        )
    if work.rank:
        return Outcome("checkpoint", work.dir)  # the first process publishes
    published = lora.publish_policy(model, tokenizer, work.dir / "published", trained.weights)
    models.publish_set_aside(published, list(asked.set_aside.values()))
    jsonl.write_rows(published / "prompts.jsonl", asked.rows())
    if rates is not None:
        jsonl.write_rows(published / "pass-rates.jsonl", rates.rows())
    metrics = {**trained.metrics, "set_aside": len(asked.set_aside), **asked.left_out}
    return Outcome("checkpoint", published, metrics, tokens=trained.tokens)


def _prompts(
    config: Config, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", work: Work
) -> "TrainingPrompts":
    """What is asked; how it is cut into steps, and how much is set aside, is told to the user."""
    from r1pipe.train import models, prompts

    asked = prompts.TrainingPrompts(
        config.task,
        config.template,
        tokenizer,
        count=config.steps * config.prompts_per_step,
        # An order of its own: traces of the problems that come first here would make of a later RL a
        # repetition.
        seed=derive_seed(work.seed, "rl"),
        context=models.context_of(model),
        longest=config.longest,
    )
    work.say(batches(config).sentence)
    if asked.set_aside:
        work.say(f"Set aside as broken or too long for the context: {len(asked.set_aside)} of the prompts.")
    return asked


def _engine(
    config: Config,
    folder: Path,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    longest_prompt: int,
    work: Work,
) -> Engine:
    """Who generates, told to the user."""
    engine, said = choose.open_engine(
        config.engine,
        folder,
        eos_id=tokenizer.eos_token_id,
        pad_id=tokenizer.pad_token_id,
        context=longest_prompt + config.longest,
        model=model,
    )
    work.say(said)
    return engine


def _first_sampling(config: Config) -> Sampling:
    """How the first rollout is drawn."""
    return Sampling(steps_of(config.max_new_tokens)[0], temperature=steps_of(config.temperature)[0])


def _rewards(config: Config, inputs: Inputs, policy: "PreTrainedModel") -> dict[str, Reward]:
    """The rewards that the recipe names, the preference model opened if one of them asks it."""
    scorer = None
    if config.preference_model is not None:
        from r1pipe.train.preference import PreferenceModel

        scorer = PreferenceModel(
            inputs.one("preference_model").path,
            batch=config.preference_batch,
            max_tokens=config.preference_max_tokens,
            device=lambda: policy.device,
        )
    return make_rewards(
        config.rewards,
        language=config.language,
        language_when=config.language_when,
        max_new_tokens=config.longest,
        overlong_buffer=config.overlong_buffer,
        repetition_ngram=config.repetition_ngram,
        scorer=scorer,
    )


def _options(config: Config) -> dict[str, Any]:
    """The stage's fields as GRPOConfig calls them, and the recipe's `trainer:` section."""
    own = {
        **batches(config).trainer_options,
        "max_steps": config.steps,
        "learning_rate": config.learning_rate,
        "beta": config.kl,
        # The paper's KL is plain; TRL's default weights it by the ratio, as DeepSeek-V3.2 does.
        "use_bias_correction_kl": False,
        "loss_type": config.loss_type,
        "epsilon": config.clip,
        "epsilon_high": config.clip_high,
        "importance_sampling_level": config.ratio,
        "scale_rewards": config.scale_rewards,
        "temperature": steps_of(config.temperature)[0],
        "max_completion_length": config.longest,
        "mask_truncated_completions": config.truncated == "mask",
        "save_steps": config.save_every,
        "logging_steps": config.log_every,
    }
    if config.reference_every is not None and config.lora is None:
        own |= {
            "sync_ref_model": True,
            "ref_model_sync_steps": config.reference_every,
            "ref_model_mixup_alpha": 1.0,
        }
    return own | config.trainer


def _proved(
    config: Config,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: "Sequence[Prompt]",
    work: Work,
) -> int | None:
    """Prove the prompts and the stop tokens; the template's end of turn where completions end in another."""
    from r1pipe.train.proofs import prove_setup

    return prove_setup(
        model,
        tokenizer,
        prompts,
        template=config.template,
        max_new_tokens=config.longest,
        ends={tokenizer.eos_token_id},
        say=work.say,
    )


def _settings(config: Config, turn: int | None, *, waits: bool) -> "Settings":
    """What is added to TRL's options; `waits` says whether judging waits for other processes."""
    from r1pipe.train.grpo import Settings
    from r1pipe.train.micro_batches import Bounds

    return Settings(
        bounds=Bounds(config.micro_batch, config.micro_tokens),
        dynamic_sampling=config.dynamic_sampling,
        mismatch=config.mismatch,
        mismatch_bound=config.mismatch_bound,
        temperatures=steps_of(config.temperature),
        lengths=steps_of(config.max_new_tokens),
        refresh_every=config.reference_every if config.lora is not None else None,
        # A preference model's score depends on what shares a batch, which overlapping would leave to chance.
        overlap=waits and "preference" not in config.rewards,
        guard=config.guard,
        turn=turn,
    )
