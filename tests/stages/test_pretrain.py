"""The pretrain stage: from a corpus to a checkpoint that stock libraries open."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from r1pipe.artifact import Artifact, open_checkpoint
from r1pipe.errors import Interrupted, UsageError
from r1pipe.stage import Findings, Inputs, Outcome
from r1pipe.world.corpus import Habits, Mix, documents
from r1pipe.world.tokenizer import build_tokenizer
from stages import pretrain
from tests.tiny_model import Ear, workplace

SMALL = {
    "hidden_size": 32,
    "layers": 2,
    "heads": 1,
    "intermediate_size": 64,
    "batch_size": 4,
    "warmup": 2,
    "learning_rate": "1e-2",
    "save_every": 3,
    "log_every": 1,
}


def config(**changes: Any) -> pretrain.Config:
    return pretrain.Config.model_validate({**SMALL, "data": ["corpus"], **changes})


def write(path: Path, rows: Sequence[Any]) -> Path:
    """A file of rows; a string is written as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write(tmp_path / "corpus.jsonl", list(documents(40, 0, Mix(), Habits())))


def run(folder: Path, *data: Path, stop_after: int | None = None, **changes: Any) -> tuple[Outcome, Ear]:
    """Pretrain in `folder`, going on with what is there; `seed` and the config's fields may be changed."""
    work, ear = workplace(folder, changes.pop("seed", 0), stop_after=stop_after)
    given = Inputs({"data": [(path.stem, Artifact(path, "dataset")) for path in data]})
    return pretrain.run(config(data=[path.stem for path in data], **changes), given, work), ear


def weights(outcome: Outcome) -> bytes:
    return (outcome.path / "model.safetensors").read_bytes()


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_stock_libraries_open_it(corpus: Path, tmp_path: Path, architecture: str) -> None:
    """`from_pretrained` finds the shape that was asked for and the EOS wherever one is looked for;
    `AutoTokenizer` reads a document and a prompt as `build_tokenizer` does."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    outcome, _ = run(tmp_path / "base", corpus, architecture=architecture, context=128)
    assert outcome.kind == "checkpoint"
    model = AutoModelForCausalLM.from_pretrained(outcome.path)
    tokenizer = AutoTokenizer.from_pretrained(outcome.path)
    ours = build_tokenizer(128)
    messages = [{"role": "user", "content": "nums 1 12 3 to 36"}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert prompt == "<|user|> nums 1 12 3 to 36 <|assistant|> <think>"
    texts = [
        prompt,
        "<think>1 * 12 = 12</think>",
        *(row["text"] for row in documents(20, 5, Mix(), Habits())),
    ]
    assert tokenizer(texts)["input_ids"] == ours(texts)["input_ids"]
    assert tokenizer.model_max_length == model.config.max_position_embeddings == 128
    assert tokenizer.padding_side == "left"
    eos = {model.generation_config.eos_token_id, model.config.eos_token_id, tokenizer.eos_token_id}
    pad = {model.generation_config.pad_token_id, model.config.pad_token_id, tokenizer.pad_token_id}
    assert (eos, pad) == ({1}, {0})
    assert model.config.bos_token_id is None
    assert (model.config.model_type, model.config.head_dim, len(model.model.layers)) == (architecture, 32, 2)
    assert outcome.metrics["parameters"] == sum(p.numel() for p in model.parameters())
    assert open_checkpoint(outcome.path).kind == "checkpoint"
    assert not (outcome.path / "optimizer.pt").exists()


def test_it_learns(corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Ten steps over 40 documents, logged each; the loss falls; tokens are counted once; the libraries add
    nothing to what the stage says."""
    outcome, ear = run(tmp_path / "base", corpus)
    assert [row["step"] for row in ear.rows] == list(range(1, 11))
    first, last = ear.rows[0]["loss"], ear.rows[-1]["loss"]
    assert last < first - 1
    assert outcome.metrics["loss"] == last
    assert (outcome.metrics["documents"], outcome.metrics["set_aside"]) == (40, 0)
    assert capfd.readouterr() == ("", "")
    read = [json.loads(line)["text"] for line in corpus.read_text().splitlines()]
    assert outcome.tokens == sum(len(text.split()) for text in read)


def test_interrupted_is_uninterrupted(corpus: Path, tmp_path: Path) -> None:
    """Stopped after the fourth step and run again: the published weights are equal byte for byte, and so are
    the metrics."""
    whole, ear = run(tmp_path / "whole", corpus)
    with pytest.raises(Interrupted, match="stopped after step 4 of 10"):
        run(tmp_path / "parts", corpus, stop_after=4)
    resumed, second = run(tmp_path / "parts", corpus)
    assert [row["step"] for row in second.rows] == [5, 6, 7, 8, 9, 10]
    assert weights(resumed) == weights(whole)
    assert resumed.metrics == whole.metrics
    assert [row["loss"] for row in ear.rows][4:] == [row["loss"] for row in second.rows]


