"""Engines that turn prompts into completions, behind one protocol."""

from r1pipe.rollout.engine import Engine, Rollout, Sampling

__all__ = ["Engine", "Rollout", "Sampling"]
