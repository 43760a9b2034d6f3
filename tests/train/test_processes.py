"""Training on several processes: gloo ranks on the CPU, started as on a cluster by accelerate's launcher.

The tolerances are those of sums in another order: a step's loss agrees to 2e-5 of itself (it is
logged with six digits), weights to 1e-5 after some twenty steps of a learning rate of 1e-2.
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
from r1pipe.errors import Interrupted, RunFailed, UsageError
from r1pipe.parallel import Parallel, everywhere, lacking
from r1pipe.recipe import parse_recipe
from r1pipe.rollout.local import TransformersEngine
from r1pipe.stage import Findings, Outcome, counted
from r1pipe.train import models, ranks
from stages import VERBS, rl, sft
from tests import fake_ranks
from tests.loopback_server import serving
from tests.tiny_model import Ear, inputs, workplace

ROOT = Path(__file__).resolve().parent.parent.parent


# --- The arithmetic, and what is refused before anything starts


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: sft.Config(model="base", data=["rows"], batch_size=32, processes=3),
            r"batch_size = 32 cannot be shared out evenly among processes = 3; choose a multiple of 3, or 2 "
            "or 4 processes",
        ),
        (
            lambda: sft.Config(model="base", data=["rows"], batch_size=32, processes=2, micro_batch=3),
            r"batch_size / 2 processes = 16 rows cannot be cut into micro-batches of micro_batch = 3; "
            "choose a divisor of 16",
        ),
        (
            lambda: rl.Config(model="base", task="countdown", prompts_per_step=4, group_size=8, processes=8),
            r"prompts_per_step = 4 cannot be shared out evenly among processes = 8; choose a multiple of 8, "
            "or 2 or 4 processes",
        ),
        (lambda: sft.Config(model="base", data=["rows"], processes=2, nodes=4), "evenly over nodes = 4"),
        (
            lambda: sft.Config(model="base", data=["rows"], parallel="fsdp2", lora={"r": 4}),
            "lora does not go with parallel = fsdp2: adapters are merged .*; set parallel: ddp",
        ),
        (
            lambda: rl.Config(model="base", task="countdown", kl=0.1, reference_every=5, parallel="fsdp2"),
            "parallel = fsdp2 does not go with reference_every: .*; set parallel: ddp",
        ),
    ],
)
def test_what_does_not_divide_is_refused(make: Any, message: str):
    """Each message names both numbers and ends in the way out."""
    with pytest.raises(ValidationError, match=message):
        make()


def test_a_step_is_shared_out():
    """(at once, how often) of each process; more at once than its share is cut to the share."""

    def cut(**given: int) -> tuple[int, int]:
        plan = sft.batches(sft.Config(model="base", data=["rows"], batch_size=32, **given))
        return plan.per_device_train_batch_size, plan.gradient_accumulation_steps

    assert cut() == (32, 1)
    assert cut(processes=2) == (16, 1)
    assert cut(processes=2, micro_batch=4) == (4, 4)
    assert cut(processes=8, micro_batch=16) == (4, 1)
    policy = rl.Config(model="base", task="countdown", prompts_per_step=32, group_size=8, processes=8)
    assert rl.batches(policy).per_device_train_batch_size == 32


def test_the_number_of_processes_reruns_nothing():
    """It is the machine's, like its kind of processor; how the weights are held changes the checkpoints."""
    given = {"model": "base", "data": ["rows"]}
    one, two = sft.Config(**given), sft.Config(**given, processes=4, nodes=2)
    assert counted(one) == counted(two)
    assert counted(sft.Config(**given, parallel="fsdp2")) != counted(one)


def test_gpus_are_set_for_every_training():
    """`--gpus 4 --nodes 2` is eight processes in each stage that trains on several, and in no other."""
    recipe = parse_recipe(
        "stages: {c: {uses: corpus}, base: {uses: pretrain, data: [c]}, "
        "zero: {uses: rl, model: base, task: countdown}}",
        "r.yaml",
        VERBS,
    )
    assert everywhere(recipe, 4, 2) == ["stages.zero.processes=8", "stages.zero.nodes=2"]
    assert everywhere(recipe, None, None) == []


