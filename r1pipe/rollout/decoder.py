"""One token's forward pass of the Llama family, without what only a general model needs.

Transformers' own pass builds masks, checks arguments and walks a dozen modules for every token. With a small
model that costs more than its arithmetic. The pass here runs the model's own layers, so a LoRA adapter or a
quantised layer is honoured, in the order in which Llama, Qwen2 and Qwen3 do; other families take
transformers' pass. Tokens are the same, which tests/rollout/test_decoder.py holds for each family.
"""

from typing import Any, Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel

from r1pipe.rollout.cache import RoomyCache

FAMILIES = frozenset({"llama", "qwen2", "qwen3"})
"""Model types whose layers are those of `LeanDecoder`."""

FIXED_ROPE = frozenset({"default", "linear", "llama3", "yarn"})
"""Kinds of rotary embedding whose angles depend on the position alone, so that they can be looked up."""


class Decoder(Protocol):
    """Reads one more token of each row."""

    def __call__(
        self, tokens: torch.Tensor, positions: torch.Tensor, cache: RoomyCache, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Logits [rows, vocabulary] after `tokens` [rows] at `positions` [rows]; the cache grows by one.

        `mask` [rows, columns] is 1 for what may be looked at, this token included, and 0 for padding; None
        where there is no padding.
        """
        ...


def decoder_of(model: PreTrainedModel, length: int) -> Decoder:
    """The fastest pass that is right for this model, for positions below `length`."""
    model = getattr(model, "get_base_model", lambda: model)()  # behind peft's wrapper, adapters in place
    config = model.config.get_text_config()
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    windows = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    lean = config.model_type in FAMILIES and rope in FIXED_ROPE and not windows
    # Another attention than sdpa was asked for by somebody who wants its numbers.
    if lean and config._attn_implementation == "sdpa":
        return LeanDecoder(model, length)
    return WholeDecoder(model)


class WholeDecoder:
    """Transformers' own forward pass."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    def __call__(
        self, tokens: torch.Tensor, positions: torch.Tensor, cache: RoomyCache, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """As `Decoder` says."""
        arguments: dict[str, Any] = {}
        if mask is not None:
            arguments = {"attention_mask": mask, "position_ids": positions[:, None]}
        output = self.model(input_ids=tokens[:, None], past_key_values=cache, use_cache=True, **arguments)
        return output.logits[:, -1]


class LeanDecoder:
    """The layers of Llama, Qwen2 and Qwen3, called one after the other."""

    def __init__(self, model: PreTrainedModel, length: int) -> None:
        self.model = model
        self.base = model.model
        config = model.config.get_text_config()
        self.head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.grouped = config.num_key_value_heads != config.num_attention_heads
        device = self.base.embed_tokens.weight.device
        angles = self.base.rotary_emb(
            torch.empty(0, device=device), torch.arange(length, device=device)[None]
        )
        self.cos, self.sin = (each[0, :, None] for each in angles)  # [length, 1, head_dim]

    def __call__(
        self, tokens: torch.Tensor, positions: torch.Tensor, cache: RoomyCache, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """As `Decoder` says."""
        hidden = self.base.embed_tokens(tokens)  # [rows, hidden]
        cos, sin = self.cos[positions], self.sin[positions]  # [rows, 1, head_dim]
        # Added to the scores: made once, and not again in every layer. [rows, 1, 1, columns]
        bias = None if mask is None else _bias(mask, hidden.dtype)
        for layer, cached in zip(self.base.layers, cache.layers, strict=True):
            attention = layer.self_attn
            normed = layer.input_layernorm(hidden)
            queries, keys, values = (
                project(normed).view(len(tokens), -1, self.head_dim)  # [rows, heads, head_dim]
                for project in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            if hasattr(attention, "q_norm"):
                queries, keys = attention.q_norm(queries), attention.k_norm(keys)
            queries, keys = _rotated(queries, cos, sin), _rotated(keys, cos, sin)
            keys, values = cached.update(keys[:, :, None], values[:, :, None])
            seen = scaled_dot_product_attention(
                queries[:, :, None], keys, values, bias, scale=attention.scaling, enable_gqa=self.grouped
            )
            hidden = hidden + attention.o_proj(seen.reshape(len(tokens), -1))
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        logits: torch.Tensor = self.model.lm_head(self.base.norm(hidden))
        return logits


def _rotated(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding (RoFormer, arXiv 2104.09864), halves paired as Llama's code does."""
    one, other = states.chunk(2, -1)
    return states * cos.to(states.dtype) + torch.cat([-other, one], -1) * sin.to(states.dtype)


def _bias(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return bias.masked_fill_(mask == 0, -torch.inf)[:, None, None]
