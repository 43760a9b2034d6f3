"""Recipes: what is read, what is refused, and in which words."""

from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from r1pipe import shipped
from r1pipe.errors import UsageError
from r1pipe.recipe import Recipe, from_resolved, load_recipe, parse_recipe
from r1pipe.stage import NEUTRAL, CheckpointRef, DataPath, DatasetRef, StageConfig


class Optimizer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    learning_rate: float = 1e-3
    name: str = "adam"


class Train(StageConfig):
    makes = "checkpoint"

    steps: int = 5
    language: str = "en"
    optimizer: Optimizer = Optimizer()
    trainer: dict[str, Any] = Field(default={})
    every: Annotated[int, NEUTRAL] = 1


class Sample(StageConfig):
    makes = "dataset"

    model: CheckpointRef
    """The model that answers."""
    data: DatasetRef | list[DatasetRef] = Field(default=[])
    path: DataPath | None = None


VERBS = {"train": Train, "sample": Sample}


def parse(text: str, *overrides: str) -> Recipe:
    return parse_recipe(text, "r.yaml", VERBS, overrides)


def problems(text: str, *overrides: str) -> list[str]:
    with pytest.raises(UsageError) as caught:
        parse(text, *overrides)
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


def test_a_whole_recipe_is_read_with_its_defaults_and_its_tree():
    recipe = parse("""
name: tree
seed: 3
stages:
  answers: {uses: sample, model: tuned, data: [more, more]}
  base: {uses: train}
  more: {uses: sample, model: base}
  tuned: {uses: train, steps: 7}
""")
    assert (recipe.name, recipe.seed) == ("tree", 3)
    assert recipe.stages["tuned"].config == Train(steps=7)
    assert recipe.parents("answers") == ["tuned", "more"]
    assert recipe.children("base") == ["more"]
    assert recipe.order == ["tuned", "base", "more", "answers"]


@pytest.mark.parametrize(
    ("written", "value"),
    [("1e-6", 1e-6), ("5E2", 500.0), ('"2e-5"', 2e-5), ("3", 3.0), (".5", 0.5)],
)
def test_a_number_is_a_number_however_it_is_written(written: str, value: float):
    """YAML 1.1 reads `1e-6` as a string; learning rates of that kind have cost people days."""
    recipe = parse(f"stages: {{a: {{uses: train, optimizer: {{learning_rate: {written}}}}}}}")
    assert recipe.stages["a"].config.optimizer.learning_rate == value


@pytest.mark.parametrize("word", ["no", "off", "yes", "on", "12:30", "0b1", "1_0", "null_", "'no'", "'12'"])
def test_a_word_stays_a_word(word: str):
    """YAML 1.1 reads `no` (Norwegian) as False and `12:30` as 750."""
    recipe = parse(f"stages: {{a: {{uses: train, language: {word}}}}}")
    assert recipe.stages["a"].config.language == word.strip("'")


def test_numbers_below_trainer_are_numbers_too():
    """The options passed through have no types of their own, so the reading of YAML alone decides."""
    recipe = parse("stages: {a: {uses: train, trainer: {beta: 1e-3, on: true, n: 010, s: '1e-3', z: ~}}}")
    trainer = recipe.stages["a"].config.trainer
    assert trainer == {"beta": 1e-3, "on": True, "n": 10, "s": "1e-3", "z": None}


def test_all_problems_are_told_at_once_each_with_its_place():
    assert problems("""\
sead: 3
stages:
  base: {uses: train, stepz: 3, learning_rate: 2, nothing: 1}
  two: {uses: train, steps: eight, optimizer: {learnin_rate: 3}}
  three: {uses: sample}
  four: {uses: sample, model: bas, data: [three, 5]}
  five: {uses: sampel}
  six: {uses: sample, model: three}
  seven: {steps: 3}
  eight: 3
  no good: {uses: train}
""") == [
        "r.yaml:1:1: unknown key 'sead'; did you mean 'seed'?",
        "r.yaml:3:23: unknown key 'stages.base.stepz'; did you mean 'steps'?",
        "r.yaml:3:33: unknown key 'stages.base.learning_rate'; "
        "'learning_rate' belongs in 'stages.base.optimizer'",
        "r.yaml:3:51: unknown key 'stages.base.nothing'; "
        "the keys there are threads, steps, language, optimizer, trainer, every",
        "r.yaml:4:29: 'stages.two.steps': should be a valid integer, not 'eight'",
        "r.yaml:4:48: unknown key 'stages.two.optimizer.learnin_rate'; did you mean 'learning_rate'?",
        "r.yaml:5:3: 'stages.three' needs 'model': The model that answers",
        "r.yaml:6:50: 'stages.four.data.1': should be a valid string, not 5",
        "r.yaml:7:16: there is no verb 'sampel'; did you mean 'sample'? The verbs are sample, train",
        "r.yaml:9:3: 'stages.seven' does not say what it 'uses'. The verbs are sample, train",
        "r.yaml:10:10: 'stages.eight' is a mapping, e.g. eight: {uses: pretrain}",
        "r.yaml:11:3: 'no good' is no name for a stage; use letters, digits, '-' and '_'",
    ]


