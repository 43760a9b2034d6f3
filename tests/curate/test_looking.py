"""What the steps find that look at each row alone."""

from pathlib import Path
from typing import Any

import pytest

from r1pipe.curate.finding import Fault
from r1pipe.curate.looking import benchmark_names
from r1pipe.curate.mapping import Columns, Trace, read_trace
from r1pipe.errors import UsageError
from r1pipe.verify.verdict import Mark, Verdict
from stages.curate import Config
from tests.curating import THOUGHT, row, write

ENGLISH = "We know that the sum of the two numbers is what we want, so let us add them and see what we get. "
FRENCH = "Nous savons que la somme des deux nombres est ce que nous voulons, donc on les ajoute pour voir. "
BLOCK = "```python\nprint(1)\n```"
CODE = f"Let us see.\n{BLOCK}\n"


def found(step: Any, files: tuple[Path, ...] = (), **changes: Any) -> Any:
    """What a step finds of a row with these changes."""
    (made,) = Config(data=["a"], steps=[step]).steps
    trace = read_trace(row(1, **changes), Columns())
    assert isinstance(trace, Trace), trace
    return made.look(files)(trace)  # type: ignore[union-attr]


def thinks(text: str) -> str:
    return f"{text} </think> <answer> 3 </answer>"


@pytest.mark.parametrize(
    ("step", "changes", "finding"),
    [
        ("truncated", {}, None),
        ("truncated", {"truncated": True}, Fault("truncated")),
        ("correct", {}, None),
        ("correct", {"verdict": "fail", "reason": "no answer"}, Fault("wrong: no answer")),
        ("correct", {"verdict": "fail"}, Fault("wrong")),
        (
            "correct",
            {"verdict": "fail", "reason": "a" * 60 + "b" * 200 + "c" * 30},
            Fault(f"wrong: {'a' * 53} […] {'c' * 27}"),
        ),
        ("correct", {"verdict": "undecided", "reason": "timed out"}, Fault("undecided: timed out")),
        ({"name": "correct", "undecided": True}, {"verdict": "undecided"}, None),
        ("correct", {"verdict": None}, Fault("no verdict")),
        ({"name": "correct", "unjudged": True}, {"verdict": None}, None),
        ("format", {}, None),
        ("format", {"completion": f"{thinks('a')} more"}, Fault("not well formed")),
        ("format", {"reasoning": False}, Fault("not well formed")),
        ("format", {"reasoning": None}, None),
        ({"name": "format", "form": "thinking"}, {"completion": "a </think> It is 3."}, None),
        ({"name": "format", "form": "thinking"}, {"completion": "a"}, Fault("thinking not closed")),
        (
            {"name": "format", "form": "thinking"},
            {"completion": "a </think> "},
            Fault("nothing before or after the thinking"),
        ),
        ({"name": "format", "form": "thinking"}, {"prompt": "1+1?"}, Fault("no thinking")),
        ({"name": "format", "form": "thinking"}, {"prompt": "", "reasoning": False, "completion": "3"}, None),
        ({"name": "length", "at_least": 31}, {}, Fault("too short", 30)),
        ({"name": "length", "at_most": 29}, {}, Fault("too long", 30)),
        ({"name": "length", "at_least": 30, "at_most": 30}, {}, None),
        ("readability", {"completion": thinks(CODE)}, Fault("code in the thinking", BLOCK)),
        ({"name": "readability", "code": True}, {"completion": thinks(CODE)}, None),
        ("readability", {"completion": f"{thinks('a')}\n{CODE}"}, None),
        ("language", {}, None),
        ("language", {"completion": thinks(ENGLISH * 40)}, None),
        ("language", {"completion": thinks(FRENCH * 4)}, None),
        ({"name": "language", "language": "en"}, {"completion": thinks(FRENCH * 4)}, Fault("not in en", 0.0)),
        ({"name": "language", "language": "fr"}, {"completion": thinks(FRENCH * 4)}, None),
        ({"name": "language", "language": "fr"}, {"completion": thinks(ENGLISH)}, Fault("not in fr", 0.0)),
        ("language", {"prompt": "1+1?", "completion": FRENCH + ENGLISH}, None),
    ],
)  # fmt: skip
def test_finding(step: Any, changes: dict[str, Any], finding: Any) -> None:
    """Each step remarks what it is named for, and nothing else."""
    assert found(step, **changes) == finding