def test_what_the_machine_lacks(monkeypatch: pytest.MonkeyPatch):
    """DeepSpeed that is not installed, and GPUs that are not there; each with its way out."""
    monkeypatch.setattr("r1pipe.parallel.find_spec", lambda name: None)
    monkeypatch.setattr("r1pipe.machine.gpus", lambda: 2)
    (said,) = lacking("zero3", 2)
    assert said.startswith(
        "parallel: zero3 needs DeepSpeed, which is not installed; `pip install deepspeed`, or"
    )
    (said,) = lacking("fsdp2", 4)
    assert said.startswith("processes: 4 on one machine need as many GPUs, and this one shows 2; lower")
    assert lacking("fsdp2", 2) == []
    found = sft.check(sft.Config(model="base", data=["rows"], parallel="zero2"))
    assert found == Findings(lacking=lacking("zero2", 1))


@pytest.mark.parametrize("name", ["ddp", "fsdp2", "zero2", "zero3"])
def test_accelerate_reads_the_configs(name: Parallel):
    """Each is read by accelerate's own loader, which refuses unknown keys, and is of its name's kind."""
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
        ("hang", RunFailed, r"rank 1 \(process \d+\) ended itself, .* `timeout`.*its log is .*rank1.log"),
        (
            "abort",
            RunFailed,
            r"rank 1 \(.*\) was ended by SIGABRT, as nccl .* wait_minutes = 180 for another",
        ),
        ("usage", UsageError, r"Row 3 has no answer. Its log is .*two.rank1.log"),
    ],
)
def test_one_rank_ends_all(fails: str, kind: type[Exception], message: str, tmp_path: Path):
    """The others wait for it in a collective; all end at once, with what the first said or died of."""
    with pytest.raises(kind, match=f"(?i){message}"):
        alone(tmp_path / "two", processes=2, fails=fails)
    assert ranks_of(tmp_path) == []


@pytest.mark.slow
def test_the_first_rank_says_what_another_found(tmp_path: Path):
    """The second rank's loss is no number: it waits while the first saves the evidence, and none hangs."""
    with pytest.raises(RunFailed, match=r"^The loss became nan at step 5, .* run again$"):
        alone(tmp_path / "two", processes=2, fails="nan", wait_minutes=10)
    assert json.loads((tmp_path / "two" / "evidence.json").read_text()) == {"value": "nan"}
    assert ranks_of(tmp_path) == []


@pytest.mark.slow
def test_a_rank_waits_no_longer_than_it_was_told(tmp_path: Path):
    """The second takes two minutes and the first has 12 seconds for it: all end, and the field is named."""
    with pytest.raises(RunFailed, match=r"waited 0\.2 minutes for another one.* set `wait_minutes` higher"):
        alone(tmp_path / "two", processes=2, fails="late", wait_minutes=0.2)
    assert ranks_of(tmp_path) == []


def test_only_what_waited_in_vain_is_told_so():
    """Other errors of torch's stay what they are."""
    with pytest.raises(RuntimeError, match="out of memory"), ranks.patience(180):
        raise RuntimeError("out of memory")


