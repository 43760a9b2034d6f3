"""Every loss against its paper's formula, written out here for one completion after the other.

Two optimiser steps share a rollout, so the first is taken at the ratio 1 and the second away from it. What
the formulas are computed from is a pass over each completion alone, in double precision, of copies of the
weights before the step; the advantages come from the rewards that the tests' script gave. Compared are the
loss that was logged and, since the optimiser is plain SGD, the gradient of every weight, by how far it moved.

The passes of the trainer hold three completions or 60 tokens; a step has twelve completions of 2 to 16
tokens, of which those of a flat group and an undecided one are not computed where nothing pulls on them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
import torch

from r1pipe.train import grpo
from r1pipe.train.micro_batches import Bounds
from tests.tiny_rl import (
    GROUP,
    Drawn,
    Recording,
    Step,
    distribution,
    logps,
    policy_of,
    record,
    total,
    write_talker,
)

LIMIT = 16  # max_completion_length
MINIBATCHES = 2


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model whose completions are of all lengths; read only."""
    return write_talker(tmp_path_factory.mktemp("talker"))


@dataclass
class Row:
    """What a formula is given of one completion; tensors are [tokens]."""

    new: torch.Tensor
    """log π of the drawn tokens, with gradients."""
    old: torch.Tensor
    advantage: float
    entropy: torch.Tensor
    reference: torch.Tensor
    truncated: bool
    """Whether the limit cut it off."""

    @property
    def ratio(self) -> torch.Tensor:
        return (self.new - self.old).exp()

    @property
    def sequence_ratio(self) -> torch.Tensor:
        """GSPO (2507.18071), equation 7: the geometric mean of its tokens' ratios."""
        return (self.new - self.old).mean().exp()


Loss = Callable[[Sequence[Row], float], torch.Tensor]
"""Of a step's completions, and the tokens of the rollout divided by its steps."""