@pytest.mark.parametrize(
    "other",
    [
        FRENCH * 8,
        "我们先把两个数加起来。然后再检查一下结果是不是对的。" * 8,
        "Складываем два числа и проверяем. " * 20,
    ],
)
def test_mixed_languages(other: str) -> None:
    """A passage in another language is found in a long English text, Latin letters or not; the evidence
    is the share of the commonest language."""
    fault = found("language", completion=thinks(ENGLISH * 20 + other + ENGLISH * 20))
    assert fault.reason == "mixed languages"
    assert 0.5 < fault.evidence < 0.95


CHINESE = "我们先把两个数加起来。然后再检查一下结果是不是对的。"


@pytest.mark.parametrize(
    ("text", "language", "finding"),
    [
        (CHINESE * 20, None, None),
        (CHINESE * 20, "zh", None),
        (f"{CHINESE} \\(x^2 + 3 = 7\\) \\frac 12 " * 20, None, None),
        (CHINESE * 20, "en", Fault("not in en", 0.0)),
        (f"{CHINESE}{ENGLISH}" * 20, None, Fault("mixed languages", 0.511)),
        ("テストをします。" * 20, None, None),
        ("テストをします。" * 20, "zh", Fault("not in zh", 0.0)),
    ],
)
def test_chinese(text: str, language: str | None, finding: Any) -> None:
    """A text with formulas is in Chinese; with English sentences it is mixed; with kana it is Japanese."""
    step = {"name": "language", "language": language}
    assert found(step, completion=thinks(text)) == finding


def test_signs_of_mathematics_are_no_language() -> None:
    """Greek letters and formulas stand in English text."""
    text = ENGLISH * 10 + " Let \u03b1 + \u03b2 = \u03b3, so \\(\\alpha^2 \\le \\beta\\). " * 10
    assert found("language", completion=thinks(text)) is None


def test_overlong_paragraph() -> None:
    """Characters between two line breaks, with the count as evidence."""
    step = {"name": "readability", "paragraph": 500}
    lines = "\n".join(f"{THOUGHT} {' '.join(f'w{n}x{m}' for m in range(40))}" for n in range(20))
    assert found(step, completion=thinks(lines)) is None
    different = " ".join(f"word{number}" for number in range(100))
    fault = found(step, completion=f"short\n{different}\n{thinks('short')}")
    assert (fault.reason, fault.evidence[:14]) == ("overlong paragraph", "689 characters")
    assert found({**step, "paragraph": None}, completion=thinks(different)) is None


def test_repetition() -> None:
    """The share of the passages of 16 words that came before."""
    different = " ".join(f"word{number}" for number in range(100))
    assert found("readability", completion=thinks(different)) is None
    looping = found("readability", completion=thinks(f"{different}\n" * 5))
    assert looping.reason == "repetition"
    assert 0.7 < looping.evidence < 0.85
    assert found({"name": "readability", "repetition": 0.9}, completion=thinks(f"{different}\n" * 5)) is None


