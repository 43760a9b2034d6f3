"""Rows of exercises: what their tests are, and what the question has to tell."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1pipe.tasks.exercises import Unusable, gold_of, reads_as_python, try_parse, whole, worded

HUMANEVAL = {
    "prompt": 'import math\n\ndef half(x):\n    return x // 2\n\ndef f(x):\n    """Twice x."""\n',
    "entry_point": "f",
    "canonical_solution": "    return x * 2\n",
    "test": "def check(candidate):\n    assert half(candidate(3)) == 3\n",
}
MBPP = {
    "text": "Write a function to double.",
    "code": "import math\r\ndef double(x, y):\r\n  return x * 2",
    "test_list": ["assert double(2, 1) == 4", "assert double(x=3, y=1) == 6"],
    "challenge_test_list": ["assert double(0, 1) == 0"],
    "test_setup_code": "",
}


def test_check_functions() -> None:
    """HumanEval: the prompt's helpers are the tests' own, and the solution is a whole program."""
    gold = gold_of(HUMANEVAL)
    assert gold == {
        "names": ["f"],
        "tests": [HUMANEVAL["test"], "check(f)"],
        "prelude": HUMANEVAL["prompt"],
        "before": HUMANEVAL["prompt"],
        "solution": HUMANEVAL["prompt"] + "    return x * 2",
    }
    assert worded("def f(x):", gold) == "Complete this Python function.\n\ndef f(x):"


def test_assertions() -> None:
    """MBPP: every list of tests counts, and the question tells the function's name, not the tests."""
    gold = gold_of(MBPP)
    assert gold["names"] == ["double"]
    assert gold["tests"] == [*MBPP["test_list"], *MBPP["challenge_test_list"]]
    assert gold["solution"] == "import math\ndef double(x, y):\n  return x * 2"
    question = worded("Write a function to double.", gold)
    assert question == "Write a function to double.\n\nWrite it as `double` with 2 parameters."


@pytest.mark.parametrize(
    ("code", "tests", "setup", "names", "prelude"),
    [
        ("def sum(a): return 1", ["assert sum(10) == 1"], "", ["sum"], ""),
        ("def f(a): return 1", ["assert sum([f(1)]) == 1"], "", ["f"], ""),
        ("def f(t): pass", ["assert f(1) == sys.getsizeof(1)"], "", ["f"], "import sys"),
        (
            "from collections import Counter as C\ndef f(t): pass",
            ["assert f(1) == C([1])"],
            "",
            ["f"],
            "from collections import Counter as C",
        ),
        ("import os.path\ndef f(t): pass", ["assert f(os.sep)"], "", ["f"], "import os.path"),
        (
            "class Pair: pass\ndef f(p): pass",
            ["assert f([Pair(5, 2)]) == 1"],
            "",
            ["f", "Pair"],
            "",
        ),
        (
            "def f(r): pass",
            ["assert f(root) == 1"],
            "root = Node(1)\nroot.left = Node(2)",
            ["f", "Node"],
            "",
        ),
        ("def f(x): pass", ["assert [f(y) for y in (1,)] == [y for y in [f(1)]]"], "", ["f"], ""),
        ("def f(x): pass", ["import math\nassert f(math.pi)"], "", ["f"], ""),
        (
            "def f(x): pass",
            ["try:\n    f(1)\nexcept ValueError as e:\n    assert e"],
            "",
            ["f"],
            "",
        ),
        ("x = ", ["assert f(1)"], "", ["f"], ""),
    ],
)
def test_what_belongs_to_the_program(
    code: str, tests: list[str], setup: str, names: list[str], prelude: str
) -> None:
    """What tests use and do not define: modules are imported for them, the rest the program has to have."""
    gold = gold_of({"code": code, "test_list": tests, "test_setup_code": setup})
    assert gold["names"] == names
    assert gold["prelude"].strip() == prelude
    assert gold["tests"] == ([setup] if setup else []) + tests


