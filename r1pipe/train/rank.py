"""One rank of a stage that trains on several processes: `python -m r1pipe.train.rank JOB`.

accelerate's launcher starts it (see `launching`). It runs the stage as one process would, with a `Work` that
knows its rank, and tells the launching process what happens through a socket. When that socket closes, the
launching process is gone, and the rank ends itself.
"""

import os
import signal
import socket
import sys
import threading
import traceback
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

from r1pipe import jsonl, machine
from r1pipe.artifact import Artifact
from r1pipe.errors import Interrupted, R1pipeError
from r1pipe.manifest import load_manifest
from r1pipe.stage import Inputs, StageModule, Work

STOP = b"stop"


class _Line:
    """This rank's end of the socket: its `Sink`, and how it hears that it is to stop."""

    def __init__(self, address: str, rank: int) -> None:
        self.stop = threading.Event()
        with socket.socket(socket.AF_UNIX) as plain:
            plain.connect(address)
            self._pipe = Connection(plain.detach())
        self._one_at_a_time = threading.Lock()
        self.send("hello", rank=rank, pid=os.getpid())
        threading.Thread(target=self._listen, daemon=True).start()

    def send(self, what: str, **fields: Any) -> None:
        """Send one message."""
        with self._one_at_a_time:
            self._pipe.send_bytes(jsonl.dumps({"what": what, **fields}))

    def event(self, kind: str, stage: str, **fields: Any) -> None:
        """Pass an event on."""
        self.send("event", kind=kind, fields=fields)

    def _listen(self) -> None:
        try:
            while self._pipe.recv_bytes() == STOP:
                self.stop.set()
        except (EOFError, OSError):
            os.killpg(0, signal.SIGKILL)  # whoever launched this is gone; judges of programs go with it


def main(path: str) -> int:
    """Do the job; return the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the launching process says when to stop
        signal.signal(number, signal.SIG_IGN)
    machine.die_with_the_parent()
    job, rank = jsonl.loads(Path(path).read_bytes()), int(os.environ["RANK"])
    if rank:
        machine.print_into(Path(job["logs"]) / f"{job['name']}.rank{rank}.log")
    line = _Line(job["address"], rank)
    try:
        outcome = _run(job, rank, line)
    except Interrupted as error:
        line.send("stopped", text=str(error))
        return 0
    except R1pipeError as error:
        traceback.print_exc()
        line.send("failed", error=str(error), exit_code=error.exit_code)
        return 1
    except BaseException as error:
        traceback.print_exc()
        text = str(error).strip().splitlines()
        line.send("failed", error=f"{type(error).__name__}: {text[0] if text else ''}", exit_code=1)
        raise
    line.send("done", outcome=outcome, peak_rss_bytes=machine.peak_rss(), device=machine.device())
    return 0


def _run(job: dict[str, Any], rank: int, line: _Line) -> dict[str, Any]:
    machine.use_threads(job["threads"])
    from r1pipe.train import ranks

    ranks.meet(job["on_gpu"])
    line.send("ready")
    module = cast(StageModule, import_module(job["module"]))
    config = module.Config.model_validate(job["config"])
    given = {
        role: [
            (label, Artifact(Path(path), kind, load_manifest(Path(path)))) for label, path, kind in several
        ]
        for role, several in job["inputs"].items()
    }
    paths = Path(job["dir"]), Path(job["metrics"]), Path(job["logs"])
    work = Work(paths[0], job["name"], job["seed"], line, paths[1], line.stop, paths[2], rank)
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
