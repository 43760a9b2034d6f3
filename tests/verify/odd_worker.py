"""A worker of the pool that does whatever it is asked to, the worst included."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from r1pipe.verify.pool import serve


def main() -> None:
    """Serve, unless the environment says that it should not start, or be killed while it does."""
    wish, _, path = os.environ.get("ODD_WORKER", "").partition(" once ")
    if wish == "killed" and not (path and Path(path).exists()):
        if path:
            Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if wish != "broken":
        serve(answer)


def answer(question: Any) -> Any:
    """Say the question again, after doing what it asks for."""
    match question:
        case ["sleep", seconds]:
            time.sleep(seconds)
        case ["die", code]:
            os._exit(code)
        case ["note and die", path]:
            with open(path, "a") as log:
                log.write(f"{os.getpid()}\n")
            os._exit(3)
        case ["stuck"]:
            return len(str(9**9**7))  # one operation of the interpreter, which no signal handler interrupts
        case ["eat"]:
            return len(bytearray(8 << 30))
        case ["shout"]:
            return "a" * (2 << 20)
        case ["print"]:
            sys.stdout.write("what a library has to say\n")
            sys.stdout.flush()
        case ["pid"]:
            return os.getpid()
    return question
