"""Wherever a stage fills the accelerator's memory, it ends with one message and what needs less."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from r1pipe.errors import EnvironmentUnfit
from r1pipe.stage import StageConfig
from stages import VERBS
from tests.tiny_model import inputs, workplace

GENERATE = "r1pipe.rollout.local.TransformersEngine.generate"
ROWS = [{"prompt": "copy red", "completion": "red", "text": "copy red"}] * 4
ASKED = {"task": "countdown", "template": "chat", "max_new_tokens": 8, "engine": "transformers"}
RATE = {"samples": 1, "least": 0, "most": 1}
CONFIGS: dict[str, dict[str, Any]] = {
    "rl": {"model": "base", **ASKED, "prompts_per_step": 2, "group_size": 2, "steps": 1, "pass_rate": RATE},
    "sft": {"model": "base", "data": "rows"},
    "pretrain": {"data": "rows", "hidden_size": 32, "layers": 1, "heads": 1},
    "sample": {"model": "base", **ASKED, "prompts": 2},
    "evaluate": {
        "models": "base",
        "sets": {"some": {"task": "countdown", "problems": 2, "samples": 1}},
        **{key: value for key, value in ASKED.items() if key != "task"},
    },
}


@pytest.mark.parametrize(
    ("verb", "filled", "option"),
    [
        pytest.param("rl", "r1pipe.train.models.open_model", "`micro_batch`", id="rl opens a model"),
        pytest.param("rl", GENERATE, "`lora: {", id="rl measures"),
        pytest.param("rl", "r1pipe.train.grpo.Policy.__init__", "`micro_tokens`", id="rl makes a trainer"),
        pytest.param("rl", "r1pipe.train.steps.Stepping.training_step", "`micro_batch`", id="rl trains"),
        pytest.param("sft", "r1pipe.train.sft.Supervised.training_step", "`micro_batch`", id="sft trains"),
        pytest.param(
            "pretrain", "r1pipe.train.running.FiniteTrainer.training_step", "`batch_size`", id="pretrain"
        ),
        pytest.param("sample", GENERATE, "`batch`", id="sample"),
        pytest.param("evaluate", GENERATE, "`batch`", id="evaluate"),
    ],
)
def test_a_full_memory_has_ways_out(
    verb: str, filled: str, option: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torch raises while a model is opened, asked or trained; the options are the stage's own."""

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(map(json.dumps, ROWS)))
    module = VERBS.module(verb)
    config: StageConfig = module.Config.model_validate(CONFIGS[verb])
    given = {role: rows if role == "data" else tiny for role in ("model", "models", "data")}
    work, _ = workplace(tmp_path / verb)
    monkeypatch.setattr(filled, full)
    with pytest.raises(
        EnvironmentUnfit, match=r"memory is full: CUDA out of memory\. Tried to allocate 2 GiB"
    ) as raised:
        module.run(config, inputs(**given), work)
    assert option in str(raised.value)
