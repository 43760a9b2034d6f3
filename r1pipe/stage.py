"""What a stage is: its config, what it is given, what it works in, and what it hands back.

A stage is a module in `stages/` with

    VERSION: int                                    bumped by hand when results would change
    class Config(StageConfig): ...                  a sentence under each field
    def run(config, inputs, work) -> Outcome: ...
    def check(config) -> Findings: ...              optional: what is seen before anything starts to be wrong
                                                    with the config, or missing on this machine
    def batches(config) -> BatchPlan: ...           optional, of a stage that trains: how its batches are cut
    LIGHT = True                                    optional: the stage needs no model, so torch and its like
                                                    are not loaded for it
    SUMMARY: str                                    optional: one line for the help

and nothing else that anybody depends on. The pipeline runs it as a part of a recipe, the command line runs it
alone; the stage cannot tell which.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, cast, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

from r1pipe import jsonl
from r1pipe.errors import EnvironmentUnfit, Interrupted, R1pipeError, UsageError
from r1pipe.fingerprint import flatten

if TYPE_CHECKING:
    from r1pipe.artifact import Artifact
    from r1pipe.card import Contents

Kind = Literal["checkpoint", "dataset"]
RefKind = Literal["checkpoint", "dataset", "path"]


# --- The config


@dataclass(frozen=True, slots=True)
class Ref:
    """Marks a field whose value names an artifact: a stage of the recipe, a path, or a Hugging Face id."""

    kind: RefKind


CheckpointRef = Annotated[str, Ref("checkpoint")]
"""A stage's name, the path of a model's folder, or `org/name[@revision]` on the Hugging Face hub."""
DatasetRef = Annotated[str, Ref("dataset")]
"""A stage's name, or the path of a dataset's folder or of one `.jsonl` file."""
DataPath = Annotated[str, Ref("path")]
"""The path of a `.jsonl` file or a dataset's folder that the stage opens itself; its bytes count."""


@dataclass(frozen=True, slots=True)
class Neutral:
    """Marks a field that cannot change the result, or no more than another machine would; see `NEUTRAL`."""


NEUTRAL = Neutral()
"""`every: Annotated[int, NEUTRAL] = 10` is left out of the fingerprint: changing it reruns nothing."""


class StageConfig(BaseModel):
    """The base of every stage's config: an unknown key is an error, and a config never changes once made."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    makes: ClassVar[Kind | None] = None
    """What the stage publishes; with it a recipe that feeds a checkpoint to `data` is refused in time."""

    listed: ClassVar[str | None] = None
    """The field whose values stand on the command line without an option: `r1pipe curate IN… --out DIR`."""

    threads: int = Field(default=1, ge=1)
    """CPU threads. They count in the fingerprint: the order of a floating-point sum depends on them."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One use of another artifact in a config."""

    role: str
    """The field's dotted name: `model`, `data`, `task.path`."""
    kind: RefKind
    value: str
    """As written: a stage's name, a path or a Hugging Face id."""
    index: int | None = None
    """The place in the list, for a field that holds several."""


def references(config: BaseModel) -> list[Reference]:
    """Return every artifact the config names, in the order of its fields."""
    return list(_references(config, ""))


def counted(config: BaseModel) -> dict[str, Any]:
    """Return the config as dotted keys, without what cannot change the result.

    Left out are `NEUTRAL` fields and the names behind single references: there the fingerprint of what they
    point at counts, so that a renamed stage or a moved file reruns nothing. A list keeps its names, since
    stages tell the members of a list apart by them.
    """
    return flatten(_counted(config))


def _references(model: BaseModel, prefix: str) -> Iterator[Reference]:
    for name, info in type(model).model_fields.items():
        role, value, ref = prefix + name, getattr(model, name), _ref(info)
        if ref is None:
            for suffix, nested in _models_in(value):
                yield from _references(nested, f"{role}{suffix}.")
        elif isinstance(value, str):
            yield Reference(role, ref.kind, value)
        elif isinstance(value, Sequence):
            yield from (Reference(role, ref.kind, each, index) for index, each in enumerate(value))


