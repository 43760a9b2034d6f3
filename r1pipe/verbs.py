"""The commands that run one stage alone, made from the stages' configs.

`r1pipe sft --model PATH --data FILE --out DIR` has an option for every field of `stages.sft.Config`, with the
sentence under the field as its help; what lies deeper is reached by `--set sampling.temperature=0.8`. The
values go through the same validation as a recipe's: a stage alone and a stage in a recipe are the same stage.
"""

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from r1pipe import marked
from r1pipe.errors import UsageError
from r1pipe.recipe import parse_recipe
from r1pipe.stage import StageConfig
from stages import VERBS

Runner = Callable[[str, Callable[[], StageConfig], Path, int, bool, bool], None]
"""Runs a verb: (verb, config, out, seed, json, debug); making the config may raise `UsageError`."""

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "corpus": ("r1pipe corpus --out corpus", "r1pipe pretrain --data corpus --out base"),
    "pretrain": (
        "r1pipe pretrain --data corpus --out base",
        "r1pipe rl --model base --task countdown --out zero",
    ),
    "checkpoint": (
        "r1pipe checkpoint --model Qwen/Qwen2.5-0.5B@main --out base",
        "r1pipe sft --model base --data rows.jsonl --out sft",
    ),
    "sft": (
        "r1pipe sft --model base --data rows.jsonl --out sft",
        "r1pipe evaluate --models sft --out scores",
    ),
    "rl": (
        "r1pipe rl --model base --task countdown --steps 50 --out zero",
        "r1pipe sample --model zero --task countdown --out traces",
    ),
    "sample": (
        "r1pipe sample --model zero --task countdown --prompts 200 --out traces",
        "r1pipe curate traces --out curated",
    ),
    "curate": (
        "r1pipe curate traces --validation 0.02 --out curated",
        "r1pipe distill --model student-base --data curated --out student",
    ),
    "distill": (
        "r1pipe distill --model student-base --data traces --out student",
        "r1pipe evaluate --models student --out scores",
    ),
    "evaluate": (
        "r1pipe evaluate --models base --models zero --out scores",
        "r1pipe lineage scores",
    ),
}
"""Something to run, then the next thing to run."""


_COMMON = ("out", "seed", "config_file", "overrides", "as_json", "debug")


def make_app(verb: str, run: Runner) -> typer.Typer:
    """The command of one verb, as an app of its own; imports the verb's module, and nothing heavy."""
    config = VERBS[verb]

    def command(**given: Any) -> None:
        out, seed, file, overrides, as_json, debug = (given.pop(name) for name in _COMMON)
        run(verb, lambda: make_config(verb, given, file, overrides or ()), out, seed, as_json, debug)

    parameters = [*_field_options(config), *_common_options(verb)]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(verb, help=summary(verb), epilog=_epilog(verb))(command)
    return app


@cache
def summary(verb: str) -> str:
    """The line that says what a verb does."""
    return str(getattr(VERBS.module(verb), "SUMMARY", VERBS.module(verb).__doc__ or ""))


def make_config(
    verb: str, given: Mapping[str, Any], file: Path | None = None, overrides: tuple[str, ...] | list[str] = ()
) -> StageConfig:
    """The validated config of a verb: defaults, then the file, then the options given, then the overrides.

    Raises:
        UsageError: with everything that is wrong, as `load_recipe` does.
    """
    options = {name: value for name, value in given.items() if value is not None and value != []}
    for name, value in options.items():
        if verb in (value if isinstance(value, list) else [value]):
            raise UsageError(f"'{_typed(name, verb, verb)}': write the path as './{verb}'.")
    section = {"uses": verb, **_read(file)}
    fields = VERBS[verb].model_fields
    said = {
        f"stages.{verb}.{name}={_yaml(value, fields[name])}": _typed(name, value, verb)
        for name, value in options.items()
    }
    said |= {f"stages.{verb}.{override}": f"--set {override}" for override in overrides}
    text = json.dumps({"name": verb, "stages": {verb: section}}, ensure_ascii=False)
    source = str(file or f"r1pipe {verb}")
    try:
        return parse_recipe(text, source, VERBS, list(said)).stages[verb].config
    except UsageError as error:
        raise UsageError(_in_own_words(str(error), verb, source, said)) from None


def _typed(name: str, value: Any, verb: str) -> str:
    """An option as it stood on the command line; it may have been given several times, or be no option."""
    values = value if isinstance(value, list) else [value]
    if name == VERBS[verb].listed:
        return " ".join(map(str, values))
    return " ".join(f"--{_flag(name)} {each}" for each in values)


