"""How a recipe writes an engine: a bare name, or a mapping of the engine's own fields. Plain Python."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, HttpUrl, field_validator, model_validator

from r1pipe.fingerprint import sha256_of
from r1pipe.hints import meant
from r1pipe.stage import NEUTRAL


class EngineSpec(BaseModel):
    """The base of every engine's spec; a subclass gives `name` its type, and adds the engine's own fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    name: str
    """The engine's name."""

    def __str__(self) -> str:
        return self.name


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
    memory: Annotated[float | None, Field(gt=0, le=1), NEUTRAL] = None
    """Share of the GPU's memory for weights and cache; when not set, 0.3 beside a trainer and 0.8 alone."""
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
    timeout: Annotated[float, Field(gt=0), NEUTRAL] = 600.0
    """Seconds without a step's end, or for taking over weights, after which the stage is ended as hanging."""
    options: dict[str, Any] = Field(default={})
    """Further arguments of vLLM's `EngineArgs`, by their names there."""

    def settled(self, *, alone: bool) -> "VllmSpec":
        """With `memory` set, by whether nothing trains beside it."""
        if self.memory is not None:
            return self
        return self.model_copy(update={"memory": 0.8 if alone else 0.3})


class RemoteSpec(BaseModel):
    """A server that is asked: where it is, and how patiently."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    url: Annotated[HttpUrl, NEUTRAL]
    """Where it listens, e.g. `http://localhost:8000`."""
    timeout: Annotated[float, Field(gt=0), NEUTRAL] = 600.0
    """Seconds after which one answer is given up."""
    retries: Annotated[int, Field(ge=0), NEUTRAL] = 4
    """How often a request that failed is sent again, after growing waits."""
    concurrency: Annotated[int, Field(ge=1), NEUTRAL] = 64
    """Requests under way at once."""
    api_key_env: Annotated[str | None, NEUTRAL] = None
    """The environment variable that holds the key; the key itself stands in no file."""

    @field_validator("url")
    @classmethod
    def _no_secrets(cls, url: HttpUrl) -> HttpUrl:
        """The address is written into the run's files and said in messages."""
        if url.username or url.password:
            raise ValueError("leave name and password out of it; `api_key_env` names the variable with a key")
        if url.query or url.fragment:
            raise ValueError("write the address alone, e.g. http://localhost:8000")
        return url


class ServerSpec(RemoteSpec, EngineSpec):
    """A server that speaks OpenAI's protocol, as `vllm serve` starts it, on this or another machine."""

    name: Literal["vllm-server"] = "vllm-server"
    model: str | None = None
    """The name it serves the model by; the one it names itself when not set."""
    weights_dir: Annotated[str | None, NEUTRAL] = None
    """A folder that this machine and the server's see under the same path: through it `rl` hands over the
    policy's weights. No other stage has a use for it."""


def _each(value: Any) -> Any:
    """Refuses what no worker can be, before the engine's own fields are looked at."""
    named = _named(value)
    name = named.name if isinstance(named, EngineSpec) else named["name"]
    if name not in _IN_WORKERS:
        raise ValueError(f"a worker's engine is one of {', '.join(_IN_WORKERS)}, not {name!r}")
    return named


class RaySpec(EngineSpec):
    """Engines on the machines of a Ray cluster, each with a model of its own, for `sample` and `evaluate`."""

    name: Literal["ray"] = "ray"
    each: Annotated[
        AutoSpec | TransformersSpec | VllmSpec, Field(discriminator="name"), BeforeValidator(_each)
    ] = AutoSpec()
    """The engine of each worker, with its own fields: `vllm`, `transformers` or `auto`."""
    address: Annotated[str, NEUTRAL] = "auto"
    """Of the cluster: `auto` is the one that this machine is part of, else host and port of its head, e.g.
    `10.0.0.1:6379`; `local` starts one here, for this stage alone."""
    workers: Annotated[int, Field(ge=1), NEUTRAL] = 1
    """Processes with an engine each, wherever the cluster has room for them."""
    gpus: Annotated[float, Field(ge=0), NEUTRAL] = 1.0
    """Of each worker; 0 on machines that have none."""
    cpus: Annotated[float, Field(gt=0), NEUTRAL] = 1.0
    """Of each worker; it computes with so many threads."""
    portion: Annotated[int, Field(ge=1), NEUTRAL] = 256
    """Most completions that a worker is given at a time; what it has not given back is lost when it dies."""
    retries: Annotated[int, Field(ge=0), NEUTRAL] = 3
    """How often a portion whose worker died is given to another, and how often in a row none may open."""
    timeout: Annotated[float, Field(gt=0), NEUTRAL] = 600.0
    """Seconds without any worker, while the cluster has no room for one, after which the stage is ended."""
    deadline: Annotated[float, Field(gt=0), NEUTRAL] = 7200.0
    """Seconds for opening a model or for one portion, after which a worker is ended as hanging."""

    @field_validator("address")
    @classmethod
    def _reachable(cls, address: str) -> str:
        """Ray's clients are another protocol; and whatever else is no address, Ray would wait for."""
        host, _, port = address.rpartition(":")
        if address in ("auto", "local") or (host and "/" not in host and port.isdecimal()):
            return address
        raise ValueError("write auto, local, or host and port of the cluster's head, e.g. 10.0.0.1:6379")

    @model_validator(mode="after")
    def _spread(self) -> "RaySpec":
        if isinstance(self.each, VllmSpec) and 0 < self.gpus < self.each.tensor_parallel:
            raise ValueError(
                f"each.tensor_parallel is {self.each.tensor_parallel} and a worker has gpus: {self.gpus:g}; "
                "set them alike"
            )
        return self