@pytest.mark.parametrize(
    ("rule", "changes", "finding"),
    [
        ("math", {"verdict": None}, Verdict(Mark.PASS, "", "3")),
        ("math", {"gold": "\\frac{6}{2}", "verdict": "fail"}, Verdict(Mark.PASS, "", "3")),
        ("math", {"gold": "so it is\n#### 3"}, Verdict(Mark.PASS, "", "3")),
        ("math", {"gold": 4}, Verdict(Mark.FAIL, "wrong answer", "3")),
        ("math", {"completion": "a </think> b"}, Verdict(Mark.FAIL, "no answer", None)),
        ("exact", {"gold": "3"}, Verdict(Mark.PASS, "", "3")),
        ("math", {"gold": "proof"}, Fault("the gold is not an answer", "proof", aside=True)),
        ("math", {"gold": ""}, Fault("the gold is empty", "", aside=True)),
        ("math", {"gold": None}, Fault("the gold is no answer", "None", aside=True)),
        ("math", {"gold": {"target": 3}}, Fault("the gold is no answer", "{'target': 3}", aside=True)),
        ("number", {"gold": "many"}, Fault("the gold cannot be read", "many", aside=True)),
    ],
)
def test_verify(rule: str, changes: dict[str, Any], finding: Any) -> None:
    """A verdict of its own on each answer; what is no right answer is set aside, and is nobody's mistake."""
    assert found({"name": "verify", "rule": rule}, **changes) == finding


def test_verify_may_trust() -> None:
    """A verdict that is there stays, and what has none gets one."""
    assert found({"name": "verify", "trust": True}, verdict="fail") is None
    assert found({"name": "verify", "trust": True}, verdict=None) == Verdict(Mark.PASS, "", "3")


ITEM = (
    "A train leaves the old station at noon and travels north at forty miles an hour until it meets the river"
)


def test_contamination(tmp_path: Path) -> None:
    """The reason counts by rule and benchmark; the evidence names the item and shows the text."""
    bench = write(
        tmp_path / "bench.jsonl", [{"problem": ITEM, "unique_id": "t1"}, {"problem": "What is 1+1?"}]
    )
    step = {"name": "decontaminate", "benchmarks": [str(bench)]}
    assert found(step, (bench,)) is None
    fault = found(step, (bench,), question=f"Read this: {ITEM}. How far is that?")
    assert fault.reason == "13-gram of bench"
    assert fault.evidence[0]["item"] == "t1"
    assert ITEM in fault.evidence[0]["text"]
    assert found(step, (bench,), question="what is $1 + 1$ ?").reason == "exact of bench"
    assert found(step, (bench,), completion=thinks(ITEM)) is None
    assert (
        found({**step, "completions": True}, (bench,), completion=thinks(ITEM)).reason == "13-gram of bench"
    )
    assert found({**step, "allow": [ITEM]}, (bench,), question=f"Read this: {ITEM}. How far is that?") is None


def test_benchmarks_with_files_of_one_name(tmp_path: Path) -> None:
    """Each counts by itself, and a stage's result by its stage; versions of one stage are told apart."""
    files = []
    for number, name in enumerate(("gsm8k", "math")):
        (tmp_path / name).mkdir()
        question = f"What is {number} and {number + 1} together?"
        files.append(write(tmp_path / name / "test.jsonl", [{"problem": question}]))
    step = {"name": "decontaminate", "benchmarks": [str(file) for file in files]}
    assert found(step, tuple(files)).reason == "exact of math/test"
    assert benchmark_names([Path("a/math500.jsonl"), Path("run/artifacts/asked/v001-1f3a9c2e")]) == [
        "math500",
        "asked",
    ]
    versions = [Path(f"run/artifacts/asked/v00{number}-1f3a9c2e") for number in (1, 2)]
    assert benchmark_names(versions) == ["v001-1f3a9c2e", "v002-1f3a9c2e"]


def test_a_benchmark_with_other_columns(tmp_path: Path) -> None:
    """It is refused with the columns that it has, or read where they are named."""
    bench = write(tmp_path / "bench.jsonl", [{"task": ITEM}])
    step = {"name": "decontaminate", "benchmarks": [str(bench)]}
    with pytest.raises(UsageError, match="it has: task"):
        found(step, (bench,))
    assert found({**step, "columns": ["task"]}, (bench,), question=ITEM).reason == "exact of bench"
