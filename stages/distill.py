"""Distillation as the paper does it: a student is fine-tuned on a teacher's verified traces (section 2.4).

With `on_policy` a student, best one that has learned the traces, answers their prompts itself instead and
learns the teacher's probabilities.
"""

import math
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

from r1pipe import jsonl, machine
from r1pipe.checkpoint import parameters
from r1pipe.errors import UsageError
from r1pipe.stage import CheckpointRef, Findings, Inputs, Outcome, Work
from r1pipe.train import lora, stopping, supervised
from r1pipe.train.determinism import derive_seed, epochs_of
from r1pipe.train.rope import Rope
from r1pipe.train.supervised import TRL_NAMES, SupervisedConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VERSION = 2
SUMMARY = "Train a student on a teacher's verified traces."

PAPER: Final = (
    ("Qwen2.5-Math-1.5B", "qwen", 1.54e9, 1e-4),
    ("Qwen2.5-Math-7B", "qwen", 7.62e9, 8e-5),
    ("Qwen2.5-14B", "qwen", 14.8e9, 7e-5),
    ("Qwen2.5-32B", "qwen", 32.8e9, 6e-5),
    ("Llama-3.1-8B", "llama", 8.03e9, 5e-5),
    ("Llama-3.3-70B", "llama", 70.6e9, 2e-5),
)
"""The paper's six students (supplement): name, family, parameters, learning rate."""
OTHER_FAMILY: Final = math.log(1.5)
"""A student of another family counts as half as far again in size: an 8B Qwen takes the 7B Qwen's rate."""
ON_POLICY_RATE: Final = 1e-6
"""TRL's own, of its DistillationTrainer."""
LORA_RATE: Final = 2e-4
"""Of adapters, which the paper has not: they take several times the rate of whole weights."""


class OnPolicy(BaseModel):
    """How a student learns from a teacher what to make of its own answers, by TRL's DistillationTrainer."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    teacher: CheckpointRef
    """Whose probabilities are learned, token by token; its vocabulary has to be the student's."""
    steps: int = Field(default=100, ge=1)
    """Optimiser steps, each on `batch_size` answers. `epochs` has no part in it."""
    max_new_tokens: int = Field(default=512, ge=1)
    """An answer ends there at the latest."""
    temperature: float = Field(default=1.0, gt=0)
    """Of the answers, and of both models' probabilities."""
    beta: float = Field(default=1.0, ge=0, le=1)
    """What is made small: the reverse KL divergence (1), the forward one (0), or one in between."""


class Config(SupervisedConfig):
    """What the `distill` stage reads from a recipe: `model` is the student, `data` the teacher's traces."""

    epochs: float = Field(default=3.0, gt=0)
    """Passes over the traces; the paper takes two to three."""
    learning_rate: float | None = Field(default=None, gt=0)
    """AdamW's highest. When it is not set, that of the paper's student that is nearest in size: from 1e-4 at
    1.5B parameters to 2e-5 at 70B; 2e-4 with `lora`, 1e-6 with `on_policy`."""
    batch_size: int = Field(default=64, ge=1)
    """Rows per optimiser step, the paper's."""
    rope: Rope | None = None
    """For a student whose context is shorter than the traces: `{factor: 8, theta: 300000}` makes 32,768
    tokens of 4,096; the published config.json says so."""
    on_policy: OnPolicy | None = None
    """Have the student answer the prompts of `data` itself, and learn a teacher's probabilities of its
    answers: `{teacher: r1}`. The completions of `data` are then not learned from."""

    @model_validator(mode="after")
    def _on_policy_is_whole(self) -> "Config":
        if self.on_policy is None:
            return self
        if self.spread:
            raise ValueError("on_policy runs on one process; set processes: 1")
        if self.rope is not None:
            raise ValueError("rope is for learning from traces; stretch the student in a stage before")
        if "epochs" in self.model_fields_set:
            raise ValueError("on_policy counts steps; set on_policy.steps in place of epochs")
        return self


batches = supervised.batches


def check(config: Config) -> Findings:
    """Find what this machine lacks, and what is wrong with the options passed through to the trainer."""
    if config.on_policy is None:
        return supervised.check(config)
    if not config.trainer:
        return supervised.lacking(config)
    from trl import DistillationConfig

    from r1pipe.train.options import check_trainer

    names = {field: f"on_policy.{field}" for field in ("temperature", "beta")} | {
        "max_completion_length": "on_policy.max_new_tokens",
        "max_steps": "on_policy.steps",
        "teacher_model_name_or_path": "on_policy.teacher",
    }
    given = _on_policy_options(config, config.on_policy)
    return supervised.lacking(config) + check_trainer(
        DistillationConfig, config.trainer, TRL_NAMES | names, given
    )


