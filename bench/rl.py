"""GRPO by r1pipe's stage beside a plain TRL script: samples per second, where the time goes, and rewards.

    python bench/rl.py --run runs/tiny-r1

Speed: a few steps from the run's `zero`, a model at its trained lengths, each training in a process of its
own, all taking turns. Rewards: whole trainings from its `base`, for several seeds. Every training is kept in
`--work` and not done again while it is there. The exit code is 1 when a claim is missed.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from math import sqrt
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

if __name__ == "__main__":  # run as a file, it stands beside its helpers and not above them
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.claims import Claim, claims_table
from bench.common import machine, machine_line, model_of, table, write_result
from bench.plots import curves, stacked_bars
from bench.rl_arms import ARMS, Row, Setup
from r1pipe import jsonl
from r1pipe.report.charts import Series

OURS = "r1pipe"
PARTS = (("generation", "#3566c8"), ("reward", "#2f8f5b"), ("logprobs", "#d09a1e"), ("training", "#c7681e"))
FACTOR, LAST, SEEDS = 3.0, 10, 3
"""How many times faster than TRL it is to be; the steps that make the end of a curve; the seeds it takes."""
_DEADLINE = 4 * 3600  # seconds; a training in bfloat16 on a CPU without it is slow

Trainings = dict[str, list[Row]]
"""The finished trainings of each arm, in order."""


# --- Running


class Trainer:
    """Trains in processes of their own and keeps what came out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.left_out: dict[str, str] = {}
        """Arms that cannot be run here, with the last line that they printed."""

    def train(self, arm: str, setup: Setup, name: str) -> Row | None:
        """One training, or the one that is there; None where the arm does not work."""
        out = self.folder / f"{name}.json"
        if out.is_file() and (kept := jsonl.loads(out.read_bytes()))["setup"] == asdict(setup):
            return kept
        if arm in self.left_out:
            return None
        script = str(Path(__file__).with_name("rl_arms.py"))
        options = [f"--{key.replace('_', '-')}={value}" for key, value in asdict(setup).items()]
        command = [sys.executable, script, arm, "--out", str(out), *options]
        load, log = os.getloadavg()[0], out.with_suffix(".log")
        out.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as printed:
            ended = subprocess.run(
                command, stdout=printed, stderr=printed, env=_environment(arm), timeout=_DEADLINE
            )
        if ended.returncode:
            said = log.read_text().strip().splitlines() or ["nothing"]
            if ARMS[arm].ours:
                raise SystemExit(f"The training of {arm} ended with {ended.returncode}: {said[-1]}")
            self.left_out[arm] = said[-1]
            return None
        trained = {**jsonl.loads(out.read_bytes()), "load_before": round(load, 2)}
        jsonl.write_json(out, trained)
        return trained

    def speed(self, arms: Sequence[str], setup: Setup, rounds: int) -> Trainings:
        """Short trainings of all arms in turn, as many times as there are rounds."""
        turns = [(turn, arm) for turn in range(rounds) for arm in arms]
        found = [(arm, self.train(arm, setup, f"speed-{arm}-{turn}")) for turn, arm in turns]
        return _by_arm(arms, found)

    def curves(self, arms: Sequence[str], setup: Setup, seeds: Sequence[int]) -> Trainings:
        """Whole trainings of all arms, for each seed in turn."""
        turns = [(replace(setup, seed=seed), arm) for seed in seeds for arm in arms]
        found = [(arm, self.train(arm, each, f"curve-{arm}-{each.seed}")) for each, arm in turns]
        return _by_arm(arms, found)


def _environment(arm: str) -> dict[str, str]:
    """Ours, with the arm's number of threads; an arm without one gets torch's own."""
    threads = ARMS[arm].threads
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    return environment if threads is None else environment | {"OMP_NUM_THREADS": str(threads)}


def _by_arm(arms: Sequence[str], found: Sequence[tuple[str, Row | None]]) -> Trainings:
    trained: Trainings = {arm: [each for name, each in found if name == arm and each] for arm in arms}
    return {arm: each for arm, each in trained.items() if each}


# --- Figures


def paces(training: Row) -> Row:
    """What a short training says of speed; its first step, in which libraries warm up, is left out."""
    rows = training["rows"][1:]
    samples = training["setup"]["prompts_per_step"] * training["setup"]["group_size"]
    seconds = fmean(row["seconds"] for row in rows)
    length = fmean(row["length"] for row in rows)
    return {
        "samples_per_second": samples / seconds,
        "samples_per_cpu_second": samples / fmean(row["cpu_seconds"] for row in rows),
        "tokens_per_second": samples * length / seconds,
        "length": length,
        "seconds": seconds,
        "split": {part: fmean(row["split"].get(part, 0.0) for row in rows) for part, _ in PARTS},
    }


