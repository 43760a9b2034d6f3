"""Sampling: completions of a checkpoint, each judged, of which the good ones become training data.

The work is a fixed sequence of batches. Each asks fixed prompts, with a seed for each completion, and each
completion is in the journal as soon as it is judged. So a kill loses what was not whole or not judged yet;
the stage goes on with the first batch that the journal does not hold whole, and ends with the same rows.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, cast

from pydantic import Field, model_validator

from r1pipe import jsonl, machine
from r1pipe.curate import Curated, Harvest, Keep, Rewrite, TraceRow, make_readable, trace_row
from r1pipe.errors import RunFailed, UsageError
from r1pipe.measure.samples import SampleRow, target_of
from r1pipe.prompting import OPEN_THINK, Template, opens_thinking
from r1pipe.rollout import Sampling, choose
from r1pipe.rollout.answers import Answers
from r1pipe.rollout.asking import Question, QuestionSet, ask
from r1pipe.rollout.specs import AnyEngine, AutoSpec
from r1pipe.rollout.writers import (
    WAYS_OUT,
    CheckpointReader,
    GoldWriter,
    ModelWriter,
    Writer,
    Written,
    longest,
    tokens_of,
)
from r1pipe.stage import CheckpointRef, Findings, Inputs, Outcome, StageConfig, Work
from r1pipe.tasks import TaskSpecs, mixture
from r1pipe.tasks.countdown import Countdown
from r1pipe.train.determinism import derive_seed
from r1pipe.verify.alarm import reasons_of, undecided_sentence
from r1pipe.world.demonstrations import demonstrations
from r1pipe.world.words import LANGUAGES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VERSION = 4
SUMMARY = "Sample completions from a model, judge each, and keep the good ones as data."


class Config(StageConfig):
    """What the `sample` stage reads from a recipe."""

    makes: ClassVar = "dataset"

    model: CheckpointRef
    """The checkpoint that answers. With `answers: gold` only its tokenizer is used, for the prompts."""
    task: TaskSpecs
    """What is asked: one task, or several mixed by their weights."""
    prompts: int | None = Field(default=None, ge=1)
    """How many prompts; one pass over the tasks' splits when it is not set."""
    samples: int = Field(default=1, ge=1)
    """Completions per prompt."""
    answers: Literal["model", "gold"] = "model"
    """Who answers: the model, or the task itself, as data for questions that need no thinking."""
    engine: AnyEngine = AutoSpec()
    """What generates: `auto`, `transformers`, `vllm` or `vllm-server`; `auto` says what it chose, and why."""
    template: Template = "r1-zero"
    """How a question becomes a prompt: `r1-zero` (the paper's, for a base), `chat` or `plain`."""
    temperature: float = Field(default=1.0, ge=0)
    """Of the sampling; 0 takes the most likely token."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Smallest set of tokens whose probability reaches this is drawn from; 1 draws from all."""
    top_k: int = Field(default=0, ge=0)
    """This many of the likeliest tokens are drawn from; 0 draws from all."""
    max_new_tokens: int = Field(default=512, ge=1)
    """A completion that reaches this many tokens is cut off and counts as truncated."""
    batch: int = Field(default=256, ge=1)
    """Completions generated and judged before the next ones begin."""
    keep: Keep = Keep()
    """Which completions are kept."""
    limit: int | None = Field(default=None, ge=1)
    """How many of the model's completions are kept in all; once there are so many, no more are generated."""
    rewrite: Rewrite | None = None
    """Makes right answers readable before they are chosen from; each is judged again and must pass again."""
    solver: int = Field(default=0, ge=0)
    """Rows written by the tiny world's solver, added to those of the model: countdown problems of the split
    "seen" that are not among the kept ones, in one language and with a summary."""
    solver_temperature: float = Field(default=30.0, gt=0)
    """How well the solver guesses its first attempt; high is nearly blind."""

    @model_validator(mode="after")
    def _gold_is_an_answer(self) -> "Config":
        if self.answers == "gold":
            for spec in self.task:
                if not spec.answers_directly:
                    has = "reasoning" in type(spec).model_fields
                    way_out = "reasoning: false" if has else "answers: model"
                    raise ValueError(
                        "answers: gold is for questions whose answer is a text and that need no thinking; "
                        f"task {spec.name!r} asks for more, set {way_out}"
                    )
            if self.samples > 1:
                raise ValueError(f"answers: gold gives one answer to a prompt, samples is {self.samples}")
            if not isinstance(self.engine, AutoSpec):
                raise ValueError(f"answers: gold generates nothing; leave out engine: {self.engine}")
        return self

    @model_validator(mode="after")
    def _one_language(self) -> "Config":
        if self.rewrite and self.keep.language not in (None, self.rewrite.language):
            raise ValueError(
                f"keep.language is {self.keep.language} and rewrite.language is {self.rewrite.language}: "
                "nothing rewritten could be kept; set them alike"
            )
        if self.solver and self.keep.language not in (None, *LANGUAGES):
            raise ValueError(
                f"keep.language is {self.keep.language}, and the solver writes {' or '.join(LANGUAGES)}; "
                "set solver: 0, or another language"
            )
        return self


