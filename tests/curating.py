"""Rows and curations small enough for tests."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from r1pipe import jsonl
from r1pipe.artifact import open_dataset
from r1pipe.stage import Inputs, Outcome, references
from stages import curate
from tests.tiny_model import Ear, workplace

THOUGHT = "First we add the two numbers, then we look at what is left over and check it once more."


def row(number: int, **other: Any) -> dict[str, Any]:
    """A right trace of a problem of its own, in the shape that `sample` writes."""
    return {
        "id": f"p{number}#0",
        "problem_id": f"p{number}",
        "sample": 0,
        "task": "math",
        "question": f"What is {number} and {number + 1} together?",
        "gold": str(2 * number + 1),
        "reasoning": True,
        "opened": True,
        "prompt": f"User: What is {number} and {number + 1} together? Assistant: <think>",
        "completion": f"{THOUGHT} {number} </think> <answer> {2 * number + 1} </answer>",
        "tokens": 30,
        "truncated": False,
        "verdict": "pass",
        "reason": "",
        "answer": str(2 * number + 1),
        **other,
    }


def write(path: Path, rows: Sequence[dict[str, Any] | bytes]) -> Path:
    """A file of rows; bytes stand there as they are, without a newline added."""
    lines = [each if isinstance(each, bytes) else jsonl.dumps(each) + b"\n" for each in rows]
    path.write_bytes(b"".join(lines))
    return path


def run(folder: Path, *data: Path, seed: int = 0, **config: Any) -> tuple[Outcome, Ear]:
    """Curate files, by one process unless told otherwise."""
    made = curate.Config.model_validate({"data": [str(path) for path in data], "workers": 1, **config})
    given: dict[str, list[Any]] = {}
    for reference in references(made):
        given.setdefault(reference.role, []).append((reference.value, open_dataset(reference.value)))
    work, ear = workplace(folder, seed)
    return curate.run(made, Inputs(given), work), ear


def kept(outcome: Outcome, split: str = "part") -> list[dict[str, Any]]:
    """The rows of a split."""
    files = sorted(outcome.path.glob(f"{split}-*"))
    return [each for file in files for each in jsonl.iter_rows(file)]


def ledger(outcome: Outcome) -> list[dict[str, Any]]:
    """The lines of the ledger."""
    return entries(outcome.path)


def entries(folder: Path) -> list[dict[str, Any]]:
    """The lines of the one ledger in a folder."""
    (file,) = folder.rglob("ledger.jsonl*")
    return list(jsonl.iter_rows(file)) if file.stat().st_size else []
