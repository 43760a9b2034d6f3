"""Distillation as the paper does it: a student is fine-tuned on a teacher's verified traces (section 2.4)."""

from pydantic import Field

from r1pipe.train import supervised
from r1pipe.train.supervised import SupervisedConfig

VERSION = 1
SUMMARY = "Train a student on a teacher's verified traces."


class Config(SupervisedConfig):
    """What the `distill` stage reads from a recipe: `model` is the student, `data` the teacher's traces."""

    epochs: float = Field(default=3.0, gt=0)
    """Passes over the traces; the paper takes two to three."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """AdamW's highest. The paper's falls with size: 1e-4 at 1.5B parameters, 6e-5 at 32B, 2e-5 at 70B."""
    batch_size: int = Field(default=64, ge=1)
    """Rows per optimiser step, the paper's."""


batches, check, run = supervised.batches, supervised.check, supervised.run
