"""Whether vLLM computes with the weights that it was handed last, looked up bit for bit.

A probe's log-probabilities tell garbage from sense, but not new weights from those of a small step before:
a step of 1e-6 moves them less than rounding does. So of each layer a few weights are compared themselves.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn


class Columns:
    """The first column of each matrix that was handed over, and all of each vector, against vLLM's own.

    What agrees after the first hand-over is compared after each later one. vLLM lays out some models' weights
    in ways of its own, or quantises them: such weights never agree, and are vouched for by the probe alone.
    """

    def __init__(self) -> None:
        self.compared: frozenset[str] | None = None
        """vLLM's names of the weights that are compared; None before the first hand-over."""
        self._handed: dict[str, torch.Tensor] = {}

    def noted(self, weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        """The same weights, with what is compared later kept on the way."""
        for name, weight in weights:
            if weight.ndim <= 2:
                self._handed[name] = (weight[:, 0] if weight.ndim == 2 else weight).clone()
            yield name, weight

    def differing(self, model: nn.Module) -> list[str]:
        """The names of those weights in vLLM's `model` that are not what was handed over."""
        fused = getattr(model, "packed_modules_mapping", {})
        with torch.no_grad():
            agree = {name for name, own in _computed_with(model) if self._is_handed(name, own, fused)}
        if self.compared is None:
            self.compared = frozenset(agree)
        return sorted(self.compared - agree)

    def _is_handed(self, name: str, own: torch.Tensor, fused: Mapping[str, Iterable[str]]) -> bool:
        handed = self._of(name, fused)
        if handed is None or handed.shape[-1] != own.shape[-1]:
            return False
        return bool((own == handed.to(own)).all())  # in the engine's dtype: both sides round alike

    def _of(self, name: str, fused: Mapping[str, Iterable[str]]) -> torch.Tensor | None:
        """What was handed over for a weight of vLLM's, which keeps q, k and v in one, for example."""
        owner, _, kind = name.rpartition(".")
        before, dot, layer = owner.rpartition(".")
        names = [f"{before}{dot}{part}.{kind}" for part in fused.get(layer, [layer])]
        if names == ["lm_head.weight"] and "lm_head.weight" not in self._handed:
            names = ["model.embed_tokens.weight"]  # tied
        parts = [self._handed[each] for each in names if each in self._handed]
        return torch.cat(parts) if len(parts) == len(names) else None


def _computed_with(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """vLLM's vectors, and the first columns of its matrices as it multiplies with them.

    [rows], or [2, rows] for an embedding: as it is looked up, and as it is multiplied with.
    """
    from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
    from vllm.model_executor.layers.vocab_parallel_embedding import (
        ParallelLMHead,
        UnquantizedEmbeddingMethod,
        VocabParallelEmbedding,
    )

    dtype, device = _kind_of(model)
    for name, module in model.named_modules():
        method = getattr(module, "quant_method", None)
        if isinstance(module, LinearBase) and isinstance(method, UnquantizedLinearMethod):
            width = getattr(module, "input_size_per_partition", module.input_size)
            yield f"{name}.weight", _first_column(module, width, dtype, device)
        elif isinstance(module, VocabParallelEmbedding) and isinstance(method, UnquantizedEmbeddingMethod):
            rows = module.org_vocab_size
            column = _first_column(module, module.embedding_dim, dtype, device)[:rows]
            if not isinstance(module, ParallelLMHead):
                column = torch.stack([module.weight[:rows, 0], column])
            yield f"{name}.weight", column
        for kind, own in module.named_parameters(recurse=False):
            if own.ndim == 1 and own.numel():  # an empty one stands for weights that are packed elsewhere
                yield f"{name}.{kind}", own.to(dtype)


def _first_column(module: Any, width: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """By a product with (1, 0, 0, …), which is exact. On a CPU there is no other way to the packed copy."""
    unit = torch.zeros(1, width, dtype=dtype, device=device)
    unit[0, 0] = 1
    column: torch.Tensor = module.quant_method.apply(module, unit, None)[0]
    return column


def _kind_of(model: nn.Module) -> tuple[torch.dtype, torch.device]:
    """The dtype and device of the embedding, which is the first parameter that there is."""
    first = next(each for each in model.parameters() if each.numel())
    return first.dtype, first.device
