"""LoRA: adapters train beside frozen weights, an interrupted run ends with the same bits, and what is
published is a whole model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from r1pipe.errors import EnvironmentUnfit, Interrupted, UsageError
from r1pipe.rollout import Rollout
from r1pipe.rollout.local import TransformersEngine
from r1pipe.rollout.weights import plain_weights
from r1pipe.stage import Findings
from r1pipe.train import grpo, lora, models, sft
from r1pipe.train.examples import Example
from r1pipe.train.grpo import Judgement, Prompt
from r1pipe.train.lora import Lora
from stages import distill, rl
from tests.tiny_model import Ear, difference, inputs, workplace

pytest.importorskip("peft", reason="the extra 'lora' is not installed")

Weights = dict[str, torch.Tensor]
SMALL = Lora(r=4, alpha=8)
PLAIN = grpo.Settings()
REFRESHED = grpo.Settings(refresh_every=2)
SHORTER = grpo.Settings(lengths={0: 12, 2: 6})
"""The trainer is made anew after the second step."""


def weights_of(model: Any) -> Weights:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def parity(batch: Sequence[tuple[Prompt, Rollout]]) -> list[Judgement]:
    """Rewards that differ within a group."""
    return [Judgement({"even": sum(r.token_ids) % 2 + len(set(r.token_ids)) / 20}, True) for _, r in batch]


def reinforce(
    tiny: Path,
    folder: Path,
    steps: int,
    *,
    stop_after: int | None = None,
    added: grpo.Settings = PLAIN,
    settings: Lora = SMALL,
    **options: Any,
) -> tuple[Any, Weights, Ear]:
    """Train by GRPO in `folder`, from its last checkpoint if it has one."""
    work, ear = workplace(folder, stop_after=stop_after)
    model, tokenizer = lora.open_policy(tiny, settings, work)
    texts = [f"nums {row} 4 7 to {row} <think>" for row in range(1, steps * 2 + 1)]
    prompts = [Prompt(row, text, tokenizer(text)["input_ids"]) for row, text in enumerate(texts)]
    engine = TransformersEngine(model, eos_id=tokenizer.eos_token_id, pad_id=tokenizer.pad_token_id)
    passed_on = {
        "num_generations": 4,
        "per_device_train_batch_size": 8,
        "max_completion_length": 12,
        "learning_rate": 5e-2,
        "save_steps": 2,
        "max_steps": steps,
        **options,
    }
    try:
        grpo.train(model, tokenizer, prompts, parity, {"even": 1.0}, engine, passed_on, work, added)
    except Interrupted:
        assert stop_after is not None
    return model, weights_of(model), ear


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="plain"),
        pytest.param({"beta": 0.05}, id="with a reference"),
        pytest.param({"beta": 0.05, "added": REFRESHED}, id="a reference that is refreshed"),
        pytest.param({"beta": 0.05, "added": SHORTER}, id="a schedule"),
        pytest.param({"settings": Lora(r=2, dropout=0.2)}, id="with dropout"),
    ],
)
def test_rl_interrupted_is_uninterrupted(options: dict[str, Any], tiny: Path, tmp_path: Path) -> None:
    """Five steps in one go, and five with a stop after the third: every weight is equal bit for bit, those of
    the reference's adapter included, and so is what was logged."""
    _, whole, ear = reinforce(tiny, tmp_path / "whole", 5, **options)
    _, _, first = reinforce(tiny, tmp_path / "parts", 5, stop_after=3, **options)
    _, resumed, second = reinforce(tiny, tmp_path / "parts", 5, **options)
    assert [row["step"] for row in first.rows + second.rows] == [1, 2, 3, 4, 5]
    moved = [
        name for name, value in whole.items() if ".default." in name and "lora_B" in name and value.any()
    ]
    assert len(moved) == 14, "seven linear layers in each of two blocks"
    assert difference(whole, resumed) == 0.0
    told = [{k: row[k] for k in ("loss", "reward", "entropy", "grad_norm")} for row in ear.rows]
    again = [{k: row[k] for k in told[0]} for row in first.rows + second.rows]
    assert told == again


