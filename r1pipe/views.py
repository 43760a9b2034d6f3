"""Results as tables, trees and sentences for people. Everything here is pure; `r1pipe.output` prints it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1pipe.columns import COLUMNS, pass_at_1, sample_size
from r1pipe.jsonl import dumps
from r1pipe.output import Answer, Answers, Table
from r1pipe.report.run_files import headline
from r1pipe.text import duration, percent, quantity, shortened

if TYPE_CHECKING:
    from r1pipe.artifact import Artifact, Lineage

_ON_TERMINAL = ("mean_tokens", "truncated", "attempts", "reflection", "language_consistency")
_MOST_EXAMPLE = 90
_MOST_TEXT = 420
"""Characters of a completion beside others on a terminal."""


def scores_table(scores: Mapping[str, Mapping[str, Any]]) -> Table:
    """pass@1 of each model with half of its 95 % interval, and what its thinking is like."""
    columns = [column for column in COLUMNS if column.key in _ON_TERMINAL]
    rows = [
        [model, pass_at_1(score), sample_size(score), *(column.text(score) for column in columns)]
        for model, score in scores.items()
    ]
    sets = next(iter(scores.values()))["sets"]
    return Table(
        ["model", "pass@1 (95 %)", "n", *(column.label for column in columns)],
        rows,
        title=f"Scores on the set '{headline(sets)}'",
    )


def sets_table(scores: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """pass@1 on each set, where there is more than one."""
    names = list(dict.fromkeys(name for score in scores.values() for name in score["sets"]))
    if len(names) < 2:
        return None
    rows = [
        [model, *(pass_at_1(score["sets"][name]) if name in score["sets"] else "–" for name in names)]
        for model, score in scores.items()
    ]
    return Table(["model", *names], rows, title="pass@1 on each set")


def problem_views(problems: Sequence[Sequence[Mapping[str, Any]]]) -> list[Answers]:
    """Each problem with everybody's answer, to be shown side by side."""
    return [
        Answers(
            str(rows[0]["question"]),
            [
                Answer(row["model"], str(row["verdict"]), shortened(row["completion"], _MOST_TEXT))
                for row in rows
            ],
        )
        for rows in problems
    ]


def plan_table(steps: Sequence[Mapping[str, Any]]) -> Table:
    """What would be done about each stage, and why."""
    rows = [[step["stage"], step["verb"], step["action"], "; ".join(step["reasons"])] for step in steps]
    return Table(["stage", "verb", "action", "because"], rows, left=4)


def dry_run_views(found: Mapping[str, Any]) -> list[Table | str]:
    """The batches, the tasks and what was left out; what has to be put right is told as an error."""
    shown: list[Table | str] = []
    if found["batches"]:
        shown.append(_batches_table(found["batches"]))
    if found["tasks"]:
        shown.append(_asked_table(found["tasks"]))
    shown += [f"Left out: {text}" for text in found["left_out"]]
    if found["problems"] or found["lacking"]:
        return shown
    if unseen := len(found["left_out"]):
        things = "the one thing above was" if unseen == 1 else f"the {unseen} things above were"
        shown.append(f"Nothing wrong was found; {things} not looked at.")
    else:
        stages = len(found["stages"])
        shown.append(f"Nothing is wrong with the {'one stage' if stages == 1 else f'{stages} stages'}.")
    return shown


def _batches_table(plans: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [
            plan["stage"],
            f"{plan['prompts_per_step']} x {plan['group_size']}",
            f"{plan['completions_per_step']:,}",
            f"{plan['completions_per_rollout']:,}" if plan["completions_per_rollout"] else "–",
            str(plan["minibatches"]),
            str(plan["processes"]),
            f"{plan['micro_batches']} x {plan['micro_batch']}",
            str(plan["gradient_accumulation_steps"]),
            str(plan["steps_per_generation"] or "–"),
            quantity(plan["tokens_per_step"]) if plan["tokens_per_step"] else "–",
        ]
        for plan in plans
    ]
    columns = [
        "stage",
        "prompts x group",
        "per step",
        "per rollout",
        "minibatches",
        "processes",
        "micro-batches",
        "accumulation",
        "steps_per_generation",
        "most tokens per step",
    ]
    return Table(columns, rows, title="Completions; the micro-batches are those of each process")