def run(config: Config, inputs: Inputs, work: Work) -> Outcome:
    """Train the student, with the paper's learning rate for its size where the recipe names none."""
    if config.learning_rate is None:
        rate, said = chosen_rate(config, inputs.one("model").path)
        work.say(said)
        config = config.model_copy(update={"learning_rate": rate})
    if config.on_policy is None:
        outcome = supervised.run(config, inputs, work, rope=config.rope)
    else:
        outcome = _run_on_policy(config, config.on_policy, inputs, work)
    return replace(outcome, metrics=outcome.metrics | {"peak_learning_rate": config.learning_rate})


# --- On the student's own answers


@machine.full_memory_explained(supervised.WAYS_OUT)
def _run_on_policy(config: Config, how: OnPolicy, inputs: Inputs, work: Work) -> Outcome:
    from r1pipe.train import models, on_policy

    student, teacher = inputs.one("model").path, inputs.one("on_policy.teacher").path
    on_policy.require_same_vocabulary(student, teacher)
    model, tokenizer = lora.open_policy(student, config.lora, work)
    context = min(models.context_of(model), config.max_length or math.inf)
    prompts, too_long = _prompts(config, inputs, tokenizer, int(context) - how.max_new_tokens, work)
    longest = max(map(len, prompts)) + how.max_new_tokens
    opened = on_policy.open_teacher(teacher, longest=longest)
    stopping.note_prompts(work.dir, prompts, config.stop_check, how.max_new_tokens)
    count = how.steps * config.batch_size
    work.say(
        f"{how.steps:,} steps of {config.batch_size} answers of the student's own, to {len(prompts):,} "
        "prompts. How long it takes, the first lines of the training tell."
    )
    order = islice(epochs_of(len(prompts), derive_seed(work.seed, "on-policy")), count)
    asked = [prompts[place] for place in order]
    options = _on_policy_options(config, how)
    trained = on_policy.train(model, tokenizer, opened, asked, options, work)
    folder = lora.publish_policy(model, tokenizer, work.dir / "published", trained.weights)
    metrics = {**trained.metrics, "prompts": len(prompts), "too_long": too_long}
    metrics |= stopping.check(folder, config.stop_check, work)
    return Outcome("checkpoint", folder, metrics, tokens=trained.tokens)


def _prompts(
    config: Config, inputs: Inputs, tokenizer: "PreTrainedTokenizerBase", room: int, work: Work
) -> tuple[list[tuple[int, ...]], int]:
    """The different prompts of the data in tokens, and how many leave the answer no room."""
    examples = supervised.read_examples(config, inputs, tokenizer, None, work)
    found = dict.fromkeys(tuple(each.token_ids[: each.prompt_tokens]) for each in examples.kept)
    fitting = [prompt for prompt in found if len(prompt) <= room]
    too_long = len(found) - len(fitting)
    if too_long:
        work.say(
            f"Left out: {too_long} of {len(found)} prompts, with more than the {room:,} tokens that fit."
        )
    if not fitting:
        raise UsageError(
            f"No prompt fits: the context leaves {room:,} tokens beside `on_policy.max_new_tokens`. Set that "
            "lower."
        )
    return fitting, too_long


def _on_policy_options(config: Config, how: OnPolicy) -> dict[str, object]:
    """The stage's fields as TRL's DistillationConfig calls them, and the `trainer:` section over them."""
    return {
        "max_steps": how.steps,
        "max_completion_length": how.max_new_tokens,
        "temperature": how.temperature,
        "beta": how.beta,
        **supervised.options(config, how.steps),
    }


# --- The paper's settings


def chosen_rate(config: Config, student: Path) -> tuple[float, str]:
    """The learning rate of a student for which the recipe names none, and what is said of it."""
    if config.on_policy is not None:
        return ON_POLICY_RATE, f"Learning rate {ON_POLICY_RATE:g}, TRL's for on-policy distillation."
    if config.lora is not None:
        return LORA_RATE, f"Learning rate {LORA_RATE:g}, as is usual for adapters; the paper has none."
    size = parameters(student)
    family = str(jsonl.loads((student / "config.json").read_bytes()).get("model_type", ""))
    name, _, of, rate = nearest(size, family)
    told = f"Learning rate {rate:g}: the paper's for {name}, the nearest to {size:,} parameters."
    if size < of / 3:
        told += " A student so much smaller may take more: set `learning_rate`."
    return rate, told


def nearest(size: float, family: str) -> tuple[str, str, float, float]:
    """The row of `PAPER` nearest to a student of `size` parameters, by the ratio of the two.

    >>> nearest(8.19e9, "qwen3")[0], nearest(8.19e9, "mistral")[0], nearest(1.24e9, "llama")[0]
    ('Qwen2.5-Math-7B', 'Llama-3.1-8B', 'Qwen2.5-Math-1.5B')
    """

    def distance(row: tuple[str, str, float, float]) -> float:
        _, of_family, of, _ = row
        return abs(math.log(size / of)) + (0.0 if family.startswith(of_family) else OTHER_FAMILY)

    return min(PAPER, key=distance)