def test_references_lead_to_a_stage_a_path_or_the_hub(tmp_path: Path):
    (tmp_path / "model").mkdir()
    (tmp_path / "rows.jsonl").write_text("{}\n")
    recipe = parse(f"""
stages:
  base: {{uses: train}}
  a: {{uses: sample, model: {tmp_path}/model, data: {tmp_path}/rows.jsonl}}
  b: {{uses: sample, model: org/name@main, path: {tmp_path}/rows.jsonl}}
""")
    assert recipe.parents("a") == recipe.parents("b") == []
    assert problems("""\
stages:
  base: {uses: train}
  a: {uses: sample, model: bsae, data: base}
  b: {uses: sample, model: ./nowhere, data: org/name, path: base}
""") == [
        "r.yaml:3:28: 'stages.a.model': there is no stage 'bsae'; did you mean 'base'?, and no such path",
        "r.yaml:3:40: 'stages.a.data': a dataset is needed here; the stage 'base' (train) makes a checkpoint",
        "r.yaml:4:28: 'stages.b.model': nothing is at the path './nowhere'",
        "r.yaml:4:45: 'stages.b.data': nothing is at the path 'org/name'",
        "r.yaml:4:61: 'stages.b.path': nothing is at the path 'base'",
    ]


def test_every_circle_is_found():
    assert problems("""\
stages:
  base: {uses: train}
  a: {uses: sample, model: base, data: a}
  b: {uses: sample, model: base, data: c}
  c: {uses: sample, model: base, data: d}
  d: {uses: sample, model: base, data: b}
""") == [
        "r.yaml:3:3: the stages go round in a circle: a -> a",
        "r.yaml:4:3: the stages go round in a circle: b -> d -> c -> b",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "stages:\n  a: {uses: train}\n  a: {uses: train}",
            "r.yaml:3:3: 'stages.a' is written twice; line 2 has it",
        ),
        ("a: [1", "r.yaml:1:6: not YAML: "),
        ("a: &x [*x]", "r.yaml:1:4: this alias stands inside what it stands for"),
        ("a: !!python/object:os.system ls", "r.yaml:1:4: the tag tag:yaml.org,2002:python/object:os.system"),
        ("? [1]\n: 2", "r.yaml:1:3: a key must be a plain word"),
        ("stages: []", "r.yaml:1:9: 'stages' names at least one stage"),
        ("name: a/b\nstages: {a: {uses: train}}", "r.yaml:1:7: 'a/b' is no name for a recipe"),
        ("seed: -1\nstages: {a: {uses: train}}", "r.yaml:1:7: 'seed' is a whole number from 0 to"),
        ("seed: true\nstages: {a: {uses: train}}", "r.yaml:1:7: 'seed' is a whole number from 0 to"),
        ("", "r.yaml: a recipe is a mapping with a key 'stages'"),
        ("- 1", "r.yaml: a recipe is a mapping with a key 'stages'"),
        ("\x00", "r.yaml:1:1: not YAML: "),
    ],
)
def test_what_is_no_recipe_is_refused_in_one_line(text: str, said: str):
    (line,) = problems(text)
    assert line.startswith(said)


def test_merged_defaults_give_way_to_what_is_written():
    recipe = parse("""
stages:
  a: &a {uses: train, steps: 9, language: zh}
  b: {<<: *a, steps: 4}
""")
    assert recipe.stages["b"].config == Train(steps=4, language="zh")


