"""Starting the ranks of a stage by accelerate's launcher, and keeping watch over them.

The launcher (`accelerate launch` with a config of recipes/accelerate/) runs in the stage's own process; it
starts the ranks and makes them find each other. Beside it a thread listens to every rank on a socket: what
the first one tells is passed on, `stop` is passed down, and when one dies all are ended, as they would wait
for it for long.
"""

import math
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import Any, Final

import torch
from accelerate.commands.launch import launch_command, launch_command_parser
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from r1pipe import jsonl, machine, shipped
from r1pipe.errors import Conflict, EnvironmentUnfit, Interrupted, R1pipeError, RunFailed, UsageError
from r1pipe.parallel import ParallelConfig, lacking
from r1pipe.reporting import STOP, death
from r1pipe.stage import Inputs, Outcome, Work, references

MEETING_SECONDS: Final = 300.0
"""In which the ranks must have started and found each other."""
WORDS_SECONDS: Final = 1.5
"""For which a rank that fails with an error is not believed to be the first, should another have died."""
LEAVING_SECONDS: Final = 30.0
"""In which the others must have ended after the first rank has said its last word."""
AFAR_SECONDS: Final = 10.0
"""In which another machine that failed first has said so on the shared disk."""
JOB: Final = "job.json"
"""What is to be done, in the stage's work folder; machines that join a run look for it."""
NODE_FAILED: Final = "failed.node"
"""Begins the name of the file in which a joined machine says what went wrong there."""
_LOOK_SECONDS = 0.2


def on_processes(config: ParallelConfig, inputs: Inputs, work: Work) -> Outcome:
    """Run the stage of `config` on its processes, each a call of the stage's `run` with a rank.

    Raises what the rank that failed first raised, `RunFailed` where one died without a word (the message
    says of what, and where its log is), and `Interrupted` after a stop that was asked for.
    """
    here = config.processes // config.nodes
    if missing := lacking(config.parallel, here):
        raise EnvironmentUnfit(" ".join(missing))
    on_gpu = torch.cuda.is_available()
    where = "one for each GPU" if on_gpu else "on the CPU"
    work.say(f"Training on {config.processes} processes ({config.parallel}), {where}.")
    for old in work.dir.glob(f"{NODE_FAILED}*"):
        old.unlink()
    monitor, exits = launch_ranks(config, _job(config, inputs, work) | {"on_gpu": on_gpu}, work)
    first = monitor.ends.get(0, {})
    if error := monitor.error(exits):
        raise _root_cause(error, config, work)
    if first["what"] == "stopped":
        raise Interrupted(first["text"])
    cost = {
        "peak_rss_bytes": sum(word.get("peak_rss_bytes", 0) for word in monitor.ends.values()),
        "device": f"{config.processes} x {first['device']}",
    }
    told = first["outcome"]
    return Outcome(told["kind"], Path(told["path"]), told["metrics"], told["tokens"], cost)


def _root_cause(error: R1pipeError, config: ParallelConfig, work: Work) -> R1pipeError:
    """What another machine has to say, if anything: a rank here may only have missed one that died there."""
    deadline = time.monotonic() + (AFAR_SECONDS if config.nodes > 1 else 0)
    while not (said := _from_afar(work)) and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
    return RunFailed(said) if said else error


def _from_afar(work: Work) -> str:
    """What went wrong on a machine that joined the run, in its words."""
    failed = sorted(work.dir.glob(f"{NODE_FAILED}*"))
    return str(jsonl.loads(failed[0].read_bytes())["error"]) if failed else ""


def launch_ranks(
    config: ParallelConfig, job: Mapping[str, Any], work: Work
) -> tuple["RankMonitor", dict[int, int]]:
    """Start this machine's ranks of a job and wait for their end.

    Returns what was heard of them, and the exit codes of those that failed, by their place on this machine.
    """
    path = work.dir / (f"job.node{machine.node_rank()}.json" if machine.node_rank() else JOB)
    with tempfile.TemporaryDirectory(prefix="r1pipe-") as folder:  # the address of a socket has to be short
        address = str(Path(folder) / "ranks")
        with RankMonitor(address, config, work) as monitor:
            jsonl.write_json(path, {**job, "address": address})
            exits = _launch(config, path, job["on_gpu"])
    return monitor, exits


