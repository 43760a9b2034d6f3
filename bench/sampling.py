r"""Kills one sampling again and again, compares it with one left alone, and measures what verifying adds.

    python bench/sampling.py --model runs/tiny-r1/artifacts/zero/v001-… --out bench/results/sampling.json

Each kill is a SIGKILL of the command and everything it started, at a random moment: mostly while completions
come, sometimes while it starts or ends. The exit code is 1 when an id or a text differs, a completion is
missing or there twice, or a kill cost more than one batch.
"""

import argparse
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file, it stands beside its helpers and not above them
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.common import R1PIPE, family, machine, machine_line, table, write_result
from r1pipe import jsonl
from r1pipe.machine import use_threads
from r1pipe.rollout import Sampling
from r1pipe.rollout.asking import Question, ask
from r1pipe.rollout.specs import TransformersSpec
from r1pipe.rollout.writers import CheckpointReader, ModelWriter, longest
from r1pipe.tasks import mixture, task_spec
from r1pipe.text import percent, quantity

SAMPLES = 4
TOKENS = 224
_LOOK_EVERY = 0.01  # seconds
_AT_START = 0.2  # share of the kills that may come before anything is generated


@dataclass(frozen=True, slots=True)
class State:
    """How far a job is on the disk."""

    completions: int
    """In journals and in finished shards."""
    shards: int
    """Finished."""
    begun: int
    """Of the completions, those of a batch that is not whole: an exact engine makes them again."""
    begun_tokens: int


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill, and what it found."""

    seconds: float
    """After the command was started."""
    generating: bool
    """Whether it had added to the journal."""
    completions: int
    shards: int
    made_again: int
    """Completions that were in the journal and are made again, as their batch was not whole."""
    tokens_again: int


# --- The job


def command(model: Path, out: Path, completions: int, batch: int, shards: int) -> list[str]:
    """The command of one job; any completion is kept, so that all are compared."""
    anything = {"correct": "false", "untruncated": "false", "well_formed": "false", "single_language": "0"}
    options = {
        "model": model, "task": "countdown", "template": "chat", "prompts": completions // SAMPLES,
        "samples": SAMPLES, "max-new-tokens": TOKENS, "batch": batch, "shards": shards,
        "engine": "transformers", "out": out,
    }  # fmt: skip
    flags = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return [
        *R1PIPE,
        "sample",
        *flags,
        *(f"--set=keep.{name}={value}" for name, value in anything.items()),
        "--set=keep.repeats=true",
    ]


def work_of(out: Path) -> Path:
    """Where a job's shards lie until it is done."""
    return out.with_name(f"{out.name}.run") / "work" / "sample" / "shards"


def state_of(work: Path, batch: int) -> State:
    """Read how far a job is; a line that is not whole yet is no row."""
    finished = [jsonl.loads(marker.read_bytes()) for marker in work.glob("*/shard.json")]
    open_: list[jsonl.Row] = []
    for journal in work.glob("[0-9]*.jsonl"):
        if not (work / journal.stem).exists():
            with suppress(OSError):
                open_ += [row for _, row in jsonl.scan(journal) if isinstance(row, dict)]
    begun = open_[len(open_) - len(open_) % batch :]
    return State(
        sum(tally["generated"] for tally in finished) + len(open_),
        len(finished),
        len(begun),
        sum(row["tokens"] for row in begun),
    )


def grown(work: Path) -> int:
    """Something that grows whenever the job puts anything on the disk."""
    sizes = 0
    for path in work.glob("*"):
        with suppress(OSError):
            sizes += path.stat().st_size + (1_000_000 if path.is_dir() else 0)
    return sizes


# --- Killing


