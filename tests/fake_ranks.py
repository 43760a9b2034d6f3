"""A stage on several processes that costs little: tests look at what its ranks do to each other."""

import math
import os
import signal
import time
from types import SimpleNamespace
from typing import Annotated, ClassVar

from r1pipe import jsonl
from r1pipe.errors import Interrupted, UsageError
from r1pipe.parallel import ParallelConfig
from r1pipe.stage import NEUTRAL, Inputs, Outcome, Verbs, Work
from r1pipe.watchdog import watched

VERSION = 1


class Config(ParallelConfig):
    """What the ranks do."""

    makes: ClassVar = "dataset"

    fails: Annotated[str, NEUTRAL] = ""
    """How the second rank ends before its time."""


def run(config: Config, inputs: Inputs, work: Work) -> Outcome:
    """Let every rank say who it is; the first one writes it down."""
    from r1pipe.train import launching, ranks

    if config.spread and work.rank is None:
        return launching.on_processes(config, inputs, work)
    work.progress(1, 2, "steps")
    if work.rank == 1:
        _fail(config.fails)
    if config.fails == "nan":
        _diverge(work)
    if config.fails == "wait":
        while not ranks.agreed(work.stopping()):
            work.progress(1, 2, "steps")
            time.sleep(0.05)
        raise Interrupted("The ranks stopped.")
    total = ranks.total(os.getpid())
    work.log({"step": 1})
    work.say(f"I am rank {work.rank}.")
    if work.rank:
        return Outcome("dataset", work.dir)
    jsonl.write_shards(work.dir / "out", [{"text": "made", "nodes": config.nodes}])
    threads = os.environ["OMP_NUM_THREADS"]
    return Outcome("dataset", work.dir / "out", {"alone": total == os.getpid(), "threads": threads}, tokens=7)


def _diverge(work: Work) -> None:
    """The second rank's loss is no number; the first needs longer to write that down than ranks are given."""
    from r1pipe.train import launching, ranks
    from r1pipe.train.running import FiniteTrainer

    class Trainer(FiniteTrainer):
        def __init__(self) -> None:
            self.state = SimpleNamespace(global_step=4)  # type: ignore[assignment]
            self.args = SimpleNamespace(output_dir=work.dir)  # type: ignore[assignment]

        def _require_finite(self, name: str, value: float) -> None:
            if ranks.first():
                time.sleep(launching.WORDS_SECONDS + 2)
                jsonl.write_json(work.dir / "evidence.json", {"value": str(value)})
            super()._require_finite(name, value)

    Trainer()._require_finite("loss", ranks.worst(math.nan if work.rank else 0.5))


def _fail(how: str) -> None:
    match how:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "raise":
            raise ValueError("the numbers do not add up")
        case "usage":
            raise UsageError("Row 3 has no answer.")
        case "exit":
            os._exit(3)
        case "late":
            time.sleep(120)
        case "abort":
            os.abort()
        case "hang":
            with watched(0.1):
                time.sleep(60)


VERBS = Verbs({"ranks": "tests.fake_ranks"})
