"""A row of training data: a judged completion with its prompt, its origin and what may be said of it.

One row is one trace, and flat: no value holds others but `gold`, which is the task's own affair, and the list
of `flags`. The time is not in it. Rows are a function of the recipe and its seed, so that two runs can be
compared byte for byte; when a completion was made stands in the journal and in the run's metrics.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Final, Literal, cast

from pydantic import ConfigDict, TypeAdapter, with_config

from r1pipe import jsonl, verify
from r1pipe.measure.language import Language, consistency
from r1pipe.measure.readability import PASSAGE, Flag, flags
from r1pipe.measure.samples import SampleRow, parsed
from r1pipe.prompting import Parsed

Source = Literal["model", "rewritten", "solver", "gold"]
"""Who wrote it: a model; a model, made readable by a rule; the tiny world's solver; the task itself."""

_DIGITS: Final = 24
"""Of a trace's id, in base 16: among a billion traces two share one with a probability below 1e-11."""


@with_config(ConfigDict(extra="forbid", use_attribute_docstrings=True))
class TraceRow(SampleRow):
    """What `sample` writes. `prompt` and `completion` are what a fine-tuning learns from."""

    id: str
    """The problem and the sample: no two rows of a dataset share it."""
    trace_id: str
    """A digest of the problem, its prompt, the sample and what the completion was drawn with: no two datasets
    share it, unless they hold the same trace."""
    source: Source
    """Who wrote it: `model`; `rewritten`, a model's made readable by a rule; `solver`; `gold`, the task."""
    prompt: str
    """As it was given to the model."""
    thinking: str | None
    """What stands before `</think>`; null where no thinking was begun."""
    response: str
    """What stands after the thinking, as it was written; empty where that was not closed."""
    original: str | None
    """The completion as the model wrote it, where `source` is `rewritten`."""
    finish_reason: Literal["stop", "length", "refused"]
    """`stop` where it ended by itself, `length` where the token limit cut it off; `refused` where a teacher
    would not answer, of which there is no text, and `reason` says what it said."""
    prompt_tokens: int
    """Tokens of the prompt."""
    difficulty: float | None
    """How hard the problem is, on the task's own scale."""
    language_consistency: float | None
    """Share of the words before the answer that are in the language asked for, else in the commonest one."""
    flags: list[Flag]
    """What may be said against it: language_mix, repetition, code_block, long_paragraph, truncated."""
    verifier: str
    """The judge that gave the verdict."""
    verifier_version: int
    """The version of the judges; it is raised when a verdict on any answer would come out another."""
    preference: float | None
    """What a preference model thinks of the answer, from 0 to 1: 1 / (1 + e^-logit); null where none was
    asked. One is asked about what all of `keep` but the score lets through."""
    pass_rate: float | None
    """Share of the prompt's decided completions that passed; null where the model was not asked, or none was
    decided."""
    pass_rate_samples: int
    """How many completions of the prompt were decided."""
    pass_rate_passed: int
    """How many of those passed."""
    model: str | None
    """The checkpoint that wrote it, or a teacher by its server's name; null where no model did, as for all
    that follows."""
    model_fingerprint: str | None
    """The hash of what the checkpoint was made from, or of its files if it is from outside; for a teacher on
    a server, of the name, the system's words and the further keys with which it is asked."""
    engine: str | None
    """What generated it: `transformers`, `vllm`, `vllm-server`, `teacher`, …"""
    engine_version: str | None
    """The version of the engine's library; null where a server does not tell."""
    temperature: float | None
    """Of the sampling; 0 took the most likely token."""
    top_p: float | None
    """Smallest set of tokens whose probability reached this was drawn from."""
    top_k: int | None
    """So many of the likeliest tokens were drawn from; 0 is all."""
    max_new_tokens: int | None
    """The token limit."""
    seed: int | None
    """What it was drawn with; no other completion of the dataset has it."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a model's completion was drawn with; the columns of the same names."""

    model: str
    model_fingerprint: str
    engine: str | None
    engine_version: str | None
    temperature: float
    top_p: float
    top_k: int
    max_new_tokens: int
    seed: int


_NOT_DRAWN: Final = dict.fromkeys(Drawn.__dataclass_fields__)


