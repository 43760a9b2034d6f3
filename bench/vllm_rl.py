"""tiny-r1's R1-Zero with vLLM's rollouts beside the runs' own, and how exactly such a training is resumed.

    python bench/vllm_rl.py --runs runs/tiny-r1-seed-0 runs/tiny-r1-seed-1 runs/tiny-r1-seed-2

The `zero` of the first `--again` runs is trained again from its base, with nothing changed but the engine,
and scored on the same problems; all runs tell how far seeds are apart. Then a shorter training with a KL
term and a reference that moves is left alone twice, and killed and resumed once. Needs `make vllm`. The
trainings are kept in `--work`. The exit code is 1 when a claim is missed.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # run as a file, it stands beside its helpers and not above them
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.claims import HELD_OUT, Claim, claims_table
from bench.common import R1PIPE, machine, machine_line, model_of, table, write_result
from bench.plots import curves
from bench.resume import WEIGHTS, killed_in, went_on
from r1pipe import jsonl
from r1pipe.report import RunFiles
from r1pipe.report.charts import Series

if TYPE_CHECKING:
    import torch

Row = dict[str, Any]
ENGINES = {"transformers": "#3566c8", "vllm": "#7a7f1e"}
"""Each with its colour."""
PROBE, SEEDS = 1e-4, 3
"""What the probes are to stay below, a tenth of what ends a run in float32 (rollout/probe.py); the runs it
takes."""
RESUMED: Row = {"save_every": 4, "kl": 0.01, "reference_every": 5}
"""What the training that is resumed has beyond the recipe's zero."""
_FOUND_OUT = ("probe", "mismatch", "mismatch_ratio", "mismatch_ratio_max")


# --- Trainings


def zero_recipe(run: RunFiles, changes: Mapping[str, Any]) -> Row:
    """A run's `zero` from the base it made, changed so, and the scores on held-out problems that it has."""
    stages = run.recipe["stages"]
    zero = {**stages["zero"], "model": str(model_of(run.path, "base").resolve()), **changes}
    # The scores' stage keeps its name, from which the problems are drawn.
    name, scores = next(
        (name, each)
        for name, each in stages.items()
        if each["uses"] == "evaluate" and "zero" in each["models"] and HELD_OUT in each["sets"]
    )
    sets = {HELD_OUT: scores["sets"][HELD_OUT]}
    recipe = {key: value for key, value in run.recipe.items() if key != "stages"}
    return {**recipe, "stages": {"zero": zero, name: {**scores, "models": ["zero"], "sets": sets}}}


def command(recipe: Row, out: Path) -> list[str]:
    """What brings such a run to its end; its recipe is written beside it."""
    file = out.with_suffix(".yaml")
    jsonl.write_json(file, recipe)  # JSON is YAML
    return [*R1PIPE, "run", str(file), "--out", str(out)]


def ended(recipe: Row, out: Path) -> RunFiles:
    """The run at its end; what is up to date is not done again."""
    subprocess.run(command(recipe, out), check=True, stdout=sys.stderr)
    return RunFiles.open(out)


@dataclass(frozen=True, slots=True)
class Zero:
    """R1-Zero of one seed by one engine."""

    base: float
    """pass@1 of what it was trained from, on the same problems."""
    pass_at_1: float
    length: float
    """Tokens of a completion."""
    minutes: float
    """Of the processor."""
    rewards: list[float]
    found_out: Row
    """The worst of each of `_FOUND_OUT`, of ratios that furthest from 1; empty without vLLM."""


def read_zero(own: RunFiles, run: RunFiles) -> Zero:
    """What a run says of its zero; `own` is the one that has the base's scores."""
    rows = run.metrics("zero")
    scores = run.scores()["zero"]["sets"][HELD_OUT]
    manifest = run.stages["zero"].manifest_or_fail()
    worst = {
        key: max(found, key=lambda value: abs(value - (1 if "ratio" in key else 0)))
        for key in _FOUND_OUT
        if (found := [row[key] for row in rows if key in row])
    }
    return Zero(
        own.scores()["base"]["sets"][HELD_OUT]["pass_at_1"],
        scores["pass_at_1"],
        scores["mean_tokens"],
        manifest.cost.cpu_seconds / 60,
        [row["reward"] for row in rows],
        worst,
    )


