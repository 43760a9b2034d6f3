"""What the stages that learn from given completions share: their config and their run.

Importing it is cheap: torch and TRL come with `run`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from r1pipe import machine, parallel
from r1pipe.batches import BatchPlan
from r1pipe.errors import UsageError
from r1pipe.parallel import ParallelConfig
from r1pipe.stage import NEUTRAL, CheckpointRef, DatasetRef, Findings, Inputs, Outcome, Work
from r1pipe.train import lora
from r1pipe.train.examples import Examples, reasons
from r1pipe.train.lora import Lora

_TRL_NAMES: Final = {
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
    learning_rate: float = Field(default=5e-5, gt=0)
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
    here = config.processes // config.nodes
    found = Findings(lacking=parallel.lacking(config.parallel, here) + lora.lacking(config.lora))
    if not config.trainer:
        return found
    from trl import SFTConfig

    from r1pipe.train.options import check_trainer

    return found + check_trainer(SFTConfig, config.trainer, _TRL_NAMES, options(config, rows=1))


@machine.full_memory_explained(
    "Set `micro_batch` lower, which gives the same step; or train adapters, as by `lora: {r: 16}`."
)
def run(config: SupervisedConfig, inputs: Inputs, work: Work) -> Outcome:
    """Train the model on the data; publish it, with the rows that were set aside if any were.

    Raises `UsageError` when no row can be trained on.
    """
    from r1pipe.train import launching, models, sft

    if config.spread and work.rank is None:
        return launching.on_processes(config, inputs, work)
    model, tokenizer = lora.open_policy(inputs.one("model").path, config.lora, work)
    context = min(models.context_of(model), config.max_length or models.context_of(model))
    examples = Examples()
    for label, dataset in zip(inputs.labels("data"), inputs.many("data"), strict=True):
        limit = config.limits.get(label)
        examples.read(dataset.path, tokenizer, context=context, limit=limit, seed=work.seed)
    counts = reasons(examples.set_aside)
    if counts:
        listed = ", ".join(f"{count} {reason}" for reason, count in counts.items())
        work.say(f"{len(examples.set_aside)} rows were set aside: {listed}.")
    if not examples.kept:
        raise UsageError(
            f"No row of {', '.join(config.data)} can be trained on; {len(examples.set_aside)} were set aside "
            f"({', '.join(counts)}). A row needs text in `prompt` and `completion`, at most {context} tokens."
        )
    passed_on = options(config, len(examples.kept))
    trained = sft.train(model, tokenizer, examples.kept, config.epochs, config.batch_size, passed_on, work)
    if work.rank:
        return Outcome("checkpoint", work.dir)  # the first process publishes
    folder = lora.publish_policy(model, tokenizer, work.dir / "published", trained.weights)
    models.publish_set_aside(folder, examples.set_aside)
    metrics = {**trained.metrics, "rows": len(examples.kept), "set_aside": len(examples.set_aside)}
    return Outcome("checkpoint", folder, metrics, tokens=trained.tokens)


def options(config: SupervisedConfig, rows: int) -> dict[str, Any]:
    """The stage's fields as SFTConfig calls them, for so many rows, and the `trainer:` section over them."""
    steps = max(1, -(-round(rows * config.epochs) // config.batch_size))
    return {
        **batches(config).trainer_options,
        "learning_rate": config.learning_rate,
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