def test_several_names_are_told() -> None:
    """A class that the tests need is asked for too; a name that is not called has no parameters."""
    gold = gold_of({"test_list": ["assert f(Pair(1, 2), LIMIT) == 1"]})
    assert gold["names"] == ["f", "Pair", "LIMIT"]
    told = "Write it as `f` with 2 parameters. Define `Pair` with 2 parameters too. Define `LIMIT` too."
    assert worded("Do.", gold) == f"Do.\n\n{told}"
    assert gold["solution"] is None


@pytest.mark.parametrize(
    ("row", "pairs"),
    [
        ({"inputs": ["1\n", "2\n"], "outputs": ["2\n", "4\n"]}, [["1\n", "2\n"], ["2\n", "4\n"]]),
        ({"tests": [{"input": "1", "output": 2}]}, [["1", "2"]]),
        ({"tests": '[{"input": "1", "output": "2", "more": 3}]'}, [["1", "2"]]),
        ({"input_output": '{"inputs": ["1"], "outputs": ["2"]}'}, [["1", "2"]]),
        ({"input_output": {"inputs": [["1", "2"]], "outputs": [["3"]]}}, [["1\n2", "3"]]),
        ({"inputs": '["1"]', "outputs": '["2"]'}, [["1", "2"]]),
    ],
)
def test_pairs(row: dict[str, Any], pairs: list[list[str]]) -> None:
    """Inputs and outputs under whatever names, also packed as JSON; a list is lines."""
    gold = gold_of({**row, "solutions": '["print(1)", "print(2)"]'})
    assert gold == {"pairs": pairs, "solution": "print(1)"}
    assert worded("Add.", gold).startswith("Add.\n\nThe program reads its input from stdin")


def test_functions_of_apps() -> None:
    """Arguments and results in JSON, which has no tuples; a method where the starter code says so."""
    packed = {"fn_name": "add", "inputs": [[1, "a"], [2, "b"]], "outputs": [[3], 4]}
    gold = gold_of({"input_output": packed})
    assert gold["names"] == ["add"]
    assert gold["tests"] == ["assert _same(add(*[1, 'a']), [3])", "assert _same(add(*[2, 'b']), 4)"]
    assert worded("Add.", gold) == "Add.\n\nWrite it as `add` with 2 parameters."
    gold = gold_of({"input_output": packed, "starter_code": "class Solution:\n    def add(self, a, b):"})
    assert gold["names"] == ["Solution"]
    assert gold["tests"][0] == "assert _same(Solution().add(*[1, 'a']), [3])"
    assert worded("Add.", gold) == "Add.\n\nWrite it as the method `add` of a class `Solution`."
    namespace: dict[str, Any] = {}
    exec(gold["prelude"], namespace)
    same = namespace["_same"]
    assert same((1, (2, 3)), [1, [2, 3]]) and same(3, [3]) and same([3], [3])
    assert same({1: (2,), "a": {3: 4}}, {"1": [2], "a": {"3": 4}}) and not same({1: 2}, {"1": 3})
    assert not same({True: 2}, {"True": 2}) and not same({1: 2}, {"1": 2, "2": 3})
    assert not same(3, 4) and not same([[3]], [3])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "no test with entry_point, no test_list, no tests, no inputs with outputs"),
        ({**HUMANEVAL, "entry_point": "a b"}, "entry_point names no function"),
        ({**HUMANEVAL, "test": "def check("}, "test is no Python"),
        ({**HUMANEVAL, "test": "assert f(1)"}, "test defines no check(candidate)"),
        ({**HUMANEVAL, "prompt": "def g(x):\n    pass"}, "prompt does not begin the function"),
        ({**HUMANEVAL, "prompt": None}, "prompt does not begin the function"),
        ({"test_list": []}, "test_list is empty"),
        ({"test_list": ["assert f("]}, "a test is no Python"),
        ({"test_list": [5]}, "test_list is no list of texts"),
        ({"test_list": {"a": 1}}, "test_list is no list of texts"),
        ({"test_list": ["assert 1"]}, "the tests call nothing of the program"),
        ({"tests": []}, "tests is no list of {input, output}"),
        ({"tests": [1]}, "tests is no list of {input, output}"),
        ({"tests": "[1"}, "tests is no JSON"),
        ({"inputs": [], "outputs": []}, "0 inputs and 0 outputs"),
        ({"inputs": ["1"], "outputs": ["1", "2"]}, "1 inputs and 2 outputs"),
        ({"input_output": "[1]"}, "input_output is no object"),
        ({"input_output": {"fn_name": "a b", "inputs": [[1]], "outputs": [1]}}, "fn_name names no function"),
        ({"input_output": {"fn_name": "f", "inputs": [1], "outputs": [1]}}, "inputs holds something"),
    ],
)
def test_rows_that_cannot_be_asked(row: dict[str, Any], reason: str) -> None:
    """Each with its reason."""
    with pytest.raises(Unusable) as unusable:
        gold_of(row)
    assert str(unusable.value).startswith(reason)


