"""What the benchmarks share: commands with their time and memory, the machine they ran on, tables."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from r1pipe import jsonl
from r1pipe.manifest import library_versions
from r1pipe.report import RunFiles

R1PIPE = (sys.executable, "-m", "r1pipe")
_LOOK_EVERY = 3.0  # seconds between two looks at the memory, which cost the run some 60 ms of a core each


@dataclass(frozen=True, slots=True)
class Usage:
    """What a command took."""

    seconds: float
    """Wall time."""
    peak_bytes: int
    """Most memory of the command and all its descendants together; shared pages count once. 0 where the
    system does not say (it is read from /proc)."""
    exit_code: int


def measured(command: Sequence[str]) -> Usage:
    """Run a command to its end, what it prints going where ours goes."""
    begun, peak = time.perf_counter(), 0
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            peak = max(peak, sum(map(_memory, family(process.pid))))
            time.sleep(_LOOK_EVERY)
    return Usage(time.perf_counter() - begun, peak, process.returncode)


def run_recipe(recipe: str, out: Path, overrides: Sequence[str] = ()) -> Usage:
    """Bring a run to its end; return what all of its invocations took together.

    What is up to date stays as it is, and an invocation that finds all of it so is not counted. The record
    lies in the run's folder, so a run is measured once and read ever after. Of a run with stages that were
    begun without a record nothing is known, and all figures are 0. Raises `SystemExit` with the code of a
    failure.
    """
    record = out / "bench.json"
    before = jsonl.loads(record.read_bytes()) if record.is_file() else []
    begun = _stages_begun(out)
    known = begun == (before[-1].get("begun", begun) if before else 0)
    if not known:  # a part of the time would pass for the whole
        record.unlink(missing_ok=True)
    usage = measured([*R1PIPE, "run", recipe, "--out", str(out), *(f"--set={each}" for each in overrides)])
    if known and (now := _stages_begun(out)) > begun:
        jsonl.write_json(record, [*before, {**asdict(usage), "begun": now}])
    if usage.exit_code:
        raise SystemExit(usage.exit_code)
    all_of_them = jsonl.loads(record.read_bytes()) if record.is_file() else []
    seconds = sum(each["seconds"] for each in all_of_them)
    return Usage(seconds, max((each["peak_bytes"] for each in all_of_them), default=0), 0)


def _stages_begun(run: Path) -> int:
    if not (run / "run.json").is_file():
        return 0
    return sum(event["event"] == "stage_started" for event in RunFiles(run).events)


def family(root: int) -> Iterator[int]:
    """A process and its descendants, those that lead a group of their own included."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:  # after the name in parentheses, which may hold anything, come the state and the parent
            parent = int((folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue
        children.setdefault(parent, []).append(int(folder.name))
    waiting = [root]
    while waiting:
        yield (pid := waiting.pop())
        waiting += children.get(pid, ())


def cpu_seconds() -> float:
    """What this process and its descendants have spent, in seconds, to a hundredth."""
    ticks = 0
    for pid in family(os.getpid()):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> int:
    """Proportional set size, in bytes."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def model_of(run: Path, stage: str) -> Path:
    """The folder of a checkpoint: a stage's newest in a run, or `<run>/<stage>` itself."""
    if (run / stage / "config.json").is_file():
        return run / stage
    versions = sorted((run / "artifacts" / stage).glob("v*"))
    if not versions:
        raise SystemExit(f"{run} has no {stage!r}; name a finished run of tiny-r1 by --run.")
    return versions[-1]


def machine() -> dict[str, Any]:
    """The machine and the software a figure was measured with."""
    return {
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(int((_field("/proc/meminfo", "MemTotal") or "0").split()[0]) / 2**20, 1),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "libraries": dict(library_versions()),
    }


def _field(path: str, name: str) -> str:
    file = Path(path)
    lines = file.read_text().splitlines() if file.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def machine_line(found: dict[str, Any]) -> str:
    """The machine in one sentence."""
    libraries = ", ".join(f"{name} {version}" for name, version in found["libraries"].items())
    return (
        f"{found['processor']}, {found['cores']} cores, {found['memory_gib']} GiB, {found['system']}; "
        f"{libraries}."
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is words, the others are numbers."""
    rule = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, rule, *rows))


def write_result(out: Path, result: dict[str, Any], page: str) -> None:
    """Write the figures as JSON, the page beside them as Markdown, and show the page."""
    jsonl.write_json(out, result)
    jsonl.write_text(out.with_suffix(".md"), page)
    sys.stdout.write(page)
