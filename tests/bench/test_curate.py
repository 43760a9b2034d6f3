"""The benchmark of curation: what counts as found, what is claimed, and what the page says."""

import json
from pathlib import Path

import pytest

from bench import curate
from bench.common import Usage
from bench.curate import claims, left, plots, score, steps
from bench.curate_rows import Label, labels_of, made_rows, write
from r1pipe import jsonl

LABELS = [
    Label(1, "a", "exact", "0"),
    Label(2, "b", "exact-respaced", "0"),
    Label(3, "c", "near", "0", 0.83),
    Label(4, "d", "contaminated", "math"),
    Label(5, "e", "torn"),
    Label(9, "f", "near", "0", 0.9),
]


def test_score():
    """A planted row is found when any step takes it; which one is counted, and so are clean rows that go."""
    gone = {
        1: "exact:trace",
        2: "language",
        4: "decontaminate",
        5: "reading",
        6: "near:trace",
        7: "near:trace",
    }
    found = score(LABELS, gone, 9)
    assert found["kinds"]["exact"] == {"planted": 1, "found": 1, "missed": 0, "by_another_step": 0}
    assert found["kinds"]["exact-respaced"] == {"planted": 1, "found": 1, "missed": 0, "by_another_step": 1}
    assert found["kinds"]["near"] == {"planted": 1, "found": 0, "missed": 1, "by_another_step": 0}
    assert found["kinds"]["mixed"]["planted"] == 0
    assert (found["clean"], found["clean_taken"]) == (4, {"near:trace": 2})


def _size(rows: int, **other: object) -> dict[str, object]:
    return {
        **{"rows": rows, "bytes": rows * 8000, "seconds": rows / 1500, "rows_per_second": 1500.0},
        **{"peak_bytes": 2**30, "load_before": 0.1, "left": 3, **score(LABELS, {1: "exact:trace"}, 9)},
        **other,
    }


def test_claims():
    """Each is checked on the largest set; what was not measured is missed."""
    held = {claim.text: claim.held for claim in claims([_size(9), _size(800_000)], {"times_faster": 21.0})}
    assert held == {
        "rows curated": True,
        "minutes for them <= 10": True,
        "GiB of memory at most <= 2": True,
        "exact duplicates found = all": False,
        "near duplicates at Jaccard >= 0.8 found >= 95 %": False,
        "exact contamination found = all": False,
        "clean rows taken <= 0.5 %": True,
        "times faster than datatrove and a plain decontamination >= 20": True,
    }
    assert not any(claim.held for claim in claims([], None))
    slow = claims([_size(800_000, seconds=601.0, peak_bytes=0)], {"times_faster": 19.9})
    assert [claim.held for claim in slow[1:3]] == [False, False] and not slow[-1].held


def test_rows_by_number(tmp_path: Path):
    """The ledger tells a file and a line, which are the number of a row."""
    rows = [
        {"source": "in/part-00002.jsonl", "line": 5, "name": "correct"},
        {"source": "part-00000.jsonl", "line": 1, "name": "x"},
    ]
    jsonl.write_rows(tmp_path / "deep" / "ledger.jsonl", rows)
    assert left(tmp_path) == {20_004: "correct", 0: "x"}


def test_all_of_it_on_a_few_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """From made rows to a page, with a curation that finds all that is planted and takes one clean row."""
    seen = []

    def curated(rows: Path, out: Path, benchmarks: list[Path]) -> Usage:
        seen.append((len(jsonl.read_rows(rows)[0]), [path.name for path in benchmarks]))
        labels = {
            label.number: curate.STEPS[label.kind][0]
            for label in labels_of(tmp_path / "work" / "rows-of-seed-0")
        }
        gone = {**labels, 0: "language"}
        count = sum(part.read_bytes().count(b"\n") for part in rows.glob("part-*"))
        ledger = [
            {"source": "part-00000.jsonl", "line": number + 1, "name": step} for number, step in gone.items()
        ]
        jsonl.write_rows(out / "ledger.jsonl", [row for row in ledger if row["line"] <= count])
        return Usage(count / 2000, 2**20 * count, 0)

    monkeypatch.setattr(curate, "curated", curated)
    out = tmp_path / "curate.json"
    options = ["--rows", "400", "200", "--sample", "0", "--processes", "1", "--data", str(tmp_path)]
    code = curate.main([*options, "--work", str(tmp_path / "work"), "--out", str(out)])
    result = json.loads(out.read_text())
    assert code == 1 and [size["rows"] for size in result["sizes"]] == [200, 400]
    assert all(
        abs(count - size) < 5 and names == ["benchmark.jsonl"]
        for (count, names), size in zip(seen, (200, 400), strict=True)
    )
    for size in result["sizes"]:
        assert all(kind["found"] == kind["planted"] for kind in size["kinds"].values())
        assert size["clean_taken"] == {"language": 1}
    page = out.with_suffix(".md").read_text()
    assert "| exact duplicates found = all | held | 1 | >= | 1 |" in page
    assert "clean rows taken: 1 by language." in page
    assert capsys.readouterr().out == page
    assert "<path" in (tmp_path / "curate-time.svg").read_text()


def test_steps_are_those_that_are_scored(tmp_path: Path):
    """Every step that may take a planted row is in the recipe, under the name that the ledger has."""
    names = {"reading"}
    for step in steps([tmp_path / "b.jsonl"]):
        names.add(
            step if isinstance(step, str) else f"{step['name']}{':' + step['of'] if 'of' in step else ''}"
        )
    assert {step for each in curate.STEPS.values() for step in each} <= names


def test_plots_are_over_rows():
    """One line each, of seconds and of MiB."""
    drawn = plots([_size(50_000), _size(200_000)])
    assert sorted(drawn) == ["curate-memory.svg", "curate-time.svg"]
    assert all(name in drawn["curate-time.svg"] for name in ("Seconds over rows", "<svg"))


def test_rows_are_made_anew_when_there_are_too_few(tmp_path: Path):
    """A smaller set that was left does not pass for a larger one, nor does one that was not finished."""
    assert made_rows(tmp_path) == 0
    write(tmp_path, 30, 0, None, 1)
    assert made_rows(tmp_path) == 30
