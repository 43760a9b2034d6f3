"""Child processes: forked from a server that has loaded the heavy libraries, spoken to through a pipe."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import connection, forkserver
from multiprocessing.process import BaseProcess
from typing import Any

from r1pipe import jsonl
from r1pipe.reporting import STOP

_SERVER_ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",  # its threads do not survive a fork
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # asking CUDA itself would leave it unusable after the fork
    "OMP_NUM_THREADS": "1",  # each child sets its own number
}
_END_SECONDS = 30.0  # for a child that has said its last word to be gone


@dataclass
class Child:
    """A child process and this end of its pipe."""

    process: BaseProcess
    pipe: connection.Connection
    end: dict[str, Any] = field(default_factory=dict)
    """Its last word: what came of it."""
    over: bool = False
    """Whether it has said its last word, or died without one."""

    @classmethod
    def start(cls, body: Callable[..., None], job: Any, name: str) -> "Child":
        """Start a process that calls `body(job, pipe)`."""
        context = multiprocessing.get_context("forkserver")
        ours, theirs = context.Pipe()
        process = context.Process(target=body, args=(job, theirs), name=name)
        process.start()
        theirs.close()
        return cls(process, ours)

    @property
    def signs(self) -> list[Any]:
        """What to wait on: one of these is ready when the child says something or dies."""
        return [self.pipe, self.process.sentinel]

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield the events it has sent so far; then `end` and `over` are up to date."""
        dead = not self.process.is_alive()  # asked first: what it said before it died is still in the pipe
        with suppress(EOFError, ConnectionError):
            while self.pipe.poll():
                message = jsonl.loads(self.pipe.recv_bytes())
                if message["what"] == "event":
                    yield message
                else:
                    self.end = message
        self.over = dead or bool(self.end)

    def stop(self) -> None:
        """Ask it to save and stop."""
        with suppress(OSError):
            self.pipe.send_bytes(STOP)

    def kill(self) -> None:
        """End it, and whatever it has started, at once."""
        with suppress(OSError):
            os.killpg(self.process.pid or 0, signal.SIGKILL)
        self.process.kill()

    def close(self) -> None:
        """See to it that it is gone."""
        if self.end:
            self.process.join(_END_SECONDS)
        # It was not to end yet, a library's thread keeps it from ending, or it died and left others behind.
        if self.process.is_alive() or not self.end:
            self.kill()
            self.process.join()
        self.pipe.close()


def fork_server(preload: Sequence[str]) -> None:
    """Start the server that children are forked from, if it does not run yet; it ends with this process.

    Modules of `preload` that are not installed are passed over.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(["r1pipe.worker", *preload])
    before = dict(os.environ)
    os.environ.update({key: value for key, value in _SERVER_ENVIRONMENT.items() if key not in before})
    # Ctrl-C in a terminal reaches the server too; it inherits not to mind, and so do the children.
    with handling(signal.SIG_IGN):
        try:
            forkserver.ensure_running()
        finally:
            os.environ.clear()
            os.environ.update(before)


@contextmanager
def handling(handler: Any) -> Iterator[None]:
    """Handle Ctrl-C, and the SIGTERM of a batch system, in this way; only a main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
