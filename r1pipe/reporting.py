"""A process that works for another: it tells what happens through a pipe, and hears when it is to stop."""

import os
import signal
import threading
from multiprocessing.connection import Connection
from typing import Any, Final

from r1pipe import jsonl, watchdog
from r1pipe.errors import Interrupted, R1pipeError

STOP: Final = b"stop"
"""The one word that is sent to it."""


class Reporter:
    """The working process's end of the pipe: JSON up, `STOP` down, and the end of it all when it closes."""

    def __init__(self, pipe: Connection) -> None:
        self.stop = threading.Event()
        self._pipe = pipe
        self._one_at_a_time = threading.Lock()
        threading.Thread(target=self._listen, daemon=True).start()

    def send(self, what: str, **fields: Any) -> None:
        """Send one message."""
        with self._one_at_a_time:
            self._pipe.send_bytes(jsonl.dumps({"what": what, **fields}))

    def event(self, kind: str, stage: str, **fields: Any) -> None:
        """Pass an event on: the process's `Sink`."""
        self.send("event", kind=kind, fields=fields)

    def _listen(self) -> None:
        try:
            while self._pipe.recv_bytes() == STOP:
                self.stop.set()
        except (EOFError, OSError):
            # Whoever is worked for is gone; nothing here is worth a half-written file, and judges of programs
            # go with it.
            os.killpg(0, signal.SIGKILL)


def last_word(error: BaseException) -> dict[str, Any]:
    """What a process says that ends by an error."""
    if isinstance(error, Interrupted):
        return {"what": "stopped", "text": str(error)}
    if isinstance(error, R1pipeError):
        return {"what": "failed", "error": str(error), "exit_code": error.exit_code}
    text = str(error).strip().splitlines()
    return {"what": "failed", "error": f"{type(error).__name__}: {text[0] if text else ''}", "exit_code": 1}


def death(exit_code: int | None) -> str:
    """What became of a process that ended without a last word; follows what it is called."""
    if exit_code == -signal.SIGKILL:
        return "was killed, as the system does when memory is out; a smaller batch needs less"
    if exit_code == -watchdog.SIGNAL:
        return (
            "ended itself, as vLLM did not come back from a step, or from taking over weights, within the "
            "engine's `timeout`: the end of its log says where each thread stood, `nvidia-smi` whether a GPU "
            "hangs. Run it again, write `engine: transformers`, or give it longer if it was only slow "
            "(engine: {name: vllm, timeout: 1800})"
        )
    if exit_code is not None and exit_code < 0:
        return f"was ended by {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code} and said nothing"
