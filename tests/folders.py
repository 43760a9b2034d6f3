"""Small folders for tests: checkpoints whose files are whole, made without torch."""

import json
import struct
from pathlib import Path

from r1pipe.artifact import Cost, Kind, Manifest, Parent


def safetensors(path: Path, *names: str) -> Path:
    """Write a whole safetensors file of float32 tensors of shape [2]."""
    header = {
        name: {"dtype": "F32", "shape": [2], "data_offsets": [8 * i, 8 * i + 8]}
        for i, name in enumerate(names)
    }
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(8 * len(names)))
    return path


def checkpoint(folder: Path, *, shards: int = 0) -> Path:
    """Write what a Hugging Face checkpoint consists of; `shards` 0 makes a single weight file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "qwen2"}')
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    if not shards:
        safetensors(folder / "model.safetensors", "a", "b")
        return folder
    files = {f"t{i}": f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)}
    for tensor, name in files.items():
        safetensors(folder / name, tensor)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    return folder


def manifest(
    stage: str, kind: Kind = "checkpoint", fingerprint: str = "1f3a9c2e", parents: tuple[Parent, ...] = ()
) -> Manifest:
    """A manifest as a pipeline hands it in; the fingerprint is filled up to 64 digits."""
    return Manifest(
        kind=kind,
        stage=stage,
        verb="sft",
        stage_version=1,
        fingerprint=fingerprint.ljust(64, "0"),
        parents=parents,
        config={"lr": 1e-4},
        fingerprint_config={"lr": 1e-4},
        seed=0,
        cost=Cost(seconds=1.5, cpu_seconds=1.0),
    )
