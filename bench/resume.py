r"""Kills a run during pretraining, RL and sampling, and compares how it ends with one left alone.

    python bench/resume.py --recipe smoke --set stages.base.save_every=50 --set stages.base.log_every=10 \
        --set stages.student-base.save_every=50 --set stages.student-base.log_every=10

Each kill is a SIGKILL of the command and everything it started, in the middle of a stage that has something
to go on from. The exit code is 1 when a stage could not be caught, began anew, or anything differs.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file, it stands beside its helpers and not above them
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.common import R1PIPE, family, machine, machine_line, table, write_result
from r1pipe.report import RunFiles

VERBS = ("pretrain", "rl", "sample")
WEIGHTS = "model.safetensors"
_LOOK_EVERY = 0.01  # seconds; the stages of a small recipe are short


@dataclass(frozen=True, slots=True)
class Kill:
    """A stage that was killed in the middle."""

    stage: str
    verb: str
    step: int
    """The last one that its metrics showed."""
    steps: int
    """How many there are; sampling may reach its limit before the last."""
    saved: int
    """The step that the stage can go on from."""
    rows: list[dict[str, Any]]
    """Its metrics up to that step, as they were logged before the kill."""


def killed_in(command: Sequence[str], run: Path, verb: str, spared: set[str]) -> Kill | None:
    """Start the run, and kill it in the first stage of `verb` that is in the middle; None if none was."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            if in_the_middle(run, verb, spared):
                for pid in list(family(process.pid)):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                process.wait()
                return in_the_middle(run, verb, spared)  # it may have come further before it died
            time.sleep(_LOOK_EVERY)
    if process.returncode:
        raise SystemExit(f"The run {run} ended with exit code {process.returncode}; see its logs.")
    return None


def in_the_middle(run: Path, verb: str, spared: set[str]) -> Kill | None:
    """The first stage of `verb` that has work on the disk to go on from, and work still to do."""
    if not (run / "run.json").is_file():
        return None
    files = RunFiles(run)
    for name, section in files.recipe["stages"].items():
        if section["uses"] != verb or name in spared or any((run / "artifacts" / name).glob("v*")):
            continue
        rows = files.metrics(name)
        step, steps = (rows[-1]["step"], rows[-1]["steps"]) if rows else (0, 0)
        saved = step if verb == "sample" else _newest_checkpoint(run / "work" / name / "trainer")
        half = 1 if verb == "sample" else steps / 2  # sampling may end long before its last batch
        if saved and half <= step < steps:
            return Kill(name, verb, step, steps, saved, [row for row in rows if row["step"] <= saved])
    return None


def _newest_checkpoint(trainer: Path) -> int:
    whole = trainer.glob("checkpoint-*/whole.json")
    return max((int(marker.parent.name.partition("-")[2]) for marker in whole), default=0)


def went_on(run: Path, kill: Kill) -> bool:
    """Whether the stage was taken up where it was, and not begun anew.

    Rows of metrics hold the time that a step took, which does not come out the same twice.
    """
    return RunFiles(run).metrics(kill.stage)[: len(kill.rows)] == kill.rows


def outcome(run: Path) -> dict[str, Any]:
    """What two runs are compared by: every model's scores, every file of every stage by its hash."""
    files = RunFiles.open(run)
    stages = {name: stage.manifest_or_fail() for name, stage in files.stages.items()}
    hashes = {name: {file.path: file.sha256 for file in each.files} for name, each in stages.items()}
    return {"scores": files.scores(), "files": hashes}


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, list[str]]:
    """The files of each stage that are not the same bytes in both runs, or in one only."""
    stages = {**one["files"], **other["files"]}
    return {
        stage: sorted(
            path
            for path in {**one["files"].get(stage, {}), **other["files"].get(stage, {})}
            if one["files"].get(stage, {}).get(path) != other["files"].get(stage, {}).get(path)
        )
        for stage in stages
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run once, run with kills, compare, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="smoke", help="a recipe's file or name")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="for both runs, as in `r1pipe run`"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/resume"), help="a folder; replaced")
    parser.add_argument("--out", type=Path, default=Path("bench/results/resume.json"))
    chosen = parser.parse_args(arguments)
    whole, broken = chosen.runs / "whole", chosen.runs / "broken"
    for folder in (whole, broken):
        shutil.rmtree(folder, ignore_errors=True)
    command = [*R1PIPE, "run", chosen.recipe, *(f"--set={each}" for each in chosen.set)]
    subprocess.run([*command, "--out", str(whole)], check=True, stdout=sys.stderr)
    command += ["--out", str(broken)]
    kills: dict[str, Kill | None] = {}
    for verb in VERBS:
        kills[verb] = killed_in(command, broken, verb, {kill.stage for kill in kills.values() if kill})
    subprocess.run(command, check=True, stdout=sys.stderr)
    result = {
        "recipe": chosen.recipe,
        "set": chosen.set,
        "kills": {verb: _told(broken, kill) for verb, kill in kills.items()},
        **comparison(outcome(whole), outcome(broken)),
        "machine": machine(),
    }
    write_result(chosen.out, result, _page(result))
    caught = all(kill and kill["went_on"] for kill in result["kills"].values())
    return 0 if caught and result["same_scores"] and not any(result["differing_files"].values()) else 1


def comparison(whole: Mapping[str, Any], broken: Mapping[str, Any]) -> dict[str, Any]:
    """What the page tells of two outcomes."""
    differ = differing(whole, broken)
    weights = {stage: files[WEIGHTS] for stage, files in whole["files"].items() if WEIGHTS in files}
    return {
        "same_scores": whole["scores"] == broken["scores"],
        "same_weights": not any(WEIGHTS in paths for paths in differ.values()),
        "weights": weights,
        "differing_files": differ,
    }


def _told(run: Path, kill: Kill | None) -> dict[str, Any] | None:
    if kill is None:
        return None
    return {
        **{key: value for key, value in asdict(kill).items() if key != "rows"},
        "went_on": went_on(run, kill),
    }


def _page(result: Mapping[str, Any]) -> str:
    kills = [
        [
            verb,
            kill["stage"],
            f"{kill['step']} of {kill['steps']}",
            str(kill["saved"]) if kill["went_on"] else "nothing",
        ]
        if kill
        else [verb, "not caught", "–", "–"]
        for verb, kill in result["kills"].items()
    ]
    stages = [
        [stage, result["weights"].get(stage, "–")[:16], ", ".join(paths) or "none"]
        for stage, paths in result["differing_files"].items()
    ]
    scores = "the same" if result["same_scores"] else "**not the same**"
    weights = "equal bit for bit" if result["same_weights"] else "**not equal**"
    return (
        f"# Killed and resumed: {result['recipe']}\n\n{machine_line(result['machine'])}\n\n"
        f"{table(['SIGKILL during', 'stage', 'after step', 'went on from'], kills)}\n\n"
        f"After all three kills and of an undisturbed run: scores {scores}, weights of the "
        f"{len(result['weights'])} checkpoints {weights}.\n\n"
        f"{table(['stage', 'sha256 of the weights', 'files that differ'], stages)}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
