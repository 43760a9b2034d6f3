"""The rl stage at its smallest: two steps of eight completions."""

from typing import Any

from stages import rl

SMALL = {
    "model": "base",
    "task": "countdown",
    "template": "chat",
    "group_size": 2,
    "prompts_per_step": 4,
    "micro_batch": 4,
    "steps": 2,
    "max_new_tokens": 16,
    "learning_rate": "1e-2",
}


def config(**changes: Any) -> rl.Config:
    """The smallest with some of its fields changed."""
    return rl.Config.model_validate({**SMALL, **changes})
