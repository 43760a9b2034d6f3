"""What a user can get wrong, as the user meets it: one message with the way out, the right exit code, no
traceback, and nothing lost that was made before.

Each case is the command itself in a process of its own. The messages are tested in full where they are made;
here it is that they arrive.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1pipe import jsonl
from r1pipe.report import RunFiles
from r1pipe.run import RunFolder
from tests.folders import checkpoint
from tests.tiny_model import write_tiny

ROW = '{"prompt": "<|user|> copy red <|assistant|>", "completion": " red"}\n'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder: a whole checkpoint `model` (its weights are random bytes) and `rows.jsonl`."""
    monkeypatch.chdir(tmp_path)
    checkpoint(tmp_path / "model")
    (tmp_path / "rows.jsonl").write_text(ROW)
    return tmp_path


def refused(code: int, *command: str) -> str:
    """Run a command that has to fail with this code and no traceback; return what it says on stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "r1pipe", *command], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr.startswith("r1pipe: ")
    return done.stderr.removeprefix("r1pipe: ")


# --- Recipes


def test_every_mistake_of_a_recipe_comes_at_once(here: Path) -> None:
    """A misspelt key, a wrong type, an unknown verb, an unknown task and an unknown stage, each with its
    place and the nearest right word; nothing was begun."""
    (here / "bad.yaml").write_text(
        "stages:\n"
        "  zero: {uses: rl, model: model, task: countdwn, lerning_rate: 1e-4, steps: many}\n"
        "  cold: {uses: stf, model: model, data: rows.jsonl}\n"
        "  scores: {uses: evaluate, models: [zeero]}\n"
    )
    assert refused(2, "run", "bad.yaml").splitlines() == [
        "bad.yaml:2:40: 'stages.zero.task': there is no task 'countdwn'; did you mean 'countdown'? there are "
        "countdown, documents, gym:<generator>, jsonl, math, exact, choice, logic, code, and 'module:Class' "
        "for one of your own",
        "bad.yaml:2:50: unknown key 'stages.zero.lerning_rate'; did you mean 'learning_rate'?",
        "bad.yaml:2:77: 'stages.zero.steps': should be a valid integer, not 'many'",
        "bad.yaml:3:16: there is no verb 'stf'; did you mean 'sft'? The verbs are checkpoint, corpus, "
        "curate, distill, evaluate, pretrain, rl, sample, sft",
        "bad.yaml:4:37: 'stages.scores.models.0': there is no stage 'zeero'; "
        "did you mean 'zero'?, and no such path",
    ]
    assert not (here / "runs").exists()


def test_a_circle_is_shown(here: Path) -> None:
    """From the first stage round to itself."""
    (here / "round.yaml").write_text(
        "stages:\n"
        "  a: {uses: sft, model: b, data: rows.jsonl}\n"
        "  b: {uses: sft, model: a, data: rows.jsonl}\n"
    )
    said = refused(2, "run", "round.yaml")
    assert said == "round.yaml:2:3: the stages go round in a circle: a -> b -> a\n"


def test_what_is_no_recipe(here: Path) -> None:
    """Neither a file nor a shipped one; a misspelt `--set`."""
    said = refused(2, "run", "tiny-r2")
    assert said.startswith("There is no shipped recipe 'tiny-r2'; did you mean 'tiny-r1'? There are: ")
    said = refused(2, "run", "smoke", "--set", "stages.zero.step=3")
    assert said == "--set stages.zero.step=3: unknown key 'stages.zero.step'; did you mean 'steps'?\n"


# --- Models and data


def break_model(folder: Path, how: str) -> None:
    if how == "missing":
        shutil.rmtree(folder)
    elif how == "half-written":
        os.truncate(folder / "model.safetensors", 100)
    elif how == "no tokenizer":
        (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("missing", "nothing is at the path './model'"),
        ("half-written", "model.safetensors is cut short: it has 100 bytes, its header speaks of "),
        (
            "no tokenizer",
            "It has no tokenizer (tokenizer.json). Copy the tokenizer files of the model it was",
        ),
    ],
)
@pytest.mark.parametrize("verb", ["sft", "rl", "evaluate"])
def test_a_model_that_cannot_be_opened(here: Path, verb: str, how: str, said: str) -> None:
    """Found before anything heavy is loaded, whichever stage it was for; nothing is left behind."""
    break_model(here / "model", how)
    more = {
        "sft": ["--model", "./model", "--data", "rows.jsonl"],
        "rl": ["--model", "./model", "--task", "countdown"],
        "evaluate": ["--models", "./model"],
    }
    assert said in refused(2, verb, *more[verb], "--out", "out")
    assert not (here / "out").exists() and not (here / "out.run").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "nothing is at the path 'data.jsonl'"),
        ("", "The data 'data.jsonl' is empty. One JSON object per line is expected."),
    ],
)
def test_data_that_is_not_there(here: Path, content: str | None, said: str) -> None:
    """A missing file and an empty one."""
    if content is not None:
        (here / "data.jsonl").write_text(content)
    assert said in refused(2, "sft", "--model", "./model", "--data", "data.jsonl", "--out", "out")
    assert not (here / "out.run").exists()


def test_every_input_that_cannot_be_used_comes_at_once(here: Path) -> None:
    """With the place that names it; the run is not begun."""
    break_model(here / "model", "half-written")
    (here / "empty.jsonl").write_text("")
    (here / "tree.yaml").write_text(
        "name: tree\nstages:\n"
        "  tuned: {uses: sft, model: ./model, data: rows.jsonl}\n"
        "  other: {uses: sft, model: tuned, data: empty.jsonl}\n"
    )
    said = refused(2, "run", "tree.yaml", "--out", "run")
    model, data = said.splitlines()[:2]
    assert model.startswith("tree.yaml:3:29: ") and "model.safetensors is cut short" in model
    assert data.startswith("tree.yaml:4:42: ") and "The data 'empty.jsonl' is empty." in data
    assert not (here / "run" / "run.json").exists()


TREE = """
name: tree
stages:
  broken-row: {uses: sft, model: ./tiny, data: rows.jsonl}
  long-prompt:
    uses: rl
    model: ./tiny
    task: {name: jsonl, path: ask.jsonl}
    template: chat
    group_size: 2
    prompts_per_step: 2
    micro_batch: 4
    steps: 1
    max_new_tokens: 16
  no-row: {uses: sft, model: ./tiny, data: bad.jsonl}
  no-prompt: {uses: rl, model: ./tiny, task: countdown, max_new_tokens: 64}
  no-question: {uses: evaluate, models: [./tiny], max_new_tokens: 64}
  nobody: {uses: distill, model: no-row, data: rows.jsonl}
