"""`checkpoint`: a model from outside becomes an artifact that opens by itself."""

import json
from pathlib import Path

import pytest

from r1pipe import hub, pipeline
from r1pipe.artifact import Artifact, open_checkpoint
from r1pipe.errors import UsageError
from r1pipe.stage import Inputs, Work
from stages import VERBS, checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"
KEPT = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
]


class Said:
    """A sink that keeps what the stage says."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def event(self, kind: str, stage: str, **fields: object) -> None:
        if kind == "say":
            self.texts.append(str(fields["text"]))


def save_model(folder: Path) -> Path:
    """A folder that looks like a checkpoint, with what trainers and hub repositories leave beside one."""
    folder.mkdir(parents=True)
    for name in ("generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text("{}")
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    for name in ("optimizer.pt", "trainer_state.json", "pytorch_model.bin", "modeling.py", "README.md"):
        (folder / name).write_text("left out")
    return folder


def test_only_what_from_pretrained_reads_is_copied(tmp_path: Path):
    source = save_model(tmp_path / "model")
    config = checkpoint.Config(model=str(source))
    made = pipeline.run_alone("checkpoint", config, tmp_path / "out", preload=())
    assert sorted(path.name for path in made.path.iterdir()) == sorted([*KEPT, "manifest.json"])
    assert open_checkpoint(made.path).fingerprint == made.fingerprint
    before = made.path.joinpath("config.json").read_bytes()
    (source / "config.json").write_text("changed")
    assert made.path.joinpath("config.json").read_bytes() == before


def test_a_half_written_model_is_refused_before_anything_runs(tmp_path: Path):
    source = save_model(tmp_path / "model")
    with open(source / "model.safetensors", "r+b") as file:
        file.truncate(20)
    (source / "tokenizer.json").unlink()
    with pytest.raises(UsageError, match=r"model.safetensors.*tokenizer"):
        pipeline.run_alone("checkpoint", checkpoint.Config(model=str(source)), tmp_path / "out", preload=())
    assert not (tmp_path / "out").exists()


def test_a_model_of_the_hub_is_named_with_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The hub's cache holds links to blobs that never change; the artifact shares bytes, not links."""
    blobs = save_model(tmp_path / "blobs")
    snapshot = tmp_path / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(blob)
    sink, dir_ = Said(), tmp_path / "work"
    dir_.mkdir()
    work = Work(dir_, "base", 0, sink, tmp_path / "base.jsonl")
    inputs = Inputs({"model": [("org/name", Artifact(snapshot, "checkpoint"))]})
    for config in (checkpoint.Config(model="org/name"), checkpoint.Config(model=f"org/name@{COMMIT}")):
        outcome = checkpoint.run(config, inputs, work)
        assert outcome.metrics["revision"] == COMMIT
    assert sink.texts == [
        f"org/name is at commit {COMMIT}. To have the same one always: model: org/name@{COMMIT}"
    ]
    weights = outcome.path / "model.safetensors"
    assert not weights.is_symlink()
    assert weights.samefile(blobs / "model.safetensors")


def test_an_id_of_the_hub_is_told_from_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert all(
        map(hub.is_hub_id, ["Qwen/Qwen2.5-0.5B", "org/name@main", f"org/name@{COMMIT}", "org/a.b@refs/pr/1"])
    )
    assert not any(
        map(hub.is_hub_id, ["./org/name", "/org/name", "name", "a/b/c", "~/model", "../model", "a/b@"])
    )
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert not hub.is_hub_id("org/name")
    assert not hub.is_hub_id("org/nmae")  # a misspelt path, in a folder that is there
    assert hub.is_hub_id("org/nmae@main")
    fingerprints = [hub.hub_fingerprint(value) for value in ("org/x", "org/x@main", f"org/x@{COMMIT}")]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_every_verb_has_a_module_of_its_own():
    assert VERBS.modules["checkpoint"] == "stages.checkpoint"
    assert VERBS["checkpoint"].makes == "checkpoint"