def _models_in(value: Any) -> Iterator[tuple[str, BaseModel]]:
    if isinstance(value, BaseModel):
        yield "", value
    elif isinstance(value, list | tuple):
        yield from ((f".{index}", each) for index, each in enumerate(value) if isinstance(each, BaseModel))
    elif isinstance(value, Mapping):
        yield from ((f".{key}", each) for key, each in value.items() if isinstance(each, BaseModel))


def _counted(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return {
            name: _counted(getattr(value, name))
            for name, info in type(value).model_fields.items()
            if NEUTRAL not in info.metadata and not (_ref(info) and isinstance(getattr(value, name), str))
        }
    if isinstance(value, Mapping):
        return {key: _counted(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_counted(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def _ref(info: FieldInfo) -> Ref | None:
    """Find the mark in `CheckpointRef`, `CheckpointRef | None` and `list[CheckpointRef]` alike."""
    marks = [mark for mark in info.metadata if isinstance(mark, Ref)]
    return marks[0] if marks else _ref_in(info.annotation)


def _ref_in(annotation: Any) -> Ref | None:
    if get_origin(annotation) is Annotated:
        return next((mark for mark in annotation.__metadata__ if isinstance(mark, Ref)), None)
    return next((mark for arg in get_args(annotation) if (mark := _ref_in(arg))), None)


# --- What check() finds


@dataclass(frozen=True, slots=True)
class Findings:
    """What keeps a stage from running, each a sentence that begins with the key: `trainer.beta: ...`."""

    wrong: list[str] = field(default_factory=list)
    """What the config has to have changed."""
    lacking: list[str] = field(default_factory=list)
    """What this machine lacks for it: the config is right, and runs on another."""

    def __add__(self, other: "Findings") -> "Findings":
        return Findings(self.wrong + other.wrong, self.lacking + other.lacking)

    @property
    def error(self) -> R1pipeError | None:
        """All of it as one error, that of a config if anything is wrong with it; None where nothing is."""
        if not self.wrong and not self.lacking:
            return None
        kind = UsageError if self.wrong else EnvironmentUnfit
        return kind("\n".join([*self.wrong, *self.lacking]))


# --- What run() is given


class Inputs:
    """The artifacts a config names, by role; a role is the config's field."""

    def __init__(self, given: Mapping[str, Sequence[tuple[str, "Artifact"]]]) -> None:
        self._given = given

    def one(self, role: str) -> "Artifact":
        """Return the only artifact of this role; `LookupError` is the stage's mistake, not the user's."""
        artifacts = self.many(role)
        if len(artifacts) != 1:
            raise LookupError(f"{len(artifacts)} inputs for {role!r}, one was asked for")
        return artifacts[0]

    def many(self, role: str) -> "list[Artifact]":
        """Return all artifacts of this role, in the config's order; none is an empty list."""
        return [artifact for _, artifact in self._given.get(role, ())]

    def labels(self, role: str) -> list[str]:
        """Return the names of this role's artifacts as the recipe writes them, in the order of `many`."""
        return [label for label, _ in self._given.get(role, ())]


class Sink(Protocol):
    """Where everything that happens is told; the command line's output is one, the run's event file another.

    From a running stage come `log` (row), `progress` (done, total, unit) and `say` (text). The pipeline adds
    `run_started` (run, steps), `stage_started` (verb, fingerprint, reasons, resumed), `stage_reused`
    (artifact, reasons), `stage_finished` (artifact, metrics, cost), `stage_failed` (error, log),
    `stage_stopped`, `stage_skipped` (because) and `run_finished` (seconds, exit_code); in the run's own two,
    `stage` is empty.
    """

    def event(self, kind: str, stage: str, **fields: Any) -> None:
        """Take one event."""


@dataclass
class Work:
    """A running stage's workplace."""

    dir: Path
    """Its folder. It outlives a kill: a stage begins by looking here for what it can go on from."""
    name: str
    """The stage's name in the recipe."""
    seed: int
    sink: Sink
    metrics: Path
    """`metrics/<stage>.jsonl` of the run."""
    stop: threading.Event = field(default_factory=threading.Event)
    logs: Path | None = None
    """The folder of what a stage's processes print; `dir` if there is none."""
    rank: int | None = None
    """Which of the stage's ranks this process is; None where the stage is one process. Only the first rank
    writes and tells: the rows and words of the others are passed over here."""

    def log(self, row: Mapping[str, Any]) -> None:
        """Record one row of metrics (it carries `step`) in the run and show it as one line."""
        if self.rank:
            return
        self.metrics.parent.mkdir(parents=True, exist_ok=True)
        with jsonl.Journal(self.metrics) as journal:
            journal.append([dict(row)])
        self.sink.event("log", self.name, row=dict(row))

    def rewind(self, step: int) -> None:
        """Cut the rows after `step`: a resumed stage goes through those again and would log them twice."""
        if self.rank or not self.metrics.exists():
            return
        with jsonl.Journal(self.metrics) as journal:
            rows = journal.rows()
        kept = [row for row in rows if row.get("step", 0) <= step]
        if len(kept) < len(rows):
            jsonl.write_text(self.metrics, "".join(jsonl.dumps(row).decode() + "\n" for row in kept))

    def progress(self, done: int, total: int, unit: str) -> None:
        """Say how far the stage is, as often as it likes; nothing is recorded."""
        if not self.rank:
            self.sink.event("progress", self.name, done=done, total=total, unit=unit)

    def say(self, text: str) -> None:
        """Tell the user one plain sentence, which the run's events keep."""
        if not self.rank:
            self.sink.event("say", self.name, text=text)

    def stopping(self) -> bool:
        """Whether the user asked to stop: save what a resume needs, then raise `Interrupted`."""
        return self.stop.is_set()

    def pause_point(self) -> None:
        """Raise `Interrupted` if the user asked to stop; for stages whose work is saved as it is made."""
        if self.stopping():
            raise Interrupted(f"Stage '{self.name}' stopped. Run the same command again to go on.")


# --- What run() hands back


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a stage made."""

    kind: Kind
    path: Path
    """A folder that holds exactly what is to be published."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Headline numbers for the manifest, e.g. the last loss or the share of kept traces."""
    tokens: int | None = None
    """Tokens trained on or generated, for the cost."""
    cost: dict[str, Any] = field(default_factory=dict)
    """What the stage knows better than its process does, where others did the work: `peak_rss_bytes`,
    `device`."""
    card: "Contents | None" = None
    """What a dataset's card tells, where the stage knows it already; else the rows are read once more."""


class StageModule(Protocol):
    """A module in `stages/`, as the pipeline sees it; `check`, `batches` and `SUMMARY` may be missing."""

    VERSION: int
    Config: type[StageConfig]
    run: Callable[[Any, Inputs, Work], Outcome]


class Verbs(Mapping[str, type[StageConfig]]):
    """What `uses` may name: each verb with its config, whose module is imported when first looked up."""

    def __init__(self, modules: Mapping[str, str]) -> None:
        self.modules = dict(modules)
        """The full name of each verb's module."""

    def __getitem__(self, verb: str) -> type[StageConfig]:
        return self.module(verb).Config

    def __iter__(self) -> Iterator[str]:
        return iter(self.modules)

    def __len__(self) -> int:
        return len(self.modules)

    def __contains__(self, verb: object) -> bool:
        return verb in self.modules

    def module(self, verb: str) -> StageModule:
        """Return the verb's module."""
        return cast(StageModule, import_module(self.modules[verb]))
