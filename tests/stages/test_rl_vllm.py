"""The rl stage with vLLM on the CPU, in process and as a server. Needs `make vllm`; takes about a minute."""

import shlex
from pathlib import Path

import pytest
import torch

from r1pipe.rollout.policy_server import start_command
from r1pipe.rollout.probe import TOLERANCE
from r1pipe.rollout.specs import ServerSpec
from stages import rl
from tests.small_rl import config
from tests.tiny_model import inputs, workplace, write_tiny
from tests.vllm_server import free_port, vllm_serving

pytestmark = [pytest.mark.slow, pytest.mark.vllm]


def test_two_steps(tmp_path: Path) -> None:
    """The probe agrees before each rollout though the policy moves, and what is left of the mismatch between
    the two sides is logged: next to none in float32."""
    base = write_tiny(tmp_path / "base")
    work, ear = workplace(tmp_path / "zero")
    engine = {"name": "vllm", "cache_gb": 0.1, "max_sequences": 16}
    outcome = rl.run(config(engine=engine), inputs(model=base), work)
    assert outcome.kind == "checkpoint"
    assert [row["step"] for row in ear.rows] == [1, 2]
    assert [row["mismatch_ratio"] for row in ear.rows] == pytest.approx([1, 1], abs=1e-3)
    assert 0 < max(row["probe"] for row in ear.rows) < TOLERANCE[torch.float32] / 10


def test_three_steps_with_a_server(tmp_path: Path) -> None:
    """As in process, also away from temperature 1: the server is started as its engine's messages say, from
    random weights, and follows a policy whose head is its embedding."""
    base, weights = write_tiny(tmp_path / "base"), tmp_path / "weights"
    engine = {"name": "vllm-server", "url": f"http://127.0.0.1:{free_port()}", "retries": 12}
    engine["weights_dir"] = str(weights)
    setting, *command = shlex.split(start_command(ServerSpec.model_validate(engine), base, 64))
    assert (setting, command[:3]) == ("VLLM_SERVER_DEV_MODE=1", ["vllm", "serve", str(base)])
    work, ear = workplace(tmp_path / "zero")
    with vllm_serving(base, tmp_path / "log", command[3:], VLLM_SERVER_DEV_MODE="1"):
        rl.run(config(engine=engine, steps=3, temperature=0.7), inputs(model=base), work)
    assert [row["mismatch"] for row in ear.rows] == pytest.approx([0, 0, 0], abs=1e-4)
    assert [row["mismatch_ratio"] for row in ear.rows] == pytest.approx([1, 1, 1], abs=1e-3)
    assert 0 < max(row["probe"] for row in ear.rows) < TOLERANCE[torch.float32] / 100
    assert list(weights.iterdir()) == []
