"""Training on several processes: gloo ranks on the CPU, started as on a cluster by accelerate's launcher.

The tolerances are those of sums in another order: a step's loss agrees to 1e-4 of itself, weights to 1e-4 after
some twenty steps of a learning rate of 1e-2.
"""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from r1pipe import pipeline, shipped
from r1pipe.errors import EnvironmentUnfit, Interrupted, RunFailed, UsageError
from r1pipe.parallel import Parallel, everywhere, lacks
from r1pipe.recipe import parse_recipe
from r1pipe.stage import Outcome, counted
from stages import VERBS, rl, sft
from tests import fake_ranks
from tests.tiny_model import Ear, inputs, workplace

ROOT = Path(__file__).resolve().parent.parent.parent


# --- The arithmetic, and what is refused before anything starts


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: sft.Config(model="base", data=["rows"], batch_size=32, processes=3),
            r"batch_size = 32 cannot be shared out evenly among processes = 3; choose a multiple of 3, or 2 or 4 "
            "processes",
        ),
        (
            lambda: sft.Config(model="base", data=["rows"], batch_size=32, processes=2, micro_batch=3),
            r"batch_size / 2 processes = 16 rows cannot be cut into micro-batches of micro_batch = 3; choose a "
            "divisor of 16",
        ),
        (
            lambda: rl.Config(model="base", task="countdown", prompts_per_step=4, group_size=8, processes=8),
            r"prompts_per_step = 4 cannot be shared out evenly among processes = 8; choose a multiple of 8, or 2 "
            "or 4 processes",
        ),
        (lambda: sft.Config(model="base", data=["rows"], processes=2, nodes=4), "evenly over nodes = 4"),
    ],
)
def test_what_does_not_divide_is_refused(make: Any, message: str):
    """Each message names both numbers and ends in the way out."""
    with pytest.raises(ValidationError, match=message):
        make()


def test_a_step_is_shared_out():
    """(at once, how often) of each process; more at once than its share is cut to the share."""
    given = {"model": "base", "data": ["rows"], "batch_size": 32}
    assert sft.Config(**given).micro_batches == (32, 1)
    assert sft.Config(**given, processes=2).micro_batches == (16, 1)
    assert sft.Config(**given, processes=2, micro_batch=4).micro_batches == (4, 4)
    assert sft.Config(**given, processes=8, micro_batch=16).micro_batches == (4, 1)
    policy = rl.Config(model="base", task="countdown", prompts_per_step=32, group_size=8, processes=8)
    assert policy.micro_batches == (16, 2)


def test_the_number_of_processes_reruns_nothing():
    """It is the machine's, like its kind of processor; how the weights are held changes the checkpoints."""
    given = {"model": "base", "data": ["rows"]}
    one, two = sft.Config(**given), sft.Config(**given, processes=4, nodes=2)
    assert counted(one) == counted(two)
    assert counted(sft.Config(**given, parallel="fsdp2")) != counted(one)


def test_gpus_are_set_for_every_training():
    """`--gpus 4 --nodes 2` is eight processes in each stage that trains on several, and in no other."""
    recipe = parse_recipe(
        "stages: {base: {uses: pretrain, data: [c]}, c: {uses: corpus}, zero: {uses: rl, model: base, task: countdown}}",
        "r.yaml",
        VERBS,
    )
    assert everywhere(recipe, 4, 2) == ["stages.zero.processes=8", "stages.zero.nodes=2"]
    assert everywhere(recipe, None, None) == []


def test_what_the_machine_lacks(monkeypatch: pytest.MonkeyPatch):
    """DeepSpeed that is not installed, and GPUs that are not there; each with its way out."""
    monkeypatch.setattr("r1pipe.parallel.find_spec", lambda name: None)
    monkeypatch.setattr("r1pipe.machine.gpus", lambda: 2)
    (said,) = lacks("zero3", 2)
    assert said.startswith("parallel: zero3 needs DeepSpeed, which is not installed; `pip install deepspeed`, or")
    (said,) = lacks("fsdp2", 4)
    assert said.startswith("processes: 4 on one machine need as many GPUs, and this one shows 2; lower")
    assert lacks("fsdp2", 2) == []
    assert sft.check(sft.Config(model="base", data=["rows"], parallel="zero2")) == lacks("zero2", 1)


