"""A stage that costs nothing, for tests of the pipeline: it writes down its text and what it was given.

It counts to `steps`, one journalled step at a time, so that a resume can be told from a new beginning. Run as
a script (`python -m tests.fake_stage RECIPE RUN JOBS`) it runs a recipe in a process that tests can kill.
"""

import ctypes
import errno
import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from r1pipe import errors, jsonl, pipeline
from r1pipe.recipe import load_recipe
from r1pipe.stage import NEUTRAL, DatasetRef, Findings, Inputs, Outcome, StageConfig, Verbs, Work
from r1pipe.watchdog import watched

VERSION = 1


class Config(StageConfig):
    """What the fake stage does."""

    makes = "dataset"

    data: DatasetRef | list[DatasetRef] = Field(default=[])
    """What it copies."""
    text: str = ""
    """What it adds."""
    rate: float = 1.0
    """A number that counts."""
    every: Annotated[int, NEUTRAL] = 1
    """A number that does not."""
    steps: int = 1
    """How far it counts."""
    pause: Annotated[float, NEUTRAL] = 0.0
    """Seconds per step."""
    fails: Annotated[str, NEUTRAL] = ""
    """How it ends before its time."""
    trainer: dict[str, Any] = Field(default={})
    """Options that `check` looks at."""
    needs: Annotated[str, NEUTRAL] = ""
    """What no machine has."""


def check(config: Config) -> Findings:
    """Know the option `beta` and no other, and have nothing."""
    wrong = [f"trainer.{key}: no such option" for key in config.trainer if key != "beta"]
    return Findings(wrong, [f"needs: there is no {config.needs}; buy one"] if config.needs else [])


def run(config: Config, inputs: Inputs, work: Work) -> Outcome:
    """Count, then write the rows."""
    with jsonl.Journal(work.dir / "steps.jsonl") as journal:
        done = journal.rows()
        work.rewind(len(done))
        for step in range(len(done) + 1, config.steps + 1):
            time.sleep(config.pause)
            journal.append([{"step": step, "pid": os.getpid()}])
            work.log({"step": step})
            work.progress(step, config.steps, "steps")
            work.pause_point()
        _fail(config.fails)
        processes = len({row["pid"] for row in journal.rows()})
    given = [row for artifact in inputs.many("data") for row in artifact.rows()]
    work.say(f"made of {len(given)} rows")
    jsonl.write_shards(work.dir / "out", [*given, {"text": config.text, "from": inputs.labels("data")}])
    return Outcome("dataset", work.dir / "out", {"steps": config.steps, "processes": processes}, tokens=7)


def _fail(how: str) -> None:
    match how:
        case "raise":
            raise ValueError("the numbers do not add up")
        case "usage":
            raise errors.UsageError("Row 3 has no answer.")
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        case "exit":
            os._exit(3)
        case "hang":
            with watched(0.1):
                ctypes.PyDLL(None).sleep(60)  # holds the GIL


VERBS = Verbs({"count": "tests.fake_stage"})


class Printed:
    """A sink that prints what begins and ends, for the tests that read a process's output."""

    def event(self, kind: str, stage: str, **fields: Any) -> None:
        """Print one line."""
        sys.stdout.write(f"{kind} {stage} {fields.get('row', '')}\n")
        sys.stdout.flush()


def main(recipe: str, run_dir: str, jobs: str) -> int:
    """Run a recipe of fake stages; return the exit code."""
    try:
        pipeline.run(
            load_recipe(Path(recipe), VERBS), run_dir, jobs=int(jobs), sink=Printed(), verbs=VERBS, preload=()
        )
    except errors.R1pipeError as error:
        sys.stdout.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
