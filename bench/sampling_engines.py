r"""One sampling by every engine: the same ids, the same verdicts, and how alike the texts are.

    python bench/sampling_engines.py --model runs/tiny-r1/artifacts/zero/v001-…

Each engine does the same job through the stage `sample`, once at temperature 1 and once greedily:
transformers and vLLM in a process, vLLM's server on the loopback, and a Ray cluster of two nodes on this
machine, one worker of which is killed while completions come. What is not installed is named as left out. The
exit code is 1 where a claim is missed.
"""

import argparse
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from statistics import fmean
from typing import Any

if __name__ == "__main__":  # run as a file, it stands beside its helpers and not above them
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.claims import Claim, claims_table
from bench.common import R1PIPE, family, machine, machine_line, table, write_result
from bench.sampling import SAMPLES, TOKENS
from r1pipe import jsonl
from r1pipe.text import percent

WITHOUT = "transformers"
"""What the others are compared with: the engine that needs nothing else."""
TEMPERATURES = {"drawn": 1.0, "greedy": 0.0}
TOLD = {
    "transformers": "in a process",
    "vllm": "in a process",
    "vllm-server": "vLLM's server on the loopback",
    "ray": "two workers with transformers on two nodes, one worker killed",
}
LACKING = {
    "vllm": "vLLM is not installed",
    "vllm-server": "vLLM is not installed",
    "ray": "Ray is not installed",
}
MODULES = {"vllm": "vllm", "vllm-server": "vllm", "ray": "ray"}

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Done:
    """One engine's completions of a job, by their ids."""

    rows: Mapping[str, Row]
    count: int
    """Rows as published; more than `rows` where an id stands twice."""
    seconds: float
    """Wall time of the command, start included."""
    tokens_per_second: float | None
    """Of generation alone, as the stage logged it."""
    killed: int
    """Workers."""


# --- The job


def command(model: Path, out: Path, count: int, batch: int, temperature: float, engine: str) -> list[str]:
    """The command of one job; any completion is kept, so that all are compared."""
    anything = {"correct": "false", "untruncated": "false", "well_formed": "false", "single_language": "0"}
    options = {
        "model": model, "task": "countdown", "template": "chat", "prompts": math.ceil(count / SAMPLES),
        "samples": SAMPLES, "budget": count, "max-new-tokens": TOKENS, "batch": batch,
        "temperature": temperature, "engine": engine, "out": out,
    }  # fmt: skip
    flags = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    settings = [f"--set=keep.{name}={value}" for name, value in (anything | {"repeats": "true"}).items()]
    return [*R1PIPE, "sample", *flags, *settings]


def done(out: Path, seconds: float, killed: int) -> Done:
    """Read what a job published, and its speed."""
    parts = [*sorted(out.glob("part-*.jsonl")), out / "rejects.jsonl"]
    rows = [row for part in parts if part.exists() for row in jsonl.iter_rows(part)]
    metrics = out.with_name(f"{out.name}.run") / "metrics" / "sample.jsonl"
    logged = list(jsonl.iter_rows(metrics)) if metrics.exists() else []
    speeds = [
        row["generation_tokens_per_second"] for row in logged if row.get("generation_tokens_per_second")
    ]
    return Done(
        {row["id"]: row for row in rows},
        len(rows),
        seconds,
        fmean(speeds) if speeds else None,
        killed,
    )


def run_job(job: Sequence[str], out: Path, disturb: Callable[[], int] | None = None) -> Done:
    """Run a job to its end; `disturb` is called while it runs, and tells how many workers it killed."""
    killed: list[int] = []
    thread = threading.Thread(target=lambda: killed.append(disturb())) if disturb else None
    begun = time.monotonic()
    with subprocess.Popen(job, stdout=sys.stderr) as process:
        if thread:
            thread.start()
        code = process.wait()
    seconds = time.monotonic() - begun
    if thread:
        thread.join()
    if code:
        raise SystemExit(code)
    return done(out, seconds, sum(killed))


# --- Ray


@contextmanager
def two_nodes() -> Iterator[str]:
    """The address of a cluster of two nodes with a CPU each, on this machine."""
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_worker_niceness="0")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        yield str(cluster.address)
    finally:
        cluster.shutdown()