def test_the_seed_makes_the_model(corpus: Path, tmp_path: Path) -> None:
    """The same bytes again, other weights under another seed."""
    first, again = run(tmp_path / "first", corpus)[0], run(tmp_path / "again", corpus)[0]
    assert weights(first) == weights(again)
    assert weights(run(tmp_path / "other", corpus, seed=1)[0]) != weights(first)


def test_what_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    """A broken line, a row without text, an unknown word, one token too many and one token alone: five of
    seven rows, each kept beside the model with its reason; 64 tokens just fit into the context of 64."""
    fits = " ".join(["7"] * 63) + " <eos>"
    path = write(
        tmp_path / "rows.jsonl",
        [
            {"id": "good", "text": fits},
            '{"text": ',
            {"id": "textless", "txt": "7"},
            {"id": "tiger", "text": "copy tiger <eos>"},
            {"id": "long", "text": f"7 {fits}"},
            {"id": "one", "text": "<eos>"},
            {"id": "short", "text": "7 <eos>"},
        ],
    )
    outcome, ear = run(tmp_path / "base", path, context=64)
    assert (outcome.metrics["documents"], outcome.metrics["set_aside"]) == (2, 5)
    assert outcome.tokens == 66
    assert ear.said == "5 documents were set aside; set-aside.jsonl gives the reason for each."
    rows = [json.loads(line) for line in (outcome.path / "set-aside.jsonl").read_text().splitlines()]
    assert [(row.get("line"), row.get("id"), row["reason"].partition(" (")[0]) for row in rows] == [
        (2, None, "not JSON"),
        (3, None, "no 'text'; the row has: id, txt"),
        (None, "tiger", "a word that is not in the vocabulary"),
        (None, "long", "65 tokens, of 2 to 64 that can be trained on"),
        (None, "one", "1 tokens, of 2 to 64 that can be trained on"),
    ]


def test_the_first_dataset_is_learned_first(tmp_path: Path) -> None:
    """A dataset of one word, then one of another: at the seam the loss leaps, as what has been learned by
    then is to say the first."""
    many = 4 * 32  # whole windows: at the seam nothing mixes
    first = write(tmp_path / "first.jsonl", [{"text": "red red red red <eos>"}] * many)
    second = write(tmp_path / "second.jsonl", [{"text": "owl owl owl owl <eos>"}] * many)
    _, ear = run(tmp_path / "base", first, second)
    losses = [row["loss"] for row in ear.rows]
    assert len(losses) == 64
    assert losses[31] + 2 < losses[32]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "it is empty"),
        ([{"question": "q"}], "no 'text'; the row has: question"),
        ([{"text": "Once upon a time"}], "No document of rows can be trained on: a word that is not in the"),
        ([{"text": "7 " * 300}], "No document of rows can be trained on: 300 tokens, of 2 to 256"),
    ],
    ids=["empty", "other columns", "other words", "too long"],
)
def test_nothing_to_train_on(rows: list[Any], message: str, tmp_path: Path) -> None:
    """One message with the reason; nothing is published."""
    with pytest.raises(UsageError, match=message):
        run(tmp_path / "base", write(tmp_path / "rows.jsonl", rows))
    assert not (tmp_path / "base" / "published").exists()


def test_one_dataset_of_two_is_enough(corpus: Path, tmp_path: Path) -> None:
    """The other's documents are all set aside, which is said and counted."""
    other = write(tmp_path / "other.jsonl", [{"text": "Once upon a time"}])
    outcome, _ = run(tmp_path / "base", other, corpus)
    assert (outcome.metrics["documents"], outcome.metrics["set_aside"]) == (40, 1)


def test_the_learning_rate_rises_stays_and_falls(corpus: Path, tmp_path: Path) -> None:
    """Two steps of warm-up and four of decay out of ten; with neither it is the same throughout."""
    rates = [row["learning_rate"] for row in run(tmp_path / "base", corpus)[1].rows]
    assert rates[2:6] == [0.01] * 4
    assert rates[0] < rates[1] < 0.01
    assert rates[6:] == sorted(rates[6:], reverse=True)
    assert 0 <= rates[-1] < rates[6] <= 0.01
    flat = run(tmp_path / "flat", corpus, warmup=0, decay=0)[1].rows
    assert {row["learning_rate"] for row in flat} == {0.01}


def test_trainer_options_are_checked_and_passed_on(corpus: Path, tmp_path: Path) -> None:
    """A typo and a field of the stage's own are named; one that is right reaches the trainer."""
    assert pretrain.check(config()) == Findings()
    assert pretrain.check(config(trainer={"max_grad_norm": 0.5})) == Findings()
    assert pretrain.check(config(trainer={"max_grad_nrm": 1, "learning_rate": 1})).wrong == [
        "trainer.max_grad_nrm: TrainingArguments has no such option; did you mean 'max_grad_norm'?",
        "trainer.learning_rate: set `learning_rate` on the stage instead",
    ]
    plain = run(tmp_path / "plain", corpus)[0]
    assert weights(run(tmp_path / "clipped", corpus, trainer={"max_grad_norm": 0.01})[0]) != weights(plain)


def test_a_name_may_stand_for_a_list() -> None:
    """`data: corpus` is `data: [corpus]`."""
    assert config(data="corpus").data == ["corpus"]