def _asked_table(tasks: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [
            task["stage"],
            task["key"],
            task["task"],
            "–" if task["rows"] is None else f"{task['rows']:,}",
            str(task["set_aside"]),
            "–" if task["prompt_tokens"] is None else str(task["prompt_tokens"]),
            f"{task['too_long']} of {task['tried']}" if task["too_long"] else "–",
            shortened(" ".join(task["prompt"].split()), _MOST_EXAMPLE),
        ]
        for task in tasks
    ]
    return Table(
        ["stage", "key", "task", "rows", "set aside", "tokens", "too long", "a prompt"],
        rows,
        title="Tasks",
        left=3,
    )


def outdated_line(stages: Sequence[str]) -> str | None:
    """A warning beside the results of a run that was started anew and has not come to its end."""
    if not stages:
        return None
    return f"Made with another config than the run was last started with: {', '.join(stages)}."


def _state(stage: Mapping[str, Any]) -> str:
    done = stage["progress"]
    return f"{stage['state']}, step {done['step']} of {done['steps'] or '?'}" if done else str(stage["state"])


def verdicts_table(counts: Mapping[str, Any]) -> Table:
    """What came of judging files."""
    rows = [[key, str(counts[key])] for key in ("rows", "passed", "failed", "undecided")]
    rows += [[f"undecided: {reason}", str(count)] for reason, count in counts["reasons"].items()]
    if counts["agreement"] is not None:
        rows.append(["agree with the truth", f"{counts['agree']} ({counts['agreement']:.4f})"])
        rows += [["false pass", str(counts["false_pass"])], ["false fail", str(counts["false_fail"])]]
    if counts["set_aside"]:
        rows.append(["set aside as broken", str(counts["set_aside"])])
    rows.append(["seconds", f"{counts['seconds']:.2f} ({counts['rows_per_second'] or 0:.0f} rows/s)"])
    return Table(["", "count"], rows, left=1)


def status_table(stages: Sequence[Mapping[str, Any]]) -> Table:
    """How far each stage of a run is, and what another run would do."""
    rows = [
        [
            stage["stage"],
            stage["verb"],
            _state(stage),
            "–" if stage["version"] is None else f"v{stage['version']:03d}",
            "–" if stage["seconds"] is None else duration(stage["seconds"]),
            quantity(stage["tokens"]) if stage["tokens"] else "–",
            "; ".join([stage["next"], *stage["reasons"]]),
        ]
        for stage in stages
    ]
    return Table(["stage", "verb", "state", "version", "time", "tokens", "next run"], rows, left=3)


def outcome_views(artifact: "Artifact") -> list[Table | str]:
    """What a stage that ran alone has made: its scores or counts, if it evaluates or curates; where it is."""
    metrics = artifact.manifest.metrics if artifact.manifest else {}
    scores = {
        model: {**by_set[headline(by_set)], "sets": by_set}
        for model, by_set in metrics.get("models", {}).items()
        if by_set
    }
    shown: list[Table | str] = [scores_table(scores)] if scores else []
    if steps := metrics.get("steps"):
        shown.append(curation_table(steps))
    return [*shown, relative(artifact.path)]


def curation_table(steps: Sequence[Mapping[str, Any]]) -> Table:
    """What each step of a curation did to the rows; the columns add up."""
    rows = []
    for step in steps:
        rejected, aside = (sum(step[key].values()) for key in ("rejected", "set_aside"))
        counts = (step["seen"], rejected, aside, step["kept"])
        rows.append([f"{step['step']} {step['name']}", *(f"{count:,}" for count in counts)])
    return Table(["step", "rows in", "rejected", "set aside", "kept"], rows)