def test_overrides_are_yaml_and_reach_anything():
    recipe = parse(
        "stages: {a: {uses: train}, s: {uses: sample, model: a, data: [x]}, s2: {uses: sample, model: a}}",
        "stages.a.steps=20",
        "stages.a.optimizer.learning_rate=1e-6",
        "stages.a.trainer={beta: 0.1}",
        "stages.a.language=no",
        "stages.s.data.0=s2",
        "seed=4",
    )
    assert recipe.seed == 4
    assert recipe.stages["a"].config == Train(
        steps=20, language="no", optimizer=Optimizer(learning_rate=1e-6), trainer={"beta": 0.1}
    )


def test_an_override_goes_into_what_a_bare_name_stands_for():
    """`task: countdown` is short for a mapping with that name, alone and in a list."""
    recipe = parse(
        "stages: {a: {uses: train, trainer: {task: countdown, tasks: [math, {name: code}], none: ~}}}",
        "stages.a.trainer.task.split=seen",
        "stages.a.trainer.tasks.0.path=rows.jsonl",
        "stages.a.trainer.none.deep=1",
    )
    assert recipe.stages["a"].config.trainer == {
        "task": {"name": "countdown", "split": "seen"},
        "tasks": [{"name": "math", "path": "rows.jsonl"}, {"name": "code"}],
        "none": {"deep": 1},
    }
    assert problems("stages: {a: {uses: train}}", "stages.a.trainer=[]", "stages.a.trainer.1=2") == [
        "--set stages.a.trainer.1=2: 'stages.a.trainer' has no place for '1'",
        "--set stages.a.trainer=[]: 'stages.a.trainer': should be a valid dictionary, not []",
    ]


def test_a_wrong_override_is_told_like_a_wrong_line():
    assert problems(
        "stages: {zero: {uses: train, steps: 1}}",
        "stages.zero.stepz=20",
        "stages.zero.steps.deep=2",
        "stages.zero.steps=x",
        "stages.zerro.steps=2",
        "steps",
        "seed=[",
    ) == [
        "--set seed=[: not YAML: expected the node content, but found '<stream end>'",
        "--set stages.zero.steps.deep=2: 'stages.zero.steps' has no place for 'deep'",
        "--set stages.zero.steps=x: 'stages.zero.steps': should be a valid integer, not 'x'",
        "--set stages.zero.stepz=20: unknown key 'stages.zero.stepz'; did you mean 'steps'?",
        "--set stages.zerro.steps=2: there is no stage 'zerro'; did you mean 'zero'?",
        "--set steps: write it as dotted.key=value, e.g. stages.zero.steps=20",
    ]


def test_a_resolved_recipe_reads_back_as_the_same():
    """`run.json` holds the recipe as resolved; `plan` and `report` read it from there."""
    recipe = parse("""
name: tree
stages:
  base: {uses: train, optimizer: {learning_rate: 1e-6}, trainer: {a: 1}}
  rows: {uses: sample, model: base}
  more: {uses: sample, model: base, data: [rows]}
""")
    assert from_resolved(recipe.resolved(), "run.json", VERBS) == recipe


def test_a_recipe_is_found_by_path_or_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shipped, "recipes_dir", lambda: tmp_path)
    (tmp_path / "mini.yaml").write_text("stages: {a: {uses: train}}")
    assert load_recipe(tmp_path / "mini.yaml", VERBS).name == "mini"
    assert load_recipe("mini", VERBS) == load_recipe(tmp_path / "mini.yaml", VERBS)
    with pytest.raises(UsageError, match=r"no shipped recipe 'midi'; did you mean 'mini'\? There are: mini"):
        load_recipe("midi", VERBS)
    with pytest.raises(UsageError, match="cannot be read: No such file or directory"):
        load_recipe(tmp_path / "midi.yaml", VERBS)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"^The recipe midi\.yaml cannot be read: No such file or directory"):
        load_recipe("midi.yaml", VERBS)
    (tmp_path / "model-2.5.yaml").write_text("stages: {a: {uses: train}}")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_recipe("model-2.5", VERBS).name == "model-2.5"
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is not UTF-8 text"):
        load_recipe(tmp_path / "bytes.yaml", VERBS)
