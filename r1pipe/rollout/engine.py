"""What every engine promises. Plain Python: nothing here imports torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn."""

    max_new_tokens: int
    """A completion that reaches this many tokens without an EOS is truncated."""
    temperature: float = 1.0
    """Logits are divided by it; 0 takes the most likely token."""
    top_p: float = 1.0
    """Smallest set of tokens whose probability reaches this is kept; 1 keeps all."""
    top_k: int = 0
    """This many of the likeliest tokens are kept; 0 keeps all."""
    forbid_after: Mapping[int, int] = field(default_factory=dict)
    """`{token: what may not follow it}`: how an evaluation forbids giving up after a failed try."""
    logprobs: bool = False
    """Whether each drawn token's log-probability is kept, under the distribution it was drawn from."""


@dataclass(slots=True)
class Rollout:
    """One completion as tokens."""

    token_ids: list[int]
    """The drawn tokens; the last is an EOS exactly when `finish` is "stop"."""
    finish: Literal["stop", "length"]
    logprobs: list[float] | None = None
    """One per drawn token, or None when they were not asked for."""


Correction = Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask", "none"]
"""How a trainer weights what an engine sampled a little differently from what it computes itself."""

Finished = Callable[[int, Rollout], None]
"""Told of each rollout as soon as it is whole, by the place of its prompt; in no order."""


class Engine(Protocol):
    """Generates completions from the policy's present weights."""

    name: str
    """As a recipe writes it: `transformers`, `vllm` or `vllm-server`; on a cluster the workers' own."""
    exact: bool
    """Whether what it samples from are the trainer's own numbers, so that no mismatch has to be corrected."""

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        seeds: Sequence[int],
        finished: Finished | None = None,
    ) -> list[Rollout]:
        """One rollout per prompt, in order; repeat a prompt to get a group.

        `seeds` has one seed in [0, 2**63) per prompt. A rollout is a function of its prompt, the sampling,
        its seed and the weights: what else is generated beside it, and in which batch, has no part in it, up
        to the rounding of sums.
        """
        ...

    def sync(self) -> float | None:
        """Take over the policy's present weights, and check that they have arrived.

        Returns the mean |difference| of the engine's log-probabilities of a probe to the trainer's, None
        where there was nothing to take over. Raises `RunFailed` where rounding does not explain it.
        """
        ...

    def rest(self) -> None:
        """Leave the memory to the trainer until the next `sync` or `generate`: a generation is done."""
        ...

    def close(self) -> None:
        """Give back memory, processes and connections. An engine that was closed is not used again."""
        ...
