"""What a curated data set's card tells: what was done, what is in it, where from, what it looks like."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from r1pipe import jsonl
from r1pipe.curate.ledger import StepCounts
from r1pipe.curate.mapping import CHARACTERS_PER_TOKEN
from r1pipe.curate.picking import BINS, DIFFICULTIES, difficulties, length_names, pass_rates
from r1pipe.curate.sources import Source
from r1pipe.curate.table import STAYS, Array, Table
from r1pipe.text import percent, quantity, shortened

_BAR = 30  # characters of the longest bar
_MOST_CLASSES = 20
_MOST_REASONS = 5
_MOST_TEXT = 1_500  # characters of a text in an example


def card_text(
    table: Table,
    told: Sequence[StepCounts],
    sources: Sequence[Source],
    licences: Mapping[str, str],
    splits: Mapping[str, int],
    examples: Iterable[jsonl.Row],
) -> str:
    """Markdown with the counts, histograms, licences and examples. `licences` are by the sources' labels."""
    kept = np.flatnonzero(table.left == STAYS)
    return "\n".join(
        [
            *_steps(told),
            "",
            *_splits(table, kept, splits),
            "",
            *_histograms(table, kept),
            *_sources(table, sources, licences),
            "",
            *_examples(examples),
        ]
    )


def _steps(told: Sequence[StepCounts]) -> Iterator[str]:
    yield "## What was done"
    yield ""
    yield "Each row left with the first step that rejected it; `ledger.jsonl` has a line for every one."
    yield ""
    yield "| step | rows in | rejected | set aside | kept | reasons |"
    yield "| --- | ---: | ---: | ---: | ---: | --- |"
    for step in told:
        rejected, aside = (sum(each.values()) for each in (step.rejected, step.set_aside))
        yield (
            f"| {step.step} {step.name} | {step.seen:,} | {rejected:,} | {aside:,} | {step.kept:,} "
            f"| {_cell(reasons(step))} |"
        )


def reasons(step: StepCounts) -> str:
    """The commonest reasons of a step with their counts."""
    found = {**step.rejected, **step.set_aside}
    named = [f"{reason} {count:,}" for reason, count in list(found.items())[:_MOST_REASONS]]
    rest = sum(list(found.values())[_MOST_REASONS:])
    return ", ".join([*named, *([f"others {rest:,}"] if rest else [])])


def _splits(table: Table, kept: Array, splits: Mapping[str, int]) -> Iterator[str]:
    rows = table.rows[kept]
    problems = len(np.unique(rows["problem"]))
    tokens = int(rows["tokens"].sum(dtype=np.int64))
    guessed = int((rows["counted"] == 0).sum())
    yield "## What is in it"
    yield ""
    yield f"- {', '.join(f'{split}: {count:,} rows' for split, count in splits.items())}"
    yield f"- {problems:,} problems, {len(rows) / max(1, problems):.1f} rows each"
    yield f"- {quantity(tokens)} tokens in the completions" + (
        f"; of {guessed:,} rows they are estimated, {CHARACTERS_PER_TOKEN} characters to a token"
        if guessed
        else ""
    )


def _histograms(table: Table, kept: Array) -> Iterator[str]:
    rows = table.rows[kept]
    lengths = np.bincount(np.digitize(rows["tokens"], BINS), minlength=len(BINS) + 1)
    yield from _histogram("Tokens of a completion", dict(zip(length_names(), lengths.tolist(), strict=True)))
    rates = np.bincount(difficulties(pass_rates(table)[kept]), minlength=len(DIFFICULTIES))
    yield from _histogram("Problems' pass rates", dict(zip(_RATES, rates.tolist(), strict=True)))
    domains = np.bincount(rows["domain"], minlength=len(table.domains.words))
    found = {name: count for name, count in zip(table.domains.words, domains.tolist(), strict=True) if count}
    ordered = sorted(found.items(), key=lambda each: -each[1])
    named = dict(ordered[:_MOST_CLASSES])
    if rest := sum(count for _, count in ordered[_MOST_CLASSES:]):
        named[f"{len(ordered) - _MOST_CLASSES} others"] = rest
    yield from _histogram("Domains", named)


_RATES = ("up to 1/3", "up to 2/3", "above", "unknown")


def _histogram(title: str, found: Mapping[str, int]) -> Iterator[str]:
    total, most = max(1, sum(found.values())), max([1, *found.values()])
    yield f"### {title}"
    yield ""
    yield "| | rows | share | |"
    yield "| --- | ---: | ---: | --- |"
    for name, count in found.items():
        bar = "█" * round(_BAR * count / most)
        yield f"| {_cell(name)} | {count:,} | {percent(count / total)} | {bar} |"
    yield ""


def _sources(table: Table, sources: Sequence[Source], licences: Mapping[str, str]) -> Iterator[str]:
    read = np.bincount(table.rows["source"], minlength=len(sources))
    kept = np.bincount(table.rows["source"][table.left == STAYS], minlength=len(sources))
    yield "## Where it is from"
    yield ""
    yield "| file | rows | kept | licence |"
    yield "| --- | ---: | ---: | --- |"
    for source, rows, stayed in zip(sources, read.tolist(), kept.tolist(), strict=True):
        licence = licences.get(source.label, "not stated")
        yield f"| {_cell(source.label)} | {rows:,} | {stayed:,} | {_cell(licence)} |"


def _examples(rows: Iterable[jsonl.Row]) -> Iterator[str]:
    yield "## Examples"
    for row in rows:
        yield ""
        texts = row.get("messages") or [
            {"role": key, "content": row.get(key)} for key in ("prompt", "completion")
        ]
        for text in texts:
            yield f"**{text['role']}**"
            yield ""
            yield from (f"    {line}" for line in shortened(str(text["content"]), _MOST_TEXT).splitlines())
            yield ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
