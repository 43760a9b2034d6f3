"""Models compared on the same problems, in the same order, under the same random numbers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from r1pipe import jsonl
from r1pipe.errors import UsageError
from r1pipe.measure.samples import SampleRow, sample_row
from r1pipe.measure.scores import score
from r1pipe.prompting import CLOSE_THINK, Template, opens_thinking, render
from r1pipe.rollout import Sampling
from r1pipe.stage import CheckpointRef, Inputs, Outcome, StageConfig, Work
from r1pipe.tasks import Item, Task, TaskSpec, make_task
from r1pipe.train.determinism import derive_seed
from r1pipe.train.text import decode_completions, encode_prompt, open_tokenizer
from r1pipe.verify.verdict import Completion

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from r1pipe.rollout.local import TransformersEngine

VERSION = 1
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

    task: TaskSpec
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


_HELD_OUT = ProblemSet(task=TaskSpec(name="countdown", split="held-out"))


class Config(StageConfig):
    """What the `evaluate` stage reads from a recipe."""

    makes: ClassVar = "dataset"

    models: Annotated[
        list[CheckpointRef], BeforeValidator(lambda v: [v] if isinstance(v, str) else v), Field(min_length=1)
    ]
    """Who is asked. The scores carry the names that stand here."""
    sets: dict[str, ProblemSet] = Field(default={"held-out": _HELD_OUT}, min_length=1)
    """What is asked: sets of problems by name. `held-out`, else the first, stands for a model in tables."""
    template: Template = "r1-zero"
    """How a question becomes a prompt: `r1-zero` (the paper's, for a base), `chat` or `plain`."""
    temperature: float = Field(default=1.0, ge=0)
    """Of the sampling; 0 takes the most likely token. The paper's benchmarks: 0.6."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Smallest set of tokens whose probability reaches this is kept. The paper's benchmarks: 0.95."""
    max_new_tokens: int = Field(default=512, ge=1)
    """A completion that reaches this many tokens is cut off and counts as truncated."""
    batch: int = Field(default=256, ge=1)
    """Completions generated at a time. It counts in the fingerprint: a batch draws from one random stream."""

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

    def asked_of(self, model: str) -> dict[str, ProblemSet]:
        """The sets that a model is asked."""
        return {name: each for name, each in self.sets.items() if each.models is None or model in each.models}


def run(config: Config, inputs: Inputs, work: Work) -> Outcome:
    """Ask every model every set, and publish each judged completion as a row.

    `metrics["models"][model][set]` holds the scores that `r1pipe.measure.scores.score` describes. Raises
    `UsageError` for a model that cannot be asked, before any is.
    """
    folders = {
        label: each.path for label, each in zip(inputs.labels("models"), inputs.many("models"), strict=True)
    }
    exam = Exam(config, {label: _Reader(label, path) for label, path in folders.items()}, work.seed)
    for text in exam.remarks:
        work.say(text)
    work.rewind(0)  # scores come from the journal, so a resumed evaluation logs them all again
    with jsonl.Journal(work.dir / "rows.jsonl") as journal:
        answers = Answers(journal)
        models = {
            label: dict(_evaluate(exam, label, folder, answers, work)) for label, folder in folders.items()
        }
    published = work.dir / "published"
    rows = [row for paper in exam.papers for row in answers.of(paper)]
    jsonl.write_shards(published, (dict(row) for row in rows))
    if exam.set_aside:
        jsonl.write_rows(published / "set-aside.jsonl", exam.set_aside)
    metrics = {"models": models, "set_aside": len(exam.set_aside)}
    return Outcome("dataset", published, metrics, tokens=sum(row["tokens"] for row in rows))


# --- What is asked


class _Reader:
    """How one model reads: its tokenizer and its context, without its weights."""

    def __init__(self, label: str, folder: Path) -> None:
        from transformers import AutoConfig

        self.label = label
        self.tokenizer = open_tokenizer(folder)
        text_config = AutoConfig.from_pretrained(folder).get_text_config()
        self.context = int(text_config.max_position_embeddings)

    def prompt(self, template: Template, item: Item) -> "Prompt":
        text = render(template, item.question, reasoning=item.reasoning, tokenizer=self.tokenizer)
        return Prompt(text, encode_prompt(self.tokenizer, text))


@dataclass(frozen=True, slots=True)
class Prompt:
    """One problem as one model reads it."""

    text: str
    token_ids: list[int]


@dataclass(frozen=True, slots=True)
class Paper:
    """One set as one model is asked it."""

    model: str
    set: str
    problems: Sequence[tuple[Task, Item]]
    prompts: Sequence[Prompt]
    """One for each of `problems`."""
    samples: int
    pass_at: Sequence[int]
    sampling: Sampling

    @property
    def questions(self) -> list[tuple[int, int]]:
        """(problem, sample) of every completion, in the order they are asked."""
        return [(p, sample) for p in range(len(self.problems)) for sample in range(self.samples)]


class Exam:
    """Every paper of an evaluation, made before anybody is asked."""

    def __init__(self, config: Config, readers: Mapping[str, _Reader], seed: int) -> None:
        """Choose the problems and put them into each model's tokens.

        A problem whose prompt is too long for one of a set's models is set aside for all of them, so that
        all are still asked the same. Raises `UsageError` when that leaves none.
        """
        self.config = config
        self.seed = seed
        self.papers: list[Paper] = []
        self.set_aside: list[dict[str, Any]] = []
        self.remarks: list[str] = []
        for name in config.sets:
            asked = [each for label, each in readers.items() if name in config.asked_of(label)]
            self.papers += self._papers(name, asked)
        order = list(readers)
        self.papers.sort(key=lambda paper: order.index(paper.model))

    def of(self, model: str) -> list[Paper]:
        """A model's papers, in the order of the sets."""
        return [paper for paper in self.papers if paper.model == model]

    def _papers(self, name: str, readers: Sequence[_Reader]) -> Iterator[Paper]:
        chosen = self.config.sets[name]
        problems = self._problems(name, chosen)
        prompts = {reader.label: self._prompts(reader, problems) for reader in readers}
        limit = chosen.max_new_tokens or self.config.max_new_tokens
        long = {
            index: f"{len(prompt.token_ids)} tokens, and {reader.label!r} has room for "
            f"{reader.context - limit}: its context of {reader.context} less max_new_tokens = {limit}"
            for reader in readers
            for index, prompt in enumerate(prompts[reader.label])
            if len(prompt.token_ids) > reader.context - limit
        }
        if len(long) == len(problems):
            raise UsageError(
                f"All {len(problems)} prompts of set '{name}' are too long, the first with {long[0]}. "
                "Set `max_new_tokens` lower, or leave that model out."
            )
        for index, reason in long.items():
            task, item = problems[index]
            self.set_aside.append({"set": name, "id": item.id, "task": task.name, "reason": reason})
        if long:
            self.remarks.append(f"Set '{name}': {len(long)} problems are set aside, too long for a context.")
        kept = [index for index in range(len(problems)) if index not in long]
        for reader in readers:
            banned = _banned(chosen.forbid, reader, name) if chosen.forbid else {}
            yield Paper(
                reader.label,
                name,
                [problems[index] for index in kept],
                [prompts[reader.label][index] for index in kept],
                chosen.samples,
                chosen.pass_at,
                Sampling(limit, self.config.temperature, self.config.top_p, forbid_after=banned),
            )

    def _problems(self, name: str, chosen: ProblemSet) -> list[tuple[Task, Item]]:
        """Different ones: a task that runs out of them would begin again."""
        task = make_task(chosen.task)
        items = {item.id: item for item in task.items(chosen.task.chosen_split, chosen.problems, self.seed)}
        if len(items) < chosen.problems:
            self.remarks.append(
                f"Set '{name}': the task has {len(items)} problems, {chosen.problems} were asked for."
            )
        return [(task, item) for item in items.values()]

    def _prompts(self, reader: _Reader, problems: Sequence[tuple[Task, Item]]) -> list[Prompt]:
        try:
            return [reader.prompt(self.config.template, item) for _, item in problems]
        except UsageError as error:
            raise UsageError(f"Model '{reader.label}': {error}") from error


def _banned(forbid: Forbid, reader: _Reader, name: str) -> dict[int, int]:
    """`{previous token: token that may not follow it}`."""

    def one_token(word: str) -> int:
        ids = reader.tokenizer.encode(word, add_special_tokens=False)
        if len(ids) != 1 or ids[0] == reader.tokenizer.unk_token_id:
            raise UsageError(
                f"`sets.{name}.forbid` needs words of one token each, and {word!r} is "
                f"{len(ids) if len(ids) != 1 else 'an unknown word'} to the tokenizer of '{reader.label}'. "
                "Name other words, or leave this model out with the set's `models`."
            )
        return int(ids[0])

    banned = one_token(forbid.token)
    return {one_token(word): banned for word in forbid.after}


# --- What comes back


class ScoredRow(SampleRow):
    """A judged completion and whose it is."""

    model: str
    set: str


class Answers:
    """The rows made so far, kept in the journal as they arrive."""

    def __init__(self, journal: jsonl.Journal) -> None:
        self._journal = journal
        self._rows: dict[tuple[str, str, str, int], ScoredRow] = {}
        self._remember(journal.rows())

    def has(self, paper: Paper, questions: Sequence[tuple[int, int]]) -> bool:
        """Whether all of these were answered already."""
        return all(
            (paper.model, paper.set, paper.problems[p][1].id, sample) in self._rows for p, sample in questions
        )

    def add(self, rows: Sequence[ScoredRow]) -> None:
        """Keep the rows; of a batch that a kill cut in two, those that were missing."""
        fresh = [row for row in rows if _key(row) not in self._rows]
        self._journal.append(dict(row) for row in fresh)
        self._remember(fresh)

    def of(self, paper: Paper) -> list[ScoredRow]:
        """The rows of a paper that is done, in order."""
        return [
            self._rows[paper.model, paper.set, paper.problems[p][1].id, sample]
            for p, sample in paper.questions
        ]

    def _remember(self, rows: Sequence[Any]) -> None:
        self._rows.update((_key(row), row) for row in rows)


def _key(row: Mapping[str, Any]) -> tuple[str, str, str, int]:
    return row["model"], row["set"], row["problem_id"], row["sample"]


def _evaluate(
    exam: Exam, label: str, folder: Path, answers: Answers, work: Work
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Ask one model its papers; yield the name of each set with the scores."""
    examinee = Examinee(folder, exam.config.batch)
    for paper in exam.of(label):
        questions = paper.questions
        for start in range(0, len(questions), exam.config.batch):
            batch = questions[start : start + exam.config.batch]
            if not answers.has(paper, batch):
                work.pause_point()
                seed = derive_seed(exam.seed, "evaluate", paper.set, start)  # the same for every model
                answers.add(examinee.answer(paper, batch, seed))
            work.progress(start + len(batch), len(questions), f"completions, {label} on {paper.set}")
        scores = score(answers.of(paper), paper.pass_at)
        told = ("pass_at_1", "stderr", "mean_tokens", "truncated")
        place = {"step": exam.papers.index(paper) + 1, "steps": len(exam.papers)}
        work.log({**place, "model": label, "set": paper.set, **{key: scores[key] for key in told}})
        yield paper.set, scores


class Examinee:
    """A model that answers; its weights are read when it is first asked."""

    def __init__(self, folder: Path, batch: int) -> None:
        self._folder = folder
        self._batch = batch
        self._opened: tuple[TransformersEngine, PreTrainedTokenizerBase] | None = None

    def answer(self, paper: Paper, questions: Sequence[tuple[int, int]], seed: int) -> list[ScoredRow]:
        """One judged completion for each (problem, sample) of `questions`."""
        engine, tokenizer = self._open()
        prompts = [paper.prompts[p] for p, _ in questions]
        rollouts = engine.generate([prompt.token_ids for prompt in prompts], paper.sampling, seed=seed)
        texts = decode_completions(tokenizer, [rollout.token_ids for rollout in rollouts])
        rows = []
        for (p, sample), prompt, rollout, text in zip(questions, prompts, rollouts, texts, strict=True):
            task, item = paper.problems[p]
            cut = rollout.finish == "length"
            completion = Completion(text, opens_thinking(prompt.text), cut, len(rollout.token_ids))
            row = sample_row(task.name, item, sample, completion, task.judge(item, completion))
            rows.append(ScoredRow(model=paper.model, set=paper.set, **row))
        return rows

    def _open(self) -> "tuple[TransformersEngine, PreTrainedTokenizerBase]":
        from r1pipe.rollout.local import TransformersEngine
        from r1pipe.train import models

        if self._opened is None:
            model, tokenizer = models.open_model(self._folder)
            ends = {"eos_id": tokenizer.eos_token_id, "pad_id": tokenizer.pad_token_id}
            self._opened = TransformersEngine(model, **ends, batch=self._batch), tokenizer
        return self._opened