class TeacherSpec(RemoteSpec):
    """Any server with OpenAI's chat completions: questions go as messages, and texts come back."""

    model: str = Field(min_length=1)
    """The model that is asked for, by the server's name for it."""
    system: str | None = None
    """What is said before each question, as the system."""
    options: dict[str, Any] = Field(default={})
    """Further keys of the request, such as `reasoning_effort: high`; one that is null is left out of it."""

    @property
    def asked(self) -> str:
        """The hash of all that decides who answers: the name, the system's words, the further keys."""
        return sha256_of([self.model, self.system, self.options])


_SPECS: Final[dict[str, type[EngineSpec]]] = {
    "auto": AutoSpec,
    "transformers": TransformersSpec,
    "vllm": VllmSpec,
    "vllm-server": ServerSpec,
    "ray": RaySpec,
}
_IN_WORKERS: Final = ("auto", "transformers", "vllm")


def _named(value: Any) -> Any:
    """What a recipe may write as a mapping with the name of an engine that has all of its keys."""
    if isinstance(value, EngineSpec):
        return value
    written = {"name": value} if isinstance(value, str) else value
    if not isinstance(written, dict):
        raise ValueError(f"an engine is its name, or a mapping with a `name`, not {value!r}")
    name = written["name"] if "name" in written else _meant_by(written)
    if not isinstance(name, str) or name not in _SPECS:
        raise ValueError(
            f"there is no engine {name!r}{meant(str(name), _SPECS) or ';'} "
            f"the engines are {', '.join(_SPECS)}"
        )
    for key in written:
        owners = [repr(other) for other, spec in _SPECS.items() if key in spec.model_fields]
        if owners and key not in _SPECS[name].model_fields:
            raise ValueError(f"engine {name!r} takes no {key!r}; it belongs to {', '.join(owners)}")
    return written | {"name": name}


def _meant_by(written: dict[str, Any]) -> str:
    """The one engine that has these keys: `--set engine.url=…` names it well enough."""
    owners = [name for name, spec in _SPECS.items() if written and written.keys() <= spec.model_fields.keys()]
    if len(owners) == 1:
        return owners[0]
    raise ValueError(f"an engine needs its `name`: {', '.join(_SPECS)}")


AnyEngine = Annotated[
    AutoSpec | TransformersSpec | VllmSpec | ServerSpec | RaySpec,
    Field(discriminator="name"),
    BeforeValidator(_named),
]
"""`engine: vllm`, or `engine: {name: vllm, memory: 0.5}`."""


def untrainable(spec: EngineSpec) -> str | None:
    """Why an engine is not for training, where it takes over the policy's weights; None for one that is."""
    if isinstance(spec, RaySpec):
        return (
            "engine 'ray' is for sample and evaluate: its workers read a checkpoint and never learn of a "
            "policy's weights; for rl set engine: vllm, which samples in the same process, or a vllm-server "
            "with weights_dir"
        )
    if not isinstance(spec, ServerSpec) or spec.weights_dir is not None:
        return None
    return (
        f"engine {spec.name!r} needs weights_dir for rl: before each rollout the policy's weights reach the "
        "server through a folder; set engine.weights_dir to one that both machines see under the same path, "
        "or engine: vllm, which samples in the same process"
    )
