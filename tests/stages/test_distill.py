"""The distill stage: fine-tuning of a student with the paper's settings, and on its own answers."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from r1pipe.checkpoint import parameters
from r1pipe.errors import Interrupted, RunFailed, UsageError
from r1pipe.stage import Findings, counted, references
from stages import distill, sft
from tests.tiny_model import difference, inputs, timeless, workplace, write_tiny


def config(**changes: Any) -> distill.Config:
    return distill.Config.model_validate({"model": "student", "data": "traces", **changes})


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    """Eight traces of two prompts."""
    rows = [
        {
            "prompt": f"nums {a} 2 to 3 <think>",
            "completion": "1 + 2 = 3 yes </think> <answer> 1 + 2 </answer>",
        }
        for a in (1, 5)
    ]
    path = tmp_path / "traces.jsonl"
    path.write_text("\n".join([json.dumps(row) for row in rows] * 4))
    return path


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(folder / "model.safetensors"))


# --- The paper's settings


def test_the_papers_settings() -> None:
    """Section 2.4 and its supplement: a cosine to a tenth, batch 64, two to three epochs."""
    told = config()
    assert (told.learning_rate, told.scheduler, told.floor) == (None, "cosine", 0.1)
    assert (told.batch_size, told.epochs) == (64, 3.0)
    assert sft.Config(model="m", data=["d"]).learning_rate == 5e-5


@pytest.mark.parametrize(
    ("size", "family", "rate"),
    [
        (1.54e9, "qwen2", 1e-4),
        (7.62e9, "qwen2", 8e-5),
        (8.03e9, "llama", 5e-5),
        (8.19e9, "qwen3", 8e-5),  # the 8B Llama is nearer by size alone
        (7.25e9, "mistral", 8e-5),
        (14.8e9, "qwen2", 7e-5),
        (32.8e9, "qwen2", 6e-5),
        (70.6e9, "llama", 2e-5),
        (671e9, "deepseek_v3", 2e-5),
        (150e3, "llama", 1e-4),
    ],
)
def test_the_learning_rate_of_a_size(size: float, family: str, rate: float) -> None:
    """The paper's six give their own; others that of the nearest, by the ratio of their sizes."""
    assert distill.nearest(size, family)[3] == rate


def test_what_was_chosen_is_told(tmp_path: Path) -> None:
    """With the student it is taken from, and a hint for one that is far smaller than any of the paper's."""
    student = write_tiny(tmp_path / "student")
    from transformers import AutoModelForCausalLM

    size = AutoModelForCausalLM.from_pretrained(student).num_parameters()
    assert parameters(student) == size
    rate, said = distill.chosen_rate(config(), student)
    assert rate == 1e-4
    assert said == (
        f"Learning rate 0.0001: the paper's for Qwen2.5-Math-1.5B, the nearest to {size:,} parameters. "
        "A student so much smaller may take more: set `learning_rate`."
    )
    assert distill.chosen_rate(config(lora={"r": 4}), student)[0] == 2e-4
    assert distill.chosen_rate(config(on_policy={"teacher": "t"}), student)[0] == 1e-6


def test_a_student_is_published(tmp_path: Path, traces: Path) -> None:
    """The loss falls, the folder opens, and what was chosen, what is coming and whether it stops is said."""
    from transformers import AutoModelForCausalLM

    student = write_tiny(tmp_path / "student")
    work, ear = workplace(tmp_path / "student-sft")
    learning = config(epochs=40, batch_size=4, learning_rate="1e-2", log_every=1, stop_check={"least": 0.9})
    outcome = distill.run(learning, inputs(model=student, data=traces), work)
    assert ear.rows[-1]["loss"] < ear.rows[0]["loss"]
    assert AutoModelForCausalLM.from_pretrained(outcome.path).num_parameters() > 0
    assert "8 rows of 19 tokens (the longest 19), 152 an epoch, 104 of them learnt" in ear.said
    assert "x 40 epochs = 6.08k tokens in 80 steps of 4 rows: about " in ear.said
    assert "100 % of 2 answers to training prompts end by themselves" in ear.said
    assert (outcome.metrics["stops"], outcome.metrics["stop_prompts"]) == (1.0, 2)
    assert "Learning rate" not in ear.said and outcome.metrics["peak_learning_rate"] == 1e-2


