"""The judge of an RL training: one verdict for each completion, and every named reward read off it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from r1pipe.prompting import opens_thinking, parse
from r1pipe.rewards import Reward, RewardInput, Rewards, give
from r1pipe.rollout import Rollout
from r1pipe.tasks import Item, Task
from r1pipe.tasks.base import judge_all
from r1pipe.train.rollouts import Judgement, Prompt
from r1pipe.train.text import decode_completions
from r1pipe.verify.verdict import Completion, Verdict

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class RewardJudge:
    """Gives each completion one verdict, and every named reward from it: a `rollouts.Judge`."""

    def __init__(
        self,
        items: Sequence[tuple[Task, Item]],
        tokenizer: "PreTrainedTokenizerBase",
        rewards: Mapping[str, Reward],
    ) -> None:
        """`items` are what the prompts were made from, by their rows."""
        self._items = items
        self._tokenizer = tokenizer
        self._rewards = rewards

    def __call__(self, batch: Sequence[tuple[Prompt, Rollout]]) -> list[Judgement]:
        """Judge some of a generation, in order; raises `RunFailed` with the item that could not be."""
        given = self._judged(batch)
        return [
            _judgement(rewards, each.verdict)
            for each, rewards in zip(given, give(self._rewards, given), strict=True)
        ]

    def _judged(self, batch: Sequence[tuple[Prompt, Rollout]]) -> list[RewardInput]:
        texts = decode_completions(self._tokenizer, [rollout.token_ids for _, rollout in batch])
        asked = [self._items[prompt.row] for prompt, _ in batch]
        completions = [
            Completion(text, opens_thinking(prompt.text), rollout.finish == "length", len(rollout.token_ids))
            for (prompt, rollout), text in zip(batch, texts, strict=True)
        ]
        verdicts = judge_all([(*pair, each) for pair, each in zip(asked, completions, strict=True)])
        return [
            RewardInput(item, each, parse(each.text, each.opened), verdict)
            for (_, item), each, verdict in zip(asked, completions, verdicts, strict=True)
        ]


def _judgement(rewards: Rewards, verdict: Verdict) -> Judgement:
    """The rewards with whether it passed, and where that is undecided why."""
    if verdict.judged:
        return Judgement(rewards, verdict.passed)
    if verdict.decided:
        return Judgement(rewards, None, judged=False)
    return Judgement(rewards, None, verdict.reason or "no reason")
