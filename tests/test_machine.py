"""What a process knows of itself."""

import resource
import sys
from types import SimpleNamespace

import pytest

from r1pipe import machine
from r1pipe.errors import EnvironmentUnfit


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_peak_memory_is_in_bytes(platform: str, unit: int, monkeypatch: pytest.MonkeyPatch):
    """Linux counts the peak in KiB, macOS in bytes."""
    monkeypatch.setattr(sys, "platform", platform)
    asked: list[int] = []
    monkeypatch.setattr(
        resource, "getrusage", lambda who: asked.append(who) or SimpleNamespace(ru_maxrss=500_000)
    )
    assert machine.peak_rss() == 500_000 * unit
    assert asked == [resource.RUSAGE_SELF]


class OutOfMemoryError(RuntimeError):
    """Torch's, as far as it is looked at."""


def test_a_full_memory_is_one_message_with_the_ways_out(monkeypatch: pytest.MonkeyPatch):
    """The first line of what torch says, then the ways out; any other error is left as it is."""
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(OutOfMemoryError=OutOfMemoryError))

    @machine.full_memory_explained("Set `batch` lower.")
    def work(error: RuntimeError) -> None:
        raise error

    with pytest.raises(EnvironmentUnfit) as caught:
        work(OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nGPU 0 has ..."))
    assert str(caught.value) == (
        "The accelerator's memory is full: CUDA out of memory. Tried to allocate 2 GiB. Set `batch` lower."
    )
    with pytest.raises(RuntimeError, match="shapes do not match"):
        work(RuntimeError("shapes do not match"))
