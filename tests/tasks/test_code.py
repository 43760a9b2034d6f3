"""The judge of programs against its protocol: items, extraction, verdicts, right answers."""

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1pipe.prompting import parse
from r1pipe.tasks.base import Item
from r1pipe.tasks.code import CodeJudge
from r1pipe.verify.verdict import Mark, failed, passed
from tests.tasks.test_exercises import HUMANEVAL, MBPP

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_bubblewrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


def _item(row: dict[str, Any], question: str | None = None) -> Item:
    item = CodeJudge().item(row, question)
    assert isinstance(item, Item), item
    return item


def test_items() -> None:
    """The question is the row's, or the column's that the recipe names; what is hidden stays so."""
    item = _item(MBPP)
    assert item.question == "Write a function to double.\n\nWrite it as `double` with 2 parameters."
    assert "assert" not in item.question and "== 4" not in item.question
    assert _item(MBPP, "Double!").question == "Double!\n\nWrite it as `double` with 2 parameters."
    assert _item(HUMANEVAL).question.startswith("Complete this Python function.\n\nimport math")
    assert json.loads(json.dumps(item.gold)) == item.gold


@pytest.mark.parametrize(
    ("row", "question", "reason"),
    [
        ({"test_list": ["assert f(1)"]}, None, "no text under question or problem or prompt"),
        ({"text": " ", "test_list": ["assert f(1)"]}, None, "no text under question"),
        ({"text": "Do.", "test_list": ["assert f(1)"]}, " ", "no text under question"),
        ({"text": 5, "test_list": ["assert f(1)"]}, None, "no text under question"),
        ({"text": "Do.", "test_list": ["assert f("]}, None, "a test is no Python"),
    ],
)
def test_rows_that_are_no_items(row: dict[str, Any], question: str | None, reason: str) -> None:
    """Each with its reason."""
    said = CodeJudge().item(row, question)
    assert isinstance(said, str) and said.startswith(reason)


BLOCK = "```python\ndef f(): pass\n```"


@pytest.mark.parametrize(
    ("text", "program"),
    [
        (f"so </think> <answer>\n{BLOCK}\n</answer>", "def f(): pass"),
        (f"so </think> It is:\n{BLOCK}", "def f(): pass"),
        ("so </think> <answer>def f(): pass</answer>", "def f(): pass"),
        ("so </think> <answer>\n    return x\n</answer>", "    return x"),
        ("so </think> def f(): pass", "def f(): pass"),
        ("so </think>```python\na = 1\n```\nor rather\n```py\na = 2\n```", "a = 2"),
        ("so </think>```Python\na = 1\n```\n```\noutput\n```", "a = 1"),
        ("so </think>```\na = 1\n```", "a = 1"),
        ("so </think>```bash\nls\n```\n```\na = 1\n```", "a = 1"),
        (f"so </think>{BLOCK}\n<answer>see above</answer>", "def f(): pass"),
        (f"so </think>{BLOCK}\n<answer>\n```python\nb = 2\n```\n</answer>", "b = 2"),
        (f"so </think>{BLOCK}\n<answer>42</answer>", "def f(): pass"),
        ("so </think>  ```python\n  a = 1\n  ```", "a = 1"),
        ("so </think>- first\n  ```python\n  if a:\n      b\n\n c\n  ```", "if a:\n    b\n\nc"),
        ("so </think>```python\n    return x\n```", "    return x"),
        ("so </think>~~~python\na = 1\n```\n~~~\n", "a = 1\n```"),
        ("so </think>````python\na = 1\n```\n````\n", "a = 1\n```"),
        ("so </think>```Python3.11\na = 1\n```", "a = 1"),
        ("so </think>```python\na = '''\n    ```\n    x\n'''\n```", "a = '''\n    ```\n    x\n'''"),
        ("so </think>```python\na = 1\n```python\nb = 1\n```\nc", "b = 1"),
        ("so </think>Call ```f``` so:\n```python\na = 1\n```", "a = 1"),
        ("so </think>\ufeff```python\na = 1\n```", "a = 1"),
        ("so </think>```python\na = 1\n```\n```python\n", "a = 1"),
        (f"so {BLOCK} </think> That is it.", None),
        (f"so {BLOCK}", None),
        ("so </think>```python\na = 1", "a = 1"),
        ("so </think>```python\n", None),
        ("so </think>", None),
    ],
)
def test_extraction(text: str, program: str | None) -> None:
    """The answer's last block of Python, else that of what follows the thinking; never the thinking's."""
    assert CodeJudge().extract(Item("", "", {}), parse(text, opened=True)) == program


SOLUTION = "```python\ndef f(): pass\n```"


@pytest.mark.parametrize(
    ("names", "more", "program"),
    [
        (["f"], "```python\nprint(f())\n```", "def f(): pass"),
        (["f"], "```python\nf = g\n```", "f = g"),
        (["f", "g"], "```python\nclass g: pass\nimport f\n```", "class g: pass\nimport f"),
        (["f", "g"], "```python\ng = 1\n```", "g = 1"),
        (["f"], "```python\ndef f(\n```", "def f(): pass"),
        (["f"], "```python\ndef g():\n    f = 1\n```", "def f(): pass"),
        (["h"], "```python\nprint(f())\n```", "print(f())"),
    ],
)
def test_the_block_that_the_tests_are_about(names: list[str], more: str, program: str) -> None:
    """An example of its use does not take a solution's place; the last word has what defines as much."""
    parsed = parse(f"so </think>{SOLUTION}\nUsage:\n{more}", opened=True)
    assert CodeJudge().extract(Item("", "", {"names": names}), parsed) == program


