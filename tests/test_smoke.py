"""The whole tree in miniature, run once as a user runs it, and what must be true of any finished run.

`recipes/smoke.yaml` has the stages of tiny-r1, and nothing in it is replaced for the test: these are the
claims of the README and of the design, looked for in the run's files.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bench.resume import VERBS, differing, killed_in, outcome
from r1pipe import jsonl
from r1pipe.recipe import Recipe, load_recipe
from r1pipe.report import RunFiles
from stages import VERBS as STAGE_VERBS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-m", "r1pipe", "run", "smoke", "--jobs", "2"]
GUARD = ROOT / "tests" / "offline"
QUIET = (
    "HF_HUB_OFFLINE",
    "HF_DATASETS_OFFLINE",
    "HF_HUB_DISABLE_TELEMETRY",
    "VLLM_NO_USAGE_STATS",
    "DO_NOT_TRACK",
)
"""Variables that keep libraries quiet; set for these tests, and the command has to do without."""


@dataclass(frozen=True)
class Done:
    """A command that ended, and the run it wrote."""

    run: Path
    code: int
    said: str
    dialled: list[str]
    """Whom its processes tried to reach."""

    @property
    def files(self) -> RunFiles:
        return RunFiles.open(self.run)

    def folders(self, *verbs: str) -> dict[str, Path]:
        """The artifacts of the stages of these verbs."""
        stages = self.files.stages.items()
        return {name: stage.folder for name, stage in stages if stage.verb in verbs and stage.folder}


def execute(run: Path, *more: str) -> Done:
    """Run smoke into a folder, kept off the network."""
    dialled = run.with_name(f"{run.name}-dialled.txt")
    dialled.touch()
    environment = {name: value for name, value in os.environ.items() if name not in QUIET}
    environment |= {"PYTHONPATH": str(GUARD), "DIALLED": str(dialled)}
    command = [*COMMAND, "--out", str(run), *more]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200)
    return Done(run, done.returncode, done.stdout + done.stderr, dialled.read_text().splitlines())


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("smoke", STAGE_VERBS, ())


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The run, from nothing."""
    done = execute(tmp_path_factory.mktemp("smoke") / "run")
    assert done.code == 0, done.said
    return done


# --- It ends well


def test_the_recipe_is_the_tree_of_tiny_r1(recipe: Recipe) -> None:
    """The same stages of the same verbs, made from each other in the same way; the evaluations may differ."""

    def tree(of: Recipe) -> dict[str, Any]:
        stages = {name: spec for name, spec in of.stages.items() if spec.uses != "evaluate"}
        return {name: (spec.uses, sorted(of.parents(name))) for name, spec in stages.items()}

    assert tree(recipe) == tree(load_recipe("tiny-r1", STAGE_VERBS, ()))


def test_every_stage_is_finished(smoke: Done, recipe: Recipe) -> None:
    """Each has an artifact; the run ends with the table, answers side by side, and where the report is."""
    states = {name: stage.state for name, stage in smoke.files.stages.items()}
    assert states == dict.fromkeys(recipe.stages, "done")
    assert "Traceback" not in smoke.said
    assert re.search(r"^student-rl +\d\.\d{3} ± ", smoke.said, flags=re.MULTILINE)
    assert "nums " in smoke.said and smoke.said.rstrip().endswith("report.html")


def test_every_stage_had_something_to_do(smoke: Done) -> None:
    """A model's own right answers are in the traces, a solver's beside them in the cold start; RL got rewards
    that differ within a group, so that it had something to learn from."""
    sources = {
        name: {row["source"] for row in jsonl.iter_rows(folder)}
        for name, folder in smoke.folders("sample").items()
    }
    assert {"solver"} < sources["manual"] <= {"solver", "model", "rewritten"}
    assert (sources["traces"], sources["general"]) == ({"model"}, {"gold"})
    for name in smoke.folders("rl"):
        rows = smoke.files.metrics(name)
        assert any(row["groups_without_spread"] < 1 for row in rows), name
        assert all(row["grad_norm"] >= 0 for row in rows) and any(row["grad_norm"] > 0 for row in rows), name


def test_it_is_cheap(smoke: Done) -> None:
    """90 s on two free cores are 180 CPU seconds; counted in those, a busy machine matters less."""
    spent = [stage.manifest_or_fail().cost.cpu_seconds for stage in smoke.files.stages.values()]
    assert sum(spent) < 150
    assert all(
        event["peak_rss"] < 2**30 for event in smoke.files.events if event["event"] == "stage_finished"
    )


