"""LoRA: small adapters are trained beside frozen weights, and a whole model is published all the same.

Importing it is cheap: torch and PEFT, the extra `lora`, come with the functions. Hu et al. (arXiv 2106.09685)
section 4.1: W + alpha / r · B A, of which A and B are trained and B begins at zero, so that training begins
at the model itself.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from r1pipe import jsonl
from r1pipe.errors import EnvironmentUnfit, UsageError
from r1pipe.train.determinism import derive_seed

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

    from r1pipe.stage import Work

ADAPTER: Final = "adapter"
"""The folder beside the published weights that holds the adapter alone."""
_TRAINED: Final = "default"
"""PEFT's name for the adapter that is trained; TRL calls the reference's `ref`."""
_REFERENCE: Final = "ref"
_MISSING: Final = "LoRA needs the package peft, which is not installed: pip install 'r1pipe[lora]'"


class Lora(BaseModel):
    """Which adapters are trained in place of the weights."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    r: int = Field(default=16, ge=1)
    """The rank of each adapter."""
    alpha: float = Field(default=32, gt=0)
    """An adapter's product is multiplied by alpha / r."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of an adapter's inputs that is left out at random while training; 0 for RL."""
    targets: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = "all-linear"
    """What gets an adapter: every linear layer but the output's, or modules by the ends of their names."""

    @field_validator("targets")
    @classmethod
    def _trainable(cls, targets: Any) -> Any:
        for name in ("lm_head", "embed_tokens"):
            if targets != "all-linear" and name in targets:
                raise ValueError(
                    f"{name} takes no adapter: it may share its weights, and TRL reads the output's past any "
                    "adapter; leave it out"
                )
        return targets


def lacking(lora: Lora | None) -> list[str]:
    """What this machine lacks for LoRA, one sentence each, beginning with the key."""
    return [f"lora: {_MISSING}"] if lora is not None and find_spec("peft") is None else []


def unshardable(lora: Lora | None, parallel: str) -> str | None:
    """Why a model in parts takes no adapters, for a config's validator; None where none are asked for."""
    if lora is None or parallel == "ddp":
        return None
    return (
        f"lora does not go with parallel = {parallel}: adapters are merged into weights that each process "
        "holds whole; set parallel: ddp, which with LoRA needs no gradients or AdamW's state of the weights"
    )


def open_policy(
    folder: Path, lora: Lora | None, work: "Work", config: "PreTrainedConfig | None" = None
) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """The model to be trained and its tokenizer; with `lora` its weights are frozen and adapters put in.

    `config` takes the place of the one in the folder.
    Raises `UsageError` as `models.open_model` does and for targets that the model does not have, and
    `EnvironmentUnfit` where PEFT is missing.
    """
    from r1pipe.train import models

    model, tokenizer = models.open_model(folder, config)
    if lora is not None:
        model = wrap(model, lora, work.seed)
        trained, of = model.get_nb_trainable_parameters()
        work.say(f"LoRA of rank {lora.r}: {trained:,} parameters are trained, {trained / of:.2%} of all.")
    return model, tokenizer


def wrap(model: "PreTrainedModel", lora: Lora, seed: int) -> Any:
    """Freeze a model and put adapters in, drawn from the seed: a PeftModel. Raises as `open_policy`."""
    if find_spec("peft") is None:
        raise EnvironmentUnfit(f"{_MISSING}.")
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,  # PEFT divides it, and minds no fraction
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
    )
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "lora") % 2**32)
        try:
            wrapped = get_peft_model(model, config)
        except ValueError as error:
            raise UsageError(
                f"lora.targets = {lora.targets} fits none of the model's layers: {error}"
            ) from error
    return wrapped


def publish_policy(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    folder: Path,
    weights: Mapping[str, "torch.Tensor"] | None = None,
) -> Path:
    """Write a trained model as `models.publish` does; one with adapters merged, and the adapter beside it.

    `weights` are those of a model without adapters that holds only a part of them.

    `peft.PeftModel.from_pretrained(base, folder / "adapter")` gives the same model.
    """
    from r1pipe.train import models

    if not is_wrapped(model):
        return models.publish(model, tokenizer, folder, weights)
    adapter = folder / ADAPTER
    model.save_pretrained(str(adapter), selected_adapters=[_TRAINED])
    (adapter / "README.md").unlink(missing_ok=True)  # a card for the hub, with nothing filled in
    settings = adapter / "adapter_config.json"
    config = jsonl.loads(settings.read_bytes())
    config["base_model_name_or_path"] = None  # a path of this machine
    if isinstance(config["target_modules"], list):  # written from a set, whose order is not always the same
        config["target_modules"].sort()
    jsonl.write_json(settings, config)
    whole = model.merge_and_unload(adapter_names=[_TRAINED])
    return models.publish(whole, tokenizer, folder)


def is_wrapped(model: Any) -> bool:
    """Whether the model has adapters; asks for no PEFT."""
    return hasattr(model, "peft_config") and hasattr(model, "merge_and_unload")


def forget_reference(model: Any) -> None:
    """Take the reference's adapter away, if there is one: a trainer that is made anew makes it anew."""
    if is_wrapped(model) and _REFERENCE in model.peft_config:
        model.delete_adapter(_REFERENCE)


def refresher(every: int) -> "TrainerCallback":
    """A callback that makes the reference the policy of the moment after every so many steps."""
    from transformers import TrainerCallback

    class Refresher(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step % every == 0:
                refresh_reference(kwargs["model"])

    return Refresher()


def refresh_reference(model: Any) -> None:
    """Make the reference of an RL with adapters the present policy: a copy of the trained adapter.

    TRL keeps the reference as a second adapter, which the trainer's checkpoints hold like the first; it has
    no way to refresh it (`sync_ref_model` refuses adapters).
    """
    weights = dict(model.named_parameters())
    for name, value in weights.items():
        if f".{_TRAINED}." in name:
            weights[name.replace(f".{_TRAINED}.", f".{_REFERENCE}.")].data.copy_(value.data)
