"""The judge of an RL training: rewards are read off one verdict, and a mistake in a judge names its item."""

from collections.abc import Sequence
from typing import Any

import pytest

from r1pipe.errors import RunFailed
from r1pipe.rewards import RewardInput, make_rewards
from r1pipe.rewards import each as each_alone
from r1pipe.rollout import Rollout
from r1pipe.tasks import Item, Task, mixture, task_spec
from r1pipe.train.grpo import Judgement, Prompt
from r1pipe.train.judging import RewardJudge
from r1pipe.verify.verdict import Verdict
from r1pipe.world.tokenizer import build_tokenizer


def judge_of(text: str, truncated: bool = False, rule: str = "fail") -> Any:
    """What the judge says of one completion of the first countdown item, whose answer is `text` or the right
    one."""
    tokenizer = build_tokenizer(64)
    pairs = mixture([task_spec({"name": "countdown", "truncated": rule})], 1, 0)
    rewards = make_rewards(["accuracy", "format"], language="en")
    judge = RewardJudge(pairs, tokenizer, rewards)
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


class Broken(Task):
    """A task whose judge has a mistake in it."""

    name = "broken"

    def items(self, split: str, count: int | None, seed: int) -> list[Item]:
        raise NotImplementedError

    def judge_answer(self, item: Item, answer: str) -> Verdict:
        raise ZeroDivisionError("division by zero")


def test_a_mistake_in_a_judge_names_the_item() -> None:
    """The run ends with the item and the completion that did it."""
    judge = RewardJudge([(Broken(), Item("item-7", "q", None))], build_tokenizer(64), {})
    with pytest.raises(RunFailed, match=r"item 'item-7' of 'broken' failed with ZeroDivisionError"):
        judge([(Prompt(0, "q", [1]), Rollout([20, 1], "stop"))])


def test_a_mistake_in_a_reward_names_the_item() -> None:
    """Every reward is asked once about a whole generation; what it raises ends the run with the item."""
    asked: list[int] = []

    def fine(batch: Sequence[RewardInput]) -> list[float | None]:
        asked.append(len(batch))
        return [0.5] * len(batch)

    pairs = mixture([task_spec("documents")], 2, 0)
    batch = [(Prompt(row, "q", [1]), Rollout([20 + row, 1], "stop")) for row in (0, 1, 0, 1)]
    judgements = RewardJudge(pairs, build_tokenizer(64), {"fine": fine})(batch)
    assert asked == [4] and [each.rewards for each in judgements] == [{"fine": 0.5}] * 4
    spoilt = each_alone(lambda given: 1.0 if given.item.id == pairs[0][1].id else float("nan"))
    with pytest.raises(RunFailed, match=f"'mine' gave nan. The item was '{pairs[1][1].id}'"):
        RewardJudge(pairs, build_tokenizer(64), {"mine": spoilt})(batch)


def test_an_undecided_verdict_has_a_reason() -> None:
    """A completion that was cut off, where that is undecided: neither right nor wrong, and why."""
    spec = task_spec({"name": "countdown", "truncated": "undecided"})
    judge = RewardJudge(mixture([spec], 1, 0), build_tokenizer(64), {})
    assert judge([(Prompt(0, "q", [1]), Rollout([20], "length"))]) == [Judgement({}, None, "truncated")]
