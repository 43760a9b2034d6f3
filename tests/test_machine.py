"""What a process knows of itself."""

import resource
import sys
from types import SimpleNamespace

import pytest

from r1pipe import machine


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
