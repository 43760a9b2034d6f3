"""Starting the ranks of a stage by accelerate's launcher, and keeping watch over them.

The launcher (`accelerate launch` with a config of recipes/accelerate/) runs in the stage's own process; it
starts the ranks and makes them find each other. Beside it a thread listens to every rank on a socket: what the
first one tells is passed on, `stop` is passed down, and when one dies all are ended, as they would wait for it.
"""

import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import Any, Final

import torch
from accelerate.commands.launch import launch_command, launch_command_parser
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from r1pipe import errors, jsonl, machine, shipped
from r1pipe.errors import EnvironmentUnfit, Interrupted, R1pipeError, RunFailed, UsageError
from r1pipe.parallel import ParallelConfig, lacks
from r1pipe.stage import Inputs, Outcome, Work, references
from r1pipe.train.rank import STOP

MEETING_SECONDS: Final = 300.0
"""In which the ranks must have started and found each other."""
_LOOK_SECONDS = 0.2


def on_processes(config: ParallelConfig, inputs: Inputs, work: Work) -> Outcome:
    """Run the stage of `config` on its processes, each a call of the stage's `run` with a rank.

    Raises what the rank that failed first raised, `RunFailed` where one died without a word (the message
    says of what, and where its log is), and `Interrupted` after a stop that was asked for.
    """
    here = config.processes // config.nodes
    if missing := lacks(config.parallel, here):
        raise EnvironmentUnfit(" ".join(missing))
    on_gpu = torch.cuda.is_available()
    work.say(
        f"Training on {config.processes} processes ({config.parallel}), "
        f"{'one for each GPU' if on_gpu else 'on the CPU'}."
    )
    logs = work.logs or work.dir
    with tempfile.TemporaryDirectory(prefix="r1pipe-") as folder:  # an address has to be short
        address = str(Path(folder) / "ranks")
        job = _job(config, inputs, work) | {"address": address, "logs": str(logs), "on_gpu": on_gpu}
        jsonl.write_json(work.dir / "job.json", job)
        with _Watched(address, here, work) as watched:
            exits = _launch(config, work.dir / "job.json", on_gpu)
    return watched.outcome(exits, logs)


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
    os.environ |= {"ACCELERATE_USE_CPU": str(not on_gpu).lower(), "PYTHONPATH": _python_path()}
    try:
        launch_command(args)
    except ChildFailedError as error:
        return {rank: failure.exitcode for rank, failure in error.failures.items()}
    finally:
        os.environ.clear()
        os.environ.update(before)
    return {}


def _python_path() -> str:
    """The ranks import the same r1pipe as this process."""
    root = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))


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


class _Watched:
    """The thread that listens to the ranks of this machine."""

    def __init__(self, address: str, count: int, work: Work) -> None:
        self._count = count
        self._work = work
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(address)
        self._server.listen(count)
        self._ranks: list[_Rank] = []
        self._first: _Rank | None = None
        """The rank that broke first."""
        self._late = ""
        """What was waited for in vain."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "_Watched":
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

    def outcome(self, exits: Mapping[int, int], logs: Path) -> Outcome:
        """What the first rank handed back. Raises what went wrong."""
        words = {rank.number: rank.end for rank in self._ranks}
        first = words.get(0, {})
        if self._first is None and first.get("what") == "stopped":
            raise Interrupted(first["text"])
        if first.get("what") != "done":
            raise self._failure(exits, logs)
        cost = {
            "peak_rss_bytes": sum(word.get("peak_rss_bytes", 0) for word in words.values()),
            "device": first["device"] if self._count == 1 else f"{self._count} x {first['device']}",
        }
        told = first["outcome"]
        return Outcome(told["kind"], Path(told["path"]), told["metrics"], told["tokens"], cost)

    def _failure(self, exits: Mapping[int, int], logs: Path) -> R1pipeError:
        if self._first is None:
            dead = min(exits, default=0)
            reason = self._late or f"rank {dead} {_death(exits.get(dead))}"
            return RunFailed(f"{reason}. {_log(logs, self._work.name, dead)}")
        rank = self._first
        if not rank.end:
            local = rank.number - min(each.number for each in self._ranks)
            died = _death(exits.get(local))
            return RunFailed(
                f"rank {rank.number} (process {rank.pid}) {died}; the others were ended, as they would have "
                f"waited for it. {_log(logs, self._work.name, rank.number)}"
            )
        kinds = {kind.exit_code: kind for kind in (UsageError, errors.EnvironmentUnfit, errors.Conflict)}
        kind = kinds.get(rank.end["exit_code"], RunFailed)
        said = rank.end["error"].rstrip(".")
        return kind(f"{said}. {_log(logs, self._work.name, rank.number)}" if rank.number else said)

    # The thread

    def _watch(self) -> None:
        deadline, stopping = time.monotonic() + MEETING_SECONDS, False
        while not self._over.is_set():
            self._listen()
            if self._work.stopping() and not stopping:
                stopping = self._pass_stop()
            met = len(self._ranks) == self._count and all(rank.ready for rank in self._ranks)
            if not met and time.monotonic() > deadline:
                waited = [rank.number for rank in self._ranks if not rank.ready]
                self._late = (
                    f"the ranks did not find each other within {MEETING_SECONDS:.0f} seconds: "
                    f"{len(self._ranks)} of {self._count} started, {waited or 'none'} of them still waiting"
                )
                self._kill()
                return

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
        if broken and self._first is None:
            # Whoever died says nothing; what the others say then is that they miss it.
            self._first = min(broken, key=lambda rank: bool(rank.end))
            self._kill()
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
                rank.end = message
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
        for rank in self._ranks:
            if rank.pid and rank.end.get("what") not in ("done", "stopped"):
                with suppress(OSError):
                    os.killpg(rank.pid, signal.SIGKILL)


def _death(exit_code: int | None) -> str:
    if exit_code == -signal.SIGKILL:
        return "was killed, as the system does when memory is out; a smaller micro-batch needs less"
    if exit_code is not None and exit_code < 0:
        return f"was ended by {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code} and said nothing"


def _log(logs: Path, stage: str, rank: int) -> str:
    return f"Its log is {logs / (f'{stage}.rank{rank}.log' if rank else f'{stage}.log')}"
