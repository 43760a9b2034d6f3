"""A GRPO of a few steps on a tiny model, and all that it is a function of, noted down on the way.

What a test computes from the notes needs none of the code under test: the weights before each step, which
completions the step learned from, and the rewards that the test's own script gave them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from r1pipe.errors import Interrupted
from r1pipe.rollout import Engine, Rollout
from r1pipe.rollout.local import TransformersEngine
from r1pipe.train import grpo, models
from r1pipe.train.grpo import Judgement, Prompt
from r1pipe.train.micro_batches import Bounds, Micro
from tests.tiny_model import Ear, workplace, write_tiny

Weights = dict[str, torch.Tensor]

GROUP = 4

OPTIONS: dict[str, Any] = {
    "num_generations": GROUP,
    "per_device_train_batch_size": 3 * GROUP,
    "max_completion_length": 16,
    "max_steps": 1,
    "use_bias_correction_kl": False,
    "optim": "sgd",
    "max_grad_norm": 0.0,
    "learning_rate": 1.0,
    "save_steps": 100,
}
"""Three groups of four completions a step; the weights move by the gradient."""

SETTINGS = grpo.Settings(bounds=Bounds(3))
"""Three completions in a pass."""


def write_talker(folder: Path) -> Path:
    """A tiny model whose every eighth token or so is an EOS: completions are of all lengths by themselves."""
    model, tokenizer = models.open_model(write_tiny(folder))
    ids = torch.randint(5, len(tokenizer), (8, 24), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        hidden = model.model(input_ids=ids).last_hidden_state.flatten(0, 1)
        embedding = model.get_input_embeddings().weight
        # Scaled up, so that a learning rate of 1 moves ratios; along the mean of what is read out, the
        # embedding of the EOS raises its logit wherever it is asked.
        embedding *= 4
        mean = hidden.mean(0)
        others = (hidden @ embedding.T).logsumexp(-1).mean()
        embedding[tokenizer.eos_token_id] = mean / mean.square().sum() * (others - 1.9)
    model.save_pretrained(folder)
    return folder


@dataclass
class Drawn:
    """One completion that a step learned from."""

    prompt: Prompt
    rollout: Rollout
    judgement: Judgement


@dataclass
class Step:
    """One optimiser step."""

    weights: Weights
    """The policy's, before the step."""
    rows: Micro
    """What the trainer was given for it."""
    drawn: list[Drawn]
    """The completions of it, in the order of `rows`."""


@dataclass
class Recording:
    """A training, and what it did."""

    steps: list[Step]
    generations: list[list[Drawn]]
    """All that was generated, in order: a list for each call of the engine."""
    rows: list[dict[str, Any]]
    """Of metrics."""
    said: str
    weights: Weights
    """At its end."""

    @property
    def generated(self) -> list[Drawn]:
        return [drawn for generation in self.generations for drawn in generation]


Script = Callable[[Prompt, int, Rollout], Mapping[str, float | None]]
"""The rewards of a completion by its prompt, its place in its group, and itself."""


def unequal(prompt: Prompt, place: int, rollout: Rollout) -> Mapping[str, float | None]:
    """Of three groups one has two right, one is flat, and one has a completion that nobody can judge."""
    even, varied = [
        ((1, 0, 0, 1), (0.2, 0.0, 0.9, 0.4)),
        ((1, 1, 1, 1), (0.5, 0.5, 0.5, 0.5)),
        ((1, None, 0, 0), (0.3, None, 0.8, 0.1)),
    ][prompt.row % 3]
    return {"even": even[place], "varied": varied[place]}


WEIGHTS = {"even": 1.0, "varied": 0.5}


def total(rewards: Mapping[str, float | None]) -> float | None:
    """The weighted sum, None where nothing is known."""
    known = [WEIGHTS[name] * value for name, value in rewards.items() if value is not None]
    return sum(known) if known else None