def _job(config: ParallelConfig, inputs: Inputs, work: Work) -> dict[str, Any]:
    """All that a rank needs, as JSON."""
    given = {
        role: [
            (label, str(artifact.path.resolve()), artifact.kind)
            for label, artifact in zip(inputs.labels(role), inputs.many(role), strict=True)
        ]
        for role in {reference.role for reference in references(config)}
    }
    return {
        "module": type(config).__module__,
        "config": config.model_dump(mode="json"),
        "inputs": given,
        "name": work.name,
        "seed": work.seed,
        "threads": config.threads,
        "logs": str((work.logs or work.dir).resolve()),
        "launch": uuid.uuid4().hex,
        "batch_job": machine.batch_job(),
        "dir": str(work.dir.resolve()),
        "metrics": str(work.metrics.resolve()),
    }


def _launch(config: ParallelConfig, job: Path, on_gpu: bool) -> dict[int, int]:
    """Start the ranks and wait for their end; return the exit codes of those that failed."""
    address, port = machine.main_address()
    options: dict[str, Any] = {
        "config_file": shipped.accelerate_config(config.parallel),
        "num_processes": config.processes,
        "num_machines": config.nodes,
        "machine_rank": machine.node_rank(),
        "main_process_ip": address,
        "main_process_port": port if config.nodes > 1 else 0,  # 0: whatever is free
        "num_cpu_threads_per_process": config.threads,
    }
    told = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    args = launch_command_parser().parse_args([*told, "--module", "r1pipe.train.rank", str(job.resolve())])
    args.signals_to_handle = "SIGQUIT"  # Ctrl-C and SIGTERM stay the business of the run's process
    before = dict(os.environ)
    # The ranks import what this process would, wherever it was started.
    path = os.pathsep.join([str(Path(__file__).resolve().parents[2]), *filter(None, sys.path)])
    cpu = str(not on_gpu).lower()
    os.environ |= {"ACCELERATE_USE_CPU": cpu, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    try:
        launch_command(args)
    except ChildFailedError as error:
        return {rank: failure.exitcode for rank, failure in error.failures.items()}
    finally:
        os.environ.clear()
        os.environ.update(before)
    return {}


@dataclass
class _Rank:
    """What is known of one rank of this machine."""

    pipe: connection.Connection
    number: int = -1
    pid: int = 0
    ready: bool = False
    gone: bool = False
    end: dict[str, Any] = field(default_factory=dict)
    """Its last word."""


class RankMonitor:
    """The ranks of this machine, and the thread that listens to them."""

    def __init__(self, address: str, config: ParallelConfig, work: Work) -> None:
        self._count = config.processes // config.nodes
        self._joined = config.nodes > 1
        self._wait_minutes = config.wait_minutes
        self._work = work
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(address)
        self._server.listen(self._count)
        self._ranks: list[_Rank] = []
        self._first: _Rank | None = None
        """The rank that broke first."""
        self._trouble = ""
        """What else went wrong."""
        self._last_word = 0.0
        self._killed = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "RankMonitor":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        while self._listen(0):  # what they said before they went is still in the pipes
            pass
        self._kill()
        for rank in self._ranks:
            rank.pipe.close()
        self._server.close()

    @property
    def ends(self) -> dict[int, dict[str, Any]]:
        """The last word of each rank that said one."""
        return {rank.number: rank.end for rank in self._ranks if rank.end}

    def error(self, exits: Mapping[int, int]) -> R1pipeError | None:
        """What went wrong, in the words of the rank that broke first; None if all went well."""
        if self._trouble:
            return RunFailed(self._trouble)
        if (rank := self._first) is None:
            if len(self.ends) == self._count or self._is_over():
                return None
            place = min(exits, default=0)
            return RunFailed(f"rank {place} {death(exits.get(place))}. {self._log(place)}")
        if not rank.end:
            exit_code = exits.get(rank.number - min(each.number for each in self._ranks))
            died = death(exit_code)
            if exit_code == -signal.SIGABRT:
                died += (
                    f", as nccl ends one that waited longer than wait_minutes = {self._wait_minutes:g} for "
                    "another; its log says whether it did"
                )
            return RunFailed(
                f"rank {rank.number} (process {rank.pid}) {died}. The others were ended, as they would have "
                f"waited for it. {self._log(rank.number)}"
            )
        kinds = {kind.exit_code: kind for kind in (UsageError, EnvironmentUnfit, Conflict)}
        kind = kinds.get(rank.end["exit_code"], RunFailed)
        said = rank.end["error"].rstrip(".")
        return kind(f"{said}. {self._log(rank.number)}" if rank.number else said)

    def _log(self, rank: int) -> str:
        name = f"{self._work.name}.rank{rank}.log" if rank else f"{self._work.name}.log"
        return f"Its log is {(self._work.logs or self._work.dir) / name}"

    # The thread

    def _watch(self) -> None:
        deadline, stopping, broke = time.monotonic() + MEETING_SECONDS, False, math.inf
        while not self._over.is_set():
            self._listen()
            if self._work.stopping() and not stopping:
                stopping = self._pass_stop()
            met = len(self._ranks) == self._count and all(rank.ready for rank in self._ranks)
            if self._first is not None:
                broke = min(broke, time.monotonic())
                if not self._first.end or time.monotonic() > broke + WORDS_SECONDS:
                    self._kill()
            elif not met and time.monotonic() > deadline:
                self._give_up(
                    f"the ranks did not find each other within {MEETING_SECONDS:.0f} seconds; "
                    f"{len(self._ranks)} of {self._count} had started. {self._log(0)}"
                )
            elif self._is_over() and time.monotonic() > self._last_word + LEAVING_SECONDS:
                self._kill()
                return
            elif self._joined and (said := _from_afar(self._work)):
                self._give_up(said)

    def _is_over(self) -> bool:
        """Whether the first rank is through; what becomes of the others then is no matter."""
        return self.ends.get(0, {}).get("what") in ("done", "stopped")

    def _give_up(self, trouble: str) -> None:
        self._trouble = self._trouble or trouble
        self._kill()

    def _listen(self, seconds: float = _LOOK_SECONDS) -> bool:
        """Take what the ranks say within so many seconds; return whether there was anything."""
        waiting = {rank.pipe: rank for rank in self._ranks if not rank.gone and not rank.end}
        broken = []
        signs = connection.wait([self._server, *waiting], timeout=seconds)
        for sign in signs:
            if sign is self._server:
                self._ranks.append(_Rank(connection.Connection(self._server.accept()[0].detach())))
            elif not self._hear(waiting[sign]):  # type: ignore[index]
                broken.append(waiting[sign])  # type: ignore[index]
        for rank in broken:
            # Whoever died says nothing; what the others say is that they miss it, and some say it sooner.
            if not self._killed and not self._is_over() and (self._first is None or not rank.end):
                self._first = rank if self._first is None or self._first.end else self._first
        return bool(signs)

    def _hear(self, rank: _Rank) -> bool:
        """Take what a rank says; return whether it is well."""
        try:
            message = jsonl.loads(rank.pipe.recv_bytes())
        except (EOFError, OSError):
            rank.gone = True
            return False
        match message["what"]:
            case "hello":
                rank.number, rank.pid = message["rank"], message["pid"]
            case "ready":
                rank.ready = True
            case "event":
                self._work.sink.event(message["kind"], self._work.name, **message["fields"])
            case _:
                rank.end, self._last_word = message, time.monotonic()
        return message["what"] != "failed"

    def _pass_stop(self) -> bool:
        """Ask the first rank to stop, which tells the others where they all can; return whether it heard."""
        for rank in self._ranks:
            if rank.number == 0 and rank.ready:
                with suppress(OSError):
                    rank.pipe.send_bytes(STOP)
                return True
        return False

    def _kill(self) -> None:
        """End what is left of the ranks; each leads a process group of its own."""
        self._killed = True
        for rank in self._ranks:
            if rank.pid and rank.end.get("what") not in ("done", "stopped"):
                with suppress(OSError):
                    os.killpg(rank.pid, signal.SIGKILL)
