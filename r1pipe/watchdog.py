"""Ends this process when vLLM does not come back from a call, whether or not that call holds the GIL.

A thread of Python's could not do that: one that holds the GIL for ever lets no other run. So the kernel keeps
the time. Its signal is handled in C: where each thread stands is written to the log, and the process ends.
Its parent reads off the signal what happened (`reporting.death`). A process that was suspended for so long is
taken for one that hangs.
"""

import faulthandler
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

SIGNAL: Final = signal.SIGALRM
"""What a process ends by that waited in vain."""
_LOG: Final = 2
"""The descriptor of the standard error, wherever Python's own now points."""


@contextmanager
def watched(seconds: float) -> Iterator[Callable[[], None]]:
    """End this process unless the function that is given is called every so many seconds, to the block's end.

    Blocks do not nest: there is one timer.
    """

    def came_back() -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)

    faulthandler.register(SIGNAL, file=_LOG, chain=True)  # after it the signal's own action: the end
    try:
        came_back()
        yield came_back
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.unregister(SIGNAL)
