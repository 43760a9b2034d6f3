"""A whole curation: its counts add up, and it does what its steps do one after another."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1pipe import jsonl
from r1pipe.curate import curation, sources
from r1pipe.curate.finding import Fault
from r1pipe.curate.mapping import Columns, Trace, read_trace
from r1pipe.curate.near import jaccard
from r1pipe.curate.step import Alone, Step
from r1pipe.curate.words import read
from r1pipe.errors import RunFailed
from r1pipe.verify.verdict import Mark
from stages import curate
from tests.curating import entries, kept, ledger, row, run, write

# --- The same in the simplest way


@dataclass
class Read:
    """A row that is a trace."""

    line: int
    trace: Trace


Gone = dict[int, tuple[int, str]]
"""By its line, the step and the reason of a row that is not kept."""


def one_after_another(lines: Sequence[bytes], steps: Sequence[Step]) -> tuple[list[int], Gone]:
    """(lines that are kept, what became of the others): lists, and every step on what is left."""
    left: list[Read] = []
    gone: Gone = {}
    ids: set[str] = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        found = jsonl.parse_row(line)
        if isinstance(found, str) and not _is_text(line):
            found = "not UTF-8"
        trace = read_trace(found, Columns()) if isinstance(found, dict) else found
        if isinstance(trace, str):
            gone[number] = 0, trace.partition(" (")[0].partition("; the row has")[0]
        elif trace.id in ids:
            gone[number] = 0, "duplicate id"
        else:
            ids |= {trace.id} if trace.id is not None else set()
            left.append(Read(number, trace))
    everything = list(left)
    for number, step in enumerate(steps, start=1):
        reasons = _reasons(step, left, everything)
        gone |= {each.line: (number, reason) for each, reason in zip(left, reasons, strict=True) if reason}
        left = [each for each, reason in zip(left, reasons, strict=True) if not reason]
    return [each.line for each in left], gone


def _is_text(line: bytes) -> bool:
    try:
        return "\0" not in line.decode()
    except UnicodeDecodeError:
        return False


def _reasons(step: Step, rows: list[Read], everything: list[Read]) -> list[str | None]:
    if isinstance(step, Alone):
        found = [step.look([])(each.trace) for each in rows]
        return [each.reason if isinstance(each, Fault) else None for each in found]
    together: dict[str, Callable[[Any, list[Read], list[Read]], list[str | None]]] = {
        "exact": _exact,
        "near": _near,
        "cap": _cap,
        "pass-rate": _pass_rate,
    }
    return together[step.name](step, rows, everything)


def _problem(each: Read) -> Any:
    return each.trace.problem or ("question", read(each.trace.question).exact)


def _exact(step: Any, rows: list[Read], _: list[Read]) -> list[str | None]:
    first: dict[Any, Any] = {}
    found: list[str | None] = []
    for each in rows:
        question, trace = read(each.trace.question).exact, read(each.trace.completion).exact
        key, stands = (question, _problem(each)) if step.of == "question" else ((question, trace), each.line)
        found.append(None if first.setdefault(key, stands) == stands else f"duplicate {step.of}")
    return found


def _near(step: Any, rows: list[Read], _: list[Read]) -> list[str | None]:
    words = [read(f"{each.trace.question} \n {each.trace.completion}").hashes for each in rows]
    stands = list(range(len(rows)))
    for one in range(len(rows)):
        for other in range(one):
            if jaccard(words[one], words[other]) >= step.threshold:
                a, b = sorted((stands[one], stands[other]))
                stands = [a if each == b else each for each in stands]
    return [None if place == number else "near-duplicate trace" for number, place in enumerate(stands)]


def _cap(step: Any, rows: list[Read], _: list[Read]) -> list[str | None]:
    chosen: set[int] = set()
    for problem in {_problem(each) for each in rows}:
        mine = [each for each in rows if _problem(each) == problem]
        mine.sort(key=lambda each: each.trace.tokens if step.prefer == "shortest" else each.line)
        chosen |= {each.line for each in mine[: step.count]}
    reason = f"not among the {step.prefer} {step.count} of its problem"
    return [None if each.line in chosen else reason for each in rows]


def _pass_rate(step: Any, rows: list[Read], everything: list[Read]) -> list[str | None]:
    found: list[str | None] = []
    for each in rows:
        marks = [other.trace.verdict for other in everything if _problem(other) == _problem(each)]
        decided = [mark is Mark.PASS for mark in marks if mark in (Mark.PASS, Mark.FAIL)]
        rate = sum(decided) / len(decided) if decided else None
        easy = rate is not None and rate > step.at_most
        found.append(
            "too easy" if easy else "too hard" if rate is not None and rate < step.at_least else None
        )
    return found


# --- Wild rows

WORDS = ("red", "blue", "wait", "so", "the sum is", "7", "x + 1", "x - 1", "mais oui", "因此", "\n\n", "```")
TEXTS = st.lists(st.sampled_from(WORDS), min_size=0, max_size=30).map(" ".join)
COMPLETIONS = st.builds(
    lambda thinking, answer, closed: f"{thinking} {closed} <answer> {answer} </answer>",
    TEXTS,
    st.sampled_from(("7", "8", "")),
    st.sampled_from(("</think>", "")),
)
ROWS = st.fixed_dictionaries(
    {
        "id": st.integers(0, 30).map(str),
        "prompt": st.sampled_from(("one <think>", "two <think>", "One  <think>", "three")),
        "completion": COMPLETIONS | st.sampled_from(("7 </think> <answer> 7 </answer>", "")),
        "verdict": st.sampled_from(("pass", "pass", "fail", "undecided", None, "odd")),
        "reason": st.sampled_from(("", "wrong answer")),
        "tokens": st.integers(0, 9) | st.none() | st.just("many"),
        "truncated": st.sampled_from((True, False, False)),
    },
    optional={
        "problem_id": st.sampled_from(("a", "b", "c", "d")),
        "question": st.sampled_from(("one?", "two?")),
    },
)
WHOLE = st.one_of(ROWS.map(jsonl.dumps), ROWS.map(jsonl.dumps), ROWS.map(jsonl.dumps))
BROKEN = st.sampled_from(
    (b"", b"  ", b"[1, 2]", b'{"prompt": "a"', b"\xff\xfe", b"null", b'{"id": "1"}', b"{}")
)
LINES = st.lists(WHOLE | BROKEN, min_size=1, max_size=25).filter(any)
STEPS = st.lists(
    st.sampled_from(
        (
            "truncated",
            "correct",
            "format",
            {"name": "format", "form": "thinking"},
            "readability",
            {"name": "language", "at_least": 0.8},
            {"name": "length", "at_least": 2, "at_most": 7},
            "exact",
            {"name": "exact", "of": "question"},
            "near",
            {"name": "cap", "count": 1},
            {"name": "cap", "count": 2, "prefer": "first"},
            {"name": "pass-rate", "at_least": 0.3, "at_most": 0.9},
        )
    ),
    max_size=6,
)


@given(LINES, STEPS, st.booleans())
@settings(max_examples=150, deadline=None)
def test_steps_run_one_after_another(lines: list[bytes], names: list[Any], ends: bool) -> None:
    """Whatever the rows and the order: the same rows are kept, and each other one left with the same step for
    the same reason, as when lists are filtered one step after another. The counts add up, and the ledger has
    a line for each row that is not kept, also where none is."""
    steps = curate.Config(data=["a"], steps=names).steps
    expected, gone = one_after_another(lines, steps)
    text = b"\n".join(lines) + (b"\n" if ends else b"")
    with TemporaryDirectory() as folder:
        file = write(Path(folder) / "rows.jsonl", [text])
        if not expected:
            with pytest.raises(RunFailed, match="No row is kept"):
                run(Path(folder) / "run", file, steps=names)
            left = entries(Path(folder) / "run")
            assert {each["line"]: (each["step"], each["reason"]) for each in left} == gone
            return
        outcome, _ = run(Path(folder) / "run", file, steps=names)
        left = ledger(outcome)
        assert {each["line"]: (each["step"], each["reason"]) for each in left} == gone
        assert len(left) == len(gone)
        published = [json.loads(lines[line - 1]) for line in expected]
        assert kept(outcome) == [{**each, "id": each["id"]} for each in published]
        metrics = outcome.metrics
        assert (
            metrics["input"]
            == len(expected) + len(gone)
            == metrics["kept"] + metrics["rejected"] + metrics["set_aside"]
        )
        for told in metrics["steps"]:
            mine = [reason for step, reason in gone.values() if step == told["step"]]
            assert Counter(mine) == Counter(told["rejected"]) + Counter(told["set_aside"])
            assert told["seen"] - len(mine) == told["kept"]


# --- However it is cut and shared out


def rows(count: int) -> list[dict[str, Any]]:
    """Rows of which some are wrong, some are cut off, and every tenth comes again under another id."""
    made = [
        row(
            number // 2,
            id=f"r{number}",
            verdict="fail" if number % 7 == 0 else "pass",
            truncated=number % 11 == 0,
        )
        for number in range(count)
    ]
    return made + [{**each, "id": f"{each['id']} again"} for each in made[::10]]


def files(outcome: Any) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in outcome.path.iterdir()}


def test_the_result_does_not_depend_on_chunks_and_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks of a few hundred bytes, and two processes: the same files, byte for byte, and counts."""
    data = write(tmp_path / "rows.jsonl", rows(120))
    options = {"steps": ["truncated", "correct", "exact", "near"], "shard_rows": 13, "validation": 0.1}
    whole, _ = run(tmp_path / "whole", data, **options)
    monkeypatch.setattr(curation, "CHUNK", 700)
    cut, _ = run(tmp_path / "cut", data, **options)
    shared, _ = run(tmp_path / "shared", data, **options, workers=2)
    assert len(list((tmp_path / "cut" / "read").glob("chunk-*.json"))) > 50
    assert files(whole) == files(cut) == files(shared)
    assert whole.metrics == cut.metrics == shared.metrics
    assert whole.card == cut.card == shared.card
    assert whole.metrics["rejected"] > 20


