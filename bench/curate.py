"""`r1pipe curate` on made-up traces with known faults: time, memory, what it finds and what it misses.

    python bench/curate.py --rows 50000 200000 800000 --peer /path/to/another/venv/bin/python

Every size is the beginning of the largest set (`bench/curate_rows.py`). On a sample r1pipe runs beside
datatrove's MinHash and a plain n-gram decontamination (`bench/curate_datatrove.py`), which the other
environment holds. The two parts may be measured by two calls, one with `--rows` and no number, one without
`--peer`: what is not measured stays as it is in `--out`. The exit code is 1 when a claim is missed.
"""

import argparse
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":  # run as a file, it stands beside its helpers and not above them
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.claims import Claim, claims_table
from bench.common import R1PIPE, Usage, machine, machine_line, measured, table, write_result
from bench.curate_rows import PART_ROWS, SHARES, Kind, Label, benchmark_files, labels_of, made_rows, write
from bench.plots import curves
from r1pipe import jsonl
from r1pipe.report.charts import Series

STEPS: Final[Mapping[Kind, tuple[str, ...]]] = {
    "exact": ("exact:trace", "near:trace"),
    "exact-respaced": ("exact:trace", "near:trace"),
    "near": ("near:trace",),
    "contaminated": ("decontaminate",),
    "contaminated-short": ("decontaminate",),
    "contaminated-part": ("decontaminate",),
    "mixed": ("language",),
    "truncated": ("truncated",),
    "wrong": ("correct",),
    "undecided": ("correct",),
    "looping": ("readability",),
    "torn": ("reading",),
}
"""The steps that may take a planted row."""
_TIME, _MEMORY = "#2a7de1", "#c2410c"


def steps(benchmarks: Sequence[Path]) -> list[Any]:
    """What is done: the usual, and a look for the benchmarks in questions and completions."""
    return [
        "truncated",
        "correct",
        {"name": "format", "form": "thinking"},
        {"name": "decontaminate", "benchmarks": [str(path) for path in benchmarks], "completions": True},
        "language",
        "readability",
        {"name": "exact", "of": "trace"},
        {"name": "near", "of": "trace"},
    ]


# --- One curation


def curated(rows: Path, out: Path, benchmarks: Sequence[Path]) -> Usage:
    """Curate a folder into another, from the beginning; raises `SystemExit` with the code of a failure."""
    for before in (out, out.with_name(f"{out.name}.run")):  # of a run that was stopped it would go on
        shutil.rmtree(before, ignore_errors=True)
    config = out.with_suffix(".yaml")
    jsonl.write_json(config, {"steps": steps(benchmarks)})
    usage = measured([*R1PIPE, "curate", str(rows), "--config", str(config), "--out", str(out)])
    if usage.exit_code:
        raise SystemExit(usage.exit_code)
    return usage


def left(out: Path) -> dict[int, str]:
    """The step that took each row that was not kept, by the row's number."""
    ledger = next(iter(sorted(out.rglob("ledger.jsonl"))))
    return {
        int(Path(entry["source"]).stem.removeprefix("part-")) * PART_ROWS + entry["line"] - 1: entry["name"]
        for entry in jsonl.iter_rows(ledger)
    }


def score(labels: Iterable[Label], gone: Mapping[int, str], rows: int) -> dict[str, Any]:
    """Of each planted kind how many were found and missed; of the clean rows how many were taken, and by
    what."""
    planted = {label.number: label for label in labels if label.number < rows}
    kinds = {kind: {"planted": 0, "found": 0, "missed": 0, "by_another_step": 0} for kind in SHARES}
    for number, label in planted.items():
        counts, step = kinds[label.kind], gone.get(number)
        counts["planted"] += 1
        counts["found" if step else "missed"] += 1
        counts["by_another_step"] += step is not None and step not in STEPS[label.kind]
    taken = Counter(step for number, step in gone.items() if number not in planted)
    return {"kinds": kinds, "clean": rows - len(planted), "clean_taken": dict(taken.most_common())}


def run_size(
    rows: Path, labels: Sequence[Label], count: int, work: Path, benchmarks: Sequence[Path]
) -> dict[str, Any]:
    """Curate the first rows of a set."""
    folder = _beginning(rows, count, work / f"rows-{count}")
    load = os.getloadavg()[0]
    usage = curated(folder, work / f"curated-{count}", benchmarks)
    gone = left(work / f"curated-{count}")
    return {
        "rows": count,
        "bytes": sum(path.stat().st_size for path in folder.glob("part-*.jsonl")),
        "seconds": usage.seconds,
        "rows_per_second": count / usage.seconds,
        "peak_bytes": usage.peak_bytes,
        "load_before": round(load, 2),
        "left": len(gone),
        **score(labels, gone, count),
    }