@pytest.mark.parametrize("name", ["ddp", "fsdp2", "zero2", "zero3"])
def test_accelerate_reads_the_configs(name: Parallel):
    """Each is read by accelerate's own loader, which refuses unknown keys, and is of the kind its name says."""
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(shipped.accelerate_config(name)))
    kind = {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}[name]
    assert config.distributed_type.value == kind
    assert config.mixed_precision == "no" and config.rdzv_backend == "static"
    if kind == "FSDP":
        assert config.fsdp_config["fsdp_version"] == 2
    if kind == "DEEPSPEED":
        assert config.deepspeed_config["zero_stage"] == int(name[-1])


# --- How ranks live and die


def alone(folder: Path, **config: Any) -> tuple[Outcome, Ear]:
    work, ear = workplace(folder)
    return fake_ranks.run(fake_ranks.Config(**config), inputs(), work), ear


@pytest.mark.slow
def test_only_the_first_rank_tells_and_writes(tmp_path: Path):
    """Its events come up; the others' words, rows and outcome are passed over, and all have one thread."""
    outcome, ear = alone(tmp_path / "two", processes=2)
    assert outcome.metrics == {"alone": False, "threads": "1"} and outcome.tokens == 7
    assert ear.said == "Training on 2 processes (ddp), on the CPU. I am rank 0."
    assert [row["step"] for row in ear.rows] == [1]
    assert outcome.cost["device"] == "2 x cpu" and outcome.cost["peak_rss_bytes"] > 2**27
    assert (tmp_path / "two" / "two.rank1.log").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fails", "kind", "message"),
    [
        ("kill", RunFailed, r"rank 1 \(process \d+\) was killed, .*its log is .*two.rank1.log"),
        ("raise", RunFailed, r"ValueError: the numbers do not add up. Its log is .*two.rank1.log"),
        ("usage", UsageError, r"Row 3 has no answer. Its log is .*two.rank1.log"),
    ],
)
def test_one_rank_ends_all(fails: str, kind: type[Exception], message: str, tmp_path: Path):
    """The others wait for it in a collective; the run ends within seconds, with what the first said or died of."""
    with pytest.raises(kind, match=f"(?i){message}"):
        alone(tmp_path / "two", processes=2, fails=fails)
    assert ranks_of(tmp_path) == []


@pytest.mark.slow
def test_ranks_die_with_the_process_that_launched_them(tmp_path: Path):
    """A stage's process that is killed takes its ranks along, so that nobody writes in a run that nobody holds."""
    script = (
        "from pathlib import Path; from tests import fake_ranks; from tests.tiny_model import *\n"
        f"work, _ = workplace(Path({str(tmp_path / 'two')!r}))\n"
        "fake_ranks.run(fake_ranks.Config(processes=2, fails='wait'), inputs(), work)"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}) as it:
        wait_until(lambda: len(ranks_of(tmp_path)) == 2 or it.poll() is not None)
        it.kill()
    wait_until(lambda: ranks_of(tmp_path) == [])


@pytest.mark.slow
def test_a_stage_on_two_processes_in_a_run(tmp_path: Path):
    """The whole way: the pipeline, the stage's process, its ranks; Ctrl-C stops all, and the next call ends it."""
    events = Stopping(lambda kind, fields: kind == "progress")
    config = fake_ranks.Config(processes=2, fails="wait")
    run = {"verbs": fake_ranks.VERBS, "preload": ("torch", "accelerate"), "sink": events}
    with pytest.raises(Interrupted):
        pipeline.run_alone("ranks", config, tmp_path / "made", **run)
    assert events.stopped
    made = pipeline.run_alone("ranks", config.model_copy(update={"fails": ""}), tmp_path / "made", **run)
    assert made.rows() == [{"text": "made", "nodes": 1}]
    assert made.manifest is not None and made.manifest.cost.device == "2 x cpu"
    assert made.manifest.fingerprint_config == {"parallel": "ddp", "threads": 1}


class Stopping:
    """A sink that presses Ctrl-C at the first event of a kind."""

    def __init__(self, when: Any) -> None:
        self.when = when
        self.stopped = False

    def event(self, kind: str, stage: str, **fields: Any) -> None:
        if self.when(kind, fields) and not self.stopped:
            self.stopped = True
            os.kill(os.getpid(), signal.SIGINT)


def ranks_of(folder: Path) -> list[int]:
    """Processes that have a job in this folder to do."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"r1pipe.train.rank" in words and any(word.startswith(str(folder).encode()) for word in words):
            found.append(int(path.parent.name))
    return found


def wait_until(condition: Any, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} seconds in vain"
        time.sleep(0.05)
