"""What every test runs under: one thread, no network, no telemetry, its own caches.

The variables are set here, when pytest loads this file, because torch and the Hugging Face libraries
read them once, at import.
"""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

from tests.fake_run import write_run
from tests.tiny_model import write_tiny

CACHE = Path(__file__).resolve().parent.parent / ".pytest_cache" / "huggingface"

os.environ.update(
    {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(CACHE),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
)

# A shared machine may stall for a moment, which says nothing about the code: examples have no deadline.
settings.register_profile("r1pipe", deadline=None, derandomize=True)
settings.load_profile("r1pipe")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need vLLM or Ray step aside where it is not installed."""
    for module, called in (("vllm", "vLLM"), ("ray", "Ray")):
        if find_spec(module) is None:
            for item in items:
                if item.get_closest_marker(module):
                    item.add_marker(pytest.mark.skip(reason=f"{called} is not installed (make {module})"))


@pytest.fixture
def finished_run(tmp_path: Path) -> Path:
    """A finished run of a small tree, as `tests.fake_run` writes it."""
    return write_run(tmp_path / "runs" / "tiny")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny random model that training and sampling start from; read only."""
    return write_tiny(tmp_path_factory.mktemp("base"))
