"""How long `--help` takes beside TRL's, and whether it imports anything heavy.

    python bench/startup.py --out bench/results/startup.json

The commands take turns, so that whatever else the machine does falls on all of them alike.
"""

import argparse
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # run as a file, it stands beside its helpers and not above them
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.common import R1PIPE, machine, machine_line, table, write_result

HEAVY = ("torch", "transformers", "trl", "datasets", "vllm", "pandas")
_BIN = Path(sys.executable).parent
COMMANDS = (("r1pipe", "--help"), ("r1pipe", "sft", "--help"), ("trl", "--help"), ("trl", "sft", "--help"))


def seconds(command: Sequence[str]) -> float:
    """Wall time of one run of a command of this environment, which must succeed."""
    begun = time.perf_counter()
    subprocess.run([str(_BIN / command[0]), *command[1:]], check=True, capture_output=True)
    return time.perf_counter() - begun


def imported() -> set[str]:
    """The top-level modules that `r1pipe sft --help` imports."""
    command = [sys.executable, "-X", "importtime", *R1PIPE[1:], "sft", "--help"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    return set(re.findall(r"^import time:.*\|\s*([^.\s]+)\S*$", told, re.MULTILINE))


def main(arguments: Sequence[str] | None = None) -> int:
    """Time, look, write; 1 when something heavy is imported."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("bench/results/startup.json"))
    chosen = parser.parse_args(arguments)
    for command in COMMANDS:
        seconds(command)  # once for the disk's cache
    rounds = [[seconds(command) for command in COMMANDS] for _ in range(chosen.rounds)]
    times = {
        " ".join(command): each for command, each in zip(COMMANDS, zip(*rounds, strict=True), strict=True)
    }
    heavy, on = sorted(imported() & set(HEAVY)), machine()
    result = {"seconds": times, "heavy_imports": heavy, "machine": on}
    rows = [
        [f"`{name}`", *(f"{of(each):.2f}" for of in (statistics.median, min, max))]
        for name, each in times.items()
    ]
    page = (
        f"# Start\n\n{chosen.rounds} runs of each, taking turns. {machine_line(on)}\n\n"
        f"{table(['command', 'median, s', 'least', 'most'], rows)}\n\n"
        f"Of {', '.join(HEAVY)}, `r1pipe sft --help` imports: {', '.join(heavy) or 'none'}.\n"
    )
    write_result(chosen.out, result, page)
    return 1 if heavy else 0


if __name__ == "__main__":
    sys.exit(main())
