"""Tasks of your own: a class named by its dotted path, or by an entry point of an installed package.

docs/tasks.md has an example.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

from pydantic import Field, field_validator

from r1pipe.errors import UsageError
from r1pipe.hints import meant
from r1pipe.tasks.base import MISTAKES, Split, Task
from r1pipe.tasks.spec import TaskSpec, specs

GROUP: Final = "r1pipe.tasks"
"""The group of entry points, as a `pyproject.toml` names it: `[project.entry-points."r1pipe.tasks"]`."""


class OwnSpec(TaskSpec):
    """A task of your own, by `package.module:Class` or by the name of an entry point in `r1pipe.tasks`."""

    name: str
    """`package.module:Class`, found from the current folder too, or an entry point's name."""
    options: dict[str, Any] = Field(default={})
    """What the class is called with. Its code is no part of a fingerprint: change an option with it."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if all(name.partition(":")) or name in entry_names():
            return name
        known = [*(spec.shown_name() for spec in specs()), *entry_names()]
        raise ValueError(
            f"there is no task {name!r}{meant(name, known) or ';'} there are {', '.join(known)}, "
            "and 'module:Class' for one of your own"
        )

    @property
    def chosen_split(self) -> Split:
        """What is written, else `all`."""
        return self.split or "all"

    def make(self) -> Task:
        """The class called with the options.

        Raises:
            UsageError: it cannot be imported, is no `Task`, or refuses the options.
        """
        made = _call(self.name, _load(self.name), self.options)
        if not isinstance(made, Task):
            raise UsageError(f"The task {self.name!r} is a {type(made).__name__}, no r1pipe.tasks.Task.")
        if "truncated" in self.model_fields_set:
            object.__setattr__(made, "truncated", self.truncated)  # it may be a frozen dataclass
        return made


def entry_names() -> list[str]:
    """The tasks that installed packages bring."""
    return sorted(entry_points(group=GROUP).names)


def _load(name: str) -> Callable[..., Any]:
    """The class; a module beside the recipe is found as `python -m` would find it."""
    module, _, attribute = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        if not attribute:
            found: Callable[..., Any] = entry_points(group=GROUP)[name].load()
            return found
        made: Callable[..., Any] = getattr(import_module(module), attribute)
    except (ImportError, SyntaxError, *MISTAKES) as error:
        raise UsageError(
            f"The task {name!r} cannot be loaded: {type(error).__name__}: {error}. It is looked for in the "
            "current folder and among installed packages, as module:Class."
        ) from error
    return made


def _call(name: str, make: Callable[..., Any], options: dict[str, Any]) -> Any:
    try:
        return make(**options)
    except MISTAKES as error:
        raise UsageError(
            f"The task {name!r} refuses its options: {type(error).__name__}: {error}."
        ) from error
