"""Models compared on the same problems, in the same order, under the same random numbers."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from r1pipe import jsonl, machine
from r1pipe.errors import UsageError
from r1pipe.measure.scores import Scores, score
from r1pipe.prompting import CLOSE_THINK, Template
from r1pipe.rollout import Sampling, choose
from r1pipe.rollout.answers import Answers
from r1pipe.rollout.asking import Question, QuestionSet, ask
from r1pipe.rollout.specs import AnyEngine, AutoSpec, ServerSpec
from r1pipe.rollout.writers import WAYS_OUT, CheckpointReader, ModelWriter, longest
from r1pipe.stage import CheckpointRef, Findings, Inputs, Outcome, StageConfig, Work
from r1pipe.tasks import AnyTask, Item, Task, told_apart
from r1pipe.tasks.countdown import CountdownSpec
from r1pipe.train.determinism import derive_seed
from r1pipe.verify.alarm import reasons_of, undecided_sentence
from r1pipe.verify.verdict import Mark

if TYPE_CHECKING:
    from r1pipe.measure.samples import SampleRow

VERSION = 4
SUMMARY = "Score models on the same problems: how often they are right, and how they think."


class Forbid(BaseModel):
    """A token that may not follow certain words."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    after: list[str] = Field(min_length=1)
    """The words; each is one token of every model's tokenizer."""
    token: str = CLOSE_THINK
    """What may not follow them. `</think>` after the words for `no`: the model may not give up."""


class ProblemSet(BaseModel):
    """Problems of one task, and how often each is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    task: AnyTask
    """What is asked. Name the `split`: a score on problems that were trained on says little."""
    problems: int = Field(default=600, ge=1)
    """Different problems; fewer when the task's split has no more."""
    samples: int = Field(default=4, ge=1)
    """Completions per problem."""
    pass_at: list[Annotated[int, Field(ge=1)]] = Field(default=[])
    """The k of pass@k and maj@k; the powers of two up to `samples` when none is named."""
    models: list[str] | None = None
    """Names out of the stage's `models` that this set is for; all of them when it is not set."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """In place of the stage's own."""
    forbid: Forbid | None = None
    """A token that is never drawn after certain words, to measure what a model does without it."""

    @model_validator(mode="after")
    def _whole(self) -> "ProblemSet":
        if self.task.count is not None:
            raise ValueError("`task.count` has no use here; set `problems`")
        if self.pass_at and max(self.pass_at) > self.samples:
            raise ValueError(
                f"pass_at {max(self.pass_at)} needs as many samples, and `samples` is {self.samples}"
            )
        return self

    def is_for(self, model: str) -> bool:
        """Whether this model is asked the set."""
        return self.models is None or model in self.models


_HELD_OUT = ProblemSet(task=CountdownSpec(split="held-out"), problems=600, samples=4)


class Config(StageConfig):
    """What the `evaluate` stage reads from a recipe."""

    makes: ClassVar = "dataset"

    models: Annotated[
        list[CheckpointRef], BeforeValidator(lambda v: [v] if isinstance(v, str) else v), Field(min_length=1)
    ]
    """Who is asked. The scores carry the names that stand here."""
    sets: dict[str, ProblemSet] = Field(default={"held-out": _HELD_OUT}, min_length=1)
    """What is asked: sets of problems by name. `held-out`, else the first, stands for a model in tables."""
    engine: AnyEngine = AutoSpec()
    """What generates for every model: `auto`, `transformers`, `vllm`, `ray` or, for one, `vllm-server`."""
    template: Template = "r1-zero"
    """How a question becomes a prompt: `r1-zero` (the paper's, for a base), `chat` or `plain`."""
    temperature: float = Field(default=1.0, ge=0)
    """Of the sampling; 0 takes the most likely token. The paper's benchmarks: 0.6."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Smallest set of tokens whose probability reaches this is kept. The paper's benchmarks: 0.95."""
    max_new_tokens: int = Field(default=512, ge=1)
    """A completion that reaches this many tokens is cut off and counts as truncated."""
    batch: int = Field(default=256, ge=1)
    """Completions generated and judged before the next ones begin."""

    @model_validator(mode="after")
    def _one_model_per_server(self) -> "Config":
        if isinstance(self.engine, ServerSpec) and len(self.models) > 1:
            raise ValueError(
                f"engine: {self.engine} serves one model, and `models` names {', '.join(self.models)}; "
                "give each a stage and a server of its own, or set engine: auto"
            )
        return self

    @model_validator(mode="after")
    def _names(self) -> "Config":
        if twice := {name for name in self.models if self.models.count(name) > 1}:
            raise ValueError(f"`models` names {', '.join(sorted(twice))} twice")
        for name, problem_set in self.sets.items():
            if unknown := set(problem_set.models or ()) - set(self.models):
                raise ValueError(
                    f"`sets.{name}.models` names {', '.join(sorted(unknown))}; "
                    f"the stage's models are {', '.join(self.models)}"
                )
        return self


def check(config: Config) -> Findings:
    """Find what the engine cannot do, and what this machine lacks for it."""
    return choose.check_engine(config.engine, [config.temperature])


