"""The benchmark of sampling: what it reads of a job that was killed, and what it makes of two jobs."""

from pathlib import Path
from typing import Any

import pytest

from bench.sampling import State, command, comparison, grown, held, page, state_of, work_of
from r1pipe import jsonl


def row(name: str, text: str = "x") -> dict[str, Any]:
    return {"trace_id": name, "completion": text}


def test_how_far_a_job_is(tmp_path: Path) -> None:
    """Six of a finished shard, whose journal a kill has left, and five of a begun one: one is of a batch that
    is not whole, and half a line is no row."""
    jsonl.write_json(tmp_path / "00000" / "shard.json", {"generated": 6})
    jsonl.write_rows(tmp_path / "00000.jsonl", [{"tokens": 1}] * 6)
    jsonl.write_rows(tmp_path / "00001.jsonl", [{"tokens": count} for count in (1, 2, 3, 4, 50)])
    with open(tmp_path / "00001.jsonl", "ab") as file:
        file.write(b'{"tokens": 7')
    assert state_of(tmp_path, 4) == State(completions=11, shards=1, begun=1, begun_tokens=50)
    assert state_of(tmp_path / "nothing", 4) == State(0, 0, 0, 0)


def test_whatever_is_written_shows(tmp_path: Path) -> None:
    """A line more, and a shard that is finished, though its journal is gone."""
    sizes = [grown(tmp_path)]
    jsonl.write_rows(tmp_path / "00000.jsonl", [{"tokens": 1}])
    sizes.append(grown(tmp_path))
    (tmp_path / "00000.jsonl").unlink()
    (tmp_path / "00000").mkdir()
    sizes.append(grown(tmp_path))
    assert sizes == sorted(set(sizes))


def test_all_that_may_be_wrong_is_counted() -> None:
    """One is missing, one is new, one is there twice, one has another text."""
    whole = [row("a"), row("b"), row("c"), row("d")]
    same = {"rows": 4, "missing": 0, "added": 0, "doubled": 0, "other_texts": 0}
    assert comparison(whole, list(reversed(whole))) == same
    broken = [row("a"), row("a"), row("b", "y"), row("c"), row("e")]
    assert comparison(whole, broken) == {
        "rows": 5,
        "missing": 1,
        "added": 1,
        "doubled": 1,
        "other_texts": 1,
    }


def result(made_again: int = 3, **compared: int) -> dict[str, Any]:
    kill = {"generating": True, "made_again": made_again, "tokens_again": 90}
    same = {"rows": 100, "missing": 0, "added": 0, "doubled": 0, "other_texts": 0}
    return {
        "completions": 100,
        "tokens": 9000,
        "batch": 8,
        "shards": 2,
        "seconds": 12.3,
        "kills": [kill, {**kill, "generating": False, "made_again": 0, "tokens_again": 0}],
        "compared": {**same, **compared},
        "same_bytes": True,
        "overhead": {
            "completions": 64,
            "bare_seconds": [10.0, 10.0],
            "verified_seconds": [10.2, 10.4],
            "adds": 0.03,
            "adds_each": [0.02, 0.04],
        },
        "machine": {
            "processor": "P",
            "cores": 2,
            "memory_gib": 8.0,
            "system": "Linux",
            "libraries": {"torch": "2.13.0"},
        },
    }


def test_the_page_tells_what_was_found() -> None:
    """Kills, rows, what was made again, and what verifying adds."""
    text = page(result())
    assert "| rows at the end | 100 of 100 |" in text
    assert "| of those, while completions came | 1 |" in text
    assert "| their tokens | 90 (1 % of the job's) |" in text
    assert "on one thread: 3 % (median)" in text and "| added | 2 % | 4 % |" in text


@pytest.mark.parametrize(
    ("changes", "whole"),
    [
        ({}, True),
        ({"made_again": 8}, True),
        ({"made_again": 9}, False),
        ({"rows": 99}, False),
        ({"missing": 1}, False),
        ({"added": 1}, False),
        ({"doubled": 1}, False),
        ({"other_texts": 1}, False),
    ],
)
def test_when_it_fails(changes: dict[str, int], whole: bool) -> None:
    """On anything that differs, and on a kill that cost more than a batch."""
    assert held(result(**changes)) is whole


def test_the_job_keeps_whatever_is_written(tmp_path: Path) -> None:
    """So that every completion is compared; its work lies beside its output."""
    words = command(Path("m"), tmp_path / "out", 5000, 64, 4)
    assert words[words.index("--prompts") + 1] == "1250"
    assert "--set=keep.correct=false" in words
    assert work_of(tmp_path / "out") == tmp_path / "out.run" / "work" / "sample" / "shards"