def _beginning(rows: Path, count: int, folder: Path) -> Path:
    """A folder with the first rows of a set: whole parts by links, the last one cut."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, part in enumerate(sorted(rows.glob("part-*.jsonl"))):
        wanted = count - number * PART_ROWS
        if wanted >= PART_ROWS:
            os.link(part, folder / part.name)
        elif wanted > 0:
            with open(part, "rb") as file, open(folder / part.name, "wb") as cut:
                cut.writelines(line for line, _ in zip(file, range(wanted), strict=False))
    return folder


# --- Beside datatrove


def beside(
    rows: Path, labels: Sequence[Label], count: int, work: Path, benchmarks: Sequence[Path], peer: str
) -> dict[str, Any]:
    """Both on the same rows, one after the other."""
    ours = run_size(rows, labels, count, work, benchmarks)
    out = work / "peer.json"
    script = Path(__file__).with_name("curate_datatrove.py")
    named = [f"{path}:{_column(path)}" for path in benchmarks]
    usage = measured([peer, str(script), str(work / f"rows-{count}"), str(out), "--benchmarks", *named])
    if usage.exit_code:
        raise SystemExit(f"The peer ended with code {usage.exit_code}.")
    found = jsonl.loads(out.read_bytes())
    taken = dict.fromkeys(found["near"], "near:trace") | dict.fromkeys(found["contaminated"], "decontaminate")
    numbers = _numbers(work / f"rows-{count}")
    theirs = score(labels, {numbers[name]: step for name, step in taken.items()}, count)
    spent = sum(found["seconds"].values())
    return {
        "rows": count,
        "r1pipe": ours,
        "datatrove": {
            "version": found["version"],
            "stages": found["seconds"],
            "seconds": spent,
            "rows_per_second": count / spent,
            "peak_bytes": usage.peak_bytes,
            **theirs,
        },
        "times_faster": spent / ours["seconds"],
    }


def _column(path: Path) -> str:
    """Where a benchmark's items are."""
    row = next(jsonl.iter_rows(path))
    return "problem" if "problem" in row else "question"


def _numbers(folder: Path) -> dict[str, int]:
    """The row's number by its id, torn lines left out."""
    return {
        row["id"]: number * PART_ROWS + line - 1
        for number, part in enumerate(sorted(folder.glob("part-*.jsonl")))
        for line, row in jsonl.scan(part)
        if not isinstance(row, jsonl.BadRow)
    }


# --- What it comes to


def claims(sizes: Sequence[Mapping[str, Any]], sample: Mapping[str, Any] | None) -> list[Claim]:
    """What was promised, on the largest set that was measured."""
    most = max(sizes, key=lambda size: size["rows"], default=None)
    return [
        Claim("rows curated", most and most["rows"], ">=", 800_000),
        Claim("minutes for them <= 10", most and most["seconds"] / 60, "<=", 10),
        Claim(
            "GiB of memory at most <= 2",
            most and (most["peak_bytes"] or None) and most["peak_bytes"] / 2**30,
            "<=",
            2,
        ),
        Claim("exact duplicates found = all", _share(most, "exact", "exact-respaced"), ">=", 1),
        Claim("near duplicates at Jaccard >= 0.8 found >= 95 %", _share(most, "near"), ">=", 0.95),
        Claim("exact contamination found = all", _share(most, "contaminated", "contaminated-short"), ">=", 1),
        Claim(
            "clean rows taken <= 0.5 %",
            most and sum(most["clean_taken"].values()) / most["clean"],
            "<=",
            0.005,
        ),
        Claim(
            "times faster than datatrove and a plain decontamination >= 20",
            sample and sample["times_faster"],
            ">=",
            20,
        ),
    ]


def _share(size: Mapping[str, Any] | None, *kinds: str) -> float | None:
    if size is None:
        return None
    planted = sum(size["kinds"][kind]["planted"] for kind in kinds)
    return sum(size["kinds"][kind]["found"] for kind in kinds) / planted if planted else None


