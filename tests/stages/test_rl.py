"""The rl stage: from a recipe's words to a policy that `from_pretrained` opens."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from r1pipe.errors import RunFailed, UsageError
from r1pipe.rewards import REWARDS
from r1pipe.stage import Findings, counted, references
from r1pipe.tasks import Item, mixture, task_spec
from r1pipe.tasks.rows import Rows
from r1pipe.train.determinism import derive_seed
from r1pipe.verify.verdict import Verdict, failed
from r1pipe.world.tokenizer import build_tokenizer
from stages import rl
from tests.small_rl import config
from tests.tiny_model import inputs, workplace, write_classifier


def test_a_policy_is_published(tiny: Path, tmp_path: Path) -> None:
    """Weights, config, an EOS in the generation config, and a tokenizer that splits words as it did
    before."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    work, ear = workplace(tmp_path / "zero")
    outcome = rl.run(config(), inputs(model=tiny), work)
    assert outcome.kind == "checkpoint"
    assert [row["step"] for row in ear.rows] == [1, 2]
    assert outcome.metrics["set_aside"] == 0
    assert not {"eta", "seconds_training", "tokens_per_second"} & set(outcome.metrics)
    assert outcome.tokens is not None and outcome.tokens >= 16 * 9  # 16 completions, 9 tokens of prompt each
    model = AutoModelForCausalLM.from_pretrained(outcome.path)
    tokenizer = AutoTokenizer.from_pretrained(outcome.path)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == 1
    assert model.config.use_cache is True
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "nums 1 12 3 to 34"}], tokenize=False, add_generation_prompt=True
    )
    assert tokenizer(prompt)["input_ids"] == build_tokenizer(64)(prompt)["input_ids"]
    assert not (outcome.path / "optimizer.pt").exists()


def test_what_was_asked_is_kept_beside_the_policy(tiny: Path, tmp_path: Path) -> None:
    """Every prompt of the training in order: two steps of four, as the run's seed draws them for RL."""
    work, _ = workplace(tmp_path / "zero", seed=3)
    outcome = rl.run(config(), inputs(model=tiny), work)
    rows = [json.loads(line) for line in (outcome.path / "prompts.jsonl").read_text().splitlines()]
    drawn = mixture([task_spec("countdown")], 8, derive_seed(3, "rl"))
    assert rows == [{"task": "countdown", "id": item.id, "question": item.question} for _, item in drawn]


def test_the_first_step_is_proved(tiny: Path, tmp_path: Path) -> None:
    """What was sampled is what is trained, but for rounding; said once, and not where it is turned off."""
    work, ear = workplace(tmp_path / "zero")
    rl.run(config(kl=0.01), inputs(model=tiny), work)
    assert ear.said.count("First step: ratio 1 (sampling differs by ") == 1 and ", KL " in ear.said
    assert {"repetition", "empty_thinking"} <= set(ear.rows[0])
    work, ear = workplace(tmp_path / "unproved")
    rl.run(config(guard={"proofs": False}), inputs(model=tiny), work)
    assert "First step" not in ear.said


def test_a_guard_starts_nothing_over() -> None:
    """A training that was stopped goes on with another guard: it has no part in the fingerprint."""
    assert counted(config(guard={"on": False, "window": 8})) == counted(config())


def test_a_template_that_ends_in_another_token_is_refused(tiny: Path, tmp_path: Path) -> None:
    """The model's generation config ends at the template's end of turn, the engine at the EOS alone."""
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("<eos>", "<|user|>"))
    generation = folder / "generation_config.json"
    generation.write_text(json.dumps(json.loads(generation.read_text()) | {"eos_token_id": [1, 3]}))
    work, ear = workplace(tmp_path / "zero")
    with pytest.raises(RunFailed, match=r"end a turn in '<\|user\|>', and the engine does not stop there"):
        rl.run(config(), inputs(model=folder), work)
    assert ear.rows == []


def test_what_cannot_be_asked_is_set_aside(tiny: Path, tmp_path: Path) -> None:
    """Of three rows one is broken, and one has 64 tokens where the context of 64 less 16 leaves room for 48:
    both are kept beside the policy with the reason.

    The third is asked in their place, so that every step still has all its prompts.
    """
    rows = [{"question": "copy red", "answer": "red"}, {"question": "copy " + "red " * 60, "answer": "red"}]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([*map(json.dumps, rows), '{"question": "copy']))
    work, ear = workplace(tmp_path / "zero")
    outcome = rl.run(config(task={"name": "jsonl", "path": str(path)}), inputs(model=tiny), work)
    assert outcome.metrics["set_aside"] == 2
    assert ear.said.partition(" First step: ")[0] == (
        "Each step learns from 4 prompts x 2 = 8 completions. Set aside as broken or too long for the "
        "context: 2 of the prompts. Check of 1 items of jsonl: right answers 1 of 1 pass (reward 1.10), junk "
        "0 of 4 (largest reward 0.10). Engine: transformers, as there is no GPU; on a CPU it is faster than "
        "vLLM for small models."
    )
    long, broken = map(json.loads, (outcome.path / "set-aside.jsonl").read_text().splitlines())
    assert long["reason"] == "the prompt has 64 tokens, and there is room for 48"
    assert (broken["line"], broken["row"]) == (3, '{"question": "copy')
    assert len(ear.rows) == 2


