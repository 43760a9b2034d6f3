"""The dry run: what is wrong is said all at once and with its place, what is not here is left out, and
nothing is written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from r1pipe import cli, dryrun
from r1pipe.recipe import load_recipe
from r1pipe.rollout import vllm_fit
from r1pipe.stage import Findings
from stages import VERBS
from tests.tiny_model import write_tiny

GOOD = """\
name: good
stages:
  zero:
    uses: rl
    model: ./base
    task: [{name: math, path: sums.jsonl}, countdown]
    template: chat
    prompts_per_step: 32
    group_size: 16
    micro_batch: 4
    max_new_tokens: 16
  student:
    uses: distill
    model: zero
    data: traces.jsonl
    micro_batch: 16
  scores:
    uses: evaluate
    models: [zero, student]
    template: chat
    max_new_tokens: 16
    sets: {held-out: {task: {name: countdown, split: held-out}}}
"""
BAD = """\
# One with a mistake of every kind.
# Data: traces.jsonl is `r1pipe sample --out traces`.
name: bad
stages:
  zero:
    uses: rl
    model: ./base
    task:
      - {name: math, path: gone.jsonl}
      - {name: math, path: empty.jsonl}
      - countdown
    template: chat
    max_new_tokens: 64
    trainer: {lr_shceduler_type: linear}
  student:
    uses: distill
    model: some/model
    data: traces.jsonl
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model and two files of rows."""
    folder = tmp_path_factory.mktemp("here")
    write_tiny(folder / "base")
    rows = [{"question": f"nums {n} 1 2 to {n + 3}", "answer": str(n + 3)} for n in range(1, 7)]
    (folder / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n{"question": "no answer"}\n')
    (folder / "traces.jsonl").write_text('{"prompt": "copy red", "completion": "red"}\n')
    (folder / "empty.jsonl").write_text("")
    (folder / "good.yaml").write_text(GOOD)
    (folder / "bad.yaml").write_text(BAD)
    return folder


@pytest.fixture(autouse=True)
def _stand_there(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)


def tried(name: str, *overrides: str) -> dryrun.DryRun:
    return dryrun.dry_run(load_recipe(f"{name}.yaml", VERBS, overrides, files_exist=False))


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, ["run", *arguments, "--dry-run"], env={"COLUMNS": "200"})


def test_a_recipe_that_will_run(here: Path) -> None:
    """Batches worked out, rows read and counted, prompts rendered by the model's own template and counted in
    its tokens; nothing was left behind."""
    before = sorted(path.name for path in here.rglob("*"))
    found = tried("good")
    assert found.findings == Findings() and found.left_out == []
    zero, student = found.batches["zero"], found.batches["student"]
    assert (zero.completions_per_step, zero.micro_batches, zero.tokens_per_step) == (512, 128, 8192)
    assert (student.completions_per_step, student.gradient_accumulation_steps) == (64, 4)
    assert [(each.stage, each.key, each.task, each.rows, each.set_aside) for each in found.tasks] == [
        ("zero", "task.0", "math", 6, 1),
        ("zero", "task.1", "countdown", None, 0),
        ("scores", "sets.held-out.task", "countdown", None, 0),
    ]
    assert found.tasks[0].prompt.startswith("<|user|> nums ") and found.tasks[0].prompt.endswith(" <think>")
    assert all(each.tokens is not None and 7 <= each.tokens <= 12 for each in found.tasks)
    assert sorted(path.name for path in here.rglob("*")) == before


def test_all_mistakes_at_once() -> None:
    """Each with its line and column and a way out; the head of the recipe tells where a file comes from."""
    found = tried("bad")
    line = {row.strip(): number for number, row in enumerate(BAD.splitlines(), 1)}
    told = {problem.partition(": ")[0]: problem.partition(": ")[2] for problem in found.findings.wrong}
    trainer = line["trainer: {lr_shceduler_type: linear}"]
    assert told[f"bad.yaml:{trainer}:34"].startswith(
        "stages.zero.trainer.lr_shceduler_type: GRPOConfig has no"
    )
    assert told["bad.yaml:9:28"] == (
        "stages.zero.task.0.path: nothing is at the path 'gone.jsonl'; put it there, or give another path"
    )
    assert told["bad.yaml:10:9"].startswith("stages.zero.task.1: The data 'empty.jsonl' holds no rows")
    assert "do not fit the context of 64" in told[f"bad.yaml:{line['max_new_tokens: 64']}:21"]
    assert len(found.findings.wrong) == 4


def test_a_set_has_a_limit_of_its_own() -> None:
    """It counts in place of the stage's, and is named where no prompt fits beside it."""
    (told,) = tried("good", "stages.scores.sets.held-out.max_new_tokens=64").findings.wrong
    assert "stages.scores.sets.held-out.max_new_tokens: 64 tokens after a prompt of " in told
    own = "stages.scores.sets.held-out.max_new_tokens=16"
    assert tried("good", "stages.scores.max_new_tokens=64", own).findings == Findings()


