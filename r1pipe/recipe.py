"""A recipe: the tree of stages, read from YAML and validated whole before anything runs.

    name: tiny
    seed: 0
    stages:
      base: {uses: pretrain, steps: 400}
      zero: {uses: rl, model: base, task: countdown}

Every mistake in it is reported at once, each with its place (`file:line:column`, or the `--set` it came from)
and, where one is near, the word that was probably meant.
"""

import graphlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from r1pipe import hints, marked, shipped
from r1pipe.errors import UsageError
from r1pipe.hub import is_hub_id
from r1pipe.marked import MarkedDocument, Problem
from r1pipe.stage import Reference, StageConfig, references

_TOP = ("name", "description", "seed", "stages")
# Both are names of folders too; a dot in a stage's name would part it in `--set stages.name.key=value`.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_STAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class StageSpec:
    """One stage of a recipe."""

    name: str
    uses: str
    """The verb: the module in `stages/` that does the work."""
    config: StageConfig

    @cached_property
    def inputs(self) -> list[Reference]:
        """Every artifact the config names."""
        return references(self.config)


@dataclass(frozen=True)
class Recipe:
    """A validated recipe: every key is known, every reference leads somewhere, nothing runs in a circle."""

    name: str
    seed: int
    stages: Mapping[str, StageSpec]
    description: str = ""
    document: MarkedDocument | None = field(default=None, compare=False, repr=False)
    """Where it was written; none for a recipe built in Python."""

    def parents(self, stage: str) -> list[str]:
        """Return the stages that `stage` takes something from, each once, in the order of its config."""
        named = (reference.value for reference in self.stages[stage].inputs if reference.kind != "path")
        return list(dict.fromkeys(name for name in named if name in self.stages))

    def children(self, stage: str) -> list[str]:
        """Return the stages that take something from `stage`, in the recipe's order."""
        return [name for name in self.stages if stage in self.parents(name)]

    @cached_property
    def order(self) -> list[str]:
        """The stages, each after all of its parents, and otherwise as the recipe has them."""
        done: dict[str, None] = {}

        def visit(name: str) -> None:
            for parent in self.parents(name):
                visit(parent)
            done.setdefault(name)

        for name in self.stages:
            visit(name)
        return list(done)

    def place(self, stage: str, key: str = "") -> str:
        """Return where `key` (dotted) of a stage was written, for a message about it."""
        if self.document is None:
            return stage if stage == self.name else f"{self.name}: stages.{stage}"
        return str(self.document.value(("stages", stage, *self.written(stage, key))))

    def written(self, stage: str, key: str) -> marked.Path:
        """Return the keys that lead to `key` (dotted) of a stage as the recipe has them."""
        section = self.document.data["stages"][stage] if self.document else None
        return _as_written(section, key.split(".")) if section else tuple(key.split("."))

    def resolved(self) -> dict[str, Any]:
        """Return the recipe with every default filled in, as JSON; `from_resolved` reads it back."""
        stages = {
            name: {"uses": spec.uses} | spec.config.model_dump(mode="json")
            for name, spec in self.stages.items()
        }
        return {"name": self.name, "description": self.description, "seed": self.seed, "stages": stages}


def load_recipe(
    path_or_name: str | Path,
    verbs: Mapping[str, type[StageConfig]],
    overrides: Sequence[str] = (),
    *,
    files_exist: bool = True,
) -> Recipe:
    """Read and validate a recipe file, or a shipped recipe by its name.

    Args:
        path_or_name: a path (with a `/` or ending in `.yaml`), or the name of a shipped recipe.
        verbs: what `uses` may name, with the config of each.
        overrides: `dotted.key=value` each, the value being YAML, applied in order.
        files_exist: whether a file or folder that is missing is a problem; the dry run tells of it itself.

    Raises:
        UsageError: with all problems, one per line.
    """
    path = Path(path_or_name)
    # A dot alone makes no ending: `qwen2.5-7b` is a name.
    is_name = _NAME.fullmatch(str(path_or_name)) and path.suffix not in (".yaml", ".yml")
    if is_name and not path.is_file():
        path = shipped.recipe_path(str(path_or_name))
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"The recipe {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"The recipe {path} is not UTF-8 text; save it as UTF-8.") from error
    return parse_recipe(text, str(path), verbs, overrides, files_exist=files_exist)


