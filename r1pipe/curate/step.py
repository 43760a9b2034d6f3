"""What a step of a curation is.

A step either looks at each row alone (`Alone`: a pure function of a trace) or at all rows that are left
(`Together`: a pure function of the columns).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from r1pipe.curate.finding import Look

if TYPE_CHECKING:
    from pathlib import Path

    from r1pipe.curate.table import Compare, Loss, Numbers, Table


class Step(BaseModel, ABC):
    """The base of every step."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    name: str
    """The step's name."""
    uses_verdicts: ClassVar[bool] = False
    """Whether it looks at verdicts, so that `verify` must come first."""

    def sketched(self) -> Sequence[Literal["question", "trace"]]:
        """Which texts it needs sketches of."""
        return ()

    def __str__(self) -> str:
        """As a recipe writes it."""
        said = self.model_dump(exclude_defaults=True)
        shown = ", ".join(f"{key}: {value}" for key, value in said.items())
        return f"{{name: {self.name}, {shown}}}" if said else self.name


class Alone(Step):
    """A step that looks at each row alone."""

    @abstractmethod
    def look(self, files: Sequence["Path"]) -> Look:
        """What looks at a row; made once for many rows. `files` are those that the step names."""


class Together(Step):
    """A step that looks at all rows that are left."""

    @abstractmethod
    def choose(self, table: "Table", rows: "Numbers", step: int, compare: "Compare") -> "list[Loss]":
        """Which of `rows` leave. `step` is this step's number."""
