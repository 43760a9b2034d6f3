"""Verdicts of `r1pipe verify` beside those of a plain math-verify loop, and how long each takes.

    python bench/verify.py --data ../shared/data/verifier_cases

For every row of each file with `gold`, `pred` and the truth, plain is `verify(parse(gold), parse(pred))` with
math-verify's own defaults, in this process; r1pipe's is `judge_files` with one job, the start of its worker
included. The two take turns, several times. The exit code is 1 when r1pipe agrees less often than plain.
"""

import argparse
import logging
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file, it stands beside its helpers and not above them
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.common import machine, machine_line, table, write_result
from r1pipe import jsonl
from r1pipe.verify.files import judge_files

FILES = ("gsm8k_model_solutions.jsonl", "math_verify.jsonl", "symeval.jsonl")
Marks = list[bool | None]
"""Whether each row passes; None where nobody could say."""


def plain(path: Path) -> tuple[Marks, float]:
    """What math-verify alone says of each row, and the seconds that took."""
    from math_verify import parse, verify

    rows = list(jsonl.iter_rows(path))
    begun = time.perf_counter()
    marks: Marks = [bool(verify(parse(str(row["gold"])), parse(str(row["pred"])))) for row in rows]
    return marks, time.perf_counter() - begun


def ours(path: Path) -> tuple[Marks, float]:
    """What r1pipe says of each row, and the seconds that took, reading the file included."""
    begun = time.perf_counter()
    judged = judge_files([path], "math", jobs=1)
    seconds = time.perf_counter() - begun
    return [verdict.passed if verdict.decided else None for verdict in judged.verdicts], seconds


def score(truth: Sequence[bool], marks: Marks) -> dict[str, Any]:
    """How often the marks are the truth, and in which way they are not."""
    pairs = list(zip(truth, marks, strict=True))
    return {
        "agreement": sum(mark is equal for equal, mark in pairs) / len(pairs),
        "false_pass": sum(mark is True and not equal for equal, mark in pairs),
        "false_fail": sum(mark is False and equal for equal, mark in pairs),
        "undecided": sum(mark is None for _, mark in pairs),
    }


def disagreements(path: Path, truth: Sequence[bool], of: Mapping[str, Marks]) -> list[dict[str, Any]]:
    """The rows on which one of the two is not the truth, by their number from 1."""
    rows = list(jsonl.iter_rows(path))
    return [
        {"row": i + 1, "gold": str(rows[i]["gold"])[-80:], "pred": str(rows[i]["pred"])[-80:], "equal": equal}
        | {name: marks[i] for name, marks in of.items()}
        for i, equal in enumerate(truth)
        if any(marks[i] is not equal for marks in of.values())
    ]


def measure(path: Path, rounds: int) -> dict[str, Any]:
    """Both on one file, taking turns; every round has to say the same."""
    truth = [bool(row["equal"]) for row in jsonl.iter_rows(path)]
    by = {"plain": plain, "r1pipe": ours}
    seconds: dict[str, list[float]] = {name: [] for name in by}
    marks: dict[str, Marks] = {}
    for _ in range(rounds):
        for name, judge in by.items():
            found, took = judge(path)
            seconds[name].append(took)
            if marks.setdefault(name, found) != found:
                raise SystemExit(f"{name} judged {path} differently the second time.")
    middle = {name: statistics.median(each) for name, each in seconds.items()}
    result = {
        name: {
            **score(truth, marks[name]),
            "seconds": seconds[name],
            "rows_per_second": len(truth) / middle[name],
        }
        for name in by
    }
    return {
        "rows": len(truth),
        **result,
        "times_faster": middle["plain"] / middle["r1pipe"],
        "disagreements": disagreements(path, truth, marks),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge, time, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data/verifier_cases"), help="a folder")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("bench/results/verify.json"))
    chosen = parser.parse_args(arguments)
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    load = os.getloadavg()[0]
    files = {name: measure(chosen.data / name, chosen.rounds) for name in FILES}
    result = {"rounds": chosen.rounds, "files": files, "load_before": round(load, 2), "machine": machine()}
    write_result(chosen.out, result, page(result))
    return (
        0 if all(each["r1pipe"]["agreement"] >= each["plain"]["agreement"] for each in files.values()) else 1
    )


COLUMNS = (
    *("file", "by", "rows", "agreement", "false pass", "false fail", "undecided", "s", "rows/s"),
    "times faster",
)


def page(result: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    rows = [
        [
            name if who == "plain" else "",
            who,
            str(each["rows"]),
            f"{each[who]['agreement']:.4f}",
            *(str(each[who][key]) for key in ("false_pass", "false_fail", "undecided")),
            f"{statistics.median(each[who]['seconds']):.2f}",
            f"{each[who]['rows_per_second']:,.0f}",
            "" if who == "plain" else f"{each['times_faster']:.1f}",
        ]
        for name, each in result["files"].items()
        for who in ("plain", "r1pipe")
    ]
    wrong = [
        [
            f"{name} {one['row']}",
            _code(one["gold"]),
            _code(one["pred"]),
            *map(_word, (one["equal"], one["plain"], one["r1pipe"])),
        ]
        for name, each in result["files"].items()
        for one in each["disagreements"]
        if one["r1pipe"] is not one["equal"]
    ]
    return (
        f"# Verdicts\n\nPlain math-verify and `r1pipe verify --jobs 1` on the same rows, {result['rounds']} "
        f"times in turn; the seconds are medians. Load of the machine before: {result['load_before']}. "
        f"{machine_line(result['machine'])}\n\n{table(COLUMNS, rows)}\n\n"
        "The rows on which r1pipe does not say what the file says (`docs/verdicts.md` explains them; long "
        f"texts show their end):\n\n"
        f"{table(['row', 'right answer', 'answer', 'equal', 'plain', 'r1pipe'], wrong)}\n"
    )


def _code(text: str) -> str:
    return "`" + " ".join(text.split()).replace("|", "\\|").replace("`", "'") + "`"


def _word(mark: bool | None) -> str:
    return {True: "yes", False: "no", None: "undecided"}[mark]


if __name__ == "__main__":
    sys.exit(main())
