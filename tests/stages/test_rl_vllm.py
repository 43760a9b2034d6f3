"""The rl stage with vLLM on the CPU. Needs `make vllm`; takes about half a minute."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from r1pipe.rollout.vllm import TOLERANCE, VllmEngine
from stages import rl
from tests.small_rl import config
from tests.tiny_model import inputs, workplace, write_tiny

pytestmark = [pytest.mark.slow, pytest.mark.vllm]


@pytest.fixture
def synced() -> Iterator[list[float]]:
    """The probe's difference after each hand-over of weights."""
    differences: list[float] = []
    sync = VllmEngine.sync

    def noted(self: VllmEngine) -> None:
        sync(self)
        assert self.probe_difference is not None
        differences.append(self.probe_difference)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VllmEngine, "sync", noted)
        yield differences


def test_two_steps(tmp_path: Path, synced: list[float]) -> None:
    """The probe agrees at the start and before each rollout though the policy moves, and what is left of the
    mismatch between the two sides is logged: next to none in float32."""
    base = write_tiny(tmp_path / "base")
    work, ear = workplace(tmp_path / "zero")
    engine = {"name": "vllm", "cache_gb": 0.1, "max_sequences": 16}
    outcome = rl.run(config(engine=engine), inputs(model=base), work)
    assert outcome.kind == "checkpoint"
    assert [row["step"] for row in ear.rows] == [1, 2]
    assert [row["mismatch_ratio"] for row in ear.rows] == pytest.approx([1, 1], abs=1e-3)
    assert len(synced) == 3
    assert max(synced) < TOLERANCE[torch.float32] / 10
