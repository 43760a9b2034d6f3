"""Runs `recipes/tiny-r1.yaml` for several seeds, and checks what it is to show.

    python bench/tiny_r1.py --seeds 0 1 2 --out bench/results/tiny-r1.json

A finished run in `runs/tiny-r1-seed-N` is used as it is; one that was stopped goes on. The exit code is 1
when a claim is missed.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file, it stands beside its helpers and not above them
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.claims import (
    HELD_OUT,
    Mean,
    Means,
    SeedResult,
    claims,
    claims_table,
    persistence_share,
    resources,
)
from bench.common import Usage, machine, machine_line, run_recipe, table, write_result
from r1pipe.report import RunFiles

SETS = (HELD_OUT, "seen", "four-numbers", "documents")
KS = (1, 2, 4, 8, 16)
TRACE = ("mean_tokens", "attempts", "reflection", "language_consistency", "truncated", "arithmetic_validity")


def read(run: Path, seed: int) -> SeedResult:
    """A finished run, from its files."""
    files = RunFiles.open(run)
    spent = {name: stage.manifest.cost.cpu_seconds for name, stage in files.stages.items() if stage.manifest}
    return SeedResult(seed, files.scores(), spent)


def as_json(seeds: Sequence[SeedResult], usages: Sequence[Usage], on: dict[str, Any]) -> dict[str, Any]:
    """Everything that was measured, and what it says."""
    return {
        "claims": [claim.as_json for claim in (*claims(seeds), *resources(usages))],
        "persistence_share": persistence_share(Means(seeds)),
        "machine": on,
        "runs": [{**asdict(seed), "usage": asdict(usage)} for seed, usage in zip(seeds, usages, strict=True)],
    }


def page(seeds: Sequence[SeedResult], usages: Sequence[Usage], on: dict[str, Any]) -> str:
    """The result as Markdown."""
    means = Means(seeds)
    names = ", ".join(str(seed.seed) for seed in seeds)
    share = persistence_share(means)
    rest = "not measured" if share is None else f"{share:.2f}"
    parts = [
        "# tiny-r1",
        f"Seeds {names}: means, ± one standard error over the seeds. {machine_line(on)}",
        "## Claims",
        claims_table([*claims(seeds), *resources(usages)]),
        "## pass@1",
        _table(means, [(name, "pass_at_1", name) for name in SETS]),
        "## How they think, on held-out problems",
        _table(means, [(key, key, HELD_OUT) for key in TRACE]),
        "## pass@k on held-out problems",
        _table(
            means,
            [*_asked("pass-at-k"), *((f"pass@{k}", f"pass_at_k.{k}", "pass-at-k") for k in KS)],
            "pass-at-k",
        ),
        "## The base, forbidden to give up after a failed attempt",
        _table(
            means,
            [*_asked("persist"), ("pass@1", "pass_at_1", "persist"), ("tokens", "mean_tokens", "persist")],
            "persist",
        ),
        f"Share of the gain from base to zero that this alone gives: {rest}.",
        "## Time and memory",
        _usage_table(seeds, usages),
        _stage_table(seeds),
    ]
    return "\n\n".join(parts) + "\n"


def _asked(of_set: str) -> list[tuple[str, str, str]]:
    """The columns that tell on how much a set's scores rest."""
    return [("problems", "problems", of_set), ("completions", "samples", of_set)]


def _table(means: Means, columns: Sequence[tuple[str, str, str]], of_set: str = HELD_OUT) -> str:
    """Models by (heading, score, set); those that were not asked `of_set` are left out."""
    models = [model for model in means.models if means.of(model, "pass_at_1", of_set)]
    rows = [[model, *(_cell(means.of(model, key, name)) for _, key, name in columns)] for model in models]
    return table(["model", *(heading for heading, _, _ in columns)], rows)


def _cell(mean: Mean | None) -> str:
    if mean is None:
        return "–"
    if not mean.stderr and mean.value.is_integer():  # a count
        return f"{mean.value:.0f}"
    digits = 1 if abs(mean.value) >= 10 else 3
    error = "" if mean.stderr is None else f" ± {mean.stderr:.{digits}f}"
    return f"{mean.value:.{digits}f}{error}"


def _usage_table(seeds: Sequence[SeedResult], usages: Sequence[Usage]) -> str:
    rows = [
        [
            str(seed.seed),
            f"{usage.seconds / 60:.1f}" if usage.seconds else "–",
            f"{sum(seed.cpu_seconds.values()) / 60:.1f}",
            f"{usage.peak_bytes / 2**30:.2f}" if usage.peak_bytes else "–",
        ]
        for seed, usage in zip(seeds, usages, strict=True)
    ]
    return table(["seed", "wall minutes", "CPU minutes of the stages", "peak memory, GiB"], rows)


def _stage_table(seeds: Sequence[SeedResult]) -> str:
    stages = dict.fromkeys(stage for seed in seeds for stage in seed.cpu_seconds)
    rows = [
        [stage, *(f"{seed.cpu_seconds[stage]:.0f}" if stage in seed.cpu_seconds else "–" for seed in seeds)]
        for stage in stages
    ]
    return table(["stage", *(f"CPU seconds, seed {seed.seed}" for seed in seeds)], rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, read, check, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipe", default="tiny-r1", help="a recipe's file or name")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the folder of the runs")
    parser.add_argument("--out", type=Path, default=Path("bench/results/tiny-r1.json"))
    chosen = parser.parse_args(arguments)
    folders = {seed: chosen.runs / f"{Path(chosen.recipe).stem}-seed-{seed}" for seed in chosen.seeds}
    usages = [run_recipe(chosen.recipe, folder, [f"seed={seed}"]) for seed, folder in folders.items()]
    seeds = [read(folder, seed) for seed, folder in folders.items()]
    on = machine()
    write_result(chosen.out, as_json(seeds, usages, on), page(seeds, usages, on))
    return 0 if all(claim.held for claim in (*claims(seeds), *resources(usages))) else 1


if __name__ == "__main__":
    sys.exit(main())
