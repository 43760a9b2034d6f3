"""What stands on a run's page: from the run's files to the pieces the template lays out."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from r1pipe.columns import COLUMNS, Column, pass_at_1, sample_size
from r1pipe.prompting import CLOSE_THINK
from r1pipe.report.charts import Series, line_chart
from r1pipe.report.run_files import RunFiles, Stage, headline
from r1pipe.report.tree import Node, tree_svg
from r1pipe.text import duration, half_width, quantity, shortened

Legend = list[tuple[str, str]]
"""(label, colour) of each line of a chart."""

_COLORS = tuple(f"var(--c{number})" for number in range(1, 11))
_CHARTS: tuple[tuple[tuple[str, str], ...], ...] = (
    (("reward", "reward"), ("accuracy", "accuracy")),
    (("length", "length in tokens"),),
    (("truncated", "truncated"), ("groups_without_spread", "groups without spread")),
    (("loss", "loss"),),
    (("divergence", "divergence"),),
    (("kl", "KL"),),
    (("entropy", "entropy"),),
)
"""The charts of a stage, each the columns of its metrics that are drawn together, where it has them."""
_MOST_TEXT = 6000
"""Characters of one completion that the page shows; a long trace keeps its beginning and its end."""


@dataclass(frozen=True)
class Cell:
    """A value and its 95 % interval."""

    text: str
    interval: str = ""


@dataclass(frozen=True)
class ScoreRow:
    """A line of the table of scores; `low`, `mid` and `high` place pass@1 and its interval, in percent."""

    model: str
    score: str
    low: float
    mid: float
    high: float
    cells: Sequence[Cell]


@dataclass(frozen=True)
class PageScores:
    """The table of scores."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[ScoreRow]


@dataclass(frozen=True)
class Sets:
    """pass@1 of every model on every set."""

    names: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]


@dataclass(frozen=True)
class Chart:
    """A drawing and what its colours mean."""

    svg: Markup
    legend: Legend
    set: str = ""


@dataclass(frozen=True)
class Curves:
    """The charts of one stage."""

    name: str
    verb: str
    charts: Sequence[Chart]


@dataclass(frozen=True)
class PageAnswer:
    """One model's completion, its thinking apart."""

    model: str
    verdict: str
    reason: str
    thinking: str
    rest: str


@dataclass(frozen=True)
class PageProblem:
    """One problem and everybody's answer."""

    question: str
    answers: Sequence[PageAnswer]


@dataclass(frozen=True)
class Page:
    """Everything on the page, in the template's words."""

    name: str
    folder: str
    headlines: Sequence[str]
    facts: Sequence[tuple[str, str]]
    scores: PageScores | None
    sets: Sets | None
    pass_at_k: Chart | None
    tree: Markup
    curves: Sequence[Curves]
    problems: Sequence[PageProblem]
    stages: Sequence[Stage]
    command: str
    libraries: str


def make_page(run: RunFiles) -> Page:
    """Gather the page from the run's files."""
    scores = run.scores()
    made = [stage for stage in run.stages.values() if stage.manifest]
    name = str(run.recipe.get("name", run.path.name))
    return Page(
        name=name,
        folder=run.path.name,
        headlines=_headlines(scores),
        facts=_facts(run, made),
        scores=_scores(scores),
        sets=_sets(scores),
        pass_at_k=_pass_at_k(scores),
        tree=tree_svg([_node(stage, scores) for stage in run.stages.values() if stage.verb != "evaluate"]),
        curves=[curves for stage in run.stages.values() if (curves := _curves(stage, run)).charts],
        problems=[_problem(rows) for rows in run.problems()],
        stages=made,
        command=_command(run, name),
        libraries=", ".join(
            f"{k} {v}" for k, v in (made[-1].manifest_or_fail().libraries if made else {}).items()
        ),
    )


