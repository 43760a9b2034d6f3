"""What the stages that learn from given completions share: their config and their run.

Importing it is cheap: torch and TRL come with `run`.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from r1pipe import machine, parallel
from r1pipe.batches import BatchPlan
from r1pipe.errors import UsageError
from r1pipe.parallel import ParallelConfig
from r1pipe.stage import NEUTRAL, CheckpointRef, DatasetRef, Findings, Inputs, Outcome, Work
from r1pipe.train import lora, stopping
from r1pipe.train.examples import Examples, reasons
from r1pipe.train.lora import Lora
from r1pipe.train.outlook import Outlook
from r1pipe.train.rope import Rope, stretch
from r1pipe.train.stopping import StopCheck

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

TRL_NAMES: Final = {
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "micro_batch",
    "gradient_accumulation_steps": "micro_batch",
    "learning_rate": "learning_rate",
    "lr_scheduler_type": "scheduler",
    "warmup_steps": "warmup",
    "save_steps": "save_every",
    "logging_steps": "log_every",
    "max_length": "max_length",
}
"""SFTConfig's options that the stage's own fields set."""


WAYS_OUT: Final = (
    "Set `micro_batch` lower, which gives the same step; or train adapters, as by `lora: {r: 16}`."
)
"""What needs less memory."""


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class SupervisedConfig(ParallelConfig):
    """What `sft` and `distill` read from a recipe."""

    makes: ClassVar = "checkpoint"

    model: CheckpointRef
    """The model to start from."""
    data: Annotated[list[DatasetRef], BeforeValidator(_listed), Field(min_length=1)]
    """One dataset or several: rows of `prompt` and `completion`, or of `messages`."""
    limits: dict[str, Annotated[int, Field(ge=1)]] = Field(default={})
    """At most so many rows of a dataset, drawn at random; the keys are names in `data`."""
    epochs: float = Field(default=2.0, gt=0)
    """Passes over the rows; the paper's fine-tunings take two to three."""
    learning_rate: float | None = Field(default=5e-5, gt=0)
    """AdamW's highest."""
    scheduler: Literal["constant", "linear", "cosine"] = "cosine"
    """How the learning rate falls after the warm-up: not at all, to zero, or to `floor` on a cosine."""
    floor: float = Field(default=0.1, ge=0, le=1)
    """Where a cosine ends, as a share of `learning_rate`; the paper: a tenth."""
    warmup: float = Field(default=0.03, ge=0, lt=1)
    """Share of the steps over which the learning rate rises."""
    batch_size: int = Field(default=32, ge=1)
    """Rows per optimiser step, of all processes together."""
    micro_batch: int | None = Field(default=None, ge=1)
    """Rows per forward and backward pass of a process, a divisor of its share of `batch_size`; the whole
    share when it is not set."""
    max_length: int | None = Field(default=None, ge=1)
    """Rows with more tokens are set aside, as are those that the model's context does not hold."""
    lora: Lora | None = None
    """Train adapters in place of the weights, e.g. `{r: 16}`: a fraction of the memory. The published model
    has them merged, and they lie beside it in `adapter/`."""
    stop_check: Annotated[StopCheck, NEUTRAL] = StopCheck()
    """How the trained model is asked whether it ends its answers."""
    save_every: Annotated[int, Field(ge=1), NEUTRAL] = 50
    """Steps between checkpoints that a stopped stage goes on from."""
    log_every: Annotated[int, Field(ge=1), NEUTRAL] = 5
    """Steps between rows of metrics; a checkpoint has one too, and Ctrl-C waits for one."""
    trainer: dict[str, Any] = Field(default={})
    """Further options of TRL's SFTConfig, by their names there."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        batches(self)  # raises where it does not divide
        if refused := lora.unshardable(self.lora, self.parallel):
            raise ValueError(refused)
        unknown = sorted(set(self.limits) - set(self.data))
        if unknown:
            raise ValueError(
                f"limits names {', '.join(unknown)}, which is not in data: {', '.join(self.data)}"
            )
        return self


def batches(config: SupervisedConfig) -> BatchPlan:
    """How the rows of a step are cut."""
    return BatchPlan.of_rows(
        config.batch_size, config.micro_batch, processes=config.processes, tokens=config.max_length
    )


def check(config: SupervisedConfig) -> Findings:
    """Find what this machine lacks, and what is wrong with the options passed through to the trainer."""
    found = lacking(config)
    if not config.trainer:
        return found
    from trl import SFTConfig

    from r1pipe.train.options import check_trainer

    return found + check_trainer(SFTConfig, config.trainer, TRL_NAMES, options(config, steps=1))


def lacking(config: SupervisedConfig) -> Findings:
    """Find what this machine lacks."""
    here = config.processes // config.nodes
    return Findings(lacking=parallel.lacking(config.parallel, here) + lora.lacking(config.lora))


@machine.full_memory_explained(WAYS_OUT)
def run(config: SupervisedConfig, inputs: Inputs, work: Work, *, rope: Rope | None = None) -> Outcome:
    """Train the model on the data; publish it, with the rows that were set aside if any were.

    With `rope` the model's context grows first. Raises `UsageError` when no row can be trained on, and
    `RunFailed` where the trained model does not end its answers and `config.stop_check` says that it has to.
    """
    if config.spread and work.rank is None:
        from r1pipe.train import launching

        outcome = launching.on_processes(config, inputs, work)
    else:
        outcome = _train(config, inputs, work, rope)
    if work.rank is not None:
        return outcome  # whoever launched the ranks asks the model, once their memory is free
    return replace(outcome, metrics=outcome.metrics | stopping.check(outcome.path, config.stop_check, work))


def _train(config: SupervisedConfig, inputs: Inputs, work: Work, rope: Rope | None) -> Outcome:
    from r1pipe.train import models, sft

    folder = inputs.one("model").path
    model, tokenizer = lora.open_policy(folder, config.lora, work, _stretched(folder, rope, work))
    context = models.context_of(model)
    examples = read_examples(config, inputs, tokenizer, context, work)
    outlook = Outlook.of(examples.kept, config.epochs, config.batch_size)
    if not work.rank:
        stopping.note(work.dir, examples.kept, config.stop_check, context, work.seed)
        # The time of a pass is told to people, and has no part in the result.
        work.say(outlook.sentence(sft.seconds_per_token(model, examples.kept, batches(config).micro_batch)))
    passed_on = options(config, outlook.steps)
    trained = sft.train(model, tokenizer, examples.kept, config.epochs, config.batch_size, passed_on, work)
    if work.rank:
        return Outcome("checkpoint", work.dir)  # the first process publishes
    if rope is not None:  # some tokenizers know a context of their own, and complain beyond it
        tokenizer.model_max_length = max(tokenizer.model_max_length, context)
    published = lora.publish_policy(model, tokenizer, work.dir / "published", trained.weights)
    models.publish_set_aside(published, examples.set_aside)
    metrics = {
        **trained.metrics,
        "rows": outlook.rows,
        "set_aside": len(examples.set_aside),
        "too_long": len(examples.too_long),
        "tokens_per_epoch": outlook.tokens,
    }
    return Outcome("checkpoint", published, metrics, tokens=trained.tokens)


def _stretched(folder: Path, rope: Rope | None, work: Work) -> "PreTrainedConfig | None":
    """The config of a model whose context grows; None for one that stays as it is."""
    if rope is None:
        return None
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    work.say(stretch(config, rope))
    return config


def read_examples(
    config: SupervisedConfig,
    inputs: Inputs,
    tokenizer: "PreTrainedTokenizerBase",
    context: int | None,
    work: Work,
) -> Examples:
    """The rows of all of the stage's data in tokens; tells what was set aside.

    `context` is the most tokens that the model reads, None where the rows may be of any length. Raises
    `UsageError` where no row is left.
    """
    examples, most = Examples(), None
    if context is not None:
        most = min(context, config.max_length or context)
    for label, dataset in zip(inputs.labels("data"), inputs.many("data"), strict=True):
        limit = config.limits.get(label)
        examples.read(dataset.path, tokenizer, context=most, limit=limit, seed=work.seed)
    counts = reasons(examples.set_aside)
    if counts:
        listed = ", ".join(f"{count} {reason}" for reason, count in counts.items())
        work.say(f"{len(examples.set_aside)} rows were set aside: {listed}.")
    if (lengths := examples.too_long) and most is not None:
        bound = "`max_length`" if most != context else "the model's context"
        work.say(
            f"Those too long have {min(lengths):,} to {max(lengths):,} tokens, {sum(lengths):,} in all; "
            f"{bound} holds {most:,}. None is cut."
        )
    if not examples.kept:
        bounded = "" if most is None else f", at most {most} tokens"
        raise UsageError(
            f"No row of {', '.join(config.data)} can be trained on; {len(examples.set_aside)} were set aside "
            f"({', '.join(counts)}). A row needs text in `prompt` and `completion`{bounded}."
        )
    return examples


def options(config: SupervisedConfig, steps: int) -> dict[str, Any]:
    """The stage's fields as TRL calls them, for so many steps, and the `trainer:` section over them."""
    rate = {} if config.learning_rate is None else {"learning_rate": config.learning_rate}
    return {
        **batches(config).trainer_options,
        **rate,
        **_schedule(config),
        "warmup_steps": round(config.warmup * steps),
        "save_steps": config.save_every,
        "logging_steps": min(config.log_every, steps),
        **config.trainer,
    }


def _schedule(config: SupervisedConfig) -> Mapping[str, Any]:
    if config.scheduler == "cosine" and config.floor:
        return {
            "lr_scheduler_type": "cosine_with_min_lr",
            "lr_scheduler_kwargs": {"min_lr_rate": config.floor},
        }
    name = "constant_with_warmup" if config.scheduler == "constant" else config.scheduler
    return {"lr_scheduler_type": name}