def kill_one_worker(out: Path, after: int, wait: float) -> int:
    """Kill one worker once the job's journal has so many completions; how many were killed."""
    folder, deadline = out.with_name(f"{out.name}.run"), time.monotonic() + wait
    while time.monotonic() < deadline:
        lines = sum(path.read_bytes().count(b"\n") for path in folder.glob("work/sample/shards/[0-9]*.jsonl"))
        if lines >= after:
            for pid in family(os.getpid()):
                if _command(pid).startswith(b"ray::Worker"):
                    os.kill(pid, signal.SIGKILL)
                    return 1
        time.sleep(0.02)
    return 0


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has just ended
        return b""


# --- Comparing


def compared(one: Done, other: Done) -> dict[str, Any]:
    """How the completions of `other` differ from those of `one`."""
    both = [(one.rows[name], other.rows[name]) for name in one.rows if name in other.rows]
    same = [a["completion"] == b["completion"] for a, b in both]
    prefixes = [
        common_prefix(a["completion"], b["completion"])
        for (a, b), equal in zip(both, same, strict=True)
        if not equal
    ]
    return {
        "missing": len(one.rows.keys() - other.rows.keys()),
        "added": len(other.rows.keys() - one.rows.keys()),
        "doubled": other.count - len(other.rows),
        "same_texts": fmean(same) if same else None,
        "common_prefix": fmean(prefixes) if prefixes else None,
    }


def common_prefix(one: str, other: str) -> float:
    """The share of the shorter text, in words, up to which they are the same."""
    words = one.split(), other.split()
    shorter = min(map(len, words))
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*words, strict=False)))
    return same / shorter if shorter else 1.0


def verdicts(found: Done) -> dict[str, int]:
    """How many completions have each verdict."""
    return dict(sorted(Counter(str(row["verdict"]) for row in found.rows.values()).items()))


def summary(found: Mapping[str, Mapping[str, Done]], count: int) -> dict[str, Any]:
    """Of each way of drawing and each engine: what it did, and how it differs from `WITHOUT`."""
    return {
        way: {
            name: {
                "rows": each.count,
                "seconds": each.seconds,
                "tokens": sum(row["tokens"] for row in each.rows.values()),
                "tokens_per_second": each.tokens_per_second,
                "killed": each.killed,
                "verdicts": verdicts(each),
                **compared(engines[WITHOUT], each),
            }
            for name, each in engines.items()
        }
        for way, engines in found.items()
    } | {"count": count}


def claims(result: Mapping[str, Any]) -> list[Claim]:
    """No engine loses, adds or doubles a completion; the workers of Ray write what the engine in a process
    writes; and where an engine rounds otherwise, verdicts differ no more than chance would have it."""
    made = []
    for way in TEMPERATURES:
        for name, each in result[way].items():
            wrong = each["missing"] + each["added"] + each["doubled"] + abs(each["rows"] - result["count"])
            made.append(Claim(f"{name}, {way}: ids missing, added or doubled", wrong, "<=", 0))
            if name == "ray":
                made.append(Claim(f"ray, {way}: workers killed", each["killed"], ">=", 1))
                made.append(Claim(f"ray, {way}: share of equal texts", each["same_texts"], ">=", 0.99))
            if name != WITHOUT:
                errors, most = verdict_gap(result[way][WITHOUT]["verdicts"], each["verdicts"])
                made.append(Claim(f"{name}, {way}: share that passes, difference", errors, "<=", most))
    return made


def verdict_gap(one: Mapping[str, int], other: Mapping[str, int]) -> tuple[float, float]:
    """|difference| of the shares that pass, and three standard errors of it, as of independent samples."""
    shares = [each.get("pass", 0) / max(1, sum(each.values())) for each in (one, other)]
    variances = [
        share * (1 - share) / max(1, sum(each.values()))
        for share, each in zip(shares, (one, other), strict=True)
    ]
    return abs(shares[0] - shares[1]), 3 * math.sqrt(sum(variances))


# --- The page