@pytest.mark.slow
def test_ranks_die_with_the_process_that_launched_them(tmp_path: Path):
    """A stage's process that is killed takes its ranks along: nobody writes in a run that nobody holds."""
    script = (
        "from pathlib import Path; from tests import fake_ranks; from tests.tiny_model import *\n"
        f"work, _ = workplace(Path({str(tmp_path / 'two')!r}))\n"
        "fake_ranks.run(fake_ranks.Config(processes=2, fails='wait'), inputs(), work)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as it:
        wait_until(lambda: len(ranks_of(tmp_path)) == 2 or it.poll() is not None)
        assert it.poll() is None, "it ended before its ranks had begun"
        it.kill()
    wait_until(lambda: ranks_of(tmp_path) == [])


@pytest.mark.slow
def test_a_stage_on_two_processes_in_a_run(tmp_path: Path):
    """The pipeline, the stage's process, its ranks: Ctrl-C stops all, and the next call ends the work."""
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


@pytest.mark.slow
@pytest.mark.parametrize("fails", ["", "kill"])
def test_two_machines_train_together(fails: str, tmp_path: Path):
    """Two machines that see one disk, played by two processes of this one with a rank each.

    The first runs the recipe, the second joins; both end when the run does. When the second's rank dies, the
    first one's run fails and names the machine, the rank and its log.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    scripts = [
        f"run_alone('ranks', fake_ranks.Config(processes=2, nodes=2, fails={fails!r}), "
        f"{str(tmp_path / 'made')!r}, verbs=fake_ranks.VERBS, preload=('torch', 'accelerate'))",
        f"print(join(Path({str(tmp_path / 'made.run')!r})))",
    ]
    imports = (
        "from pathlib import Path; from r1pipe.pipeline import run_alone\n"
        "from r1pipe.train.joining import join; from tests import fake_ranks\n"
    )
    machines = [
        subprocess.Popen(
            [sys.executable, "-c", imports + script],
            cwd=ROOT,
            env={**os.environ, **where, "PYTHONPATH": str(ROOT), "NODE_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, script in enumerate(scripts)
    ]
    (_, first), (joined, second) = (machine.communicate(timeout=120) for machine in machines)
    if fails:
        assert machines[0].returncode == 1 and "machine 1 (" in first and "rank 1 (process " in first
        assert "ranks.rank1.log" in first
    else:
        assert [machine.returncode for machine in machines] == [0, 0], first + second
        assert joined == "1\n"
        assert '"nodes":2' in (tmp_path / "made" / "part-00000.jsonl").read_text()


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


# --- Two processes against one


class Curve(Ear):
    """A sink that presses Ctrl-C after so many rows."""

    def __init__(self, stop: threading.Event, after: int) -> None:
        super().__init__()
        self._stop, self._after = stop, after

    def event(self, kind: str, stage: str, **fields: Any) -> None:
        super().event(kind, stage, **fields)
        if len(self.rows) >= self._after:
            self._stop.set()


def train(stage: Any, config: Any, folder: Path, after: int = 1000, **given: Path) -> tuple[Any, list[Any]]:
    """Run a stage, stopped after so many rows; return its outcome (or None) and the rows."""
    work, _ = workplace(folder)
    work.sink = curve = Curve(work.stop, after)
    try:
        return stage.run(config, inputs(**given), work), curve.rows
    except Interrupted:
        return None, curve.rows


def apart(one: Path, other: Path) -> float:
    """The largest difference between two published models' weights."""
    from safetensors.torch import load_file

    first, second = (load_file(path / "model.safetensors") for path in (one, other))
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def agree(rows: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]], *names: str) -> None:
    """That two stretches of a training log the same."""
    for row, other in zip(rows, others, strict=True):
        assert row["step"] == other["step"]
        for name in names:
            assert math.isclose(row[name], other[name], rel_tol=2e-5, abs_tol=1e-6), (row["step"], name)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty rows of many lengths, so that the last of the batches of eight is not full."""
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    texts = [
        {"prompt": f"copy {n} <think>", "completion": f"{n} " * (1 + n % 7) + "</think> <answer> 5 </answer>"}
        for n in range(30)
    ]
    path.write_text("\n".join(map(json.dumps, texts)))
    return path


SFT = {
    "model": "base",
    "data": "rows",
    "epochs": 6,
    "batch_size": 8,
    "micro_batch": 2,
    "learning_rate": 1e-2,
    "save_every": 5,
    "log_every": 1,
}


@pytest.fixture(scope="module")
def undisturbed(tiny: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """One process from beginning to end: 180 rows are 22 full steps and a short one."""
    outcome, curve = train(
        sft, sft.Config(**SFT), tmp_path_factory.mktemp("one") / "sft", model=tiny, data=rows
    )
    assert len(curve) == 23
    return outcome.path, curve


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parallel", "first", "then"),
    [("ddp", 2, 1), ("ddp", 1, 2), ("fsdp2", 2, 1)],
    ids=lambda value: str(value),
)
def test_a_training_goes_on_with_another_number_of_processes(
    parallel: str, first: int, then: int, tiny: Path, rows: Path, undisturbed: Any, tmp_path: Path
):
    """Stopped under one number and ended under the other, its loss is that of one undisturbed process, step
    for step, and so are the weights; the optimiser's state is therefore whole, also where it was sharded.
    """
    given = {"model": tiny, "data": rows}
    config = sft.Config(**SFT, parallel=parallel, processes=first)
    none, before = train(sft, config, tmp_path / "sft", after=3, **given)
    assert none is None and 3 <= len(before) < 20
    outcome, after = train(
        sft, sft.Config(**SFT, parallel=parallel, processes=then), tmp_path / "sft", **given
    )
    published, curve = undisturbed
    agree([*before, *after], curve, "loss", "grad_norm", "learning_rate")
    assert apart(outcome.path, published) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("parallel", "kl", "top_p"), [("ddp", 0.0, 1.0), ("fsdp2", 0.05, 0.8)])
def test_rl_on_two_processes_is_rl_on_one(parallel: str, kl: float, top_p: float, tiny: Path, tmp_path: Path):
    """Both draw the same completions, judge them alike and learn the same from them, by KL too.

    Without KL rows that have no advantage are left out, other numbers of them on each rank. With `top_p`
    there is a mismatch, whose mean and maximum are those of both ranks' tokens.
    """
    config = {
        "model": "base",
        "task": "countdown",
        "template": "chat",
        "rewards": {"overlong": 1, "format": 1},
        "overlong_buffer": 12,
        "group_size": 4,
        "prompts_per_step": 8,
        "micro_batch": 4,
        "steps": 4,
        "max_new_tokens": 16,
        "learning_rate": 1e-3,
        "kl": kl,
        "save_every": 2,
        "trainer": {"top_p": top_p},
    }
    one, curve = train(rl, rl.Config(**config), tmp_path / "one", model=tiny)
    two, rows = train(rl, rl.Config(**config, processes=2, parallel=parallel), tmp_path / "two", model=tiny)
    agree(
        rows,
        curve,
        "reward",
        "loss",
        "grad_norm",
        "length",
        "truncated",
        "groups_without_spread",
        "undecided",
        "surprise",
    )
    if top_p < 1:
        agree(rows, curve, "mismatch", "mismatch_ratio", "mismatch_ratio_max", "mismatch_cut")
        assert min(row["mismatch"] for row in rows) > 0.01
    assert max(row["grad_norm"] for row in rows) > 0.01, "there was something to learn"
    assert apart(one.path, two.path) < 1e-5
    assert one.tokens == two.tokens
    assert (one.path / "prompts.jsonl").read_bytes() == (two.path / "prompts.jsonl").read_bytes()


@pytest.mark.slow
def test_a_server_follows_two_processes(tiny: Path, tmp_path: Path):
    """The first rank hands over weights of which each holds a part, once a step and once before; all probe
    them, and sample from them."""
    model, tokenizer = models.open_model(tiny)
    model.apply(model._init_weights)  # the server's own weights, before there are any of the policy
    engine = TransformersEngine(model, eos_id=tokenizer.eos_token_id, pad_id=tokenizer.pad_token_id)
    config = {
        "model": "base",
        "task": "countdown",
        "template": "chat",
        "group_size": 2,
        "prompts_per_step": 4,
        "steps": 2,
        "max_new_tokens": 16,
        "learning_rate": 1e-2,
        "processes": 2,
        "parallel": "fsdp2",
    }
    with serving(engine, tokenizer, 64) as server:
        given = {"name": "vllm-server", "url": server.url, "weights_dir": str(tmp_path / "weights")}
        _, rows = train(rl, rl.Config(**config, engine=given), tmp_path / "two", model=tiny)
    assert [row["mismatch"] for row in rows] == pytest.approx([0, 0], abs=1e-5)
    assert sum("new_version" in each for each in server.done) == 3
    assert sum("prompt_logprobs" in each for each in server.asked) == 6
    assert list((tmp_path / "weights").iterdir()) == []