def test_a_student_that_does_not_stop_fails_where_it_has_to(tmp_path: Path, traces: Path) -> None:
    """One step teaches no EOS. A lower bound then publishes what was trained, and nothing is trained anew."""
    student = write_tiny(tmp_path / "student")
    work, _ = workplace(tmp_path / "run")
    short = {"epochs": 1, "batch_size": 8, "log_every": 1}
    strict = config(**short, stop_check={"least": 0.5})
    with pytest.raises(RunFailed, match="0 % of 2 answers to training prompts end by themselves"):
        distill.run(strict, inputs(model=student, data=traces), work)
    work, ear = workplace(tmp_path / "run")
    loose = config(**short)
    assert counted(strict) == counted(loose)  # the same fingerprint: the work is gone on with
    outcome = distill.run(loose, inputs(model=student, data=traces), work)
    assert (outcome.metrics["step"], outcome.metrics["stops"], ear.rows) == (1, 0.0, [])
    assert "it may not know when to stop" in ear.said


def test_rows_that_are_too_long_are_counted_with_their_lengths(tmp_path: Path, traces: Path) -> None:
    """None is cut: those over the student's context, or over `max_length`, are set aside."""
    long = [{"prompt": "nums", "completion": "9 " * n} for n in (70, 90)]
    traces.write_text(traces.read_text() + "\n" + "\n".join(map(json.dumps, long)))
    student = write_tiny(tmp_path / "student")
    work, ear = workplace(tmp_path / "run")
    short = {"epochs": 1, "batch_size": 8, "stop_check": {"prompts": 0}}
    outcome = distill.run(config(**short), inputs(model=student, data=traces), work)
    told = "Those too long have 72 to 92 tokens, 164 in all; the model's context holds 64. None is cut."
    assert told in ear.said
    assert (outcome.metrics["rows"], outcome.metrics["too_long"]) == (8, 2)
    assert "Learning rate 0.0001" in ear.said and outcome.metrics["peak_learning_rate"] == 1e-4
    kept = [json.loads(line) for line in (outcome.path / "set-aside.jsonl").read_text().splitlines()]
    assert [row["tokens"] for row in kept] == [72, 92]
    work, ear = workplace(tmp_path / "shorter")
    with pytest.raises(UsageError, match="at most 18 tokens"):
        distill.run(config(**short, max_length=18), inputs(model=student, data=traces), work)
    assert "have 19 to 92 tokens, 316 in all; `max_length` holds 18" in ear.said


def test_a_longer_context_takes_longer_rows(tmp_path: Path, traces: Path) -> None:
    """With `rope` the same rows fit, and the published student says so to whoever opens it."""
    traces.write_text(traces.read_text() + "\n" + json.dumps({"prompt": "nums", "completion": "9 " * 70}))
    student = write_tiny(tmp_path / "student")
    work, ear = workplace(tmp_path / "run")
    longer = config(epochs=1, batch_size=3, rope={"factor": 2, "theta": 50000}, stop_check={"prompts": 0})
    outcome = distill.run(longer, inputs(model=student, data=traces), work)
    assert outcome.metrics["rows"] == 9
    assert "The context is 128 tokens for 64: RoPE's base is 50,000 for 10,000." in ear.said
    written = json.loads((outcome.path / "config.json").read_text())
    assert (written["max_position_embeddings"], written["rope_parameters"]["rope_theta"]) == (128, 50000.0)


def test_several_students_of_one_set_of_traces() -> None:
    """A recipe says so with a stage each; what differs is the student."""
    from r1pipe.recipe import parse_recipe
    from stages import VERBS

    text = """
name: students
stages:
  small: {uses: distill, model: ./a, data: ./t.jsonl}
  large: {uses: distill, model: ./b, data: ./t.jsonl, rope: {factor: 8, theta: 300000}}
"""
    recipe = parse_recipe(text, "students.yaml", VERBS, files_exist=False)
    rates = [recipe.stages[name].config.learning_rate for name in ("small", "large")]  # type: ignore[attr-defined]
    assert rates == [None, None]


# --- On the student's own answers


def on_policy(**changes: Any) -> distill.Config:
    section = {"teacher": "r1", "steps": 2, "max_new_tokens": 8}
    return config(
        **{
            "on_policy": section,
            "batch_size": 4,
            "micro_batch": 2,
            "learning_rate": 1e-2,
            "log_every": 1,
            "save_every": 1,
            **changes,
        }
    )


def given(student: Path, traces: Path, teacher: Path) -> Any:
    return inputs(**{"model": student, "data": traces, "on_policy.teacher": teacher})


