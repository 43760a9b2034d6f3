"""The whole tree, end to end: recipes/smoke.yaml run by the command itself, with the network shut off.

One finished run serves most of the tests. The last two make the recipe's first five stages again: once left
alone, once killed during pretraining, RL and sampling.
"""

import hashlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.common import family
from r1pipe import jsonl
from r1pipe.report import RunFiles
from r1pipe.tasks import countdown, documents
from r1pipe.world.words import VOCABULARY

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
SMOKE = ROOT / "recipes" / "smoke.yaml"
DEADLINE = 1800
"""Seconds that a command may take on a machine that does other things as well."""

CHECKPOINTS = ["base", "zero", "cold", "reasoner", "sft", "r1", "student-base", "student", "student-rl"]
"""Which are the models that are scored, too."""
CORPORA = ["basics", "corpus"]
SAMPLED = ["manual", "traces", "general"]
SCORED = ["scores", "behaviour"]
SIDE_BY_SIDE = ["base", "zero", "r1", "student"]
FIRST_FIVE = ["basics", "corpus", "base", "zero", "manual"]


# --- Commands


@dataclass(frozen=True)
class Offline:
    """Runs commands in processes that may dial nowhere."""

    notes: Path
    """Where whoever dials is noted, nonetheless."""

    @property
    def environment(self) -> dict[str, str]:
        """Ours, without what keeps the libraries off the network by their own will, and without a GPU: the
        same bytes are promised on the CPU."""
        silent = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK")
        kept = {name: value for name, value in os.environ.items() if name not in silent}
        path = os.pathsep.join([str(ROOT / "tests" / "offline"), str(ROOT)])
        return {**kept, "PYTHONPATH": path, "DIALLED": str(self.notes), "CUDA_VISIBLE_DEVICES": ""}

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python to its end."""
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE
        )

    def r1pipe(self, *arguments: str) -> str:
        """Run a command that has to succeed; return what it prints."""
        done = self.python("-m", "r1pipe", *arguments)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr
        return done.stdout

    def on_a_terminal(self, *arguments: str) -> str:
        """The same with a terminal of 200 columns for its output; returns the text without colours."""
        ours, theirs = pty.openpty()
        environment = {**self.environment, "COLUMNS": "200", "TERM": "xterm"}
        command = [sys.executable, "-m", "r1pipe", *arguments]
        with subprocess.Popen(command, env=environment, cwd=ROOT, stdout=theirs) as process:
            os.close(theirs)
            printed = b""
            try:
                with suppress(OSError):  # how Linux says that nobody holds the other end any more
                    while select.select([ours], [], [], DEADLINE)[0] and (some := os.read(ours, 1 << 16)):
                        printed += some
                assert process.wait(timeout=DEADLINE) == 0
            finally:
                process.kill()
        os.close(ours)
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed.decode()).replace("\r", "")

    def killed(self, *arguments: str, when: Callable[[], bool]) -> None:
        """Start a command, and SIGKILL it and every process it has started once `when` says so."""
        command = [sys.executable, "-m", "r1pipe", *arguments]
        quiet = subprocess.DEVNULL
        with subprocess.Popen(command, env=self.environment, cwd=ROOT, stdout=quiet) as process:
            processes = [process.pid]
            try:
                wait_until(lambda: when() or process.poll() is not None)
                assert process.poll() is None, "the run ended before it could be killed"
                processes = list(family(process.pid))
                assert any(os.getpgid(pid) == pid for pid in processes[1:]), "no stage was running"
            finally:
                for pid in processes:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(lives, processes)))


def wait_until(condition: Callable[[], bool]) -> None:
    """Look often: the stages of this recipe take a second or two."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"waited {DEADLINE} seconds in vain"
        time.sleep(0.005)


