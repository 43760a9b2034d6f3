"""Keeps every Python process off the network, and notes in the file $DIALLED whoever tries.

Python imports a module of this name at its start, so a folder on PYTHONPATH reaches the processes that a
command starts, too. The hook sees what goes through Python's sockets; a library that opens its own from
native code passes it by.
"""

import os
import sys
from typing import Any

_HERE = ("localhost", "127.", "::1")


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.getaddrinfo":
        host = args[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        host = args[1][0] if isinstance(args[1], tuple) else None  # a path is a socket on this machine
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host and not host.startswith(_HERE):
        with open(os.environ["DIALLED"], "a") as file:
            file.write(f"{event} {host}\n")
        raise ConnectionError(f"{event} {host}: this process is kept off the network")


sys.addaudithook(_watch)
