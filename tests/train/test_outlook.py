"""What a fine-tuning will be, in numbers."""

from pathlib import Path

import torch

from r1pipe.train import models, sft
from r1pipe.train.examples import Example
from r1pipe.train.outlook import Outlook


def test_rows_tokens_steps() -> None:
    """Five rows of 3 to 7 tokens, two of them prompt, one and a half epochs in batches of four: 25 tokens, 15
    of them learnt, and 8 rows (7.5, to the even) in two steps."""
    examples = [Example([5, 9, *range(20, 21 + i)], 2) for i in range(5)]
    outlook = Outlook.of(examples, 1.5, 4)
    assert outlook == Outlook(5, 25, 15, 7, 1.5, 4)
    assert (outlook.steps, outlook.all_tokens) == (2, 38)


def test_the_sentence() -> None:
    """With the time of a timed pass: 1,000,000 tokens of a millisecond are 16m 40s; and without."""
    outlook = Outlook(1000, 500_000, 450_000, 2048, 2.0, 64)
    told = (
        "1,000 rows of 500 tokens (the longest 2,048), 500k an epoch, 450k of them learnt x 2 epochs = 1M "
        "tokens in 32 steps of 64 rows"
    )
    assert (
        outlook.sentence(1e-3)
        == f"{told}: about 16m 40s and the optimiser's part, by a timed pass over a few rows."
    )
    assert outlook.sentence(None) == f"{told}. How long it takes, the first lines of the training tell."


def test_a_timed_pass_leaves_no_trace(tiny: Path) -> None:
    """Weights, gradients, the mode and the random numbers to come are what they were; the time is above 0."""
    model, _ = models.open_model(tiny)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    seconds = sft.seconds_per_token(model, [Example([5, 9, *range(20, 21 + i)], 2) for i in range(5)], 2)
    assert seconds is not None and seconds > 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.training
    assert torch.equal(state, torch.random.get_rng_state())