def _headlines(scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One sentence for each model that has the one it is measured against beside it."""
    pairs = (
        ("base", "zero", "Reinforcement learning alone"),
        ("base", "r1", "The whole tree"),
        ("student-base", "student", "Distillation"),
        ("student-base", "student-rl", "The same student by RL alone"),
    )
    return [
        f"{what}: pass@1 {pass_at_1(scores[before])} → {pass_at_1(scores[after])}."
        for before, after, what in pairs
        if before in scores and after in scores
    ]


def _facts(run: RunFiles, made: Sequence[Stage]) -> list[tuple[str, str]]:
    costs = [stage.manifest_or_fail().cost for stage in made]
    tokens = sum(cost.tokens or 0 for cost in costs)
    prices = [cost.usd for cost in costs if cost.usd is not None]
    others = [f"{stage.name} {stage.state}" for stage in run.stages.values() if stage.state != "done"]
    facts = [
        (
            "stages",
            f"{len(run.stages) - len(others)} of {len(run.stages)}"
            + (f" ({', '.join(others)})" if others else ""),
        ),
        ("time in stages", duration(sum(cost.seconds for cost in costs))),
        ("CPU time", duration(sum(cost.cpu_seconds for cost in costs))),
        ("tokens", quantity(tokens)),
        ("devices", ", ".join(dict.fromkeys(cost.device for cost in costs))),
        ("seed", str(run.recipe.get("seed", run.record.get("seed", "")))),
        ("finished", made[-1].manifest_or_fail().created if made else ""),
    ]
    if prices:
        facts.append(("price", f"${sum(prices):.2f}"))
    return [(name, value) for name, value in facts if value]


def _scores(scores: Mapping[str, Mapping[str, Any]]) -> PageScores | None:
    if not scores:
        return None
    columns = [
        column for column in COLUMNS if any(score.get(column.key) is not None for score in scores.values())
    ]
    first = next(iter(scores.values()))
    caption = (
        f"On the set “{headline(first['sets'])}”: {sample_size(first)} (problems × samples). Intervals are "
        "95 %: of pass@1 from its standard error clustered by problem, else Wilson's over the samples."
    )
    return PageScores(
        caption, columns, [_score_row(model, score, columns) for model, score in scores.items()]
    )


def _score_row(model: str, score: Mapping[str, Any], columns: Sequence[Column]) -> ScoreRow:
    value, half = score["pass_at_1"] or 0.0, half_width(score.get("stderr") or 0.0)
    low, mid, high = (round(100 * min(1.0, max(0.0, v)), 2) for v in (value - half, value, value + half))
    cells = [Cell(column.text(score), column.interval(score)) for column in columns]
    return ScoreRow(model, pass_at_1(score), low, mid, high, cells)


def _sets(scores: Mapping[str, Mapping[str, Any]]) -> Sets | None:
    names = list(dict.fromkeys(name for score in scores.values() for name in score["sets"]))
    if len(names) < 2:
        return None
    rows = [
        (model, [_set_cell(score["sets"].get(name)) for name in names]) for model, score in scores.items()
    ]
    return Sets(names, rows)


def _set_cell(score: Mapping[str, Any] | None) -> Cell:
    return Cell(pass_at_1(score), sample_size(score)) if score else Cell("–")


def _pass_at_k(scores: Mapping[str, Mapping[str, Any]]) -> Chart | None:
    """pass@k over k, on the set with the largest k."""
    best: tuple[int, Chart] | None = None
    for name in dict.fromkeys(name for score in scores.values() for name in score["sets"]):
        by_model = {model: score["sets"][name] for model, score in scores.items() if name in score["sets"]}
        lines = [(model, _over_k(score)) for model, score in by_model.items()]
        most = max(int(k) for _, points in lines for k, _ in points or [(0, 0.0)])
        if most > max(1, best[0] if best else 1):
            chart = _chart(lines, f"pass@k on {name}", from_zero=True)
            best = most, Chart(chart.svg, chart.legend, name)
    return best[1] if best else None


def _over_k(score: Mapping[str, Any]) -> list[tuple[float, float]]:
    return sorted((float(k), value) for k, value in (score.get("pass_at_k") or {}).items())


def _chart(
    lines: Sequence[tuple[str, Sequence[tuple[float, float]]]], description: str, *, from_zero: bool
) -> Chart:
    series = [
        Series(label, points, color)
        for (label, points), color in zip(lines, itertools.cycle(_COLORS), strict=False)
    ]
    svg = line_chart(series, description=description, from_zero=from_zero)
    return Chart(svg, [(each.label, each.color) for each in series])


def _curves(stage: Stage, run: RunFiles) -> Curves:
    rows = run.metrics(stage.name)
    charts = []
    for columns in _CHARTS:
        if columns[0][0] == "loss" and any("reward" in row for row in rows):
            continue  # GRPO's loss is near zero by construction and shows nothing
        lines = [(label, _points(rows, key)) for key, label in columns]
        lines = [(label, points) for label, points in lines if points]
        if lines:
            description = f"{stage.name}: {', '.join(label for label, _ in lines)} over steps"
            charts.append(_chart(lines, description, from_zero=columns[0][0] != "loss"))
    return Curves(stage.name, stage.verb, charts)


def _points(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    return [
        (row["step"], row[key]) for row in rows if "step" in row and isinstance(row.get(key), int | float)
    ]


def _node(stage: Stage, scores: Mapping[str, Mapping[str, Any]]) -> Node:
    if stage.manifest is None:
        return Node(stage.name, stage.verb, stage.parents, [stage.verb, stage.state], stage.state)
    cost, metrics = stage.manifest.cost, stage.manifest.metrics
    lines = [f"{stage.verb} · {duration(cost.seconds)}"]
    if cost.tokens:
        lines[0] += f" · {quantity(cost.tokens)} tok"
    if stage.name in scores:
        lines.append(f"pass@1 {pass_at_1(scores[stage.name])}")
    elif (rows := metrics.get("rows", metrics.get("kept"))) is not None:
        lines.append(f"{rows} rows")
    return Node(stage.name, stage.verb, stage.parents, lines, stage.state, stage.manifest.kind)


def _problem(rows: Sequence[Mapping[str, Any]]) -> PageProblem:
    return PageProblem(str(rows[0]["question"]), [_answer(row) for row in rows])


def _answer(row: Mapping[str, Any]) -> PageAnswer:
    thinking, closed, rest = shortened(row["completion"], _MOST_TEXT).partition(CLOSE_THINK)
    if not closed:  # nothing was closed: thinking to the end, or no thinking at all
        thinking, rest = ("", thinking) if "<answer>" in thinking else (thinking, "")
    return PageAnswer(
        row["model"], str(row["verdict"]), str(row.get("reason") or ""), thinking + closed, rest
    )


def _command(run: RunFiles, name: str) -> str:
    command = run.record.get("command") or f"r1pipe run {name}"
    return str(command) if isinstance(command, str) else " ".join(command)
