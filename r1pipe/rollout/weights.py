"""A policy's weights, as a checkpoint of the model alone would hold them."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from r1pipe.errors import UsageError

_WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.")
"""What torch.compile and activation checkpointing put into the names of parameters."""


def plain_weights(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield name and value of each weight; tied ones once, sharded ones whole, LoRA added to what it adapts.

    Nothing is changed in the model: adding an adapter and taking it off again would leave rounding errors in
    the weights beneath. Every process has to come along where weights are sharded (FSDP2). Raises
    `UsageError` for weights that cannot be told: sharded by DeepSpeed's stage 3, or adapted by DoRA.
    """
    modules = dict(model.named_modules())
    for full_name, parameter in model.named_parameters():
        if _belongs_to_an_adapter(full_name):
            continue
        owner, _, own_name = full_name.rpartition(".")
        weight = _whole(parameter)
        if owner.endswith(".base_layer") and own_name == "weight":
            weight = _adapted(modules[owner.removesuffix(".base_layer")], weight)
        yield _plain_name(full_name), weight


def _belongs_to_an_adapter(name: str) -> bool:
    parts = name.split(".")
    return "original_module" in parts or any(part.startswith("lora_") for part in parts)


def _plain_name(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    name = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
    before, marker, after = name.partition(".modules_to_save.")  # …, the adapter's name, the parameter's
    return f"{before}.{after.partition('.')[2]}" if marker else name


def _whole(parameter: torch.Tensor) -> torch.Tensor:
    if hasattr(parameter, "ds_id"):
        raise UsageError(
            "DeepSpeed's stage 3 shards the policy's weights, and vLLM beside it cannot take them over. "
            "Set `parallel: fsdp2` or `zero2`."
        )
    weight = parameter.detach()
    return weight.full_tensor() if hasattr(weight, "full_tensor") else weight


def _adapted(layer: Any, weight: torch.Tensor) -> torch.Tensor:
    """The weight with the active adapters of a PEFT layer added to it."""
    if getattr(layer, "merged", False):
        return weight
    if any(layer.use_dora.get(adapter, False) for adapter in layer.active_adapters):
        raise UsageError(
            "vLLM cannot take over weights adapted by DoRA. Use LoRA, or `engine: transformers`."
        )
    for adapter in layer.active_adapters:
        if adapter in layer.lora_A or adapter in getattr(layer, "lora_embedding_A", {}):
            weight = weight + layer.get_delta_weight(adapter).detach().to(weight)
    return weight
