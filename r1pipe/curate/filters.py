"""Which sampled completions become training data (rejection sampling; DeepSeek-R1 paper, section 2.3.3).

A step takes rows and parts them into kept ones and rejected ones, each of those with its reason under
`rejected`. Steps run one after another on what is still kept, and no row is lost: kept and rejected add up to
what came in.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from r1pipe.measure.language import Language, consistency
from r1pipe.measure.samples import SampleRow, parsed
from r1pipe.measure.trace import measure

RejectedRow = dict[str, Any]
"""A `SampleRow` with one more column, `rejected`: the reason."""


@dataclass(frozen=True, slots=True)
class Curated:
    """Rows, parted."""

    kept: list[SampleRow]
    rejected: list[RejectedRow]

    @property
    def counts(self) -> dict[str, int]:
        """How many rows were kept, and how many rejected for each reason, the commonest first."""
        reasons = Counter(row["rejected"] for row in self.rejected)
        return {"kept": len(self.kept), **dict(reasons.most_common())}


CurationStep = Callable[[Sequence[SampleRow]], Curated]
Prefer = Literal["shortest", "first", "best"]
Filter = Callable[[SampleRow], str | None]
"""Why one row, looked at alone, is rejected; None keeps it."""


class Keep(BaseModel):
    """Which completions are kept, as a recipe writes it. The steps run in the order of these fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    untruncated: bool = True
    """Reject what the token limit cut off."""
    correct: bool = True
    """Reject what did not pass its verdict. An open question's answer that nothing judges has none to pass,
    and stays."""
    well_formed: bool = True
    """Reject what does not have the form that its question asks for, as the reward `format` does."""
    single_language: float = Field(default=1.0, ge=0, le=1)
    """Share of a completion's words that must be in one language; 0 keeps mixed ones."""
    language: Language | None = None
    """Which language that must be; any one language when it is not set."""
    repeats: bool = False
    """Keep thinking that makes the same attempt twice."""
    max_attempts: int | None = Field(default=None, ge=1)
    """Reject thinking with more attempts than this."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Reject completions longer than this."""
    preference: float | None = Field(default=None, ge=0, le=1)
    """Reject what the stage's `preference_model` gives less than this, from 0 to 1."""
    per_problem: int | None = Field(default=None, ge=1)
    """How many different completions of a problem are kept at most."""
    prefer: Prefer = "shortest"
    """Which ones those are; `best` are those that the `preference_model` scores highest."""

    @property
    def asks_preference(self) -> bool:
        """Whether a preference model has to be asked."""
        return self.preference is not None or self.prefer == "best"

    @property
    def unscored(self) -> "Keep":
        """The same for rows that no preference model has seen."""
        return self.model_copy(update={"preference": None})

    def filters(self) -> list[Filter]:
        """What looks at every row alone, in order."""
        filters: list[Filter] = [answered]
        if self.untruncated:
            filters.append(untruncated)
        if self.correct:
            filters.append(correct)
        if self.well_formed:
            filters.append(well_formed)
        if self.single_language > 0 or self.language:
            filters.append(single_language(self.single_language, self.language))
        filters.append(readable(self.repeats, self.max_attempts, self.max_tokens))
        return filters if self.preference is None else [*filters, preferred(self.preference)]

    def together(self) -> list[CurationStep]:
        """What looks at all rows that the filters leave, in order."""
        if self.per_problem is None:
            return [deduplicate]
        return [deduplicate, at_most(self.per_problem, self.prefer)]

    def steps(self) -> list[CurationStep]:
        """The steps to give to `curate`."""
        return [*map(each, self.filters()), *self.together()]


def curate(rows: Iterable[SampleRow], steps: Sequence[CurationStep]) -> Curated:
    """Run the steps one after another; a row is rejected by the first that finds a reason."""
    kept, rejected = list(rows), []
    for step in steps:
        parted = step(kept)
        kept = parted.kept
        rejected += parted.rejected
    return Curated(kept, rejected)


# --- Filters: one row at a time


def answered(row: SampleRow) -> str | None:
    """Reject what a teacher would not answer, whatever else is kept: nothing is there."""
    refused = cast(Mapping[str, Any], row).get("finish_reason") == "refused"
    return row["reason"].partition(": ")[0] if refused else None