def parse_recipe(
    text: str,
    source: str,
    verbs: Mapping[str, type[StageConfig]],
    overrides: Sequence[str] = (),
    *,
    files_exist: bool = True,
) -> Recipe:
    """Read and validate a recipe's text; `source` is what messages call it. Raises as `load_recipe` does."""
    document = marked.parse(text, source)
    if document.problems:  # what is not even YAML would only produce more noise below
        raise _usage_error(document.problems)
    if not isinstance(document.data, dict):
        raise UsageError(
            f"{source}: a recipe is a mapping with a key 'stages'; this one is empty or a bare value."
        )
    for override in overrides:
        document.set(override)
    validator = _Validator(document, verbs, files_exist=files_exist)
    recipe = validator.recipe()
    if validator.problems:
        raise _usage_error(validator.problems)
    return recipe


def from_resolved(data: Mapping[str, Any], source: str, verbs: Mapping[str, type[StageConfig]]) -> Recipe:
    """Read back what `Recipe.resolved` gave, e.g. from a run's `run.json`. Raises as `load_recipe` does.

    A path that leads nowhere is no mistake here: what a run was made from may be gone by the time it is read.
    """
    validator = _Validator(MarkedDocument(source, dict(data)), verbs, paths_exist=False)
    recipe = validator.recipe()
    if validator.problems:
        raise _usage_error(validator.problems)
    return recipe


def _usage_error(problems: Iterable[Problem]) -> UsageError:
    return UsageError("\n".join(str(problem) for problem in sorted(set(problems))))


