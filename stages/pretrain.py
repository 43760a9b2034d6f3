"""A base model from nothing: a stock architecture, the tiny world's tokenizer, training on a corpus."""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal

from pydantic import BeforeValidator, Field, model_validator

from r1pipe import jsonl, machine
from r1pipe.artifact import Artifact
from r1pipe.errors import UsageError
from r1pipe.stage import NEUTRAL, DatasetRef, Findings, Inputs, Outcome, StageConfig, Work

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

VERSION = 1
SUMMARY = "Pretrain a small base model from random weights."

_TRAINER_NAMES: Final = {
    "per_device_train_batch_size": "batch_size",
    "learning_rate": "learning_rate",
    "weight_decay": "weight_decay",
    "warmup_steps": "warmup",
    "lr_scheduler_type": "decay",
    "lr_scheduler_kwargs": "decay",
    "num_train_epochs": "data",
    "save_steps": "save_every",
    "logging_steps": "log_every",
}
"""TrainingArguments' options that the stage's own fields set."""


class Config(StageConfig):
    """What the `pretrain` stage reads from a recipe."""

    makes: ClassVar = "checkpoint"

    data: Annotated[
        list[DatasetRef], BeforeValidator(lambda v: [v] if isinstance(v, str) else v), Field(min_length=1)
    ]
    """Datasets of rows with `text`, read once each, one after another: the first is learned first."""
    architecture: Literal["llama", "qwen3"] = "llama"
    """A stock architecture of transformers, which vLLM serves as it is."""
    hidden_size: int = Field(default=96, ge=1)
    """Width of the model."""
    layers: int = Field(default=3, ge=1)
    """Depth of the model."""
    heads: int = Field(default=3, ge=1)
    """Attention heads."""
    kv_heads: int | None = Field(default=None, ge=1)
    """Heads of keys and values, each shared by as many of the others; `heads` where it is not set. Fewer of
    them make sampling faster, which on a CPU waits for the cache."""
    head_dim: int = Field(default=32, ge=2, multiple_of=2)
    """Width of a head; vLLM wants 32 or more."""
    rope_theta: float = Field(default=1e5, gt=0)
    """Base of the rotary positions: a larger one leaves more of a head to what is said, less to where."""
    intermediate_size: int = Field(default=256, ge=1)
    """Width of the feed-forward layers."""
    context: int = Field(default=256, ge=8)
    """Most tokens the model can read; longer documents are set aside."""
    init: float = Field(default=0.08, gt=0)
    """Standard deviation of the random weights; about one over the root of `hidden_size`."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """AdamW's highest; kept until the decay begins."""
    weight_decay: float = Field(default=0.01, ge=0)
    """AdamW's."""
    batch_size: int = Field(default=16, ge=1)
    """Documents per step. Small is better here: the number of steps is what such a model lacks."""
    warmup: int = Field(default=50, ge=0)
    """Steps over which the learning rate rises."""
    decay: float = Field(default=0.4, ge=0, le=1)
    """Share of the steps, at the end, over which the learning rate falls to zero."""
    save_every: Annotated[int, Field(ge=1), NEUTRAL] = 500
    """Steps between checkpoints that a stopped stage goes on from."""
    log_every: Annotated[int, Field(ge=1), NEUTRAL] = 200
    """Steps between rows of metrics; a checkpoint has one too, and Ctrl-C waits for one."""
    trainer: dict[str, Any] = Field(default={})
    """Further options of transformers' TrainingArguments, by their names there."""

    @model_validator(mode="after")
    def _heads_divide(self) -> "Config":
        if self.kv_heads is not None and self.heads % self.kv_heads:
            raise ValueError(f"kv_heads = {self.kv_heads} has to divide heads = {self.heads}")
        return self