@machine.full_memory_explained(WAYS_OUT)
def run(config: Config, inputs: Inputs, work: Work) -> Outcome:
    """Ask every model every set, and publish each judged completion as a row.

    `metrics["models"][model][set]` holds the scores that `r1pipe.measure.scores.score` describes. Raises
    `UsageError` for a model that cannot be asked, before any is.
    """
    folders = dict(zip(inputs.labels("models"), (each.path for each in inputs.many("models")), strict=True))
    candidates = {
        label: Candidate(label, folder, CheckpointReader.of(folder)) for label, folder in folders.items()
    }
    exam = Exam(config, list(candidates.values()), work.seed)
    for remark in exam.remarks:
        work.say(remark)
    work.rewind(0)  # the scores come from the journal: an evaluation that goes on logs all of them again
    scores: dict[str, dict[str, Scores]] = {label: {} for label in folders}
    with jsonl.Journal(work.dir / "rows.jsonl") as journal:
        answers = Answers(journal, _key)
        for label, group in groupby(exam.papers, key=lambda paper: paper.model):
            papers = list(group)
            with closing(_writer(config, candidates[label], papers, work)) as writer:
                for paper in papers:
                    speed = _sit(exam, paper, writer, answers, work)
                    of_paper = cast("list[SampleRow]", _rows(paper, answers))
                    scores[label][paper.set] = score(of_paper, paper.pass_at)
                    work.log({**_log_row(exam, paper, scores[label][paper.set]), **speed})
    rows = [row for paper in exam.papers for row in _rows(paper, answers)]
    undecided = _undecided(rows, work)
    folder = work.dir / "published"
    jsonl.write_shards(folder, rows)
    if exam.set_aside:
        jsonl.write_rows(folder / "set-aside.jsonl", exam.set_aside)
    metrics = {"models": scores, "set_aside": len(exam.set_aside), "undecided_reasons": undecided}
    return Outcome("dataset", folder, metrics, tokens=sum(row["tokens"] for row in rows))


def _undecided(rows: Sequence[jsonl.Row], work: Work) -> dict[str, dict[str, int]]:
    """How many verdicts of each set were undecided, by reason; said where there are too many."""
    found: dict[str, dict[str, int]] = {}
    for name in dict.fromkeys(row["set"] for row in rows):
        of_set = [row for row in rows if row["set"] == name]
        if reasons := reasons_of(of_set):
            found[name] = dict(reasons)
        if said := undecided_sentence(reasons, len(of_set)):
            work.say(f"Set '{name}': {said}")
        if unjudged := sum(row["verdict"] == Mark.UNJUDGED for row in of_set):
            work.say(
                f"Set '{name}': nothing judges {unjudged} of {len(of_set)} answers, which are in no rate of "
                "passing. Give the task a `rule`, or read the rows."
            )
    return found


# --- What is asked


@dataclass(frozen=True, slots=True)
class Candidate:
    """One model that is to be asked."""

    label: str
    folder: Path
    reader: CheckpointReader


@dataclass(frozen=True, slots=True)
class Paper:
    """One set of problems as one model is asked it."""

    model: str
    set: str
    questions: Sequence[Question]
    samples: int
    pass_at: Sequence[int]
    sampling: Sampling

    @property
    def order(self) -> list[tuple[Question, int]]:
        """(question, sample) of every completion, in the order they are asked."""
        return [(question, sample) for question in self.questions for sample in range(self.samples)]

    def key(self, question: Question, sample: int) -> tuple[str, str, str, int]:
        """What names a completion among all of an evaluation."""
        return self.model, self.set, question.item.id, sample


