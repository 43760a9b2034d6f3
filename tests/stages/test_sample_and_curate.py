"""The stages that make a set of traces, one after the other: what `sample` writes is what `curate` reads."""

from pathlib import Path
from typing import Any, get_args

import pytest

from r1pipe import jsonl
from r1pipe.curate.exports import Form, export
from r1pipe.curate.traces import validated
from r1pipe.manifest import Cost, FileEntry, Manifest
from r1pipe.measure.volume import rates_of, volume
from r1pipe.stage import Outcome
from tests.curate.test_traces import sampled, trace
from tests.curating import kept, ledger, write
from tests.curating import run as curate
from tests.folders import manifest
from tests.stages.test_sample import ANYTHING, four_ways, scripted
from tests.stages.test_sample import run as sample

RIGHT = "5 * 6 = 30 </think> <answer> 30 </answer>"


def sampling(tiny: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Outcome:
    """Four completions of each of four prompts: right, wrong, cut off, without form."""
    scripted(monkeypatch, four_ways)
    return sample(tiny, folder, samples=4, **options)[0]


@pytest.fixture
def traces(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """All of them, as they are."""
    return sampling(tiny, tmp_path / "traces", monkeypatch, keep=ANYTHING)


def test_the_usual_steps_need_no_columns(traces: Outcome, tmp_path: Path) -> None:
    """Every row leaves for what its own columns say of it; what stays is in the file byte by byte and valid
    still; tokens are counted, not estimated, and the task is the domain."""
    outcome, _ = curate(tmp_path / "curated", traces.path)
    lines = (traces.path / "part-00000.jsonl").read_bytes().splitlines()
    rows = [jsonl.loads(line) for line in lines]
    assert [row["verdict"] for row in rows].count("pass") == 4 < len(rows)
    assert {each["line"]: each["reason"] for each in ledger(outcome)} == {
        line: "truncated" if row["truncated"] else f"wrong: {row['reason']}"
        for line, row in enumerate(rows, start=1)
        if row["verdict"] != "pass"
    }
    right = [line for line, row in zip(lines, rows, strict=True) if row["verdict"] == "pass"]
    assert (outcome.path / "part-00000.jsonl").read_bytes().splitlines() == right
    assert [validated(row)["verdict"] for row in kept(outcome)] == ["pass"] * 4
    assert outcome.metrics["tokens"] == sum(row["tokens"] for row in kept(outcome))
    assert outcome.card is not None
    assert "| countdown |" in outcome.card.text and "estimated" not in outcome.card.text


def test_either_column_says_that_a_row_was_cut_off(tmp_path: Path) -> None:
    """`finish_reason` alone is enough."""
    row = {**trace(sampled(text=RIGHT, truncated=True)), "truncated": None}
    outcome, _ = curate(
        tmp_path / "run", write(tmp_path / "a.jsonl", [row, trace(sampled(sample=1))]), steps=["truncated"]
    )
    assert [(each["line"], each["reason"]) for each in ledger(outcome)] == [(1, "truncated")]


@pytest.mark.parametrize(("most", "left"), [(0.25, {2}), (0.2, {1, 2})])
def test_the_pass_rate_is_the_rows_own(tmp_path: Path, most: float, left: set[int]) -> None:
    """Over all that was sampled, not over what is there; where none was decided the rows are counted."""
    rates = [(0.25, 4, 1), (None, 0, 0), (0.0, 3, 0)]
    names = ("pass_rate", "pass_rate_samples", "pass_rate_passed")
    rows = [
        {**trace(sampled(text=RIGHT, problem=f"p{number}")), **dict(zip(names, rate, strict=True))}
        for number, rate in enumerate(rates)
    ]
    steps = [{"name": "pass-rate", "at_most": most}]
    outcome, _ = curate(tmp_path / "run", write(tmp_path / "a.jsonl", rows), steps=steps)
    assert {each["line"] for each in ledger(outcome)} == left


def test_a_verdict_given_anew_stands_in_the_rows_own_columns(tmp_path: Path) -> None:
    """And a row whose id another input has is renamed: both are valid rows still."""
    rows = [{**trace(sampled(text=RIGHT)), "gold": gold, "verdict": "undecided"} for gold in ("30", "31")]
    files = [write(tmp_path / f"{name}.jsonl", [row]) for name, row in zip("ab", rows, strict=True)]
    outcome, _ = curate(tmp_path / "run", *files, steps=["verify"])
    one, two = map(validated, kept(outcome))
    assert (one["verdict"], one["answer"], one["verifier"]) == ("pass", "30", "math")
    assert (two["id"], two["verdict"]) == (f"{one['id']}@b.jsonl", "fail")


@pytest.mark.parametrize("form", get_args(Form))
def test_exports_of_what_is_curated(traces: Outcome, tmp_path: Path, form: Form) -> None:
    """Our rows, a mapped one and a conversation, and what was split off by itself."""
    others = [
        ({"q": "1 + 1?", "a": "2", "gold": "2"}, {"prompt": "q", "completion": "a", "template": "r1-zero"}),
        ({"talk": [{"from": "human", "value": "1"}, {"from": "gpt", "value": "2"}], "right": 2},
         {"messages": "talk", "gold": "right"}),
    ]  # fmt: skip
    mixes = [
        {"name": "mix", "data": str(write(tmp_path / f"{number}.jsonl", [row])), "columns": columns}
        for number, (row, columns) in enumerate(others[: 1 if form == "prompt-completion" else 2])
    ]
    steps = ["correct", *mixes]
    outcome, _ = curate(tmp_path / "run", traces.path, steps=steps, validation=0.5)
    for split in ("part", "validation"):
        out = tmp_path / f"{split}.jsonl"
        assert export(outcome.path, form, out, validation=split == "validation") == len(kept(outcome, split))
    made = [row for split in ("part", "validation") for row in jsonl.iter_rows(tmp_path / f"{split}.jsonl")]
    assert len(made) == 4 + len(mixes)
    mapped = {
        "prompt-completion": lambda row: row["completion"] == " 2" and row["prompt"].endswith("Assistant:"),
        "messages": lambda row: [turn["content"] for turn in row["messages"]] == ["1 + 1?", "2"],
        "sharegpt": lambda row: [turn["value"] for turn in row["conversations"]] == ["1 + 1?", "2"],
        "openr1": lambda row: (row["uuid"], row["answer"], row["generations"]) == ("1 + 1?", "2", ["2"]),
    }
    assert len([row for row in made if mapped[form](row)]) == 1


@pytest.mark.parametrize("keep", [{}, ANYTHING])
def test_the_volume_of_both(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: dict[str, Any]
) -> None:
    """Read off the metrics as the stages write them: four traces are 16 completions of four prompts again,
    whichever of the two stages takes out what is not right."""
    traces = sampling(tiny, tmp_path / "traces", monkeypatch, keep=keep)
    curated, _ = curate(tmp_path / "run", traces.path)
    rates = rates_of([_manifest("curate", curated), _manifest("sample", traces)])
    found = volume(4, rates)
    assert (found.completions, found.prompts, rates.measured_on) == (16, 4, 16)
    assert found.tokens == pytest.approx(traces.metrics["tokens"])


def _manifest(verb: str, outcome: Outcome) -> Manifest:
    """As a stage's worker writes it."""
    files = [
        FileEntry(path=each.name, size=each.stat().st_size, sha256="0" * 64)
        for each in outcome.path.iterdir()
    ]
    told = {"verb": verb, "metrics": outcome.metrics, "files": tuple(files), "config": {"samples": 4}}
    cost = Cost(seconds=2.0, cpu_seconds=1.0, tokens=outcome.tokens)
    return manifest(verb, kind="dataset").model_copy(update={**told, "cost": cost})