def check(config: Config) -> Findings:
    """Find what the engine cannot do, and what this machine lacks for it."""
    return choose.check_engine(config.engine, [config.temperature])


@machine.full_memory_explained(WAYS_OUT)
def run(config: Config, inputs: Inputs, work: Work) -> Outcome:
    """Ask, judge, choose; publish the kept rows, and beside them the others with their reasons."""
    checkpoint = inputs.one("model")
    reader, room = _reader(config, checkpoint.path)
    asked = _ask(config, reader, room, work)
    rows = TraceMaker(config, reader.tokenizer, checkpoint.name)
    harvest = Harvest(config.keep, config.limit)
    tokens, undecided = 0, Counter[str]()
    with closing(_writer(config, checkpoint.path, reader, asked.questions, work)) as writer:
        for batch in Batches(config, asked.questions, writer, work):
            made = [
                rows.of(question, row, seed_of(work.seed, question, row["sample"]))
                for question, row in batch.rows
            ]
            accepted = harvest.add(made)
            undecided.update(reasons_of(made))
            tokens += batch.tokens
            if batch.fresh:
                work.log(_log_row(batch, accepted, harvest))
            work.progress(batch.done, batch.total, "completions")
            if harvest.full():
                break
    if said := undecided_sentence(undecided, harvest.generated):
        work.say(said)
    chosen = harvest.chosen()
    if not chosen.kept:
        raise RunFailed(_none_kept(harvest.generated, chosen, work.dir / JOURNAL))
    solved = rows.solved(room, {row["problem_id"] for row in chosen.kept}, work.seed)
    folder = _publish(work.dir / "published", [*chosen.kept, *solved], chosen.rejected, asked.set_aside)
    metrics = {
        "prompts": -(-harvest.generated // config.samples),
        **_metrics(harvest, chosen),
        "undecided_reasons": dict(undecided),
        "solver": len(solved),
        "set_aside": len(asked.set_aside),
    }
    return Outcome("dataset", folder, metrics, tokens=tokens if config.answers == "model" else None)


def _reader(config: Config, folder: Path) -> tuple[CheckpointReader, int]:
    """How the checkpoint reads, and the most tokens that a prompt may have."""
    if config.answers == "gold":
        reader = CheckpointReader.of_tokenizer(folder)
        return reader, reader.context
    reader = CheckpointReader.of(folder)
    return reader, reader.context - config.max_new_tokens


def _ask(config: Config, reader: CheckpointReader, room: int, work: Work) -> QuestionSet:
    """All that is asked. Raises `UsageError` where no prompt can be."""
    # An order of its own, so that not just the problems are sampled that an RL of the same run asks first.
    pairs = mixture(config.task, config.prompts, derive_seed(work.seed, "sample"))
    asked = ask(pairs, config.template, reader.tokenizer, room)
    if asked.set_aside:
        work.say(f"Set aside as broken or too long for the context: {len(asked.set_aside)} of the prompts.")
    if not asked.questions:
        raise UsageError(
            f"All {len(asked.set_aside)} prompts are too long: the model's context leaves {room} "
            "tokens for them. Set `max_new_tokens` lower, or take a model with a longer context."
        )
    return asked


def _sampling(config: Config) -> Sampling:
    return Sampling(config.max_new_tokens, config.temperature, config.top_p, config.top_k)


def _writer(
    config: Config, folder: Path, reader: CheckpointReader, questions: Sequence[Question], work: Work
) -> Writer:
    if config.answers == "gold":
        # A chat's prompts end where the answer begins.
        return GoldWriter(reader.tokenizer, space=config.template != "chat")
    most = longest(questions, _sampling(config))
    return ModelWriter(folder, config.engine, reader, longest=most, batch=config.batch, say=work.say)


# --- The work, batch by batch


JOURNAL: Final = "completions.jsonl"


@dataclass(frozen=True, slots=True)
class Batch:
    """A stretch of the work that is done."""

    step: int
    """From 1."""
    steps: int
    rows: list[tuple[Question, SampleRow]]
    done: int
    """Completions up to the end of it."""
    total: int
    seconds: float
    """What it took, judging included."""
    written: Written | None
    """None for one that the journal held whole."""
    fresh: bool
    """Whether its row of metrics is still to be written."""

    @property
    def tokens(self) -> int:
        """Tokens of its completions."""
        return sum(row["tokens"] for _, row in self.rows)


class Batches:
    """All batches in order: taken from the journal as far as it holds them, else written and journalled."""

    def __init__(self, config: Config, questions: Sequence[Question], writer: Writer, work: Work) -> None:
        self._size = config.batch
        self._sampling = _sampling(config)
        self._writer = writer
        self._work = work
        self._pairs = _numbered(questions, config.samples)

    def __iter__(self) -> Iterator[Batch]:
        with jsonl.Journal(self._work.dir / JOURNAL) as journal:
            answers = Answers(journal, _key)
            logged, going_on = _logged(self._work.metrics), False
            starts = range(0, len(self._pairs), self._size)
            for step, start in enumerate(starts, 1):
                pairs = self._pairs[start : start + self._size]
                begun, written = time.monotonic(), None
                keys = [(question.item.id, sample) for question, sample in pairs]
                known = {place for place, key in enumerate(keys) if key in answers}
                whole = len(known) == len(pairs)
                if not whole:
                    self._work.pause_point()
                if not going_on and not (whole and step in logged):
                    self._work.rewind(step - 1)
                    going_on = True
                if not whole:
                    seeds = [seed_of(self._work.seed, *pair) for pair in pairs]
                    written = self._writer.write(pairs, self._sampling, seeds, answers.add, known)
                seconds = time.monotonic() - begun
                made = cast(list[SampleRow], [answers[key] for key in keys])
                rows = [(question, row) for (question, _), row in zip(pairs, made, strict=True)]
                done = start + len(pairs)
                yield Batch(step, len(starts), rows, done, len(self._pairs), seconds, written, going_on)


def _logged(metrics: Path) -> set[int]:
    """The steps that have a row of metrics."""
    if not metrics.exists():
        return set()
    with jsonl.Journal(metrics) as journal:
        return {row["step"] for row in journal.rows()}


def seed_of(seed: int, question: Question, sample: int) -> int:
    """What a completion is drawn with: it depends on no other one, nor on the batch."""
    return derive_seed(seed, "sample", question.task.name, question.item.id, sample)


def _numbered(questions: Sequence[Question], samples: int) -> list[tuple[Question, int]]:
    """Every completion to be made; a problem that is asked again goes on counting its samples."""
    asked: dict[str, int] = {}
    pairs = []
    for question in questions:
        begin = asked.get(question.item.id, 0)
        pairs += [(question, begin + i) for i in range(samples)]
        asked[question.item.id] = begin + samples
    return pairs


def _key(row: Mapping[str, Any]) -> tuple[str, int]:
    return row["problem_id"], row["sample"]


# --- The rows


class TraceMaker:
    """Makes rows of training data: of what the model wrote, and of what the solver writes."""

    def __init__(self, config: Config, tokenizer: "PreTrainedTokenizerBase", model: str) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.model = model

    def of(self, question: Question, row: SampleRow, seed: int) -> TraceRow:
        """The row of a completion, made readable if it is right and the recipe asks for it."""
        prompt, language = question.prompt, self.config.keep.language
        if self.config.answers == "gold":
            return trace_row(row, prompt=prompt, source="gold", language=language)
        text = self._readable(row)
        if text is not None:
            again = question.judged(row["sample"], text, tokens=tokens_of(text, self.tokenizer))
        return trace_row(
            row if text is None else again,
            prompt=prompt,
            source="model" if text is None else "rewritten",
            language=language,
            original=None if text is None else row["completion"],
            model=self.model,
            temperature=self.config.temperature,
            seed=seed,
        )

    def _readable(self, row: SampleRow) -> str | None:
        """What a right answer is rewritten to, or None where it stays as it is."""
        if self.config.rewrite is None or row["verdict"] != "pass":
            return None
        text = make_readable(
            row["completion"], opened=row["opened"], target=target_of(row), how=self.config.rewrite
        )
        return None if text == row["completion"] else text

    def solved(self, room: int, taken: set[str], seed: int) -> list[TraceRow]:
        """The solver's rows, about problems that are not `taken`; raises `UsageError` where it runs out."""
        wanted = self.config.solver
        rows = list(islice(self._solved(room, taken, derive_seed(seed, "solver")), wanted))
        if len(rows) < wanted:
            raise UsageError(
                f"The solver could write {len(rows)} rows that `keep` allows, {wanted} were asked for. "
                "Set `solver` lower, or loosen `keep`."
            )
        return rows

    def _solved(self, room: int, taken: set[str], seed: int) -> Iterator[TraceRow]:
        filters = self.config.keep.filters()
        how = self.config.rewrite or Rewrite()
        language = self.config.keep.language or how.language
        temperature = self.config.solver_temperature
        written = demonstrations(seed, temperature=temperature, language=language, summary=how.summary)
        for item, text in written:
            if item.id in taken:
                continue
            for question in ask([(Countdown(), item)], self.config.template, self.tokenizer, room).questions:
                whole = text if opens_thinking(question.prompt) else f"{OPEN_THINK} {text}"
                row = question.judged(0, whole, tokens=tokens_of(whole, self.tokenizer))
                if all(filter_(row) is None for filter_ in filters):
                    prompt = question.prompt
                    yield trace_row(row, prompt=prompt, source="solver", language=language)


# --- What is published


def _publish(
    folder: Path,
    kept: Sequence[SampleRow],
    rejected: Sequence[dict[str, Any]],
    set_aside: Sequence[dict[str, Any]],
) -> Path:
    """Write the parts, which are the dataset, and the other files, which `load_dataset` does not read."""
    jsonl.write_shards(folder, (dict(row) for row in kept))
    jsonl.write_rows(folder / "rejects.jsonl", rejected)
    if set_aside:
        jsonl.write_rows(folder / "set-aside.jsonl", set_aside)
    return folder


def _metrics(harvest: Harvest, chosen: Curated) -> dict[str, Any]:
    kept = len(chosen.kept)
    return {
        "generated": harvest.generated,
        "kept": kept,
        "rejected": {reason: count for reason, count in chosen.counts.items() if reason != "kept"},
        "acceptance": kept / harvest.generated,
        "undecided": harvest.undecided,
        "rewritten": sum(cast(TraceRow, row)["source"] == "rewritten" for row in chosen.kept),
    }


def _log_row(batch: Batch, accepted: int, harvest: Harvest) -> dict[str, Any]:
    rows = [row for _, row in batch.rows]
    return {
        "step": batch.step,
        "steps": batch.steps,
        "generated": harvest.generated,
        "accepted": harvest.accepted,
        "accuracy": sum(row["verdict"] == "pass" for row in rows) / len(rows),
        "acceptance": accepted / len(rows),
        "mean_tokens": batch.tokens / len(rows),
        "truncated": sum(row["truncated"] for row in rows) / len(rows),
        **_speed(batch, accepted),
    }


def _speed(batch: Batch, accepted: int) -> dict[str, float]:
    """How fast a batch was made; nothing of one that was only finished now."""
    if batch.written is None or batch.written.tokens < batch.tokens:
        return {}
    seconds, generation = max(batch.seconds, 1e-9), batch.written.seconds
    return {
        "tokens_per_second": batch.tokens / seconds,
        "accepted_per_second": accepted / seconds,
        **({"generation_tokens_per_second": batch.tokens / generation} if generation else {}),
    }


def _none_kept(generated: int, chosen: Curated, journal: Path) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in chosen.counts.items() if reason != "kept")
    return (
        f"None of {generated} completions was kept: {reasons}. Take a model that does better at this task, "
        f"ask more `prompts` or `samples`, or loosen `keep`. The completions are in '{journal}'."
    )
