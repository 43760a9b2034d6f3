"""A curation from files to shards: every line is read once, the steps decide, what is kept is copied."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from r1pipe import jsonl
from r1pipe.card import Contents
from r1pipe.curate import ledger, picking
from r1pipe.curate.datacard import card_text, reasons
from r1pipe.curate.ledger import StepCounts, step_names
from r1pipe.curate.near import jaccard
from r1pipe.curate.reading import ChunkFiles, Reader, ReadPlan, joined, joined_sketches, words_compared
from r1pipe.curate.shards import Kept, Lines, Shard, WritePlan, Writer, Written, together
from r1pipe.curate.sources import CHUNK, Chunk, Source, Stat, chunks, stat_of, unpacked
from r1pipe.curate.step import Alone, Step, Together
from r1pipe.curate.steps import Exact
from r1pipe.curate.table import READING, STAYS, Array, Numbers, Of, Table
from r1pipe.curate.workers import each
from r1pipe.errors import RunFailed, UsageError
from r1pipe.stage import Work

EXAMPLES: Final = 3
PREFIXES: Final = {"train": "part-", "validation": "validation-"}
"""How the files of a split begin. What reads a dataset's folder takes `part-*` for its rows."""
PUBLISHED: Final = "published"
REJECTED: Final = "rejected"  # the ledger of a curation that keeps nothing
_SOURCES = "sources.json"  # the states of the files that the work is of


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done."""

    sources: Sequence[Source]
    steps: Sequence[Step]
    files: Sequence[Sequence[Path]]
    """Of each step the files that it names."""
    licences: Mapping[str, str]
    """By the sources' labels."""
    validation: float
    """Share of the problems."""
    shard_rows: int
    ending: str
    """Of the files that are made: `.jsonl` or `.jsonl.zst`."""
    workers: int


@dataclass(frozen=True, slots=True)
class Curated:
    """What was made."""

    folder: Path
    contents: Contents
    metrics: dict[str, Any]


def curate(job: Job, work: Work) -> Curated:
    """Read, decide, write; goes on from what an earlier call has left in `work.dir`.

    Raises:
        RunFailed: nothing is kept, or a file was changed meanwhile.
        Interrupted: the user asked to stop.
    """
    stats, named = _begin(job, work), _stats(job.files)
    plan = _read_plan(job, work, stats)
    pieces = chunks(plan.sources, CHUNK)
    _read(job, plan, pieces, work)
    table, told = decide(job, plan, pieces, work)
    changed = partial(_refuse_changes, job, stats, named)
    if not told[-1].kept:
        changed()
        with jsonl.writing(rejected := work.dir / REJECTED):
            rejected.mkdir(exist_ok=True)
        ledger.write(table, step_names(job.steps), pieces, plan, rejected, job.ending)
        raise RunFailed(_nothing_kept(told, rejected))
    made = _write(job, plan, pieces, table, work)
    lines = ledger.write(table, step_names(job.steps), pieces, plan, work.dir / PUBLISHED, job.ending)
    changed()
    metrics = _metrics(table, told, made)
    assert lines == metrics["input"] - metrics["kept"], f"{lines} lines of the ledger; {metrics}"
    return Curated(work.dir / PUBLISHED, _contents(job, plan, table, told, made), metrics)


# --- Reading


def _begin(job: Job, work: Work) -> list[Stat]:
    """Look at the files; what was made of another state of one is begun anew, and that is said."""
    note = work.dir / _SOURCES
    stats = {source.label: source.stat for source in job.sources}
    before = jsonl.loads(note.read_bytes()) if note.exists() else {}
    if changed := [label for label, stat in stats.items() if before and before.get(label) != stat]:
        work.say(f"Changed since they were read, and read anew: {', '.join(changed)}.")
        for folder in (PUBLISHED, "shards"):
            shutil.rmtree(work.dir / folder, ignore_errors=True)
    jsonl.write_json(note, stats)
    return list(stats.values())


def _stats(files: Sequence[Sequence[Path]]) -> dict[Path, Stat]:
    """The states of all files that the steps name."""
    return {part: stat_of(part) for named in files for path in named for part in jsonl.parts(path)}


def _refuse_changes(job: Job, stats: Sequence[Stat], named: Mapping[Path, Stat]) -> None:
    """Raise `RunFailed` where a file is not as it was when the reading began."""
    before = {**named, **{source.given: stat for source, stat in zip(job.sources, stats, strict=True)}}
    try:
        now = {**_stats(job.files), **{source.given: source.stat for source in job.sources}}
    except (FileNotFoundError, UsageError):  # one is gone
        now = {path: stat_of(path) for path in before if path.exists()}
    for path in {**before, **now}:
        if before.get(path) != now.get(path):
            raise RunFailed(_changed(path))


def _read_plan(job: Job, work: Work, stats: Sequence[Stat]) -> ReadPlan:
    folder = work.dir / "read"
    with jsonl.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    ready = [unpacked(source, folder, work.pause_point) for source in job.sources]
    return ReadPlan(ready, stats, job.steps, job.files, folder)


