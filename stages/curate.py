"""Curation: which traces, our own or others', a student is to learn from, and why not the rest.

The files are read once, in chunks and side by side; the steps decide on what was noted of each row, one after
another; what is left is copied. Memory does not depend on the texts. A stop costs the chunks and shards that
are in the making.
"""

import resource
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator, model_validator

from r1pipe import machine
from r1pipe.artifact import Artifact
from r1pipe.card import licences_of
from r1pipe.curate.mapping import Columns
from r1pipe.curate.sources import Source, sources
from r1pipe.curate.steps import USUAL, AnyStep, Mix, misplaced
from r1pipe.stage import NEUTRAL, DatasetRef, Findings, Inputs, Outcome, StageConfig, Work

VERSION = 2
SUMMARY = "Filter, deduplicate, decontaminate and balance traces, each row that goes with its reason."
LIGHT = True


class Config(StageConfig):
    """What the `curate` stage reads from a recipe."""

    makes: ClassVar = "dataset"
    listed: ClassVar = "data"

    data: list[DatasetRef] = Field(min_length=1)
    """The traces: stages, datasets' folders or `.jsonl` files, plain or compressed."""
    columns: Columns = Columns()
    """Which column of these files holds what; nothing need be said of what `sample` wrote."""
    steps: list[AnyStep] = Field(default=list(USUAL), max_length=100)
    """What is done, in this order; see `docs/traces.md`."""
    validation: float = Field(default=0.0, ge=0, lt=1)
    """Share of the problems whose rows become a split of their own, in `validation-*.jsonl`."""
    licences: dict[str, str] = Field(default={})
    """The licence of each input, as the hub names it (`mit`), by its name in `data`; else its card's."""
    compress: bool = False
    """Write `.jsonl.zst`; needs the extra `zstd`."""
    shard_rows: int = Field(default=10_000, ge=1)
    """Rows of a file of the result."""
    workers: Annotated[int | None, Field(ge=1), NEUTRAL] = None
    """Processes that read and write, each on one core; all cores when it is not set."""

    @field_validator("data", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits_together(self) -> "Config":
        if (wrong := misplaced(self.steps)) is not None:
            raise ValueError(wrong)
        inputs = [*self.data, *(each for step in self.steps if isinstance(step, Mix) for each in step.data)]
        if unknown := [name for name in self.licences if name not in inputs]:
            raise ValueError(
                f"licences names {unknown[0]!r}, which is no input; those are {', '.join(inputs)}"
            )
        return self


def check(config: Config) -> Findings:
    """Find out whether what compresses is installed."""
    if config.compress and find_spec("zstandard") is None:
        return Findings(lacking=["compress: the package 'zstandard' is missing; pip install 'r1pipe[zstd]'"])
    return Findings()


def run(config: Config, inputs: Inputs, work: Work) -> Outcome:
    """Read, decide, write; publish the rows that are kept, and beside them the ledger of the others."""
    from r1pipe.curate.curation import Job, curate  # it computes with numpy

    given = list(_given(config, inputs))
    files = sources([(artifact.path, columns, joins) for artifact, columns, joins, _ in given])
    job = Job(
        sources=files,
        steps=config.steps,
        files=[
            [artifact.path for artifact in inputs.many(f"steps.{number}.benchmarks")]
            for number in range(len(config.steps))
        ],
        licences=_licences(files, [(artifact.path, licence) for artifact, _, _, licence in given]),
        validation=config.validation,
        shard_rows=config.shard_rows,
        ending=".jsonl.zst" if config.compress else ".jsonl",
        workers=config.workers or machine.cores(),
    )
    made = curate(job, work)
    # What all processes together may have held at most.
    peak = machine.peak_rss() + job.workers * machine.peak_rss(resource.RUSAGE_CHILDREN)
    return Outcome("dataset", made.folder, made.metrics, cost={"peak_rss_bytes": peak}, card=made.contents)


def _given(config: Config, inputs: Inputs) -> Iterator[tuple[Artifact, Columns, int, str | None]]:
    """(artifact, its columns, the step with which it comes in, its licence) of each input."""
    roles = [("data", config.columns, 0)]
    roles += [
        (f"steps.{number}.data", step.columns, number + 1)
        for number, step in enumerate(config.steps)
        if isinstance(step, Mix)
    ]
    for role, columns, joins in roles:
        for name, artifact in zip(inputs.labels(role), inputs.many(role), strict=True):
            yield artifact, columns, joins, config.licences.get(name)


def _licences(files: list[Source], given: list[tuple[Path, str | None]]) -> dict[str, str]:
    """The licence of each file for which one is known, by its label."""
    known = {number: told or ", ".join(licences_of(path)) for number, (path, told) in enumerate(given)}
    return {source.label: known[source.input] for source in files if known[source.input]}
