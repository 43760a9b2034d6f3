"""How a recipe writes an engine: a bare name, or a mapping of the engine's own fields. Plain Python."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, HttpUrl

from r1pipe.stage import NEUTRAL


class EngineSpec(BaseModel):
    """The base of every engine's spec; a subclass gives `name` its type, and adds the engine's own fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    name: str
    """The engine's name."""


class AutoSpec(EngineSpec):
    """Whatever suits the machine and the model; what was chosen, and why, is said."""

    name: Literal["auto"] = "auto"


class TransformersSpec(EngineSpec):
    """Sampling with transformers' models in this process; it needs nothing else."""

    name: Literal["transformers"] = "transformers"


class VllmSpec(EngineSpec):
    """vLLM in this process, on the GPU or the CPU."""

    name: Literal["vllm"] = "vllm"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of weights and cache; `auto` is bfloat16 on a GPU and float32 on a CPU."""
    memory: Annotated[float, Field(gt=0, le=1), NEUTRAL] = 0.3
    """Share of the GPU's memory for weights and cache; beside a trainer less, alone up to 0.9."""
    cache_gb: Annotated[float, Field(gt=0), NEUTRAL] = 2.0
    """Most gigabytes of memory for the cache, on a CPU; no more is taken than `max_sequences` need."""
    max_sequences: Annotated[int, Field(ge=1), NEUTRAL] = 256
    """Sequences generated side by side."""
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs that one copy of the model is spread over."""
    eager: Annotated[bool, NEUTRAL] = False
    """Leave out CUDA graphs: starts sooner, generates slower. On a CPU there are none."""
    sleep: Annotated[bool, NEUTRAL] = True
    """Free the GPU's memory while the policy trains; nothing on a CPU."""
    options: dict[str, Any] = Field(default={})
    """Further arguments of vLLM's `EngineArgs`, by their names there."""


class ServerSpec(EngineSpec):
    """A server that speaks OpenAI's protocol, as `vllm serve` starts it, on this or another machine."""

    name: Literal["vllm-server"] = "vllm-server"
    url: Annotated[HttpUrl, NEUTRAL]
    """Where it listens, e.g. `http://localhost:8000`."""
    model: str | None = None
    """The name it serves the model by; the one it names itself when not set."""
    timeout: Annotated[float, Field(gt=0), NEUTRAL] = 600.0
    """Seconds after which one answer is given up."""
    retries: Annotated[int, Field(ge=0), NEUTRAL] = 4
    """How often a request that failed is sent again, after growing waits."""
    concurrency: Annotated[int, Field(ge=1), NEUTRAL] = 64
    """Requests under way at once."""
    api_key_env: Annotated[str | None, NEUTRAL] = None
    """The environment variable that holds the key; the key itself stands in no file."""


def _bare_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


AnyEngine = Annotated[
    AutoSpec | TransformersSpec | VllmSpec | ServerSpec,
    Field(discriminator="name"),
    BeforeValidator(_bare_name),
]
"""`engine: vllm`, or `engine: {name: vllm, memory: 0.5}`."""
