"""Checkpoints laid out as Qwen's and Meta's releases are: sft, rl and sample run on them as they come.

The weights are random and the vocabulary is small, all else is as released: bfloat16, a byte-level BPE with
the family's own splitting into words, more rows in the embedding than there are tokens. Qwen2 pads with its
EOS and has no BOS; Llama 3 begins every text with a BOS and has no padding token. The rows are GSM8K's where
the shared data is there, else ones of the same form.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from r1pipe import jsonl, pipeline
from r1pipe.artifact import Artifact, open_checkpoint
from r1pipe.pipeline import run_alone
from r1pipe.prompting import render
from r1pipe.recipe import parse_recipe
from r1pipe.tasks import task_spec
from r1pipe.train.text import open_tokenizer
from r1pipe.verify.math import gold_answer
from stages import VERBS
from tests.real_models import write_llama, write_qwen2

ROOT = Path(__file__).resolve().parent.parent
GSM8K = ROOT.parent / "shared" / "data" / "gsm8k"
OWN = [
    (
        f"Ann has {a} pears and buys {b}. How many has she?",
        f"She has {a} + {b} = {a + b} pears.\n#### {a + b}",
    )
    for a, b in [(3, 4), (5, 2), (8, 1), (2, 2), (6, 7), (9, 5)]
]


def gsm8k_rows() -> list[dict[str, str]]:
    """Six rows with short questions and solutions."""
    if not GSM8K.is_dir():
        return [{"question": question, "answer": answer} for question, answer in OWN]
    rows = list(jsonl.iter_rows(GSM8K / "train.jsonl"))
    return sorted(rows, key=lambda row: len(row["question"] + row["answer"]))[:6]


def completion_of(row: dict[str, str]) -> str:
    """The worked solution as thinking, then the answer."""
    thinking = row["answer"].partition("####")[0].strip()
    return f" {thinking} </think> <answer> {gold_answer(row['answer'])} </answer>"


WRITERS = {"qwen2": write_qwen2, "llama": write_llama}


@dataclass
class Chain:
    """What the three stages made of a checkpoint."""

    rows: list[dict[str, str]]
    base: Path
    sft: Artifact
    rl: Artifact
    traces: Artifact


@pytest.fixture(scope="module", params=list(WRITERS))
def chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """The stages as `r1pipe sft`, `r1pipe rl` and `r1pipe sample` run them, each in a process of its own."""
    folder = tmp_path_factory.mktemp(request.param)
    rows = gsm8k_rows()
    prompts = [render("r1-zero", row["question"]) for row in rows]
    base = folder / "base"
    base.mkdir()
    WRITERS[request.param](base, [p + completion_of(row) for p, row in zip(prompts, rows, strict=True)])
    pairs = [{"prompt": p, "completion": completion_of(r)} for p, r in zip(prompts, rows, strict=True)]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    too_long = {"question": "How many are " + "one and " * 600 + "one?", "answer": "#### 601"}
    asked = [*map(json.dumps, [*rows, too_long]), '{"question": "broken']
    (folder / "asked.jsonl").write_text("\n".join(asked))
    task = {"name": "jsonl", "path": str(folder / "asked.jsonl")}

    def run(verb: str, out: str, **fields: Any) -> Artifact:
        return run_alone(verb, VERBS[verb].model_validate(fields), folder / out)

    learning = {"epochs": 60, "batch_size": 6, "learning_rate": 5e-3, "save_every": 1000, "warmup": 0.1}
    sft = run("sft", "sft", model=str(base), data=str(folder / "pairs.jsonl"), **learning)
    steps = {"steps": 2, "prompts_per_step": 4, "group_size": 2, "micro_batch": 4, "learning_rate": 1e-4}
    task_by_number = {**task, "judge": "number"}
    rl = run("rl", "rl", model=str(sft.path), task=task_by_number, max_new_tokens=96, **steps)
    task_by_math = {**task, "judge": "math"}
    traces = run("sample", "traces", model=str(rl.path), task=task_by_math, samples=2, max_new_tokens=96)
    return Chain(rows, base, sft, rl, traces)


@pytest.mark.slow
def test_what_is_published_opens_as_it_is(chain: Chain) -> None:
    """Both checkpoints: the shape and the splitting of the base, an EOS that every reader finds, weights that
    have moved."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    texts = [render("r1-zero", row["question"]) + completion_of(row) for row in chain.rows]
    expected = AutoTokenizer.from_pretrained(chain.base)
    before = AutoModelForCausalLM.from_pretrained(chain.base, dtype=torch.float32).state_dict()
    for artifact in (chain.sft, chain.rl):
        assert open_checkpoint(artifact.path).manifest == artifact.manifest
        tokenizer = AutoTokenizer.from_pretrained(artifact.path)
        assert tokenizer(texts)["input_ids"] == expected(texts)["input_ids"]
        assert tokenizer.eos_token == expected.eos_token
        assert tokenizer.pad_token_id is not None
        model = AutoModelForCausalLM.from_pretrained(artifact.path)
        assert model.generation_config.eos_token_id == model.config.eos_token_id == expected.eos_token_id
        after = model.state_dict()
        assert {name: value.shape for name, value in after.items()} == {
            name: value.shape for name, value in before.items()
        }
        assert not any(torch.equal(after[name], before[name]) for name in before if "proj.weight" in name)
        before = after


