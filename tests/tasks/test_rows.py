"""Rows of one's own as a task."""

import json
from pathlib import Path
from typing import Any

import pytest

from r1pipe.errors import UsageError
from r1pipe.tasks.base import held_out
from r1pipe.tasks.rows import Rows, RowsSpec
from r1pipe.verify.verdict import Completion, Mark


def _read(path: Path, **options: Any) -> Rows:
    return RowsSpec(path=str(path), **options).make()


def _write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def test_gsm8k_rows(tmp_path: Path) -> None:
    """GSM8K's worked solutions are understood: the right answer is what follows the last ####."""
    path = _write(
        tmp_path / "a.jsonl", {"question": "How many? ", "answer": "48 / 2 = <<48/2=24>>24.\n#### 1,072"}
    )
    task = _read(path, judge="number")
    (item,) = task.items("all", None, 0)
    assert (item.question, item.gold, item.reasoning) == ("How many?", "1,072", True)
    assert task.judge(item, Completion("so 1072 </think> <answer> 1072 </answer>", True)).passed
    assert task.judge(item, Completion("so </think> The answer is \\boxed{1072}.", True)).passed
    assert task.judge(item, Completion("so </think> <answer> 24 </answer>", True)).reason == "wrong answer"


def test_bad_rows_are_set_aside_with_their_place(tmp_path: Path) -> None:
    """Each row that cannot be asked keeps its line and its reason, and the others are asked."""
    path = _write(
        tmp_path / "a.jsonl",
        {"id": "one", "question": "1 + 1", "answer": 2},
        '{"question": "torn',
        "",
        {"question": "no answer"},
        {"answer": "3"},
        {"question": " ", "answer": "3"},
        {"question": "flag", "answer": True},
        {"id": "one", "question": "again", "answer": "3"},
        {"question": "word", "answer": "three"},
        {"question": "empty", "answer": "so ####"},
        {"problem": "2 + 2", "answer": "4"},
    )
    task = _read(path, judge="number")
    assert [(item.question, item.gold) for item in task.pool] == [("1 + 1", "2"), ("2 + 2", "4")]
    reasons = {row.line: row.reason for row in task.bad}
    assert sorted(reasons) == [2, 4, 5, 6, 7, 8, 9, 10]
    assert reasons[4] == "no text or number under answer or solution; the row has: question"
    assert reasons[5] == "no text under question or problem or prompt; the row has: answer"
    assert reasons[6] == "no text under question or problem or prompt; the row has: question, answer"
    assert reasons[8] == "the id 'one' came before"
    assert reasons[9] == "the answer 'three' is not a number"
    assert reasons[10] == "the answer marks a final answer and leaves it empty"


def test_folder_of_parts(tmp_path: Path) -> None:
    """A dataset's folder is read part by part, and a bad row is named with its part."""
    _write(tmp_path / "part-00000.jsonl", {"question": "a", "answer": "1"})
    _write(tmp_path / "part-00001.jsonl", {"question": "b"}, {"question": "c", "answer": "3"})
    task = _read(tmp_path)
    assert [item.question for item in task.pool] == ["a", "c"]
    assert [(Path(row.path).name, row.line) for row in task.bad] == [("part-00001.jsonl", 1)]


def test_own_columns(tmp_path: Path) -> None:
    """The recipe may name the columns; without the right names the message tells how."""
    path = _write(tmp_path / "a.jsonl", {"frage": "1 + 1", "antwort": "2"})
    task = _read(path, question_column="frage", answer_column="antwort")
    assert task.pool[0].gold == "2"
    with pytest.raises(UsageError, match="question_column"):
        _read(path)


def test_missing_file(tmp_path: Path) -> None:
    """A path that leads nowhere is a usage error."""
    with pytest.raises(UsageError, match=r"nothing\.jsonl"):
        _read(tmp_path / "nothing.jsonl")


def test_splits(tmp_path: Path) -> None:
    """Rows fall into seen and held-out by the hash of their question; together they are all."""
    path = _write(tmp_path / "a.jsonl", *({"question": f"{i} + 1", "answer": i + 1} for i in range(100)))
    task = _read(path)
    ids = {split: {item.id for item in task.items(split, None, 0)} for split in task.splits}
    assert ids["seen"] | ids["held-out"] == ids["all"] and not ids["seen"] & ids["held-out"]
    assert len(ids["all"]) == 100 and 10 <= len(ids["held-out"]) <= 30
    assert len(task.items("all", 250, 0)) == 250