"""


def test_rows_and_prompts_that_cannot_be_used(here: Path) -> None:
    """Broken rows and over-long prompts are set aside with the reason, and the stage goes on with the others;
    where none is left the stage says so, the stages that do not need it finish, and what was made is kept."""
    write_tiny(here / "tiny")
    (here / "rows.jsonl").write_text(ROW + '{"prompt": "x\n' + '{"prompt": 3, "completion": "x"}\n')
    (here / "bad.jsonl").write_text('{"text": "red"}\n')
    questions = [{"question": f"copy {'red ' * n}", "answer": "red"} for n in (1, 60)]
    (here / "ask.jsonl").write_text("\n".join([*map(json.dumps, questions), '{"question": "copy']))
    (here / "tree.yaml").write_text(TREE)
    said = refused(2, "run", "tree.yaml", "--out", "run").splitlines()
    for line in (
        "Stage 'no-row' failed: No row of bad.jsonl can be trained on; 1 were set aside",
        "Stage 'no-prompt' failed: All 3200 prompts are too long: a context of 64 tokens less",
        "Stage 'no-question' failed: No prompt of set 'held-out' can be asked: the prompt has ",
        "What was finished is kept: once this is put right, the same command goes on from there.",
    ):
        assert any(each.startswith(line) for each in said), line
    stages = RunFiles.open(here / "run").stages
    assert {name: stage.state for name, stage in stages.items()} == {
        "broken-row": "done",
        "long-prompt": "done",
        **dict.fromkeys(("no-row", "no-prompt", "no-question"), "failed"),
        "nobody": "waiting",
    }
    reasons = {
        name: [row["reason"].partition(" (")[0] for row in jsonl.iter_rows(stage.folder / "set-aside.jsonl")]
        for name, stage in stages.items()
        if stage.folder is not None
    }
    assert reasons == {
        "broken-row": ["not JSON", "no text in 'prompt' and 'completion'"],
        "long-prompt": ["the prompt has 64 tokens, and there is room for 48", "not JSON"],
    }
    assert all(
        stage.manifest is None or stage.manifest.metrics["set_aside"] == 2 for stage in stages.values()
    )


# --- The machine


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if (
        mount is None
        or os.geteuid() != 0
        or subprocess.run([mount, *options], capture_output=True).returncode
    ):
        pytest.skip("mounting a small file system takes root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(small_disk: Path, here: Path) -> None:
    """The stage fails with the file's name and the way out; what was finished is whole, and once there is
    room the same command goes on."""
    (here / "two.yaml").write_text(
        "stages:\n  small: {uses: corpus, documents: 300}\n  large: {uses: corpus, documents: 30000}\n"
    )
    command = ["run", "two.yaml", "--out", str(small_disk / "run"), "--jobs", "1"]
    said = refused(1, *command)
    assert re.match(r"Stage 'large' failed: The disk is full: '\S+' could not be written\.", said)
    assert "Free some space and run the same command again: it goes on from there." in said
    stages = RunFiles.open(small_disk / "run").stages
    assert (stages["small"].state, stages["large"].state) == ("done", "failed")
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    again = subprocess.run([sys.executable, "-m", "r1pipe", *command], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert re.search(r"small +up to date", again.stdout) and re.search(r"large +done", again.stdout)


def test_a_second_process_on_a_run(here: Path) -> None:
    """Exit code 3: who holds the run, and what can be done about it; the run is not touched."""
    (here / "one.yaml").write_text("stages: {corpus: {uses: corpus, documents: 10}}")
    with RunFolder(here / "run").writing():
        before = sorted(path.name for path in (here / "run").iterdir())
        said = refused(3, "run", "one.yaml", "--out", "run")
        assert sorted(path.name for path in (here / "run").iterdir()) == before
    pattern = (
        r"The run 'run' is held by process (\d+) on \S+ since \S+ \(.+\)\. "
        r"Wait for it, stop it \(kill -INT (\d+)\), or"
    )
    assert re.findall(pattern, said) == [(str(os.getpid()), str(os.getpid()))]
