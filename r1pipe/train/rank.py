"""One rank of a stage that trains on several processes: `python -m r1pipe.train.rank JOB`.

accelerate's launcher starts it (see `launching`). It runs the stage as one process would, with a `Work` that
knows its rank, and tells the launching process what happens through a socket. When that socket closes, the
launching process is gone, and the rank ends itself.
"""

import os
import signal
import socket
import sys
import traceback
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

from r1pipe import jsonl, machine
from r1pipe.artifact import Artifact
from r1pipe.errors import Interrupted, R1pipeError
from r1pipe.manifest import load_manifest
from r1pipe.parallel import ParallelConfig
from r1pipe.reporting import Reporter, last_word
from r1pipe.stage import Inputs, StageModule, Work


def _call(address: str, rank: int) -> Reporter:
    """Call whoever launched this rank, and say who it is."""
    with socket.socket(socket.AF_UNIX) as plain:
        plain.connect(address)
        line = Reporter(Connection(plain.detach()))
    line.send("hello", rank=rank, pid=os.getpid())
    return line


def main(path: str) -> int:
    """Do the job; return the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the launching process says when to stop
        signal.signal(number, signal.SIG_IGN)
    machine.die_with_the_parent()
    job, rank = jsonl.loads(Path(path).read_bytes()), int(os.environ["RANK"])
    if rank:
        machine.print_into(Path(job["logs"]) / f"{job['name']}.rank{rank}.log")
    line = _call(job["address"], rank)
    try:
        outcome = _run(job, rank, line)
    except R1pipeError as error:
        stopped = isinstance(error, Interrupted)
        if not stopped:
            traceback.print_exc()
        line.send(**last_word(error))
        return int(not stopped)
    except BaseException as error:
        traceback.print_exc()
        line.send(**last_word(error))
        raise
    line.send("done", outcome=outcome, peak_rss_bytes=machine.peak_rss(), device=machine.device())
    return 0


def _run(job: dict[str, Any], rank: int, line: Reporter) -> dict[str, Any]:
    machine.use_threads(job["threads"])
    from r1pipe.train import ranks

    module = cast(StageModule, import_module(job["module"]))
    config = cast(ParallelConfig, module.Config.model_validate(job["config"]))
    ranks.meet(job["on_gpu"], config.wait_minutes)
    line.send("ready")
    given = {
        role: [
            (label, Artifact(Path(path), kind, load_manifest(Path(path)))) for label, path, kind in several
        ]
        for role, several in job["inputs"].items()
    }
    paths = Path(job["dir"]), Path(job["metrics"]), Path(job["logs"])
    work = Work(paths[0], job["name"], job["seed"], line, paths[1], line.stop, paths[2], rank)
    with ranks.patience(config.wait_minutes):
        outcome = module.run(config, Inputs(given), work)
        ranks.barrier()  # nobody leaves while another still needs it
    return {
        "kind": outcome.kind,
        "path": str(outcome.path),
        "metrics": outcome.metrics,
        "tokens": outcome.tokens,
    }


if __name__ == "__main__":
    code = main(sys.argv[1])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # the libraries' threads have nothing more to say, and some of them hang
