"""Every shipped recipe: its head's commands make valid recipes, its dry run finds nothing wrong, and it runs,
two steps a stage, on random models of its own architectures and on rows of its own form."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from r1pipe import dryrun, parallel, pipeline, shipped
from r1pipe.recipe import Recipe, StageSpec, load_recipe
from r1pipe.stage import Findings, references
from stages import VERBS
from tests.real_models import write_deepseek, write_llama, write_qwen2
from tests.tiny_model import write_classifier

RECIPES = shipped.recipe_names()
REAL = [name for name in RECIPES if name not in ("smoke", "tiny-r1")]
FAST = ["llama-3.1-8b-zero", "distill-qwen2.5-14b"]
"""One of each kind and architecture."""
TOKENS = 12
"""Of the completions of a random model."""
SUMS = [(a, b) for a in range(2, 8) for b in range(3, 5)]
ROWS: dict[str, list[dict[str, Any]]] = {
    "openai/gsm8k": [
        {"question": f"Ann has {a} and gets {b}?", "answer": f"{a} + {b}\n#### {a + b}"} for a, b in SUMS
    ],
    "MATH": [
        {
            "problem": f"What is ${a} \\cdot {b}$?",
            "solution": f"\\boxed{{{a * b}}}",
            "level": "Level 1",
            "type": "Algebra",
        }
        for a, b in SUMS
    ],
    "choice": [
        {"question": f"{a} + {b}?", "choices": [str(a + b), "1", "0"], "answer": "A"} for a, b in SUMS
    ],
    "exact": [{"question": f"Say {a} {b}.", "answer": f"{a} {b}"} for a, b in SUMS],
    "code": [
        {
            "text": f"Write f that adds {a}.",
            "code": "",
            "test_list": [f"assert f({b}) == {a + b}"],
            "task_id": i,
        }
        for i, (a, b) in enumerate(SUMS)
    ],
    "rows": [
        {"prompt": f"{a} + {b}?", "completion": f" {a + b} </think> <answer> {a + b} </answer>"}
        for a, b in SUMS
    ],
}
TEXTS = [" ".join(map(str, row.values())) for rows in ROWS.values() for row in rows]


def loaded(name: str, *overrides: str) -> Recipe:
    return load_recipe(name, VERBS, overrides, files_exist=False)


# --- What is written


def commands(name: str) -> Iterator[list[str]]:
    """Every command of a recipe's head that runs it, those over several lines put together."""
    head = "\n".join(shipped.recipe_header(shipped.recipe_path(name))).replace("\\\n", " ")
    for line in head.splitlines():
        if found := re.search(rf"r1pipe run {re.escape(name)}\b.*", line):
            yield shlex.split(found[0])


def valued(command: list[str], option: str) -> Iterator[str]:
    """What follows an option, each time that it stands."""
    yield from (command[i + 1] for i, word in enumerate(command) if word == option)


@pytest.mark.parametrize("name", REAL)
def test_the_head_tells_what_it_takes(name: str) -> None:
    """What it is, the hardware, the time, the score, the command; a score that was not measured here says so,
    and every command of the head is the recipe with valid overrides."""
    head = shipped.recipe_header(shipped.recipe_path(name))
    told = [line.partition(":")[0] for line in head]
    assert [key for key in told if key in ("Hardware", "Minutes", "Score", "Command")] == [
        "Hardware",
        "Minutes",
        "Score",
        "Command",
    ]
    assert "not measured here" in head[told.index("Score")]
    found = list(commands(name))
    assert found
    for command in found:
        overrides = list(valued(command, "--set"))
        gpus, nodes = ([int(n) for n in valued(command, each)] for each in ("--gpus", "--nodes"))
        overrides += parallel.everywhere(loaded(name, *overrides), *(gpus or [None]), *(nodes or [None]))
        assert {word for word in command if word.startswith("--")} <= {
            "--set",
            "--gpus",
            "--nodes",
            "--dry-run",
        }
        recipe = loaded(name, *overrides)
        assert recipe.name == name


