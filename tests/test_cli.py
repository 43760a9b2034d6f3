"""The command line: it starts at once, ends with the right code, and speaks JSON."""

import json
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.testing import CliRunner

from r1pipe import cli, errors, jsonl, pipeline, views
from r1pipe.curate import exports, traces
from stages import VERBS
from tests.fake_run import PASS_AT_1, STAGES

HEAVY = {
    "torch",
    "transformers",
    "trl",
    "datasets",
    "vllm",
    "pandas",
    "accelerate",
    "ray",
    "numpy",
    "huggingface_hub",
}
COMMANDS = [
    "run",
    "plan",
    "recipes",
    "scores",
    "status",
    "lineage",
    "check",
    "report",
    "tasks",
    "verify",
    "volume",
    "export",
    "schema",
    *VERBS,
]


def invoke(*arguments: str) -> Any:
    """Run a command in this process."""
    return CliRunner().invoke(cli.app, list(arguments), env={"COLUMNS": "100"})


def test_the_list_of_verbs_says_what_the_stages_say() -> None:
    """A verb without an entry could not be called; an entry without a verb would break."""
    assert {verb: VERBS.module(verb).SUMMARY for verb in VERBS} == cli.SUMMARIES


@pytest.mark.parametrize(
    "command", [[], *([command] for command in COMMANDS)], ids=lambda c: " ".join(c) or "r1pipe"
)
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    """Claimed of every command, and checked in the interpreter's own log of imports."""
    asked = [sys.executable, "-X", "importtime", "-m", "r1pipe", *command, "--help"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    imported = set(re.findall(r"\| +(\w+)(?:\.\w+)*$", done.stderr, flags=re.MULTILINE))
    assert "typer" in imported, "the log was read"
    assert imported & HEAVY == set()


def test_help_starts_at_once() -> None:
    """About 0.2 s of CPU time; the bound leaves room for a slow machine but none for a heavy import."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "r1pipe", "--help"], capture_output=True, check=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


@pytest.mark.parametrize("verb", list(VERBS))
def test_a_verbs_help_has_the_sentence_of_every_field(verb: str) -> None:
    """The help is the config's own words; read with the box drawing and the line breaks taken out."""
    shown = re.sub(r"[│\s]+", " ", invoke(verb, "--help").stdout)
    flags = set(re.findall(r"--([a-z0-9-]+)", shown))
    for name, info in VERBS[verb].model_fields.items():
        assert name.replace("_", "-") in flags
        assert info.description, f"{verb}.{name} has no sentence"
    assert f"Example: r1pipe {verb} " in shown


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.RunFailed("A stage failed."), 1),
        (errors.UsageError("Bad recipe."), 2),
        (errors.Conflict("Somebody is at work."), 3),
        (errors.EnvironmentUnfit("No GPU."), 4),
        (errors.Interrupted("Stopped."), 130),
    ],
)
def test_an_error_is_one_message_and_its_exit_code(
    error: errors.R1pipeError, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On stderr, without a traceback, whatever the pipeline raises."""

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(pipeline, "run", fail)
    recipe = tmp_path / "x.yaml"
    recipe.write_text("stages: {zero: {uses: rl, model: org/model, task: countdown}}")
    done = invoke("run", str(recipe), "--out", str(tmp_path / "run"))
    assert (done.exit_code, done.stderr) == (code, f"r1pipe: {error}\n")


@pytest.mark.parametrize(
    "arguments", [["stf"], ["run"], ["run", "x", "--nonsense"], ["run", "x", "--jobs", "0"], ["sft"]]
)
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    """An unknown command or option, a missing argument, a number out of range."""
    assert invoke(*arguments).exit_code == 2


def test_a_misspelt_command_gets_the_right_word() -> None:
    """Verbs made on demand are among the suggestions."""
    assert "Did you mean 'sft'?" in invoke("stf").stderr


def test_a_bad_recipe_names_its_places(tmp_path: Path) -> None:
    """Every mistake with file:line:column, exit code 2."""
    recipe = tmp_path / "bad.yaml"
    recipe.write_text(
        "stages:\n  zero:\n    uses: rl\n    model: org/model\n    task: countdown\n    stpes: 3\n"
    )
    done = invoke("plan", str(recipe))
    assert done.exit_code == 2
    assert f"{recipe}:6:5: unknown key 'stages.zero.stpes'; did you mean 'steps'?" in done.stderr


def test_scores_as_json(finished_run: Path) -> None:
    """The promised shape: every model's headline numbers at the top of its entry."""
    models = json.loads(invoke("scores", str(finished_run), "--json").stdout)["models"]
    assert list(models) == list(PASS_AT_1)
    promised = (
        "pass_at_1 stderr problems samples mean_tokens attempts reflection language_consistency truncated"
    )
    assert all(key in models["base"] for key in promised.split())


def test_scores_as_a_table(finished_run: Path) -> None:
    """In a pipe: aligned words and numbers, one line for each model and set."""
    shown = invoke("scores", str(finished_run)).stdout
    assert re.search(r"^zero +0\.750 ± 0\.020 +600 × 4 +64\.2 ", shown, flags=re.MULTILINE)


def test_a_run_without_scores_says_where_to_look(finished_run: Path) -> None:
    """Exit code 2, and the command that shows how far the run is."""
    for folder in (finished_run / "artifacts" / "scores").iterdir():
        (folder / "manifest.json").unlink()
    done = invoke("scores", str(finished_run))
    assert done.exit_code == 2 and "r1pipe status" in done.stderr


def test_lineage_goes_back_to_the_roots(finished_run: Path) -> None:
    """As a tree for people, nested for programs."""
    folder = next((finished_run / "artifacts" / "sft").iterdir())
    tree = json.loads(invoke("lineage", str(folder), "--json").stdout)
    assert tree["name"] == "sft v001-44444444"
    assert [parent["name"] for parent in tree["parents"]] == ["base v001-11111111", "cold-data v001-33333333"]
    assert tree["parents"][1]["parents"][0]["parents"][0]["name"] == "base v001-11111111"
    lines = invoke("lineage", str(folder)).stdout.splitlines()
    assert lines[2] == "└─ cold-data v001-33333333 (as model, sample, 3m 12s)"
    assert lines[4] == "      └─ base v001-11111111 (as model, pretrain, 3m 12s)"


def test_check_reads_everything_and_ends_with_1_when_something_is_wrong(finished_run: Path) -> None:
    """The test's datasets hold files that their manifests do not know."""
    done = invoke("check", str(finished_run), "--json")
    found = json.loads(done.stdout)["artifacts"]
    assert done.exit_code == 1
    assert found["base v001-11111111"] == [] and "file added" in found["scores v001-66666666"][0]


def test_report_says_where_it_is(finished_run: Path) -> None:
    """And it is there."""
    path = json.loads(invoke("report", str(finished_run), "--json").stdout)["report"]
    assert Path(path).read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize("command", ["scores", "status", "check", "report"])
def test_what_is_no_run_is_refused(command: str, tmp_path: Path) -> None:
    """One message that says what is there instead, exit code 2, nothing written."""
    for path, why in ((tmp_path, "it has no run.json"), (tmp_path / "x", "there is nothing at that path")):
        done = invoke(command, str(path))
        assert done.exit_code == 2
        assert done.stderr.startswith(f"r1pipe: {path} is not the folder of a run: {why}. Give the folder")
    assert list(tmp_path.iterdir()) == []


def test_recipes_are_listed_and_printed() -> None:
    """A recipe is printed byte for byte, so that it can be copied and changed."""
    listed = json.loads(invoke("recipes", "--json").stdout)["recipes"]
    for recipe in listed:
        printed = invoke("recipes", recipe["name"]).stdout
        assert "stages:" in printed and recipe["header"], recipe["name"]


def test_a_recipe_is_listed_with_the_first_sentence_of_its_header() -> None:
    """However the header breaks its lines; one without a header has a name at least."""
    headers = {"a": ["The tree", "of 7.5 stages. It", "runs."], "b": ["One line."], "c": []}
    said = dict(views.recipes_table(headers).rows)
    assert said == {"a": "The tree of 7.5 stages", "b": "One line", "c": ""}


def test_a_run_ends_with_table_answers_and_report(
    finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the run's files say is shown when the pipeline is done."""
    monkeypatch.setattr(pipeline, "run", lambda *_, **__: {})
    recipe = finished_run.parent / "x.yaml"
    recipe.write_text("stages: {zero: {uses: rl, model: org/model, task: countdown}}")
    shown = invoke("run", str(recipe), "--out", str(finished_run)).stdout
    assert "0.750 ± 0.020" in shown and "nums 5 6 3 to 34" in shown
    assert shown.rstrip().endswith("report.html") and (finished_run / "report.html").exists()


def test_the_fake_run_names_known_verbs() -> None:
    """These tests read a run that could exist."""
    assert {section["uses"] for section in STAGES.values()} <= set(VERBS)


def test_tasks() -> None:
    """`r1pipe tasks` lists them for people and programs, and one by its name with its options."""
    told = json.loads(invoke("tasks", "--json").stdout)["tasks"]
    assert {"countdown", "math", "logic", "code", "gym:<generator>"} <= {task["name"] for task in told}
    assert "Zoey is a knight, Oliver is a knave" in invoke("tasks", "logic").stdout
    assert invoke("tasks", "logik").exit_code == 2


def test_the_schema_of_a_trace_is_printed() -> None:
    """As JSON, whether it is asked for as such or not; the forms of an export are the module's."""
    shown = json.loads(invoke("schema").stdout)
    assert shown == traces.schema()
    assert [form.value for form in cli.ExportForm] == list(get_args(exports.Form))


def test_traces_are_exported(tmp_path: Path) -> None:
    """A count and the file; what is there already is not overwritten."""
    source, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    jsonl.write_rows(source, [{"prompt": "a", "completion": "b", "seed": 1}])
    command = ["export", str(source), "--as", "prompt-completion", "--out", str(out), "--json"]
    shown = invoke(*command)
    assert json.loads(shown.stdout) == {"out": str(out), "form": "prompt-completion", "rows": 1}
    assert out.read_text() == '{"prompt":"a","completion":"b"}\n'
    again = invoke(*command)
    assert again.exit_code == 3 and "is there already" in json.loads(again.stdout)["error"]
    lacking = invoke("export", str(source), "--as", "openr1", "--out", str(tmp_path / "other.jsonl"))
    assert lacking.exit_code == 2 and "r1pipe schema" in lacking.stderr