def test_the_reference_is_the_model_without_adapters(tiny: Path, tmp_path: Path) -> None:
    """No second model is held: the KL is 0 at the first step, when the adapters do nothing, and not after;
    where the reference was refreshed before a rollout it is 0 again."""
    _, _, ear = reinforce(tiny, tmp_path / "kept", 3, beta=0.05)
    assert ear.rows[0]["kl"] == 0.0
    assert ear.rows[1]["kl"] > 1e-6 and ear.rows[2]["kl"] > 1e-6
    _, weights, ear = reinforce(tiny, tmp_path / "refreshed", 3, beta=0.05, added=REFRESHED)
    assert ear.rows[1]["kl"] > 1e-6 and ear.rows[2]["kl"] == pytest.approx(0.0, abs=1e-9)
    reference = {n: v for n, v in weights.items() if ".ref." in n and "lora_B" in n}
    assert reference and all(value.any() for value in reference.values())


def test_only_adapters_are_trained(tiny: Path, tmp_path: Path) -> None:
    """The frozen weights keep every bit, and how much is trained is said."""
    _, after, ear = reinforce(tiny, tmp_path / "run", 1)
    before = weights_of(models.open_model(tiny)[0])
    frozen = {
        name.removeprefix("base_model.model.").replace(".base_layer", ""): value
        for name, value in after.items()
        if ".lora_" not in name
    }
    assert difference(frozen, before) == 0.0
    trained = sum(value.numel() for name, value in after.items() if ".lora_" in name)
    assert f"LoRA of rank 4: {trained:,} parameters are trained" in ear.said


def test_the_merged_model_answers_as_the_trained_one(tiny: Path, tmp_path: Path) -> None:
    """What is published opens without PEFT, has the shape of the base and the logits of base and adapter; the
    adapter beside it, put on the base, has them too and names no path."""
    from peft import PeftModel

    model, _, _ = reinforce(tiny, tmp_path / "run", 2, beta=0.05)
    ids = torch.tensor([[5, 9, 20, 21, 30]])
    trained = model.eval()(ids).logits
    named = dict(plain_weights(model))
    _, tokenizer = models.open_model(tiny)
    folder = lora.publish_policy(model, tokenizer, tmp_path / "published")
    merged = AutoModelForCausalLM.from_pretrained(folder)
    base, _ = models.open_model(tiny)
    assert difference(weights_of(merged), named) == 0.0, "an engine is given what is published"
    assert {n: v.shape for n, v in weights_of(base).items()} == {n: v.shape for n, v in named.items()}
    assert (merged(ids).logits - trained).abs().max() < 1e-5
    assert (base(ids).logits - trained).abs().max() > 1e-3
    assert sorted(path.name for path in (folder / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] is None
    assert config["target_modules"] == sorted(config["target_modules"])
    again = PeftModel.from_pretrained(base, folder / "adapter")
    assert (again(ids).logits - trained).abs().max() < 1e-5


def test_merging_on_the_way_leaves_the_policy_as_it_was(tiny: Path, tmp_path: Path) -> None:
    """An engine may take the weights over after every step; no bit of the policy changes by it."""
    model, before, _ = reinforce(tiny, tmp_path / "run", 1)
    list(plain_weights(model))
    assert difference(before, weights_of(model)) == 0.0


def examples() -> list[Example]:
    return [Example([5 + i, 9, *range(20, 22 + i), 1], 2) for i in range(12)]


def tune(tiny: Path, folder: Path, stop_after: int | None = None) -> Weights:
    work, _ = workplace(folder, stop_after=stop_after)
    model, tokenizer = lora.open_policy(tiny, Lora(r=4, dropout=0.1), work)
    options = {"per_device_train_batch_size": 4, "learning_rate": 1e-2, "save_steps": 2, "logging_steps": 1}
    try:
        sft.train(model, tokenizer, examples(), 2, 4, options, work)
    except Interrupted:
        assert stop_after is not None
    return weights_of(model)


def test_sft_interrupted_is_uninterrupted(tiny: Path, tmp_path: Path) -> None:
    """Six steps with dropout, in one go and with a stop after the third: equal bit for bit."""
    whole = tune(tiny, tmp_path / "whole")
    tune(tiny, tmp_path / "parts", stop_after=3)
    assert any(value.any() for name, value in whole.items() if "lora_B" in name)
    assert difference(whole, tune(tiny, tmp_path / "parts")) == 0.0


def test_a_stage_publishes_a_whole_model(tiny: Path, tmp_path: Path) -> None:
    """`distill` with `lora: {r: 2}` from the recipe's words: any later stage opens what it made."""
    rows = [{"prompt": f"copy {word}", "completion": word} for word in ("red", "blue", "green", "one")]
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    config = distill.Config.model_validate(
        {
            "model": "base",
            "data": "rows",
            "lora": {"r": 2},
            "epochs": 1,
            "batch_size": 2,
            "learning_rate": "1e-2",
        }
    )
    work, _ = workplace(tmp_path / "student")
    outcome = distill.run(config, inputs(model=tiny, data=data), work)
    assert (outcome.path / "adapter" / "adapter_model.safetensors").is_file()
    after, before = weights_of(models.open_model(outcome.path)[0]), weights_of(models.open_model(tiny)[0])
    assert {n for n in after if not torch.equal(after[n], before[n])} == {n for n in after if "proj" in n}


def test_rl_publishes_a_whole_model(tiny: Path, tmp_path: Path) -> None:
    """`rl` with `lora` and a reference that is refreshed, from the recipe's words."""
    small = {"group_size": 2, "prompts_per_step": 2, "micro_batch": 4, "steps": 2, "max_new_tokens": 8}
    config = rl.Config.model_validate(
        {
            "model": "b",
            "task": "countdown",
            "template": "chat",
            "lora": {"r": 2},
            "kl": 0.01,
            "reference_every": 1,
            **small,
        }
    )
    work, ear = workplace(tmp_path / "zero")
    outcome = rl.run(config, inputs(model=tiny), work)
    assert [row["step"] for row in ear.rows] == [1, 2]
    assert (outcome.path / "adapter" / "adapter_model.safetensors").is_file()
    assert set(weights_of(models.open_model(outcome.path)[0])) == set(weights_of(models.open_model(tiny)[0]))


def test_the_first_adapter_is_a_function_of_the_seed(tiny: Path) -> None:
    """And nothing else that draws is moved by it."""
    torch.manual_seed(3)
    one, same, other = (weights_of(lora.wrap(models.open_model(tiny)[0], SMALL, seed)) for seed in (0, 0, 1))
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))
    assert difference(one, same) == 0.0 and difference(one, other) > 0.0


