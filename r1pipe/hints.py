"""What a recipe's author probably meant: the nearest word, the right section, pydantic's words made plain."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

Path = tuple[str, ...]


def nearest(word: str, words: Iterable[str]) -> str | None:
    """Return the word most likely meant by `word`, if any is near."""
    matches = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return matches[0] if matches else None


def meant(word: str, words: Iterable[str]) -> str:
    """Return `; did you mean 'base'?`, or nothing when no word is near."""
    guess = nearest(word, words)
    return f"; did you mean '{guess}'?" if guess else ""


def unknown_key(inside: Path, key: str, model: type[BaseModel], name: Path) -> str:
    """Say what is wrong with a key that the section `inside` of `model` does not have.

    `name` is how the recipe calls the model itself, e.g. `("stages", "zero")`. The nearest key of the same
    section comes first, then the section in which such a key would be right, then all that could stand there.
    """
    said = f"unknown key '{'.'.join((*name, *inside, key))}'"
    known: dict[Path, list[str]] = {}
    for at, fields in sections(model):  # several models may share a section: a task is one of many
        known.setdefault(at, []).extend(field for field in fields if field not in known.get(at, ()))
    here = known.get(_section(inside, model), [])
    if guess := nearest(key, here):
        return f"{said}; did you mean '{guess}'?"
    for at, keys in known.items():
        if guess := nearest(key, keys):
            return f"{said}; '{guess}' belongs in '{'.'.join((*name, *at))}'"
    return f"{said}; the keys there are {', '.join(here)}" if here else said


def missing_key(inside: Path, key: str, model: type[BaseModel], name: Path) -> str:
    """Say that the section `inside` lacks a key, and what that key is for."""
    place = _section(inside, model)
    about = next((f[key].description for at, f in sections(model) if at == place and key in f), None)
    said = f"'{'.'.join((*name, *inside))}' needs '{key}'"
    return f"{said}: {' '.join(about.split()).rstrip('.')}" if about else said


def sections(model: type[BaseModel], at: Path = ()) -> Iterator[tuple[Path, dict[str, FieldInfo]]]:
    """Yield a config's sections, outermost first, with their fields; a list or mapping of models is one."""
    yield at, model.model_fields
    for name, info in model.model_fields.items():
        for nested in _models(info.annotation):
            yield from sections(nested, (*at, name))


def complaint(errors: Sequence[ErrorDetails]) -> str:
    """Say in one sentence what several errors of one value ask for; the members of a union each give one.

    A member that has a rule of its own to tell was of the right type: what the others want says nothing.
    """
    errors = [error for error in errors if error["type"] == "value_error"] or errors
    wanted: list[str] = []
    others: list[str] = []
    for error in errors:
        text = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ").rstrip(".")
        text = text.split(", unable to parse")[0]
        if text.startswith("Input should be "):
            wanted.append(text.removeprefix("Input should be "))
        else:
            others.append(text)
    if not wanted:
        return "; ".join(dict.fromkeys(others))
    value = repr(errors[0]["input"])
    shown = value if len(value) <= 60 else f"{value[:57]}..."
    return f"should be {' or '.join(dict.fromkeys(wanted))}, not {shown}"


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is Annotated:
        yield from _models(get_args(annotation)[0])
    elif get_origin(annotation) in (list, tuple, dict, Union, UnionType):
        for arg in get_args(annotation):
            yield from _models(arg)


def _section(inside: Path, model: type[BaseModel]) -> Path:
    """The section that a path leads to, without the places in lists and the names in mappings on its way."""
    known = {at for at, _ in sections(model)}
    place: Path = ()
    for step in inside:
        if (*place, step) in known:
            place = (*place, step)
    return place
