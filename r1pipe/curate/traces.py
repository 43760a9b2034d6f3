"""A row of training data: a judged completion with its prompt and where it comes from."""

from typing import Literal

from r1pipe.measure.language import Language, consistency
from r1pipe.measure.samples import SampleRow, parsed

Source = Literal["model", "rewritten", "solver", "gold"]
"""Who wrote it: a model; a model, made readable by a rule; the tiny world's solver; the task itself."""


class TraceRow(SampleRow):
    """What `sample` writes. `prompt` and `completion` are what a fine-tuning learns from."""

    id: str
    """The problem and the sample: no two rows of a dataset share it."""
    prompt: str
    """As it was given to the model."""
    thinking: str | None
    source: Source
    original: str | None
    """The completion as the model wrote it, where `source` is `rewritten`."""
    finish: Literal["stop", "length"]
    language_consistency: float | None
    """Share of the words before the answer that are in the language asked for, else in the commonest one."""
    model: str | None
    """The checkpoint that wrote it."""
    temperature: float | None
    seed: int | None
    """What its batch was drawn with."""


def trace_row(
    row: SampleRow,
    *,
    prompt: str,
    source: Source,
    language: Language | None = None,
    original: str | None = None,
    model: str | None = None,
    temperature: float | None = None,
    seed: int | None = None,
) -> TraceRow:
    """Complete a judged completion's row; `language` is the one its words are to be in."""
    parts = parsed(row)
    spoken = None if parts.thinking is None else consistency(f"{parts.thinking} {parts.summary}", language)
    return TraceRow(
        **row,
        id=f"{row['problem_id']}#{row['sample']}",
        prompt=prompt,
        thinking=parts.thinking,
        source=source,
        original=original,
        finish="length" if row["truncated"] else "stop",
        language_consistency=spoken,
        model=model,
        temperature=temperature,
        seed=seed,
    )
