"""What can be said of a recipe before anything runs: no weights are read, nothing is written or downloaded.

A run finds most mistakes hours after it began, when the stage that has them gets its turn. Here each part
that can be tried alone is: the trainers' options, the arithmetic of the batches, the rows of the tasks, a
prompt of each as the model would get it, the engines. What would need something that is not on this machine
is left out, and that is said.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from r1pipe import jsonl, pipeline, shipped
from r1pipe.batches import BatchPlan
from r1pipe.errors import EnvironmentUnfit, R1pipeError, UsageError
from r1pipe.hub import fetch_model, is_hub_id
from r1pipe.prompting import Template, render
from r1pipe.recipe import Recipe, StageSpec
from r1pipe.rollout import vllm_fit
from r1pipe.rollout.specs import RaySpec, RemoteSpec, VllmSpec
from r1pipe.stage import Findings, Reference, Verbs
from r1pipe.tasks import Item, Task
from r1pipe.tasks.spec import TaskSpec
from r1pipe.train.text import encode_prompt, open_tokenizer
from stages import VERBS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TRIED: Final = 8
"""Items of each task that are rendered."""


@dataclass(frozen=True, slots=True)
class TaskTrial:
    """A task's data as one stage would ask it."""

    stage: str
    key: str
    task: str
    rows: int | None
    """Items that its file or data set has; None for one that makes them."""
    set_aside: int
    tokens: int | None
    """Of the longest of the first prompts; None without the model's tokenizer."""
    tried: int
    """The first prompts."""
    too_long: int
    """Those of them that leave no room for the longest completion, and would be set aside."""
    prompt: str
    """The first one, rendered; empty where its template needs a tokenizer that is not here."""


@dataclass
class DryRun:
    """What was found."""

    recipe: Recipe
    batches: dict[str, BatchPlan] = field(default_factory=dict)
    """Of each stage that trains."""
    tasks: list[TaskTrial] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """What could not be tried on this machine, a sentence each."""
    findings: Findings = field(default_factory=Findings)
    """What has to be put right, in the recipe or on this machine, each with its place."""

    def wrong(self, stage: str, key: str, text: str) -> None:
        """Note what is wrong with a stage; it stands where the recipe has its key."""
        self._note(self.findings.wrong, stage, key, text)

    def lacking(self, stage: str, key: str, text: str) -> None:
        """Note what this machine lacks for a stage; it stands where the recipe has its key."""
        self._note(self.findings.lacking, stage, key, text)

    def _note(self, findings: list[str], stage: str, key: str, text: str) -> None:
        written = ".".join(self.recipe.written(stage, key))
        told = f"{self.recipe.place(stage, key)}: stages.{stage}.{written}: {text}"
        if told not in findings:
            findings.append(told)

    def leave_out(self, text: str) -> None:
        """Note what could not be tried, once."""
        if text not in self.left_out:
            self.left_out.append(text)

    @property
    def as_json(self) -> dict[str, Any]:
        """All of it, for `--json`."""
        return {
            "recipe": self.recipe.name,
            "stages": self.recipe.order,
            "batches": [{"stage": stage, **plan.as_json} for stage, plan in self.batches.items()],
            "tasks": [
                {
                    "stage": each.stage,
                    "key": each.key,
                    "task": each.task,
                    "rows": each.rows,
                    "set_aside": each.set_aside,
                    "prompt_tokens": each.tokens,
                    "tried": each.tried,
                    "too_long": each.too_long,
                    "prompt": each.prompt,
                }
                for each in self.tasks
            ],
            "left_out": self.left_out,
            "problems": self.findings.wrong,
            "lacking": self.findings.lacking,
        }


