"""The steps of a curation, as a recipe writes them; they run in the order in which they are written.

A new step is one class here (see `step` for the two kinds), and its name in `_STEPS`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from r1pipe.curate.finding import Look
from r1pipe.curate.mapping import Columns
from r1pipe.curate.phrases import COMPETITION
from r1pipe.curate.step import Alone, Step, Together
from r1pipe.hints import meant
from r1pipe.measure.language import Language
from r1pipe.measure.readability import ONE_LANGUAGE, PARAGRAPH, REPETITION
from r1pipe.stage import DatasetRef

if TYPE_CHECKING:
    from pathlib import Path

    from r1pipe.curate.table import Compare, Loss, Numbers, Table


# --- Each row alone


class Truncated(Alone):
    """Rejects what the token limit cut off."""

    name: Literal["truncated"] = "truncated"

    def look(self, files: Sequence["Path"]) -> Look:
        """What looks at a row."""
        from r1pipe.curate import looking

        return looking.truncated


class Correct(Alone):
    """Rejects what did not pass its verdict."""

    uses_verdicts: ClassVar = True

    name: Literal["correct"] = "correct"
    undecided: bool = False
    """Keep what nobody could decide."""
    unjudged: bool = False
    """Keep rows that have no verdict at all, such as general data."""

    def look(self, files: Sequence["Path"]) -> Look:
        """What looks at a row."""
        from r1pipe.curate import looking

        return looking.correct(self.undecided, self.unjudged)


class Verify(Alone):
    """Judges each answer against the gold anew; what cannot be judged against is set aside.

    It rejects nothing else: its verdicts are those that later steps look at, and that are published.
    """

    name: Literal["verify"] = "verify"
    rule: Literal["math", "number", "exact"] = "math"
    """How answers are compared: as mathematics, as numbers, or as texts."""
    trust: bool = False
    """Leave rows alone that have a verdict already."""

    def look(self, files: Sequence["Path"]) -> Look:
        """What looks at a row, and gives it its verdict."""
        from r1pipe.curate import looking

        return looking.verify(self.rule, self.trust)


class Format(Alone):
    """Rejects what does not have the form that its question asks for."""

    name: Literal["format"] = "format"
    form: Literal["answer", "thinking"] = "answer"
    """`answer` is the form that the reward `format` pays: `<think> … </think> <answer> … </answer>` and
    nothing else, or no tags where no thinking was asked for. `thinking` wants thinking that is closed and
    something after it, as in R1's own traces."""

    def look(self, files: Sequence["Path"]) -> Look:
        """What looks at a row."""
        from r1pipe.curate import looking

        return looking.well_formed(self.form)


class SingleLanguage(Alone):
    """Rejects thinking in mixed languages (DeepSeek-R1 paper, section 2.3.3)."""

    name: Literal["language"] = "language"
    at_least: float = Field(default=ONE_LANGUAGE, gt=0, le=1)
    """Share of the words that must be in one language; a name or a quotation needs a little room."""
    language: Language | None = None
    """Which language that must be; any one language when it is not set."""

    def look(self, files: Sequence["Path"]) -> Look:
        """What looks at a row."""
        from r1pipe.curate import looking

        return looking.single_language(self.at_least, self.language)


class Readability(Alone):
    """Rejects what is hard to read: long paragraphs, code in the thinking, repetition (same section)."""

    name: Literal["readability"] = "readability"
    paragraph: int | None = Field(default=PARAGRAPH, ge=1)
    """Most characters without a line break; null allows any."""
    code: bool = False
    """Keep blocks of code in the thinking."""
    repetition: float = Field(default=REPETITION, ge=0, le=1)
    """Most of the passages of 16 words that may have come before."""

    def look(self, files: Sequence["Path"]) -> Look:
        """What looks at a row."""
        from r1pipe.curate import looking

        return looking.readable(self.paragraph, self.code, self.repetition)


class Length(Alone):
    """Rejects completions that are too long or too short."""

    name: Literal["length"] = "length"
    at_least: int = Field(default=1, ge=0)
    """Fewest tokens."""
    at_most: int | None = Field(default=None, ge=1)
    """Most tokens."""

    def look(self, files: Sequence["Path"]) -> Look:
        """What looks at a row."""
        from r1pipe.curate import looking

        return looking.length(self.at_least, self.at_most)


class Preference(Alone):
    """Rejects what a preference model finds too poor; rows that none has scored stay."""

    name: Literal["preference"] = "preference"
    at_least: float = 0.5
    """Least score, in the rows' column `preference`; `sample` writes it from 0 to 1."""

    def look(self, files: Sequence["Path"]) -> Look:
        """What looks at a row."""
        from r1pipe.curate import looking

        return looking.preferred(self.at_least)