def test_one_long_prompt_is_counted(tmp_path: Path) -> None:
    """A run sets it aside and asks the others; only that none is left stops a recipe."""
    rows = [{"question": f"nums {n} 1 2 to 9" + " 1" * 40 * (n == 3), "answer": "9"} for n in range(1, 7)]
    (tmp_path / "long.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = f"stages.zero.task=[{{name: math, path: {tmp_path / 'long.jsonl'}}}, countdown]"
    found = tried("good", task)
    assert found.findings == Findings()
    assert [(each.stage, each.tried, each.too_long) for each in found.tasks] == [
        ("zero", 8, 1),
        ("zero", 8, 0),
        ("scores", 8, 0),
    ]


def test_an_engine_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told with what installs it; a server is not asked."""
    monkeypatch.setattr(vllm_fit, "_installed", lambda: None)
    found = tried("good", "stages.zero.engine=vllm").findings
    assert found.wrong == []
    (told,) = found.lacking
    assert told.startswith("--set stages.zero.engine=vllm: stages.zero.engine: vLLM is not installed. ")
    server = "stages.scores.engine={name: vllm-server, url: 'http://localhost:1'}"
    found = tried("good", server, "stages.scores.models=[student]")
    assert found.findings == Findings()
    assert found.left_out == ["The server of 'scores' was not asked: a dry run opens no connection."]


def test_a_cluster_is_not_asked(with_vllm: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """What its machines can serve, this one cannot tell: the same model is refused for vLLM here."""
    monkeypatch.setattr(vllm_fit, "known_architectures", set)
    student = "stages.scores.models=[student]"
    assert any("no implementation" in said for said in with_vllm("stages.scores.engine=vllm", student))
    found = tried("good", "stages.scores.engine={name: ray, each: vllm}", student)
    assert found.findings.wrong == []
    assert found.left_out == ["The Ray cluster of 'scores' was not asked: a dry run opens no connection."]


def test_a_teacher_has_a_context_of_its_own() -> None:
    """It is not asked, and its completions do not have to fit the model whose tokenizer makes the prompts."""
    stage = "uses: sample, model: ./base, task: countdown, template: chat, max_new_tokens: 9999"
    (wrong,) = tried("good", f"stages.more={{{stage}}}").findings.wrong
    assert "do not fit the context of 64" in wrong
    found = tried("good", f"stages.more={{{stage}, teacher: {{url: 'http://localhost:1', model: r1}}}}")
    assert found.findings == Findings()
    assert found.left_out == ["The server of 'more' was not asked: a dry run opens no connection."]


@pytest.fixture
def with_vllm(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Tries the good recipe where vLLM is, on a machine without a GPU, and knows Llama alone.

    The stages' own checks run in a process of their own, where it may be missing: that is lacking, and not
    wrong.
    """
    monkeypatch.setattr(vllm_fit, "_installed", lambda: vllm_fit.VERSION)
    monkeypatch.setattr(vllm_fit, "known_architectures", lambda: {"LlamaForCausalLM"})
    monkeypatch.setattr(vllm_fit, "has_nvidia_gpu", lambda: False)
    return lambda *overrides: tried("good", *overrides).findings.wrong


def test_a_model_that_vllm_cannot_serve(with_vllm: Callable[..., list[str]], tmp_path: Path) -> None:
    """By the config of the checkpoint that a chain of stages begins with, or of the stage that makes it: the
    stage that asks it is told of now, and not when its turn comes."""
    engine = "stages.scores.engine=vllm"
    assert with_vllm(engine) == []
    base = write_tiny(tmp_path / "narrow")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "head_dim": 24}))
    (told,) = with_vllm(engine, f"stages.zero.model={base}")
    assert told.startswith(
        f"--set {engine}: stages.scores.engine: The attention heads of {base} have 24 dimensions, and on a "
        "CPU vLLM can only do 32, "
    )
    made = "stages.made={uses: pretrain, data: traces.jsonl, head_dim: 24}"
    (told,) = with_vllm(engine, made, "stages.zero.model=made")
    assert "stages.scores.engine: The attention heads of 'made' have 24 dimensions" in told