def test_extraction_where_nothing_thinks() -> None:
    """A plain completion is an answer as a whole."""
    judge, item = CodeJudge(), Item("", "", {})
    assert judge.extract(item, parse("    return x * 2\n", opened=False)) == "    return x * 2"
    assert judge.extract(item, parse(f"Here:\n{BLOCK}\nDone.", opened=False)) == "def f(): pass"


@needs_bubblewrap
@pytest.mark.parametrize("isolation", ["bubblewrap", "limits-only"])
def test_verdicts(isolation: Any) -> None:
    """The judge's fields are the sandbox's; what was judged is in the verdict."""
    judge, item = CodeJudge(isolation=isolation, memory_mb=256), _item(MBPP)
    right, wrong = "def double(x, y): return x + x", "def double(x, y): return x ** 2"
    assert judge.judge(item, right) == passed(right)
    assert judge.judge(item, wrong) == failed("test failed", wrong)
    assert replace(judge, seconds=0.7).judge(item, "while True: pass").reason == "timed out"
    assert judge.judge(item, "x = [0] * (1 << 30)").reason == "out of memory"
    assert judge.judge(item, "I would double it.").reason == "raised SyntaxError"


@needs_bubblewrap
def test_verdicts_on_each_kind_of_row() -> None:
    """Right answers pass, and answers that only look right fail."""
    judge = CodeJudge()
    rows: list[tuple[dict[str, Any], str]] = [
        (HUMANEVAL, "    return x + 1"),
        (HUMANEVAL, "def half(x): return 3\n\ndef f(x): return 0"),
        ({"question": "Add.", "inputs": ["1 2"], "outputs": ["3"],
          "solution": "print(sum(map(int, input().split())))"}, "print(4)"),
        ({"question": "Add.", "solution": "def add(a, b): return a + b",
          "input_output": {"fn_name": "add", "inputs": [[1, 2]], "outputs": [3]}}, "def add(a, b): return 2"),
    ]  # fmt: skip
    for row, wrong in rows:
        item = _item(row)
        right = judge.right_answer(item)
        assert right is not None and judge.judge(item, right).passed
        assert judge.judge(item, wrong).mark == "fail"
    assert judge.judge(_item(HUMANEVAL), "return x * 2").passed
    assert judge.right_answer(_item({"text": "Do.", "test_list": ["assert f(1)"]})) is None


@needs_bubblewrap
def test_real_rows() -> None:
    """Some of HumanEval and MBPP with their own solutions; bench/sandbox.py has all of them."""
    files = [DATA / "humaneval" / "HumanEval.jsonl.gz", DATA / "mbpp" / "mbpp.jsonl"]
    if not all(file.is_file() for file in files):
        pytest.skip("HumanEval and MBPP are not in ../shared/data")
    lines = gzip.decompress(files[0].read_bytes()).splitlines()[30:34]
    lines += files[1].read_bytes().splitlines()[600:603]
    judge = CodeJudge()
    for row in map(json.loads, lines):
        item = _item(row)
        right = judge.right_answer(item)
        assert right is not None and judge.judge(item, right).passed, row["task_id"]


def test_tests_that_cannot_begin_decide_nothing() -> None:
    """A module that is not installed here is not the program's fault."""
    row = {
        "text": "Add.",
        "code": "def add(a, b):\n    return a + b",
        "test_imports": ["import no_such_module"],
        "test_list": ["assert add(1, 2) == 3"],
    }
    item = CodeJudge().item(row, None)
    assert isinstance(item, Item)
    verdict = CodeJudge().judge(item, row["code"])
    assert (verdict.mark, verdict.reason) == (
        Mark.UNDECIDED,
        "the tests' own beginning raised ModuleNotFoundError",
    )


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "q", "input_output": '{"inputs": [NaN], "outputs": ["1"]}'}, "NaN is no number of JSON"),
        ({"text": "q", "inputs": [[1]], "outputs": [1], "fn_name": "class"}, "fn_name names no function"),
        ({"text": "q", "input_output": '{"inputs": [1e999], "outputs": ["1"]}'}, "1e999 is no number"),
        ({"text": "q", "inputs": [[float("inf")]], "outputs": [1], "fn_name": "f"}, "no number of JSON"),
        ({"text": "q", "inputs": '["\\ud800"]', "outputs": ["1"]}, "a test is no Unicode text"),
    ],
)
def test_rows_that_no_program_could_pass(row: dict[str, Any], reason: str) -> None:
    """They are set aside, each for itself."""
    assert reason in str(CodeJudge().item(row, None))


@pytest.mark.parametrize("space", ["", " ", "\n", "\n  "])
def test_space_before_a_program(space: str) -> None:
    """An answer without a fence begins at its first word."""
    item = CodeJudge().item({"text": "Add.", "test_list": ["assert add(1, 2) == 3"]}, None)
    assert isinstance(item, Item)
    text = f"so </think> <answer>{space}def add(a, b):\n    return a + b\n</answer>"
    program = CodeJudge().extract(item, parse(text, opened=True))
    assert program is not None and CodeJudge().judge(item, program).passed