def _read(job: Job, plan: ReadPlan, pieces: Sequence[Chunk], work: Work) -> None:
    """Read what is not read yet."""
    left = [
        piece
        for piece in pieces
        if not ChunkFiles(plan.folder, piece.number).is_of(piece, plan.stats[piece.source])
    ]
    total = sum(piece.end - piece.begin for piece in pieces)
    done = total - sum(piece.end - piece.begin for piece in left)
    for piece, _ in each(_reader, plan, left, min(job.workers, len(left)) or 1, work.pause_point):
        done += piece.end - piece.begin
        work.progress(done >> 20, total >> 20, "MiB read")


def _reader(plan: ReadPlan) -> Any:
    return Reader(plan).read


# --- Deciding


def decide(job: Job, plan: ReadPlan, pieces: Sequence[Chunk], work: Work) -> tuple[Table, list[StepCounts]]:
    """Run the steps in their order on what was read; return the table and what each step has done."""
    found, words, domains = joined(plan, pieces)
    sketches = {of: joined_sketches(plan, pieces, of, len(found)) for of in plan.sketched}
    joins = np.array([source.joins for source in plan.sources], np.int64)
    table = Table(found, joins, words, domains, sketches, work.seed)
    inputs = np.array([source.input for source in plan.sources], np.int64)
    found["problem"] = picking.problems(table, inputs)
    _set_aside(table, inputs)
    compare = Comparison(table, plan.sources, work.pause_point)
    for number, step in enumerate(job.steps, start=1):
        work.pause_point()
        if isinstance(step, Alone):
            table.take_alone(number)
        elif isinstance(step, Together) and len(rows := table.present(number)):
            if isinstance(step, Exact) and step.of == "question" and _unnamed(table, rows):
                work.say(UNNAMED)
            table.take(number, step.choose(table, rows, number, compare))
    told = ledger.counts(table, step_names(job.steps))
    for each_ in told:
        if gone := reasons(each_):
            work.say(f"{each_.name}: {each_.seen - each_.kept:,} of {each_.seen:,} rows left ({gone}).")
    return table, told


UNNAMED: Final = (
    "No row names its problem, so that rows with the same question are samples of one, and exact:question "
    "takes none of them. Name the column, `columns: {problem: …}`, or keep so many of each question by `cap`."
)


def _unnamed(table: Table, rows: Numbers) -> bool:
    """Whether all problems are named by their questions, of which some come again."""
    questions = table.rows["question"][rows]
    return bool((table.rows["problem"][rows] == questions).all()) and len(np.unique(questions)) < len(rows)


def _set_aside(table: Table, inputs: Numbers) -> None:
    """What is no trace, and what comes twice, is set aside before the first step, wherever it comes in."""
    unread = np.flatnonzero(table.rows["lost"] == READING)
    table.left[unread] = READING
    table.why[unread] = table.rows["why"][unread]
    losses, table_renamed = picking.duplicate_ids(table, np.flatnonzero(table.left == STAYS), inputs)
    table.take(READING, losses)
    table.renamed[table_renamed] = True
    table.aside |= table.left == READING


class Comparison:
    """The exact Jaccard indices of pairs of rows, from their texts.

    Of texts that are much alike there may be many pairs, so that a stop is heard between two calls.
    """

    def __init__(self, table: Table, sources: Sequence[Source], pause_point: Callable[[], None]) -> None:
        self._table = table
        self._pause_point = pause_point
        self._sources = sources
        self._lines = Lines(sources)
        self._words = lru_cache(maxsize=64)(self._read)

    def __call__(self, of: Of, some: Numbers, others: Numbers) -> Array:
        """The indices of pairs: [pairs]."""
        self._pause_point()
        pairs = zip(some.tolist(), others.tolist(), strict=True)
        return np.array([jaccard(self._words(of, one), self._words(of, other)) for one, other in pairs])

    def _read(self, of: Of, row: int) -> Array:
        found = self._table.rows[row]
        source = int(found["source"])
        line = self._lines.at(source, int(found["offset"]), int(found["length"]))
        return words_compared(of, line, self._sources[source])


def _nothing_kept(told: Sequence[StepCounts], rejected: Path) -> str:
    if not told[0].seen:
        return "No row is kept: there is none in what was given. One JSON object per line is expected."
    lines = [f"  {step.name}: {step.seen - step.kept:,} of {step.seen:,} ({reasons(step)})" for step in told]
    return "\n".join(
        [
            "No row is kept. What left with each step:",
            *(line for line, step in zip(lines, told, strict=True) if step.seen > step.kept),
            "Loosen the step that took most, or name the rows' `columns` if they are called otherwise."
            if told[0].kept
            else "Lines of this form cannot be read: give UTF-8 with one JSON object per line, and name the "
            "rows' `columns` if they are called otherwise.",
            f"The ledger, with the reason of each row, is in '{rejected}'.",
        ]
    )


