"""The distill stage: fine-tuning of a student with the paper's settings."""

import json
from pathlib import Path

from stages import distill, sft
from tests.tiny_model import inputs, workplace, write_tiny


def test_the_papers_settings() -> None:
    """Section 2.4 and its supplement: lr 1e-4 at 1.5B falling to a tenth, batch 64, two to three epochs."""
    config = distill.Config(model="student", data=["traces"])
    assert (config.learning_rate, config.floor, config.batch_size, config.epochs) == (1e-4, 0.1, 64, 3.0)
    assert sft.Config(model="m", data=["d"]).learning_rate == 5e-5


def test_a_student_is_published(tmp_path: Path) -> None:
    """A run on four traces: the loss falls and the folder opens."""
    from transformers import AutoModelForCausalLM

    student = write_tiny(tmp_path / "student")
    traces = tmp_path / "traces.jsonl"
    row = {"prompt": "nums 1 2 to 3 <think>", "completion": "1 + 2 = 3 yes </think> <answer> 1 + 2 </answer>"}
    traces.write_text("\n".join([json.dumps(row)] * 4))
    work, ear = workplace(tmp_path / "student-sft")
    config = distill.Config.model_validate(
        {"model": "s", "data": "t", "epochs": 5, "batch_size": 4, "learning_rate": "1e-2", "log_every": 1}
    )
    outcome = distill.run(config, inputs(model=student, data=traces), work)
    assert ear.rows[-1]["loss"] < ear.rows[0]["loss"]
    assert AutoModelForCausalLM.from_pretrained(outcome.path).num_parameters() > 0