class Decontaminate(Alone):
    """Rejects rows whose question holds an item of a benchmark, with the evidence."""

    name: Literal["decontaminate"] = "decontaminate"
    benchmarks: list[DatasetRef] = Field(min_length=1)
    """Stages, datasets' folders or `.jsonl` files, plain or compressed, whose items are compared with."""
    columns: list[str] = Field(default=[])
    """Where an item's text is, several columns being put together; else in the first that a file has of
    problem, question, prompt and text."""
    completions: bool = False
    """Look into the completions too, not only into the questions."""
    containment: float = Field(default=0.5, gt=0, le=1)
    """Share of an item's 8-grams that flags a text, where no 13 words in a row do."""
    template: int = Field(default=3, ge=1)
    """An n-gram that is in more items of one benchmark than this is a template and counts for nothing."""
    allow: list[str] = Field(default=[])
    """Phrases of eight words or more that count for nothing."""
    phrases: bool = True
    """Let the phrases of many competitions count for nothing too, such as "where m and n are relatively prime
    positive integers. Find m + n."."""

    def look(self, files: Sequence["Path"]) -> Look:
        """What looks at a row; reads the benchmarks."""
        from r1pipe.curate import looking

        allow = [*self.allow, *(COMPETITION if self.phrases else ())]
        index = looking.index_of(files, self.columns, allow, self.containment, self.template)
        return looking.uncontaminated(index, self.completions)


# --- All rows together

_Of = Literal["question", "trace"]


class Exact(Together):
    """Rejects copies: the same but for case, white space and typesetting."""

    name: Literal["exact"] = "exact"
    of: _Of = "trace"
    """`trace`: question and completion come again. `question`: another problem asks the same."""

    def choose(self, table: "Table", rows: "Numbers", step: int, compare: "Compare") -> "list[Loss]":
        """Which of the rows leave; the first of equals stays."""
        from r1pipe.curate import picking

        return picking.exact(table, rows, self.of)


class Near(Together):
    """Rejects near copies, found by MinHash and locality-sensitive hashing over word 5-grams."""

    name: Literal["near"] = "near"
    of: _Of = "trace"
    """`trace`: question and completion, as one text. `question`: other problems that ask nearly the same."""
    threshold: float = Field(default=0.8, gt=0.3, le=1)
    """Jaccard index of the 5-grams from which two texts are near copies."""

    def sketched(self) -> Sequence[_Of]:
        """Which texts it needs sketches of."""
        return (self.of,)

    def choose(self, table: "Table", rows: "Numbers", step: int, compare: "Compare") -> "list[Loss]":
        """Which of the rows leave; the first of a cluster stays."""
        from r1pipe.curate import picking

        return picking.near(table, rows, self.of, self.threshold, compare)


class PassRate(Together):
    """Rejects problems that are too easy or too hard, by the share of their completions that are right."""

    uses_verdicts: ClassVar = True

    name: Literal["pass-rate"] = "pass-rate"
    at_least: float = Field(default=0.0, ge=0, le=1)
    """Problems with a lower rate are too hard."""
    at_most: float = Field(default=1.0, ge=0, le=1)
    """Problems with a higher rate are too easy."""

    @model_validator(mode="after")
    def _in_order(self) -> "PassRate":
        if self.at_least > self.at_most:
            raise ValueError(f"at_least is {self.at_least} and at_most {self.at_most}: nothing would be kept")
        return self

    def choose(self, table: "Table", rows: "Numbers", step: int, compare: "Compare") -> "list[Loss]":
        """Which of the rows leave."""
        from r1pipe.curate import picking

        return picking.by_pass_rate(table, rows, step, self.at_least, self.at_most)


class Cap(Together):
    """Rejects what a problem has too many of."""

    name: Literal["cap"] = "cap"
    count: int = Field(default=1, ge=1)
    """Completions of a problem that are kept at most."""
    prefer: Literal["shortest", "diverse", "random", "first", "best"] = "shortest"
    """Which ones: `diverse` takes the shortest, then always the one least like those it has; `best` those
    with the highest `preference`, and those without one last."""

    def sketched(self) -> Sequence[_Of]:
        """Which texts it needs sketches of."""
        return ("trace",) if self.prefer == "diverse" else ()

    def choose(self, table: "Table", rows: "Numbers", step: int, compare: "Compare") -> "list[Loss]":
        """Which of the rows leave."""
        from r1pipe.curate import picking

        return picking.per_problem(table, rows, self.count, self.prefer)