@given(st.lists(st.text(alphabet="ab", max_size=12), max_size=30), st.integers(1, 40), st.booleans())
def test_every_line_is_in_one_chunk(lines: list[str], size: int, ends: bool) -> None:
    """However a file is cut, its lines come once and in order, with their places."""
    with TemporaryDirectory() as folder:
        text = "\n".join(lines) + ("\n" if ends else "")
        file = write(Path(folder) / "a.jsonl", [text.encode()])
        (source,) = sources.sources([(file, Columns(), 0)])
        found = [
            each
            for chunk in sources.chunks([source], size)
            for each in sources.lines(file, chunk.begin, chunk.end)
        ]
        assert b"".join(line or b"" for _, _, line in found) == text.encode()
        assert [line for _, _, line in found] == text.encode().splitlines(keepends=True)
        assert all(text.encode()[at : at + length] == line for at, length, line in found)


def test_a_line_that_is_too_long(tmp_path: Path) -> None:
    """It is passed over without being held, and the next line begins where it should."""
    file = write(tmp_path / "a.jsonl", [b"short\n", b"x" * 3_000_000 + b"\n", b"end"])
    found = list(sources.lines(file, 0, 10**9, longest=100))
    assert found == [(0, 6, b"short\n"), (6, 3_000_001, None), (3_000_007, 3, b"end")]
