"""Being one of the other machines of a run: its share of the ranks, stage after stage.

The run belongs to the first machine, which plans, reports and publishes. The others see its folder on a
shared disk: when a stage there starts ranks, they start theirs with the same job, and accelerate's rendezvous
brings them together.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Final, cast

from r1pipe import jsonl, machine
from r1pipe.errors import RunFailed
from r1pipe.parallel import ParallelConfig
from r1pipe.stage import StageModule, Work
from r1pipe.train.launching import JOB, NODE_FAILED, launch_ranks

BEGIN_SECONDS: Final = 600.0
"""In which the first machine must have begun the run."""
BETWEEN_SECONDS: Final = 24 * 3600.0
"""How long a machine waits for the next stage to join, while stages run that are one process."""
ENDED: Final = "ended.json"
"""What the first machine leaves in the run's folder at its end, for machines that have not seen it begin."""
ENDED_SECONDS: Final = 30.0
"""How long before this machine began the end may have been, and how long it is watched for a new begin."""
_LOOK_SECONDS = 0.5


class _Nobody:
    def event(self, kind: str, stage: str, **fields: Any) -> None:
        """Tell nobody: the first machine tells it all."""


@contextmanager
def telling_the_end(run_dir: Path) -> Iterator[None]:
    """Be the first machine: leave a mark at the end, as a run that is up to date ends before others look."""
    mark = run_dir / ENDED
    mark.unlink(missing_ok=True)
    try:
        yield
    finally:
        with suppress(OSError, RunFailed):  # on a full disk the others wait in vain, and say so
            jsonl.write_json(mark, {"batch_job": machine.batch_job()})


def join(run_dir: Path) -> int:
    """Take part in a run until the first machine ends it; return how many trainings that were.

    Raises `RunFailed` where the run does not begin, or nothing more comes of it, in time.
    """
    note, done, seen = run_dir / "lock.json", set[str](), False
    began, deadline, ended = time.time(), time.monotonic() + BEGIN_SECONDS, 0.0
    while time.monotonic() < deadline:
        if not note.exists():
            if seen:
                return len(done)
            if not _has_ended(run_dir, began):
                ended = 0.0
            elif time.monotonic() > (ended := ended or time.monotonic()) + ENDED_SECONDS:
                return 0
        else:
            if not seen:
                seen, deadline = True, time.monotonic() + BETWEEN_SECONDS
            for job in _jobs(run_dir, note):
                if job["launch"] not in done:
                    done.add(job["launch"])
                    _take_part(job)
                    deadline = time.monotonic() + BETWEEN_SECONDS
        time.sleep(_LOOK_SECONDS)
    raise RunFailed(
        f"Machine {machine.node_rank()} waited for the first one in vain: {note} shows "
        f"{'a run that trains nothing on several machines' if seen else 'no run'}. Look at the first "
        "machine's output, and whether all see one disk and one MASTER_ADDR."
    )


def _has_ended(run_dir: Path, began: float) -> bool:
    """Whether the run that this machine was to join ended before it could be seen; not one long before."""
    with suppress(OSError):
        mark = run_dir / ENDED
        told = jsonl.loads(mark.read_bytes())
        return mark.stat().st_mtime > began - ENDED_SECONDS and told["batch_job"] == machine.batch_job()
    return False


def _jobs(run_dir: Path, note: Path) -> list[dict[str, Any]]:
    """What is being launched on several machines just now; what a run before this one left is passed over."""
    found = []
    for path in run_dir.glob(f"work/*/{JOB}"):
        with suppress(OSError):  # the stage may end, and its folder go, at any time
            if path.stat().st_mtime >= note.stat().st_mtime:
                job = jsonl.loads(path.read_bytes())
                if job["config"]["nodes"] > machine.node_rank() and job["batch_job"] == machine.batch_job():
                    found.append(job)
    return found


def _take_part(job: dict[str, Any]) -> None:
    """Run this machine's ranks; what goes wrong is written down for the first machine, which says it."""
    config = cast(StageModule, import_module(job["module"])).Config.model_validate(job["config"])
    paths = [Path(job[key]) for key in ("dir", "metrics", "logs")]
    rank = machine.node_rank()
    work = Work(paths[0], job["name"], job["seed"], _Nobody(), paths[1], logs=paths[2], rank=rank)
    monitor, exits = launch_ranks(cast(ParallelConfig, config), job, work)
    if (error := monitor.error(exits)) and paths[0].is_dir():
        said = {"error": f"machine {rank} ({socket.gethostname()}): {error}"}
        jsonl.write_json(paths[0] / f"{NODE_FAILED}{rank}.json", said)
