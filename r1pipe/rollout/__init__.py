"""Engines that turn prompts into completions, behind one protocol."""

from r1pipe.rollout.engine import Engine, Finished, Rollout, Sampling

__all__ = ["Engine", "Finished", "Rollout", "Sampling"]
