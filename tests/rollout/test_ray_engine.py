"""Sampling on a real Ray cluster of two nodes on this machine: the same texts as without it, whoever dies.

The nodes are processes, so what a second machine may lack is played by a driver that expects something else.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.common import family
from r1pipe import jsonl
from r1pipe.errors import EnvironmentUnfit, RunFailed, UsageError
from r1pipe.rollout import Finished, Rollout, Sampling, ray_engine
from r1pipe.rollout.choose import open_engine
from r1pipe.rollout.ray_engine import RayEngine
from r1pipe.rollout.ray_worker import Place, traits
from r1pipe.rollout.specs import RaySpec, TransformersSpec
from stages import sample
from tests.tiny_model import Ear, inputs, workplace

pytestmark = [pytest.mark.slow, pytest.mark.ray]

PROMPTS = [[5, 6, 7], [5, 6, 7], [8, 9], [10, 11, 12, 13]] * 12
SEEDS = list(range(len(PROMPTS)))
SAMPLING = Sampling(32)
SMALL = {
    "model": "base",
    "task": "countdown",
    "template": "chat",
    "prompts": 48,
    "max_new_tokens": 32,
    "keep": {"correct": False, "untruncated": False, "well_formed": False, "single_language": 0},
}


class Nodes:
    """A cluster of two nodes with a CPU each, on this machine."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_worker_niceness="0")
        self._cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
        )
        self.add()
        self.address = str(self._cluster.address)

    def add(self) -> Any:
        """One node more."""
        return self._cluster.add_node(num_cpus=1)

    def remove(self, node: Any) -> None:
        """A node that is gone from one moment to the next, with all of its processes."""
        self._cluster.remove_node(node, allow_graceful=False)

    def spec(self, **fields: Any) -> RaySpec:
        """Two workers on it, eight rows at a time."""
        given = {"each": "transformers", "address": self.address, "workers": 2, "gpus": 0, "portion": 8}
        return RaySpec.model_validate({**given, "timeout": 60.0, **fields})

    def close(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    found = Nodes()
    yield found
    found.close()


def opened(spec: RaySpec | TransformersSpec, folder: Path) -> tuple[Any, str]:
    return open_engine(spec, folder, eos_id=2, pad_id=0, context=64, batch=8)


def workers() -> list[int]:
    """The processes of this machine's workers, that are children of this test's cluster."""
    found = []
    for pid in family(os.getpid()):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if command.startswith(b"ray::Worker"):
            found.append(pid)
    return found


def until(condition: Callable[[], bool], seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def local(folder: Path) -> list[Rollout]:
    """What the engine of one process writes, in the same portions."""
    engine, _ = opened(TransformersSpec(), folder)
    rollouts: list[Rollout] = engine.generate(PROMPTS, SAMPLING, seeds=SEEDS)
    return rollouts


def kill_all() -> None:
    for pid in workers():
        os.kill(pid, signal.SIGKILL)


class Disturbed:
    """Takes rollouts, and does something once, when the first has come."""

    def __init__(self, disturb: Callable[[], None]) -> None:
        self.disturb = disturb
        self.places: list[int] = []

    def __call__(self, place: int, rollout: Rollout) -> None:
        if not self.places:
            self.disturb()
        self.places.append(place)


def test_the_same_texts_as_in_one_process(nodes: Nodes, tiny: Path) -> None:
    """Told as each portion is done, each place once; what was chosen on the nodes is said. Of five workers
    two find room, and those sample."""
    engine, said = opened(nodes.spec(workers=5), tiny)
    told = Disturbed(lambda: None)
    try:
        assert engine.generate(PROMPTS, SAMPLING, seeds=SEEDS, finished=told) == local(tiny)
        assert sorted(told.places) == SEEDS
        with pytest.raises(ValueError, match="a prompt has no tokens"):
            engine.generate([[5], []], SAMPLING, seeds=[0, 1])
        assert engine.generate([], SAMPLING, seeds=[]) == []
    finally:
        engine.close()
    assert (engine.name, engine.version, engine.exact) == (
        "transformers",
        Place.here().libraries["transformers"],
        False,
    )
    assert said == (
        f"Engine: ray, as set: 5 workers at {nodes.address}, which has room for 2 of them, 0 GPUs and 1 CPUs "
        "each; there engine: transformers, as set."
    )
    assert until(lambda: workers() == [])


def test_a_worker_that_is_killed_loses_nothing(nodes: Nodes, tiny: Path) -> None:
    """All workers at once are killed while portions are under way; others take their place."""
    engine, _ = opened(nodes.spec(), tiny)
    before: list[int] = []

    def kill() -> None:
        before.extend(workers())
        kill_all()

    told = Disturbed(kill)
    try:
        assert engine.generate(PROMPTS, SAMPLING, seeds=SEEDS, finished=told) == local(tiny)
        assert before and not set(before) & set(workers())
    finally:
        engine.close()
    assert sorted(told.places) == SEEDS


def test_a_worker_that_hangs_is_ended(nodes: Nodes, tiny: Path) -> None:
    """It is stopped and not dead; once the deadline is over its portions go to another."""
    engine, _ = opened(nodes.spec(workers=1), tiny)
    (before,) = workers()

    def stop() -> None:
        os.kill(before, signal.SIGSTOP)
        engine._members[0].since -= engine._spec.deadline

    told = Disturbed(stop)
    try:
        assert engine.generate(PROMPTS, SAMPLING, seeds=SEEDS, finished=told) == local(tiny)
        assert until(lambda: before not in workers())
    finally:
        engine.close()
    assert sorted(told.places) == SEEDS


def test_a_worker_that_dies_too_often_ends_it(nodes: Nodes, tiny: Path) -> None:
    """With what was said and where to look; before that, an interruption leaves nothing to the next call."""
    engine, _ = opened(nodes.spec(workers=1, retries=0), tiny)

    def interrupted() -> None:
        raise KeyboardInterrupt

    kill = Disturbed(kill_all)
    try:
        with pytest.raises(KeyboardInterrupt):
            engine.generate(PROMPTS, SAMPLING, seeds=SEEDS, finished=Disturbed(interrupted))
        assert engine.generate(PROMPTS, SAMPLING, seeds=SEEDS) == local(tiny)
        with pytest.raises(RunFailed, match=r"^A worker on \S+ was lost: ActorDiedError: .*engine\.retries"):
            engine.generate(PROMPTS, SAMPLING, seeds=SEEDS, finished=kill)
    finally:
        engine.close()


def test_workers_end_with_a_driver_that_is_killed(nodes: Nodes, tiny: Path) -> None:
    """Nobody holds them any more, and the machines are free for others."""
    code = (
        "import sys, time; from pathlib import Path; from r1pipe.rollout.choose import open_engine\n"
        "from r1pipe.rollout.specs import RaySpec\n"
        f"spec = RaySpec.model_validate_json({nodes.spec().model_dump_json()!r})\n"
        f"open_engine(spec, Path({str(tiny)!r}), eos_id=2, pad_id=0, context=64)\n"
        "print('open', flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as driver:
        assert driver.stdout is not None and driver.stdout.readline() == b"open\n"
        assert workers()
        driver.kill()
    assert until(lambda: workers() == [], 60)


# --- Through the stage


def rows(folder: Path) -> list[dict[str, Any]]:
    """Every completion that is published, kept or rejected, in order."""
    parts = [*sorted((folder / "published").glob("part-*.jsonl")), folder / "published" / "rejects.jsonl"]
    return [row for part in parts if part.exists() for row in jsonl.iter_rows(part)]


def stage(tiny: Path, folder: Path, **changes: Any) -> Ear:
    work, ear = workplace(folder)
    sample.run(sample.Config.model_validate({**SMALL, **changes}), inputs(model=tiny), work)
    return ear


def on(spec: RaySpec) -> dict[str, Any]:
    return spec.model_dump(mode="json")


def disturb_once(monkeypatch: pytest.MonkeyPatch, disturb: Callable[[], None]) -> None:
    """Do something when the first completion of the stage has come back."""
    generate, left = RayEngine.generate, [disturb]

    def disturbed(
        engine: RayEngine,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        seeds: Sequence[int],
        finished: Finished,
    ) -> list[Rollout]:
        def told(place: int, rollout: Rollout) -> None:
            finished(place, rollout)
            if left:
                left.pop()()

        return generate(engine, prompts, sampling, seeds=seeds, finished=told)

    monkeypatch.setattr(RayEngine, "generate", disturbed)


def test_the_stage_writes_the_same_rows(
    nodes: Nodes, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row for row what one process publishes: with a node that vanishes in the middle, and with a worker that
    is killed and may not be replaced, so that the stage ends and is begun again."""
    stage(tiny, tmp_path / "local", engine="transformers", batch=8)
    whole = rows(tmp_path / "local")
    assert len(whole) == 48 and {row["engine"] for row in whole} == {"transformers"}

    third = nodes.add()
    with monkeypatch.context() as patch:
        disturb_once(patch, lambda: nodes.remove(third))
        ear = stage(tiny, tmp_path / "node", engine=on(nodes.spec(workers=3)), batch=24)
    assert f"3 workers at {nodes.address}, 0 GPUs" in ear.said
    assert rows(tmp_path / "node") == whole

    with monkeypatch.context() as patch:
        disturb_once(patch, kill_all)
        with pytest.raises(RunFailed, match=r"the same command goes on with what is not there yet\.$"):
            stage(tiny, tmp_path / "killed", engine=on(nodes.spec(workers=1, retries=0)), batch=48)
    journal = list(jsonl.iter_rows(tmp_path / "killed" / sample.SHARDS / "00000.jsonl"))
    assert 8 <= len(journal) < 48
    stage(tiny, tmp_path / "killed", engine=on(nodes.spec(workers=1)), batch=48)
    assert {row["id"]: row["completion"] for row in rows(tmp_path / "killed")} == {
        row["id"]: row["completion"] for row in whole
    }


# --- What a cluster may lack


def refused(spec: RaySpec, folder: Path) -> str:
    with pytest.raises(EnvironmentUnfit) as caught:
        opened(spec, folder)
    assert workers() == [] or until(lambda: workers() == [])
    return str(caught.value)


def test_no_room_is_said_in_time(nodes: Nodes, tiny: Path) -> None:
    """What was asked for, what there is, and what to change: no GPU, and a CPU too many."""
    assert refused(nodes.spec(gpus=1, timeout=1.0), tiny) == (
        "For 1 s no worker of 1 GPUs and 1 CPUs found a place: the cluster at "
        f"{nodes.address} has 2 nodes with 0 GPUs (0 free) and 2 CPUs (2 free). Set engine.gpus: 0 to "
        "sample on CPUs, or start Ray on machines with so many GPUs."
    )
    assert refused(nodes.spec(cpus=2, timeout=1.0), tiny).endswith(
        "Set engine.cpus lower, or start Ray on larger machines."
    )


def test_a_cluster_that_is_not_there(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and not after Ray's own minutes."""
    begun = time.monotonic()
    with pytest.raises(EnvironmentUnfit, match=r"^No Ray cluster answers at \S+:1 .* by `ray start --head"):
        opened(RaySpec(address="127.0.0.1:1"), tiny)
    # Ray looks for clusters among all processes of the machine, so that this one's cannot be hidden.
    monkeypatch.setattr("ray._private.services.canonicalize_bootstrap_address", lambda address: None)
    with pytest.raises(EnvironmentUnfit, match=r"^No Ray cluster runs on this machine\. Start one by"):
        opened(RaySpec(), tiny)
    assert time.monotonic() - begun < 60


def test_another_checkpoint_on_a_node_is_refused(
    nodes: Nodes, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver expects another size, one file more, a folder that no node has, or the weights as they were
    before some changed: the same files of the same sizes."""
    other = tmp_path / "other"
    shutil.copytree(tiny, other)
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[len(weights) // 2 + 100] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    expected = traits(tiny)
    for trait, folder, said in [
        (expected | {"model.safetensors": (1, "0")}, tiny, "another checkpoint is there: model.safetensors"),
        (expected | {"chat.jinja": (1, "0")}, tiny, "chat.jinja is missing in it"),
        (expected, other, "another checkpoint is there: model.safetensors differs."),
        (expected, tmp_path / "gone", "there is no such folder"),
    ]:
        monkeypatch.setattr(ray_engine, "traits", lambda folder, trait=trait: trait)
        told = refused(nodes.spec(), folder)
        assert f"does not see this machine's checkpoint '{folder}': {said}" in told
        assert told.endswith("or copy it to the same path on each.")


def test_other_versions_on_a_node_are_refused(
    nodes: Nodes, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named with both."""
    here = Place.here()
    monkeypatch.setattr(
        Place, "here", lambda: Place(here.host, here.code, {**here.libraries, "transformers": "5.0.0"})
    )
    told = refused(nodes.spec(), tiny)
    has = here.libraries["transformers"]
    assert f"has other versions: transformers {has} (here 5.0.0). " in told
    assert told.endswith("install the same on all machines.")


def test_a_node_that_lacks_a_module_is_told(
    nodes: Nodes, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the one that opens engines, which only the driver has."""
    (tmp_path / "only_here.py").write_text("def open_engine(*given, **options): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here  # type: ignore[import-not-found]

    from r1pipe.rollout.ray_worker import Opening

    opening = Opening(only_here.open_engine, TransformersSpec(), tiny, 2, 0, 64, 8)
    with pytest.raises(
        EnvironmentUnfit, match=r"lacks something: .*No module named 'only_here'.*Install r1pipe"
    ):
        RayEngine(nodes.spec(), opening)


def test_a_users_error_on_a_node_is_the_users_error(nodes: Nodes, tiny: Path) -> None:
    """It comes as it was raised there, at once, and nobody tries again."""
    with pytest.raises(EnvironmentUnfit, match=r"^vLLM is not installed\."):
        opened(nodes.spec(each="vllm"), tiny)


def test_a_policy_is_not_followed(tiny: Path) -> None:
    """`rl` is told so before anything is connected to."""
    with pytest.raises(UsageError, match=r"^Engine 'ray' is for sample and evaluate: .* set engine: vllm"):
        open_engine(RaySpec(), tiny, eos_id=2, pad_id=0, context=64, model=object())  # type: ignore[arg-type]
