"""Sampling: completions of a checkpoint, each judged, of which the good ones become training data.

The prompts lie in shards, by a hash. A shard is a sequence of batches, in rounds: all prompts first, then
those that have not enough right answers yet. Each completion is in the shard's journal as soon as it is
judged, and a finished shard is published in one step. So a kill loses what was not whole or not judged yet;
the stage goes on with the first batch that the journal does not hold whole, and ends with the same rows.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field, model_validator

from r1pipe import jsonl, machine
from r1pipe.artifact import Artifact
from r1pipe.curate import Harvest, Keep, PassRates, Rewrite, TraceRow
from r1pipe.errors import RunFailed, UsageError
from r1pipe.fingerprint import sha256_of
from r1pipe.measure.cost import Price
from r1pipe.prompting import Template
from r1pipe.rollout import Sampling, choose
from r1pipe.rollout.asking import Question, QuestionSet, ask
from r1pipe.rollout.batching import Drawing, Job
from r1pipe.rollout.meter import Meter
from r1pipe.rollout.preferring import Preferring
from r1pipe.rollout.rounds import Rounds
from r1pipe.rollout.shards import Shard, ShardFolder, cut, digest_of
from r1pipe.rollout.specs import AnyEngine, AutoSpec, TeacherSpec
from r1pipe.rollout.tally import Group, Tally
from r1pipe.rollout.tracing import TraceMaker
from r1pipe.rollout.writers import (
    WAYS_OUT,
    CheckpointReader,
    GoldWriter,
    ModelWriter,
    Writer,
    longest,
)
from r1pipe.stage import NEUTRAL, CheckpointRef, Findings, Inputs, Outcome, StageConfig, Work
from r1pipe.tasks import TaskSpecs, mixture
from r1pipe.train.determinism import derive_seed
from r1pipe.verify.alarm import undecided_sentence
from r1pipe.world.words import LANGUAGES

VERSION = 6
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
    """Completions per prompt; with `most`, those of the first round and of each further one."""
    most: int | None = Field(default=None, ge=1)
    """Asks on, round after round, prompts that have not `enough` accepted completions, up to so many each."""
    enough: int = Field(default=1, ge=1)
    """With `most`: accepted completions, different ones, with which a prompt is asked no further."""
    budget: int | None = Field(default=None, ge=1)
    """Completions in all, however many more the rounds would ask for; the first in order get them."""
    answers: Literal["model", "gold"] = "model"
    """Who answers: the model, or the task itself, as data for questions that need no thinking."""
    engine: AnyEngine = AutoSpec()
    """What generates: `auto`, `transformers`, `vllm`, `vllm-server` or `ray`; `auto` says what it chose."""
    teacher: TeacherSpec | None = None
    """A chat server that answers in the model's place, of which then only the tokenizer is used, for the
    students' prompts: `{url: …, model: …, api_key_env: …}`, see docs/traces.md."""
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
    shards: int | None = Field(default=None, ge=1)
    """Parts that the prompts are sampled in, one after the other, each published when it is done; by default
    one for each 20,000 completions of the first round."""
    judge_again: int = Field(default=2, ge=0)
    """How often a verdict that is undecided is asked for again, as a timeout or a dead worker may pass."""
    price: Annotated[Price | None, NEUTRAL] = None
    """What generation costs: `gpu_hour` and `gpus`, or `million_tokens` and `million_prompt_tokens`."""
    keep: Keep = Keep()
    """Which completions are kept."""
    preference_model: CheckpointRef | None = None
    """A sequence classifier with one label that scores what may be kept, from 0 to 1, in the column
    `preference`; `keep` may ask for a least score, or prefer the best of a problem."""
    preference_batch: int = Field(default=16, ge=1)
    """Answers that the preference model scores at once: less needs less memory."""
    preference_max_tokens: int = Field(default=2048, ge=1)
    """Tokens of question and answer that the preference model reads; what is longer is cut at its end."""
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
    def _one_answers(self) -> "Config":
        if self.teacher is None:
            return self
        if self.answers == "gold":
            raise ValueError("answers: gold asks nobody; leave out teacher, or set answers: model")
        if not isinstance(self.engine, AutoSpec):
            raise ValueError(f"a teacher answers in the engine's place; leave out engine: {self.engine}")
        return self

    @model_validator(mode="after")
    def _rounds_agree(self) -> "Config":
        if self.most is None:
            if self.enough > 1:
                raise ValueError(
                    f"enough is {self.enough}, and without `most` no prompt is asked on; set most"
                )
            return self
        if self.answers == "gold":
            raise ValueError("answers: gold gives one answer to a prompt; leave out most")
        if self.most <= self.samples:
            raise ValueError(
                f"most = {self.most} is not above samples = {self.samples}: no round is left for hard "
                "prompts; set samples lower or most higher"
            )
        if self.enough > self.most:
            raise ValueError(f"enough = {self.enough} is above most = {self.most}; no prompt can get there")
        return self

    @model_validator(mode="after")
    def _somebody_prefers(self) -> "Config":
        if self.keep.asks_preference and self.preference_model is None:
            asked = (
                "prefer: best" if self.keep.preference is None else f"preference: {self.keep.preference:g}"
            )
            raise ValueError(f"keep.{asked} needs `preference_model`: a sequence classifier with one label")
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
    maker = TraceMaker(
        reader.tokenizer,
        _answering(config, checkpoint),
        seed=work.seed,
        sampling=_sampling(config),
        keep=config.keep,
        rewrite=config.rewrite,
    )
    rounds = Rounds(config.samples, config.most, config.enough)
    shards = cut(asked.questions, rounds, config.budget, config.shards)
    folder = ShardFolder(work.dir / SHARDS, _plan(config, asked.questions, shards))
    preferring = _preferring(config, inputs)
    with closing(_writer(config, checkpoint.path, reader, asked.questions, work)) as writer:
        drawing = Drawing(_sampling(config), rounds, config.batch, config.judge_again)
        job = Job(folder, shards, drawing, writer, work)
        sampling = ShardSampling(config, folder, job, maker, preferring, work)
        for shard in shards:
            sampling.do(shard)
            if sampling.full:
                break
    total = sampling.total
    if said := undecided_sentence(total.undecided, total.generated):
        work.say(said)
    if not total.kept:
        raise RunFailed(_none_kept(total, folder.path))
    published, solved = _publish(config, work.dir / "published", folder, sampling.done, maker, room)
    if asked.set_aside:
        jsonl.write_rows(published / "set-aside.jsonl", asked.set_aside)
    metrics = {**_metrics(total), "solver": solved, "set_aside": len(asked.set_aside)}
    cost = {} if config.price is None else {"usd": sampling.meter.usd}
    return Outcome(
        "dataset", published, metrics, tokens=total.tokens if config.answers == "model" else None, cost=cost
    )


