"""Kills a run during pretraining, RL and sampling, and compares how it ends with one left alone.

    python bench/resume.py --recipe smoke --out bench/results/resume.json

Each kill is a SIGKILL of the command and everything it started, once the stage's metrics show that it is half
way. The exit code is 1 when a stage could not be caught or anything differs.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file, it stands beside its helpers and not above them
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.common import R1PIPE, machine, machine_line, table, write_result
from r1pipe.report import RunFiles

VERBS = ("pretrain", "rl", "sample")
_LOOK_EVERY = 0.02  # seconds; the stages of a small recipe are short


def killed_in(command: Sequence[str], run: Path, verb: str, spared: set[str]) -> dict[str, Any] | None:
    """Start the run, and kill it in the first stage of `verb` that is half way; None if none was caught."""
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            if caught := _half_way(run, verb, spared):
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return caught
            time.sleep(_LOOK_EVERY)
    if process.returncode:
        raise SystemExit(f"The run {run} ended with exit code {process.returncode}; see its logs.")
    return None


def _half_way(run: Path, verb: str, spared: set[str]) -> dict[str, Any] | None:
    if not (run / "run.json").is_file():
        return None
    files = RunFiles(run)
    ended = {event["stage"] for event in files.events if event["event"] == "stage_finished"} | spared
    for name, section in files.recipe["stages"].items():
        rows = files.metrics(name) if section["uses"] == verb and name not in ended else []
        if rows and rows[-1]["step"] * 2 >= rows[-1].get("steps", 0):
            return {"stage": name, "verb": verb, "step": rows[-1]["step"], "steps": rows[-1].get("steps")}
    return None


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
    parser.add_argument("--runs", type=Path, default=Path("runs/resume"), help="a folder; replaced")
    parser.add_argument("--out", type=Path, default=Path("bench/results/resume.json"))
    chosen = parser.parse_args(arguments)
    whole, broken = chosen.runs / "whole", chosen.runs / "broken"
    for folder in (whole, broken):
        shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([*R1PIPE, "run", chosen.recipe, "--out", str(whole)], check=True, stdout=sys.stderr)
    command = [*R1PIPE, "run", chosen.recipe, "--out", str(broken)]
    kills: dict[str, dict[str, Any] | None] = {}
    for verb in VERBS:
        spared = {kill["stage"] for kill in kills.values() if kill}
        kills[verb] = killed_in(command, broken, verb, spared)
    subprocess.run(command, check=True, stdout=sys.stderr)
    one, other = outcome(whole), outcome(broken)
    differ, same_scores = differing(one, other), one["scores"] == other["scores"]
    on = machine()
    result = {"kills": kills, "same_scores": same_scores, "differing_files": differ, "machine": on}
    write_result(chosen.out, result, _page(chosen.recipe, result, one))
    return 0 if all(kills.values()) and same_scores and not any(differ.values()) else 1


def _page(recipe: str, result: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    kills = [
        [verb, kill["stage"], f"{kill['step']} of {kill['steps']}"] if kill else [verb, "not caught", "–"]
        for verb, kill in result["kills"].items()
    ]
    stages = [
        [
            stage,
            whole["files"].get(stage, {}).get("model.safetensors", "–")[:16],
            ", ".join(paths) or "none",
        ]
        for stage, paths in result["differing_files"].items()
    ]
    same = "the same" if result["same_scores"] else "**not the same**"
    return (
        f"# Killed and resumed: {recipe}\n\n{machine_line(result['machine'])}\n\n"
        f"{table(['SIGKILL during', 'stage', 'after step'], kills)}\n\n"
        f"Scores after all three kills and of an undisturbed run: {same}.\n\n"
        f"{table(['stage', 'sha256 of the weights', 'files that differ'], stages)}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
