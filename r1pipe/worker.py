"""One stage in a process of its own: what it is sent, how it reports, how it ends.

The parent and the child share one pipe. The child sends JSON: events while it works, then what came of it.
The parent sends one word, `stop`; when its end closes, the parent is gone and the child ends itself, so that
nobody writes in a run that nobody holds.
"""

import errno
import os
import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import filelock

from r1pipe import jsonl, machine
from r1pipe.artifact import Artifact, Cost, Manifest, Parent
from r1pipe.errors import R1pipeError
from r1pipe.external import open_external
from r1pipe.hub import is_hub_id
from r1pipe.plan import Given, Step
from r1pipe.recipe import StageSpec
from r1pipe.reporting import Reporter, last_word
from r1pipe.run import BEGUN, RunFolder
from r1pipe.stage import Inputs, Outcome, StageConfig, StageModule, Work, counted

_LOCK_SECONDS = 30  # for the child of a parent that was just killed to notice it


@dataclass(frozen=True, slots=True)
class StageJob:
    """All that a child needs to run one stage."""

    module: str
    spec: StageSpec
    step: Step
    seed: int
    run_dir: Path


def run_stage(job: StageJob, pipe: Connection) -> None:
    """Run and publish one stage, and tell the parent; the body of a child process."""
    folder, name = RunFolder(job.run_dir), job.spec.name
    _live_and_die_with_the_parent(pipe)
    machine.print_into(folder.log(name))
    machine.use_threads(job.spec.config.threads)
    with _Report(pipe, job.run_dir) as report:
        # Held for as long as this process lives, so that nobody takes up the work of one that is still dying.
        lock = filelock.FileLock(folder.work(name).with_name(f".{name}.lock"), timeout=_LOCK_SECONDS)
        with lock, _spent(folder.work(name) / BEGUN) as spent:
            logs = folder.log(name).parent
            work = Work(folder.work(name), name, job.seed, report, folder.metrics(name), report.stop, logs)
            inputs = _open_inputs(job)
            module = cast(StageModule, import_module(job.module))
            outcome = module.run(job.spec.config, inputs, work)
            manifest = _manifest(job, module.VERSION, inputs, outcome, spent.so_far())
            artifact = folder.store.publish(name, outcome.path, manifest, outcome.card)
            report.send("done", path=str(artifact.path))


def run_checks(checks: Mapping[str, tuple[str, StageConfig]], pipe: Connection) -> None:
    """Run each stage's own `check` and send what it finds; the body of a child process."""
    _live_and_die_with_the_parent(pipe)
    with _Report(pipe, Path.cwd()) as report:
        found = {
            name: asdict(import_module(module).check(config)) for name, (module, config) in checks.items()
        }
        report.send("checked", findings=found)


# --- Reporting


class _Report(Reporter):
    """The child's end of the pipe. On the way out it says what went wrong; the traceback goes to the log."""

    def __init__(self, pipe: Connection, run_dir: Path) -> None:
        super().__init__(pipe)
        self._run_dir = run_dir

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            return
        told = isinstance(error, R1pipeError)
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or _is_full(self._run_dir)
        if full and not told:
            self.send("failed", error=f"the disk of '{self._run_dir}' is full; free some space", exit_code=1)
        else:
            self.send(**last_word(error))


def _is_full(folder: Path) -> bool:
    """Libraries wrap the system's 'no space left' in errors of their own; so look at the disk itself."""
    return os.statvfs(folder).f_bavail == 0


# --- The process


def _live_and_die_with_the_parent(pipe: Connection) -> None:
    """Be a group of its own, which Ctrl-C in the terminal does not reach: the parent says when to stop."""
    os.setpgid(0, 0)
    machine.die_with_the_parent()  # should the server that forked this process be killed


# --- The stage


def _open_inputs(job: StageJob) -> Inputs:
    given: dict[str, list[tuple[str, Artifact]]] = {}
    for each in job.step.inputs:
        artifact = each.artifact or open_external(each.kind, each.label)
        given.setdefault(each.role, []).append((each.label, artifact))
    return Inputs(given)


def _manifest(
    job: StageJob, version: int, inputs: Inputs, outcome: Outcome, cost: Mapping[str, float]
) -> Manifest:
    seen: dict[str, int] = {}
    parents = []
    for each in job.step.inputs:
        place = seen[each.role] = seen.get(each.role, -1) + 1
        artifact = inputs.many(each.role)[place]
        parents.append(_parent(each, artifact, job.run_dir))
    return Manifest(
        kind=outcome.kind,
        stage=job.spec.name,
        verb=job.spec.uses,
        stage_version=version,
        fingerprint=job.step.fingerprint,
        parents=tuple(parents),
        config=job.spec.config.model_dump(mode="json"),
        fingerprint_config=counted(job.spec.config),
        seed=job.seed,
        metrics=outcome.metrics,
        cost=Cost(
            tokens=outcome.tokens,
            **{"peak_rss_bytes": machine.peak_rss(), "device": machine.device(), **outcome.cost, **cost},
        ),
    )


def _parent(given: Given, artifact: Artifact, run_dir: Path) -> Parent:
    path, run = artifact.path.resolve(), run_dir.resolve()
    path = path.relative_to(run) if path.is_relative_to(run) else path
    name = given.label if is_hub_id(given.label) else artifact.name
    return Parent(role=given.role, name=name, fingerprint=given.fingerprint, path=path.as_posix())


class _Spent:
    """The time a stage has taken, over all attempts that could still write it down."""

    def __init__(self, begun: Mapping[str, Any]) -> None:
        self._before = begun
        self._wall, self._cpu = time.monotonic(), _cpu_seconds()

    def so_far(self) -> dict[str, float]:
        """Return wall and CPU seconds, those of child processes that ended included."""
        seconds = self._before["seconds"] + time.monotonic() - self._wall
        cpu_seconds = self._before["cpu_seconds"] + _cpu_seconds() - self._cpu
        return {"seconds": round(seconds, 3), "cpu_seconds": round(cpu_seconds, 3)}


@contextmanager
def _spent(begun: Path) -> Iterator[_Spent]:
    before = jsonl.loads(begun.read_bytes())
    spent, whole = _Spent(before), False
    try:
        yield spent
        whole = True
    finally:
        if not whole:
            jsonl.write_json(begun, before | spent.so_far())


def _cpu_seconds() -> float:
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
