"""Commands made from configs."""

from pathlib import Path

import pytest

from r1pipe.errors import UsageError
from r1pipe.verbs import EXAMPLES, make_config
from stages import VERBS

HERE = str(Path(__file__).parent)


def test_every_verb_has_an_example() -> None:
    """The help of each ends in something to run."""
    assert set(EXAMPLES) == set(VERBS)


def test_default_then_file_then_option_then_set(tmp_path: Path) -> None:
    """Each goes before the one it comes after; what is not given is not touched."""
    file = tmp_path / "sft.yaml"
    file.write_text("epochs: 3\nbatch_size: 8\nscheduler: linear\n")
    given = {"model": HERE, "data": [HERE], "batch_size": "16", "scheduler": "cosine", "floor": None}
    config = make_config("sft", given, file, ["scheduler=constant"])
    assert config.model_dump(include={"epochs", "batch_size", "scheduler", "floor"}) == {
        "epochs": 3.0,
        "batch_size": 16,
        "scheduler": "constant",
        "floor": 0.1,
    }


def test_a_value_may_be_any_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers in YAML 1.1's blind spot, mappings, and words that YAML would read as something else."""
    (tmp_path / "no").mkdir()
    monkeypatch.chdir(tmp_path)
    given = {"model": "no", "task": "{name: countdown, count: 5}", "learning_rate": "1e-6"}
    config = make_config("rl", given, None, ["rewards={accuracy: 1}"])
    assert config.model_dump()["learning_rate"] == 1e-6
    assert config.model_dump()["model"] == "no"
    assert config.model_dump()["task"][0]["count"] == 5
    assert config.model_dump()["rewards"] == {"accuracy": 1.0}


def test_all_mistakes_are_told_at_once_in_the_command_lines_words() -> None:
    """An option is called by its flag, a missing key by its sentence; no stage and no line is named."""
    with pytest.raises(UsageError) as caught:
        make_config("sft", {"data": [HERE], "learning_rate": "abc"}, None, ["lerning_rate=3"])
    assert sorted(str(caught.value).splitlines()) == [
        "--learning-rate abc: 'learning_rate': should be a valid number, not 'abc'",
        "--set lerning_rate=3: unknown key 'lerning_rate'; did you mean 'learning_rate'?",
        "r1pipe sft: 'sft' needs 'model': The model to start from",
    ]


def test_an_engine_is_named_and_set() -> None:
    """By a bare name and its keys, by its keys alone, and by a mapping."""
    given = {"model": HERE, "task": "countdown"}
    url = "engine.url=http://localhost:8000"
    for options, overrides in (
        ({"engine": "vllm-server"}, [url]),
        ({}, [url]),
        ({"engine": "{name: vllm-server, url: http://localhost:8000}"}, []),
    ):
        engine = make_config("sample", {**given, **options}, None, overrides).model_dump(mode="json")[
            "engine"
        ]
        assert (engine["name"], engine["url"]) == ("vllm-server", "http://localhost:8000/")
    config = make_config("evaluate", {"models": HERE, "engine": "vllm"}, None, ["engine.cache_gb=4"])
    assert config.model_dump()["engine"]["cache_gb"] == 4.0
    with pytest.raises(UsageError) as caught:
        make_config("sample", {**given, "engine": "vlm"})
    assert str(caught.value) == (
        "--engine vlm: 'engine': there is no engine 'vlm'; did you mean 'vllm'? the engines are auto, "
        "transformers, vllm, vllm-server, ray"
    )


def test_an_option_given_several_times_is_told_as_it_was_typed() -> None:
    """And which of its values is the wrong one."""
    with pytest.raises(UsageError) as caught:
        make_config("evaluate", {"models": [HERE, "./no"]})
    assert str(caught.value) == f"--models {HERE} --models ./no: 'models.1': nothing is at the path './no'"


def test_a_mistake_in_the_file_names_the_file(tmp_path: Path) -> None:
    """With a file it is the file that is wrong, not the command."""
    file = tmp_path / "rl.yaml"
    file.write_text("steps: many\n")
    with pytest.raises(UsageError, match=rf"^{file}: 'steps'"):
        make_config("rl", {"model": HERE, "task": "countdown"}, file)


@pytest.mark.parametrize("text", ["- a\n- b\n", "steps: [1\n", ""])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    """A list, broken YAML and nothing at all get a message that names the file."""
    file = tmp_path / "rl.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"rl\.yaml"):
        make_config("rl", {"model": HERE, "task": "countdown"}, file)


def test_a_folder_called_like_the_verb_is_asked_for_as_a_path() -> None:
    """`--model sft` in `r1pipe sft` would read as the stage itself."""
    with pytest.raises(UsageError, match=r"'--model sft': write the path as '\./sft'"):
        make_config("sft", {"model": "sft", "data": [HERE]})
    with pytest.raises(UsageError, match=r"'--data sft': write the path as '\./sft'"):
        make_config("sft", {"model": HERE, "data": [HERE, "sft"]})


@pytest.mark.parametrize("verb", list(VERBS))
def test_the_examples_use_options_that_exist(verb: str) -> None:
    """What is shown can be typed: each flag is a field's or one that every stage has."""
    for example in EXAMPLES[verb]:
        _, command, *words = example.split()
        if command in VERBS:
            known = {name.replace("_", "-") for name in VERBS[command].model_fields}
            flags = {word.removeprefix("--") for word in words if word.startswith("--")}
            assert flags <= known | {"out", "seed", "set", "config", "json", "debug"}, example


def test_what_stands_without_an_option_is_told_as_it_was_typed(tmp_path: Path) -> None:
    """`r1pipe curate a.jsonl b.jsonl` takes several inputs, and a missing one is called by its name alone."""
    with pytest.raises(UsageError) as caught:
        make_config("curate", {"data": ["a.jsonl", "b.jsonl"], "steps": "[exat]"}, None)
    assert "--steps [exat]: 'steps.0': there is no step 'exat'; did you mean 'exact'?" in str(caught.value)
    with pytest.raises(UsageError) as caught:
        make_config("curate", {"data": ["a.jsonl", "b.jsonl"]}, None)
    assert "a.jsonl b.jsonl: 'data.0': nothing is at the path 'a.jsonl'" in str(caught.value).splitlines()
