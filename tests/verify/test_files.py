"""Files of answers, judged in one go."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from r1pipe import cli, jsonl
from r1pipe.errors import UsageError
from r1pipe.verify.files import judge_files
from r1pipe.verify.math import JUDGES

ROWS = [
    {"gold": "72", "pred": "72.0", "equal": True},
    {"gold": "72", "pred": "so 48 + 24 = 72\n#### 72", "equal": True},
    {"gold": "72", "pred": "48 + 23 = 71\nA: 71", "equal": True},
    {"gold": "#### 5", "pred": "The answer is 5.", "equal": False},
    {"gold": "x^2+1", "pred": "1+x^2", "equal": True},
    {"gold": "1, 2", "pred": "\\boxed{1} and \\boxed{2}", "equal": True},
    {"prompt": "1+1? <think>", "completion": "two </think> <answer> 2 </answer>", "answer": "2"},
    {"prompt": "1+1? <think>", "completion": "two, so 2", "answer": "2", "equal": True},
]


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


def test_every_kind_of_row(tmp_path: Path) -> None:
    """Answers, solutions and completions; a thinking that does not end has no answer."""
    judged = judge_files([write(tmp_path / "a.jsonl", *ROWS)], "math", jobs=1)
    assert [str(verdict.mark) for verdict in judged.verdicts] == [
        *("pass", "pass", "fail", "pass", "pass", "pass", "pass", "fail")
    ]
    assert judged.verdicts[7].reason == "no answer"
    found = judged.summary
    counted = {key: found[key] for key in ("rows", "passed", "failed", "undecided", "agree")}
    assert counted == {"rows": 8, "passed": 6, "failed": 2, "undecided": 0, "agree": 4}
    assert (found["false_pass"], found["false_fail"], found["agreement"]) == (1, 2, 4 / 7)


def test_broken_rows_are_counted_and_the_others_judged(tmp_path: Path) -> None:
    """With the reason for each."""
    path = write(
        tmp_path / "a.jsonl",
        '{"gold": "torn\n',
        {"gold": "1"},
        {"gold": None, "pred": "1"},
        {"gold": "1", "pred": "1", "equal": "yes"},
        {"gold": 1, "pred": 1.0},
    )
    judged = judge_files([path], "number")
    assert (judged.summary["rows"], judged.summary["passed"], judged.summary["set_aside"]) == (1, 1, 4)
    assert judged.summary["agreement"] is None
    with pytest.raises(UsageError, match="A row needs `gold` and `pred`"):
        judge_files([write(tmp_path / "b.jsonl", {"question": "1"})], "number")


def test_the_command(tmp_path: Path) -> None:
    """Its JSON has the promised keys, its file a verdict for each row, and it writes over nothing."""
    path, out = write(tmp_path / "a.jsonl", *ROWS[:3]), tmp_path / "out.jsonl"
    command = ["verify", str(path), "--json", "--jobs", "1", "--out", str(out)]
    found = json.loads(CliRunner().invoke(cli.app, command).stdout)
    promised = ["rows", "passed", "failed", "undecided", "agree", "false_pass", "false_fail"]
    assert {*promised, "seconds", "rows_per_second"} <= set(found)
    assert [row["verdict"] for row in jsonl.iter_rows(out)] == ["pass", "pass", "fail"]
    assert CliRunner().invoke(cli.app, command).exit_code == 3


def test_the_commands_rules_are_those_of_the_judges() -> None:
    """Which it does not load for a list of commands."""
    assert {rule.value for rule in cli.AnswerRule} == set(JUDGES)


def test_a_row_that_is_set_aside_keeps_its_line(tmp_path: Path) -> None:
    """Blank and broken lines before it count."""
    path = tmp_path / "a.jsonl"
    path.write_text('\nnonsense\n{"gold": "1", "pred": "1"}\n{"gold": "1"}\n')
    judged = judge_files([path], "number")
    assert sorted((row.line, row.reason[:9]) for row in judged.set_aside) == [
        (2, "not JSON "),
        (4, "it has ne"),
    ]