@pytest.mark.parametrize("name", [name for name in REAL if name.endswith("-zero")])
def test_another_task_comes_with_scores_on_it(name: str) -> None:
    """A command that changes what is trained on changes what is scored, to sets of the same task."""
    for command in commands(name):
        overrides = list(valued(command, "--set"))
        if any(each.startswith("stages.zero.task=") for each in overrides):
            zero, scores = (loaded(name, *overrides).stages[stage].config for stage in ("zero", "scores"))
            trained: Any = {task.name for task in zero.task}  # type: ignore[attr-defined]
            assert {each.task.name for each in scores.sets.values()} == trained  # type: ignore[attr-defined]
            assert len(scores.sets) == 1  # type: ignore[attr-defined]


def test_the_papers_learning_rates() -> None:
    """Of the six students: DeepSeek-R1, supplement."""
    known = {
        "distill-qwen2.5-math-1.5b": 1e-4,
        "distill-qwen2.5-math-7b": 8e-5,
        "distill-qwen2.5-14b": 7e-5,
        "distill-qwen2.5-32b": 6e-5,
        "distill-llama-3.1-8b": 5e-5,
        "distill-llama-3.3-70b": 2e-5,
    }
    assert {name for name in RECIPES if name.startswith("distill-")} == set(known)
    for name, rate in known.items():
        student: Any = loaded(name).stages["student"].config
        assert (student.learning_rate, student.batch_size, student.max_length) == (rate, 64, 32768)
        assert (student.scheduler, student.floor, student.epochs) == ("cosine", 0.1, 2)
    paper = loaded("paper-r1").stages
    rates = [spec.config.learning_rate for spec in paper.values() if spec.uses == "distill"]  # type: ignore[attr-defined]
    assert rates == list(known.values())


@pytest.mark.parametrize("stage", ["zero", "reasoner", "r1-rules", "r1"])
def test_the_papers_batches(stage: str) -> None:
    """512 completions a step, 8,192 a rollout in 16 minibatches."""
    spec = loaded("paper-r1").stages[stage]
    plan = VERBS.module("rl").batches(spec.config)  # type: ignore[attr-defined]
    assert (plan.completions_per_step, plan.completions_per_rollout, plan.minibatches) == (512, 8192, 16)


# --- In miniature


def shrunk(recipe: Recipe) -> Iterator[str]:
    """Overrides that leave a recipe's tree as it is, and make each stage small."""
    for name, spec in recipe.stages.items():
        at = f"stages.{name}"
        for key, value in _small(spec).items():
            yield f"{at}.{key}={json.dumps(value)}"
        for reference in references(spec.config):
            if reference.kind == "checkpoint" and reference.value not in recipe.stages:
                yield f"{at}.{reference.role}=./{family(reference.role, reference.value)}"
        if spec.uses in ("rl", "sample"):
            tasks = [_tiny_task(task.model_dump()) for task in spec.config.task]  # type: ignore[attr-defined]
            yield f"{at}.task={json.dumps(tasks)}"
        if spec.uses == "evaluate":
            for label, each in spec.config.sets.items():  # type: ignore[attr-defined]
                task = json.dumps(_tiny_task(each.task.model_dump()))
                yield f"{at}.sets.{label}={{task: {task}, problems: 2, samples: 1}}"


def _small(spec: StageSpec) -> dict[str, Any]:
    """The fields of a stage that make it long."""
    if spec.uses == "rl":
        config: Any = spec.config
        minibatches = min(config.minibatches, 2)
        steps = {
            "steps": 2,
            "prompts_per_step": 2,
            "group_size": 2,
            "micro_batch": 2,
            "minibatches": minibatches,
        }
        every = None if config.reference_every is None else 2
        lengths = {0: TOKENS, 2: 2 * TOKENS} if isinstance(config.max_new_tokens, dict) else TOKENS
        long = {"steps": 4} if isinstance(lengths, dict) else {}
        return {**steps, **long, "reference_every": every, "max_new_tokens": lengths, "save_every": 100}
    if spec.uses == "sample":
        keep = {
            "untruncated": False,
            "correct": False,
            "well_formed": False,
            "single_language": 0,
            "repeats": True,
        }
        small = {"prompts": 4, "samples": 1, "batch": 4, "limit": None, "max_new_tokens": TOKENS}
        return {**small, "keep": keep}
    if spec.uses in ("sft", "distill"):
        return {
            "parallel": "ddp",
            "batch_size": 2,
            "micro_batch": 1,
            "max_length": 500,
            "epochs": 1,
            "warmup": 0,
        }
    if spec.uses == "evaluate":
        return {"max_new_tokens": TOKENS, "engine": "auto"}
    return {}


