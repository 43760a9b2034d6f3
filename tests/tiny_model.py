"""A model small enough to train in a test, and a workplace that remembers what it was told."""

from pathlib import Path
from typing import Any

from r1pipe.artifact import Artifact
from r1pipe.stage import Inputs, Work


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
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from r1pipe.world.tokenizer import build_tokenizer

    tokenizer = build_tokenizer(64)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=1,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
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


def workplace(folder: Path, seed: int = 0) -> tuple[Work, Ear]:
    """A stage's workplace; the same folder goes on where it was."""
    ear = Ear()
    folder.mkdir(parents=True, exist_ok=True)
    return Work(folder, folder.name, seed, ear, folder.parent / f"{folder.name}.jsonl"), ear


def inputs(**paths: Path) -> Inputs:
    """One artifact for each role: a folder is a checkpoint, a file a dataset."""
    return Inputs(
        {
            role: [(path.stem, Artifact(path, "checkpoint" if path.is_dir() else "dataset"))]
            for role, path in paths.items()
        }
    )