def speed_figures(trainings: Trainings) -> dict[str, Row]:
    """Medians over the rounds of each arm, and how many times faster ours is: the median of each round's."""
    figures: dict[str, Row] = {}
    by_arm = {arm: [paces(each) for each in of_arm] for arm, of_arm in trainings.items()}
    for arm, found in by_arm.items():
        figures[arm] = {key: median(each[key] for each in found) for key in found[0] if key != "split"}
        figures[arm]["split"] = {part: median(each["split"][part] for each in found) for part, _ in PARTS}
        for key in ("samples_per_second", "samples_per_cpu_second"):
            pairs = zip(by_arm.get(OURS, ()), found, strict=False)
            times = [ours[key] / other[key] for ours, other in pairs]
            figures[arm][key.replace("samples_per", "times_per")] = median(times) if times else None
    return figures


def ends(trainings: Sequence[Row]) -> list[float]:
    """The mean reward of each training's last steps."""
    return [fmean(row["reward"] for row in each["rows"][-LAST:]) for each in trainings]


def spread(one: Sequence[float], other: Sequence[float]) -> float:
    """Standard error of the difference of two means over seeds; 0 where there is one seed."""
    if min(len(one), len(other)) < 2:
        return 0.0
    return sqrt(stdev(one) ** 2 / len(one) + stdev(other) ** 2 / len(other))


def claims(speed: Mapping[str, Row], trained: Trainings, peers: Sequence[str]) -> list[Claim]:
    """What the figures are to show against each peer; what was not measured is missed."""
    found = []
    for arm in peers:
        times = speed.get(arm, {}).get("times_per_second")
        found.append(Claim(f"samples/s of {OURS} >= 3 x {arm} (median of the rounds)", times, ">=", FACTOR))
    ours = ends(trained.get(OURS, ()))
    found.append(Claim("seeds of the curves", len(ours), ">=", SEEDS))
    for arm in (arm for arm in trained if not ARMS[arm].ours):
        theirs = ends(trained[arm])
        bound = fmean(theirs) - 2 * spread(ours, theirs)
        text = f"reward of {OURS} at the end >= {arm} - 2 standard errors of the difference"
        found.append(Claim(text, fmean(ours) if ours else None, ">=", bound))
    return found


# --- The page


def page(result: Mapping[str, Any]) -> str:
    """The result as Markdown; the plots lie beside it."""
    setups = result["setups"]
    speed, curve = setups["speed"], setups["curves"]
    arms = {**result["speed"], **result["curves"]}
    parts = [
        "# GRPO: r1pipe's stage and a plain TRL script",
        f"{speed['prompts_per_step']} prompts x {speed['group_size']} completions of at most "
        f"{speed['max_new_tokens']} tokens a step; the same model, prompts, rewards and learning rate "
        f"({speed['learning_rate']:g}, falling to 0), each one's own defaults for the rest. "
        f"{machine_line(result['machine'])}",
        "\n".join(f"- `{arm}`: {ARMS[arm].told}." for arm in arms),
        *(f"`{arm}` was left out: {said}" for arm, said in result["left_out"].items()),
        "## Claims",
        claims_table(Claim(c["claim"], c["value"], c["relation"], c["bound"]) for c in result["claims"]),
    ]
    if result["speed"]:
        parts += [
            "## Speed over whole steps",
            f"From a trained policy, {speed['steps']} steps each but the first, {result['rounds']} times in "
            "turn; medians. The load of the machine before each was "
            f"{' '.join(f'{load:g}' for load in result['loads'])}.",
            _speed_table(result["speed"]),
            "Seconds of a step:",
            _split_table(result["speed"]),
            "![Where a step's time goes](rl-split.svg)",
        ]
    if result["curves"]:
        parts += [
            "## Rewards",
            f"{curve['steps']} steps from the base. The end is the mean of the last {LAST} steps.",
            _ends_table(result["curves"]),
            "![Mean reward over the steps](rl-curves.svg)",
        ]
    return "\n\n".join(parts) + "\n"


def _speed_table(figures: Mapping[str, Row]) -> str:
    rows = [
        [
            arm,
            f"{each['samples_per_second']:.1f}",
            f"{each['samples_per_cpu_second']:.1f}",
            f"{each['tokens_per_second']:,.0f}",
            f"{each['length']:.1f}",
            _times(each["times_per_second"]),
            _times(each["times_per_cpu_second"]),
        ]
        for arm, each in figures.items()
    ]
    return table(
        [
            *("", "samples/s", "samples per CPU second", "tokens/s", "mean length"),
            *("r1pipe is x faster", "x by CPU time"),
        ],
        rows,
    )


