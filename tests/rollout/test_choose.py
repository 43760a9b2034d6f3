"""Which engine is opened, and what is said about it."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from r1pipe import machine
from r1pipe.errors import RunFailed, UsageError
from r1pipe.rollout import Sampling, endpoint, ray_cluster, vllm_fit
from r1pipe.rollout.choose import check_engine, open_engine
from r1pipe.rollout.local import TransformersEngine
from r1pipe.rollout.specs import AutoSpec, EngineSpec, RaySpec, ServerSpec, TransformersSpec, VllmSpec
from r1pipe.train import models

NOBODY = ServerSpec.model_validate({"url": "http://127.0.0.1:1", "retries": 0})


def opened(spec: EngineSpec, folder: Path, **options: Any) -> tuple[Any, str]:
    return open_engine(spec, folder, eos_id=2, pad_id=0, context=64, **options)


class Vllm:
    """Stands for vLLM's engine: it remembers what it was opened with."""

    def __init__(self, folder: Path, spec: VllmSpec, **given: Any) -> None:
        self.opened = (folder, spec, given)


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """In place of the module that needs vLLM; by default nothing speaks against it."""
    module = ModuleType("r1pipe.rollout.vllm")
    module.VllmEngine, module.unavailable = Vllm, lambda folder: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "r1pipe.rollout.vllm", module)
    return module


def test_without_a_gpu_auto_is_transformers(tiny: Path, monkeypatch: pytest.MonkeyPatch):
    """And says why; the folder's weights are what it samples from."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    engine, said = opened(AutoSpec(), tiny, batch=7)
    assert said == (
        "Engine: transformers, as there is no GPU; on a CPU it is faster than vLLM for small models."
    )
    assert (type(engine), engine.batch, engine.eos_id, engine.pad_id) == (TransformersEngine, 7, 2, 0)
    model, _ = models.open_model(tiny)
    other = TransformersEngine(model, eos_id=2, pad_id=0)
    greedy = Sampling(8, temperature=0)
    assert engine.generate([[5, 6]], greedy, seeds=[0]) == other.generate([[5, 6]], greedy, seeds=[0])


def test_with_a_gpu_auto_is_vllm(tiny: Path, monkeypatch: pytest.MonkeyPatch, vllm: ModuleType):
    """Beside a policy and alone; its share of the memory it finds itself."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    engine, said = opened(AutoSpec(), tiny)
    assert said == "Engine: vllm, as there is a GPU."
    assert engine.opened == (tiny, VllmSpec(), {"eos_id": 2, "context": 64, "policy": None})
    policy: Any = object()
    assert opened(AutoSpec(), tiny, model=policy)[0].opened[1:] == (
        VllmSpec(),
        {"eos_id": 2, "context": 64, "policy": policy},
    )


def test_with_a_gpu_but_without_vllm_auto_is_transformers(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, vllm: ModuleType
):
    """Why vLLM cannot be used is said."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(vllm, "unavailable", lambda folder: f"vLLM cannot serve {folder.name}.", raising=True)
    model, _ = models.open_model(tiny)
    engine, said = opened(AutoSpec(), tiny, model=model)
    assert (
        said == f"Engine: transformers, as vLLM cannot be used: vLLM cannot serve {tiny.name}."
    ) and engine.model is model


def test_what_a_recipe_names_is_opened(tiny: Path, vllm: ModuleType):
    """Whatever the machine is like; a policy is sampled from itself."""
    model, _ = models.open_model(tiny)
    engine, said = opened(TransformersSpec(), tiny, model=model)
    assert (engine.model, said) == (model, "Engine: transformers, as set.")
    engine, said = opened(VllmSpec(eager=True), tiny)
    assert (engine.opened[1], said) == (VllmSpec(eager=True), "Engine: vllm, as set.")


def test_a_server_is_asked_at_once(tiny: Path, monkeypatch: pytest.MonkeyPatch):
    """Nobody listens on that port; with a policy and no way for its weights nobody is asked."""
    monkeypatch.setattr(endpoint, "_FIRST_WAIT", 0.001)
    with pytest.raises(RunFailed, match=r"The server at http://127\.0\.0\.1:1 was asked for the list"):
        opened(NOBODY, tiny)
    with pytest.raises(UsageError, match=r"^Engine 'vllm-server' needs weights_dir for rl"):
        opened(NOBODY, tiny, model=object())


@pytest.mark.parametrize(
    ("spec", "gpu", "installed", "wrong", "lacking"),
    [
        (AutoSpec(), False, True, 0, 0),
        (AutoSpec(), True, True, 1, 0),
        (AutoSpec(), True, False, 0, 0),  # then transformers samples, at any temperature
        (VllmSpec(), False, True, 1, 0),
        (VllmSpec(), False, False, 1, 1),
        (ServerSpec.model_validate({"url": "http://localhost:1"}), False, False, 1, 0),
        (TransformersSpec(), True, True, 0, 0),
        (RaySpec(), False, False, 1, 1),  # where Ray is not installed either
        (RaySpec(gpus=0), False, True, 0, 0),
        (RaySpec(gpus=0, each=VllmSpec()), False, True, 1, 0),
        (RaySpec(each=TransformersSpec()), False, True, 0, 0),
    ],
)
def test_what_an_engine_cannot_do(
    spec: EngineSpec, gpu: bool, installed: bool, wrong: int, lacking: int, monkeypatch: pytest.MonkeyPatch
):
    """One of two temperatures is vLLM's business wherever it will sample, also on another machine."""
    monkeypatch.setattr(machine, "has_nvidia_gpu", lambda: gpu)
    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: name if installed else None)
    monkeypatch.setattr(vllm_fit, "_installed", lambda: vllm_fit.VERSION if installed else None)
    found = check_engine(spec, [1.0, 2.5])
    assert [len(found.wrong), len(found.lacking)] == [wrong, lacking]