def page(result: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    sizes, sample = result["sizes"], result["beside"]
    speed = [
        [
            f"{size['rows']:,}",
            f"{size['bytes'] / 1e9:.2f}",
            f"{size['seconds']:.0f}",
            f"{size['rows_per_second']:,.0f}",
            f"{size['peak_bytes'] / 2**20:,.0f}",
            f"{size['load_before']}",
        ]
        for size in sizes
    ]
    text = (
        f"# Curation\n\nMade-up traces, {result['mean_bytes']:,.0f} bytes a row, through the steps "
        "truncated, correct, format, decontaminate (questions and completions), language, readability, "
        "exact and near duplicates. Memory is that of all processes together. "
        f"{machine_line(result['machine'])}\n\n"
        f"{claims_table(_claims(result['claims']))}\n\n"
        f"{table(['rows', 'GB', 's', 'rows/s', 'MiB at most', 'load before'], speed)}\n\n"
    )
    if sizes:
        most = sizes[-1]
        text += (
            "![time](curate-time.svg) ![memory](curate-memory.svg)\n\n"
            f"## Found and missed\n\nOf {most['rows']:,} rows:\n\n{_kinds(most)}\n"
        )
    return text + (_beside(sample) if sample else "")


def _claims(found: Sequence[Mapping[str, Any]]) -> list[Claim]:
    return [Claim(each["claim"], each["value"], each["relation"], each["bound"]) for each in found]


def _kinds(size: Mapping[str, Any]) -> str:
    rows = [
        [kind, *(f"{counts[key]:,}" for key in ("planted", "found", "missed", "by_another_step"))]
        for kind, counts in size["kinds"].items()
    ]
    taken = ", ".join(f"{count} by {step}" for step, count in size["clean_taken"].items()) or "none"
    columns = ["planted", "rows", "found", "missed", "taken by another step"]
    return f"{table(columns, rows)}\n\nOf {size['clean']:,} clean rows taken: {taken}.\n"


def _beside(sample: Mapping[str, Any]) -> str:
    ours, theirs = sample["r1pipe"], sample["datatrove"]
    kinds = [kind for kind in SHARES if STEPS[kind][-1] in ("near:trace", "decontaminate")]
    rows = [
        ["seconds", f"{ours['seconds']:.1f}", f"{theirs['seconds']:.1f}"],
        ["rows/s", f"{ours['rows_per_second']:,.0f}", f"{theirs['rows_per_second']:,.0f}"],
        ["MiB at most", *(f"{each['peak_bytes'] / 2**20:,.0f}" for each in (ours, theirs))],
        *(
            [
                f"{kind}: found of {ours['kinds'][kind]['planted']}",
                *(str(each["kinds"][kind]["found"]) for each in (ours, theirs)),
            ]
            for kind in kinds
        ),
        [
            f"clean rows taken of {ours['clean']:,}",
            *(str(sum(each["clean_taken"].values())) for each in (ours, theirs)),
        ],
    ]
    stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in theirs["stages"].items())
    return (
        f"\n## Beside datatrove\n\nThe first {sample['rows']:,} rows. r1pipe does all of its steps, its "
        f"start included; datatrove {theirs['version']} does MinHash alone with its defaults on as many "
        f"processes, and after it sets of 13-grams in Python look for the benchmarks ({stages}).\n\n"
        f"{table(['', 'r1pipe', 'datatrove and plain'], rows)}\n"
    )


def plots(sizes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """SVG files by name: time and memory over rows."""
    seconds = Series("seconds", [(size["rows"], size["seconds"]) for size in sizes], _TIME)
    memory = Series("MiB", [(size["rows"], size["peak_bytes"] / 2**20) for size in sizes], _MEMORY)
    return {
        "curate-time.svg": curves([seconds], [("seconds", _TIME)], title="Seconds over rows"),
        "curate-memory.svg": curves(
            [memory], [("MiB, all processes", _MEMORY)], title="Most memory over rows"
        ),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the rows, curate them, compare, write."""
    chosen = _options().parse_args(arguments)
    before = jsonl.loads(chosen.out.read_bytes()) if chosen.out.exists() else {}
    counts = sorted(chosen.rows)
    if not (counts or before):
        raise SystemExit(f"--rows without a number keeps the sizes of {chosen.out}, which is not there.")
    rows = chosen.work / f"rows-of-seed-{chosen.seed}"
    most = max([*counts, chosen.sample])
    if made_rows(rows) < most:
        write(rows, most, chosen.seed, chosen.data, chosen.processes)
    benchmarks = benchmark_files(rows, chosen.data)
    labels = list(labels_of(rows))
    sizes = [run_size(rows, labels, count, chosen.work, benchmarks) for count in counts]
    sizes = sizes or before.get("sizes", [])
    sample = (
        beside(rows, labels, chosen.sample, chosen.work, benchmarks, chosen.peer)
        if chosen.peer
        else before.get("beside")
    )
    held = claims(sizes, sample)
    result = {
        "seed": chosen.seed,
        "mean_bytes": sizes[-1]["bytes"] / sizes[-1]["rows"],
        "sizes": sizes,
        "beside": sample,
        "claims": [claim.as_json for claim in held],
        "machine": machine(),
    }
    for name, drawn in plots(sizes).items():
        jsonl.write_text(chosen.out.with_name(name), drawn)
    write_result(chosen.out, result, page(result))
    return 0 if all(claim.held for claim in held) else 1


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="*", default=[50_000, 200_000, 800_000])
    # So many that r1pipe's start, some seconds however few there are, does not decide the comparison.
    parser.add_argument("--sample", type=int, default=40_000, help="rows that datatrove gets too")
    parser.add_argument(
        "--peer", help="the Python of an environment with datatrove; without it none is compared"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2, help="that write the rows")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="where the benchmarks are")
    parser.add_argument("--work", type=Path, default=Path("runs/bench-curate"))
    parser.add_argument("--out", type=Path, default=Path("bench/results/curate.json"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
