"""Supervised fine-tuning: the cold start, and the training on verified traces from the base again."""

from pydantic import Field

from r1pipe.train import supervised
from r1pipe.train.supervised import SupervisedConfig

VERSION = 1
SUMMARY = "Fine-tune a model on prompts with given completions."


class Config(SupervisedConfig):
    """What the `sft` stage reads from a recipe. The loss is taken on completions only, their EOS included."""

    learning_rate: float = Field(default=5e-5, gt=0)
    """AdamW's highest."""


batches, check, run = supervised.batches, supervised.check, supervised.run