@pytest.mark.parametrize(("stage", "value"), [("zero", "{0: 1.0, 50: 3.0}"), ("scores", "3.0")])
def test_a_temperature_that_vllm_does_not_draw_at(
    with_vllm: Callable[..., list[str]], stage: str, value: str
) -> None:
    """Also one that a schedule comes to; the engine on transformers draws at any."""
    hot = f"stages.{stage}.temperature={value}"
    assert with_vllm(hot) == []
    (told,) = with_vllm(hot, f"stages.{stage}.engine=vllm")
    assert told.startswith(
        f"--set {hot}: stages.{stage}.temperature: vLLM draws at temperatures from 0.01 to 2.0, or at 0 for "
        "the likeliest token; 3.0 was asked for. "
    )


def test_a_missing_data_set_names_the_way_to_get_it(here: Path) -> None:
    """The line of the recipe's head that names the file."""
    (here / "traces.jsonl").rename(here / "away.jsonl")
    try:
        (told,) = [problem for problem in tried("bad").findings.wrong if "traces" in problem]
    finally:
        (here / "away.jsonl").rename(here / "traces.jsonl")
    assert told.endswith(
        "stages.student.data: nothing is at the path 'traces.jsonl'; the recipe's head says: Data: "
        "traces.jsonl is `r1pipe sample --out traces`."
    )


def test_what_is_on_the_hub_is_left_out() -> None:
    """Neither a model nor a data set is fetched; that they were not looked at is said."""
    task = "stages.zero.task=[{name: math, dataset: openai/gsm8k, dataset_config: main}, countdown]"
    found = tried("good", "stages.zero.model=Qwen/Qwen2.5-0.5B", task, "stages.zero.template=r1-zero")
    assert found.findings == Findings()
    assert found.left_out == [
        "The data set openai/gsm8k is not on this machine; its rows were not read.",
        "The model Qwen/Qwen2.5-0.5B is not on this machine; its tokenizer and context were not read.",
    ]
    assert found.tasks[0].tokens is None and "Assistant: <think>" in found.tasks[0].prompt


def test_a_template_that_the_tokenizer_does_not_have(tmp_path: Path) -> None:
    """`chat` on a base without one is found here, and not after the stages before it."""
    base = write_tiny(tmp_path / "plain")
    (base / "chat_template.jinja").unlink(missing_ok=True)
    file = base / "tokenizer_config.json"
    file.write_text(
        json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "chat_template"})
    )
    found = tried("good", f"stages.zero.model={base}")
    told = [problem.split(": ", 1)[1] for problem in found.findings.wrong]
    assert [each.partition(":")[0] for each in told] == ["stages.zero.template", "stages.scores.template"]
    assert all("chat template, and this one has none; set template: r1-zero" in each for each in told)


def test_the_command_prints_the_arithmetic() -> None:
    """A table of the batches, the tasks, and that nothing is wrong; exit code 0."""
    done = invoke("good.yaml", "--gpus", "2")
    assert done.exit_code == 0, done.output
    rows = {line.split()[0]: line for line in done.output.splitlines() if line.strip()}
    assert "Completions" in done.output and "zero" in rows
    assert "32 x 16" in done.output and "64 x 4" in done.output
    assert "Nothing is wrong with the 3 stages." in done.output
    unseen = invoke("good.yaml", "--set", "stages.zero.model=Qwen/Qwen2.5-0.5B")
    assert unseen.exit_code == 0, unseen.output
    assert "Nothing wrong was found; the one thing above was not looked at." in unseen.output


def test_the_command_ends_with_two() -> None:
    """All problems on stderr; with --json they stand in the one document."""
    done = invoke("bad.yaml")
    assert done.exit_code == 2
    assert "nothing is at the path 'gone.jsonl'" in done.stderr
    done = invoke("bad.yaml", "--json")
    assert done.exit_code == 2
    data = json.loads(done.stdout)
    assert any("gone.jsonl" in problem for problem in data["problems"])
    assert data["batches"][0]["completions_per_step"] == 256


def test_the_command_ends_with_four() -> None:
    """Where the recipe is right and this machine lacks something; what is wrong beside that makes it 2."""
    lacking = ("--set", "stages.student.parallel=zero2")
    done = invoke("good.yaml", *lacking)
    assert done.exit_code == 4
    assert "stages.student.parallel: zero2 needs " in done.stderr
    assert "Nothing" not in done.stdout
    done = invoke("good.yaml", *lacking, "--json")
    assert done.exit_code == 4
    data = json.loads(done.stdout)
    assert data["problems"] == [] and len(data["lacking"]) == 1
    both = invoke("bad.yaml", *lacking)
    assert both.exit_code == 2
    assert "gone.jsonl" in both.stderr and "zero2 needs " in both.stderr