def test_no_process_dialled(smoke: Done, tmp_path: Path) -> None:
    """None of the run's processes looked a host up or connected to one; the guard would have seen it."""
    assert smoke.dialled == []
    note = tmp_path / "dialled.txt"
    environment = {**os.environ, "PYTHONPATH": str(GUARD), "DIALLED": str(note)}
    dial = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    done = subprocess.run([sys.executable, "-c", dial], env=environment, capture_output=True, text=True)
    assert "kept off the network" in done.stderr
    assert "192.0.2.1" in note.read_text()


# --- Held-out problems


def is_held_out(question: str) -> bool:
    """The rule of the split, written down a second time: the numbers of a problem are sorted first."""
    if asked := re.fullmatch(r"nums ([\d ]+) to (\d+)", question):
        numbers = sorted(map(int, asked[1].split()))
        if len(numbers) == 4:
            return True
        question = f"{' '.join(map(str, numbers))} > {asked[2]}"
    return int(hashlib.sha256(question.encode()).hexdigest(), 16) % 5 == 0


def questions(text: str) -> list[str]:
    """Every question that a text in the tiny world's chat template holds."""
    return re.findall(r"<\|user\|> (.+?) <\|assistant\|>", text)


def test_nothing_was_trained_on_held_out_problems(smoke: Done) -> None:
    """No document of the corpora, no row sampled (kept or rejected) and no prompt of any RL step asks one, in
    whatever order its numbers stand."""
    for name, folder in smoke.folders("corpus").items():
        asked = [question for row in jsonl.iter_rows(folder) for question in questions(row["text"])]
        assert asked and not any(map(is_held_out, asked)), name
    for name, folder in smoke.folders("sample").items():
        files = [*folder.glob("part-*.jsonl"), folder / "rejects.jsonl"]
        rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        assert rows and not any(is_held_out(row["question"]) for row in rows), name
        kept = [question for row in jsonl.iter_rows(folder) for question in questions(row["prompt"])]
        assert len(kept) == len(list(jsonl.iter_rows(folder))) and not any(map(is_held_out, kept)), name
    for name, folder in smoke.folders("rl").items():
        asked = [row["question"] for row in jsonl.iter_rows(folder / "prompts.jsonl")]
        config = smoke.files.recipe["stages"][name]
        assert len(asked) == config["steps"] * config["prompts_per_step"], "the whole training is looked at"
        assert not any(map(is_held_out, asked)), name


def test_scores_are_of_held_out_and_of_seen_problems(smoke: Done) -> None:
    """The sets hold what their names say; every model answered the same held-out problems."""
    asked: dict[str, dict[str, set[str]]] = {}
    for folder in smoke.folders("evaluate").values():
        for row in jsonl.iter_rows(folder):
            asked.setdefault(row["set"], {}).setdefault(row["model"], set()).add(row["question"])
    for name, by_model in asked.items():
        for model, there in by_model.items():
            assert {is_held_out(question) for question in there} == {name != "seen"}, (name, model)
    models = {
        name
        for name, stage in smoke.files.stages.items()
        if stage.verb in ("pretrain", "sft", "rl", "distill")
    }
    assert set(asked["held-out"]) == models == set(smoke.files.scores())
    assert len(set(map(frozenset, asked["held-out"].values()))) == 1


# --- What others open


def test_datasets_open(smoke: Done, tmp_path: Path) -> None:
    """`load_dataset` on the folder reads the rows that the manifest counts, and nothing beside them."""
    from datasets import load_dataset

    folders = smoke.folders("corpus", "sample", "evaluate")
    assert len(folders) >= 7
    for name, folder in folders.items():
        opened = load_dataset(str(folder), split="train", cache_dir=str(tmp_path))
        rows = list(jsonl.iter_rows(folder))
        assert opened.num_rows == len(rows) > 0, name
        assert set(opened.column_names) == set(rows[0]), name