def check(config: Config) -> Findings:
    """Find what is wrong with the options passed through to the trainer."""
    if not config.trainer:
        return Findings()
    from transformers import TrainingArguments

    from r1pipe.train.options import check_trainer

    return check_trainer(TrainingArguments, config.trainer, _TRAINER_NAMES, _options(config, documents=1))


@machine.full_memory_explained("Set `batch_size` lower, or make the model smaller.")
def run(config: Config, inputs: Inputs, work: Work) -> Outcome:
    """Build the model, train it on the data, publish it.

    Raises `UsageError` when no document can be trained on.
    """
    from r1pipe.train import models, pretraining
    from r1pipe.world.tokenizer import build_tokenizer

    models.hush()
    tokenizer = build_tokenizer(config.context)
    set_aside: list[dict[str, Any]] = []
    datasets = [_read(artifact, tokenizer, config.context, set_aside) for artifact in inputs.many("data")]
    if set_aside:
        work.say(f"{len(set_aside)} documents were set aside; set-aside.jsonl gives the reason for each.")
    if not any(datasets):
        raise UsageError(
            f"No document of {', '.join(config.data)} can be trained on: {set_aside[0]['reason']}. "
            "Pretraining reads the tiny world's words; see `r1pipe corpus --help`."
        )
    documents = pretraining.order(datasets, config.batch_size, work.seed)
    model = _build(config, tokenizer, work.seed)
    trained = pretraining.train(model, documents, config.batch_size, _options(config, len(documents)), work)
    folder = models.publish(model, tokenizer, work.dir / "published")
    models.publish_set_aside(folder, set_aside)
    metrics = {
        **trained.metrics,
        "parameters": sum(p.numel() for p in model.parameters()),
        "documents": len(documents),
        "set_aside": len(set_aside),
    }
    return Outcome("checkpoint", folder, metrics, tokens=trained.tokens)


def _read(
    dataset: Artifact, tokenizer: "PreTrainedTokenizerBase", context: int, set_aside: list[dict[str, Any]]
) -> list[list[int]]:
    """The documents as tokens; what cannot be read is appended to `set_aside` with the reason."""
    rows, bad = jsonl.read_rows(dataset.path, require=["text"])
    set_aside += [{"path": row.path, "line": row.line, "reason": row.reason, "text": row.text} for row in bad]
    documents = []
    for row, ids in zip(rows, tokenizer([str(row["text"]) for row in rows])["input_ids"], strict=True):
        if not 1 < len(ids) <= context:
            reason = f"{len(ids)} tokens, of 2 to {context} that can be trained on"
        elif tokenizer.unk_token_id in ids:
            reason = "a word that is not in the vocabulary"
        else:
            documents.append(ids)
            continue
        set_aside.append({**row, "reason": reason})
    return documents


def _build(config: Config, tokenizer: "PreTrainedTokenizerBase", seed: int) -> "PreTrainedModel":
    """A model with random weights that are a function of the seed."""
    from transformers import AutoConfig, AutoModelForCausalLM, set_seed

    set_seed(seed)
    shape = AutoConfig.for_model(
        config.architecture,
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads or config.heads,
        head_dim=config.head_dim,
        max_position_embeddings=config.context,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        initializer_range=config.init,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model: PreTrainedModel = AutoModelForCausalLM.from_config(shape)
    return model


def _options(config: Config, documents: int) -> dict[str, Any]:
    """The stage's fields as TrainingArguments calls them, and the recipe's `trainer:` section over them."""
    steps = -(-documents // config.batch_size)
    decaying = min(round(config.decay * steps), max(0, steps - config.warmup))
    return {
        "learning_rate": config.learning_rate,
        "weight_decay": config.weight_decay,
        "adam_beta2": 0.98,
        "warmup_steps": config.warmup,
        "lr_scheduler_type": "warmup_stable_decay",
        "lr_scheduler_kwargs": {"num_decay_steps": decaying},
        "save_steps": config.save_every,
        "logging_steps": min(config.log_every, steps),
        **config.trainer,
    }
