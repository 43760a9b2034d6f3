"""What r1pipe adds to the options of TRL's GRPOConfig."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from r1pipe.rollout import Correction
from r1pipe.train.guard import GuardConfig
from r1pipe.train.micro_batches import Bounds


@dataclass(frozen=True, slots=True)
class Settings:
    """What r1pipe adds to GRPOConfig's options."""

    bounds: Bounds = Bounds(16)  # noqa: RUF009 (frozen)
    """Of one forward and backward pass."""
    dynamic_sampling: int = 0
    """How often groups without spread are replaced by others before the policy learns."""
    mismatch: Correction = "token_truncate"
    """How the ratio between trainer and engine is corrected."""
    mismatch_bound: float = 2.0
    """Where that ratio is cut off."""
    temperatures: Mapping[int, float] = field(default_factory=dict)
    """By step, in place of GRPOConfig's `temperature`; empty where it stays."""
    lengths: Mapping[int, int] = field(default_factory=dict)
    """By step, in place of GRPOConfig's `max_completion_length`; empty where it stays."""
    refresh_every: int | None = None
    """Steps after which the reference of a model with adapters is refreshed; others use `sync_ref_model`."""
    overlap: bool = False
    """Whether completions are judged while others are generated: worth a thread where judging waits for
    other processes."""
    guard: GuardConfig | None = None
    """When the training is stopped, and whether its first step is proved; None: never, and no."""
    turn: int | None = None
    """The chat template's end of turn, where completions end in another token."""