def pessimistic(ratio: torch.Tensor, advantage: float, low: float = 0.2, high: float = 0.2) -> torch.Tensor:
    """PPO's min(r A, clip(r, 1 - low, 1 + high) A)."""
    return torch.min(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def by_completion(terms: Sequence[torch.Tensor]) -> torch.Tensor:
    """1/N Σ_i 1/|o_i| Σ_t: DeepSeekMath's outer sums."""
    return torch.stack([each.mean() for each in terms]).mean()


def all_tokens(terms: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack([each.sum() for each in terms]).sum()


def grpo_loss(rows: Sequence[Row], share: float) -> torch.Tensor:
    """DeepSeekMath (2402.03300), equation 3, without the KL term."""
    return -by_completion([pessimistic(row.ratio, row.advantage) for row in rows])


def dr_grpo_loss(rows: Sequence[Row], share: float) -> torch.Tensor:
    """Dr. GRPO (2503.20783), section 3.2: 1/|o_i| becomes a constant, here 1/max_completion_length."""
    return -all_tokens([pessimistic(row.ratio, row.advantage) for row in rows]) / (len(rows) * LIMIT)


def dapo_loss(rows: Sequence[Row], share: float) -> torch.Tensor:
    """DAPO (2503.14476), equation 8, but for the divisor: the paper's Σ|o_i| is of the step's completions,
    TRL takes the mean of the rollout's steps."""
    return -all_tokens([pessimistic(row.ratio, row.advantage) for row in rows]) / share


def clip_higher_loss(rows: Sequence[Row], share: float) -> torch.Tensor:
    """DAPO, equation 10: another bound above 1 than below it."""
    return -all_tokens([pessimistic(row.ratio, row.advantage, 0.1, 0.6) for row in rows]) / share


def bnpo_loss(rows: Sequence[Row], share: float) -> torch.Tensor:
    """The mean over all tokens of the step, DAPO's equation 8 to the letter."""
    tokens = sum(len(row.new) for row in rows)
    return -all_tokens([pessimistic(row.ratio, row.advantage) for row in rows]) / tokens


def gspo_loss(rows: Sequence[Row], share: float) -> torch.Tensor:
    """GSPO (2507.18071), equation 5."""
    terms = [pessimistic(row.sequence_ratio, row.advantage, 0.02, 0.03) for row in rows]
    return -torch.stack(terms).mean()


def luspo_loss(rows: Sequence[Row], share: float) -> torch.Tensor:
    """LUSPO (2602.05261): GSPO's terms, each times its completion's length."""
    terms = [len(row.new) * pessimistic(row.sequence_ratio, row.advantage, 0.02, 0.03) for row in rows]
    return -torch.stack(terms).mean()


def cispo_loss(rows: Sequence[Row], share: float) -> torch.Tensor:
    """MiniMax-M1 (2506.13585), equation 4: no token is left out, only its weight is bounded, and carries no
    gradient. Bounded above alone, as in the paper's experiments; the divisor is as in `dapo_loss`."""
    terms = [row.ratio.clamp(max=1.3).detach() * row.advantage * row.new for row in rows]
    return -all_tokens(terms) / share


def sapo_loss(rows: Sequence[Row], share: float) -> torch.Tensor:
    """SAPO (2511.20347), equations 5 and 6: the gate sigmoid(τ (r - 1)) 4/τ; τ is 1 for A > 0, else 1.05."""
    terms = []
    for row in rows:
        tau = 1.0 if row.advantage > 0 else 1.05
        terms.append(torch.sigmoid(tau * (row.ratio - 1)) * 4 / tau * row.advantage)
    return -by_completion(terms)


def vespo_loss(rows: Sequence[Row], share: float) -> torch.Tensor:
    """VESPO (2602.10693): φ(W) A log π with W the product of all ratios of a completion, and φ(W) =
    W^k exp(λ (1 - W)) without gradient: k = 2, λ = 3 for A ≥ 0, else k = 3, λ = 2. Divisor as in
    `dapo_loss`."""
    terms = []
    for row in rows:
        k, rate = (2.0, 3.0) if row.advantage >= 0 else (3.0, 2.0)
        whole = (row.new - row.old).sum().exp().detach()
        terms.append(whole**k * (rate * (1 - whole)).exp() * row.advantage * row.new)
    return -all_tokens(terms) / share


def k3(row: Row) -> torch.Tensor:
    """DeepSeekMath, equation 4: π_ref/π - log(π_ref/π) - 1."""
    log_ratio = row.reference - row.new
    return log_ratio.exp() - log_ratio - 1


def grpo_and_kl(rows: Sequence[Row], share: float) -> torch.Tensor:
    """DeepSeekMath, equation 3, whole: the KL term stands in the means, and is not weighted by the ratio."""
    return grpo_loss(rows, share) + 0.3 * by_completion([k3(row) for row in rows])


def dapo_and_kl(rows: Sequence[Row], share: float) -> torch.Tensor:
    """The KL term adds up as the tokens' losses do."""
    return dapo_loss(rows, share) + 0.3 * all_tokens([k3(row) for row in rows]) / share


def with_entropy(loss: Loss) -> Loss:
    """Less 0.1 × the mean entropy of all tokens of the step, whatever the loss divides by."""

    def whole(rows: Sequence[Row], share: float) -> torch.Tensor:
        tokens = sum(len(row.new) for row in rows)
        return loss(rows, share) - 0.1 * all_tokens([row.entropy for row in rows]) / tokens

    return whole


def without_truncated(loss: Loss) -> Loss:
    """What was cut off adds nothing; a mean over completions still counts it, one over tokens does not."""

    def whole(rows: Sequence[Row], share: float) -> torch.Tensor:
        assert {row.truncated for row in rows} == {True, False}
        kept = [row for row in rows if not row.truncated]
        return loss(kept, share) * (len(kept) / len(rows) if loss is grpo_loss else 1)

    return whole


MASKED = {"mask_truncated_completions": True}

SEQUENCE = {"importance_sampling_level": "sequence", "epsilon": 0.02, "epsilon_high": 0.03}

CASES: dict[str, tuple[dict[str, Any], Loss]] = {
    "grpo": ({"loss_type": "grpo"}, grpo_loss),
    "dr_grpo": ({"loss_type": "dr_grpo", "learning_rate": 0.3}, dr_grpo_loss),
    "dapo": ({"loss_type": "dapo"}, dapo_loss),
    "clip-higher": ({"loss_type": "dapo", "epsilon": 0.1, "epsilon_high": 0.6}, clip_higher_loss),
    "bnpo": ({"loss_type": "bnpo"}, bnpo_loss),
    "gspo": ({"loss_type": "grpo", **SEQUENCE}, gspo_loss),
    "luspo": ({"loss_type": "luspo", "learning_rate": 0.02, **SEQUENCE}, luspo_loss),
    "cispo": ({"loss_type": "cispo", "epsilon_high": 1.3}, cispo_loss),
    "sapo": ({"loss_type": "sapo"}, sapo_loss),
    "vespo": ({"loss_type": "vespo"}, vespo_loss),
    "kl": ({"loss_type": "grpo", "beta": 0.3}, grpo_and_kl),
    "kl of dapo": ({"loss_type": "dapo", "beta": 0.3}, dapo_and_kl),
    "entropy of grpo": (
        {"loss_type": "grpo", "entropy_coef": 0.1, "learning_rate": 0.2},
        with_entropy(grpo_loss),
    ),
    "entropy of dapo": (
        {"loss_type": "dapo", "entropy_coef": 0.1, "learning_rate": 0.2},
        with_entropy(dapo_loss),
    ),
    "truncated: mask, grpo": ({"loss_type": "grpo", **MASKED}, without_truncated(grpo_loss)),
    "truncated: mask, dapo": ({"loss_type": "dapo", **MASKED}, without_truncated(dapo_loss)),
    "temperature": ({"loss_type": "grpo", "temperature": 0.6, "beta": 0.3}, grpo_and_kl),
    "unscaled": ({"loss_type": "dapo", "scale_rewards": "none", "learning_rate": 0.3}, dapo_loss),
}


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient(name: str, talker: Path, tmp_path: Path) -> None:
    """Both steps' losses are the formula's to five digits, and so are their gradients."""
    options, loss = CASES[name]
    given = {"learning_rate": 0.1, **options}
    settings = grpo.Settings(bounds=Bounds(3, 60))
    recording = record(
        talker, tmp_path / "run", settings=settings, max_steps=2, steps_per_generation=MINIBATCHES, **given
    )
    advantages = advantages_of(recording.generated, given.get("scale_rewards", "group"))
    share = tokens_learned(recording.generated, given) / MINIBATCHES
    after = [recording.steps[1].weights, recording.weights]
    for step, row, weights in zip(recording.steps, recording.rows, after, strict=True):
        policy, rows = rows_of(talker, recording, step, advantages, given.get("temperature", 1.0))
        if step is recording.steps[1]:
            assert_off_policy(rows)
        value = loss(rows, share)
        assert row["loss"] == pytest.approx(value.item(), rel=1e-5, abs=1e-6)
        value.backward()
        for parameter, tensor in policy.named_parameters():
            moved = (step.weights[parameter] - weights[parameter]) / given["learning_rate"]
            torch.testing.assert_close(moved.double(), tensor.grad, rtol=1e-3, atol=2e-5)


def tokens_learned(drawn: Sequence[Drawn], options: Mapping[str, Any]) -> int:
    """Tokens of the rollout; of what was cut off where that is learned from."""
    masked = "mask_truncated_completions" in options
    return sum(len(d.rollout.token_ids) for d in drawn if not masked or d.rollout.finish == "stop")


def assert_off_policy(rows: Sequence[Row]) -> None:
    """Ratios that no clip would touch would prove no clip."""
    ratios = torch.cat([row.ratio for row in rows if row.advantage > 0]).detach()
    others = torch.cat([row.ratio for row in rows if row.advantage < 0]).detach()
    assert ratios.max() > 1.2 and others.min() < 0.8, "nothing would be clipped"
    assert ((ratios - 1).abs() < 0.15).any() and ((others - 1).abs() < 0.15).any(), "all would be clipped"


def advantages_of(drawn: Sequence[Drawn], scale: str) -> dict[int, float]:
    """By the identity of a completion: reward - mean over the decided of its group, / (spread + 1e-4)."""
    rewards = [total(each.judgement.rewards) for each in drawn]
    decided = [reward for reward in rewards if reward is not None]
    advantages = {}
    for start in range(0, len(drawn), GROUP):
        group = [reward for reward in rewards[start : start + GROUP] if reward is not None]
        spread = {"none": 1.0, "group": stdev(group) + 1e-4, "batch": stdev(decided) + 1e-4}[scale]
        for each, reward in zip(drawn[start : start + GROUP], rewards[start : start + GROUP], strict=True):
            advantages[id(each)] = 0.0 if reward is None else (reward - mean(group)) / spread
    return advantages


def rows_of(
    talker: Path, recording: Recording, step: Step, advantages: Mapping[int, float], temperature: float = 1.0
) -> tuple[torch.nn.Module, list[Row]]:
    """The policy of a step, and its completions, under it, the policy that drew them and the first of all."""
    policy, old = policy_of(talker, step.weights), policy_of(talker, recording.steps[0].weights)
    rows = []
    for drawn in step.drawn:
        every = distribution(policy, drawn, temperature)
        with torch.no_grad():
            before = logps(old, drawn, temperature)
        new = every.gather(1, torch.tensor(drawn.rollout.token_ids)[:, None])[:, 0]
        entropy = -(every.exp() * every).sum(-1)
        cut_off = drawn.rollout.finish == "length"
        rows.append(Row(new, before, advantages[id(drawn)], entropy, before, cut_off))
    return policy, rows