def record(
    talker: Path,
    folder: Path,
    *,
    script: Script = unequal,
    settings: grpo.Settings = SETTINGS,
    engine: Callable[[Engine], Engine] = lambda engine: engine,
    stop_after: int | None = None,
    prompts: int = 12,
    seed: int = 0,
    **options: Any,
) -> Recording:
    """Train in `folder`, from its last checkpoint if it has one; `engine` may be put around the usual one."""
    model, tokenizer = models.open_model(talker)
    asked = []
    for row in range(prompts):
        text = f"nums {row % 12} 4 {'7 ' * (row % 3)}to {row} <think>"  # of three lengths
        asked.append(Prompt(row, text, tokenizer(text)["input_ids"]))
    usual = TransformersEngine(model, eos_id=tokenizer.eos_token_id, pad_id=tokenizer.pad_token_id)
    work, ear = workplace(folder, seed, stop_after=stop_after)
    notes = _Notes(script)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo, "Policy", _noted(notes))
        try:
            given = {**OPTIONS, **options}
            grpo.train(model, tokenizer, asked, notes.judge, WEIGHTS, engine(usual), given, work, settings)
        except Interrupted:
            assert stop_after is not None
    return notes.recording(ear, _copy(model))


class _Notes:
    def __init__(self, script: Script) -> None:
        self.script = script
        self.generations: list[list[Drawn]] = []
        self.steps: dict[int, Step] = {}

    def judge(self, batch: Sequence[tuple[Prompt, Rollout]]) -> list[Judgement]:
        judgements = []
        for i, (prompt, rollout) in enumerate(batch):
            rewards = self.script(prompt, i % GROUP, rollout)
            right = rewards["even"]
            judgements.append(Judgement(rewards, None if right is None else right == 1))
        self.generations.append([
            Drawn(prompt, rollout, judgement)
            for (prompt, rollout), judgement in zip(batch, judgements, strict=True)
        ])  # fmt: skip
        return judgements

    def take(self, number: int, model: torch.nn.Module, rows: Micro) -> None:
        """Note what the trainer is about to learn from in its step `number`."""
        generated = [drawn for generation in self.generations for drawn in generation]
        drawn = [generated[i] for i in rows["drawn"].tolist()]
        self.steps[number] = Step(_copy(model), rows, drawn)

    def numbers(self, judgements: Sequence[Judgement]) -> torch.Tensor:
        """Which of all completions so far these were given to."""
        known = [drawn.judgement for generation in self.generations for drawn in generation]
        places = {id(judgement): i for i, judgement in enumerate(known)}
        return torch.tensor([places[id(judgement)] for judgement in judgements])

    def recording(self, ear: Ear, weights: Weights) -> Recording:
        steps = [step for _, step in sorted(self.steps.items())]
        return Recording(steps, self.generations, ear.rows, ear.said, weights)


def _noted(notes: _Notes) -> type[grpo.Policy]:
    class Noted(grpo.Policy):
        def _generate_and_score_completions(self, inputs: list[Micro]) -> Micro:
            rows = super()._generate_and_score_completions(inputs)  # puts judgements into `inputs`
            # What is added here is shuffled and split with the rest.
            return rows | {"drawn": notes.numbers([each["judgement"] for each in inputs])}

        def _prepare_inputs(self, generation_batch: Any) -> Any:
            rows = super()._prepare_inputs(generation_batch)
            notes.take(self.state.global_step, self.model, dict(rows))
            return rows

    return Noted


def _copy(model: torch.nn.Module) -> Weights:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def policy_of(talker: Path, weights: Weights) -> LlamaForCausalLM:
    """A model of its own with these weights, in double precision and without anything that TRL put on it."""
    model = LlamaForCausalLM.from_pretrained(talker)
    model.load_state_dict(weights)
    return model.double().eval()


def distribution(policy: LlamaForCausalLM, drawn: Drawn, temperature: float = 1.0) -> torch.Tensor:
    """log p of every token before each drawn one, [tokens, vocabulary], by a pass over this one alone."""
    ids = torch.tensor([[*drawn.prompt.token_ids, *drawn.rollout.token_ids]])
    logits = policy(input_ids=ids, use_cache=False).logits[0, len(drawn.prompt.token_ids) - 1 : -1]
    return (logits / temperature).log_softmax(-1)


def logps(policy: LlamaForCausalLM, drawn: Drawn, temperature: float = 1.0) -> torch.Tensor:
    """log p of the drawn tokens, [tokens]."""
    tokens = torch.tensor(drawn.rollout.token_ids)
    return distribution(policy, drawn, temperature).gather(1, tokens[:, None])[:, 0]