def _times(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _split_table(figures: Mapping[str, Row]) -> str:
    rows = [
        [arm, *(f"{each['split'][part]:.3f}" for part, _ in PARTS), f"{each['seconds']:.3f}"]
        for arm, each in figures.items()
    ]
    return table(["", *(part for part, _ in PARTS), "whole"], rows)


def _ends_table(trained: Mapping[str, Row]) -> str:
    seeds = next(iter(trained.values()))["seeds"]
    rows = [
        [arm, *(f"{end:.3f}" for end in each["ends"]), f"{fmean(each['ends']):.3f}"]
        for arm, each in trained.items()
    ]
    return table(["", *(f"seed {seed}" for seed in seeds), "mean"], rows)


def plots(result: Mapping[str, Any], trained: Trainings) -> dict[str, str]:
    """SVG files by name."""
    found = {}
    if result["speed"]:
        bars = {arm: each["split"] for arm, each in result["speed"].items()}
        found["rl-split.svg"] = stacked_bars(bars, PARTS, title="Where a step's time goes", unit="s")
    if trained:
        series = [
            Series(arm, [(row["step"], row["reward"]) for row in each["rows"]], ARMS[arm].color)
            for arm, of_arm in trained.items()
            for each in of_arm
        ]
        legend = [(f"{arm}: {ARMS[arm].told}", ARMS[arm].color) for arm in trained]
        found["rl-curves.svg"] = curves(series, legend, title="Mean reward over the steps, each seed a line")
    return found


# --- The command


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, compare, write."""
    chosen = _options().parse_args(arguments)
    if chosen.quick:
        small = {"prompts_per_step": 2, "group_size": 2, "max_new_tokens": 12}
        chosen.rounds, chosen.steps, chosen.curve_steps, chosen.seeds = 1, 2, 2, chosen.seeds[:1]
    else:
        small = {}
    models = {stage: str(model_of(chosen.run, stage)) for stage in ("zero", "base")}
    speed = Setup(models["zero"], chosen.steps, learning_rate=chosen.learning_rate, **small)
    curve = replace(speed, model=models["base"], steps=chosen.curve_steps)
    trainer = Trainer(chosen.work)
    timed = trainer.speed(chosen.arms, speed, chosen.rounds)
    trained = trainer.curves(chosen.curves, curve, chosen.seeds)
    figures = speed_figures(timed)
    found = claims(figures, trained, [arm for arm in chosen.arms if not ARMS[arm].ours])
    result = {
        "claims": [claim.as_json for claim in found],
        "rounds": chosen.rounds,
        "setups": {"speed": _told(speed), "curves": _told(curve)},
        "speed": figures,
        "loads": [each["load_before"] for of_arm in timed.values() for each in of_arm],
        "curves": {
            arm: {
                "seeds": [each["setup"]["seed"] for each in of_arm],
                "ends": ends(of_arm),
                "rewards": [[row["reward"] for row in each["rows"]] for each in of_arm],
                "lengths": [[row["length"] for row in each["rows"]] for each in of_arm],
            }
            for arm, of_arm in trained.items()
        },
        "left_out": trainer.left_out,
        "machine": machine(),
    }
    for name, drawn in plots(result, trained).items():
        jsonl.write_text(chosen.out.parent / name, drawn)
    write_result(chosen.out, result, page(result))
    return 0 if all(claim.held for claim in found) else 1


def _told(setup: Setup) -> Row:
    """Without the model's folder, which is this machine's."""
    return {key: value for key, value in asdict(setup).items() if key not in ("model", "seed")}


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run", type=Path, default=Path("runs/tiny-r1"), help="a run whose zero and base are used"
    )
    arms = sorted(ARMS)
    parser.add_argument(
        "--arms",
        nargs="+",
        choices=arms,
        default=["trl", "trl-tuned", "trl-batching", OURS],
        help="for speed",
    )
    parser.add_argument("--rounds", type=int, default=3, help="turns of the speed; 0 leaves it out")
    parser.add_argument("--steps", type=int, default=6, help="of each training for speed")
    parser.add_argument("--curves", nargs="+", choices=arms, default=["trl-tuned", "trl-none", OURS])
    parser.add_argument(
        "--seeds", type=int, nargs="*", default=[0, 1, 2], help="of the curves; none: no curves"
    )
    parser.add_argument("--curve-steps", type=int, default=60)
    parser.add_argument("--learning-rate", type=float, default=4e-4)
    parser.add_argument("--work", type=Path, default=Path("runs/bench-rl"), help="where trainings are kept")
    parser.add_argument("--quick", action="store_true", help="two small steps of each, to see that it works")
    parser.add_argument("--out", type=Path, default=Path("bench/results/rl.json"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
