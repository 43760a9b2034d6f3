"""The sandbox's benchmark on two rows: what a wrong program is, and that verdicts are compared."""

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bench import sandbox
from tests.tasks.test_exercises import HUMANEVAL, MBPP


def test_wrong_programs_differ_in_one_spot() -> None:
    """Each spot that can be changed is, once, from the given line on."""
    program = "a = 1\nif a < 2 and True:\n    a += 3\ndef f():\n    return a * -a"
    assert list(sandbox.changed(program, first_line=2)) == [
        "a = 1\nif a < 2 or True:\n    a += 3\n\ndef f():\n    return a * -a",
        "a = 1\nif a < 2 and True:\n    a -= 3\n\ndef f():\n    return a * -a",
        "a = 1\nif a < 2 and True:\n    a += 3\n\ndef f():\n    return None",
        "a = 1\nif a >= 2 and True:\n    a += 3\n\ndef f():\n    return a * -a",
        "a = 1\nif a < 2 and False:\n    a += 3\n\ndef f():\n    return a * -a",
        "a = 1\nif a < 2 and True:\n    a += 4\n\ndef f():\n    return a * -a",
        "a = 1\nif a < 2 and True:\n    a += 3\n\ndef f():\n    return a + -a",
        "a = 1\nif a < 3 and True:\n    a += 3\n\ndef f():\n    return a * -a",
    ]


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_the_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row whose solution fails its own tests is named; a verdict that is off makes the exit code 1."""
    odd: dict[str, Any] = {**MBPP, "task_id": 7, "code": "def double(x, y): return 0"}
    (tmp_path / "a.jsonl").write_text(json.dumps({**HUMANEVAL, "task_id": "a/1"}))
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps(row) for row in (odd, {**MBPP, "task_id": 8})))
    monkeypatch.setattr(sandbox, "SETS", (("A", "a.jsonl", 5), ("B", "b.jsonl", 1)))
    arguments = ["--data", str(tmp_path), "--rounds", "2", "--out", str(tmp_path / "out.json")]
    assert sandbox.main(arguments) == 0
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["left_out"] == {"A": [], "B": ["7"]}
    for both in result["sets"].values():
        assert (both["right"]["pass"], both["right"]["programs"], both["wrong"]["fail"]) == (1, 1, 1)
    assert "| B, wrong | 1 | 0 | 1 | 0 |" in capsys.readouterr().out
    monkeypatch.setattr(sandbox, "changed", lambda program, first_line: [program])
    answers = itertools.cycle([True, False])
    monkeypatch.setattr(sandbox, "bare", lambda item, program: next(answers))
    assert sandbox.main(arguments) == 1