def dry_run(recipe: Recipe, *, verbs: Verbs = VERBS, preload: Sequence[str] = pipeline.HEAVY) -> DryRun:
    """Try all of a recipe that can be tried without running it."""
    checked = pipeline.check_options(recipe, recipe.order, verbs=verbs, preload=preload)
    found = DryRun(recipe, findings=checked)
    with _offline():
        models = _Models(recipe)
        tasks = _Tasks()
        for name in recipe.order:
            spec = recipe.stages[name]
            if batches := getattr(verbs.module(spec.uses), "batches", None):
                found.batches[name] = batches(spec.config)
            _try_data(found, spec)
            _try_engines(found, spec, models)
            _try_tasks(found, spec, models, tasks)
    return found


def _try_data(found: DryRun, spec: StageSpec) -> None:
    """Look whether models and data sets are there; the files of tasks are looked at with their tasks."""
    for reference in spec.inputs:
        external = reference.kind != "path" and reference.value not in found.recipe.stages
        on_hub = reference.kind == "checkpoint" and is_hub_id(reference.value)
        if external and not on_hub and not Path(reference.value).expanduser().exists():
            found.wrong(spec.name, _key(reference), _missing(found.recipe, reference.value))


def _try_engines(found: DryRun, spec: StageSpec, models: "_Models") -> None:
    """Say which engines are not asked, and which models vLLM cannot serve; what else it lacks, the stage's
    own check has told."""
    for _ in _models_in(spec.config, RemoteSpec):
        found.leave_out(f"The server of '{spec.name}' was not asked: a dry run opens no connection.")
    clusters = tuple(f"{key}." for key, _ in _models_in(spec.config, RaySpec))
    if clusters:
        found.leave_out(f"The Ray cluster of '{spec.name}' was not asked: a dry run opens no connection.")
    for key, _ in _models_in(spec.config, VllmSpec):
        if key.startswith(clusters):  # what that cluster's machines can serve, this one cannot tell
            continue
        for said in models.unservable(found, spec):
            found.wrong(spec.name, key, said)


def _try_tasks(found: DryRun, spec: StageSpec, models: "_Models", tasks: "_Tasks") -> None:
    """Read the rows of a stage's tasks, and render the first of each for every model that is asked."""
    template: Template | None = getattr(spec.config, "template", None)
    for key, task in _models_in(spec.config, TaskSpec):
        path = getattr(task, "path", None)
        if path is not None and not Path(path).expanduser().exists():
            found.wrong(spec.name, f"{key}.path", _missing(found.recipe, path))
            continue
        try:
            made, items = tasks.of(task)
        except UsageError as error:
            found.wrong(spec.name, key, str(error))
        except EnvironmentUnfit as error:
            if (dataset := getattr(task, "dataset", None)) is None:
                found.lacking(spec.name, key, str(error))
            else:
                found.leave_out(f"The data set {dataset} is not on this machine; its rows were not read.")
        else:
            if template is not None:
                _try_prompts(found, spec, template, key, made, items, models)


def _try_prompts(
    found: DryRun,
    spec: StageSpec,
    template: Template,
    key: str,
    task: Task,
    items: list[Item],
    models: "_Models",
) -> None:
    """Render the first items of a task as the stage's model would get them, and see that they fit."""
    opened = models.asked_by(found, spec)
    lengths: list[list[int]] = []
    prompt = ""
    try:
        lengths, prompt = _rendered(template, items, [model.tokenizer for model in opened])
    except UsageError as error:
        found.wrong(spec.name, "template", str(error))
    too_long = set[int]()
    for model, tokens in zip(opened, lengths, strict=False):  # none where nothing could be rendered
        too_long |= _try_room(found, spec, key, model, tokens)
    pool = getattr(task, "pool", None)
    rows, longest = None if pool is None else len(pool), max(map(max, lengths), default=None)
    found.tasks.append(
        TaskTrial(spec.name, key, task.name, rows, len(task.bad), longest, len(items), len(too_long), prompt)
    )


