"""The rl stage: from a recipe's words to a policy that `from_pretrained` opens."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from r1pipe.errors import RunFailed, UsageError
from r1pipe.rewards import make_rewards
from r1pipe.rollout import Rollout
from r1pipe.tasks import Item, mixture, task_spec
from r1pipe.train.determinism import derive_seed
from r1pipe.train.grpo import Prompt
from r1pipe.world.tokenizer import build_tokenizer
from stages import rl
from tests.tiny_model import inputs, workplace, write_tiny

SMALL = {
    "model": "base",
    "task": "countdown",
    "template": "chat",
    "group_size": 2,
    "prompts_per_step": 4,
    "micro_batch": 4,
    "steps": 2,
    "max_new_tokens": 16,
    "learning_rate": "1e-2",
}


def config(**changes: Any) -> rl.Config:
    return rl.Config.model_validate({**SMALL, **changes})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("base"))


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
    assert ear.said == "Set aside as broken or too long for the context: 2 of the prompts."
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


def test_a_batch_that_does_not_divide_is_refused() -> None:
    """Both numbers are named."""
    with pytest.raises(ValidationError, match=r"= 8 completions .* micro_batch = 3; choose a divisor of 8"):
        config(micro_batch=3)


def test_trainer_options_are_checked() -> None:
    """Typos, what the stage sets itself, and what is not a recipe's to set; right ones pass through."""
    assert rl.check(config()) == []
    assert rl.check(config(trainer={"max_grad_norm": 0.5, "epsilon": 0.2})) == []
    assert rl.check(config(trainer={"bta": 0.1, "beta": 0.1, "report_to": "wandb", "max_grad_nrm": 1})) == [
        "trainer.bta: GRPOConfig has no such option; did you mean `kl`, on the stage itself?",
        "trainer.beta: set `kl` on the stage instead",
        "trainer.report_to cannot be set: nothing is reported to anybody; see metrics/<stage>.jsonl",
        "trainer.max_grad_nrm: GRPOConfig has no such option; did you mean 'max_grad_norm'?",
    ]
    assert rl.check(config(trainer={"lr_scheduler_type": "linear"})) == []
    (said,) = rl.check(config(trainer={"lr_scheduler_type": "linaer"}))
    assert said.startswith("trainer: GRPOConfig says: linaer is not a valid SchedulerType")
    (said,) = rl.check(config(trainer={"generation_batch_size": 7}))
    assert said.startswith("trainer: GRPOConfig says: ")


def judge_of(text: str, truncated: bool = False, rule: str = "fail") -> Any:
    """What the judge says of one completion of the first countdown item, whose answer is `text` or the right
    one."""
    tokenizer = build_tokenizer(64)
    pairs = mixture([task_spec({"name": "countdown", "truncated": rule})], 1, 0)
    rewards = make_rewards(["accuracy", "format"], language="en")
    judge = rl.Judge(pairs, tokenizer, rewards)
    ids = tokenizer(text)["input_ids"] + ([] if truncated else [tokenizer.eos_token_id])
    rollout = Rollout(ids, "length" if truncated else "stop")
    return judge([(Prompt(0, "nums <think>", [1]), rollout)])[0]


def test_rewards_are_read_off_one_verdict() -> None:
    """A wrong answer in the right form, one in the wrong form, and one cut off."""
    wrong = judge_of("1 + 1 = 2 no </think> <answer> 1 + 1 </answer>")
    assert (wrong.rewards, wrong.passed) == ({"accuracy": 0.0, "format": 1.0}, False)
    formless = judge_of("1 + 1 = 2")
    assert (formless.rewards, formless.passed) == ({"accuracy": 0.0, "format": 0.0}, False)
    cut = judge_of("1 + 1 = 2", truncated=True)
    assert (cut.rewards, cut.passed) == ({"accuracy": 0.0, "format": 0.0}, False)


def test_an_undecided_verdict_is_no_reward() -> None:
    """With `truncated: undecided` every reward is None, which leaves the completion out; none is zero."""
    cut = judge_of("1 + 1 = 2", truncated=True, rule="undecided")
    assert (cut.rewards, cut.passed) == ({"accuracy": None, "format": None}, None)


def test_a_mistake_in_a_judge_names_the_item() -> None:
    """The run ends with the item and the completion that did it."""

    class Broken:
        name = "broken"

        def judge(self, item: Item, completion: Any) -> None:
            raise ZeroDivisionError("division by zero")

    judge = rl.Judge([(Broken(), Item("item-7", "q", None))], build_tokenizer(64), {})  # type: ignore[list-item]
    with pytest.raises(RunFailed, match=r"item 'item-7' of 'broken' failed with ZeroDivisionError"):
        judge([(Prompt(0, "q", [1]), Rollout([20, 1], "stop"))])