def trace_row(
    row: SampleRow,
    *,
    prompt: str,
    prompt_tokens: int,
    source: Source,
    verifier: str,
    difficulty: float | None = None,
    language: Language | None = None,
    original: str | None = None,
    drawn: Drawn | None = None,
) -> TraceRow:
    """Complete a judged completion's row; `language` is the one its words are to be in.

    Its prompt's pass rate is not known yet: `with_pass_rates` fills it in.
    """
    parts = parsed(row)
    spoken = None if parts.thinking is None else consistency(f"{parts.thinking} {parts.summary}", language)
    return cast(
        TraceRow,
        {
            **{column: cast(Mapping[str, Any], row)[column] for column in SampleRow.__annotations__},
            "id": f"{row['problem_id']}#{row['sample']}",
            "trace_id": trace_id(row, prompt, source, drawn),
            "source": source,
            "prompt": prompt,
            "thinking": parts.thinking,
            "response": parts.tail.strip(),
            "original": original,
            "finish_reason": _finish_reason(row),
            "prompt_tokens": prompt_tokens,
            "difficulty": difficulty,
            "language_consistency": spoken,
            "flags": _flags(row, parts, spoken),
            "verifier": verifier,
            "verifier_version": verify.VERSION,
            "preference": None,
            "pass_rate": None,
            "pass_rate_samples": 0,
            "pass_rate_passed": 0,
            **(_NOT_DRAWN if drawn is None else asdict(drawn)),
        },
    )


def _finish_reason(row: SampleRow) -> Literal["stop", "length", "refused"]:
    if cast(Mapping[str, Any], row).get("refused"):  # as the journal of a sampling has it
        return "refused"
    return "length" if row["truncated"] else "stop"


def _flags(row: SampleRow, parts: Parsed, spoken: float | None) -> list[Flag]:
    from r1pipe.curate import words  # it computes with numpy

    repeated = words.repeated(words.read(row["completion"]).hashes, PASSAGE)
    return flags(
        row["completion"], parts.thinking, repeated=repeated, spoken=spoken, truncated=row["truncated"]
    )


def trace_id(row: SampleRow, prompt: str, source: Source, drawn: Drawn | None) -> str:
    """The digest that names a trace everywhere.

    A model's is named by what it was drawn with, so that it is known before the text is; any other by its
    text. The engine has no part in it: the same draw by another engine is to be found again.
    """
    of: list[Any] = [source, row["completion"]]
    if drawn is not None:
        of = [drawn.model_fingerprint, drawn.seed, drawn.temperature, drawn.top_p, drawn.top_k]
        of.append(drawn.max_new_tokens)
    named = jsonl.dumps([row["task"], row["problem_id"], row["sample"], prompt, *of])
    return hashlib.sha256(named).hexdigest()[:_DIGITS]


class PassRates:
    """How often each problem was solved, counted as completions come."""

    def __init__(self) -> None:
        self._decided: Counter[str] = Counter()
        self._passed: Counter[str] = Counter()

    def add(self, rows: Iterable[SampleRow]) -> None:
        """Count judged completions."""
        for row in rows:
            self._decided[row["problem_id"]] += row["verdict"] in ("pass", "fail")
            self._passed[row["problem_id"]] += row["verdict"] == "pass"

    def of(self, problem: str) -> dict[str, float | int | None]:
        """The three columns of a problem's rows."""
        decided, passed = self._decided[problem], self._passed[problem]
        return {
            "pass_rate": passed / decided if decided else None,
            "pass_rate_samples": decided,
            "pass_rate_passed": passed,
        }


@cache
def _adapter() -> TypeAdapter[TraceRow]:
    return TypeAdapter(TraceRow)


def schema() -> dict[str, Any]:
    """The JSON Schema of a row, each column with what it means."""
    found = _adapter().json_schema()
    inherited = TypeAdapter(SampleRow).json_schema()["properties"]  # docstrings are read class by class
    for name, column in found["properties"].items():
        told = inherited.get(name, column)["description"]
        found["properties"][name] = {**column, "description": " ".join(told.split())}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def validated(row: Mapping[str, Any]) -> TraceRow:
    """The row, if it is one of the schema; raises pydantic's `ValidationError` with all that is not."""
    return _adapter().validate_python(row, strict=True)