def page(result: Mapping[str, Any]) -> str:
    """The figures in words and tables."""
    parts = [
        "# One sampling by every engine",
        machine_line(result["machine"]),
        f"{result['count']:,} completions of countdown through the stage `sample`, {SAMPLES} to a prompt, at "
        f"most {TOKENS} tokens, in batches of {result['batch']}; compared with `{WITHOUT}`. Wall time has "
        "the start in it; of the server and the cluster it has not.",
        "\n".join(f"- `{name}`: {TOLD[name]}." for name in result["drawn"]),
        *(f"`{name}` was left out: {said}." for name, said in result["left_out"].items()),
    ]
    for way, temperature in TEMPERATURES.items():
        parts += [f"## Temperature {temperature:g}", _way(result[way])]
    parts += ["## Claims", claims_table(claims(result))]
    return "\n\n".join(parts) + "\n"


def _way(engines: Mapping[str, Mapping[str, Any]]) -> str:
    columns = ["", "rows", "missing, added, doubled", "pass, fail, undecided", "equal texts"]
    columns += ["prefix of the others", "tokens/s", "wall"]
    return table(
        columns,
        [
            [
                name,
                f"{each['rows']:,}",
                f"{each['missing']}, {each['added']}, {each['doubled']}",
                ", ".join(str(each["verdicts"].get(mark, 0)) for mark in ("pass", "fail", "undecided")),
                _share(each["same_texts"]),
                _share(each["common_prefix"]),
                "–" if each["tokens_per_second"] is None else f"{each['tokens_per_second']:,.0f}",
                f"{each['seconds']:.0f} s",
            ]
            for name, each in engines.items()
        ],
    )


def _share(value: float | None) -> str:
    return "–" if value is None else percent(value)


# --- The command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every engine, compare, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", type=Path, required=True, help="a checkpoint that writes countdown's traces"
    )
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument(
        "--portion", type=int, default=32, help="completions that a worker is given at a time"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/sampling-engines"), help="a folder; replaced")
    parser.add_argument("--out", type=Path, default=Path("bench/results/sampling-engines.json"))
    chosen = parser.parse_args(arguments)
    shutil.rmtree(chosen.runs, ignore_errors=True)
    chosen.runs.mkdir(parents=True)
    left_out = {name: LACKING[name] for name, module in MODULES.items() if find_spec(module) is None}
    found: dict[str, dict[str, Done]] = {way: {} for way in TEMPERATURES}
    for name in TOLD:
        if name not in left_out:
            for way, each in sampled(name, chosen):
                found[way][name] = each
    result = summary(found, chosen.count)
    result |= {"batch": chosen.batch, "left_out": left_out, "machine": machine()}
    result["claims"] = [each.as_json for each in claims(result)]
    write_result(chosen.out, result, page(result))
    return 0 if all(each.held for each in claims(result)) else 1


def sampled(name: str, chosen: argparse.Namespace) -> Iterator[tuple[str, Done]]:
    """Both ways of drawing by one engine, which is started before them where it is no part of the command."""
    with ExitStack() as stack:
        engine = name
        if name == "vllm-server":
            from bench.engines import _served

            url = stack.enter_context(_served(chosen.model, context_of(chosen.model), chosen.batch))
            engine = f"{{name: vllm-server, url: '{url}', retries: 12}}"
        elif name == "ray":
            address = stack.enter_context(two_nodes())
            engine = (
                f"{{name: ray, address: '{address}', workers: 2, gpus: 0, portion: {chosen.portion}, "
                "each: transformers}"
            )
        for way, temperature in TEMPERATURES.items():
            out = chosen.runs / f"{name}-{way}"
            job = command(chosen.model, out, chosen.count, chosen.batch, temperature, engine)
            if name == "ray":
                some = max(1, chosen.count // 4)
                yield way, run_job(job, out, lambda out=out, some=some: kill_one_worker(out, some, 3600))
            else:
                yield way, run_job(job, out)


def context_of(model: Path) -> int:
    """The most tokens that a checkpoint takes."""
    return int(jsonl.loads((model / "config.json").read_bytes())["max_position_embeddings"])


if __name__ == "__main__":
    sys.exit(main())
