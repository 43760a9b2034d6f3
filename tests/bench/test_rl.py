"""The benchmark of GRPO: what it makes of the trainings' rows, and a miniature of it from end to end."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bench import rl
from bench.common import model_of
from bench.rl_arms import ARMS, Clock, Setup
from tests.tiny_model import write_tiny

SPEEDS = {"trl": 8.0, "trl-tuned": 4.0, "r1pipe": 1.0}
"""Seconds of a step."""


def training(seconds: float, rewards: list[float], *, seed: int = 0, length: float = 50.0) -> dict[str, Any]:
    """What is kept of one: 4 samples a step; half of it is generation, and twice as long by the processor."""
    rows = [
        {
            "step": step + 1,
            "reward": reward,
            "length": length,
            "seconds": seconds if step else 100.0,
            "cpu_seconds": 2 * seconds,
            "split": {"generation": seconds / 2, "reward": 0.0, "training": seconds / 2},
        }
        for step, reward in enumerate(rewards)
    ]
    setup = {"prompts_per_step": 2, "group_size": 2, "seed": seed}
    return {"setup": setup, "rows": rows, "load_before": 0.5}


def curves(**ends: list[float]) -> rl.Trainings:
    """Trainings of twelve steps whose first two have no reward, each seed with an end of its own."""
    return {
        arm.replace("_", "-"): [training(1.0, [0.0] * 2 + [end] * 10, seed=i) for i, end in enumerate(values)]
        for arm, values in ends.items()
    }


def test_paces_leave_out_the_first_step() -> None:
    """4 samples in 2 seconds, though the first step took 100; 50 tokens each; half is generation."""
    found = rl.paces(training(2.0, [1.0] * 3))
    assert found["samples_per_second"] == 2.0
    assert found["samples_per_cpu_second"] == 1.0
    assert found["tokens_per_second"] == 100.0
    assert found["split"] == {"generation": 1.0, "reward": 0.0, "logprobs": 0.0, "training": 1.0}


def test_how_many_times_faster_is_the_median_of_the_rounds() -> None:
    """In three rounds ours is 4, 2 and 3 times faster, whatever the rounds' own pace was."""
    theirs, ours = [8.0, 4.0, 30.0], [2.0, 2.0, 10.0]
    timed = {
        name: [training(each, [1.0] * 2) for each in of] for name, of in (("trl", theirs), ("r1pipe", ours))
    }
    found = rl.speed_figures(timed)
    assert found["trl"]["times_per_second"] == found["trl"]["times_per_cpu_second"] == 3.0
    assert found["trl"]["samples_per_second"] == 0.5
    assert found["r1pipe"]["times_per_second"] == 1.0
    assert rl.speed_figures({"trl": timed["trl"]})["trl"]["times_per_second"] is None


def test_ends_and_their_spread() -> None:
    """The last ten steps count; two times three seeds with a variance of 0.01 each differ by
    sqrt(2 * 0.01 / 3)."""
    assert rl.ends(curves(trl=[0.5, 0.7])["trl"]) == pytest.approx([0.5, 0.7])
    assert rl.spread([0.4, 0.5, 0.6], [1.4, 1.5, 1.6]) == pytest.approx((2 * 0.01 / 3) ** 0.5)
    assert rl.spread([0.4], [0.5, 0.6]) == 0.0


def missed(speed: dict[str, float], trained: rl.Trainings) -> list[str]:
    """The claims that are missed."""
    figures = rl.speed_figures({arm: [training(each, [1.0] * 2)] for arm, each in speed.items()})
    return [claim.text for claim in rl.claims(figures, trained, ["trl", "trl-tuned"]) if not claim.held]


def test_claims() -> None:
    """All are held; each is missed by a little less; two processes of ours are no peer."""
    good = curves(trl_tuned=[1.0, 1.1, 1.2], r1pipe=[1.0, 1.1, 1.2], r1pipe_2=[2.0] * 3)
    assert missed(SPEEDS, good) == []
    assert missed({**SPEEDS, "trl-tuned": 2.99}, good) == [
        "samples/s of r1pipe >= 3 x trl-tuned (median of the rounds)"
    ]
    assert missed({"trl": 8.0, "r1pipe": 1.0}, good) == [
        "samples/s of r1pipe >= 3 x trl-tuned (median of the rounds)"
    ]
    worse = curves(trl_tuned=[1.0, 1.1, 1.2], r1pipe=[0.83, 0.93, 1.03])  # 2 standard errors are 0.163
    assert missed(SPEEDS, worse) == [
        "reward of r1pipe at the end >= trl-tuned - 2 standard errors of the difference"
    ]
    assert missed(SPEEDS, curves(r1pipe=[1.0, 1.1])) == ["seeds of the curves"]


