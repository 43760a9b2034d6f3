"""The preference model: a random classifier made here, scored as transformers would score it row by row."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from r1pipe.artifact import open_checkpoint
from r1pipe.errors import EnvironmentUnfit, UsageError
from r1pipe.train.preference import PreferenceModel
from r1pipe.train.text import open_tokenizer
from tests.tiny_model import write_classifier, write_tiny

PAIRS = [
    ("greet ada wei", "hello ada wei"),
    ("copy red", "red"),
    ("reverse red blue green", "green blue red so yes"),
    ("nums 1 2 3 to 6", "so 1 + 2 + 3 = 6"),
    ("copy red", "blue"),
]


def cpu() -> torch.device:
    return torch.device("cpu")


def alone(folder: Path, texts: list[str]) -> list[float]:
    """The logit of each text, one at a time and without padding, by transformers' own classes."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = open_tokenizer(folder)
    with torch.no_grad():
        rows = [torch.tensor([tokenizer(text)["input_ids"]]) for text in texts]
        return [model(row).logits.item() for row in rows]


@pytest.mark.parametrize("pad", [True, False], ids=["padded", "no pad token"])
def test_scores_are_those_of_each_pair_alone(tmp_path: Path, pad: bool) -> None:
    """Batches of two, sorted by length and padded, give what each conversation alone does, in the order
    asked; without a token for padding nothing is padded."""
    folder = write_classifier(tmp_path / "judge", pad=pad)
    model = PreferenceModel(folder, batch=2, max_tokens=64, device=cpu)
    texts = [f"<|user|> {question} <|assistant|> {answer} <eos>" for question, answer in PAIRS]
    wanted = alone(folder, texts)
    assert len({round(logit, 3) for logit in wanted}) == 5, "scores that are alike prove nothing"
    assert model(PAIRS) == pytest.approx(wanted, abs=1e-5)
    assert model([]) == []


def test_without_a_chat_template(tmp_path: Path) -> None:
    """Question and answer are put one below the other."""
    folder = write_classifier(tmp_path / "judge", chat=False)
    model = PreferenceModel(folder, batch=8, max_tokens=64, device=cpu)
    wanted = alone(folder, [f"{question}\n\n{answer}" for question, answer in PAIRS])
    assert model(PAIRS) == pytest.approx(wanted, abs=1e-5)


def test_what_is_too_long_is_cut(tmp_path: Path) -> None:
    """A pair longer than the limit is read up to it; the limit is never above what the model can read."""
    folder = write_classifier(tmp_path / "judge", chat=False)
    model = PreferenceModel(folder, batch=8, max_tokens=4, device=cpu)
    (cut,) = model([("copy red blue", "red blue")])
    assert [cut] == pytest.approx(alone(folder, ["copy red blue red"]), abs=1e-5)
    whole = PreferenceModel(folder, batch=8, max_tokens=9999, device=cpu)
    assert len(whole([("copy", "red " * 100)])) == 1


def test_a_classifier_passes_as_a_checkpoint(tmp_path: Path) -> None:
    """A recipe names it as any other model, so the check of checkpoints lets it pass."""
    assert open_checkpoint(write_classifier(tmp_path / "judge")).kind == "checkpoint"


def test_two_labels_are_no_preference(tmp_path: Path) -> None:
    """A classifier of two labels says which, not how good."""
    folder = write_classifier(tmp_path / "judge", labels=2)
    with pytest.raises(UsageError, match="has 2 labels, and a preference model has one"):
        PreferenceModel(folder, batch=2, max_tokens=64, device=cpu)


def test_a_language_model_is_no_classifier(tmp_path: Path) -> None:
    """A policy given by mistake has two labels by default; with one it would score at random."""
    folder = write_tiny(tmp_path / "policy")
    with pytest.raises(UsageError, match="has 2 labels"):
        PreferenceModel(folder, batch=2, max_tokens=64, device=cpu)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "id2label": {"0": "LABEL_0"}}))
    with pytest.raises(UsageError, match=r"no weights for score\.weight, so its scores would be random"):
        PreferenceModel(folder, batch=2, max_tokens=64, device=cpu)


def test_an_architecture_without_a_classifier(tmp_path: Path) -> None:
    """What transformers cannot open as a classifier is said in one sentence."""
    folder = write_classifier(tmp_path / "judge")
    (folder / "config.json").write_text(json.dumps({"model_type": "vit", "id2label": {"0": "good"}}))
    with pytest.raises(UsageError, match="cannot be opened as a sequence classifier"):
        PreferenceModel(folder, batch=2, max_tokens=64, device=cpu)


def test_a_full_memory_has_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no mistake of the reward's: what needs less memory is said."""

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    model = PreferenceModel(write_classifier(tmp_path / "judge"), batch=8, max_tokens=64, device=cpu)
    monkeypatch.setattr(model.model, "forward", full)
    with pytest.raises(EnvironmentUnfit, match=r"memory is full: .* Set `preference_batch` or"):
        model(PAIRS)