def test_targets_that_the_model_does_not_have(tiny: Path, tmp_path: Path) -> None:
    """Refused with the name, before anything is trained."""
    work, _ = workplace(tmp_path / "run")
    with pytest.raises(UsageError, match=r"lora\.targets = \['query'\] fits none"):
        lora.open_policy(tiny, Lora(targets=["query"]), work)


@pytest.mark.parametrize("name", ["lm_head", "embed_tokens"])
def test_what_may_share_its_weights_takes_no_adapter(name: str) -> None:
    """TRL computes log-probabilities from the output's weights alone; the adapter would never be trained."""
    with pytest.raises(ValidationError, match=f"{name} takes no adapter"):
        Lora(targets=["q_proj", name])


@pytest.mark.parametrize("config", [distill.Config, rl.Config])
def test_a_model_in_parts_takes_no_adapters(config: Any) -> None:
    """Merging needs the whole weight; the way out is named."""
    given = {"model": "b", "lora": {"r": 2}, "parallel": "fsdp2"}
    own = {"data": "rows"} if config is distill.Config else {"task": "countdown"}
    with pytest.raises(ValidationError, match=r"lora does not go with parallel = fsdp2: .*set parallel: ddp"):
        config.model_validate(given | own)


def test_without_peft_it_is_refused_with_the_way_out(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the stage's check, before anything starts, and where it would be used."""
    monkeypatch.setattr(lora, "find_spec", lambda name: None)
    config = distill.Config.model_validate({"model": "base", "data": "rows", "lora": {"r": 2}})
    assert distill.check(config) == Findings(
        lacking=["lora: LoRA needs the package peft, which is not installed: pip install 'r1pipe[lora]'"]
    )
    assert distill.check(distill.Config.model_validate({"model": "base", "data": "rows"})) == Findings()
    with pytest.raises(EnvironmentUnfit, match="r1pipe"):
        lora.wrap(models.open_model(tiny)[0], SMALL, 0)


def test_the_reference_is_not_the_engine(tiny: Path, tmp_path: Path) -> None:
    """Where steps share a rollout the old policy's log-probabilities are the engine's, and the reference's
    are not: the KL of the second rollout's first step is that of two steps of training."""
    _, _, ear = reinforce(tiny, tmp_path / "run", 3, beta=0.05, steps_per_generation=2)
    assert ear.rows[0]["kl"] == pytest.approx(0.0, abs=1e-9)
    assert ear.rows[2]["kl"] > 1e-6
