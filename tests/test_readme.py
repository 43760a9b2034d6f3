"""README.md is held to the code: commands parse, recipes load, the picture is the recipe, links lead."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from r1pipe import cli, errors, pipeline
from r1pipe.artifact import Store
from r1pipe.recipe import load_recipe, parse_recipe
from r1pipe.shipped import recipe_names
from r1pipe.stage import Findings
from r1pipe.verbs import make_config
from stages import VERBS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[str]:
    """Every line of a console block that calls `program`."""
    lines = [line for block in blocks("console") for line in block.splitlines()]
    return [line for line in lines if line.split()[0] == program]


def parsed(command: str) -> tuple[str, dict[str, Any]]:
    """The command's name and its values by parameter; raises the command line's own error."""
    group: Any = typer.main.get_command(cli.app)
    context = typer.Context(group)
    name, found, rest = group.resolve_command(context, shlex.split(command)[1:])
    return name, found.make_context(name, rest, parent=context).params


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with everything in it that the README's commands make or take."""
    monkeypatch.chdir(tmp_path)
    for out in re.findall(r"--out (\S+)", README):
        (tmp_path / out).mkdir(parents=True, exist_ok=True)
    questions = [{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(10)]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    (tmp_path / "rows.jsonl").write_text('{"prompt": "Say hello.", "completion": "Hello."}\n')
    (tmp_path / "mine.yaml").write_text(recipes()["mine"])
    return tmp_path


def recipes() -> dict[str, str]:
    """The README's recipes by their names."""
    return {text.splitlines()[0].removeprefix("name: "): text for text in blocks("yaml")}


@pytest.mark.parametrize("command", commands("r1pipe"))
def test_commands_are_valid(command: str, here: Path):
    """Every option exists, and what it is given makes a valid config or recipe; nothing is run."""
    name, given = parsed(command)
    if name in VERBS:
        values = {key: value for key, value in given.items() if key in VERBS[name].model_fields}
        make_config(name, values, given["config_file"], given["overrides"] or ())
    elif "recipe" in given:
        load_recipe(given["recipe"], VERBS, given["overrides"] or ())


def test_a_command_that_is_not_valid_is_seen(here: Path):
    """The test above rests on this: a misspelt option, and a misspelt key, are found."""
    with pytest.raises(Exception, match="No such option"):
        parsed("r1pipe rl --modell base --out zero")
    with pytest.raises(errors.UsageError, match="lerning_rate"):
        load_recipe("tiny-r1", VERBS, ["stages.zero.lerning_rate=1"])


@pytest.mark.parametrize("name", recipes())
def test_recipes_can_be_planned(name: str, here: Path):
    """`r1pipe plan` takes them as they stand, without a network."""
    recipe = parse_recipe(recipes()[name], "README.md", VERBS)
    assert [step.stage for step in pipeline.plan(recipe, Store(here / "run"))] == recipe.order


def test_options_for_the_trainers_exist():
    """What stands under `trainer:` is an option of TRL's config class."""
    for name, text in recipes().items():
        for stage in parse_recipe(text, name, VERBS).stages.values() if name == "example" else ():
            check = getattr(VERBS.module(stage.uses), "check", lambda config: Findings())
            assert check(stage.config) == Findings()


def test_the_picture_is_the_recipe():
    """Its arrows are those of tiny-r1, evaluations left out."""
    recipe = load_recipe("tiny-r1", VERBS)
    inputs = {
        (parent, stage)
        for stage, spec in recipe.stages.items()
        for parent in recipe.parents(stage)
        if "evaluate" not in (spec.uses, recipe.stages[parent].uses)
    }
    (picture,) = blocks("mermaid")
    drawn = re.findall(r'^ *([\w-]+)(?:[\[(].*?[\])]+)? (?:-- ".*" )?--> ([\w-]+)', picture, re.MULTILINE)
    assert set(drawn) == inputs


def test_exit_codes_are_the_errors():
    """The table lists the code of every error, and 0."""
    listed = re.findall(r"^\| (\d+) \|", README, re.MULTILINE)
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert {int(code) for code in listed} == {0, *(kind.exit_code for kind in kinds)}


def test_every_verb_is_told_of():
    """The table of stages has a row for each verb."""
    assert re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE) == list(VERBS)


def test_make_targets_exist():
    """And so do the shipped recipes that are named."""
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    called = [*re.findall(r"`(make [^`]+)`", README), *commands("make")]
    named = {word for call in called for word in call.split()[1:] if "=" not in word}
    assert {"all", "test"} <= named <= set(targets)
    assert {"tiny-r1", "smoke"} <= set(recipe_names())


def test_there_is_one_place_for_the_table():
    """The benchmark's table is put between these marks."""
    assert len(re.findall(r"<!-- table:tiny-r1 -->\n.*?<!-- /table -->", README, re.DOTALL)) == 1


def links(page: Path) -> Iterator[str]:
    """Where a page's relative links lead."""
    found = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    yield from (link for link in found if "://" not in link)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    """A file that is linked is there."""
    assert [link for link in links(page) if not (page.parent / link).exists()] == []