def _answering(config: Config, checkpoint: Artifact) -> tuple[str, str] | None:
    """Name of the model that answers and what tells it from others; None where the tasks do."""
    if config.teacher is not None:
        return config.teacher.model, config.teacher.asked
    return None if config.answers == "gold" else (checkpoint.name, checkpoint.fingerprint)


def _reader(config: Config, folder: Path) -> tuple[CheckpointReader, int]:
    """How the checkpoint reads, and the most tokens that a prompt may have."""
    if config.answers == "gold" or config.teacher is not None:
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
    if config.teacher is not None:
        from r1pipe.rollout.teacher import TeacherWriter

        return TeacherWriter(config.teacher, reader.tokenizer, work.say)
    most = longest(questions, _sampling(config))
    return ModelWriter(folder, config.engine, reader, longest=most, batch=config.batch, say=work.say)


def _preferring(config: Config, inputs: Inputs) -> Preferring | None:
    """Who says how good answers are, opened; None where nobody is asked."""
    if config.preference_model is None:
        return None
    import torch

    from r1pipe.train.preference import PreferenceModel

    scorer = PreferenceModel(
        inputs.one("preference_model").path,
        batch=config.preference_batch,
        max_tokens=config.preference_max_tokens,
        device=lambda: torch.device("cuda" if torch.cuda.is_available() else "cpu"),
    )
    scorer([])  # it takes its place on a GPU now, while an engine that would fill it is not there yet
    return Preferring(scorer, config.keep)


# --- The work, shard by shard


SHARDS: Final = "shards"


def _plan(config: Config, questions: Sequence[Question], shards: Sequence[Shard]) -> dict[str, Any]:
    """What the work in a folder has to agree on before it is gone on with."""
    options = config.model_dump(
        mode="json",
        exclude={"model", "task", "engine", "teacher", "price", "threads", "preference_model"},
    )
    return {"shards": len(shards), "prompts": digest_of(questions), "options": sha256_of(options)}


