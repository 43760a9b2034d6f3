"""Supervised fine-tuning: the cold start, and the training on verified traces from the base again."""

from r1pipe.batches import BatchPlan
from r1pipe.stage import Findings, Inputs, Outcome, Work
from r1pipe.train import supervised
from r1pipe.train.supervised import SupervisedConfig

VERSION = 1
SUMMARY = "Fine-tune a model on prompts with given completions."


class Config(SupervisedConfig):
    """What the `sft` stage reads from a recipe. The loss is taken on completions only, their EOS included."""


def batches(config: Config) -> BatchPlan:
    """How the rows of a step are cut."""
    return supervised.batches(config)


def check(config: Config) -> Findings:
    """Find what this machine lacks, and what is wrong with the options passed through to the trainer."""
    return supervised.check(config)


def run(config: Config, inputs: Inputs, work: Work) -> Outcome:
    """Fine-tune the model on the data."""
    return supervised.run(config, inputs, work)
