"""The made-up traces of the benchmark of curation: always the same, and labelled with what is so."""

from collections import Counter
from pathlib import Path

import pytest

from bench import curate_rows
from bench.curate_rows import SHARES, Label, Plan, labels_of, made_up_items, row, write
from r1pipe import jsonl
from r1pipe.curate.contamination import ContaminationIndex, Item
from r1pipe.curate.near import jaccard
from r1pipe.curate.words import read
from r1pipe.measure.language import consistency
from r1pipe.prompting import parse

ROWS = 1500
PLAN = Plan.of(ROWS, 7, made_up_items())


@pytest.fixture(scope="module")
def made() -> list[tuple[jsonl.Row, Label]]:
    """The rows that are whole, with their labels."""
    lines = [row(PLAN, number) for number in range(ROWS)]
    return [(jsonl.loads(line), label) for line, label in lines if label.kind != "torn"]


def _of(made: list[tuple[jsonl.Row, Label]], *kinds: str) -> list[tuple[jsonl.Row, Label]]:
    found = [each for each in made if each[1].kind in kinds]
    assert found
    return found


def test_kinds_and_sizes(made: list[tuple[jsonl.Row, Label]]):
    """The planted kinds come as often as is said, and a trace has 4 to 16 KB on average, with a tail."""
    counts = Counter(label.kind for _, label in made)
    for kind, share in SHARES.items():
        assert abs(counts[kind] - share * ROWS) <= 4 * (share * ROWS) ** 0.5 or kind == "torn"
    sizes = sorted(len(each["completion"]) for each, label in made if label.kind == "clean")
    assert 4_000 < sum(sizes) / len(sizes) < 16_000
    assert sizes[0] < 3_000 and sizes[-1] > 20_000
    assert len({each["id"] for each, _ in made}) == len(made)
    assert {each["task"] for each, _ in made} == set(curate_rows.DOMAINS)


def test_copies_are_copies(made: list[tuple[jsonl.Row, Label]]):
    """Exact ones have the words of a clean row; near ones have the Jaccard index that is said, of both
    texts."""
    clean = {each["id"]: each for each, label in made if label.kind == "clean"}
    for copy, label in _of(made, "exact", "exact-respaced"):
        first = clean[str(label.of)]
        assert (copy["completion"] == first["completion"]) is (label.kind == "exact")
        assert copy["completion"].split() == first["completion"].split()
        assert copy["question"] == first["question"] and copy["problem_id"] == first["problem_id"]
    for copy, label in _of(made, "near"):
        first = clean[str(label.of)]
        texts = [read(f"{each['question']}\n{each['completion']}").hashes for each in (first, copy)]
        assert label.jaccard == round(jaccard(*texts), 4)
        assert 0.8 <= label.jaccard < 0.97


def test_clean_rows_are_unlike(made: list[tuple[jsonl.Row, Label]]):
    """Samples of one problem, and any two rows, are far from near copies, and hold nothing of a benchmark."""
    index = ContaminationIndex(Item("made-up", str(at), text) for at, (_, text) in enumerate(made_up_items()))
    clean = [each for each, _ in _of(made, "clean")][:60]
    words = [read(each["completion"]).hashes for each in clean]
    assert max(jaccard(one, other) for at, one in enumerate(words) for other in words[:at]) < 0.5
    for each in clean:
        assert index.find(read(each["question"]), lines=True) == []
        assert parse(each["completion"], opened=False).thinking
        assert (consistency(each["completion"]) or 0) > 0.95


def test_faults_are_there(made: list[tuple[jsonl.Row, Label]]):
    """What is labelled has the fault: a benchmark's item, two languages, no end, another verdict."""
    texts = {text for _, text in made_up_items()}
    for each, _ in _of(made, "contaminated", "contaminated-short"):
        assert each["question"] in texts
    assert all(len(each["question"].split()) < 13 for each, _ in _of(made, "contaminated-short"))
    for each, _ in _of(made, "contaminated-part"):
        assert any(
            " ".join(text.split()[at : at + 20]) in each["question"] for text in texts for at in range(40)
        )
    for each, _ in _of(made, "mixed"):
        assert (consistency(each["completion"]) or 1) < 0.9
    for each, _ in _of(made, "truncated"):
        assert each["truncated"] and "</think>" not in each["completion"]
    assert {each["verdict"] for each, _ in _of(made, "wrong", "undecided")} == {"fail", "undecided"}


def test_written_alike_by_any_number_of_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The files are those of one process, whatever their number; torn lines are the only ones that do not
    parse."""
    monkeypatch.setattr(curate_rows, "PART_ROWS", 400)
    for processes in (1, 2):
        write(tmp_path / str(processes), ROWS, 7, None, processes)
    names = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert names == [
        "benchmark.jsonl",
        "labels.jsonl",
        "made.json",
        *(f"part-{number:05}.jsonl" for number in range(4)),
    ]
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    rows, bad = jsonl.read_rows(tmp_path / "1")
    kinds = Counter(label.kind for label in labels_of(tmp_path / "1"))
    assert len(rows) + len(bad) == ROWS and len(bad) == kinds["torn"]