class Balance(Together):
    """Rejects what there is too much of, by domain, difficulty and length, within a budget."""

    uses_verdicts: ClassVar = True

    name: Literal["balance"] = "balance"
    by: list[Literal["domain", "difficulty", "length"]] = Field(default=["domain"], min_length=1)
    """What parts the rows into cells."""
    shares: dict[str, Annotated[float, Field(ge=0)]] = Field(default={})
    """The weight of each domain; one that is not named is left out. When empty all cells weigh alike."""
    tokens: int | None = Field(default=None, ge=1)
    """Most tokens that are kept. A cell that has less than its share leaves the rest to the others."""
    rows: int | None = Field(default=None, ge=1)
    """Most rows that are kept, in place of `tokens`. With neither, as much as the scarcest cell allows."""
    prefer: Literal["random", "shortest", "longest", "first"] = "random"
    """Which rows of a cell are kept."""

    @model_validator(mode="after")
    def _one_budget(self) -> "Balance":
        if self.tokens is not None and self.rows is not None:
            raise ValueError(f"tokens is {self.tokens} and rows is {self.rows}; set one of them")
        if self.shares and "domain" not in self.by:
            raise ValueError("shares are weights of domains; add domain to by")
        if self.shares and not any(self.shares.values()):
            raise ValueError("all shares are 0: nothing would be kept")
        return self

    def choose(self, table: "Table", rows: "Numbers", step: int, compare: "Compare") -> "list[Loss]":
        """Which of the rows leave."""
        from r1pipe.curate import picking

        budget, unit = (self.tokens, "tokens") if self.rows is None else (self.rows, "rows")
        # Without a budget, shares are those of rows, as nobody counts what is not limited.
        unit = "rows" if budget is None else unit
        how = picking.Balance(
            self.by, self.shares, budget, "tokens" if unit == "tokens" else "rows", self.prefer
        )
        return picking.balance(table, rows, step, how)


class Mix(Together):
    """Adds other data, such as the paper's 200k rows that need no reasoning; earlier steps do not see it."""

    name: Literal["mix"] = "mix"
    data: list[DatasetRef] = Field(min_length=1)
    """Stages, datasets' folders or `.jsonl` files."""
    columns: Columns = Columns()
    """Which of its columns hold what."""
    rows: int | None = Field(default=None, ge=1)
    """How many of its rows are taken, drawn at random; all when neither this nor `share` is set."""
    share: float | None = Field(default=None, gt=0, lt=1)
    """Else which share of the result they are to be."""

    @field_validator("data", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_amount(self) -> "Mix":
        if self.rows is not None and self.share is not None:
            raise ValueError(f"rows is {self.rows} and share is {self.share}; set one of them")
        return self

    def choose(self, table: "Table", rows: "Numbers", step: int, compare: "Compare") -> "list[Loss]":
        """Which of the rows that come in leave at once."""
        from r1pipe.curate import picking

        return picking.mixed_in(table, rows, step, self.rows, self.share)


_STEPS: Mapping[str, type[Step]] = {
    str(step.model_fields["name"].default): step
    for step in (
        Truncated, Correct, Verify, Format, SingleLanguage, Readability, Length, Preference,
        Decontaminate, Exact, Near, PassRate, Cap, Balance, Mix,
    )
}  # fmt: skip


def _named(value: Any) -> Any:
    """What a recipe may write as a bare name."""
    if isinstance(value, Step):
        return value
    written = {"name": value} if isinstance(value, str) else value
    if not isinstance(written, dict) or "name" not in written:
        raise ValueError(f"a step is its name, or a mapping with a `name`, not {value!r}")
    name = written["name"]
    if not isinstance(name, str) or name not in _STEPS:
        raise ValueError(
            f"there is no step {name!r}{meant(str(name), _STEPS) or ';'} the steps are {', '.join(_STEPS)}"
        )
    return written


AnyStep = Annotated[
    Truncated | Correct | Verify | Format | SingleLanguage | Readability | Length | Preference
    | Decontaminate | Exact | Near | PassRate | Cap | Balance | Mix,
    Field(discriminator="name"),
    BeforeValidator(_named),
]  # fmt: skip
"""`- correct`, or `- {name: cap, count: 4, prefer: diverse}`."""

USUAL: Sequence[AnyStep] = (
    Truncated(),
    Correct(),
    Format(),
    SingleLanguage(),
    Readability(),
    Exact(of="question"),
    Exact(of="trace"),
    Near(of="trace"),
)
"""What is done where a recipe names no steps; a benchmark to compare with has to be named."""


def misplaced(steps: Sequence[Step]) -> str | None:
    """What is wrong with the order of the steps, or None."""
    verifies = [number for number, step in enumerate(steps) if isinstance(step, Verify)]
    if len(verifies) > 1:
        return "verify stands there twice; one of them is enough"
    early = [step.name for step in steps[: verifies[0]] if step.uses_verdicts] if verifies else []
    if early:
        return f"verify comes after {', '.join(early)}, which looks at verdicts; put verify first"
    return None
