"""The peers of `r1pipe curate` on the same rows: datatrove's MinHash, then a plain n-gram decontamination.

    /path/to/another/venv/bin/python bench/curate_datatrove.py ROWS.jsonl OUT.json --benchmarks FILE:COLUMN …

It is called by `bench/curate.py`, runs in an environment of its own (`pip install
"datatrove[io,processing]" spacy`) and so imports nothing of r1pipe. datatrove runs with its defaults, as
its own example does: signatures, buckets, clusters, filter, all cores. The decontamination is that of
open-r1 and others: Python sets of 13-grams.
"""

import argparse
import json
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

LONG = 13


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file; lines that are no JSON are passed over."""
    with open(path, "rb") as file:
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:
                continue


def minhash(source: Path, work: Path, tasks: int) -> tuple[set[str], dict[str, float]]:
    """The ids that datatrove takes out, and the seconds of its four stages."""
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    shutil.rmtree(work, ignore_errors=True)
    config = MinhashConfig()
    _share_out(source, work / "rows", tasks)
    reader = JsonlReader(str(work / "rows"), adapter=_document)
    stages = {
        "signatures": ([reader, MinhashDedupSignature(str(work / "signatures"), config=config)], tasks),
        "buckets": (
            [MinhashDedupBuckets(str(work / "signatures"), str(work / "buckets"), config=config)],
            config.num_buckets,
        ),
        "clusters": ([MinhashDedupCluster(str(work / "buckets"), str(work / "remove"), config=config)], 1),
        "filter": (
            [
                reader,
                MinhashDedupFilter(
                    str(work / "remove"),
                    exclusion_writer=JsonlWriter(str(work / "removed"), compression=None),
                ),
                JsonlWriter(str(work / "kept"), compression=None),
            ],
            tasks,
        ),
    }
    seconds = {}
    for name, (pipeline, wanted) in stages.items():
        begun = time.perf_counter()
        LocalPipelineExecutor(
            pipeline, tasks=wanted, workers=tasks, logging_dir=str(work / "logs" / name)
        ).run()
        seconds[name] = time.perf_counter() - begun
    removed = {str(row["id"]) for path in (work / "removed").glob("*.jsonl") for row in rows(path)}
    return removed, seconds


def _share_out(source: Path, out: Path, files: int) -> None:
    """Deal the lines to so many files, since datatrove gives a process whole ones."""
    out.mkdir(parents=True)
    with ExitStack() as stack:
        opened = [stack.enter_context(open(out / f"{number}.jsonl", "wb")) for number in range(files)]
        for part in sorted(source.glob("part-*.jsonl")):
            with open(part, "rb") as lines:
                for number, line in enumerate(lines):
                    opened[number % files].write(line)


def _document(_: Any, row: dict[str, Any], path: str, place: int | str) -> dict[str, Any]:
    """The question and the completion as one text, which is what r1pipe compares."""
    return {"text": f"{row['question']}\n{row['completion']}", "id": row["id"]}


def contaminated(source: Path, benchmarks: list[tuple[Path, str]]) -> tuple[set[str], float]:
    """The ids of rows that have 13 words in a row with an item, and the seconds this took."""
    begun = time.perf_counter()
    known = {gram for path, column in benchmarks for row in rows(path) for gram in _grams(row[column])}
    found = {
        str(row["id"])
        for path in sorted(source.glob("part-*.jsonl"))
        for row in rows(path)
        if not known.isdisjoint(_grams(row["question"])) or not known.isdisjoint(_grams(row["completion"]))
    }
    return found, time.perf_counter() - begun


def _grams(text: str) -> Iterator[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return zip(*(words[at:] for at in range(LONG)), strict=False)


def main() -> int:
    """Run both, write what they take out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", type=Path, help="a folder of part-*.jsonl")
    parser.add_argument("out", type=Path)
    parser.add_argument("--benchmarks", nargs="+", default=[], metavar="FILE:COLUMN")
    parser.add_argument("--tasks", type=int, default=2)
    chosen = parser.parse_args()
    benchmarks = [
        (Path(name), column) for name, _, column in (each.rpartition(":") for each in chosen.benchmarks)
    ]
    near, seconds = minhash(chosen.rows, chosen.out.with_suffix(".work"), chosen.tasks)
    hit, seconds["decontamination"] = contaminated(chosen.rows, benchmarks)
    from importlib.metadata import version

    result = {
        "version": version("datatrove"),
        "seconds": seconds,
        "near": sorted(near),
        "contaminated": sorted(hit),
    }
    chosen.out.write_text(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
