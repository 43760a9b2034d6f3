"""The benchmark of one sampling by every engine: what it makes of the rows of two engines."""

from pathlib import Path
from typing import Any

import pytest

from bench.sampling_engines import (
    Done,
    claims,
    command,
    common_prefix,
    compared,
    done,
    kill_one_worker,
    page,
    summary,
    verdict_gap,
)
from r1pipe import jsonl


def row(name: str, text: str = "a b", verdict: str = "pass") -> dict[str, Any]:
    return {"id": name, "completion": text, "verdict": verdict, "tokens": 3}


def of(*rows: dict[str, Any], killed: int = 0) -> Done:
    return Done({each["id"]: each for each in rows}, len(rows), 2.0, 50.0, killed)


def test_the_command_keeps_everything_and_asks_for_so_many(tmp_path: Path) -> None:
    """Of 61 completions the last prompt gets one of its four: the budget says so."""
    words = command(tmp_path, tmp_path / "out", 61, 8, 0.01, "vllm")
    assert words[words.index("--prompts") + 1] == "16" and words[words.index("--budget") + 1] == "61"
    assert words[words.index("--temperature") + 1] == "0.01" and words[words.index("--engine") + 1] == "vllm"
    assert "--set=keep.correct=false" in words and "--set=keep.repeats=true" in words


def test_rows_and_speed_are_read_of_a_finished_job(tmp_path: Path) -> None:
    """Kept and rejected; an id that stands twice is counted twice; a batch without a speed has none."""
    out = tmp_path / "job"
    jsonl.write_rows(out / "part-00000.jsonl", [row("a"), row("b")])
    jsonl.write_rows(out / "rejects.jsonl", [row("b", "c")])
    speeds = [{"generation_tokens_per_second": 10.0}, {}, {"generation_tokens_per_second": 30.0}]
    jsonl.write_rows(tmp_path / "job.run" / "metrics" / "sample.jsonl", speeds)
    found = done(out, 7.0, 1)
    assert (list(found.rows), found.count, found.seconds, found.tokens_per_second, found.killed) == (
        ["a", "b"],
        3,
        7.0,
        20.0,
        1,
    )


def test_all_that_may_differ_is_counted() -> None:
    """One is missing, one new, one there twice; of two in common one text departs after half of its words."""
    one = of(row("a", "1 2 3 4"), row("b"), row("c"))
    other = of(row("a", "1 2 5 6 7"), row("b"), row("e"), row("e"))
    assert compared(one, other) == {
        "missing": 1,
        "added": 1,
        "doubled": 1,
        "same_texts": 0.5,
        "common_prefix": 0.5,
    }
    assert compared(one, one)["common_prefix"] is None
    assert compared(one, of())["same_texts"] is None


@pytest.mark.parametrize(
    ("one", "other", "share"), [("a b", "a b", 1.0), ("a b c", "a", 1.0), ("", "x", 1.0), ("x y", "z y", 0.0)]
)
def test_a_prefix_is_a_share_of_the_shorter(one: str, other: str, share: float) -> None:
    """In words; a text that ends early is whole."""
    assert common_prefix(one, other) == share


def test_a_gap_of_verdicts_is_told_with_its_bound() -> None:
    """50 of 100 and 60 of 100: a tenth, and three errors of sqrt(0.25 / 100 + 0.24 / 100)."""
    gap, bound = verdict_gap({"pass": 50, "fail": 50}, {"pass": 60, "fail": 40})
    assert gap == pytest.approx(0.1) and bound == pytest.approx(3 * 0.07)


def result(ray: Done) -> dict[str, Any]:
    whole = of(row("a"), row("b", verdict="fail"))
    found = {way: {"transformers": whole, "ray": ray} for way in ("drawn", "greedy")}
    machine = {"processor": "x", "cores": 2, "memory_gib": 4, "system": "Linux", "libraries": {}}
    told = {"batch": 8, "left_out": {"vllm": "vLLM is not installed"}, "machine": machine}
    return summary(found, 2) | told


def test_claims_are_held_by_the_same_rows_and_a_kill() -> None:
    """And each is missed by what it is about."""
    assert all(each.held for each in claims(result(of(row("a"), row("b", verdict="fail"), killed=1))))
    lost = {each.text for each in claims(result(of(row("a", "z"), killed=0))) if not each.held}
    assert {
        "ray, drawn: ids missing, added or doubled",
        "ray, drawn: workers killed",
        "ray, drawn: share of equal texts",
    } <= lost


def test_the_page_tells_all_of_it() -> None:
    """Both ways of drawing, what was left out, and every claim."""
    told = page(result(of(row("a"), row("b", "q", "fail"), killed=1)))
    assert "## Temperature 1\n" in told and "## Temperature 0\n" in told
    assert "`vllm` was left out: vLLM is not installed." in told
    assert "| ray | 2 | 0, 0, 0 | 1, 1, 0 | 50 % | 0 % | 50 | 2 s |" in told
    assert "| ray, drawn: share of equal texts | **missed** | 0.5 | >= | 0.99 |" in told


def test_nobody_is_killed_before_there_are_rows(tmp_path: Path) -> None:
    """The wait has an end, and a journal is what it waits for."""
    assert kill_one_worker(tmp_path / "job", 1, 0.05) == 0
    jsonl.write_rows(tmp_path / "job.run" / "work" / "sample" / "shards" / "00000.jsonl", [row("a")])
    assert kill_one_worker(tmp_path / "job", 1, 0.05) == 0  # no worker is there