def volume_table(volume: Mapping[str, Any]) -> Table:
    """What a number of traces takes, and what each number was made of."""
    rates = volume["rates"]
    measured = rates["measured_on"]
    source = "" if measured is None else f", by {measured:,} completions"
    shares = (
        f"{percent(1 - rates['truncated'])} are whole, {percent(rates['acceptance'])} of those right, "
        f"{percent(1 - rates['loss'])} of those kept{source}"
    )
    rows = [
        ["traces", "to be kept", f"{volume['target']:,}"],
        ["completions", shares, f"{volume['completions']:,}"],
        ["prompts", f"x {volume['samples']:,} samples", f"{volume['prompts']:,}"],
        ["tokens", f"{rates['tokens']:,.0f} a completion", quantity(volume["tokens"])],
    ]
    if volume["gpu_hours"] is not None:
        speed = f"{quantity(rates['tokens_per_second'])} tokens/s each"
        rows.append(["GPU-hours", speed, f"{volume['gpu_hours']:,.1f}"])
        rows.append(["time", f"on {volume['gpus']:,}", duration(volume["hours"] * 3600)])
    if volume["usd"] is not None:
        whole = f"${volume['usd']:,.{0 if volume['usd'] >= 100 else 2}f}"
        rows.append(["price", f"${volume['usd_per_trace']:.2g} a kept trace", whole])
    if volume["disk_bytes"] is not None:
        told = f"{quantity(rates['trace_bytes'])}B a kept trace, as JSON"
        rows.append(["disk", told, f"{quantity(volume['disk_bytes'])}B"])
    return Table(["", "because", ""], rows, left=2)


def lineage_tree(root: "Lineage") -> str:
    """An artifact and under it what it was made from, back to the roots.

    An ancestor that several share is told once and named after that.
    """
    return "\n".join(_branch(root, "", "", set()))


def lineage_json(node: "Lineage") -> dict[str, Any]:
    """The lineage as nested JSON."""
    manifest = node.manifest
    return {
        "role": node.role,
        "name": node.name,
        "fingerprint": node.fingerprint,
        "path": str(node.path),
        "note": node.note,
        "verb": manifest.verb if manifest else None,
        "created": manifest.created if manifest else None,
        "seconds": manifest.cost.seconds if manifest else None,
        "parents": [lineage_json(parent) for parent in node.parents],
    }


def _branch(node: "Lineage", head: str, indent: str, told: set[str]) -> Iterator[str]:
    facts = [f"as {node.role}"] if node.role else []
    if node.manifest:
        facts += [node.manifest.verb, duration(node.manifest.cost.seconds)]
    if node.note:
        facts.append(node.note)
    again = node.fingerprint in told and bool(node.parents)
    if again:
        facts.append("see above")
    yield f"{head}{node.name} ({', '.join(facts)})" if facts else f"{head}{node.name}"
    told.add(node.fingerprint)
    for index, parent in enumerate(() if again else node.parents):
        last = index == len(node.parents) - 1
        yield from _branch(
            parent, indent + ("└─ " if last else "├─ "), indent + ("   " if last else "│  "), told
        )


def recipes_table(recipes: Mapping[str, Sequence[str]]) -> Table:
    """The shipped recipes with the first sentence of their headers."""
    rows = [[name, " ".join(header).partition(". ")[0].rstrip(".")] for name, header in recipes.items()]
    return Table(["recipe", "what it is"], rows, left=2)


def tasks_table(tasks: Sequence[Mapping[str, Any]]) -> Table:
    """Every task, what it is about, and an example."""
    rows = [
        [
            task["name"],
            task["about"],
            *(shortened(" ".join(task[key].split()), _MOST_EXAMPLE) for key in ("question", "answer")),
        ]
        for task in tasks
    ]
    return Table(["task", "what it asks", "for example", "a right answer"], rows, left=4)


def task_views(task: Mapping[str, Any]) -> list[Table | str]:
    """One task: what it is about, an example, and its options."""
    shown: list[Table | str] = [f"{task['name']}: {task['about']}\n"]
    if task["question"]:
        shown.append(f"For example:\n{task['question']}\n\nA right answer: {task['answer']}\n")
    if task["row"]:
        shown.append(f"Made from the row:\n{dumps(task['row']).decode()}\n")
    shown.append(Table(["option", "meaning"], [[key, text] for key, text in task["options"].items()], left=2))
    if names := task.get("generators"):
        shown.append(f"\nGenerators: {', '.join(names)}")
    return shown


def relative(path: Path) -> str:
    """A path as it is shortest to type from here."""
    here = Path.cwd()
    resolved = path.resolve()
    return str(resolved.relative_to(here)) if resolved.is_relative_to(here) else str(path)
