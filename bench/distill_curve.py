"""A student on 100, 300, 1,000 and 3,000 traces of a finished tiny-r1, beside the same student by RL alone.

    python bench/distill_curve.py --runs runs/tiny-r1-seed-0 runs/tiny-r1-seed-1 runs/tiny-r1-seed-2

The sets are nested: each is the beginning of one random order of the run's traces. Every size is trained in
two ways. With the same *epochs*, which is what a recipe does, a student on 100 traces takes 19 steps and one
on 3,000 takes 563: the curve is of data and training together. With the same *steps*, those of the largest
set, small sets are gone over again and again, as is done with sets of a thousand: what is left is what the
traces add. All students, their base and the RL-only control answer the same held-out problems. A finished
part is used as it is; one that was stopped goes on.
"""

import argparse
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Final

import yaml

if __name__ == "__main__":  # run as a file, it stands beside its helpers and not above them
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.claims import HELD_OUT, Claim, claims_table
from bench.common import machine, machine_line, model_of, run_recipe, table, write_result
from bench.plots import curves
from r1pipe import jsonl
from r1pipe.recipe import Recipe, load_recipe
from r1pipe.report import RunFiles
from r1pipe.report.charts import Series
from r1pipe.train.determinism import derive_seed
from stages import VERBS

COUNTS: Final = (100, 300, 1000, 3000)
STEPS, EPOCHS, CONTROL, BASE = "same steps", "same epochs", "RL alone", "its base"
COLORS: Final = {STEPS: "#2f6f4f", EPOCHS: "#3b6fb6", CONTROL: "#c2542d", BASE: "#8a8f98"}
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """What a finished run gives."""

    run: Path
    recipe: Recipe
    seed: int

    @classmethod
    def of(cls, run: Path, recipe: Recipe) -> "Source":
        """A run's folder, and the recipe whose stages tell how a student is trained and asked."""
        return cls(run, recipe, int(RunFiles.open(run).recipe["seed"]))

    def section(self, stage: str) -> Row:
        """A stage as the recipe writes it."""
        spec = self.recipe.stages[stage]
        return {"uses": spec.uses, **spec.config.model_dump(mode="json", exclude_unset=True)}

    def scores(self) -> Row:
        """How students are asked: the recipe's own stage that scores them, on the held-out problems."""
        stages = self.recipe.stages
        name = next(
            each
            for each in stages
            if stages[each].uses == "evaluate" and "student" in self.section(each)["models"]
        )
        section = self.section(name)
        return section | {"sets": {HELD_OUT: section["sets"][HELD_OUT]}}


def order(rows: Sequence[Row], seed: int) -> list[Row]:
    """The rows in the one random order that all sets are the beginning of."""
    shuffled = list(rows)
    random.Random(derive_seed(seed, "distill-curve")).shuffle(shuffled)
    return shuffled


def traces(source: Source, most: int, work: Path) -> list[Row]:
    """At least `most` traces: the run's, or where it has fewer, those of its stage asked for more prompts."""
    rows = list(jsonl.iter_rows(model_of(source.run, "traces")))
    if len(rows) >= most:
        return rows
    section = source.section("traces")
    asked = -(-section["prompts"] * most * 11 // (len(rows) * 10))  # a tenth more than it should take
    more = section | {"model": str(model_of(source.run, "reasoner")), "prompts": asked}
    run_stages({"traces": more}, work / "more", source.seed)
    rows = list(jsonl.iter_rows(model_of(work / "more", "traces")))
    if len(rows) < most:
        raise SystemExit(f"{asked:,} prompts gave {len(rows):,} traces, {most:,} are wanted; lower --counts.")
    return rows


def run_stages(stages: Mapping[str, Row], folder: Path, seed: int) -> None:
    """Bring a recipe of these stages to its end."""
    recipe = folder.parent / f"{folder.name}.yaml"
    written = {"name": "distill-curve", "seed": seed, "stages": dict(stages)}
    jsonl.write_text(recipe, yaml.safe_dump(written, sort_keys=False))
    run_recipe(str(recipe), folder)


def students(section: Row, base: str, sets: Mapping[int, str]) -> Iterator[tuple[str, str, int, Row]]:
    """(stage, way, traces, section) of each training; the largest set is one in both ways."""
    largest = max(sets)
    for count, path in sets.items():
        common = section | {"model": base, "data": path}
        yield f"steps-{count}", STEPS, count, common | {"epochs": section["epochs"] * largest / count}
        if count != largest:
            yield f"epochs-{count}", EPOCHS, count, common


def measure(source: Source, counts: Sequence[int], work: Path) -> Row:
    """Train and ask all students of one run; return the scores by way and number of traces."""
    rows = order(traces(source, max(counts), work), source.seed)
    sets = {count: str(work / f"traces-{count}.jsonl") for count in sorted(counts)}
    for count, path in sets.items():
        jsonl.write_rows(Path(path), rows[:count])
    base, control = (str(model_of(source.run, stage)) for stage in ("student-base", "student-rl"))
    made = list(students(source.section("student"), base, sets))
    asked = source.scores() | {"models": [base, control, *(name for name, *_ in made)]}
    stages = {**{name: section for name, _, _, section in made}, "scores": asked}
    run_stages(stages, work / "students", source.seed)
    files = RunFiles.open(work / "students")
    found = {name: score["sets"][HELD_OUT] for name, score in files.scores().items()}
    told: Row = {"seed": source.seed, STEPS: {}, EPOCHS: {}, CONTROL: found[control], BASE: found[base]}
    for name, way, count, _ in made:
        told[way][count] = found[name] | {"steps": files.metrics(name)[-1]["step"]}
    told[EPOCHS][max(counts)] = told[STEPS][max(counts)]
    return told


# --- What it says


@dataclass(frozen=True, slots=True)
class Point:
    """A mean over seeds, with its standard error; of one seed, that of its problems."""

    value: float
    stderr: float

    @classmethod
    def of(cls, scores: Sequence[Row]) -> "Point":
        """Of one score for each seed."""
        values = [score["pass_at_1"] for score in scores]
        if len(values) == 1:
            return cls(values[0], scores[0]["stderr"])
        return cls(fmean(values), stdev(values) / sqrt(len(values)))

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.stderr:.3f}"


