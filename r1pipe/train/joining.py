"""Being one of the other machines of a run: its share of the ranks, stage after stage.

The run belongs to the first machine, which plans, reports and publishes. The others see its folder on a
shared disk: when a stage there starts ranks, they start theirs with the same job, and accelerate's rendezvous
brings them together.
"""

import socket
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Final, cast

from r1pipe import jsonl, machine
from r1pipe.errors import RunFailed
from r1pipe.parallel import ParallelConfig
from r1pipe.stage import StageModule, Work
from r1pipe.train.launching import JOB, NODE_FAILED, watch

BEGIN_SECONDS: Final = 600.0
"""In which the first machine must have begun the run."""
BETWEEN_SECONDS: Final = 24 * 3600.0
"""How long a machine waits for the next stage to join, while stages run that are one process."""
_LOOK_SECONDS = 0.5


class _Nobody:
    def event(self, kind: str, stage: str, **fields: Any) -> None:
        """Tell nobody: the first machine tells it all."""


def join(run_dir: Path) -> int:
    """Take part in a run until the first machine ends it; return how many trainings that were.

    Raises `RunFailed` where the run does not begin, or nothing more comes of it, in time.
    """
    note, done, seen = run_dir / "lock.json", set[str](), False
    deadline = time.monotonic() + BEGIN_SECONDS
    while time.monotonic() < deadline:
        if not note.exists():
            if seen:
                return len(done)
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
    watched, exits = watch(cast(ParallelConfig, config), job, work)
    if (error := watched.error(exits)) and paths[0].is_dir():
        said = {"error": f"machine {rank} ({socket.gethostname()}): {error}"}
        jsonl.write_json(paths[0] / f"{NODE_FAILED}{rank}.json", said)
