"""A longer context: what is written into a config, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from transformers import AutoConfig, AutoModelForCausalLM

from r1pipe.errors import UsageError
from r1pipe.train import models
from r1pipe.train.rope import Rope, stretch
from tests.tiny_model import random_model


def test_a_raised_base() -> None:
    """As open-r1 did with Qwen2.5-Math: 4,096 tokens become 32,768 at a base of 300,000."""
    config = AutoConfig.for_model("qwen2", max_position_embeddings=4096)
    said = stretch(config, Rope(factor=8, theta=300_000))
    assert said == "The context is 32,768 tokens for 4,096: RoPE's base is 300,000 for 10,000."
    assert config.max_position_embeddings == 32768
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 300_000.0}


def test_yarn() -> None:
    """The factor, and the context that it multiplies; transformers warns of no contradiction between them."""
    config = AutoConfig.for_model("llama", max_position_embeddings=2048)
    said = stretch(config, Rope(factor=4, type="yarn"))
    assert said == "The context is 8,192 tokens for 2,048: YaRN of factor 4."
    assert config.max_position_embeddings == 8192
    assert config.rope_parameters == {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 2048,
    }


@pytest.mark.parametrize("rope", [Rope(factor=2, theta=50_000), Rope(factor=2, type="yarn")])
def test_what_is_published_is_opened_with_it(rope: Rope, tiny: Path, tmp_path: Path) -> None:
    """The published config.json alone gives the frequencies that were trained with, others than before."""
    config = AutoConfig.from_pretrained(tiny)
    stretch(config, rope)
    model, tokenizer = models.open_model(tiny, config)
    folder = models.publish(model, tokenizer, tmp_path / "published")
    written = json.loads((folder / "config.json").read_text())
    assert written["max_position_embeddings"] == 128
    assert written["rope_parameters"]["rope_type"] == rope.type
    rotary: Any = model.model.rotary_emb  # type: ignore[attr-defined]
    again: Any = AutoModelForCausalLM.from_pretrained(folder).model.rotary_emb
    before: Any = AutoModelForCausalLM.from_pretrained(tiny).model.rotary_emb
    assert again.inv_freq.tolist() == rotary.inv_freq.tolist() != before.inv_freq.tolist()


def test_models_that_cannot_be_stretched() -> None:
    """One without RoPE, one whose kinds of layers have a RoPE each, one that is scaled already."""
    rope = Rope(factor=2, theta=1e6)
    with pytest.raises(UsageError, match="'gpt2' has no RoPE, so its context of 1,024 tokens stays"):
        stretch(AutoConfig.for_model("gpt2"), rope)
    with pytest.raises(UsageError, match="a RoPE each \\(sliding_attention, full_attention\\)"):
        stretch(AutoConfig.for_model("gemma3_text"), rope)
    scaled = AutoConfig.for_model("llama", max_position_embeddings=2048)
    stretch(scaled, Rope(factor=4, type="yarn"))
    with pytest.raises(UsageError, match="scaled already \\(yarn\\), to 8,192 tokens"):
        stretch(scaled, rope)
    assert scaled.max_position_embeddings == 8192


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"factor": 8}, "set theta, e.g. 300000, or type: yarn"),
        ({"factor": 8, "type": "yarn", "theta": 1e6}, "leave out theta"),
        ({"factor": 1, "theta": 1e6}, "greater than 1"),
    ],
)
def test_half_a_rope(given: dict[str, Any], said: str) -> None:
    """What is missing or in the way is named."""
    with pytest.raises(ValidationError, match=said):
        Rope.model_validate(given)


def test_a_gpt2_has_positions_of_its_own() -> None:
    """The guard is needed: a GPT-2 with a longer context in its config has no weights for it."""
    model = random_model("gpt2", n_positions=16, vocab_size=8, n_embd=8, n_head=1, n_layer=1)
    assert not hasattr(model.config, "rope_parameters")
