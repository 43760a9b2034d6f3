"""What became of every row: the counts, which add up, and a line for each row that was not kept."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from r1pipe import jsonl
from r1pipe.curate.reading import ChunkFiles, ReadPlan
from r1pipe.curate.shards import Lines
from r1pipe.curate.sources import Chunk, Source
from r1pipe.curate.steps import Step
from r1pipe.curate.table import NOBODY, READING, STAYS, Table

LONGEST_TEXT: Final = 1 << 20
"""Bytes of a row that are kept of one that is set aside."""


@dataclass(frozen=True, slots=True)
class StepCounts:
    """What a step has done."""

    step: int
    name: str
    seen: int
    """Rows that it saw, those that came in with it included."""
    joined: int
    """Rows that came in with it."""
    rejected: dict[str, int] = field(default_factory=dict)
    """By reason, the commonest first."""
    set_aside: dict[str, int] = field(default_factory=dict)

    @property
    def kept(self) -> int:
        """Rows that it left."""
        return self.seen - sum(self.rejected.values()) - sum(self.set_aside.values())

    @property
    def as_json(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "step": self.step,
            "name": self.name,
            "seen": self.seen,
            "joined": self.joined,
            "rejected": self.rejected,
            "set_aside": self.set_aside,
            "kept": self.kept,
        }


def counts(table: Table, names: Sequence[str]) -> list[StepCounts]:
    """What each step has done, the reading first; `names` are those of all, that of the reading included.

    Raises `AssertionError` where a row is lost or counted twice.
    """
    # What is set aside by the reading is counted there, whenever its file comes in.
    joins = np.where(table.left == READING, READING, table.joins[table.rows["source"]])
    words, told = table.reasons.words, list[StepCounts]()
    left = 0
    for number, name in enumerate(names):
        joined = int((joins == number).sum())
        gone = table.left == number
        by_reason = [
            {words[why]: count for why, count in Counter(table.why[which].tolist()).most_common()}
            for which in (gone & ~table.aside, gone & table.aside)
        ]
        told.append(StepCounts(number, name, left + joined, joined, *by_reason))
        left = told[-1].kept
    everything = sum(sum(step.rejected.values()) + sum(step.set_aside.values()) for step in told)
    kept = int((table.left == STAYS).sum())
    assert left == kept, f"{left} rows are left after the steps, and {kept} stayed"
    assert kept + everything == len(table.rows), f"{kept} + {everything} rows of {len(table.rows)}"
    return told


def step_names(steps: Sequence[Step]) -> list[str]:
    """What the steps are called in counts and in the ledger: by what they look at, where that tells more."""
    return [
        "reading",
        *(f"{step.name}:{of}" if (of := getattr(step, "of", None)) else step.name for step in steps),
    ]


def write(
    table: Table, names: Sequence[str], chunks: Sequence[Chunk], plan: ReadPlan, folder: Path, ending: str
) -> int:
    """Write the ledger into a folder, and beside it the rows that are set aside; return the ledger's lines.

    It has {id, source, line, step, name, reason, evidence} of each row that was not kept. `ending` is
    `.jsonl` or `.jsonl.zst`.
    """
    ledger, aside, sources = folder / f"ledger{ending}", folder / f"set-aside{ending}", plan.sources
    lines, reader = 0, Lines(sources)
    words = table.reasons.words
    with jsonl.replacing(ledger) as out, jsonl.replacing(aside) as kept_aside:
        for row, name, evidence in _left(table, chunks, plan.folder):
            step = int(table.left[row])
            found = table.rows[row]
            source = sources[int(found["source"])]
            entry = {
                "id": name,
                "source": source.label,
                "line": int(found["line"]),
                "step": step,
                "name": names[step],
                "reason": words[int(table.why[row])],
                "evidence": evidence if found["lost"] == step else _because(table, row, sources),
            }
            out.write(jsonl.dumps(entry) + b"\n")
            lines += 1
            if table.aside[row]:
                length = min(int(found["length"]), LONGEST_TEXT)
                text = reader.at(int(found["source"]), int(found["offset"]), length)
                kept_aside.write(jsonl.dumps(_set_aside(entry, text)) + b"\n")
    if not table.aside.any():
        aside.unlink()
    return lines


def _left(table: Table, chunks: Sequence[Chunk], folder: Path) -> Iterator[tuple[int, str | None, Any]]:
    """(row, its id, what was noted when it was read) of each row that was not kept."""
    row = 0
    for chunk in chunks:
        for name, evidence, _ in ChunkFiles(folder, chunk.number).read_notes():
            if table.left[row] != STAYS:
                yield row, name, evidence
            row += 1


def _because(table: Table, row: int, sources: Sequence[Source]) -> dict[str, Any] | None:
    """What a step that looks at many rows has to show."""
    told: dict[str, Any] = {}
    if (other := int(table.other[row])) != NOBODY:
        found = table.rows[other]
        told |= {"kept_source": sources[int(found["source"])].label, "kept_line": int(found["line"])}
    if not np.isnan(value := float(table.value[row])):
        told["value"] = round(value, 3)
    return told or None


def _set_aside(entry: dict[str, Any], line: bytes) -> dict[str, Any]:
    text = line.decode("utf-8", "replace").rstrip("\r\n")
    told = {"path": entry["source"], "line": entry["line"], "reason": entry["reason"], "text": text}
    return {**told, "evidence": entry["evidence"]} if entry["step"] != READING or entry["evidence"] else told
