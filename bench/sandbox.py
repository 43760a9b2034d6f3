"""Right and wrong programs through the sandbox: whether each has its verdict, and what one takes.

    python bench/sandbox.py --data ../shared/data --out bench/results/sandbox.json

The right ones are the solutions of HumanEval and MBPP. A wrong one is such a solution with one spot changed:
the first change, in a fixed order, with which the tests plainly fail in a bare interpreter outside. A row
whose own solution fails there is named and left out. The sandbox judges them one at a time.
"""

import argparse
import ast
import copy
import gzip
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":  # run as a file, it stands beside its helpers and not above them
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.common import machine, machine_line, table, write_result
from r1pipe import jsonl
from r1pipe.tasks.base import Item
from r1pipe.tasks.code import CodeJudge
from r1pipe.verify.isolation import ISOLATIONS
from r1pipe.verify.sandbox import run_python
from r1pipe.verify.verdict import Verdict

BARE_SECONDS: Final = 20.0
SETS: Final = (("HumanEval", "humaneval/HumanEval.jsonl.gz", 164), ("MBPP", "mbpp/mbpp.jsonl", 200))
_OPPOSITE: Final[dict[type, type]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add,
    ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A row with a right program and a wrong one."""

    name: str
    item: Item
    right: str
    wrong: str


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, compressed or not."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [jsonl.loads(line) for line in data.splitlines() if line.strip()]


def changed(program: str, first_line: int = 1) -> Iterator[str]:
    """A program with one spot changed, for each spot from `first_line` on: operators, numbers, returns."""
    tree = ast.parse(program)
    spots = [i for i, node in enumerate(ast.walk(tree)) if getattr(node, "lineno", 0) >= first_line]
    for i in spots:
        other = copy.deepcopy(tree)
        if _change(list(ast.walk(other))[i]):
            yield ast.unparse(other)


def _change(node: ast.AST) -> bool:
    """Change a node where it stands; false where there is nothing to change."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in _OPPOSITE:
            node.ops = [_OPPOSITE[type(op)]()]
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.AugAssign(op=op) if type(op) in _OPPOSITE:
            node.op = _OPPOSITE[type(op)]()
        case ast.Constant(value=bool() as value):
            node.value = not value
        case ast.Constant(value=int() as value):
            node.value = value + 1
        case ast.Return(value=ast.expr()):
            node.value = ast.Constant(None)
        case _:
            return False
    return True


def bare(item: Item, program: str) -> bool | None:
    """Whether a program passes its tests in one interpreter, with no sandbox; None when it takes too long."""
    source = "\n".join([item.gold["prelude"], program, *item.gold["tests"]])
    try:
        return not subprocess.run(
            [sys.executable, "-c", source], capture_output=True, timeout=BARE_SECONDS
        ).returncode
    except subprocess.TimeoutExpired:
        return None


def cases(rows: Sequence[dict[str, Any]], count: int) -> tuple[list[Case], list[str]]:
    """The first `count` rows that can be used, and the names of those before them that cannot."""
    judge, found, unfit = CodeJudge(), list[Case](), list[str]()
    for row in rows:
        name, item = str(row["task_id"]), judge.item(row, None)
        right = None if isinstance(item, str) else judge.right_answer(item)
        if isinstance(item, str) or right is None or not bare(item, right):
            unfit.append(name)
            continue
        begins = item.gold.get("before", "").count("\n") + 1
        wrong = next((each for each in changed(right, begins) if bare(item, each) is False), None)
        if wrong is None:
            unfit.append(name)
            continue
        found.append(Case(name, item, right, wrong))
        if len(found) == count:
            break
    return found, unfit


def judged(cases_: Sequence[Case], which: str) -> dict[str, Any]:
    """Counts and seconds of one kind of programs, `right` or `wrong`."""
    judge, seconds, verdicts = CodeJudge(), list[float](), list[Verdict]()
    for case in cases_:
        begun = time.perf_counter()
        verdicts.append(judge.judge(case.item, getattr(case, which)))
        seconds.append(time.perf_counter() - begun)
    marks = Counter(str(verdict.mark) for verdict in verdicts)
    odd = "fail" if which == "right" else "pass"
    return {
        "programs": len(cases_),
        **{mark: marks[mark] for mark in ("pass", "fail", "undecided")},
        "astray": [case.name for case, verdict in zip(cases_, verdicts, strict=True) if verdict.mark == odd],
        "reasons": dict(Counter(verdict.reason for verdict in verdicts if verdict.reason).most_common()),
        "median_seconds": statistics.median(seconds),
        "p95_seconds": sorted(seconds)[int(0.95 * len(seconds))],
        "most_seconds": max(seconds),
    }


def starts(rounds: int) -> dict[str, list[float]]:
    """Seconds of an empty program in a bare interpreter and in each isolation, taking turns."""
    command = [sys.executable, "-c", "pass"]
    kinds = {
        "a bare interpreter": lambda: subprocess.run(command, check=True),
        **{name: lambda name=name: run_python("pass", isolation=name) for name in ISOLATIONS},
    }
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in range(rounds + 1):
        for name, start in kinds.items():
            begun = time.perf_counter()
            start()
            if turn:  # the first is for the disk's cache, and for the sandbox to be tried
                found[name].append(time.perf_counter() - begun)
    return found


def page(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    columns = ["programs", "n", "pass", "fail", "undecided", "median, s", "p95, s", "most, s"]
    rows = [
        [
            f"{name}, {which}",
            *(str(each[key]) for key in ("programs", "pass", "fail", "undecided")),
            *(f"{each[key]:.3f}" for key in ("median_seconds", "p95_seconds", "most_seconds")),
        ]
        for name, both in result["sets"].items()
        for which, each in both.items()
    ]
    empty = [
        [name, f"{statistics.median(each):.3f}", f"{min(each):.3f}", f"{max(each):.3f}"]
        for name, each in result["start_seconds"].items()
    ]
    left_out = ", ".join(f"{name}: {', '.join(each) or 'none'}" for name, each in result["left_out"].items())
    return (
        f"# Sandbox\n\nOne program at a time. {machine_line(result['machine'])} Load average of a minute: "
        f"{result['load'][0]:.1f} before, {result['load'][1]:.1f} after.\n\n{table(columns, rows)}\n\n"
        "Right programs are the sets' own solutions; wrong ones are these with one spot changed, such that "
        f"the tests fail in a bare interpreter too. Rows left out, by set: {left_out}.\n\n"
        f"An empty program:\n\n{table(['in', 'median, s', 'least', 'most'], empty)}\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge, time, write; 1 when a verdict is not what it should be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rounds", type=int, default=30, help="empty programs of each kind")
    parser.add_argument("--count", type=int, help="rows of each set, where not all are wanted")
    parser.add_argument("--out", type=Path, default=Path("bench/results/sandbox.json"))
    chosen = parser.parse_args(arguments)
    load = os.getloadavg()[0]
    result: dict[str, Any] = {"sets": {}, "left_out": {}, "machine": machine()}
    for name, path, count in SETS:
        found, result["left_out"][name] = cases(read(chosen.data / path), chosen.count or count)
        result["sets"][name] = {which: judged(found, which) for which in ("right", "wrong")}
    result["start_seconds"] = starts(chosen.rounds)
    result["load"] = [load, os.getloadavg()[0]]
    write_result(chosen.out, result, page(result))
    both = result["sets"].values()
    return int(any(kinds["right"]["pass"] < kinds["right"]["programs"] for kinds in both)
               or any(kinds["wrong"]["fail"] < kinds["wrong"]["programs"] for kinds in both))  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
