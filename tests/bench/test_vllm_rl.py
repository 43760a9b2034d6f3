"""The benchmark of RL with vLLM: what it trains, and what it makes of the trainings."""

from dataclasses import asdict
from math import sqrt
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bench.vllm_rl import RESUMED, Zero, claims, distance, page, read_zero, zero_recipe
from r1pipe import jsonl
from r1pipe.report import RunFiles
from tests.fake_run import write_run

FOUND_OUT = {"probe": 2e-6, "mismatch": 3e-6, "mismatch_ratio": 1.0001, "mismatch_ratio_max": 1.18}


def zero(base: float, pass_at_1: float, **found_out: float) -> Zero:
    """One training's figures."""
    return Zero(base, pass_at_1, 90.0, 3.0, [0.5, 1.0], found_out)


@pytest.fixture
def run(tmp_path: Path) -> RunFiles:
    """A finished run whose stage of scores also has a set that is not wanted here."""
    folder = write_run(tmp_path / "tiny")
    record = jsonl.loads((folder / "run.json").read_bytes())
    record["recipe"]["stages"]["zero"]["steps"] = 120
    sets = {"held-out": {"problems": 600}, "seen": {"problems": 200}}
    record["recipe"]["stages"]["scores"]["sets"] = sets
    jsonl.write_json(folder / "run.json", record)
    return RunFiles.open(folder)


def test_only_the_engine_is_another(run: RunFiles) -> None:
    """The run's seed, zero from the run's own base, and the same stage of scores for zero alone."""
    recipe = zero_recipe(run, {"engine": "vllm"})
    assert recipe["seed"] == 7
    (base,) = (run.path / "artifacts" / "base").iterdir()
    assert recipe["stages"] == {
        "zero": {"uses": "rl", "model": str(base.resolve()), "steps": 120, "engine": "vllm"},
        "scores": {"uses": "evaluate", "models": ["zero"], "sets": {"held-out": {"problems": 600}}},
    }


def test_the_worst_of_all_steps_is_told(run: RunFiles) -> None:
    """Of a ratio the one furthest from 1, below it or above; a run without vLLM has nothing to tell."""
    assert read_zero(run, run).found_out == {}
    rows = [
        {"step": 1, "reward": 0.5, "probe": 2e-6, "mismatch_ratio": 1.001},
        {"step": 2, "reward": 0.75, "probe": 5e-6, "mismatch_ratio": 0.99},
        {"step": 3, "reward": 1.0, "probe": 1e-6, "mismatch_ratio": 1.002},
    ]
    jsonl.write_rows(run.path / "metrics" / "zero.jsonl", rows)
    found = read_zero(run, run)
    assert found.found_out == {"probe": 5e-6, "mismatch_ratio": 0.99}
    assert (found.base, found.pass_at_1, found.length, found.minutes) == (0.21, 0.75, 64.25, 190 / 60)
    assert found.rewards == [0.5, 0.75, 1.0]


def test_distance(tmp_path: Path) -> None:
    """The largest of single weights; of all of them together the norm, against that of the first file."""
    save_file({"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([[4.0]])}, tmp_path / "one")
    save_file({"a": torch.tensor([3.0, 1.0]), "b": torch.tensor([[2.0]])}, tmp_path / "other")
    assert distance(tmp_path / "one", tmp_path / "one") == {"largest": 0.0, "relative": 0.0}
    found = distance(tmp_path / "one", tmp_path / "other")
    assert found == {"largest": 2.0, "relative": pytest.approx(sqrt(5) / 5)}


def test_the_gain_may_be_less_by_the_spread_of_the_seeds() -> None:
    """Each gain is over its own base; one that is lower by more than two standard errors is missed."""
    theirs = [zero(0.4, 0.8), zero(0.5, 0.92), zero(0.6, 1.0)]  # gains .40, .42, .40
    near = [zero(0.4, 0.79, **FOUND_OUT), zero(0.5, 0.9, **FOUND_OUT), zero(0.6, 1.0, **FOUND_OUT)]
    far = [zero(0.4, 0.7, **FOUND_OUT), zero(0.5, 0.8, **FOUND_OUT), zero(0.6, 0.9, **FOUND_OUT)]
    went_on = {"went_on": True}
    assert all(each.held for each in claims({"transformers": theirs, "vllm": near}, went_on))
    few = claims({"transformers": theirs, "vllm": near[:1]}, went_on)
    assert [each.held for each in few] == [False, True, True, True]  # one seed trained with both
    # The standard deviation of theirs is .02 / sqrt(3), the error of three against one that by sqrt(4 / 3).
    assert few[1].bound == pytest.approx(0.4066667 - 2 * 0.02 / sqrt(3) * sqrt(4 / 3))
    missed = [each.text for each in claims({"transformers": theirs, "vllm": far}, went_on) if not each.held]
    assert missed == ["gain of zero with vLLM >= with transformers - 2 standard errors of the difference"]


def test_a_large_probe_and_a_training_begun_anew_are_missed() -> None:
    """So are fewer seeds than three, and a probe that was never made."""
    theirs = [zero(0.4, 0.8)] * 2
    off = [zero(0.4, 0.8, **FOUND_OUT | {"probe": 2e-4}), zero(0.4, 0.8, **FOUND_OUT)]
    found = claims({"transformers": theirs, "vllm": off}, {"went_on": False})
    assert [each.held for each in found] == [False, True, False, False]
    never = claims({"transformers": theirs, "vllm": theirs}, None)
    assert [each.value for each in never] == [2, pytest.approx(0.4), None]


def test_the_page_tells_all_of_it() -> None:
    """Each engine and seed a row, the worst of the steps, and how far the resumed training ended."""
    by_engine = {"transformers": [zero(0.4, 0.8)], "vllm": [zero(0.4, 0.79, **FOUND_OUT)]}
    apart = {"largest": 0.25, "relative": 0.125}
    resumed = {"step": 14, "steps": 24, "saved": 12, "went_on": True}
    resumed |= {"again": {"largest": 0.0, "relative": 0.0}, "resumed": apart, "moved": apart}
    text = page(
        {
            "claims": [each.as_json for each in claims(by_engine, resumed)],
            "steps": 120,
            "zeros": {engine: {"5": asdict(of[0])} for engine, of in by_engine.items()},
            "resumed": resumed,
            "machine": {"processor": "x", "cores": 2, "memory_gib": 1, "system": "s", "libraries": {}},
        }
    )
    assert "| transformers, seed 5 | 0.400 | 0.800 | 0.400 | 90.0 | 3.0 |" in text
    assert "| vllm, seed 5 | 0.400 | 0.790 | 0.390 | 90.0 | 3.0 |" in text
    assert "| seed 5 | 2e-06 | 3e-06 | 1.0001 | 1.18 |" in text
    assert f"taken anew every {RESUMED['reference_every']} steps; SIGKILL after step 14" in text
    assert "went on from step 12" in text
    assert "| killed and resumed | 0.25 | 0.12 |" in text
