"""The first pass: every line is read once, and what the steps need of it is kept as numbers.

Chunks of files are read side by side. What was found in one is on the disk before it counts as read, so a
stop costs the chunks that are being read and no more. Texts are not kept; a row's place in its file is.

    chunk-00007.npy          [rows] of `table.ROW`
    chunk-00007.trace.npy    [rows] of `near.SKETCH`, where a step needs sketches of traces
    chunk-00007.notes.jsonl  a line for each row: [id, evidence, verdict]
    chunk-00007.json         written last: of which bytes of which state of the file this is
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import xxhash

from r1pipe import jsonl
from r1pipe.curate.finding import Fault, Look
from r1pipe.curate.mapping import Trace, read_trace
from r1pipe.curate.near import SKETCH, sketch
from r1pipe.curate.sources import LONGEST, Chunk, Source, Stat, lines
from r1pipe.curate.step import Alone, Step
from r1pipe.curate.steps import Exact, Verify
from r1pipe.curate.table import READING, ROW, STAYS, VERDICTS, Array, Vocabulary
from r1pipe.verify.verdict import Verdict

BOM: Final = b"\xef\xbb\xbf"
"""Some editors begin UTF-8 files with this mark."""


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """What every worker has to know."""

    sources: Sequence[Source]
    stats: Sequence[Stat]
    """Of each source, when the reading began."""
    steps: Sequence[Step]
    files: Sequence[Sequence[Path]]
    """Of each step the files that it names."""
    folder: Path
    """Where what is found is kept."""
    longest: int = LONGEST

    @property
    def sketched(self) -> Mapping[str, int]:
        """Which texts are sketched, each with the first step that needs it."""
        needed: dict[str, int] = {}
        for number, step in enumerate(self.steps, start=1):
            for of in step.sketched():
                needed.setdefault(of, number)
        return needed


@dataclass
class _Found:
    """What was found in a chunk, as it grows."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    notes: list[bytes] = field(default_factory=list)
    sketches: dict[str, list[Array]] = field(default_factory=dict)
    reasons: Vocabulary = field(default_factory=Vocabulary)
    domains: Vocabulary = field(default_factory=Vocabulary)
    lines: int = 0


class Reader:
    """Reads chunks; a worker has one."""

    def __init__(self, plan: ReadPlan) -> None:
        self._plan = plan
        self._sketched = plan.sketched
        self._empty = np.zeros((), SKETCH)
        exact = [number for number, step in enumerate(plan.steps, start=1) if isinstance(step, Exact)]
        self._first_compared = min(exact, default=len(plan.steps))
        self._rule = next((step.rule for step in plan.steps if isinstance(step, Verify)), None)
        looks = [
            (number, step.look(files))
            for number, (step, files) in enumerate(zip(plan.steps, plan.files, strict=True), start=1)
            if isinstance(step, Alone)
        ]
        self._looks: list[list[tuple[int, Look]]] = [
            [(number, look) for number, look in looks if number > source.joins] for source in plan.sources
        ]
        """Of each source the steps that look at its rows: those after it has come in."""

    def read(self, chunk: Chunk) -> int:
        """Read a chunk and keep what is found; return how many rows it has."""
        source = self._plan.sources[chunk.source]
        found = _Found(sketches={of: [] for of in self._sketched})
        for offset, length, line in lines(source.path, chunk.begin, chunk.end, self._plan.longest):
            found.lines += 1
            if line is None or line.strip():
                self._take(found, chunk.source, offset, length, line)
        self._keep(chunk, found)
        return len(found.rows)

    def _take(self, found: _Found, number: int, offset: int, length: int, line: bytes | None) -> None:
        source = self._plan.sources[number]
        place = (number, found.lines, offset, length)
        trace = f"longer than {self._plan.longest} bytes" if line is None else _trace(line, offset, source)
        if isinstance(trace, str):
            reason = trace.partition(" (")[0].partition("; the row has")[0]
            why = found.reasons.number(reason)
            found.rows.append((*place, *_NO_TRACE, READING, 1, why))
            found.notes.append(jsonl.dumps([None, None if reason == trace else trace, None]))
            for sketches in found.sketches.values():
                sketches.append(self._empty)
            return
        name = trace.id if trace.id is not None else f"{source.label}@{offset}"
        lost, fault, verdict = self._looked_at(number, trace)
        why = 0 if fault is None else found.reasons.number(fault.reason)
        found.rows.append(
            (
                *place,
                *_hashes(name, trace, whole=lost == STAYS or lost > self._first_compared),
                min(trace.tokens, 2**32 - 1),
                trace.counted,
                trace.as_it_is and verdict is None,
                found.domains.number(trace.domain or source.label),
                VERDICTS[trace.verdict],
                np.nan if trace.pass_rate is None else trace.pass_rate,
                np.nan if trace.preference is None else trace.preference,
                lost,
                fault is not None and fault.aside,
                why,
            )
        )
        found.notes.append(jsonl.dumps([name, None if fault is None else fault.evidence, verdict]))
        for of, first in self._sketched.items():
            left_before = lost != STAYS and lost < first
            found.sketches[of].append(self._empty if left_before else sketch(_hashed(of, trace)))

    def _looked_at(self, source: int, trace: Trace) -> tuple[int, Fault | None, dict[str, Any] | None]:
        """(the first step that rejects it, why, the verdict that a step came to); `trace` gets that too."""
        verdict: dict[str, Any] | None = None
        for number, look in self._looks[source]:
            finding = look(trace)
            if isinstance(finding, Fault):
                return number, finding, verdict
            if isinstance(finding, Verdict):
                trace.verdict, trace.reason = finding.mark, finding.reason
                verdict = {
                    "verdict": finding.mark.value,
                    "reason": finding.reason,
                    "extracted": finding.extracted,
                    "verifier": self._rule,
                }
        return STAYS, None, verdict

    def _keep(self, chunk: Chunk, found: _Found) -> None:
        files = ChunkFiles(self._plan.folder, chunk.number)
        _save(files.rows, np.array(found.rows, ROW))
        for of, sketches in found.sketches.items():
            _save(files.sketches(of), np.array(sketches, SKETCH))
        with jsonl.replacing(files.notes) as file:
            file.writelines(note + b"\n" for note in found.notes)
        marker = {
            "begin": chunk.begin,
            "end": chunk.end,
            "stat": self._plan.stats[chunk.source],
            "lines": found.lines,
            "rows": len(found.rows),
            "reasons": found.reasons.words,
            "domains": found.domains.words,
        }
        jsonl.write_json(files.marker, marker)