@pytest.mark.slow
def test_it_has_learned_to_answer_and_to_stop(chain: Chain) -> None:
    """Greedy decoding by transformers gives the solutions back, most of them word for word, and ends each
    with the EOS, which is Qwen2's padding too."""
    from transformers import AutoModelForCausalLM

    tokenizer = open_tokenizer(chain.base)
    model = AutoModelForCausalLM.from_pretrained(chain.sft.path)
    said, ended = 0, 0
    for row in chain.rows:
        prompt = tokenizer(render("r1-zero", row["question"]), return_tensors="pt")
        (ids,) = model.generate(**prompt, do_sample=False, max_new_tokens=96)
        answer = ids[prompt["input_ids"].shape[1] :].tolist()
        ended += answer[-1] == tokenizer.eos_token_id
        said += tokenizer.decode(answer[:-1]) == completion_of(row)
    assert ended >= 5
    assert said >= 4


@pytest.mark.slow
def test_the_counts_add_up(chain: Chain, tmp_path: Path) -> None:
    """Six rows trained on; of eight asked one is too long and one broken; twelve completions are kept or
    rejected, and the kept ones pass."""
    from datasets import load_dataset

    sft, rl, sample = (each.manifest.metrics for each in (chain.sft, chain.rl, chain.traces) if each.manifest)
    assert (sft["rows"], sft["set_aside"]) == (6, 0)
    assert rl["step"] == 2
    for artifact, metrics in ((chain.rl, rl), (chain.traces, sample)):
        long, broken = jsonl.iter_rows(artifact.path / "set-aside.jsonl")
        assert "room for 416" in long["reason"]
        assert broken["row"] == '{"question": "broken'
        assert metrics["set_aside"] == 2
    assert (sample["prompts"], sample["generated"]) == (6, 12)
    assert sample["kept"] + sum(sample["rejected"].values()) == 12
    kept = load_dataset(str(chain.traces.path), cache_dir=str(tmp_path))["train"]
    assert kept.num_rows == sample["kept"] > 0
    assert set(kept["verdict"]) == {"pass"}
    rejected = (chain.traces.path / "rejects.jsonl").read_text().splitlines()
    assert len(rejected) == 12 - sample["kept"]


@pytest.mark.skipif(not GSM8K.is_dir(), reason=f"GSM8K is not in {GSM8K}; its rows were not read")
@pytest.mark.parametrize(("name", "count"), [("train", 7473), ("test", 1319)])
def test_every_row_of_gsm8k_can_be_asked(name: str, count: int) -> None:
    """Every question has a number for an answer; none is set aside."""
    task = task_spec({"name": "jsonl", "path": str(GSM8K / f"{name}.jsonl"), "judge": "number"}).make()
    assert (len(task.pool), len(task.bad)) == (count, 0)


PUZZLE = {
    "quiz": 'You meet Zoey and Oliver. Zoey said, "Oliver lies". Oliver said, "We are both knaves".',
    "names": ["Zoey", "Oliver"],
    "solution": [True, False],
}
RECIPE = """
name: puzzles
stages:
  policy:
    uses: rl
    model: ./base
    task: {task}
    steps: 2
    prompts_per_step: 2
    group_size: 2
    micro_batch: 4
    max_new_tokens: 16
  traces:
    uses: sample
    model: policy
    task: {task}
    prompts: 3
    samples: 2
    max_new_tokens: 16
    keep: {{untruncated: false, correct: false, well_formed: false, single_language: 0}}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "name", "gold"),
    [
        ("{name: gym:chain_sum, size: 40}", "gym:chain_sum", None),
        ("{name: logic, path: puzzles.jsonl}", "logic", {"Zoey": "knight", "Oliver": "knave"}),
    ],
)
def test_a_recipe_on_puzzles(
    task: str, name: str, gold: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RL and sampling on reasoning-gym's sums, and on knights and knaves, from a random model on."""
    if name.startswith("gym:"):
        pytest.importorskip("reasoning_gym", reason="the extra 'gym' is not installed")
    monkeypatch.chdir(tmp_path)
    Path("base").mkdir()
    write_qwen2(Path("base"), [render("r1-zero", PUZZLE["quiz"])])
    Path("puzzles.jsonl").write_text("\n".join(json.dumps({**PUZZLE, "id": i}) for i in range(3)))
    recipe = parse_recipe(RECIPE.format(task=task), "puzzles.yaml", VERBS)
    made = pipeline.run(recipe, Path("run"), jobs=1)
    policy, traces = made["policy"].manifest, made["traces"].manifest
    assert policy is not None and policy.metrics["step"] == 2
    assert traces is not None and traces.metrics["generated"] == 6
    rows = [
        row
        for file in ("part-00000", "rejects")
        for row in jsonl.iter_rows(made["traces"].path / f"{file}.jsonl")
    ]
    assert len(rows) == 6 and {row["task"] for row in rows} == {name}
    assert {row["verdict"] for row in rows} <= {"pass", "fail"}
    assert gold is None or all(row["gold"] == gold for row in rows)