def _rendered(
    template: Template, items: Sequence[Item], tokenizers: "Sequence[PreTrainedTokenizerBase]"
) -> tuple[list[list[int]], str]:
    """The tokens of each prompt by each tokenizer, and the first prompt as text.

    That is empty where the template needs a tokenizer and there is none. Raises as `render` does.
    """
    if not tokenizers:
        first = items[0]
        return [], "" if template == "chat" else render(template, first.question, reasoning=first.reasoning)
    lengths, first_prompt = [], ""
    for tokenizer in tokenizers:
        prompts = [
            render(template, item.question, reasoning=item.reasoning, tokenizer=tokenizer) for item in items
        ]
        lengths.append([len(encode_prompt(tokenizer, prompt)) for prompt in prompts])
        first_prompt = first_prompt or prompts[0]
    return lengths, first_prompt


def _try_room(found: DryRun, spec: StageSpec, key: str, model: "_Model", tokens: Sequence[int]) -> set[int]:
    """See which prompts, of so many tokens, leave no room for the longest completion in the model's context.

    A run sets these aside and goes on with the others; that none is left is a problem.
    """
    where, most = _limit(spec, key)
    if most is None or model.context is None:
        return set()
    room = model.context - most
    too_long = {place for place, each in enumerate(tokens) if each > room}
    if len(too_long) == len(tokens):
        found.wrong(
            spec.name,
            where,
            f"{most} tokens after a prompt of {max(tokens)} do not fit the context of {model.context} that "
            f"{model.name} has; set it to {max(1, model.context - max(tokens))} or less",
        )
    return too_long


def _limit(spec: StageSpec, key: str) -> tuple[str, int | None]:
    """The longest completion that a stage allows to a task, and the key that says so."""
    match key.split("."):
        case ["sets", name, "task"] if own := spec.config.sets[name].max_new_tokens:  # type: ignore[attr-defined]
            return f"sets.{name}.max_new_tokens", own
    if getattr(spec.config, "teacher", None) is not None:  # whose context nobody here knows
        return "max_new_tokens", None
    most = getattr(spec.config, "max_new_tokens", None)
    if isinstance(most, Mapping):  # a schedule over the steps
        most = max(most.values())
    return "max_new_tokens", most if isinstance(most, int) else None


# --- Tasks and models, each opened once


class _Tasks:
    """Tasks by their specs: several stages ask the same."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[Task, list[Item]] | R1pipeError] = {}

    def of(self, spec: TaskSpec) -> tuple[Task, list[Item]]:
        """The task and its first items. Raises `UsageError` and `EnvironmentUnfit` as the task does."""
        key = spec.model_dump_json()
        if key not in self._made:
            try:
                task = spec.make()
                self._made[key] = task, task.items(spec.chosen_split, TRIED, seed=0)
            except (UsageError, EnvironmentUnfit) as error:
                self._made[key] = error
        made = self._made[key]
        if isinstance(made, R1pipeError):
            raise made
        return made


@dataclass(frozen=True, slots=True)
class _Model:
    """What a checkpoint's folder says without its weights."""

    name: str
    tokenizer: "PreTrainedTokenizerBase"
    context: int | None
    folder: Path