_NO_TRACE: Final = (0, 0, 0, 0, 0, False, False, 0, VERDICTS[None], np.nan, np.nan)
"""The columns, from `id` to `preference`, of a line that is no trace."""


def _trace(line: bytes, offset: int, source: Source) -> Trace | str:
    row = jsonl.parse_row(line.removeprefix(BOM) if offset == 0 else line)
    if isinstance(row, str):
        return row if _is_text(line) else f"not UTF-8 ({row})"
    return read_trace(row, source.columns)


def _is_text(line: bytes) -> bool:
    """Whether it is UTF-8, and not half of the bytes of UTF-16, which have a zero beside each letter."""
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in line


def _hashes(name: str, trace: Trace, *, whole: bool) -> tuple[int, int, int, int]:
    """(id, problem, question, completion), the last one only where the row is still there to be compared."""
    question = trace.question_words.exact
    problem = question if trace.problem is None else _hash(trace.problem)
    return _hash(name), problem, question, trace.words.exact if whole else 0


def _hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))


def _hashed(of: str, trace: Trace) -> Array:
    """The hashes of the words that are sketched."""
    question = trace.question_words.hashes
    return question if of == "question" else np.concatenate([question, trace.words.hashes])


def words_compared(of: str, line: bytes, source: Source) -> Array:
    """The hashes of the words of a row that were sketched, once more; of a line that was a trace before."""
    trace = _trace(line.removeprefix(BOM), 1, source)
    assert isinstance(trace, Trace), trace
    return _hashed(of, trace)


# --- What is on the disk


@dataclass(frozen=True, slots=True)
class ChunkFiles:
    """Where what was found in a chunk is."""

    folder: Path
    number: int

    @property
    def marker(self) -> Path:
        """Says that all of it is there."""
        return self.folder / f"chunk-{self.number:05}.json"

    @property
    def rows(self) -> Path:
        """The columns."""
        return self.folder / f"chunk-{self.number:05}.npy"

    @property
    def notes(self) -> Path:
        """Ids, evidence and verdicts."""
        return self.folder / f"chunk-{self.number:05}.notes.jsonl"

    def sketches(self, of: str) -> Path:
        """The sketches of questions or of traces."""
        return self.folder / f"chunk-{self.number:05}.{of}.npy"

    def told(self) -> dict[str, Any]:
        """What the marker says; nothing where there is none."""
        try:
            told = jsonl.loads(self.marker.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return told if isinstance(told, dict) else {}

    def is_of(self, chunk: Chunk, stat: Stat) -> bool:
        """Whether it is of these bytes of this state of the file."""
        told = self.told()
        return [told.get(key) for key in ("begin", "end", "stat")] == [chunk.begin, chunk.end, list(stat)]

    def read_notes(self) -> Iterator[list[Any]]:
        """Yield [id, evidence, verdict] of each row."""
        with open(self.notes, "rb") as file:
            for line in file:
                yield jsonl.loads(line)


def _save(path: Path, array: Array) -> None:
    saved = io.BytesIO()  # into a file numpy writes by itself, and does not say that a disk is full
    np.save(saved, array, allow_pickle=False)
    with jsonl.replacing(path) as file:
        file.write(saved.getbuffer())


def joined(plan: ReadPlan, chunks: Sequence[Chunk]) -> tuple[Array, Vocabulary, Vocabulary]:
    """(all rows with their lines counted from the file's first, reasons, domains) of chunks that are read."""
    reasons, domains = Vocabulary(), Vocabulary()
    parts = []
    lines_before: dict[int, int] = {}
    for chunk in chunks:
        files = ChunkFiles(plan.folder, chunk.number)
        told, rows = files.told(), np.load(files.rows, allow_pickle=False)
        rows["line"] += lines_before.get(chunk.source, 0)
        lines_before[chunk.source] = lines_before.get(chunk.source, 0) + told["lines"]
        for column, vocabulary, words in (
            ("why", reasons, told["reasons"]),
            ("domain", domains, told["domains"]),
        ):
            if words:
                rows[column] = vocabulary.numbers(words)[rows[column]]
        parts.append(rows)
    return np.concatenate([np.empty(0, ROW), *parts]), reasons, domains


def joined_sketches(plan: ReadPlan, chunks: Sequence[Chunk], of: str, count: int) -> Array:
    """The sketches of all rows, mapped from one file."""
    path = plan.folder / f"all.{of}.sketches"
    with jsonl.replacing(path) as file:
        for chunk in chunks:
            sketches = np.load(ChunkFiles(plan.folder, chunk.number).sketches(of), allow_pickle=False)
            file.write(sketches.tobytes())
    return np.memmap(path, SKETCH, "r", shape=(count,)) if count else np.empty(0, SKETCH)
