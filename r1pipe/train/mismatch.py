"""What an engine sampled from is not quite what is trained: the ratio between the two, and its bounds.

vLLM computes with other kernels, and often in another precision, than the trainer, so tokens come from a
distribution that is a little off. Each token's loss is weighted by trainer / engine, cut off above
("truncated importance sampling"; https://fengyao.notion.site/off-policy-rl). A ratio for a whole sequence is
a product over its tokens and so grows with its length; for long thinking that of each token is the better.
"""

from dataclasses import dataclass

import torch

from r1pipe.rollout import Correction


@dataclass(frozen=True, slots=True)
class Ratio:
    """The ratios of a micro-batch."""

    weights: torch.Tensor | None
    """[rows, tokens] or [rows, 1]: what each token's loss is multiplied by; None where nothing is."""
    difference: float
    """Mean |log p(trainer) - log p(engine)| over the tokens whose probability the engine could tell."""
    mean: float
    """Mean of the ratio before it was cut off."""
    largest: float
    """Largest ratio before it was cut off."""
    cut: float
    """Share of ratios that were beyond the bound."""


def ratio(
    trainer: torch.Tensor, engine: torch.Tensor, mask: torch.Tensor, correction: Correction, bound: float
) -> Ratio:
    """Compare log-probabilities [rows, tokens] of drawn tokens; `mask` is 1 for those that count.

    A token whose probability the engine could not tell (NaN) has the ratio 1, and is in none of the figures.
    """
    known = mask.bool() & ~engine.isnan()
    difference = (trainer - engine).masked_fill(~known, 0.0)
    by_sequence = correction.startswith("sequence")
    ratios = difference.sum(-1, keepdim=True).exp() if by_sequence else difference.exp()
    counted = known.any(-1, keepdim=True) if by_sequence else known
    given = ratios[counted]
    beyond = ratios > bound
    if correction == "none":
        weights = None
    elif correction.endswith("truncate"):
        weights = ratios.clamp(max=bound)
    else:
        weights = ratios.masked_fill(beyond, 0.0)
    return Ratio(
        weights=weights,
        difference=float(difference.abs().sum() / known.sum().clamp(min=1)),
        mean=float(given.mean()) if len(given) else 1.0,
        largest=float(given.max()) if len(given) else 1.0,
        cut=float(beyond[counted].float().mean()) if len(given) else 0.0,
    )