class _Models:
    """Tokenizers by the checkpoint they come from."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._opened: dict[str, _Model | None] = {}

    def asked_by(self, found: DryRun, spec: StageSpec) -> list[_Model]:
        """The models that a stage asks, as far back as they came into the run; those that are not here are
        left out, and that is noted."""
        opened = [self._of(found, spec.name, each) for each in _asked_models(spec)]
        return [model for model in opened if model is not None]

    def unservable(self, found: DryRun, spec: StageSpec) -> list[str]:
        """Why vLLM cannot serve the models that a stage asks: those that are here, and those of the run.

        Nothing where it is not installed as it should be: what it serves is not known then.
        """
        try:
            vllm_fit.check_installation()
        except EnvironmentUnfit:
            return []
        here = [model.folder for model in self.asked_by(found, spec)]
        told = [vllm_fit.unavailable(folder) for folder in here if (folder / "config.json").is_file()]
        for root in dict.fromkeys(self._root(each.value) for each in _asked_models(spec)):
            if root in self._recipe.stages:  # one that is made of nothing, and says its heads itself
                size = getattr(self._recipe.stages[root].config, "head_dim", None)
                told.append(vllm_fit.unfit_heads(size, f"'{root}'"))
        return [said for said in told if said is not None]

    def _of(self, found: DryRun, stage: str, reference: Reference) -> _Model | None:
        root = self._root(reference.value)
        if root in self._recipe.stages:
            found.leave_out(f"The tokenizer of '{root}' is made by the run; its prompts were not tokenised.")
            return None
        if root not in self._opened:
            self._opened[root] = self._open(found, stage, _key(reference), root)
        return self._opened[root]

    def _root(self, value: str) -> str:
        """Follow a stage's `model` to where its tokenizer comes from: a path, a hub id, or a stage."""
        while value in self._recipe.stages:
            below = getattr(self._recipe.stages[value].config, "model", None)
            if not isinstance(below, str):
                return value
            value = below
        return value

    def _open(self, found: DryRun, stage: str, key: str, value: str) -> _Model | None:
        if not is_hub_id(value) and not Path(value).expanduser().exists():
            return None  # that is told where the model comes into the run
        try:
            folder = fetch_model(value) if is_hub_id(value) else Path(value).expanduser()
            tokenizer = open_tokenizer(folder)
        except EnvironmentUnfit:
            found.leave_out(
                f"The model {value} is not on this machine; its tokenizer and context were not read."
            )
            return None
        except (OSError, ValueError) as error:
            text = str(error).partition("\n")[0]
            found.wrong(stage, key, f"the tokenizer of {value} cannot be opened: {text}")
            return None
        if tokenizer.eos_token_id is None:
            text = f"the tokenizer of {value} has no EOS; set `eos_token` in its tokenizer_config.json"
            found.wrong(stage, key, text)
        return _Model(value, tokenizer, _context(folder), folder)


def _asked_models(spec: StageSpec) -> list[Reference]:
    """The models that a stage asks."""
    return [each for each in spec.inputs if each.role in ("model", "models")]


def _context(folder: Path) -> int | None:
    """The most tokens that a model reads, by its config; None where that does not say."""
    file = folder / "config.json"
    config = jsonl.loads(file.read_bytes()) if file.is_file() else {}
    most = config.get("text_config", config).get("max_position_embeddings")
    return most if isinstance(most, int) else None


@contextmanager
def _offline() -> Iterator[None]:
    """Keep the Hugging Face libraries to what is on this machine."""
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when they are imported
    loaded: list[Any] = [
        sys.modules[name] for name in ("huggingface_hub.constants", "datasets.config") if name in sys.modules
    ]
    settings = [(module, module.HF_HUB_OFFLINE) for module in loaded]
    for module in loaded:
        module.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for module, value in settings:
            module.HF_HUB_OFFLINE = value
        if before is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = before


# --- Words


def _models_in(value: Any, kind: type, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every model of a kind within a config, with its dotted key."""
    if isinstance(value, kind):
        yield key, value
        return
    parts: Any = ()
    if isinstance(value, BaseModel):
        parts = ((name, getattr(value, name)) for name in type(value).model_fields)
    elif isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    for name, part in parts:
        yield from _models_in(part, kind, f"{key}.{name}" if key else str(name))


def _key(reference: Reference) -> str:
    return reference.role if reference.index is None else f"{reference.role}.{reference.index}"


def _missing(recipe: Recipe, path: str) -> str:
    """Say that a file is not there, and what the recipe's head says about it."""
    head = []
    if recipe.document is not None and Path(recipe.document.source).is_file():
        head = shipped.recipe_header(Path(recipe.document.source))
    told = [line for line in head if Path(path).name in line]
    way_out = f"the recipe's head says: {' '.join(told)}" if told else "put it there, or give another path"
    return f"nothing is at the path {path!r}; {way_out}"