def _changed(path: Path) -> str:
    return (
        f"'{path}' was changed while it was curated, so that nothing is published. Run the same "
        "command again: it begins anew with the file as it is."
    )


# --- Writing


def _write(
    job: Job, plan: ReadPlan, pieces: Sequence[Chunk], table: Table, work: Work
) -> dict[str, list[Written]]:
    """Write the shards; return what is known of each, by split and in their order."""
    folder, markers = work.dir / PUBLISHED, work.dir / "shards"
    for each_ in (folder, markers):
        with jsonl.writing(each_):
            each_.mkdir(exist_ok=True)
    kept = np.flatnonzero(table.left == STAYS)
    validates = picking.validation(table, kept, job.validation)
    splits = {"train": kept[~validates], **({"validation": kept[validates]} if validates.any() else {})}
    shards = (
        shard
        for split, rows in splits.items()
        for shard in _shards(split, _kept(table, plan, pieces, rows), job)
    )
    # The generator above is read by this process alone, and never far ahead of what is written.
    made: dict[str, Written] = {}
    write_plan = WritePlan(plan.sources, folder, markers)
    processes = min(job.workers, -(-len(kept) // job.shard_rows))
    done = 0
    for shard, written in each(_writer, write_plan, shards, processes, work.pause_point):
        made[shard.name] = written
        done += written.rows
        work.progress(done, len(kept), "rows written")
    with jsonl.writing(folder):
        for stale in folder.iterdir():
            if stale.name not in made:
                stale.unlink()
        jsonl.fsync(folder)
    return {
        split: [made[name] for name in sorted(made) if name.startswith(PREFIXES[split])] for split in splits
    }


def _writer(plan: WritePlan) -> Any:
    return Writer(plan).write


def _shards(split: str, rows: Iterator[Kept], job: Job) -> Iterator[Shard]:
    number = 0
    while batch := list(islice(rows, job.shard_rows)):
        yield Shard(f"{PREFIXES[split]}{number:05}{job.ending}", batch)
        number += 1


def _kept(table: Table, plan: ReadPlan, pieces: Sequence[Chunk], rows: Numbers) -> Iterator[Kept]:
    """The rows by their places, in their order; notes are read only where something of them is needed."""
    judged = any(step.name == "verify" for step in plan.steps)
    begin = 0
    for piece in pieces:
        files = ChunkFiles(plan.folder, piece.number)
        end = begin + files.told()["rows"]
        here = rows[np.searchsorted(rows, begin) : np.searchsorted(rows, end)]
        needed = judged or table.renamed[here].any()
        notes = list(files.read_notes()) if needed and len(here) else []
        for row, kept in zip(here.tolist(), _places(table, here), strict=True):
            if notes:
                name, _, verdict = notes[row - begin]
                kept = replace(kept, verdict=verdict)
                if table.renamed[row]:
                    label = plan.sources[kept.source].label
                    kept = replace(kept, as_it_is=False, id=f"{name}@{label}")
            yield kept
        begin = end


def _places(table: Table, rows: Numbers) -> Iterator[Kept]:
    """The rows by their places, column by column: numpy takes its time over single values."""
    found = table.rows[rows]
    columns = (found[name].tolist() for name in ("source", "offset", "length"))
    return map(Kept, *columns, (found["as_it_is"] == 1).tolist())


# --- Telling


def _metrics(
    table: Table, told: Sequence[StepCounts], made: Mapping[str, Sequence[Written]]
) -> dict[str, Any]:
    tokens = table.rows["tokens"][table.left == STAYS]
    return {
        "input": len(table.rows),
        "kept": told[-1].kept,
        **{split: sum(written.rows for written in shards) for split, shards in made.items()},
        "rejected": sum(sum(step.rejected.values()) for step in told),
        "set_aside": sum(sum(step.set_aside.values()) for step in told),
        "tokens": int(tokens.sum(dtype=np.int64)),
        "steps": [step.as_json for step in told],
    }


def _contents(
    job: Job, plan: ReadPlan, table: Table, told: Sequence[StepCounts], made: Mapping[str, Sequence[Written]]
) -> Contents:
    digest, columns = together([written for shards in made.values() for written in shards])
    splits = {split: sum(written.rows for written in shards) for split, shards in made.items()}
    text = card_text(table, told, plan.sources, job.licences, splits, _examples(plan, table))
    return Contents(
        rows=sum(splits.values()),
        digest=digest,
        columns=columns,
        splits={split: f"{PREFIXES[split]}*{job.ending}" for split in splits},
        licences=sorted(set(job.licences.values())),
        text=text,
    )


def _examples(plan: ReadPlan, table: Table) -> Iterator[jsonl.Row]:
    """A few rows, drawn at random."""
    kept = np.flatnonzero(table.left == STAYS)
    writer = Writer(WritePlan(plan.sources, plan.folder, plan.folder))
    drawn = kept[np.argsort(table.shuffled(kept), kind="stable")[:EXAMPLES]]
    for place in _places(table, drawn):
        yield writer.row(place)[1]