class ShardSampling:
    """Samples shard after shard, chooses in each, and counts over all."""

    def __init__(
        self,
        config: Config,
        folder: ShardFolder,
        job: Job,
        maker: TraceMaker,
        preferring: Preferring | None,
        work: Work,
    ) -> None:
        self._config = config
        self._folder = folder
        self._job = job
        self._maker = maker
        self._preferring = preferring
        self._work = work
        self.meter = Meter(config.price, work.metrics, config.limit)
        self.total = Tally()
        self.done: list[Shard] = []
        """Those that are finished, in order."""

    @property
    def full(self) -> bool:
        """Whether as many are kept as are wanted."""
        return self._config.limit is not None and self.total.kept >= self._config.limit

    def do(self, shard: Shard) -> None:
        """Finish a shard, unless it was finished before."""
        tally = self._folder.finished(shard)
        if tally is None:
            tally = self._sample(shard)
        else:
            self._job.pass_over(shard, tally)
        self.total += tally
        self.done.append(shard)

    def _sample(self, shard: Shard) -> Tally:
        limit = self._config.limit
        harvest = Harvest(self._config.keep, None if limit is None else limit - self.total.kept)
        rates, tally, opening = PassRates(), Tally(), 0
        for batch in self._job.batches(shard, harvest.accepted_of):
            rates.add(row for _, row in batch.rows)
            made = [self._maker.of(*each) for each in batch.rows]
            if self._preferring is not None:
                begun = time.monotonic()
                made = self._preferring.scored(made)
                batch = replace(batch, seconds=batch.seconds + time.monotonic() - begun)
            accepted = harvest.add(made)
            tally.add(zip(made, accepted, strict=True))
            tally.add_batch(row for _, row in batch.rows)
            opening += batch.opening
            if batch.fresh:
                self._work.log(self.meter.row(batch, accepted, self.total + tally))
            self._work.progress(batch.done, batch.total, "completions")
            if harvest.full():
                break
        tally.prompts = -(-opening // self._config.samples)
        chosen = harvest.chosen()
        tally.choose(chosen)
        self._folder.finish(shard, _rated(chosen.kept, rates), _rated(chosen.rejected, rates), tally)
        return tally


def _rated(rows: Iterable[Any], rates: PassRates) -> Iterable[jsonl.Row]:
    """The rows with their prompts' pass rates, which are known only now."""
    return ({**row, **rates.of(row["problem_id"])} for row in rows)


# --- What is published


def _publish(
    config: Config, folder: Path, made: ShardFolder, shards: Sequence[Shard], maker: TraceMaker, room: int
) -> tuple[Path, int]:
    """Write the parts, which are the dataset, and the rejects, which `load_dataset` does not read.

    Returns the folder, and how many rows are the solver's.
    """
    solved: list[TraceRow] = []
    if config.solver:
        taken = {row["problem_id"] for row in made.kept(shards)}
        solved = maker.solved(config.solver, config.template, room, taken, config.solver_temperature)
    jsonl.write_shards(folder, chain(made.kept(shards), (dict(row) for row in solved)))
    jsonl.write_rows(folder / "rejects.jsonl", made.rejected(shards))
    return folder, len(solved)


def _metrics(total: Tally) -> dict[str, Any]:
    return {
        "prompts": total.prompts,
        "generated": total.generated,
        "kept": total.kept,
        "rejected": total.rejected,
        "acceptance": total.kept / total.generated,
        "undecided": sum(total.undecided.values()),
        "undecided_reasons": total.undecided,
        "judged_again": total.judged_again,
        "settled": total.settled,
        "rewritten": total.rewritten,
        "prompt_tokens": total.prompt_tokens,
        "tokens": total.tokens,
        "by_task": _groups(total.by_task),
        "by_difficulty": _groups(total.by_difficulty),
    }


def _groups(groups: Mapping[str, Group]) -> dict[str, dict[str, float]]:
    return {
        name: {**each.model_dump(), "acceptance": each.acceptance} for name, each in sorted(groups.items())
    }


def _none_kept(total: Tally, folder: Path) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in total.rejected.items())
    return (
        f"None of {total.generated} completions was kept: {reasons}. Take a model that does better at this "
        f"task, ask more `prompts` or `samples`, or loosen `keep`. The completions are in '{folder}'."
    )
