"""The lean pass says what transformers' says, for each family, with and without padding."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from r1pipe.rollout import Sampling
from r1pipe.rollout.cache import RoomyCache
from r1pipe.rollout.decoder import LeanDecoder, WholeDecoder, decoder_of
from r1pipe.rollout.local import TransformersEngine
from tests.tiny_model import random_model

VOCABULARY = 40
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


def model_of(family: str, **options: Any) -> PreTrainedModel:
    """Random weights, large enough that attention has preferences, biases included."""
    shape: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
        "eos_token_id": VOCABULARY,
        "pad_token_id": 0,
    }
    model = random_model(family, seed=3, **shape | options)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # those begin at zero, which would prove nothing
            torch.nn.init.normal_(parameter, std=0.5)
    return model


FAMILIES = [
    pytest.param("llama", {}, id="llama"),
    pytest.param("llama", {"rope_parameters": LLAMA3_ROPE, "tie_word_embeddings": True}, id="llama 3"),
    pytest.param("llama", {"attention_bias": True, "mlp_bias": True}, id="biases"),
    pytest.param("qwen2", {}, id="qwen2"),
    pytest.param("qwen3", {"head_dim": 16}, id="qwen3"),
    pytest.param("qwen3", {"head_dim": 16, "num_key_value_heads": 4}, id="a key for each head"),
]


@pytest.mark.parametrize(("family", "options"), FAMILIES)
@pytest.mark.parametrize("padded", [False, True])
def test_both_passes_agree(family: str, options: dict[str, Any], padded: bool) -> None:
    """Ten tokens after a prompt, row by row: logits to 1e-4 of values as large as 10, whatever was padded."""
    model = model_of(family, **options)
    rows, prompt = 3, 6
    ids = torch.randint(1, VOCABULARY, (rows, prompt + 10), generator=torch.Generator().manual_seed(0))
    pads = torch.tensor([0, 2, 5]) if padded else torch.zeros(rows, dtype=torch.long)
    mask = (torch.arange(prompt + 10) >= pads[:, None]).long()
    decoders = [LeanDecoder(model, 64), WholeDecoder(model)]
    with torch.inference_mode():
        caches = [read(model, ids[:, :prompt], mask[:, :prompt]) for _ in decoders]
        for column in range(prompt, prompt + 10):
            seen = mask[:, : column + 1] if padded else None
            lean, whole = (
                decode(ids[:, column], column - pads, cache, seen)
                for decode, cache in zip(decoders, caches, strict=True)
            )
            assert whole.abs().max() > 1
            torch.testing.assert_close(lean, whole, atol=1e-4, rtol=0)


def read(model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor) -> RoomyCache:
    cache = RoomyCache(model.config)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    model(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True)
    return cache


@pytest.mark.parametrize(("family", "options"), FAMILIES)
def test_greedy_is_generate(family: str, options: dict[str, Any]) -> None:
    """Prompts of several lengths in one batch: each row's tokens are those of `generate` on it alone."""
    model = model_of(family, **options)
    prompts = [[5, 6, 7], [8], [9, 10, 11, 12, 13], [5, 6, 7]]
    engine = TransformersEngine(model, eos_id=VOCABULARY, pad_id=0)
    rollouts = engine.generate(prompts, Sampling(24, temperature=0), seeds=range(4))
    for prompt, rollout in zip(prompts, rollouts, strict=True):
        ids = torch.tensor([prompt])
        whole = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24, pad_token_id=0
        )
        assert rollout.token_ids == whole[0, len(prompt) :].tolist()


def test_what_is_not_of_the_family_takes_the_whole_pass() -> None:
    """Another architecture, a rotary embedding that changes with the length, a window, another attention."""
    gpt2 = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", n_embd=32, n_layer=1, n_head=2))
    dynamic = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    window = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0, "head_dim": 16}
    eager = model_of("llama")
    eager.set_attn_implementation("eager")
    others = [gpt2, model_of("llama", rope_parameters=dynamic), model_of("qwen3", **window), eager]
    assert [type(decoder_of(model, 32)) for model in others] == [WholeDecoder] * 4
    assert isinstance(decoder_of(model_of("qwen2"), 32), LeanDecoder)