def counts_of(runs: Sequence[Row]) -> list[int]:
    """The numbers of traces, rising."""
    return sorted(runs[0][STEPS])


def _point(runs: Sequence[Row], name: str, count: int | None = None) -> Point:
    """The score of a way of training on so many traces, or of a model that learned from none."""
    return Point.of([run[name] if count is None else run[name][count] for run in runs])


def claims(runs: Sequence[Row]) -> list[Claim]:
    """What the curve is to show."""
    largest, smallest = max(counts_of(runs)), min(counts_of(runs))
    most, least = (_point(runs, STEPS, count).value for count in (largest, smallest))
    control = _point(runs, CONTROL).value
    more = f"student on {largest:,} traces >= on {smallest:,} + 0.10, in the same steps"
    return [
        Claim("seeds", len(runs), ">=", 3),
        Claim(more, most, ">=", least + 0.1),
        Claim(f"student on {largest:,} traces >= RL alone + 0.05", most, ">=", control + 0.05),
    ]


def page(runs: Sequence[Row], on: Row) -> str:
    """The result as Markdown."""
    score = runs[0][CONTROL]
    parts = [
        "# Accuracy by number of traces",
        f"A student of tiny-r1 on nested random sets of the run's traces: pass@1 on {score['problems']} "
        f"held-out problems, {score['samples']} completions. Seeds {_seeds(runs)}: means, ± one standard "
        f"error over the seeds (of one seed, over its problems). {machine_line(on)}",
        _sizes_table(runs),
        table(["", "pass@1"], [[name, str(_point(runs, name))] for name in (CONTROL, BASE)]),
        "![pass@1 by number of traces](distill-curve.svg)",
        "## Claims",
        claims_table(claims(runs)),
    ]
    return "\n\n".join(parts) + "\n"


def _seeds(runs: Sequence[Row]) -> str:
    return ", ".join(str(run["seed"]) for run in runs)


def _sizes_table(runs: Sequence[Row]) -> str:
    """A row for each number of traces: the steps and the score of both ways."""
    rows = []
    for count in counts_of(runs):
        cells = [
            (str(runs[0][way][count]["steps"]), str(_point(runs, way, count))) for way in (EPOCHS, STEPS)
        ]
        rows.append([f"{count:,}", *cells[0], *cells[1]])
    return table(["traces", "steps", EPOCHS, "steps", STEPS], rows)


def plot(runs: Sequence[Row]) -> str:
    """The curve as SVG: each way a line through its means, the control and the base across."""
    counts = counts_of(runs)
    lines = [
        Series(way, [(count, _point(runs, way, count).value) for count in counts], COLORS[way])
        for way in (STEPS, EPOCHS)
    ]
    for name in (CONTROL, BASE):
        across = [(count, _point(runs, name).value) for count in (counts[0], counts[-1])]
        lines.append(Series(name, across, COLORS[name]))
    return curves(
        lines,
        list(COLORS.items()),
        title=f"pass@1 on held-out problems by number of traces, seeds {_seeds(runs)}",
        logarithmic=True,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, ask, compare, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, nargs="+", default=[Path("runs/tiny-r1")], help="finished runs")
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS), help="of traces")
    parser.add_argument("--recipe", default="tiny-r1", help="what the runs were made from")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for the recipe")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/distill-curve"), help="where trainings are kept"
    )
    parser.add_argument("--out", type=Path, default=Path("bench/results/distill-curve.json"))
    chosen = parser.parse_args(arguments)
    recipe = load_recipe(chosen.recipe, VERBS, chosen.set)
    runs = []
    for run in chosen.runs:
        work = (chosen.work / run.resolve().name).resolve()
        runs.append(measure(Source.of(run.resolve(), recipe), sorted(set(chosen.counts)), work))
    on = machine()
    jsonl.write_text(chosen.out.with_suffix(".svg"), plot(runs))
    found = [claim.as_json for claim in claims(runs)]
    told = [{key: _keyed(value) for key, value in run.items()} for run in runs]
    write_result(chosen.out, {"claims": found, "runs": told, "machine": on}, page(runs, on))
    return 0 if all(claim.held for claim in claims(runs)) else 1


def _keyed(value: Any) -> Any:
    """With texts for keys, as JSON has it."""
    return {str(key): each for key, each in value.items()} if isinstance(value, dict) else value


if __name__ == "__main__":
    sys.exit(main())