BEFORE = "def g():\n    return 1\n\ndef f(x):\n    '''Doc.'''\n"


@pytest.mark.parametrize(
    "answer",
    [
        "    y = x\n    return y * 2",
        "    y = x\n    return y * 2\n\nprint(f(1))",
        "y = x\n    return y * 2",  # its first indentation stripped
        "y = x\nreturn y * 2",  # all of it
        "def f(x):\n    return x * 2",
        "import os\n\ndef other():\n    return f(1)\n\ndef f(x):\n    return x * g() * 2",
        "f = lambda x: x * 2",
        "f = x * 2\nreturn f",
        "if True:\n    def f(x): return x * 2",
        "def f(x):\n    return x * 2\nreturn f(x)",
        "from operator import pos as f\ndef f(x): return g() * x * 2",
        "\n    return x * 2\n",
    ],
)
def test_answers_to_a_prompt(answer: str) -> None:
    """A whole function, or what continues the prompt however its indentation came through."""
    namespace: dict[str, Any] = {}
    assert reads_as_python(answer)
    exec(whole(BEFORE, "f", answer), namespace)
    assert namespace["f"](4) == 8


def test_answers_that_are_none() -> None:
    """What makes no program in any way is left as it is, for the sandbox to say so."""
    assert whole(BEFORE, "f", "I would (") == BEFORE + "I would ("
    assert whole("", "f", "x = (") == "x = ("
    assert not reads_as_python("I would double it.")
    assert not reads_as_python(" \n")


@given(st.text())
def test_any_text_is_a_program_or_not(text: str) -> None:
    """No text breaks the parser or what is built on it."""
    assert reads_as_python(text) in (True, False)
    assert isinstance(whole(BEFORE, "f", text), str)


@pytest.mark.parametrize("text", ["(" * 10_000, "-" * 100_000 + "1", "a" + ".b" * 100_000, "\0", "[" * 150])
def test_texts_beyond_the_parser(text: str) -> None:
    """What is too deep for Python's parser is no program."""
    assert try_parse(text) is None


@settings(max_examples=50)
@given(
    st.dictionaries(
        st.sampled_from(["test", "entry_point", "prompt", "test_list", "tests", "inputs", "outputs", "code",
                         "input_output", "fn_name", "test_setup_code", "test_imports", "starter_code"]),
        st.recursive(
            st.none() | st.integers() | st.text() | st.sampled_from(["f", "def check(c): c(1)", "[]"]),
            lambda inner: st.lists(inner)
            | st.dictionaries(st.sampled_from(["input", "output", "fn_name"]), inner),
        ),
    )
)  # fmt: skip
def test_any_row_has_tests_or_a_reason(row: dict[str, Any]) -> None:
    """Wild values end in one of the two."""
    try:
        gold = gold_of(row)
    except Unusable as why:
        assert str(why)
    else:
        assert worded("Q", gold).startswith(("Q", "Complete"))
