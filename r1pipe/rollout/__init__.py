"""Engines that turn prompts into completions, behind one protocol."""

from r1pipe.rollout.engine import Correction, Engine, Finished, Rollout, Sampling

__all__ = ["Correction", "Engine", "Finished", "Rollout", "Sampling"]
