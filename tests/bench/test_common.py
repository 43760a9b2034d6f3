"""What a run took, however often it was begun."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import common
from r1pipe import jsonl

RUN = """
import json, pathlib, sys
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
out.mkdir(parents=True, exist_ok=True)
(out / "run.json").write_text("{}")
todo = out.parent / "todo"
stages, code = json.loads(todo.read_text())
with (out / "events.jsonl").open("a") as events:
    for stage in range(stages):
        events.write(json.dumps({"event": "stage_started", "stage": str(stage)}) + chr(10))
sys.exit(code)
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a recipe whose command begins so many stages and ends with an exit code."""
    script = tmp_path / "run.py"
    script.write_text(RUN)
    monkeypatch.setattr(common, "R1PIPE", (sys.executable, str(script)))

    def call(stages: int, code: int = 0) -> common.Usage:
        (tmp_path / "todo").write_text(f"[{stages}, {code}]")
        return common.run_recipe("any", tmp_path / "out")

    return call


def records(tmp_path: Path) -> list[Any]:
    """What was written down of each invocation."""
    record = tmp_path / "out" / "bench.json"
    return list(jsonl.loads(record.read_bytes())) if record.is_file() else []


def test_a_run_that_failed_and_went_on_is_the_sum_of_both(run: Any, tmp_path: Path) -> None:
    """The failure leaves with its exit code and is counted; an invocation that did nothing is not."""
    with pytest.raises(SystemExit) as failure:
        run(2, code=3)
    assert failure.value.code == 3
    assert len(records(tmp_path)) == 1
    usage = run(1)
    both = records(tmp_path)
    assert usage.seconds == sum(each["seconds"] for each in both) > both[0]["seconds"] > 0
    assert run(0) == usage
    assert len(records(tmp_path)) == 2


def test_a_run_begun_elsewhere_is_not_measured(run: Any, tmp_path: Path) -> None:
    """Half of its time would pass for the whole."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "run.json").write_text("{}")
    jsonl.write_rows(out / "events.jsonl", [{"event": "stage_started", "stage": "base"}])
    assert run(1) == common.Usage(0, 0, 0)
    assert records(tmp_path) == []


def test_time_that_nobody_measured_is_not_passed_over(run: Any, tmp_path: Path) -> None:
    """Stages were begun between two measured parts: the sum of those is no longer the whole."""
    run(1)
    with jsonl.Journal(tmp_path / "out" / "events.jsonl") as journal:
        journal.append([{"event": "stage_started", "stage": "by hand"}])
    assert run(1) == common.Usage(0, 0, 0)
    assert run(0) == common.Usage(0, 0, 0)


@pytest.mark.skipif(not Path("/proc/self/comm").exists(), reason="needs Linux's /proc")
def test_a_family_whose_name_is_no_text() -> None:
    """A process may call itself by any bytes."""
    script = "open('/proc/self/comm', 'wb').write(b'\\xff(')\nprint(flush=True)\ninput()"
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with child:
        assert child.stdout is not None and child.stdout.readline()
        assert child.pid in common.family(os.getpid())
        child.kill()