# --- Resuming


def resumed(recipe: Row, folder: Path) -> Row:
    """The same short training three times, once killed on the way; how far apart the weights end."""
    files = {name: folder / name for name in ("whole", "again", "broken")}
    for each in files.values():
        shutil.rmtree(each, ignore_errors=True)
    kill = killed_in(command(recipe, files["broken"]), files["broken"], "rl", set())
    runs = {name: ended(recipe, each) for name, each in files.items()}
    if kill is None:
        raise SystemExit("The training ended before it could be killed; give it more --steps.")
    weights = {name: model_of(run.path, "zero") / WEIGHTS for name, run in runs.items()}
    start = Path(recipe["stages"]["zero"]["model"]) / WEIGHTS
    return {
        **{key: value for key, value in asdict(kill).items() if key in ("step", "steps", "saved")},
        "went_on": went_on(files["broken"], kill),
        "again": distance(weights["whole"], weights["again"]),
        "resumed": distance(weights["whole"], weights["broken"]),
        "moved": distance(start, weights["whole"]),
    }


def distance(one: Path, other: Path) -> Row:
    """Between two files of weights: the largest difference, and the norm of all over the norm of `one`."""
    from safetensors.torch import load_file

    first, second = load_file(one), load_file(other)
    differences = {name: second[name].double() - weight.double() for name, weight in first.items()}
    return {
        "largest": max(float(each.abs().max()) for each in differences.values()),
        "relative": _norm(differences) / _norm(first),
    }


def _norm(weights: "Mapping[str, torch.Tensor]") -> float:
    return sqrt(sum(float(each.double().square().sum()) for each in weights.values()))


# --- The result


def claims(zeros: Mapping[str, Sequence[Zero]], again: Row | None) -> list[Claim]:
    """What the figures are to show; what was not measured is missed."""
    gains = {engine: [each.pass_at_1 - each.base for each in of] for engine, of in zeros.items()}
    ours, theirs = gains["vllm"], gains["transformers"]
    # Few trainings may be done again: that their seeds are as far apart as all of them is taken for granted.
    error = stdev(theirs) * sqrt(1 / len(theirs) + 1 / len(ours)) if len(theirs) > 1 else 0.0
    bound = fmean(theirs) - 2 * error
    probes = [each.found_out["probe"] for each in zeros["vllm"] if "probe" in each.found_out]
    probe = max(probes) if len(probes) == len(ours) else None
    found = [
        Claim("seeds trained with both", min(len(ours), len(theirs)), ">=", SEEDS),
        Claim(
            "gain of zero with vLLM >= with transformers - 2 standard errors of the difference",
            fmean(ours),
            ">=",
            bound,
        ),
        Claim(f"the largest probe <= {PROBE:g}", probe, "<=", PROBE),
    ]
    if again is not None:
        found.append(
            Claim("a resumed training went on from its checkpoint", float(again["went_on"]), ">=", 1)
        )
    return found


def page(result: Mapping[str, Any]) -> str:
    """The result as Markdown; the plot lies beside it."""
    parts = [
        "# R1-Zero of tiny-r1 with vLLM's rollouts",
        f"The stage `zero` of finished runs, again from their bases with `engine: vllm` in process, "
        f"{result['steps']} steps; scored like the runs' own. {machine_line(result['machine'])}",
        claims_table(Claim(c["claim"], c["value"], c["relation"], c["bound"]) for c in result["claims"]),
        _gains_table(result["zeros"]),
        "![Mean reward over the steps](rl-vllm-curves.svg)",
        "## vLLM against the trainer",
        "Of all steps the worst: `probe`, after the weights were handed over, and `mismatch`, of the "
        "rollouts, are mean |difference| of log-probabilities; the ratios are those of trainer to vLLM, the "
        "mean and the largest of a step.",
        table(
            ["", *_FOUND_OUT],
            [
                [f"seed {seed}", *(f"{zero['found_out'][key]:.6g}" for key in _FOUND_OUT)]
                for seed, zero in result["zeros"]["vllm"].items()
            ],
        ),
    ]
    if result["resumed"]:
        parts += ["## Killed and resumed", *_resumed(result["resumed"])]
    return "\n\n".join(parts) + "\n"


