"""Traces as messy as real ones, with every fault planted and known: what `bench/curate.py` curates.

    python bench/curate_rows.py runs/rows --rows 800000

A row is made from the seed and its number alone, so that any part of a set can be made again, in any order
and on any number of cores. About 8 KB a row, with a tail up to 64 KB; five domains, three samples of each
problem, one answer, now and then in Chinese. `labels.jsonl` says of each row that is not clean what is
wrong with it.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import accumulate
from math import exp
from pathlib import Path
from random import Random
from typing import Final, Literal

if __name__ == "__main__":  # run as a file, it stands beside its helpers and not above them
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.curate_text import CHINESE, DOMAINS, question, sentences
from r1pipe import jsonl

Kind = Literal[
    "clean", "exact", "exact-respaced", "near", "contaminated", "contaminated-short", "contaminated-part",
    "mixed", "truncated", "wrong", "undecided", "looping", "torn",
]  # fmt: skip
SHARES: Final[dict[Kind, float]] = {
    "exact": 0.02, "exact-respaced": 0.01, "near": 0.04, "contaminated": 0.006, "contaminated-short": 0.002,
    "contaminated-part": 0.004, "mixed": 0.02, "truncated": 0.02, "wrong": 0.02, "undecided": 0.005,
    "looping": 0.01, "torn": 0.0005,
}  # fmt: skip
"""How many of the rows are of each kind; the others are clean."""
COPIES: Final = ("exact", "exact-respaced", "near")
SAMPLES: Final = 3
PART_ROWS: Final = 10_000
SHORT_WORDS: Final = 13
_NEAR: Final = (0.80, 0.95)
_MEDIAN, _SPREAD, _LEAST, _MOST = 7000, 0.6, 800, 64_000  # characters; the mean is 8 KB
_CHINESE_EVERY = 20  # problems
_OTHER_WORDS: Final = ("presently", "nearby", "briefly", "rather", "somewhat", "again", "clearly", "plainly")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a set of rows is made from."""

    rows: int
    seed: int
    long: Sequence[tuple[str, str]]
    """(benchmark, text) of the items that may be planted,"""
    short: Sequence[tuple[str, str]]
    """and of those of fewer than 13 words."""

    @classmethod
    def of(cls, rows: int, seed: int, items: Sequence[tuple[str, str]]) -> "Plan":
        """With the items of some benchmarks."""
        short = [item for item in items if len(item[1].split()) < SHORT_WORDS]
        return cls(rows, seed, [item for item in items if item not in short], short)


@dataclass(frozen=True, slots=True)
class Label:
    """What was planted in a row."""

    number: int
    """The row's, from 0."""
    id: str
    kind: Kind
    of: str | None = None
    """The row that it copies, or the benchmark that it has an item of."""
    jaccard: float | None = None
    """The index of the 5-grams of a near copy and its original, question and completion as one text."""


def kind_of(plan: Plan, number: int) -> Kind:
    """What is planted in a row."""
    if number < SAMPLES:  # there must be something to copy
        return "clean"
    kinds, bounds = _bounds()
    drawn = Random(f"{plan.seed} kind {number}").random()
    return next((kind for kind, bound in zip(kinds, bounds, strict=True) if drawn < bound), "clean")


@cache
def _bounds() -> tuple[list[Kind], list[float]]:
    return list(SHARES), list(accumulate(SHARES.values()))


