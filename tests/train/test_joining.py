"""Machines that join a run: when they stop waiting for it."""

import os
import time
from pathlib import Path

import pytest

from r1pipe import jsonl
from r1pipe.errors import RunFailed
from r1pipe.train import joining


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """As little patience as a test has."""
    monkeypatch.setattr(joining, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(joining, "ENDED_SECONDS", 0.1)
    monkeypatch.setattr(joining, "BEGIN_SECONDS", 0.6)
    monkeypatch.setenv("SLURM_JOB_ID", "7")


def test_a_run_that_ended_before_it_was_seen(tmp_path: Path) -> None:
    """The first machine found all up to date: the mark that it leaves ends the others, which did nothing."""
    with joining.telling_the_end(tmp_path):
        assert not (tmp_path / joining.ENDED).exists()
    assert joining.join(tmp_path) == 0


def test_a_failed_run_has_ended_too(tmp_path: Path) -> None:
    """Whatever ended it."""
    with pytest.raises(RunFailed), joining.telling_the_end(tmp_path):
        raise RunFailed("no")
    assert joining.join(tmp_path) == 0


@pytest.mark.parametrize("stale", ["long ago", "another job"])
def test_the_end_of_another_run_ends_nothing(stale: str, tmp_path: Path) -> None:
    """The mark of an earlier run, or of another batch job in the same folder, is passed over."""
    mark = tmp_path / joining.ENDED
    jsonl.write_json(mark, {"batch_job": "6" if stale == "another job" else "7"})
    if stale == "long ago":
        os.utime(mark, (time.time() - 60,) * 2)
    with pytest.raises(RunFailed, match=r"waited for the first one in vain: .* shows no run"):
        joining.join(tmp_path)


def test_a_new_begin_takes_the_mark_away(tmp_path: Path) -> None:
    """So that a machine that joins the run of now does not take it for the one before."""
    with joining.telling_the_end(tmp_path):
        pass
    with joining.telling_the_end(tmp_path):
        assert not (tmp_path / joining.ENDED).exists()