def trained_teacher(folder: Path) -> Path:
    """A tiny model with the student's vocabulary and other weights."""
    import torch
    from transformers import AutoModelForCausalLM

    write_tiny(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(7)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return folder


def test_the_teacher_is_an_input() -> None:
    """By its role in the recipe, so that the graph and the fingerprint know it."""
    found = [(each.role, each.value) for each in references(on_policy())]
    assert ("on_policy.teacher", "r1") in found


@pytest.mark.parametrize("lora", [None, {"r": 2}], ids=["whole", "lora"])
def test_two_steps_on_its_own_answers(lora: Any, tmp_path: Path, traces: Path) -> None:
    """A real teacher and student on the CPU: the student moves, its divergence is logged, it is published."""
    student, teacher = write_tiny(tmp_path / "student"), trained_teacher(tmp_path / "teacher")
    work, ear = workplace(tmp_path / "run")
    outcome = distill.run(on_policy(lora=lora), given(student, traces, teacher), work)
    assert [row["step"] for row in ear.rows] == [1, 2]
    assert all(row["divergence"] > 0 and row["length"] <= 8 for row in ear.rows)
    assert outcome.metrics["prompts"] == 2
    assert difference(weights(student), weights(outcome.path)) > 1e-4
    assert outcome.tokens is not None and outcome.tokens > 0


def test_interrupted_is_uninterrupted(tmp_path: Path, traces: Path) -> None:
    """Three steps in one go and with a stop after the first: equal bit for bit, and in their rows."""
    student, teacher = write_tiny(tmp_path / "student"), trained_teacher(tmp_path / "teacher")
    three = on_policy(on_policy={"teacher": "r1", "steps": 3, "max_new_tokens": 8})
    work, ear = workplace(tmp_path / "whole")
    whole = distill.run(three, given(student, traces, teacher), work)
    work, first = workplace(tmp_path / "parts", stop_after=1)
    with pytest.raises(Interrupted):
        distill.run(three, given(student, traces, teacher), work)
    work, second = workplace(tmp_path / "parts")
    parts = distill.run(three, given(student, traces, teacher), work)
    assert timeless(ear.rows) == timeless(first.rows + second.rows)
    assert difference(weights(whole.path), weights(parts.path)) == 0.0


def test_a_student_that_is_its_own_teacher_stays(tmp_path: Path, traces: Path) -> None:
    """The divergence from itself is 0, whatever it answers."""
    student = write_tiny(tmp_path / "student")
    work, ear = workplace(tmp_path / "run")
    one = on_policy(on_policy={"teacher": "r1", "steps": 1, "max_new_tokens": 8})
    distill.run(one, given(student, traces, student), work)
    assert ear.rows[0]["divergence"] == pytest.approx(0.0, abs=1e-6)


def test_another_vocabulary_is_refused_before_training(tmp_path: Path, traces: Path) -> None:
    """A token that means another thing, and outputs that are more; neither teacher's weights are read."""
    student, teacher = write_tiny(tmp_path / "student"), write_tiny(tmp_path / "teacher")
    written = json.loads((teacher / "tokenizer.json").read_text())
    vocabulary = written["model"]["vocab"]
    vocabulary["nums"], vocabulary["to"] = vocabulary["to"], vocabulary["nums"]
    (teacher / "tokenizer.json").write_text(json.dumps(written))
    (teacher / "model.safetensors").unlink()
    work, _ = workplace(tmp_path / "run")
    with pytest.raises(UsageError, match=r"2 tokens differ, e.g. 'nums' is number .* leave out `on_policy`"):
        distill.run(on_policy(), given(student, traces, teacher), work)
    wide = write_tiny(tmp_path / "wide")
    settings = json.loads((wide / "config.json").read_text())
    (wide / "config.json").write_text(json.dumps(settings | {"vocab_size": settings["vocab_size"] + 3}))
    with pytest.raises(UsageError, match=r"TRL compares them one by one.*resize_token_embeddings"):
        distill.run(on_policy(), given(student, traces, wide), work)


def test_answers_need_room(tmp_path: Path, traces: Path) -> None:
    """Prompts that leave none are left out; with none left the message says what to lower."""
    student = write_tiny(tmp_path / "student")
    work, _ = workplace(tmp_path / "run")
    long = on_policy(on_policy={"teacher": "r1", "max_new_tokens": 62})
    with pytest.raises(UsageError, match=r"the context leaves 2 tokens beside `on_policy.max_new_tokens`"):
        distill.run(long, given(student, traces, student), work)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": 2}, "set on_policy.steps in place of epochs"),
        ({"rope": {"factor": 2, "type": "yarn"}}, "stretch the student in a stage before"),
        ({"processes": 2}, "on_policy runs on one process"),
    ],
)
def test_what_does_not_go_with_it(changes: dict[str, Any], said: str) -> None:
    """Named when the recipe is read."""
    with pytest.raises(ValidationError, match=said):
        on_policy(**changes)


def test_trls_options_are_those_of_its_trainer() -> None:
    """With `on_policy` they are DistillationConfig's."""
    assert distill.check(on_policy(trainer={"max_grad_norm": 0.5})) == Findings()
    assert distill.check(on_policy(trainer={"beta": 0.5, "learning_rat": 1})).wrong == [
        "trainer.beta: set `on_policy.beta` on the stage instead",
        "trainer.learning_rat: DistillationConfig has no such option; did you mean `learning_rate`, on the "
        "stage itself?",
    ]
