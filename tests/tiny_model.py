"""Models small enough to train in a test, and a workplace that remembers what it was told."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1pipe.artifact import Artifact
from r1pipe.stage import Inputs, Work

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Ear:
    """A sink that keeps every event."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def event(self, kind: str, stage: str, **fields: Any) -> None:
        self.events.append((kind, fields))

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [fields["row"] for kind, fields in self.events if kind == "log"]

    @property
    def said(self) -> str:
        return " ".join(fields["text"] for kind, fields in self.events if kind == "say")


def write_tiny(folder: Path) -> Path:
    """Write a random Llama with 64 tokens of context and the tiny world's tokenizer; training it takes ms."""
    from r1pipe.world.tokenizer import build_tokenizer

    tokenizer = build_tokenizer(64)
    model = random_model(
        "llama",
        seed=0,
        vocab_size=len(tokenizer),
        num_attention_heads=1,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_classifier(folder: Path, *, labels: int = 1, pad: bool = True, chat: bool = True) -> Path:
    """A random Llama that classifies, with the tiny world's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    from r1pipe.world.tokenizer import build_tokenizer

    tokenizer = build_tokenizer(64)
    if not chat:
        tokenizer.chat_template = None
    if not pad:
        tokenizer.pad_token = None
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        num_labels=labels,
        pad_token_id=tokenizer.pad_token_id if pad else None,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.5,
    )
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def workplace(folder: Path, seed: int = 0, *, stop_after: int | None = None) -> tuple[Work, Ear]:
    """A stage's workplace; the same folder goes on where it was.

    Whoever works there is asked to stop once it has reported `stop_after` steps.
    """
    ear = Ear()
    folder.mkdir(parents=True, exist_ok=True)
    work = Work(folder, folder.name, seed, ear, folder.parent / f"{folder.name}.jsonl")
    if stop_after is not None:
        work.progress = lambda done, *_: work.stop.set() if done >= stop_after else None  # type: ignore[method-assign]
    return work, ear


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """The largest difference between two models' weights, by name."""
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


def timeless(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of metrics without what depends on the clock."""
    clocks = ("seconds", "tokens_per_second", "eta")
    return [{k: v for k, v in row.items() if not k.startswith(clocks)} for row in rows]


def random_model(family: str, *, seed: int = 1, **shape: Any) -> "PreTrainedModel":
    """A random model of a family of transformers'; `shape` are fields of its config."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    small = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "bos_token_id": None,
    }
    config = AutoConfig.for_model(family, **small | shape)
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval()
    return model


def inputs(**paths: Path) -> Inputs:
    """One artifact for each role: a folder is a checkpoint, a file a dataset."""
    return Inputs(
        {
            role: [(path.stem, Artifact(path, "checkpoint" if path.is_dir() else "dataset"))]
            for role, path in paths.items()
        }
    )
