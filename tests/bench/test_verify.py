"""The benchmark of verdicts: what it counts, and that both sides are asked about the same rows."""

import json
from pathlib import Path

import pytest

from bench import verify

ROWS = [
    {"gold": "72", "pred": "so it is 72\n#### 72", "equal": True},
    {"gold": "72", "pred": "71 or 72", "equal": False},
    {"gold": "0.0304", "pred": "3.04", "equal": True},
]


def test_score() -> None:
    """A row that nobody could judge agrees with nothing, and is neither of the two mistakes."""
    assert verify.score([True, True, False, False], [True, None, True, False]) == {
        "agreement": 0.5,
        "false_pass": 1,
        "false_fail": 0,
        "undecided": 1,
    }


def test_the_figures_and_their_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every file is judged by both; the page names the rows on which r1pipe and the file differ."""
    for name in verify.FILES:
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    out = tmp_path / "verify.json"
    code = verify.main(["--data", str(tmp_path), "--rounds", "1", "--out", str(out)])
    result = json.loads(out.read_text())
    found = result["files"]["symeval.jsonl"]
    assert found["r1pipe"]["agreement"] == 2 / 3 and found["r1pipe"]["false_fail"] == 1
    assert [one["row"] for one in found["disagreements"] if one["r1pipe"] is not one["equal"]] == [3]
    assert code == int(found["plain"]["agreement"] > found["r1pipe"]["agreement"])
    assert "| symeval.jsonl 3 | `0.0304` | `3.04` | yes |" in out.with_suffix(".md").read_text()
    assert capsys.readouterr().out == out.with_suffix(".md").read_text()