def test_empty_split(tmp_path: Path) -> None:
    """A split into which no row falls is told so, with the way out."""
    task = _read(_write(tmp_path / "a.jsonl", {"question": "1 + 1", "answer": 2}))
    empty = "seen" if held_out("1 + 1") else "held-out"
    with pytest.raises(UsageError, match="set split: all"):
        task.items(empty, None, 0)


def test_rules(tmp_path: Path) -> None:
    """The same answer is judged by the rule that was chosen."""
    path = _write(tmp_path / "a.jsonl", {"question": "half", "answer": "1/2"})
    marks = {}
    for rule in ("exact", "number", "math"):
        task = _read(path, judge=rule)
        marks[rule] = task.judge(task.pool[0], Completion("0.5", False)).mark
    assert marks == {"exact": Mark.FAIL, "number": Mark.PASS, "math": Mark.PASS}


def test_a_row_names_its_judge(tmp_path: Path) -> None:
    """Or the file does; a judge that is none sets the row aside, whatever it is."""
    path = _write(
        tmp_path / "a.jsonl",
        {"question": "one", "answer": "1/2"},
        {"question": "two", "answer": "1/2", "judge": "exact"},
        {"question": "three", "choices": ["yes", "no"], "answer": "A", "judge": "choice"},
        {"question": "four", "answer": "x", "judge": ["math"]},
        {"question": "five", "answer": "x", "judge": "maths"},
    )
    task = _read(path)
    assert [task.judge_answer(item, "0.5").passed for item in task.pool] == [True, False, False]
    assert task.right_answer(task.pool[2]) == "A" and task.waits
    assert [row.reason.partition(";")[0] for row in task.bad] == [
        "there is no judge ['math']",
        "there is no judge 'maths'",
    ]


def test_one_problem_has_one_name_and_one_split(tmp_path: Path) -> None:
    """The same question twice is one problem; with an id the split is that of the id, however worded."""
    path = _write(
        tmp_path / "a.jsonl",
        *({"id": i, "question": f"{i} + 1", "text": f"What is {i} + 1?", "answer": i + 1} for i in range(60)),
        {"id": 60, "question": "5 + 1", "answer": 6},
        {"id": 1.5, "question": "7 + 7", "answer": 14},
        {"id": "", "question": "8 + 8", "answer": 16},
    )
    plain, worded = _read(path), _read(path, question_column="text")
    seen = {item.id for item in plain.items("seen", None, 0)}
    assert seen - {item.id for item in plain.pool[60:]} == {item.id for item in worded.items("seen", None, 0)}
    assert [row.reason for row in plain.bad] == [
        "the question came before",
        "an id is a text or a whole number, not 1.5",
    ]
    assert plain.pool[-1].id.startswith("row-")


def test_countdown_rows_are_one_problem_in_any_order(tmp_path: Path) -> None:
    """The numbers in another order are the same problem."""
    rows = [{"nums": [5, 6, 4], "target": 34}, {"nums": [4, 5, 6], "target": 34}]
    task = _read(_write(tmp_path / "a.jsonl", *rows), judge="countdown")
    assert [item.id for item in task.pool] == ["countdown-3:4-5-6:34"]
    assert task.bad[0].reason == "the id 'countdown-3:4-5-6:34' came before"
    assert not task.waits


def test_a_question_of_several_columns(tmp_path: Path) -> None:
    """A text with columns in it, blanks in their names too; a row without one of them is set aside."""
    path = _write(
        tmp_path / "a.jsonl",
        {"Body": "Ann has 3.", "The Question": "How many?", "answer": 3},
        {"Body": "Bo has 4.", "answer": 4},
    )
    task = _read(path, question_column="{Body} {The Question}")
    assert [item.question for item in task.pool] == ["Ann has 3. How many?"]
    assert task.bad[0].reason == "no text under {Body} {The Question}; the row has: Body, answer"
