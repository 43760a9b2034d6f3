"""The sft stage: from rows to a model that stops."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from r1pipe.errors import UsageError
from r1pipe.stage import Findings
from stages import sft
from tests.tiny_model import inputs, workplace


def config(**changes: Any) -> sft.Config:
    return sft.Config.model_validate({"model": "base", "data": "rows", **changes})


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Thirty-two good rows, a broken line and one longer than the context."""
    good = [
        {"prompt": f"copy {n} <think>", "completion": f"{n} </think> <answer> {n} </answer>"}
        for n in range(32)
    ]
    lines = [json.dumps(row) for row in good]
    lines += ['{"prompt": ', json.dumps({"prompt": "copy", "completion": "9 " * 70})]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines))
    return path


def test_a_model_learns_to_answer_and_to_stop(tiny: Path, rows: Path, tmp_path: Path) -> None:
    """After 200 steps on one form, greedy decoding of the published model gives that form and then the EOS.

    That it stops shows that the EOS was in the loss and that the generation config knows it.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    work, ear = workplace(tmp_path / "cold")
    learning = {"epochs": 50, "batch_size": 8, "learning_rate": "1e-2", "save_every": 1000, "log_every": 100}
    outcome = sft.run(config(**learning), inputs(model=tiny, data=rows), work)
    assert "2 rows were set aside: 1 not JSON, 1 longer than the context." in ear.said
    assert (outcome.metrics["rows"], outcome.metrics["set_aside"]) == (32, 2)
    assert len((outcome.path / "set-aside.jsonl").read_text().splitlines()) == 2
    model = AutoModelForCausalLM.from_pretrained(outcome.path)
    tokenizer = AutoTokenizer.from_pretrained(outcome.path)
    prompt = tokenizer("copy 5 <think>", return_tensors="pt")
    text = tokenizer.decode(model.generate(**prompt, do_sample=False, max_new_tokens=20)[0])
    words = text.split()
    assert [words[4], words[5], words[7], words[8]] == ["</think>", "<answer>", "</answer>", "<eos>"], text


def test_no_row_that_can_be_used(tiny: Path, tmp_path: Path) -> None:
    """The message counts the reasons and says what a row needs."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "q"}\n{"question": "r"}\n')
    work, _ = workplace(tmp_path / "cold")
    with pytest.raises(
        UsageError, match=r"2 were set aside \(no text in 'prompt' and 'completion'\).*needs text"
    ):
        sft.run(config(), inputs(model=tiny, data=path), work)


def test_limits_name_datasets() -> None:
    """A limit for a dataset that is not there is a mistake of spelling."""
    assert config(data=["a", "b"], limits={"a": 5}).limits == {"a": 5}
    with pytest.raises(ValidationError, match="limits names c, which is not in data: a, b"):
        config(data=["a", "b"], limits={"c": 5})


def test_trainer_options_are_checked() -> None:
    """The nearest option, or the stage's own field."""
    assert sft.check(config(trainer={"weight_decay": 0.1})) == Findings()
    assert sft.check(config(trainer={"padding_fre": True, "num_train_epochs": 2})).wrong == [
        "trainer.padding_fre: SFTConfig has no such option; did you mean 'padding_free'?",
        "trainer.num_train_epochs: set `epochs` on the stage instead",
    ]
    (said,) = sft.check(config(trainer={"packing": True})).wrong
    assert said.startswith("trainer.packing cannot be set: TRL's packing cuts what is too long")