def untruncated(row: SampleRow) -> str | None:
    """Reject what the token limit cut off."""
    return "truncated" if row["truncated"] else None


def correct(row: SampleRow) -> str | None:
    """Reject what did not pass, with the judge's reason; what nothing judged stays."""
    if row["verdict"] in ("pass", "unjudged"):
        return None
    return f"{'undecided' if row['verdict'] == 'undecided' else 'wrong'}: {row['reason']}"


def well_formed(row: SampleRow) -> str | None:
    """Reject what does not have the form that its question asks for."""
    return None if parsed(row).fits(row["reasoning"]) else "not well formed"


def single_language(at_least: float, language: Language | None = None) -> Filter:
    """Reject when less than this share of the words before the answer is in one language, or `language`."""

    def check(row: SampleRow) -> str | None:
        parts = parsed(row)
        if parts.thinking is None:
            return None
        share = consistency(f"{parts.thinking} {parts.summary}", language)
        if share is None or share >= at_least:
            return None
        return "mixed languages" if language is None else f"not in {language}"

    return check


def readable(repeats: bool, max_attempts: int | None, max_tokens: int | None) -> Filter:
    """Reject what is too long, and thinking that goes in circles."""

    def check(row: SampleRow) -> str | None:
        if max_tokens is not None and row["tokens"] > max_tokens:
            return "too long"
        trace = measure(parsed(row).thinking or "")
        if max_attempts is not None and (trace.attempts or 0) > max_attempts:
            return "too many attempts"
        return "repeated attempts" if trace.repeated_attempts and not repeats else None

    return check


def preferred(at_least: float) -> Filter:
    """Reject what a preference model scores lower, and what it was not asked about."""

    def check(row: SampleRow) -> str | None:
        score = score_of(row)
        return None if score is not None and score >= at_least else f"preference under {at_least:g}"

    return check


def score_of(row: SampleRow) -> float | None:
    """What a preference model thinks of a row; None where none was asked."""
    score: float | None = cast(Mapping[str, Any], row).get("preference")
    return score


# --- Steps: all rows together


def each(filter_: Filter) -> CurationStep:
    """The step that looks at every row alone."""

    def step(rows: Sequence[SampleRow]) -> Curated:
        return _part((row, filter_(row)) for row in rows)

    return step


def deduplicate(rows: Sequence[SampleRow]) -> Curated:
    """Reject a completion that the same problem has had before, but for white space."""
    seen: set[tuple[str, str]] = set()

    def reason(row: SampleRow) -> str | None:
        key = (row["problem_id"], bare(row["completion"]))
        if key in seen:
            return "duplicate"
        seen.add(key)
        return None

    return _part((row, reason(row)) for row in rows)


def bare(text: str) -> str:
    """A completion as it is compared with others of its problem: white space does not tell them apart."""
    return " ".join(text.split())


def at_most(count: int, prefer: Prefer) -> CurationStep:
    """Keep so many rows of a problem, in the order they came; of equally good ones the first."""

    def step(rows: Sequence[SampleRow]) -> Curated:
        places: dict[str, list[int]] = {}
        for place, row in enumerate(rows):
            places.setdefault(row["problem_id"], []).append(place)
        if prefer != "first":
            rank = _shorter if prefer == "shortest" else _better
            places = {name: sorted(those, key=lambda i: rank(rows[i])) for name, those in places.items()}
        chosen = {place for those in places.values() for place in those[:count]}
        reason = f"not among the {prefer} {count} of its problem"
        return _part((row, None if place in chosen else reason) for place, row in enumerate(rows))

    return step


def _shorter(row: SampleRow) -> float:
    return row["tokens"]


def _better(row: SampleRow) -> float:
    score = score_of(row)
    return math.inf if score is None else -score


def _part(reasons: Iterable[tuple[SampleRow, str | None]]) -> Curated:
    parted = Curated([], [])
    for row, reason in reasons:
        if reason is None:
            parted.kept.append(row)
        else:
            parted.rejected.append({**cast(RejectedRow, row), "rejected": reason})
    return parted