def test_checkpoints_open(smoke: Done) -> None:
    """Every weight is there and none is left over; the tokenizer cuts at spaces; generation knows its end."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folders = smoke.folders("pretrain", "sft", "rl", "distill")
    assert len(folders) == 9
    for name, folder in folders.items():
        model, found = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
        assert not any(found.values()), (name, found)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert tokenizer.tokenize("nums 1 12 3 to 34") == ["nums", "1", "12", "3", "to", "34"], name
        assert model.generation_config.eos_token_id == tokenizer.eos_token_id, name


class _Links(HTMLParser):
    """Collects all that a page would fetch, and where it leads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.found += [
            value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")
        ]


def test_the_report_is_one_file(smoke: Done) -> None:
    """It holds the models, curves and the tree; it fetches nothing and runs nothing."""
    page = (smoke.run / "report.html").read_text(encoding="utf-8")
    links = _Links()
    links.feed(page)
    assert [link for link in links.found if not link.startswith(("#", "data:"))] == []
    assert {"svg", "table", "style"} <= links.tags and not {"script", "link", "iframe", "img"} & links.tags
    assert not re.search(r"@import|url\((?!#|[\"']?data:)", page)
    assert all(f"{model}<" in page for model in smoke.files.scores())


# --- Again


@dataclass(frozen=True)
class Again:
    """A second look at a copied run: what was told about each stage."""

    done: Done

    def told(self, event: str) -> dict[str, list[str]]:
        """The reasons of this event by stage, of the last invocation."""
        events = self.done.files.events
        begin = max(i for i, each in enumerate(events) if each["event"] == "run_started")
        return {each["stage"]: each["reasons"] for each in events[begin:] if each["event"] == event}


@pytest.fixture
def copied(smoke: Done, tmp_path: Path) -> Path:
    """The finished run at another place."""
    return Path(shutil.copytree(smoke.run, tmp_path / "run"))


def test_a_second_run_does_nothing(copied: Path, recipe: Recipe) -> None:
    """It says of each stage that it is up to date and by which artifact, and leaves those as they are; a run
    that was moved is still up to date."""
    before = {path: path.stat().st_mtime_ns for path in (copied / "artifacts").rglob("v*/*")}
    again = Again(execute(copied))
    assert again.done.code == 0
    assert set(again.told("stage_reused")) == set(recipe.stages) and not again.told("stage_started")
    for name in recipe.stages:
        assert re.search(rf"^\S+ {name} +up to date: \S+/{name}/v001-", again.done.said, flags=re.MULTILINE)
    assert before == {path: path.stat().st_mtime_ns for path in (copied / "artifacts").rglob("v*/*")}


def test_one_changed_value_runs_one_stage_and_what_hangs_on_it(copied: Path, recipe: Recipe) -> None:
    """After a change of r1's learning rate: r1, and the evaluations of it, each with its reason."""
    again = Again(execute(copied, "--set", "stages.r1.learning_rate=1e-4"))
    assert again.done.code == 0, again.done.said
    evaluations = [name for name, spec in recipe.stages.items() if "r1" in recipe.parents(name)]
    assert again.told("stage_started") == {
        "r1": ["config learning_rate: 0.0002 -> 0.0001"],
        **{name: ["input 'r1' is now v2"] for name in evaluations},
    }
    assert set(again.told("stage_reused")) == set(recipe.stages) - {"r1", *evaluations}
    assert len(evaluations) >= 2


# --- The same seed


def test_killed_and_run_again_it_ends_the_same(
    smoke: Done, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL in the middle of pretraining, of RL and of sampling, then on to the end: the same scores, and
    the same bytes in every file of every artifact.

    The stages that no kill met show that one seed gives one result without any kill, too.
    """
    broken = tmp_path / "broken"
    command = [*COMMAND, "--out", str(broken)]
    kills: dict[str, dict[str, Any]] = {}
    for verb in VERBS:
        spared = {"general", *(kill["stage"] for kill in kills.values())}  # `general` is a single batch
        kill = killed_in(command, broken, verb, spared)
        assert kill is not None and 0 < kill["step"] < kill["steps"], f"{verb}: {kill}"
        kills[verb] = kill
    assert execute(broken).code == 0
    events = [each for each in RunFiles.open(broken).events if each["event"] == "stage_started"]
    for kill in kills.values():
        assert any(each["stage"] == kill["stage"] and each["resumed"] for each in events), kill
    one, other = outcome(smoke.run), outcome(broken)
    assert one["scores"] == other["scores"]
    assert {stage: paths for stage, paths in differing(one, other).items() if paths} == {}
