"""vLLM's own server on the loopback. Needs `make vllm`; takes up to a minute to start."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path


def free_port() -> int:
    """A port that nobody listens on just now."""
    with closing(socket.create_server(("127.0.0.1", 0))) as held:
        port: int = held.getsockname()[1]
        return port


@contextmanager
def vllm_serving(folder: Path, log: Path, options: Sequence[str], **environment: str) -> Iterator[None]:
    """The server as a process of its own, which may not listen yet.

    It is the same code as `vllm serve`, whose command needs a package of that name.
    """
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), *options]
    given = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", **environment}
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=given)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)
