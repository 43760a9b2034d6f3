"""Small folders for tests: checkpoints whose files are whole, made without torch."""

import json
import struct
from pathlib import Path

from r1pipe import jsonl, worker
from r1pipe.artifact import Cost, Kind, Manifest, Parent
from r1pipe.plan import Planner
from r1pipe.recipe import Recipe
from r1pipe.run import RunFolder
from r1pipe.stage import Outcome
from r1pipe.worker import StageJob
from stages import VERBS


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


def pretend(recipe: Recipe, run_dir: Path) -> None:
    """Leave a run as if every stage had been made: real manifests around small files, and no stage is run."""
    folder = RunFolder(run_dir)
    folder.describe(recipe, 1)
    planner = Planner(recipe, folder.store, VERBS)
    for name in recipe.order:
        step, spec = planner.look(name), recipe.stages[name]
        module = VERBS.module(spec.uses)
        work = folder.work(name) / "out"
        kind = module.Config.makes
        assert kind is not None
        if kind == "checkpoint":
            checkpoint(work)
        else:
            jsonl.write_shards(work, [{"stage": name}])
        job = StageJob(VERBS.modules[spec.uses], spec, step, recipe.seed, run_dir)
        cost = {"seconds": 1.0, "cpu_seconds": 1.0}
        made = worker._manifest(job, module.VERSION, worker._open_inputs(job), Outcome(kind, work), cost)
        planner.made(name, folder.store.publish(name, work, made))
