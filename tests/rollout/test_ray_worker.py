"""What a worker of a cluster is told and tells, without a cluster."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1pipe.rollout.ray_worker import Place, portions, traits, unlike


@given(st.integers(0, 300), st.integers(1, 64), st.integers(1, 9))
def test_portions_are_all_rows_once(count: int, most: int, workers: int) -> None:
    """In order, none larger than allowed, and where there are enough rows each worker gets one."""
    made = list(portions(count, most, workers))
    assert [place for places in made for place in places] == list(range(count))
    assert all(1 <= len(places) <= most for places in made)
    if most == 1:
        assert len(made) == count
    if workers == 1:
        assert len(made) == -(-count // most)


def test_a_small_batch_is_spread() -> None:
    """Ten rows for four workers, though one could take them all; a large one is cut where it has to be."""
    assert [len(places) for places in portions(10, 256, 4)] == [3, 3, 3, 1]
    assert [len(places) for places in portions(10, 2, 4)] == [2] * 5


@pytest.mark.parametrize(
    ("there", "told"),
    [
        (Place("b", "1 (sources a)", {"torch": "2.13.0+cu130", "vllm": "0.29.0"}), []),
        (Place("b", "1 (sources b)", {"torch": "2.13.0"}), ["r1pipe 1 (sources b) (here 1 (sources a))"]),
        (Place("b", "1 (sources a)", {"torch": "2.12.0"}), ["torch 2.12.0 (here 2.13.0)"]),
        (Place("b", "1 (sources a)", {"torch": "2.13.0", "orjson": "1"}), []),
    ],
)
def test_versions_that_have_a_part_in_the_texts_are_compared(there: Place, told: list[str]) -> None:
    """Another build of torch is the same version; what only one side has, or draws nothing, is left out."""
    here = Place("a", "1 (sources a)", {"torch": "2.13.0+cpu", "orjson": "3"})
    assert here.differences(there) == told
    assert here.differences(here) == []


def test_a_checkpoint_is_known_by_some_of_its_bytes(tiny: Path, tmp_path: Path) -> None:
    """Itself is like itself; a folder that is not there, and one without its files, are told apart."""
    expected = traits(tiny)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= expected.keys()
    assert unlike(tiny, expected) is None
    assert unlike(tmp_path / "no", expected) == "there is no such folder"
    missing = unlike(tmp_path, expected)
    assert missing is not None and missing.endswith(f"(and {len(expected) - 1} more) is missing in it")
