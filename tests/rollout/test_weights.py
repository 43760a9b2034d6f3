"""A policy's weights come out under the names of a plain checkpoint, and nothing is changed in it."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from r1pipe.errors import RunFailed, UsageError
from r1pipe.rollout.weights import plain_weights, write_weights


def llama(**options: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        **options,
    )
    return LlamaForCausalLM(config)


def test_tied_weights_come_once() -> None:
    model = llama(tie_word_embeddings=True)
    names = [name for name, _ in plain_weights(model)]
    assert "model.embed_tokens.weight" in names
    assert "lm_head.weight" not in names
    assert len(names) == len(set(names)) == len(list(model.parameters()))


def test_what_is_written_is_there_whole(tmp_path: Path) -> None:
    """The plain weights, and the tied one by its own name too; readable by others, and nothing beside it."""
    model = llama(tie_word_embeddings=True)
    write_weights(model, tmp_path / "weights" / "policy-1")
    assert list((tmp_path / "weights").iterdir()) == [tmp_path / "weights" / "policy-1"]
    (file,) = (tmp_path / "weights" / "policy-1").iterdir()
    plain = dict(plain_weights(model))
    expected = plain | {"lm_head.weight": plain["model.embed_tokens.weight"]}
    written = load_file(file)
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[name], weight) for name, weight in expected.items())
    assert file.name == "model.safetensors"
    assert file.stat().st_mode & 0o666 == file.parent.stat().st_mode & 0o666


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A file stands where the folder should be; a disk that fills up leaves no half behind."""
    (tmp_path / "file").touch()
    with pytest.raises(RunFailed, match="policy-1' could not be written"):
        write_weights(llama(), tmp_path / "file" / "policy-1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("r1pipe.rollout.weights.save_file", _full)
        with pytest.raises(RunFailed, match=r"policy-1' could not be written: No space left"):
            write_weights(llama(), tmp_path / "weights" / "policy-1")
    assert list((tmp_path / "weights").iterdir()) == []


def _full(weights: dict[str, torch.Tensor], file: Path) -> None:
    file.write_bytes(b"half")
    raise SafetensorError("No space left on device (os error 28)")


class _Layer(nn.Module):
    """A linear layer as PEFT wraps it, rank 1, with `scale` before the product of its two matrices."""

    def __init__(self, base: nn.Linear, *, merged: bool = False) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_A = nn.ModuleDict({"default": nn.Linear(8, 1, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(1, 8, bias=False)})
        self.active_adapters = ["default"]
        self.merged = merged

    def get_delta_weight(self, adapter: str) -> torch.Tensor:
        return 0.5 * self.lora_B[adapter].weight @ self.lora_A[adapter].weight


@pytest.mark.parametrize("prefix", ["", "base_model.model."])
def test_an_adapter_is_added_and_stays_where_it_is(prefix: str) -> None:
    """W + BA/2 under W's name, whether PEFT's model or the one inside it is given; W itself is untouched."""
    model = llama()
    plain = dict(plain_weights(copy.deepcopy(model)))
    attention = model.model.layers[0].self_attn
    layer = attention.q_proj = _Layer(attention.q_proj)
    whole: nn.Module = model
    for name in reversed(prefix.split(".")[:-1]):
        outer = nn.Module()
        setattr(outer, name, whole)
        whole = outer
    weights = dict(plain_weights(whole))
    q = "model.layers.0.self_attn.q_proj.weight"
    assert weights.keys() == plain.keys()
    assert torch.equal(weights[q], plain[q] + layer.get_delta_weight("default"))
    assert not torch.equal(weights[q], plain[q])
    assert all(torch.equal(weights[name], plain[name]) for name in plain if name != q)
    assert torch.equal(layer.base_layer.weight, plain[q])


def test_a_merged_adapter_is_not_added_again() -> None:
    model = llama()
    attention = model.model.layers[0].self_attn
    before = attention.q_proj.weight.detach().clone()
    attention.q_proj = _Layer(attention.q_proj, merged=True)
    assert torch.equal(dict(plain_weights(model))["model.layers.0.self_attn.q_proj.weight"], before)


def test_what_cannot_be_told_is_refused() -> None:
    model = llama()
    next(model.parameters()).ds_id = 3
    with pytest.raises(UsageError, match="parallel: fsdp2"):
        dict(plain_weights(model))