def row(plan: Plan, number: int) -> tuple[bytes, Label]:
    """A row as a line of JSON, and its label."""
    kind = kind_of(plan, number)
    random = Random(f"{plan.seed} row {number}")
    made, label = _made(plan, number, kind, random)
    line = jsonl.dumps(made)
    if kind == "torn":
        line = line[: random.randrange(len(line) // 4, len(line) - 1)]
    return line + b"\n", label


def _made(plan: Plan, number: int, kind: Kind, random: Random) -> tuple[jsonl.Row, Label]:
    if kind in COPIES:
        return _copy(plan, number, kind, random)
    made = _clean(plan, number)
    label = Label(number, made["id"], kind)
    if kind.startswith("contaminated"):
        benchmark, text = random.choice(plan.short if kind == "contaminated-short" else plan.long)
        made["problem_id"] = f"{made['problem_id']}-{number}"
        if kind == "contaminated-part":
            text = _part(text, random)
        made["question"] = made["prompt"] = text
        label = Label(number, made["id"], kind, benchmark)
    elif kind == "mixed":
        made["completion"] = _mixed(made["completion"], random)
    elif kind == "looping":
        made["completion"] = _looping(made["completion"], random)
    elif kind == "truncated":
        made["completion"] = made["completion"][: random.randrange(len(made["completion"]) // 2)]
        made["truncated"] = True
    elif kind in ("wrong", "undecided"):
        made |= {
            "verdict": "fail" if kind == "wrong" else kind,
            "reason": "another value" if kind == "wrong" else "timed out",
        }
    return made, label


def _clean(plan: Plan, number: int) -> jsonl.Row:
    """The row without anything planted; samples of one problem share the question."""
    problem = number // SAMPLES
    of_problem = Random(f"{plan.seed} problem {problem}")
    domain = of_problem.choice(DOMAINS)
    asked, gold = question(domain, of_problem)
    language = CHINESE if _is_chinese(problem) else domain
    random = Random(f"{plan.seed} text {number}")
    length = min(_MOST, max(_LEAST, int(_MEDIAN * exp(random.gauss(0, _SPREAD)))))
    thinking = _paragraphs(language, plan.seed, length, random)
    completion = f"<think>\n{thinking}\n</think>\n\nThe answer is $\\boxed{{{gold}}}$."
    return {
        "id": f"p{problem}-{number % SAMPLES}",
        "problem_id": f"p{problem}",
        "task": domain,
        "question": asked,
        "prompt": asked,
        "completion": completion,
        "gold": gold,
        "verdict": "pass",
        "reason": "",
        "tokens": len(completion) // 4,
        "truncated": False,
    }


def _is_chinese(problem: int) -> bool:
    return problem % _CHINESE_EVERY == _CHINESE_EVERY - 1


def _paragraphs(language: str, seed: int, length: int, random: Random) -> str:
    """Sentences, with numbers in their places."""
    pool, mean = sentences(language, seed)
    text = "".join(random.choices(pool, k=max(2, round(length / mean))))
    wanted = text.count("%d")
    first = random.randrange(len(_numbers()) - wanted)
    return (text % _numbers()[first : first + wanted]).rstrip()


@cache
def _numbers() -> tuple[int, ...]:
    return tuple(Random("numbers").choices(range(2, 1000), k=200_000))


# --- What is planted


def _copy(plan: Plan, number: int, kind: Kind, random: Random) -> tuple[jsonl.Row, Label]:
    """A copy of a clean row that comes before it."""
    original = random.randrange(number)
    while kind_of(plan, original) != "clean" or (kind == "near" and _is_chinese(original // SAMPLES)):
        original = random.randrange(number)
    made = _clean(plan, original)
    first, jaccard = made["id"], None
    made["id"] = f"{first}-copy-{number}"
    if kind == "exact-respaced":
        made["completion"] = made["completion"].replace("\n\n", " \n\n").replace(". ", ".  ")
    elif kind == "near":
        made["completion"], jaccard = _near(made["question"], made["completion"], random)
    return made, Label(number, made["id"], kind, first, jaccard)


def _near(asked: str, completion: str, random: Random) -> tuple[str, float]:
    """The completion with single words changed, as many as a Jaccard index drawn at random allows."""
    from r1pipe.curate.near import SHINGLE, jaccard
    from r1pipe.curate.words import read

    aim = random.uniform(*_NEAR)
    words = completion.split(" ")
    original = read(f"{asked}\n{completion}").hashes
    places = [place for place, word in enumerate(words) if word.isalpha()]
    changes = round(len(original) * (1 - aim) / (1 + aim) / SHINGLE)
    while True:
        changed = list(words)
        for place in random.sample(places, min(changes, len(places))):
            changed[place] = random.choice(_OTHER_WORDS)
        text = " ".join(changed)
        found = jaccard(original, read(f"{asked}\n{text}").hashes)
        if found >= _NEAR[0]:
            return text, round(found, 4)
        changes = changes * 9 // 10


def _part(text: str, random: Random) -> str:
    """Most of an item word for word, in other words before and after."""
    words = text.split()
    kept = max(SHORT_WORDS + 7, len(words) * 3 // 4)
    begin = random.randrange(max(1, len(words) - kept + 1))
    before = random.choice(
        ("Consider the following.", "Here is one from a friend:", "My teacher asked this:")
    )
    return f"{before} {' '.join(words[begin : begin + kept])} How would one do that?"


def _mixed(completion: str, random: Random) -> str:
    """Every third sentence in another language."""
    stop = ". " if ". " in completion else "。"
    others = _other_sentences(stop)
    parts = completion.split(stop)
    parts[1:-1:3] = [random.choice(others) for _ in parts[1:-1:3]]
    return stop.join(parts)


@cache
def _other_sentences(stop: str) -> list[str]:
    pool, _ = sentences(CHINESE if stop == ". " else DOMAINS[0], 0)
    return [text.replace("%d", "7").rstrip(" \n。.") for text in pool[:500]]


def _looping(completion: str, random: Random) -> str:
    """The last paragraph of the thinking again and again."""
    thinking, end, rest = completion.partition("\n</think>")
    last = thinking.rpartition("\n\n")[2]
    return thinking + f"\n\n{last}" * (2 + 3 * len(thinking) // (2 * max(1, len(last)))) + end + rest


# --- Files


_BENCHMARKS: Final = {"math/math500.jsonl": "problem", "gsm8k/test.jsonl": "question"}


def benchmark_items(data: Path | None) -> list[tuple[str, str]]:
    """MATH-500 and GSM8K's test set where they are, else problems made up, long and short."""
    found = [
        (name, each[column])
        for name, column in _BENCHMARKS.items()
        if data and (data / name).is_file()
        for each in jsonl.iter_rows(data / name)
    ]
    return found or made_up_items()


def made_up_items(count: int = 500) -> list[tuple[str, str]]:
    """Problems that no row asks."""
    random = Random("benchmark")
    long = [question(random.choice(DOMAINS), random, benchmark=True)[0] for _ in range(count)]
    short = [
        f"Evaluate ${random.randrange(100, 999)} \\cdot {random.randrange(100, 999)}$."
        for _ in range(count // 5)
    ]
    return [("made-up", text) for text in (*long, *short)]


def benchmark_files(out: Path, data: Path | None) -> list[Path]:
    """The files that rows are to be compared with; those that are made up are written beside the rows."""
    if found := [data / name for name in _BENCHMARKS if data and (data / name).is_file()]:
        return found
    path = out / "benchmark.jsonl"
    jsonl.write_rows(path, [{"problem": text} for _, text in made_up_items()])
    return [path]


def write(out: Path, rows: int, seed: int, data: Path | None, processes: int) -> list[Path]:
    """Write the parts and their labels; return the benchmarks' files."""
    plan = Plan.of(rows, seed, benchmark_items(data))
    out.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(processes) as pool:
        labels = pool.map(partial(_write_part, plan, out), range(0, rows, PART_ROWS))
        with open(out / "labels.jsonl", "wb") as file:
            for part in labels:
                file.writelines(jsonl.dumps(label) + b"\n" for label in part)
    files = benchmark_files(out, data)
    jsonl.write_json(out / "made.json", {"rows": rows, "seed": seed})
    return files


def made_rows(out: Path) -> int:
    """How many rows there are in a folder that was written to the end."""
    made = out / "made.json"
    return int(jsonl.loads(made.read_bytes())["rows"]) if made.is_file() else 0


def _write_part(plan: Plan, out: Path, first: int) -> list[Label]:
    labels = []
    with open(out / f"part-{first // PART_ROWS:05}.jsonl", "wb") as file:
        for number in range(first, min(plan.rows, first + PART_ROWS)):
            line, label = row(plan, number)
            file.write(line)
            if label.kind != "clean":
                labels.append(label)
    return labels


def labels_of(folder: Path) -> Iterator[Label]:
    """The labels of a set that was written."""
    return (Label(**each) for each in jsonl.iter_rows(folder / "labels.jsonl"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a set of rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="where the benchmarks are")
    parser.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args(arguments)
    write(chosen.out, chosen.rows, chosen.seed, chosen.data, chosen.processes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