def _gains_table(zeros: Mapping[str, Mapping[str, Row]]) -> str:
    rows = [
        [
            f"{engine}, seed {seed}",
            f"{zero['base']:.3f}",
            f"{zero['pass_at_1']:.3f}",
            f"{zero['pass_at_1'] - zero['base']:.3f}",
            f"{zero['length']:.1f}",
            f"{zero['minutes']:.1f}",
        ]
        for engine, by_seed in zeros.items()
        for seed, zero in by_seed.items()
    ]
    return table(["", "base", "zero", "gain", "tokens", "CPU minutes"], rows)


def _resumed(found: Row) -> list[str]:
    told = {"left alone, once more": "again", "killed and resumed": "resumed"}
    told |= {"for comparison, what the training moved": "moved"}
    went_on = f"went on from step {found['saved']}" if found["went_on"] else "**began anew**"
    return [
        f"{found['steps']} steps with a KL term and a reference that is taken anew every "
        f"{RESUMED['reference_every']} steps; SIGKILL after step {found['step']}, {went_on}. The weights "
        "beside those of a training that was left alone:",
        table(
            ["", "largest difference", "norm of the difference / norm"],
            [
                [text, *(f"{found[key][kind]:.2g}" for kind in ("largest", "relative"))]
                for text, key in told.items()
            ],
        ),
    ]


def drawn(zeros: Mapping[str, Sequence[Zero]]) -> str:
    """Rewards over the steps, each seed a line."""
    series = [
        Series(engine, list(enumerate(each.rewards, 1)), color)
        for engine, color in ENGINES.items()
        for each in zeros[engine]
    ]
    return curves(series, list(ENGINES.items()), title="Mean reward over the steps, each seed a line")


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, compare, write."""
    chosen = _options().parse_args(arguments)
    own = [RunFiles.open(run) for run in chosen.runs]
    zeros: dict[str, list[Zero]] = {engine: [] for engine in ENGINES}
    for run in own:
        zeros["transformers"].append(read_zero(run, run))
    for run in own[: chosen.again]:
        other = ended(zero_recipe(run, {"engine": "vllm"}), chosen.work / run.path.name)
        zeros["vllm"].append(read_zero(run, other))
    again = None
    if chosen.steps:
        short = zero_recipe(own[0], {"engine": "vllm", "steps": chosen.steps, **RESUMED})
        short["stages"] = {"zero": short["stages"]["zero"]}
        again = resumed(short, chosen.work)
    found = claims(zeros, again)
    result = {
        "claims": [claim.as_json for claim in found],
        "steps": len(zeros["vllm"][0].rewards),
        "zeros": {
            engine: {str(run.recipe["seed"]): asdict(zero) for run, zero in zip(own, of, strict=False)}
            for engine, of in zeros.items()
        },
        "resumed": again,
        "machine": machine(),
    }
    jsonl.write_text(chosen.out.with_name("rl-vllm-curves.svg"), drawn(zeros))
    write_result(chosen.out, result, page(result))
    return 0 if all(claim.held for claim in found) else 1


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--runs", type=Path, nargs="+", default=[Path("runs/tiny-r1")], help="finished runs of tiny-r1"
    )
    parser.add_argument("--again", type=int, help="how many of them are trained again; all if not given")
    parser.add_argument(
        "--steps", type=int, default=24, help="of the training that is resumed; 0 leaves it out"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/bench-vllm"), help="where trainings are kept")
    parser.add_argument("--out", type=Path, default=Path("bench/results/rl-vllm.json"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