def test_a_clock_tells_steps_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not generation or reward was training."""
    times, cpu_times = iter([0.0, 2.0, 5.0]), iter([0.0, 1.0, 3.0])
    monkeypatch.setattr("bench.rl_arms.time.perf_counter", lambda: next(times))
    monkeypatch.setattr("bench.rl_arms.cpu_seconds", lambda: next(cpu_times))
    clock = Clock()
    clock.step(1.0, 50.0, {"generation": 1.5})
    clock.step(1.1, 51.0, {"generation": 1.0})
    assert [(row["step"], row["seconds"], row["cpu_seconds"]) for row in clock.rows] == [(1, 2, 1), (2, 3, 2)]
    assert clock.rows[1]["split"] == {"generation": 1.0, "training": 2.0}


def test_a_training_is_kept(tmp_path: Path) -> None:
    """The file of the same setup is read; one of another is done again."""
    trainer = rl.Trainer(tmp_path)
    setup = Setup("model", steps=1)
    kept = {"setup": asdict(setup), "rows": []}
    (tmp_path / "speed.json").write_text(json.dumps(kept))
    assert trainer.train("trl", setup, "speed") == kept
    trainer.left_out["trl"] = "no"
    assert trainer.train("trl", Setup("model", steps=2), "speed") is None


@pytest.mark.parametrize(("arm", "threads"), [("trl", None), ("trl-tuned", "1"), ("r1pipe", "1")])
def test_threads(arm: str, threads: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL's defaults are on as many threads as torch likes, whatever is set around the benchmark."""
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert rl._environment(arm).get("OMP_NUM_THREADS") == threads


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a script of one's own in place of the trainings."""

    def put(text: str) -> None:
        script = tmp_path / "rl_arms.py"
        script.write_text(text)
        monkeypatch.setattr(rl, "__file__", str(script))

    return put


def test_a_peer_that_does_not_work_is_left_out(tmp_path: Path, scripted: Callable[[str], None]) -> None:
    """It is tried once, and its last words are told; where r1pipe fails there is nothing to compare."""
    scripted("raise SystemExit('no such attention')")
    trainer = rl.Trainer(tmp_path / "kept")
    assert trainer.speed(["trl-batching"], Setup("model"), rounds=2) == {}
    assert trainer.left_out == {"trl-batching": "no such attention"}
    with pytest.raises(SystemExit, match="The training of r1pipe ended with 1: no such attention"):
        trainer.train("r1pipe", Setup("model"), "speed")


def test_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], scripted: Callable[[str], None]
) -> None:
    """All trainings take turns; claims, tables and plots are written; a missed claim is told by the exit."""
    log = tmp_path / "log"
    kept = training(1.0, [1.0] * 2)["rows"]
    scripted(
        "import json, sys\n"
        f"arm, rows = sys.argv[1], {kept!r}\n"
        f"open({str(log)!r}, 'a').write(arm + ' ')\n"
        "options = {o.partition('=')[0]: o.partition('=')[2] for o in sys.argv if '=' in o}\n"
        "setup = {'model': options['--model'], 'steps': int(options['--steps']), 'learning_rate': 4e-4,\n"
        "         'prompts_per_step': 2, 'group_size': 2, 'max_new_tokens': 12, 'seed': 0}\n"
        "json.dump({'setup': setup, 'rows': rows}, open(sys.argv[3], 'w'))\n"
    )
    for stage in ("zero", "base"):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "config.json").write_text("{}")
    out = tmp_path / "out" / "rl.json"
    options = ["--run", str(tmp_path), "--work", str(tmp_path / "kept"), "--out", str(out), "--quick"]
    assert rl.main([*options, "--arms", "trl", "r1pipe", "--curves", "trl", "r1pipe"]) == 1
    assert log.read_text().split() == ["trl", "r1pipe", "trl", "r1pipe"]
    printed = capsys.readouterr().out
    assert printed == out.with_suffix(".md").read_text()
    assert "| samples/s of r1pipe >= 3 x trl (median of the rounds) | **missed** | 1 | >= | 3 |" in printed
    assert "| trl | 4.0 | 2.0 | 200 | 50.0 | 1.00 | 1.00 |" in printed
    assert "| trl | 0.500 | 0.000 | 0.000 | 0.500 | 1.000 |" in printed
    assert str(tmp_path) not in out.read_text() + printed
    assert {each.name for each in out.parent.iterdir()} == {
        "rl.json",
        "rl.md",
        "rl-split.svg",
        "rl-curves.svg",
    }


def test_where_the_model_lies(tmp_path: Path) -> None:
    """The newest version in a run, a bare folder, or a word on what is missing."""
    for version in ("v001-a", "v002-b"):
        (tmp_path / "artifacts" / "zero" / version).mkdir(parents=True)
    assert model_of(tmp_path, "zero").name == "v002-b"
    with pytest.raises(SystemExit, match="has no 'base'; name a finished run"):
        model_of(tmp_path, "base")


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["trl-tuned", "trl-batching", "r1pipe"])
def test_an_arm(arm: str, tmp_path: Path) -> None:
    """Two steps of the real thing: every step has its reward, its length and a split that adds up."""
    setup = Setup(str(write_tiny(tmp_path / "zero")), 2, prompts_per_step=2, group_size=2, max_new_tokens=12)
    trained = rl.Trainer(tmp_path / "kept").train(arm, setup, arm)
    assert trained is not None and trained["arm"] == arm
    assert [row["step"] for row in trained["rows"]] == [1, 2]
    for row in trained["rows"]:
        assert 1 <= row["length"] <= 12 and 0 <= row["reward"] <= 1.5
        assert sum(row["split"].values()) == pytest.approx(row["seconds"])
        assert row["split"]["generation"] > 0


def test_the_arms() -> None:
    """TRL by its own defaults is given no option more; the tuned one says what it changes."""
    assert ARMS["trl"].options == {} and ARMS["trl"].threads is None
    assert ARMS["trl-tuned"].options == {"bf16": False, "gradient_checkpointing": False}