def _in_own_words(message: str, verb: str, source: str, said: Mapping[str, str]) -> str:
    """A recipe's complaint in terms of the command line, which knows no stages and no lines."""
    for override, option in said.items():
        message = message.replace(f"--set {override}:", f"{option}:")
    message = re.sub(rf"^{re.escape(source)}:\d+:\d+", source, message, flags=re.MULTILINE)
    return message.replace(f"'stages.{verb}.", "'").replace(f"'stages.{verb}'", f"'{verb}'")


def _read(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        document = marked.parse(file.read_text(encoding="utf-8"), str(file))
    except OSError as error:
        raise UsageError(f"The config {file} cannot be read: {error.strerror}.") from error
    if document.problems:
        raise UsageError("\n".join(str(problem) for problem in document.problems))
    if not isinstance(document.data, dict):
        raise UsageError(f"{file}: a config is a mapping of the stage's keys, as under a stage of a recipe.")
    return document.data


def _yaml(value: Any, field: FieldInfo) -> str:
    """A value from the command line as YAML: words stay words (`no` too), the rest is as YAML reads it."""
    words = _option_type(field.annotation)[1] not in ("INT", "FLOAT", "YAML")
    return json.dumps(value, ensure_ascii=False) if words else str(value)


# --- Options from fields


def _field_options(config: type[StageConfig]) -> Iterator[inspect.Parameter]:
    """An option for each field; those that every stage has come last."""
    fields = sorted(config.model_fields.items(), key=lambda field: field[0] in StageConfig.model_fields)
    for name, info in fields:
        if name == config.listed:
            listed = typer.Argument(metavar="IN...", help=_help(info), show_default=False)
            yield _parameter(name, list[str], listed, inspect.Parameter.empty)
            continue
        kind, metavar = _option_type(info.annotation)
        flags = f"--{_flag(name)}/--no-{_flag(name)}" if kind is bool else f"--{_flag(name)}"
        option = typer.Option(flags, help=_help(info), metavar=metavar or None, show_default=False)
        yield _parameter(name, kind | None, option, None)


def _common_options(verb: str) -> Iterator[inspect.Parameter]:
    def common(flag: str, text: str, metavar: str | None = None) -> Any:
        return typer.Option(flag, help=text, metavar=metavar, rich_help_panel="Every stage")

    needed = inspect.Parameter.empty
    sets = "Set any key of the stage, dotted; the value is YAML. May be repeated."
    file = f"YAML with keys of {verb}; options go before it."
    yield _parameter("out", Path, common("--out", "Where to put what is made; a new folder.", "DIR"), needed)
    yield _parameter("seed", int, common("--seed", "All randomness comes from it."), 0)
    yield _parameter("overrides", list[str] | None, common("--set", sets, "KEY=VALUE"), None)
    yield _parameter("config_file", Path | None, common("--config", file, "FILE"), None)
    yield _parameter("as_json", bool, common("--json", "Print one JSON document, for programs."), False)
    yield _parameter("debug", bool, common("--debug", "Show the traceback of an error."), False)


def _parameter(name: str, kind: Any, option: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[kind, option], default=default
    )


def _option_type(annotation: Any) -> tuple[Any, str]:
    """What the command line takes for a field, and how the help calls it.

    Names and paths may be repeated where the field holds several. Numbers, words and structures are taken as
    text: it is the config that says what is right, here as in a recipe.
    """
    inner = _bare(annotation)
    if inner is bool:
        return bool, ""
    if get_origin(inner) is list and _bare(get_args(inner)[0]) is str:
        return list[str], "NAME"
    if get_origin(inner) is Literal:
        return str, "|".join(str(choice) for choice in get_args(inner))
    return str, {int: "INT", float: "FLOAT", str: "TEXT"}.get(inner, "YAML")


def _bare(annotation: Any) -> Any:
    """The type without its marks and without `None`."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        kinds = [arg for arg in get_args(annotation) if arg is not NoneType]
        return _bare(kinds[0]) if len(kinds) == 1 else Union[tuple(kinds)]  # noqa: UP007
    return annotation


def _help(info: FieldInfo) -> str:
    """The sentence under the field, and its default; square brackets are no markup there."""
    told = " ".join((info.description or "").split())
    default = info.get_default(call_default_factory=True)
    if isinstance(default, dict):  # of models, it may be, which are told as they are written in a recipe
        default = TypeAdapter(Any).dump_python(default, exclude_unset=True)
    if info.is_required():
        told += " Required."
    elif default is not PydanticUndefined and default is not None and default not in ({}, [], ""):
        told += f" Default: {default}."
    return told.replace("[", "\\[")


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _epilog(verb: str) -> str:
    first, then = EXAMPLES[verb]
    return f"Example: [bold]{first}[/bold]\n\nThen: [bold]{then}[/bold]"