def kill_once(
    job: Sequence[str], work: Path, batch: int, after: float, at_start: float | None
) -> Kill | None:
    """Start the job and kill it `after` seconds of generating, or `at_start` seconds after its start.

    None when it came to its end before that.
    """
    before, begun = grown(work), time.monotonic()
    deadline = None if at_start is None else begun + at_start
    generating = False
    with subprocess.Popen(job, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            if not generating and grown(work) > before:
                generating = True
                deadline = deadline or time.monotonic() + after
            if deadline is not None and time.monotonic() >= deadline:
                for pid in list(family(process.pid)):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                process.wait()
                seconds = time.monotonic() - begun
                at = state_of(work, batch)
                return Kill(seconds, generating, at.completions, at.shards, at.begun, at.begun_tokens)
            time.sleep(_LOOK_EVERY)
    if process.returncode:
        raise SystemExit(f"The job ended with exit code {process.returncode}: {' '.join(job)}")
    return None


def kills(
    job: Sequence[str], out: Path, wanted: int, completions: int, batch: int, pace: float
) -> Iterator[Kill]:
    """So many kills, spread over the job by what is left of it; `pace` is its completions per second."""
    rng, work = random.Random(0), work_of(out)
    startup = 5.0
    for number in range(wanted):
        left = max(0, completions - state_of(work, batch).completions)
        share = left / pace / (wanted - number + 1)
        at_start = rng.uniform(0, startup) if rng.random() < _AT_START else None
        kill = kill_once(job, work, batch, rng.uniform(0, 2 * share), at_start)
        if kill is None:
            return
        if kill.generating and at_start is None:
            startup = kill.seconds
        sys.stderr.write(f"kill {number + 1}: {kill.completions} completions, {kill.made_again} made again\n")
        yield kill


# --- Comparing


def rows_of(out: Path) -> list[jsonl.Row]:
    """All of a job's rows."""
    return [*jsonl.iter_rows(out), *jsonl.iter_rows(out / "rejects.jsonl")]


def comparison(whole: Sequence[Mapping[str, Any]], broken: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """What of the killed job's rows is missing, doubled or different."""
    one = {row["trace_id"]: row["completion"] for row in whole}
    other = {row["trace_id"]: row["completion"] for row in broken}
    counts = Counter(row["trace_id"] for row in broken)
    return {
        "rows": len(broken),
        "missing": len(one.keys() - other.keys()),
        "added": len(other.keys() - one.keys()),
        "doubled": sum(count > 1 for count in counts.values()),
        "other_texts": sum(one[name] != other[name] for name in one.keys() & other.keys()),
    }


# --- What verifying adds


def overhead(model: Path, completions: int, batch: int, times: int, scratch: Path) -> dict[str, Any]:
    """Seconds of the bare engine and of the engine with judging and journalling, in turns, on one thread."""
    use_threads(1)
    reader = CheckpointReader.of(model)
    pairs = mixture([task_spec("countdown")], completions // SAMPLES, 0)
    questions = ask(pairs, "chat", reader.tokenizer, reader.context - TOKENS).questions
    order = [(question, sample) for question in questions for sample in range(SAMPLES)]
    sampling = Sampling(TOKENS)
    writer = ModelWriter(
        model,
        TransformersSpec(),
        reader,
        longest=longest(questions, sampling),
        batch=batch,
        say=lambda _: None,
    )
    with closing(writer):
        bare, verified = [], []
        _verified(writer, order[:batch], sampling, batch, scratch)  # the first call opens the engine
        for _ in range(times):
            bare.append(_bare(writer, order, sampling, batch))
            verified.append(_verified(writer, order, sampling, batch, scratch))
    adds = [two / one - 1 for one, two in zip(bare, verified, strict=True)]
    return {
        "completions": len(order),
        "bare_seconds": bare,
        "verified_seconds": verified,
        "adds": statistics.median(adds),
        "adds_each": adds,
    }


Order = Sequence[tuple[Question, int]]


def _bare(writer: ModelWriter, order: Order, sampling: Sampling, batch: int) -> float:
    engine = writer.engine()
    begun = time.perf_counter()
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        prompts = [question.token_ids for question, _ in part]
        engine.generate(prompts, sampling, seeds=list(range(start, start + len(part))))
    return time.perf_counter() - begun


def _verified(writer: ModelWriter, order: Order, sampling: Sampling, batch: int, scratch: Path) -> float:
    scratch.unlink(missing_ok=True)
    begun = time.perf_counter()
    with jsonl.Journal(scratch) as journal:
        for start in range(0, len(order), batch):
            part = order[start : start + batch]
            seeds = list(range(start, start + len(part)))
            writer.write(part, sampling, seeds, lambda rows: journal.append(map(dict, rows)))
    return time.perf_counter() - begun


# --- The page


def main(arguments: Sequence[str] | None = None) -> int:
    """Run once, run with kills, compare, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", type=Path, required=True, help="a checkpoint that writes countdown's traces"
    )
    parser.add_argument("--completions", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--times", type=int, default=3, help="how often the overhead is measured")
    parser.add_argument("--runs", type=Path, default=Path("runs/sampling"), help="a folder; replaced")
    parser.add_argument("--out", type=Path, default=Path("bench/results/sampling.json"))
    chosen = parser.parse_args(arguments)
    shutil.rmtree(chosen.runs, ignore_errors=True)
    chosen.runs.mkdir(parents=True)
    whole, broken = chosen.runs / "whole", chosen.runs / "broken"
    size = (chosen.completions, chosen.batch, chosen.shards)
    begun = time.monotonic()
    subprocess.run(command(chosen.model, whole, *size), check=True, stdout=sys.stderr)
    seconds = time.monotonic() - begun
    job = command(chosen.model, broken, *size)
    found = list(
        kills(job, broken, chosen.kills, chosen.completions, chosen.batch, chosen.completions / seconds)
    )
    subprocess.run(job, check=True, stdout=sys.stderr)
    rows = rows_of(whole)
    result = {
        "completions": len(rows),
        "tokens": sum(row["tokens"] for row in rows),
        "batch": chosen.batch,
        "shards": chosen.shards,
        "seconds": seconds,
        "kills": [asdict(kill) for kill in found],
        "compared": comparison(rows, rows_of(broken)),
        "same_bytes": _bytes(whole) == _bytes(broken),
        "overhead": overhead(
            chosen.model,
            min(chosen.completions, 1024),
            chosen.batch,
            chosen.times,
            chosen.runs / "scratch.jsonl",
        ),
        "machine": machine(),
    }
    write_result(chosen.out, result, page(result))
    return 0 if held(result) else 1


def _bytes(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("*.jsonl"))}


def held(result: Mapping[str, Any]) -> bool:
    """Whether no kill lost, doubled or changed anything, and none cost more than a batch."""
    compared = result["compared"]
    most = max((kill["made_again"] for kill in result["kills"]), default=0)
    wrong = any(compared[name] for name in ("missing", "added", "doubled", "other_texts"))
    return not wrong and compared["rows"] == result["completions"] and most <= result["batch"]


def page(result: Mapping[str, Any]) -> str:
    """The figures in words and tables."""
    all_, compared, over = result["kills"], result["compared"], result["overhead"]
    again = [kill["tokens_again"] for kill in all_]
    told = [
        ["kills", f"{len(all_)}"],
        ["of those, while completions came", f"{sum(kill['generating'] for kill in all_)}"],
        ["rows at the end", f"{compared['rows']:,} of {result['completions']:,}"],
        ["missing, added, doubled", f"{compared['missing']}, {compared['added']}, {compared['doubled']}"],
        ["texts that differ", f"{compared['other_texts']}"],
        ["files equal byte for byte", "yes" if result["same_bytes"] else "**no**"],
        ["completions that were journalled and made again", f"{sum(kill['made_again'] for kill in all_):,}"],
        ["most of them after one kill", f"{max((kill['made_again'] for kill in all_), default=0)}"],
        ["their tokens", f"{sum(again):,} ({percent(sum(again) / result['tokens'])} of the job's)"],
    ]
    rates = [
        ["bare engine", *(f"{each:.1f} s" for each in over["bare_seconds"])],
        ["with judging and journal", *(f"{each:.1f} s" for each in over["verified_seconds"])],
        ["added", *(percent(each) for each in over["adds_each"])],
    ]
    columns = ["", *(f"run {number + 1}" for number in range(len(over["bare_seconds"])))]
    return (
        f"# Sampling, killed and left alone\n\n{machine_line(result['machine'])}\n\n"
        f"One job of {result['completions']:,} completions and {quantity(result['tokens'])} tokens in "
        f"batches of {result['batch']} and {result['shards']} shards; {result['seconds']:.0f} s when "
        f"it is left alone, start included.\n\n{table(['', 'killed job'], told)}\n\n"
        "A kill also loses what is being generated. A batch is begun when the one before it is whole in the "
        f"journal, so journalled or not, a kill makes at most {result['batch']} completions twice.\n\n"
        f"What verifying adds to {over['completions']:,} completions on one thread: {percent(over['adds'])} "
        f"(median).\n\n{table(columns, rates)}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
