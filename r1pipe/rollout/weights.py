"""A policy's weights, as a checkpoint of the model alone would hold them."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from r1pipe import jsonl
from r1pipe.errors import UsageError


def plain_weights(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield name and value of each weight; tied ones once, sharded ones whole, LoRA added to what it adapts.

    Nothing is changed in the model: adding an adapter and taking it off again would leave rounding errors in
    the weights beneath. Every process has to come along where weights are sharded (FSDP2). Raises
    `UsageError` for weights that DeepSpeed's stage 3 shards.
    """
    modules = dict(model.named_modules())
    for full_name, parameter in model.named_parameters():
        if any(part.startswith("lora_") for part in full_name.split(".")):
            continue
        owner, _, own_name = full_name.rpartition(".")
        weight = _whole(parameter)
        if owner.endswith(".base_layer") and own_name == "weight":
            weight = _adapted(modules[owner.removesuffix(".base_layer")], weight)
        yield _plain_name(full_name), weight


def write_weights(model: nn.Module, folder: Path) -> None:
    """Write the weights into a new folder, which is there whole or not at all.

    One that is tied to another is written by its own name as well: on a CPU vLLM multiplies with a packed
    copy of each, and packs anew what it finds by name. Nothing is synced to the disk, as no later start reads
    it. Raises `RunFailed` where it cannot be written.
    """
    weights = {name: weight.cpu().contiguous() for name, weight in plain_weights(model)}
    tied: dict[str, str] = getattr(model, "all_tied_weights_keys", {})
    weights |= {name: weights[source].clone() for name, source in tied.items() if source in weights}
    partial = folder.with_name(f".{folder.name}")
    with jsonl.writing(folder):
        try:
            partial.mkdir(parents=True)
            file = partial / "model.safetensors"
            save_file(weights, file)
            file.chmod(partial.stat().st_mode & 0o666)  # it is written for its owner's eyes only
            partial.rename(folder)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _plain_name(name: str) -> str:
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")


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
    for adapter in layer.active_adapters:
        weight = weight + layer.get_delta_weight(adapter).detach().to(weight)
    return weight
