"""Reinforcement learning by GRPO, with rewards from rules and from a preference model."""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal

from pydantic import Field, model_validator

from r1pipe import jsonl
from r1pipe.errors import UsageError
from r1pipe.measure.language import Language
from r1pipe.prompting import Template, opens_thinking, parse
from r1pipe.rewards import (
    AskedItem,
    LanguageWhen,
    Reward,
    RewardInput,
    RewardName,
    check_rewards,
    give,
    make_rewards,
)
from r1pipe.rollout import Rollout
from r1pipe.rollout.asking import ask
from r1pipe.stage import NEUTRAL, CheckpointRef, Inputs, Outcome, StageConfig, Work
from r1pipe.tasks import Item, Task, TaskSpecs, mixture
from r1pipe.tasks.base import judge_all
from r1pipe.train.determinism import derive_seed, epochs_of
from r1pipe.train.text import decode_completions
from r1pipe.verify.alarm import Alarm
from r1pipe.verify.verdict import Completion

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from r1pipe.train.grpo import Judgement, Prompt

VERSION = 4
SUMMARY = "Train a policy by GRPO on tasks whose answers a program can judge."

_TRL_NAMES: Final = {
    "num_generations": "group_size",
    "gradient_accumulation_steps": "prompts_per_step",
    "per_device_train_batch_size": "micro_batch",
    "max_steps": "steps",
    "learning_rate": "learning_rate",
    "beta": "kl",
    "loss_type": "loss_type",
    "scale_rewards": "scale_rewards",
    "temperature": "temperature",
    "max_completion_length": "max_new_tokens",
    "reward_weights": "rewards",
    "save_steps": "save_every",
    "logging_steps": "log_every",
}
"""GRPOConfig's options that the stage's own fields set."""

ALARM_EVERY: Final = 50
"""Generations after which it is said again that too many verdicts are undecided."""


class Config(StageConfig):
    """What the `rl` stage reads from a recipe. One optimiser step learns from one fresh rollout."""

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
    group_size: int = Field(default=8, ge=2)
    """Completions per prompt; a completion's advantage is measured against its group."""
    prompts_per_step: int = Field(default=32, ge=1)
    """Prompts per optimiser step. `prompts_per_step` x `group_size` completions are generated for it."""
    steps: int = Field(default=100, ge=1)
    """Optimiser steps."""
    learning_rate: float = Field(default=1e-6, gt=0)
    """AdamW's, constant unless `trainer.lr_scheduler_type` says otherwise. No setting matters more."""
    kl: float = Field(default=0.0, ge=0)
    """Weight of the KL term against the reference model; 0 loads no reference. The paper: 0.001."""
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"] = "dapo"
    """How token losses add up: `grpo` averages each completion first, `dapo` all tokens of the step alike."""
    scale_rewards: Literal["none", "group", "batch"] = "none"
    """What advantages are divided by: nothing, the spread of the group (the paper), or that of the batch."""
    temperature: float = Field(default=1.0, gt=0)
    """Of the rollouts. Advantages are right for 1.0, the policy's own distribution."""
    max_new_tokens: int = Field(default=512, ge=1)
    """A completion that reaches this many tokens is cut off and counts as truncated."""
    micro_batch: int = Field(default=16, ge=1)
    """Completions per forward and backward pass: less needs less memory and gives the same step."""
    save_every: Annotated[int, Field(ge=1), NEUTRAL] = 10
    """Steps between checkpoints that a stopped stage goes on from."""
    log_every: Annotated[int, Field(ge=1), NEUTRAL] = 1
    """Steps between rows of metrics."""
    trainer: dict[str, Any] = Field(default={})
    """Further options of TRL's GRPOConfig, by their names there."""

    @model_validator(mode="after")
    def _batches_divide(self) -> "Config":
        completions = self.prompts_per_step * self.group_size
        if completions % self.micro_batch:
            raise ValueError(
                f"prompts_per_step x group_size = {completions} completions cannot be cut into micro-batches "
                f"of micro_batch = {self.micro_batch}; choose a divisor of {completions}"
            )
        return self

    @model_validator(mode="after")
    def _rewards_are_whole(self) -> "Config":
        if self.overlong_buffer is not None and self.overlong_buffer >= self.max_new_tokens:
            raise ValueError(
                f"overlong_buffer = {self.overlong_buffer} must be less than max_new_tokens = "
                f"{self.max_new_tokens}; else every completion is punished"
            )
        if "preference" in self.rewards and self.preference_model is None:
            raise ValueError("the reward `preference` needs `preference_model`: a sequence classifier")
        if "preference" not in self.rewards and self.preference_model is not None:
            raise ValueError(
                "`preference_model` has no use without the reward `preference`; give it a weight in `rewards`"
            )
        return self


def check(config: Config) -> list[str]:
    """Say what is wrong with the options passed through to the trainer."""
    if not config.trainer:
        return []
    from trl import GRPOConfig

    from r1pipe.train.options import problems

    return problems(GRPOConfig, config.trainer, _TRL_NAMES, _options(config))


