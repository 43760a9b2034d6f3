"""Who writes completions: a checkpoint, or the tasks' own right answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from r1pipe.errors import UsageError
from r1pipe.measure.samples import SampleRow
from r1pipe.rollout.asking import Question, judged_rows
from r1pipe.rollout.engine import Engine, Sampling
from r1pipe.train.text import decode_completions, open_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Written:
    """One completion."""

    text: str
    tokens: int
    """The EOS included."""
    truncated: bool = False


def judged(pairs: Sequence[tuple[Question, int]], written: Sequence[Written]) -> list[SampleRow]:
    """The rows of what was written for each (question, sample), in order."""
    return judged_rows(
        [
            (question, sample, question.completion(each.text, each.tokens, each.truncated))
            for (question, sample), each in zip(pairs, written, strict=True)
        ]
    )


class Writer(Protocol):
    """Whoever writes completions."""

    tokenizer: "PreTrainedTokenizerBase"
    room: int
    """The most tokens that a prompt may have."""

    def write(self, questions: Sequence[Question], seeds: Sequence[int]) -> list[Written]:
        """One completion for each question and its seed, in order; a function of those two."""
        ...


class ModelWriter:
    """A checkpoint that is sampled from, on the GPU if there is one."""

    def __init__(self, folder: Path, sampling: Sampling, batch: int) -> None:
        import torch

        from r1pipe.rollout.local import TransformersEngine
        from r1pipe.train import models

        model, self.tokenizer = models.open_model(folder)
        self.room = models.context_of(model) - sampling.max_new_tokens
        self.sampling = sampling
        self.engine: Engine = TransformersEngine(
            model.to("cuda" if torch.cuda.is_available() else "cpu"),
            eos_id=self.tokenizer.eos_token_id,
            pad_id=self.tokenizer.pad_token_id,
            batch=batch,
        )

    def write(self, questions: Sequence[Question], seeds: Sequence[int]) -> list[Written]:
        """Sample one completion for each; at a temperature of 0 the seeds have no part in it."""
        rollouts = self.engine.generate([each.token_ids for each in questions], self.sampling, seeds=seeds)
        texts = decode_completions(self.tokenizer, [rollout.token_ids for rollout in rollouts])
        return [
            Written(text, len(rollout.token_ids), rollout.finish == "length")
            for text, rollout in zip(texts, rollouts, strict=True)
        ]


class GoldWriter:
    """The answers that the items carry, for tasks whose `gold` is the answer's text."""

    def __init__(self, folder: Path, *, space: bool) -> None:
        """`space` puts one before each answer, where the prompt does not end in one."""
        self.tokenizer = open_tokenizer(folder)
        self.room = int(self.tokenizer.model_max_length)
        self._space = " " if space else ""

    def write(self, questions: Sequence[Question], seeds: Sequence[int]) -> list[Written]:
        """Give each its answer. Raises `UsageError` for one whose right answer is no text."""
        for each in questions:
            if not isinstance(each.item.gold, str):
                raise UsageError(
                    f"answers: gold writes texts, and the right answer of {each.item.id!r} is none; "
                    "set answers: model for rows of that kind"
                )
        texts = [f"{self._space}{each.item.gold}" for each in questions]
        return [Written(text, tokens_of(text, self.tokenizer)) for text in texts]


def tokens_of(text: str, tokenizer: "PreTrainedTokenizerBase") -> int:
    """Length of a completion that no model drew, with the EOS that it will end in."""
    return len(tokenizer(text, add_special_tokens=False)["input_ids"]) + 1