def lives(pid: int) -> bool:
    """Whether there is such a process and it is not merely waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Offline:
    return Offline(tmp_path_factory.mktemp("offline") / "dialled")


# --- A run's files


@dataclass(frozen=True)
class Finished:
    """The run that the tests share."""

    path: Path
    said: str
    """What the command printed, into a pipe."""

    def folder(self, stage: str) -> Path:
        """A stage's artifact."""
        return folder_of(self.path, stage)

    def rows(self, stage: str, name: str = "part-*.jsonl") -> list[dict[str, Any]]:
        """The rows of a stage's files of this name; there has to be at least one file."""
        files = sorted(self.folder(stage).glob(name))
        assert files, f"{stage} has no {name}"
        return [row for file in files for row in jsonl.iter_rows(file)]


@pytest.fixture(scope="module")
def finished(offline: Offline, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """recipes/smoke.yaml, run to its end."""
    run = tmp_path_factory.mktemp("finished") / "run"
    return Finished(run, offline.r1pipe("run", "smoke", "--out", str(run)))


def folder_of(run: Path, stage: str) -> Path:
    """The one artifact of a stage."""
    (folder,) = (run / "artifacts" / stage).glob("v*")
    return folder


def digests(run: Path, stage: str) -> dict[str, str]:
    """SHA-256 of every file of a stage's artifact, read from its bytes; the manifest tells the time."""
    files = (path for path in folder_of(run, stage).iterdir() if path.name != "manifest.json")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def state(run: Path) -> dict[str, tuple[int, int]]:
    """Every file of a run's artifacts with its size and the time of its last change."""
    files = (path for path in (run / "artifacts").rglob("*") if path.is_file())
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def events(run: Path, *kinds: str) -> list[dict[str, Any]]:
    """What happened, of these kinds, oldest first."""
    return [row for row in jsonl.iter_rows(run / "events.jsonl") if row["event"] in kinds]


# --- 1. It runs to its end, and shows what came of it


def test_nobody_dialled(finished: Finished, offline: Offline, tmp_path: Path) -> None:
    """Neither the command nor a stage asked for an address or connected to one. The guard this rests on is
    seen to work."""
    assert not offline.notes.exists()
    dials = "import socket; socket.create_connection(('example.org', 80))"
    caught = Offline(tmp_path / "dialled").python("-c", dials)
    assert "this process is kept off the network" in caught.stderr
    assert (tmp_path / "dialled").read_text() == "socket.getaddrinfo example.org\n"


def test_every_stage_was_run_once(finished: Finished) -> None:
    """All sixteen, from nothing, and the run says that it ended well."""
    started = events(finished.path, "stage_started")
    assert sorted(each["stage"] for each in started) == sorted(CORPORA + SAMPLED + CHECKPOINTS + SCORED)
    assert {(each["resumed"], *each["reasons"]) for each in started} == {(False, "never completed")}
    (end,) = events(finished.path, "run_finished")
    assert end["exit_code"] == 0


def test_the_scores_of_every_model(finished: Finished, offline: Offline) -> None:
    """`scores --json` has the measures of each; the rate of passing is that of the rows."""
    scores = json.loads(offline.r1pipe("scores", str(finished.path), "--json"))["models"]
    assert list(scores) == CHECKPOINTS
    rows = finished.rows("scores")
    for model, score in scores.items():
        assert (score["problems"], score["samples"]) == (32, 64)
        passes = [row["verdict"] == "pass" for row in rows if row["model"] == model]
        assert score["pass_at_1"] == sum(passes) / 64
        assert (score["stderr"] > 0) == (score["pass_at_1"] > 0)
        assert 1 < score["mean_tokens"] <= 64
        assert score["attempts"] > 0
        for share in ("reflection", "language_consistency", "truncated"):
            assert 0 <= score[share] <= 1


def test_the_report_stands_alone(finished: Finished) -> None:
    """It loads nothing, and names every stage and every model's score."""
    page = (finished.path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"<script|<link|<img|<iframe|https?://|@import|url\(", page)
    assert not re.search(r"\b(?:src|srcset|href)=[\"']?(?!#)", page)
    for model, score in RunFiles.open(finished.path).scores().items():
        assert f">{model}<" in page
        assert f"{score['pass_at_1']:.3f} ± " in page
    assert page.count('<h3 class="question">nums ') == 3


def test_three_problems_answered_by_each(finished: Finished) -> None:
    """In a pipe: the question, then each model with its verdict and what it wrote."""
    answers = "".join(rf"  {model} \[(?:pass|fail)\]\n    .+\n" for model in SIDE_BY_SIDE)
    asked = re.findall(rf"^(nums(?: \d+){{3}} to \d+)\n{answers}", finished.said, re.MULTILINE)
    assert len(set(asked)) == 3
    first = [row["question"] for row in finished.rows("scores") if row["model"] == "base"][:6:2]
    assert asked == first


# --- 2. What is held out is nowhere in training


Problem = tuple[tuple[int, ...], int]
"""Numbers in ascending order, and the target: what makes two problems the same."""


def problems_in(value: Any) -> set[Problem]:
    """The countdown problems in all the text of a row, whatever its columns."""
    if isinstance(value, str):
        found = re.findall(r"\bnums((?: \d+)+) to (\d+)", value)
        return {(tuple(sorted(map(int, numbers.split()))), int(target)) for numbers, target in found}
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return {problem for each in inside for problem in problems_in(each)}


def named(identity: str) -> set[Problem]:
    """The problem that an id such as `countdown-3:4-5-6:34` names; none for that of something else."""
    found = re.fullmatch(r"countdown-\d+:([\d-]+):(\d+)", identity)
    return {(tuple(map(int, found[1].split("-"))), int(found[2]))} if found else set()


def asking(row: dict[str, Any]) -> list[str]:
    """The columns in which a question stands."""
    return [row[column] for column in ("text", "question", "prompt") if column in row]


def training_files(finished: Finished) -> dict[str, list[dict[str, Any]]]:
    """Every file of rows that lies in an artifact, those of the evaluations left out, as `stage/file`."""
    folders = {stage: finished.folder(stage) for stage in CORPORA + SAMPLED + CHECKPOINTS}
    paths = {f"{stage}/{path.name}": path for stage, at in folders.items() for path in at.glob("*.jsonl")}
    return {name: list(jsonl.iter_rows(path)) for name, path in paths.items()}


def evaluated(finished: Finished) -> dict[str, list[dict[str, Any]]]:
    """The rows of both evaluations by set."""
    sets: dict[str, list[dict[str, Any]]] = {}
    for row in [row for stage in SCORED for row in finished.rows(stage)]:
        sets.setdefault(row["set"], []).append(row)
    return sets


def test_no_problem_held_out_is_in_training(finished: Finished) -> None:
    """Not in a document of the corpora, a row kept or rejected, or a prompt that RL asked: neither one that
    the hash holds out, nor one over four numbers, nor one that an evaluation asks as held out."""
    files = training_files(finished)
    asked_by_rl = [f"{stage}/prompts.jsonl" for stage in ("zero", "reasoner", "r1", "student-rl")]
    rejected = [f"{stage}/rejects.jsonl" for stage in ("manual", "traces")]
    data = [f"{stage}/part-00000.jsonl" for stage in ("basics", "corpus", "manual", "traces")]
    assert set(files) >= {*asked_by_rl, *rejected, *data}
    held_out = set().union(
        *(problems_in(rows) for name, rows in evaluated(finished).items() if name != "seen")
    )
    assert len({problem for problem in held_out if len(problem[0]) == 3}) == 32
    for name, rows in files.items():
        found = problems_in(rows)
        assert bool(found) == (name in {*asked_by_rl, *rejected, *data}), name
        assert {len(numbers) for numbers, _ in found} <= {3}, name
        assert not {each for each in found if countdown.is_held_out(*each)}, name
        assert not found & held_out, name


def test_the_text_of_a_row_is_about_the_problem_it_names(finished: Finished) -> None:
    """So none was overlooked above: each row whose id names a problem asks it in its text, and no other."""
    counts = dict.fromkeys(("part-00000", "rejects", "prompts"), 0)
    for name, rows in training_files(finished).items():
        for row in rows:
            names = named(row.get("problem", row.get("problem_id", row.get("id"))))
            assert [problems_in(text) for text in asking(row)] == [names] * len(asking(row)) != [], row
            counts[name.partition("/")[2].removesuffix(".jsonl")] += len(names)
    recipe = RunFiles.open(finished.path).recipe["stages"]
    of_r1 = sum(row["task"] == "countdown" for row in finished.rows("r1", "prompts.jsonl"))
    assert 0 < of_r1 < recipe["r1"]["steps"] * 16
    assert counts["prompts"] == of_r1 + 16 * sum(
        recipe[stage]["steps"] for stage in ("zero", "reasoner", "student-rl")
    )
    assert counts["part-00000"] > 10_000
    assert counts["rejects"] > 500


def test_rl_sampling_and_evaluation_ask_in_orders_of_their_own(finished: Finished) -> None:
    """Else the second RL would ask what SFT has just learned, and the set `seen` what every RL asked. Of
    3,763 problems few are asked by both."""
    rows = [*finished.rows("traces", "part-00000.jsonl"), *finished.rows("traces", "rejects.jsonl")]
    traced = {row["problem_id"] for row in rows}
    rl = {row["id"] for row in finished.rows("r1", "prompts.jsonl") if row["task"] == "countdown"}
    assert len(traced) == 256 and len(rl) == 48
    assert len(traced & rl) < 10
    rl = {row["id"] for row in finished.rows("zero", "prompts.jsonl")}
    seen = {
        row["problem_id"] for row in finished.rows("behaviour", "part-00000.jsonl") if row["set"] == "seen"
    }
    assert len(rl) == 96 and len(seen) == 32
    assert len(seen & rl) < 10


def test_no_document_held_out_is_in_training(finished: Finished) -> None:
    """The questions that need no thinking are parted in the same way."""
    question = re.compile(rf"(?:^|<\|user\|> )((?:{'|'.join(documents.KINDS)}) .+?)(?: <\|assistant\|>|$)")
    rows = [row for rows in training_files(finished).values() for row in rows]
    trained = {found for row in rows for text in asking(row) for found in question.findall(text)}
    asked = {row["question"] for row in evaluated(finished)["documents"]}
    assert len(asked) == 16
    assert all(map(documents.is_held_out, asked))
    assert len(trained) > 1000
    assert not any(map(documents.is_held_out, trained))


def test_what_is_evaluated_is_what_the_sets_say(finished: Finished) -> None:
    """Every set called held out has problems that are held out and no others; the set `seen` has none."""
    sets = {
        name: problems_in([row["question"] for row in rows]) for name, rows in evaluated(finished).items()
    }
    assert {name: (len(found), {len(numbers) for numbers, _ in found}) for name, found in sets.items()} == {
        "held-out": (32, {3}),
        "seen": (32, {3}),
        "four-numbers": (16, {4}),
        "pass-at-k": (8, {3}),
        "documents": (0, set()),
        "persist": (16, {3}),
    }
    for name, found in sets.items():
        assert {countdown.is_held_out(*problem) for problem in found} <= {name != "seen"}


# --- 3. What is up to date, and why something is not


def test_a_second_run_does_nothing_and_says_why(finished: Finished, offline: Offline) -> None:
    """Every stage is told to be up to date, and which version is; no stage starts and no file changes. On a
    terminal the answers stand side by side."""
    before, told_before = state(finished.path), events(finished.path, "stage_reused")
    said = offline.on_a_terminal("run", "smoke", "--out", str(finished.path))
    stages = CORPORA + SAMPLED + CHECKPOINTS + SCORED
    for stage in stages:
        assert f"{stage:<12} up to date: {finished.folder(stage)}\n" in said
    assert state(finished.path) == before
    reused = events(finished.path, "stage_reused")[len(told_before) :]
    assert sorted(each["stage"] for each in reused) == sorted(stages)
    assert len(events(finished.path, "stage_started")) == len(stages)
    beside = " .* ".join(rf"{model} · (?:pass|fail)" for model in SIDE_BY_SIDE)
    assert len(re.findall(beside, said)) == 3


def plan(offline: Offline, run: Path, *overrides: str) -> dict[str, tuple[str, list[str]]]:
    """What a run would do about each stage, and why, where it is not up to date."""
    sets = [f"--set={each}" for each in overrides]
    stages = json.loads(offline.r1pipe("plan", "smoke", "--out", str(run), *sets, "--json"))["stages"]
    assert len(stages) == len(CORPORA + SAMPLED + CHECKPOINTS + SCORED)
    return {
        each["stage"]: (each["action"], each["reasons"])
        for each in stages
        if (each["action"], each["reasons"]) != ("up to date", [])
    }


def test_one_changed_value_reruns_its_stage_and_what_hangs_on_it(
    finished: Finished, offline: Offline
) -> None:
    """And nothing else, each with its reason; a value that cannot change a result reruns nothing."""
    before = state(finished.path)
    assert plan(offline, finished.path) == {}
    assert plan(offline, finished.path, "stages.base.save_every=50", "stages.zero.log_every=2") == {}
    waits = {name: f"input '{name}' is made again first" for name in CHECKPOINTS + SAMPLED}
    assert plan(offline, finished.path, "stages.reasoner.learning_rate=1e-4") == {
        "reasoner": ("run", ["config learning_rate: 0.0003 -> 0.0001"]),
        "traces": ("waiting", [waits["reasoner"]]),
        "sft": ("waiting", [waits["traces"]]),
        "r1": ("waiting", [waits["sft"]]),
        "student": ("waiting", [waits["traces"]]),
        "scores": ("waiting", [waits[each] for each in ("reasoner", "sft", "r1", "student")]),
        "behaviour": ("waiting", [waits["r1"]]),
    }
    assert state(finished.path) == before


# --- 4. What is published opens as it is


def test_every_artifact_is_tested(finished: Finished) -> None:
    """The lists that the next two tests go through are all there is."""
    kinds = {
        name: stage.manifest_or_fail().kind for name, stage in RunFiles.open(finished.path).stages.items()
    }
    assert kinds == {
        **dict.fromkeys(CHECKPOINTS, "checkpoint"),
        **dict.fromkeys(CORPORA + SAMPLED + SCORED, "dataset"),
    }


@pytest.mark.parametrize("stage", CHECKPOINTS)
def test_transformers_opens_the_checkpoint(finished: Finished, stage: str) -> None:
    """Every weight has its place and none is missing; a word is a token, and what is generated ends or is
    cut."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(finished.folder(stage))
    model, found = AutoModelForCausalLM.from_pretrained(finished.folder(stage), output_loading_info=True)
    assert not any(found.values()), found
    prompt = "<|user|> nums 5 11 5 to 11 <|assistant|> <think>"
    words = tokenizer(prompt, return_tensors="pt")
    assert words["input_ids"].tolist() == [[VOCABULARY.index(word) for word in prompt.split()]]
    assert tokenizer.decode(words["input_ids"][0]) == prompt
    (whole,) = model.generate(**words, do_sample=False, max_new_tokens=64)
    assert whole[-1] == tokenizer.eos_token_id or len(whole) == 9 + 64


@pytest.mark.parametrize("stage", CORPORA + SAMPLED + SCORED)
def test_datasets_opens_the_dataset(finished: Finished, stage: str, tmp_path: Path) -> None:
    """One split with the rows of the parts, value by value; what was rejected is not among them."""
    from datasets import load_dataset

    loaded = load_dataset(str(finished.folder(stage)), cache_dir=str(tmp_path))
    assert list(loaded) == ["train"]
    assert list(loaded["train"]) == finished.rows(stage)


# --- 5, 6. The same seed gives the same bytes, left alone or killed


@pytest.fixture(scope="module")
def recipe_of_five(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The smoke recipe up to the first sampling."""
    whole = yaml.safe_load(SMOKE.read_text(encoding="utf-8"))
    cut = {**whole, "stages": {name: whole["stages"][name] for name in FIRST_FIVE}}
    path = tmp_path_factory.mktemp("recipe") / "five.yaml"
    path.write_text(yaml.safe_dump(cut, sort_keys=False))
    return str(path)


def require_same_bytes(run: Path, other: Path) -> None:
    """The five stages' artifacts, file by file."""
    for stage in FIRST_FIVE:
        assert digests(run, stage) == digests(other, stage), stage
    for stage in ("base", "zero"):
        assert "model.safetensors" in digests(run, stage)


def test_the_same_seed_gives_the_same_bytes(
    finished: Finished, offline: Offline, recipe_of_five: str, tmp_path: Path
) -> None:
    """Elsewhere, from a recipe without the later stages, and one stage at a time instead of two."""
    offline.r1pipe("run", recipe_of_five, "--out", str(tmp_path / "again"), "--jobs", "1")
    require_same_bytes(tmp_path / "again", finished.path)


def sealed(run: Path, stage: str) -> int:
    """The step of a trainer's newest whole checkpoint; 0 while there is none."""
    found = (run / "work" / stage / "trainer").glob("checkpoint-*/whole.json")
    return max((int(marker.parent.name.partition("-")[2]) for marker in found), default=0)


def logged(run: Path, stage: str) -> list[dict[str, Any]]:
    """A stage's whole rows of metrics so far."""
    return RunFiles(run).metrics(stage)


def without_clocks(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of metrics as any run with this seed logs them."""
    clocks = ("eta", "time", "seconds_", "tokens_per_second", "accepted_per_second")
    return [{key: value for key, value in row.items() if not key.startswith(clocks)} for row in rows]


def test_killed_three_times_it_ends_with_the_same_bytes(
    finished: Finished, offline: Offline, recipe_of_five: str, tmp_path: Path
) -> None:
    """SIGKILL in the middle of pretraining, of RL and of sampling, each time of every process at once. The
    same command goes on, and it does go on: rows logged before a kill stay, and they hold the time that a
    step took, which would not come out the same twice."""
    run = tmp_path / "killed"
    often = ("--set=stages.base.save_every=50", "--set=stages.base.log_every=10")
    command = ("run", recipe_of_five, "--out", str(run), *often)
    before: dict[str, list[dict[str, Any]]] = {}

    def kill_in(stage: str, far_enough: Callable[[], bool]) -> None:
        offline.killed(*command, when=far_enough)
        assert not (run / "artifacts" / stage).exists(), f"{stage} was done before it could be killed"
        last = sealed(run, stage) if stage != "manual" else len(logged(run, stage))
        before[stage] = [row for row in logged(run, stage) if row["step"] <= last]

    kill_in("base", lambda: sealed(run, "base") >= 250)
    kill_in("zero", lambda: sealed(run, "zero") >= 2)
    kill_in("manual", lambda: len(logged(run, "manual")) >= 1)
    offline.r1pipe(*command)

    assert before["base"][-1]["step"] >= 250
    assert before["zero"][-1]["step"] >= 2
    assert before["manual"][-1]["step"] >= 1
    for stage, rows in before.items():
        assert logged(run, stage)[: len(rows)] == rows, f"{stage} began anew"
    assert [row["step"] for row in logged(run, "base")] == list(range(10, 2001, 10))
    assert without_clocks(logged(run, "zero")) == without_clocks(logged(finished.path, "zero"))
    assert [(each["stage"], each["resumed"]) for each in events(run, "stage_started")] == [
        ("basics", False),
        ("corpus", False),
        ("base", False),
        ("base", True),
        ("zero", False),
        ("zero", True),
        ("manual", False),
        ("manual", True),
    ]
    assert [each["exit_code"] for each in events(run, "run_finished")] == [0]
    require_same_bytes(run, finished.path)
