"""Which engine samples: the one that a recipe names, or what suits the machine and the checkpoint."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from r1pipe.errors import EnvironmentUnfit, UsageError
from r1pipe.rollout.engine import Engine
from r1pipe.rollout.ray_worker import Opening
from r1pipe.rollout.specs import (
    AutoSpec,
    EngineSpec,
    RaySpec,
    ServerSpec,
    TransformersSpec,
    VllmSpec,
    untrainable,
)
from r1pipe.stage import Findings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from r1pipe.rollout.server import ServerEngine


def open_engine(
    spec: EngineSpec,
    folder: Path,
    *,
    eos_id: int,
    pad_id: int,
    context: int,
    model: "PreTrainedModel | None" = None,
    batch: int = 256,
) -> tuple[Engine, str]:
    """The engine, and one sentence on what was chosen and why.

    Args:
        spec: as a recipe writes it.
        folder: the checkpoint.
        eos_id: the token that ends a completion.
        pad_id: what stands in empty places.
        context: the most tokens that a prompt and its completion have together.
        model: the policy, for an engine that follows its weights; without it the folder's weights are read.
        batch: rows that transformers computes at a time.

    Raises:
        UsageError: a server that cannot follow a policy, or could and has none to follow; one that serves
            something else.
        EnvironmentUnfit: vLLM is asked for, and cannot be used here or for this checkpoint; a Ray cluster
            that cannot be reached, has no room, or whose machines lack something.
        RunFailed: a server that does not answer, workers of a cluster that die.
    """
    if model is not None and (said := untrainable(spec)):
        raise UsageError(f"{said[0].upper()}{said[1:]}.")
    chosen, why = suited(folder) if isinstance(spec, AutoSpec) else (spec, "as set")
    if isinstance(chosen, ServerSpec):
        server = _server(chosen, folder, eos_id, context, model)
        return server, f"Engine: {chosen}, {why}: {server.describes}."
    if isinstance(chosen, RaySpec):
        from r1pipe.rollout.ray_engine import RayEngine

        opening = Opening(open_engine, chosen.each, folder.absolute(), eos_id, pad_id, context, batch)
        ray = RayEngine(chosen, opening)
        return ray, f"Engine: {chosen}, {why}: {ray.describes}."
    if isinstance(chosen, VllmSpec):
        from r1pipe.rollout.vllm import VllmEngine

        vllm = VllmEngine(folder, chosen, eos_id=eos_id, context=context, policy=model)
        return vllm, f"Engine: {chosen}, {why}."
    return _transformers(folder, eos_id, pad_id, model, batch), f"Engine: {TransformersSpec()}, {why}."


def check_engine(spec: EngineSpec, temperatures: Iterable[float]) -> Findings:
    """Find what an engine cannot do, and what this machine lacks for it."""
    from r1pipe.machine import has_nvidia_gpu
    from r1pipe.rollout.vllm_fit import check_installation, unfit_temperature

    automatic = isinstance(spec, AutoSpec)
    if isinstance(spec, TransformersSpec) or (automatic and not has_nvidia_gpu()):
        return Findings()
    wrong = [f"temperature: {said}" for each in temperatures if (said := unfit_temperature(each))]
    if isinstance(spec, ServerSpec):  # its vLLM is not installed here
        return Findings(wrong)
    if isinstance(spec, RaySpec):
        from r1pipe.rollout.ray_cluster import missing

        drawn_elsewhere = isinstance(spec.each, VllmSpec) or (isinstance(spec.each, AutoSpec) and spec.gpus)
        return Findings(wrong if drawn_elsewhere else [], [f"engine: {said}"] if (said := missing()) else [])
    try:
        check_installation()
    except EnvironmentUnfit as error:
        return Findings() if automatic else Findings(wrong, [f"engine: {error}"])
    return Findings(wrong)


def suited(folder: Path) -> tuple[TransformersSpec | VllmSpec, str]:
    """What `auto` means for a checkpoint on this machine, and why."""
    import torch

    if not torch.cuda.is_available():
        return TransformersSpec(), "as there is no GPU; on a CPU it is faster than vLLM for small models"
    from r1pipe.rollout.vllm import unavailable

    if said := unavailable(folder):
        return TransformersSpec(), f"as vLLM cannot be used: {said.rstrip('.')}"
    return VllmSpec(), "as there is a GPU"


def _server(
    spec: ServerSpec, folder: Path, eos_id: int, context: int, model: "PreTrainedModel | None"
) -> "ServerEngine":
    if model is not None:
        from r1pipe.rollout.policy_server import PolicyServerEngine

        return PolicyServerEngine(spec, folder, eos_id=eos_id, context=context, policy=model)
    if spec.weights_dir is not None:
        raise UsageError(
            "engine.weights_dir is for `rl`: no other stage hands weights to a server, which answers from "
            "those that it was started with. Leave it out, and start the server with the checkpoint's own."
        )
    from r1pipe.rollout.server import ServerEngine

    return ServerEngine(spec, folder, eos_id=eos_id, context=context)


def _transformers(
    folder: Path, eos_id: int, pad_id: int, model: "PreTrainedModel | None", batch: int
) -> Engine:
    import torch

    from r1pipe.rollout.local import TransformersEngine

    if model is None:
        from r1pipe.train import models

        opened, _ = models.open_model(folder)
        model = opened.to("cuda" if torch.cuda.is_available() else "cpu")
    return TransformersEngine(model, eos_id=eos_id, pad_id=pad_id, batch=batch)
