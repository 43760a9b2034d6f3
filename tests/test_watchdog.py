"""The watchdog: what does not come back ends its process; what does, or is over, is left alone."""

import signal
import subprocess
import sys

import pytest

from r1pipe.watchdog import watched

WAITS = """
import ctypes, threading
from r1pipe.watchdog import watched

def asleep():
    threading.Event().wait(60)

threading.Thread(target=asleep, daemon=True).start()
with watched(0.1):
    ctypes.{library}(None).sleep(60)
"""


def left() -> float:
    """Seconds until the process ends; 0 while nothing is watched."""
    return signal.getitimer(signal.ITIMER_REAL)[0]


@pytest.mark.parametrize("library", ["CDLL", "PyDLL"])
def test_a_call_that_does_not_come_back_ends_the_process(library: str):
    """Whether it lets go of the GIL (`CDLL`) or holds it; every thread's stack is on the standard error."""
    script = [sys.executable, "-c", WAITS.format(library=library)]
    died = subprocess.run(script, capture_output=True, text=True, timeout=50)
    assert died.returncode == -signal.SIGALRM
    assert "in asleep" in died.stderr and 'File "<string>", line 10 in <module>' in died.stderr


def test_each_coming_back_has_the_whole_time_again():
    with watched(1000) as came_back:
        assert left() > 900
        signal.setitimer(signal.ITIMER_REAL, 300)  # most of it is gone
        came_back()
        assert left() > 900


def test_nothing_is_watched_outside():
    """Before and after, and after an error or a Ctrl-C inside: neither the timer nor the handler is left."""
    assert left() == 0
    with watched(1000):
        pass
    assert left() == 0
    with pytest.raises(KeyboardInterrupt), watched(1000):
        raise KeyboardInterrupt
    assert left() == 0
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
