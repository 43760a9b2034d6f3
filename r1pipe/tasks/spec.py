"""How a recipe writes a task: a bare name, or a mapping of the task's own fields and of these common ones."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from r1pipe.tasks.base import Split, Task, TruncatedRule


class TaskSpec(BaseModel, ABC):
    """The base of every task's spec; a subclass gives `name` its type, and adds the task's own fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    usual_split: ClassVar[Split] = "all"
    """Meant where a recipe names none."""

    name: str
    """The task's name."""
    split: Split | None = None
    """`seen`, `held-out` or `all`; the default is `seen` where a task holds problems out by itself."""
    count: int | None = Field(default=None, ge=1)
    """How many items are used; one pass over the split when it is not set."""
    weight: float = Field(default=1.0, gt=0)
    """Its share of a mixture, beside the other tasks' weights."""
    truncated: TruncatedRule = "fail"
    """What a completion that the token limit cut off counts as: `fail`, or `undecided` to leave it out."""

    @abstractmethod
    def make(self) -> Task:
        """The task. Raises `UsageError` where its data cannot be used."""

    @property
    def chosen_split(self) -> Split:
        """The split that is meant when none is written."""
        return self.split or self.usual_split

    @property
    def answers_directly(self) -> bool:
        """Whether its `gold` is the text of a whole completion: its questions need no thinking."""
        return False

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if not isinstance(value, dict | TaskSpec):
            raise ValueError(f"a task is its name, or a mapping with a `name`, not {value!r}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _of_this_task(cls, value: Any) -> Any:
        """Refuse another task's field by the name of that task."""
        for key in value if isinstance(value, dict) else ():
            owners = [spec.shown_name() for spec in specs() if key in spec.model_fields]
            if owners and key not in cls.model_fields:
                name = value.get("name")
                raise ValueError(f"task {name!r} takes no {key!r}; it belongs to {_listed(owners)}")
        return value

    @classmethod
    def shown_name(cls) -> str:
        """The task's name as a list of tasks shows it."""
        return str(cls.model_fields["name"].default)


def specs(base: type[TaskSpec] = TaskSpec) -> Iterator[type[TaskSpec]]:
    """Every task's spec that is known so far, without the bases that several share."""
    for spec in base.__subclasses__():
        if not spec.model_fields["name"].is_required():
            yield spec
        yield from specs(spec)


def _listed(owners: list[str]) -> str:
    return f"task{'s' if len(owners) > 1 else ''} {', '.join(map(repr, dict.fromkeys(owners)))}"