def run(config: Config, inputs: Inputs, work: Work) -> Outcome:
    """Train the policy; publish it, with what it was asked and what was set aside."""
    from r1pipe.rollout.local import TransformersEngine
    from r1pipe.train import grpo, models

    model, tokenizer = models.open_model(inputs.one("model").path)
    rewards = _rewards(config, inputs, model)
    # An order of its own: traces of the problems that come first here would make of a later RL a repetition.
    seed = derive_seed(work.seed, "rl")
    asked = Asked(config, tokenizer, seed=seed, context=models.context_of(model))
    if asked.set_aside:
        work.say(f"Set aside as broken or too long for the context: {len(asked.set_aside)} of the prompts.")
    weights = {str(name): weight for name, weight in config.rewards.items()}
    for checked in check_rewards(asked.tried(), rewards, weights, config.language):
        work.say(checked.sentence)
    trained = grpo.train(
        model,
        tokenizer,
        asked.prompts,
        Judge(asked.items, tokenizer, rewards, work.say),
        weights,
        TransformersEngine(model, eos_id=tokenizer.eos_token_id, pad_id=tokenizer.pad_token_id),
        _options(config),
        work,
    )
    folder = models.publish(model, tokenizer, work.dir / "published")
    models.publish_set_aside(folder, list(asked.set_aside.values()))
    jsonl.write_rows(folder / "prompts.jsonl", asked.rows())
    metrics = {**trained.metrics, "set_aside": len(asked.set_aside)}
    return Outcome("checkpoint", folder, metrics, tokens=trained.tokens)


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
        max_new_tokens=config.max_new_tokens,
        overlong_buffer=config.overlong_buffer,
        repetition_ngram=config.repetition_ngram,
        scorer=scorer,
    )


def _options(config: Config) -> dict[str, Any]:
    """The stage's fields as GRPOConfig calls them, and the recipe's `trainer:` section."""
    own = config.model_dump(include=set(_TRL_NAMES.values()))
    options = {name: own[field] for name, field in _TRL_NAMES.items() if name != "reward_weights"}
    completions = config.prompts_per_step * config.group_size
    options["gradient_accumulation_steps"] = completions // config.micro_batch
    return options | config.trainer


class Asked:
    """The prompts of a whole training in the order they are asked, and what each was made from."""

    def __init__(
        self, config: Config, tokenizer: "PreTrainedTokenizerBase", *, seed: int, context: int
    ) -> None:
        """Render and tokenise `steps` x `prompts_per_step` prompts.

        One that leaves no room for `max_new_tokens` within the model's `context` is set aside; the others are
        then asked again in its place. Raises `UsageError` when none is left.
        """
        from r1pipe.train.grpo import Prompt

        room = context - config.max_new_tokens
        needed = config.steps * config.prompts_per_step
        asked = ask(mixture(config.task, needed, seed), config.template, tokenizer, room)
        fitting = asked.questions
        # A prompt that comes several times is one that is set aside; a broken row has no id, but a place.
        self.set_aside = {
            row["id"] if "id" in row else f"{row['path']}:{row['line']}": row for row in asked.set_aside
        }
        if not fitting:
            raise UsageError(
                f"All {len(self.set_aside)} prompts are too long: a context of {context} tokens less "
                f"max_new_tokens = {config.max_new_tokens} leaves {room} for them. "
                "Set `max_new_tokens` lower, or start from a model with a longer context."
            )
        again = islice(epochs_of(len(fitting), seed), needed - len(fitting))
        questions = [fitting[i] for i in (*range(len(fitting)), *again)]
        self.items = [(question.task, question.item) for question in questions]
        self.prompts = [Prompt(row, each.prompt, each.token_ids) for row, each in enumerate(questions)]

    def tried(self) -> list[AskedItem]:
        """All items, as the check of the rewards wants them."""
        return [
            AskedItem(task, item, opens_thinking(prompt.text))
            for (task, item), prompt in zip(self.items, self.prompts, strict=True)
        ]

    def rows(self) -> list[dict[str, str]]:
        """What the policy was asked, in order, so that anybody can look for a problem in it."""
        return [{"task": task.name, "id": item.id, "question": item.question} for task, item in self.items]


class Judge:
    """Gives each completion one verdict, and every named reward from it."""

    def __init__(
        self,
        items: Sequence[tuple[Task, Item]],
        tokenizer: "PreTrainedTokenizerBase",
        rewards: Mapping[str, Reward],
        say: Callable[[str], None],
    ) -> None:
        """`say` is told when too many verdicts are undecided."""
        self.items = items
        self.tokenizer = tokenizer
        self.rewards = rewards
        self.say = say
        self.alarm = Alarm(ALARM_EVERY)

    def __call__(self, batch: "Sequence[tuple[Prompt, Rollout]]") -> "list[Judgement]":
        """Judge a generation batch, in order; raises `RunFailed` with the item that could not be."""
        from r1pipe.train.grpo import Judgement

        given = self._judged(batch)
        if said := self.alarm.hear([each.verdict for each in given]):
            self.say(said)
        return [
            Judgement(rewards, each.verdict.passed if each.verdict.decided else None)
            for each, rewards in zip(given, give(self.rewards, given), strict=True)
        ]

    def _judged(self, batch: "Sequence[tuple[Prompt, Rollout]]") -> list[RewardInput]:
        texts = decode_completions(self.tokenizer, [rollout.token_ids for _, rollout in batch])
        asked = [self.items[prompt.row] for prompt, _ in batch]
        completions = [
            Completion(text, opens_thinking(prompt.text), rollout.finish == "length", len(rollout.token_ids))
            for (prompt, rollout), text in zip(batch, texts, strict=True)
        ]
        verdicts = judge_all([(*pair, each) for pair, each in zip(asked, completions, strict=True)])
        return [
            RewardInput(item, each, parse(each.text, each.opened), verdict)
            for (_, item), each, verdict in zip(asked, completions, verdicts, strict=True)
        ]