def test_no_room_for_any_prompt(tiny: Path, tmp_path: Path) -> None:
    """A limit as long as the context leaves no room: one message with the way out, before anything is
    trained."""
    work, _ = workplace(tmp_path / "zero")
    with pytest.raises(UsageError, match="Set `max_new_tokens` lower"):
        rl.run(config(max_new_tokens=64), inputs(model=tiny), work)


def test_trainer_options_are_checked() -> None:
    """Typos, what the stage sets itself, and what is not a recipe's to set; right ones pass through."""
    assert rl.check(config()) == Findings()
    assert rl.check(config(trainer={"max_grad_norm": 0.5, "delta": 4.0})) == Findings()
    wrong = {
        "bta": 0.1,
        "beta": 0.1,
        "gradient_accumulation_steps": 2,
        "report_to": "wandb",
        "max_grad_nrm": 1,
    }
    assert rl.check(config(trainer=wrong)).wrong == [
        "trainer.bta: GRPOConfig has no such option; did you mean `kl`, on the stage itself?",
        "trainer.beta: set `kl` on the stage instead",
        "trainer.gradient_accumulation_steps: set `micro_batch` on the stage instead",
        "trainer.report_to cannot be set: nothing is reported to anybody; see metrics/<stage>.jsonl",
        "trainer.max_grad_nrm: GRPOConfig has no such option; did you mean 'max_grad_norm'?",
    ]
    assert rl.check(config(trainer={"lr_scheduler_type": "linear"})) == Findings()
    (said,) = rl.check(config(trainer={"lr_scheduler_type": "linaer"})).wrong
    assert said.startswith("trainer: GRPOConfig says: linaer is not a valid SchedulerType")
    (said,) = rl.check(config(trainer={"auto_find_batch_size": True})).wrong
    assert said.startswith("trainer: GRPOConfig says: ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"overlong_buffer": 16}, "overlong_buffer = 16 must be less than max_new_tokens = 16"),
        ({"rewards": {"preference": 1}}, "the reward `preference` needs `preference_model`"),
        ({"preference_model": "judge"}, "`preference_model` has no use without the reward `preference`"),
        ({"language": "tlh"}, "Input should be 'en', 'zh', 'es'"),
    ],
)
def test_rewards_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    """Each says what is missing or too much, before anything runs."""
    with pytest.raises(ValidationError, match=message):
        config(**changes)


def test_the_preference_model_is_an_input() -> None:
    """It is named as any checkpoint is, so it is resolved, fingerprinted and recorded as a parent."""
    made = config(rewards={"accuracy": 1, "preference": 0.5}, preference_model="judge")
    assert [(each.role, each.kind, each.value) for each in references(made)] == [
        ("model", "checkpoint", "base"),
        ("preference_model", "checkpoint", "judge"),
    ]
    assert [each.role for each in references(config())] == ["model"]


def test_every_reward_in_one_training(tiny: Path, tmp_path: Path) -> None:
    """All six rewards are logged with mean and spread, each in its range, and the check tells what a right
    answer earns of them."""
    judge = write_classifier(tmp_path / "judge")
    weights = dict.fromkeys(REWARDS, 1.0)
    made = config(task="documents", rewards=weights, preference_model="judge", overlong_buffer=15)
    work, ear = workplace(tmp_path / "r1")
    outcome = rl.run(made, inputs(model=tiny, preference_model=judge), work)
    row = ear.rows[-1]
    assert -1 <= row["overlong"] <= 0 and -1 <= row["repetition"] <= 0 <= row["preference"] <= 1
    assert row["preference_spread"] > 0 and row["reward_spread"] > 0
    assert "language" not in row, "documents need no thinking"
    assert set(outcome.metrics) >= {f"{name}_spread" for name in REWARDS if name != "language"}
    assert "Check of 8 items of documents: right answers 8 of 8 pass (reward 2." in ear.said


def test_rewards_that_cannot_be_trusted_stop_it(tiny: Path, tmp_path: Path) -> None:
    """A file whose answers the chosen judge does not understand is found before anything is trained."""

    class Blind(Rows):
        def judge_answer(self, item: Item, answer: str) -> Verdict:
            return failed("wrong answer")

    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "copy red", "answer": "red"}')
    made = config(task={"name": "jsonl", "path": str(path)})
    work, ear = workplace(tmp_path / "zero")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rows, "judge_answer", Blind.judge_answer)
        with pytest.raises(UsageError, match=r"task 'jsonl' cannot be trusted.*Look at the task's `judge`"):
            rl.run(made, inputs(model=tiny), work)
    assert ear.rows == []
