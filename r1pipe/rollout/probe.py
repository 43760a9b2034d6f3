"""Whether an engine computes what the policy computes: a probe whose log-probabilities both sides tell.

Rollouts from stale or garbled weights look like a bad policy and raise no error, so an engine that takes
over a policy's weights is asked each time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOLERANCE: Final = {torch.float32: 1e-3, torch.bfloat16: 0.2, torch.float16: 0.05}
"""Mean |difference| of the probe's log-probabilities that rounding may explain, by the engine's dtype.

Measured on the tiny recipe's model against a policy in float32: 2e-6 in float32, 0.03 in bfloat16, 0.004 in
float16. A model of many layers adds up more rounding, so there is room for seven times that and more. Weights
that did not arrive are beyond it at once, since beside a policy an engine starts from random ones.
"""

_READ, _DRAWN = 48, 16
"""Tokens of the probe that are read at once, and that are decoded one by one: the two ways through vLLM."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A fixed prompt, which the engine goes on with by its likeliest tokens."""

    prompt: list[int]
    drawn: int
    """Tokens of the continuation."""

    @classmethod
    def of(cls, policy: "PreTrainedModel", context: int) -> "Probe":
        """The probe for a policy's vocabulary, within an engine's context."""
        drawn = min(_DRAWN, context // 2)
        vocabulary = policy.config.get_text_config().vocab_size
        length = min(_READ, context - drawn)
        prompt = torch.randint(vocabulary, (length,), generator=torch.Generator().manual_seed(0))
        return cls(prompt.tolist(), drawn)

    def compared(
        self,
        policy: "PreTrainedModel",
        continuation: Sequence[int],
        logprobs: Sequence[float],
        dtype: torch.dtype,
    ) -> tuple[float, str | None]:
        """The mean |difference| to the policy, and the predicate of a message where it is beyond rounding.

        `logprobs` are the engine's, of all tokens of prompt and continuation but the first; `dtype` is what
        it computes in.
        """
        tokens = [*self.prompt, *continuation]
        differences = (torch.tensor(logprobs) - policy_logprobs(policy, tokens)).abs()
        mean, allowed = float(differences.mean()), max(TOLERANCE[dtype], TOLERANCE.get(policy.dtype, 0.0))
        if mean <= allowed:  # a NaN does not pass
            return mean, None
        return mean, (
            f"does not compute what the policy computes: after its weights were taken over, the "
            f"log-probabilities of a probe of {len(tokens)} tokens differ by {mean:.3g} on average and "
            f"{float(differences.max()):.3g} at most, where rounding in "
            f"{str(dtype).removeprefix('torch.')} explains {allowed:g}. Rollouts from it would be garbage."
        )


def policy_logprobs(policy: "PreTrainedModel", tokens: Sequence[int]) -> torch.Tensor:
    """The policy's own log-probabilities of all tokens but the first, by one pass without dropout."""
    ids = torch.tensor([list(tokens)], device=policy.device)  # [1, tokens]
    training = policy.training
    policy.eval()
    try:
        with torch.no_grad():
            logits = policy(input_ids=ids, use_cache=False).logits[0, :-1]  # [tokens - 1, vocabulary]
    finally:
        policy.train(training)
    return logits.float().log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0].cpu()
