"""What a number of traces takes: worked out by hand, typed in or read off what is finished."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from r1pipe import jsonl
from r1pipe.cli import app
from r1pipe.errors import UsageError
from r1pipe.manifest import Cost, FileEntry, Manifest
from r1pipe.measure.volume import Rates, Volume, rates_of, volume

OPEN_R1 = Rates(acceptance=0.5, tokens=6000.0, truncated=0.1, loss=0.2, tokens_per_second=2500.0)


def test_by_hand() -> None:
    """36 % of the completions stay, so 360 traces are 1,000 completions of 6,000 tokens: 6 million tokens, or
    2,400 seconds on one GPU, two thirds of an hour, of which two take half; at $3 an hour $2."""
    found = volume(360, OPEN_R1, samples=3, gpus=2, gpu_hour=3.0)
    assert dataclasses.replace(found, usd_per_trace=None) == Volume(
        target=360,
        completions=1000,
        prompts=334,
        samples=3,
        tokens=6e6,
        gpu_hours=pytest.approx(2 / 3),  # type: ignore[arg-type]
        hours=pytest.approx(1 / 3),  # type: ignore[arg-type]
        usd=pytest.approx(2.0),  # type: ignore[arg-type]
        usd_per_trace=None,
        disk_bytes=None,
    )
    assert found.usd_per_trace == pytest.approx(2 / 360)


def test_as_many_samples_as_the_prompts_need() -> None:
    """With 300 prompts, four of each make the 1,000 completions; a price by the token needs no speed."""
    found = volume(360, dataclasses.replace(OPEN_R1, tokens_per_second=None), prompts=300, million_tokens=0.5)
    assert (found.prompts, found.samples) == (300, 4)
    assert (found.gpu_hours, found.hours, found.usd) == (None, None, 3.0)


def test_open_r1s_own_rate() -> None:
    """180,000 traces of 6,000 tokens a day on 512 GPUs are 24.4 tokens/s each; 800,000 then take 4.4 days."""
    speed = 180_000 * 6000 / 86400 / 512
    found = volume(800_000, Rates(acceptance=1.0, tokens=6000.0, tokens_per_second=speed), gpus=512)
    assert found.tokens == 4.8e9
    assert found.hours == pytest.approx(4.444 * 24, rel=1e-3)


@given(
    target=st.integers(1, 10**6),
    acceptance=st.floats(0.01, 1),
    truncated=st.floats(0, 0.9),
    loss=st.floats(0, 0.9),
    samples=st.integers(1, 64),
)
def test_it_is_enough_and_no_more(
    target: int, acceptance: float, truncated: float, loss: float, samples: int
) -> None:
    """What the completions leave is at least the target, with one fewer it is not; the prompts hold them."""
    found = volume(target, Rates(acceptance, 100.0, truncated, loss), samples=samples)
    share = (1 - truncated) * acceptance * (1 - loss)
    assert found.completions * share >= target * (1 - 1e-9)
    assert (found.completions - 1) * share < target
    assert (found.prompts - 1) * samples < found.completions <= found.prompts * samples


@pytest.mark.parametrize(
    ("rates", "asked", "said"),
    [
        (Rates(tokens=10.0), {}, "follows from --acceptance"),
        (Rates(0.5), {}, "--tokens of a completion"),
        (Rates(0.0, 10.0), {}, "--acceptance is 0, and has to be a share"),
        (Rates(1.5, 10.0), {}, "--acceptance is 1.5"),
        (Rates(0.5, 10.0, truncated=1.0), {}, "--truncated is 1"),
        (Rates(0.5, 10.0, loss=-0.1), {}, "--loss is -0.1"),
        (Rates(0.5, -1.0), {}, "--tokens is -1"),
        (Rates(0.5, float("inf")), {}, "--tokens is inf"),
        (Rates(0.5, 10.0, tokens_per_second=0.0), {}, "--tokens-per-second is 0"),
        (Rates(0.5, 10.0), {"samples": 2, "prompts": 5}, "Either --samples or --prompts"),
        (Rates(0.5, 10.0), {"gpu_hour": 2.0}, "needs --tokens-per-second"),
        (OPEN_R1, {"gpu_hour": 2.0, "million_tokens": 1.0}, "Either --price"),
    ],
)
def test_what_cannot_be(rates: Rates, asked: dict[str, Any], said: str) -> None:
    """One message for each, in the words of the command line."""
    with pytest.raises(UsageError, match=said):
        volume(100, rates, **asked)


def manifest(verb: str, metrics: dict[str, Any], tokens: int | None = None) -> Manifest:
    """Of a finished stage with 3,000 bytes of rows."""
    files = [("part-00000.jsonl", 2000), ("part-00001.jsonl", 1000), ("rejects.jsonl", 9000)]
    return Manifest(
        kind="dataset",
        stage="traces",
        verb=verb,
        stage_version=1,
        fingerprint="1f" * 32,
        version=1,
        parents=(),
        config={"samples": 4},
        fingerprint_config={},
        seed=0,
        metrics=metrics,
        cost=Cost(seconds=50.0, cpu_seconds=1.0, tokens=tokens),
        created="2026-01-02T03:04:05+00:00",
        code_version="0",
        libraries={},
        files=tuple(FileEntry(path=path, size=size, sha256="0" * 64) for path, size in files),
    )


SAMPLED = {
    "generated": 100,
    "kept": 30,
    "rejected": {"truncated": 20, "wrong: other numbers": 25, "undecided: timeout": 5, "duplicate": 20},
}


def test_read_off_a_sampling() -> None:
    """Of 100 completions 20 are cut, of the other 80 are 50 right, of which 30 are kept; 10,000 tokens in 50
    seconds; 3,000 bytes of 30 rows. So 30 traces are 100 completions again."""
    rates = rates_of([manifest("sample", SAMPLED, tokens=10_000)])
    assert rates == Rates(
        acceptance=0.625,
        tokens=100.0,
        truncated=0.2,
        loss=pytest.approx(0.4),  # type: ignore[arg-type]
        tokens_per_second=200.0,
        trace_bytes=100.0,
        samples=4,
        measured_on=100,
    )
    again = volume(30, rates)
    assert (again.completions, again.prompts, again.disk_bytes) == (100, 25, 3000.0)


def step(name: str, seen: int, kept: int) -> dict[str, Any]:
    return {"name": name, "seen": seen, "kept": kept}


def test_and_off_its_curation() -> None:
    """Which keeps 10 of the 30: the loss is 4 in 5 of the right ones, whichever is named first."""
    steps = [step("reading", 30, 30), step("correct", 30, 20), step("exact:trace", 20, 10)]
    curated = manifest("curate", {"input": 30, "kept": 10, "steps": steps})
    rates = rates_of([curated, manifest("sample", SAMPLED, tokens=10_000)])
    assert rates.loss == pytest.approx(0.8)
    assert (rates.trace_bytes, rates.tokens_per_second) == (300.0, 200.0)
    assert volume(10, rates).completions == 100


def test_what_is_mixed_in_is_no_part_of_the_sampling() -> None:
    """Half of the 30 traces stay; 90 others come in and 15 stay, and a last step takes a third."""
    steps = [step("reading", 30, 30), step("correct", 30, 15), step("mix", 105, 30), step("length", 30, 20)]
    curated = manifest("curate", {"input": 120, "kept": 20, "steps": steps})
    assert rates_of([curated]).loss == pytest.approx(1 - 1 / 2 * 2 / 3)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (manifest("rl", {}), "was made by `rl`. Give what `sample` made"),
        (manifest("sample", {"generated": 5, "kept": 5, "rejected": {}}), "does not tell how often a model"),
        (manifest("curate", {}), "how many rows went in"),
    ],
)
def test_what_tells_nothing(made: Manifest, said: str) -> None:
    """Another stage's artifact, a task's own answers, a curation without counts."""
    with pytest.raises(UsageError, match=said):
        rates_of([made])


def test_the_command(tmp_path: Path) -> None:
    """Numbers that are typed in go before those that are read off; a table for people, JSON for programs."""
    folder = tmp_path / "traces"
    folder.mkdir()
    jsonl.write_json(
        folder / "manifest.json", manifest("sample", SAMPLED, tokens=10_000).model_dump(mode="json")
    )
    for name, size in (("part-00000.jsonl", 2000), ("part-00001.jsonl", 1000), ("rejects.jsonl", 9000)):
        (folder / name).write_text(" " * size)
    asked = ["volume", str(folder), "--target", "300", "--loss", "0", "--gpus", "2", "--price", "36"]
    told = CliRunner().invoke(app, asked)
    assert told.exit_code == 0, told.output
    assert "80 % are whole, 62 % of those right, 100 % of those kept, by 100 completions" in told.output
    assert "x 4 samples" in told.output and "$3.00" in told.output
    found = jsonl.loads(CliRunner().invoke(app, [*asked, "--json"]).output.encode())
    assert (found["completions"], found["tokens"], found["gpus"]) == (600, 60_000.0, 2)
    assert found["usd"] == pytest.approx(60_000 / 200 / 3600 * 36)
    refused = CliRunner().invoke(app, ["volume", "--target", "300"])
    assert refused.exit_code == 2