def _tiny_task(task: dict[str, Any]) -> dict[str, Any]:
    """The same task on a few rows of the same columns."""
    small = {key: task[key] for key in ("name", "weight")}
    if task["name"] == "countdown":
        kept = ("numbers", "largest", "largest_target", "wording", "split")
        return small | {key: task[key] for key in kept}
    if task["name"] == "math":
        form = "gsm8k" if task["dataset"] == "openai/gsm8k" else "math"
        return small | {"path": f"{form}.jsonl"}
    isolation = {"isolation": "limits-only"} if task["name"] == "code" else {}
    return small | {"path": f"{task['name']}.jsonl"} | isolation


def family(role: str, model: str) -> str:
    """The folder of the random model that stands for a released one."""
    if role == "preference_model":
        return "scorer"
    named = model.lower()
    return next(each for each in ("deepseek", "instruct", "llama", "qwen") if each in named)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random model of each family and the rows."""
    folder = tmp_path_factory.mktemp("recipes")
    for name, write in (("qwen", write_qwen2), ("llama", write_llama), ("deepseek", write_deepseek)):
        (folder / name).mkdir()
        write(folder / name, TEXTS)
    (folder / "instruct").mkdir()
    write_llama(folder / "instruct", TEXTS, instruct=True)
    write_classifier(folder / "scorer")
    files = {"gsm8k": "openai/gsm8k", "math": "MATH", "traces": "rows", "general": "rows"}
    files |= {"gsm8k-train": "openai/gsm8k", "gsm8k-test": "MATH"}
    for file, rows in {**files, **{name: name for name in ("choice", "exact", "code")}}.items():
        (folder / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[rows]))
    return folder


def small(name: str) -> Recipe:
    """A shipped recipe in miniature."""
    return loaded(name, *shrunk(loaded(name)))


@pytest.mark.parametrize("processes", [1, 8])
@pytest.mark.parametrize("name", RECIPES)
def test_a_dry_run_finds_nothing_wrong(
    name: str, processes: int, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is shipped, for one GPU and for eight; only what is on the hub, and what the head tells how to
    get (vLLM may be among it), is not here."""
    monkeypatch.chdir(here)
    found = dryrun.dry_run(loaded(name, *parallel.everywhere(loaded(name), processes, 1)))
    told = re.compile(r"nothing is at the path '[\w./-]+'; the recipe's head says: ")
    smoke = name in ("smoke", "tiny-r1")
    assert [each for each in found.findings.wrong if not told.search(each)] == []
    assert [each for each in found.findings.lacking if "vLLM is not installed" not in each] == []
    assert bool(found.left_out) and (smoke or any("not on this machine" in each for each in found.left_out))
    trained = [stage for stage, spec in found.recipe.stages.items() if spec.uses in ("rl", "sft", "distill")]
    assert sorted(found.batches) == sorted(trained)


def check_run(name: str, folder: Path) -> None:
    """Run it in miniature; every stage publishes, every training takes its steps."""
    recipe = small(name)
    assert dryrun.dry_run(recipe).findings == Findings()
    made = pipeline.run(recipe, folder, jobs=1)
    assert set(made) == set(recipe.stages)
    for stage, spec in recipe.stages.items():
        manifest = made[stage].manifest
        assert manifest is not None
        if spec.uses in ("rl", "sft", "distill"):
            assert manifest.metrics["step"] >= 2, stage


@pytest.mark.parametrize("name", FAST)
def test_it_runs_in_miniature(name: str, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One recipe of each kind and architecture."""
    monkeypatch.chdir(here)
    check_run(name, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in REAL if name not in FAST])
def test_all_run_in_miniature(name: str, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And all the others."""
    monkeypatch.chdir(here)
    check_run(name, tmp_path / "run")
