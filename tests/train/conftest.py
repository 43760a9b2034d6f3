"""The one model that the tests of training start from."""

from pathlib import Path

import pytest

from tests.tiny_model import write_tiny


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random model; read only."""
    return write_tiny(tmp_path_factory.mktemp("tiny"))