class _Validator:
    """Goes through a document once and collects what is wrong."""

    def __init__(
        self,
        document: MarkedDocument,
        verbs: Mapping[str, type[StageConfig]],
        *,
        paths_exist: bool = True,
        files_exist: bool = True,
    ) -> None:
        self.document = document
        self.problems = document.problems
        self._verbs = verbs
        self._paths_exist = paths_exist
        self._files_exist = files_exist
        self._names: list[str] = []
        """Every stage that is written, valid or not."""

    def recipe(self) -> Recipe:
        data = self.document.data
        for key in data:
            if key not in _TOP:
                self._key_problem((key,), self._unknown_top(key))
        seed = data.get("seed", 0)
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
            self._value_problem(("seed",), f"'seed' is a whole number from 0 to {2**32 - 1}, not {seed!r}")
        name, description = data.get("name", Path(self.document.source).stem), data.get("description", "")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            self._value_problem(
                ("name",), f"{name!r} is no name for a recipe; use letters, digits, '-', '_' and '.'"
            )
        if not isinstance(description, str):
            self._value_problem(("description",), f"'description' is text, not {description!r}")
        stages = dict(self._stages(data.get("stages")))
        recipe = Recipe(str(name), seed, stages, str(description), self.document)
        self._check_references(recipe)
        self._check_cycles(recipe)
        return recipe

    # One stage

    def _stages(self, sections: Any) -> Iterator[tuple[str, StageSpec]]:
        if not isinstance(sections, dict) or not sections:
            example = "stages: {base: {uses: pretrain}}"
            self._value_problem(("stages",), f"'stages' names at least one stage, e.g. {example}")
            return
        self._names = list(sections)
        for name, section in sections.items():
            at = ("stages", name)
            if not _STAGE.fullmatch(name):
                self._key_problem(at, f"{name!r} is no name for a stage; use letters, digits, '-' and '_'")
            if self._from_override_alone(at):
                self._key_problem(
                    at, f"there is no stage '{name}'{hints.meant(name, self._written_stages())}"
                )
            elif not isinstance(section, dict):
                self._value_problem(at, f"'stages.{name}' is a mapping, e.g. {name}: {{uses: pretrain}}")
            elif (uses := self._verb(at, section)) and (config := self._config(at, section, uses)):
                yield name, StageSpec(name, uses, config)

    def _from_override_alone(self, at: marked.Path) -> bool:
        """Whether a misspelt `--set` made this stage up."""
        section = self.document.data["stages"][at[-1]]
        written = not self.document.has(at) or self.document.key(at).line > 0
        return isinstance(section, dict) and "uses" not in section and not written

    def _written_stages(self) -> list[str]:
        return [name for name in self._names if not self._from_override_alone(("stages", name))]

    def _verb(self, at: marked.Path, section: Mapping[str, Any]) -> str | None:
        choices = f"The verbs are {', '.join(sorted(self._verbs))}"
        if "uses" not in section:
            self._key_problem(at, f"'{'.'.join(at)}' does not say what it 'uses'. {choices}")
            return None
        uses = section["uses"]
        if isinstance(uses, str) and uses in self._verbs:
            return uses
        said = hints.meant(str(uses), self._verbs) or ";"
        self._value_problem((*at, "uses"), f"there is no verb {uses!r}{said} {choices}")
        return None

    def _config(self, at: marked.Path, section: Mapping[str, Any], uses: str) -> StageConfig | None:
        model = self._verbs[uses]
        settings = {key: value for key, value in section.items() if key != "uses"}
        try:
            return model.model_validate(settings)
        except ValidationError as error:
            self._explain(at, model, settings, error)
            return None

    def _explain(
        self, at: marked.Path, model: type[StageConfig], settings: Mapping[str, Any], error: ValidationError
    ) -> None:
        wrong: dict[marked.Path, list[ErrorDetails]] = {}
        for details in error.errors(include_url=False, include_context=False):
            *above, last = details["loc"] or ("",)
            if details["type"] == "extra_forbidden":
                inside = _written(settings, above)
                text = hints.unknown_key(inside, str(last), model, at)
                self._key_problem((*at, *inside, str(last)), text)
            elif details["type"] == "missing":
                inside = _written(settings, above)
                self._key_problem((*at, *inside), hints.missing_key(inside, str(last), model, at))
            else:
                wrong.setdefault(_written(settings, details["loc"]), []).append(details)
        for inside, several in wrong.items():
            # What is wrong deep inside a value is said there; that the whole fits no type follows from it.
            if not any(len(other) > len(inside) and other[: len(inside)] == inside for other in wrong):
                path = (*at, *inside)
                self._value_problem(path, f"'{'.'.join(path)}': {hints.complaint(several)}")

    # The tree

    def _check_references(self, recipe: Recipe) -> None:
        for spec in recipe.stages.values():
            for reference in spec.inputs:
                index = () if reference.index is None else (str(reference.index),)
                section = self.document.data["stages"][spec.name]
                at = ("stages", spec.name, *_as_written(section, (*reference.role.split("."), *index)))
                if complaint := self._complaint(reference, recipe):
                    self._value_problem(at, f"'{'.'.join(at)}': {complaint}")

    def _complaint(self, reference: Reference, recipe: Recipe) -> str | None:
        value, kind = reference.value, reference.kind
        if value in recipe.stages and kind != "path":
            uses = recipe.stages[value].uses
            makes = self._verbs[uses].makes
            wrong = makes is not None and makes != kind
            return f"a {kind} is needed here; the stage '{value}' ({uses}) makes a {makes}" if wrong else None
        if value in self._names and kind != "path":  # it has its own problem already
            return None
        if Path(value).expanduser().exists() or not self._paths_exist:
            return None
        if kind == "checkpoint" and is_hub_id(value):
            return None
        if kind == "path" or "/" in value or value.endswith(".jsonl"):
            return f"nothing is at the path {value!r}" if self._files_exist else None
        others = [name for name in self._names if name != value]
        return f"there is no stage {value!r}{hints.meant(value, others)}, and no such path"

    def _check_cycles(self, recipe: Recipe) -> None:
        graph = {name: set(recipe.parents(name)) for name in recipe.stages}
        while True:
            try:
                graphlib.TopologicalSorter(graph).prepare()
                return
            except graphlib.CycleError as error:
                circle = error.args[1]
            first = min(circle, key=list(graph).index)
            turn = circle.index(first)
            shown = [*circle[turn:-1], *circle[:turn], first]
            self._key_problem(("stages", first), f"the stages go round in a circle: {' -> '.join(shown)}")
            graph[circle[1]].discard(circle[0])  # and look for the next one

    # Saying it

    def _unknown_top(self, key: str) -> str:
        choices = f"; a recipe has {', '.join(_TOP)}, and what a stage has stands under stages.<name>"
        return f"unknown key '{key}'{hints.meant(key, _TOP) or choices}"

    def _key_problem(self, path: marked.Path, text: str) -> None:
        self.problems.append(Problem(self.document.key(path), text))

    def _value_problem(self, path: marked.Path, text: str) -> None:
        self.problems.append(Problem(self.document.value(path), text))


def _written(settings: Any, loc: Iterable[int | str]) -> marked.Path:
    """Follow pydantic's location through the settings; what it says of the types on the way is left out."""
    path: marked.Path = ()
    for step in loc:
        in_mapping = isinstance(settings, dict) and step in settings
        if in_mapping or (isinstance(settings, list) and isinstance(step, int) and step < len(settings)):
            path, settings = (*path, str(step)), settings[step]
    return path


def _as_written(settings: Any, keys: Iterable[str]) -> marked.Path:
    """Leave out the 0 of what was written alone where a list may stand: `task: {…}` for `task: [{…}]`."""
    path: marked.Path = ()
    for key in keys:
        if isinstance(settings, list):
            settings = {str(index): each for index, each in enumerate(settings)}
        written = isinstance(settings, dict) and key in settings
        if written or not key.isdecimal():
            path, settings = (*path, key), settings[key] if written else None
    return path