class Exam:
    """Every paper of an evaluation, made before anybody is asked."""

    def __init__(self, config: Config, candidates: Sequence[Candidate], seed: int) -> None:
        """Choose the problems and put them into each model's tokens.

        Raises `UsageError` when a set's words or all of its prompts do not suit one of its models.
        """
        self.config = config
        self.seed = seed
        self.papers: list[Paper] = []
        """In the order of the models, then of the sets."""
        self.set_aside: list[dict[str, Any]] = []
        self.remarks: list[str] = []
        for name, chosen in config.sets.items():
            self.papers += self._papers(
                name, chosen, [each for each in candidates if chosen.is_for(each.label)]
            )
        order = [candidate.label for candidate in candidates]
        self.papers.sort(key=lambda paper: order.index(paper.model))  # stable: the sets keep their order

    def _papers(self, name: str, chosen: ProblemSet, candidates: Sequence[Candidate]) -> Iterator[Paper]:
        """A set's papers. What one model cannot be asked none is asked, so that their scores compare."""
        problems = self._problems(name, chosen)
        limit = chosen.max_new_tokens or self.config.max_new_tokens
        asked = {each.label: self._ask(each, problems, limit) for each in candidates}
        aside = {_place(row): {"set": name, **row} for each in asked.values() for row in each.set_aside}
        self.set_aside += aside.values()
        if aside:
            self.remarks.append(f"Set '{name}': {len(aside)} problems are set aside, for every model.")
        for candidate in candidates:
            questions = [each for each in asked[candidate.label].questions if each.item.id not in aside]
            if not questions:
                raise UsageError(
                    f"No prompt of set '{name}' can be asked: {next(iter(aside.values()))['reason']} "
                    f"beside max_new_tokens = {limit}. Set `max_new_tokens` lower, or leave out the models "
                    "with the smallest context."
                )
            banned = forbidden(chosen.forbid, candidate, name) if chosen.forbid else {}
            sampling = Sampling(limit, self.config.temperature, self.config.top_p, forbid_after=banned)
            yield Paper(candidate.label, name, questions, chosen.samples, chosen.pass_at, sampling)

    def _problems(self, name: str, chosen: ProblemSet) -> list[tuple[Task, Item]]:
        """Different ones: a task that runs out of them would begin again."""
        task = chosen.task.make()
        # An order of its own: those that training asked first would be no sample of the problems that it saw.
        seed = derive_seed(self.seed, "evaluate")
        found = told_apart(
            [(task, item) for item in task.items(chosen.task.chosen_split, chosen.problems, seed)]
        )
        if not found:
            raise UsageError(f"`sets.{name}`: the task {task.name!r} gives no items.")
        items = {item.id: item for _, item in found}
        if len(items) < chosen.problems:
            self.remarks.append(f"Set '{name}': {len(items)} problems, as the task's split has no more.")
        return [(task, item) for item in items.values()]

    def _ask(self, candidate: Candidate, problems: Sequence[tuple[Task, Item]], limit: int) -> QuestionSet:
        try:
            reader = candidate.reader
            return ask(problems, self.config.template, reader.tokenizer, room=reader.context - limit)
        except UsageError as error:
            raise UsageError(f"Model '{candidate.label}': {error}") from error


def _place(row: Mapping[str, Any]) -> str:
    """What tells one problem that was set aside from another: its id, or where its broken row stands."""
    return str(row["id"]) if "id" in row else f"{row['path']}:{row['line']}"


def forbidden(forbid: Forbid, candidate: Candidate, name: str) -> dict[int, int]:
    """`{previous token: token that may not follow it}` in the tokenizer of `candidate`; `name` is the set's.

    Raises `UsageError` for a word that is not one token.
    """

    tokenizer = candidate.reader.tokenizer

    def token(word: str) -> int:
        ids = tokenizer.encode(word, add_special_tokens=False)
        if len(ids) == 1 and ids[0] != tokenizer.unk_token_id:
            return int(ids[0])
        found = "an unknown word" if len(ids) == 1 else f"{len(ids)} tokens"
        raise UsageError(
            f"`sets.{name}.forbid` needs words of one token, and {word!r} is {found} to the tokenizer of "
            f"'{candidate.label}'. Name other words, or name the set's `models` without this one."
        )

    banned = token(forbid.token)
    return {token(word): banned for word in forbid.after}


# --- What comes back


def _rows(paper: Paper, answers: Answers) -> list[jsonl.Row]:
    """The rows of a paper that is done, in order."""
    return [answers[paper.key(*each)] for each in paper.order]


def _key(row: Mapping[str, Any]) -> tuple[str, str, str, int]:
    return row["model"], row["set"], row["problem_id"], row["sample"]


def _writer(config: Config, candidate: Candidate, papers: Sequence[Paper], work: Work) -> ModelWriter:
    """Who answers all papers of one model."""
    most = max(longest(paper.questions, paper.sampling) for paper in papers)
    return ModelWriter(
        candidate.folder, config.engine, candidate.reader, longest=most, batch=config.batch, say=work.say
    )


def _sit(exam: Exam, paper: Paper, writer: ModelWriter, answers: Answers, work: Work) -> dict[str, float]:
    """Ask one model one paper, as far as it was not answered before; how fast it answered, if it did."""
    order, size = paper.order, exam.config.batch
    tokens, seconds = 0, 0.0

    def keep(rows: "Sequence[SampleRow]") -> None:
        answers.add({"model": paper.model, "set": paper.set, **row} for row in rows)

    for start in range(0, len(order), size):
        batch = order[start : start + size]
        known = {place for place, each in enumerate(batch) if paper.key(*each) in answers}
        if len(known) < len(batch):
            work.pause_point()
            # The same for every model.
            asked = [("evaluate", paper.set, question.item.id, sample) for question, sample in batch]
            seeds = [derive_seed(exam.seed, *each) for each in asked]
            written = writer.write(batch, paper.sampling, seeds, keep, known)
            tokens, seconds = tokens + written.tokens, seconds + (written.seconds or 0)
        work.progress(start + len(batch), len(order), f"completions of {paper.model} on {paper.set}")
    return {"generation_tokens_per_second": tokens / seconds} if seconds else {}


def _log_row(exam: Exam, paper: Paper, scores: Scores) -> dict[str, Any]:
    """How far the evaluation is, and the figures that a line has room for."""
    place = {"step": exam.papers.index(paper) + 1, "steps": len(exam.papers)}
    told = {key: scores[key] for key in ("pass_at_1", "stderr", "mean_tokens", "truncated")}
    return {**place, "model": paper.model, "set": paper.set, **told}
