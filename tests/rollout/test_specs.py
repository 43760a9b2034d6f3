"""Engines as recipes write them, and what is said of those that are none."""

import pytest

from r1pipe.errors import UsageError
from r1pipe.recipe import Recipe, from_resolved, parse_recipe
from r1pipe.rollout.specs import (
    AnyEngine,
    AutoSpec,
    EngineSpec,
    RaySpec,
    ServerSpec,
    TransformersSpec,
    VllmSpec,
    untrainable,
)
from r1pipe.stage import StageConfig, counted


class Asks(StageConfig):
    engine: AnyEngine = AutoSpec()


VERBS = {"asks": Asks}
SERVER = "{name: vllm-server, url: http://localhost:8000}"


def parse(engine: str, *overrides: str) -> Recipe:
    return parse_recipe(f"stages: {{a: {{uses: asks, engine: {engine}}}}}", "r.yaml", VERBS, overrides)


def engine(written: str, *overrides: str) -> EngineSpec:
    config = parse(written, *overrides).stages["a"].config
    assert isinstance(config, Asks)
    return config.engine


@pytest.mark.parametrize(
    ("written", "spec"),
    [
        ("auto", AutoSpec()),
        ("transformers", TransformersSpec()),
        ("vllm", VllmSpec()),
        ("{name: vllm, memory: 0.5}", VllmSpec(memory=0.5)),
        ("{memory: 0.5}", VllmSpec(memory=0.5)),
        (SERVER, ServerSpec.model_validate({"url": "http://localhost:8000"})),
        ("ray", RaySpec()),
        ("{name: ray, each: {name: vllm, memory: 0.8}}", RaySpec(each=VllmSpec(memory=0.8))),
        ("{workers: 4, each: {dtype: float16}}", RaySpec(workers=4, each=VllmSpec(dtype="float16"))),
        ("{url: http://localhost:8000}", ServerSpec.model_validate({"url": "http://localhost:8000"})),
    ],
)
def test_an_engine_is_a_name_or_a_mapping(written: str, spec: EngineSpec):
    """The name may be missing where the keys are one engine's alone; as resolved it reads back."""
    recipe = parse(written)
    assert engine(written) == spec
    assert from_resolved(recipe.resolved(), "run.json", VERBS) == recipe
    assert str(spec) == spec.name


def test_an_override_goes_into_a_bare_name():
    """`--set` needs no mapping to be written before it."""
    assert engine("vllm", "stages.a.engine.max_sequences=8") == VllmSpec(max_sequences=8)
    server = engine("vllm-server", "stages.a.engine.url=http://host:1", "stages.a.engine.retries=0")
    assert server == ServerSpec.model_validate({"url": "http://host:1", "retries": 0})


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (
            "vlm",
            "1:34: 'stages.a.engine': there is no engine 'vlm'; did you mean 'vllm'? the engines are auto, "
            "transformers, vllm, vllm-server, ray",
        ),
        (
            "{name: ray, each: vllm-server}",
            "1:52: 'stages.a.engine.each': a worker's engine is one of auto, transformers, vllm, not "
            "'vllm-server'",
        ),
        (
            "{name: ray, each: {name: ray}}",
            "1:52: 'stages.a.engine.each': a worker's engine is one of auto, transformers, vllm, not 'ray'",
        ),
        (
            "{name: ray, address: 'ray://host:10001'}",
            "1:55: 'stages.a.engine.address': write auto, local, or host and port of the cluster's head, "
            "e.g. 10.0.0.1:6379",
        ),
        (
            "{name: ray, each: {name: vllm, tensor_parallel: 4}}",
            "1:34: 'stages.a.engine': each.tensor_parallel is 4 and a worker has gpus: 1; set them alike",
        ),
        ("3", "1:34: 'stages.a.engine': an engine is its name, or a mapping with a `name`, not 3"),
        (
            "{}",
            "1:34: 'stages.a.engine': an engine needs its `name`: auto, transformers, vllm, vllm-server, ray",
        ),
        (
            "{name: vllm, url: http://x}",
            "1:34: 'stages.a.engine': engine 'vllm' takes no 'url'; it belongs to 'vllm-server'",
        ),
        (
            "{name: vllm, memroy: 0.5}",
            "1:47: unknown key 'stages.a.engine.memroy'; did you mean 'memory'?",
        ),
        (
            "{name: vllm, memory: 2}",
            "1:55: 'stages.a.engine.memory': should be less than or equal to 1, not 2",
        ),
        (
            "vllm-server",
            "1:26: 'stages.a.engine' needs 'url': Where it listens, e.g. `http://localhost:8000`",
        ),
        (
            "{name: vllm-server, url: localhost}",
            "1:59: 'stages.a.engine.url': should be a valid URL, relative URL without a base, "
            "not 'localhost'",
        ),
        (
            "{name: vllm-server, url: 'http://me:secret@host'}",
            "1:59: 'stages.a.engine.url': leave name and password out of it; `api_key_env` names the "
            "variable with a key",
        ),
        (
            "{name: vllm-server, url: 'http://host/v1?key=secret'}",
            "1:59: 'stages.a.engine.url': write the address alone, e.g. http://localhost:8000",
        ),
    ],
)
def test_what_is_no_engine_is_refused_in_one_line(written: str, said: str):
    """The nearest name, the engine that a key belongs to, what is missing; a secret is not told."""
    with pytest.raises(UsageError) as caught:
        parse(written)
    assert str(caught.value) == f"r.yaml:{said}"


def test_what_cannot_change_a_result_is_not_counted():
    """Another address or more patience reruns nothing; another engine does, and another dtype."""
    server = counted(parse(SERVER).stages["a"].config)
    assert server == {"threads": 1, "engine.name": "vllm-server", "engine.model": None}
    assert counted(parse("{name: vllm, sleep: false, memory: 0.9}").stages["a"].config) == {
        "threads": 1,
        "engine.name": "vllm",
        "engine.dtype": "auto",
        "engine.tensor_parallel": 1,
        "engine.options": {},
    }
    machines = "{name: ray, workers: 8, gpus: 2, address: 'h:1', portion: 9, retries: 0, each: {memory: 0.9}}"
    assert counted(parse(machines).stages["a"].config) == {
        "threads": 1,
        "engine.name": "ray",
        "engine.each.name": "vllm",
        "engine.each.dtype": "auto",
        "engine.each.tensor_parallel": 1,
        "engine.each.options": {},
    }


def test_a_cluster_cannot_be_trained_with():
    """Whatever its workers are."""
    said = untrainable(RaySpec(each=TransformersSpec()))
    assert said is not None and said.startswith("engine 'ray' is for sample and evaluate: ")


def test_a_server_needs_a_folder_to_be_trained_with():
    """The reason names the ways out; the other engines have none."""
    said = untrainable(engine(SERVER))
    assert said is not None
    assert said.startswith("engine 'vllm-server' needs weights_dir for rl")
    assert "set engine.weights_dir to one that both" in said and "or engine: vllm," in said
    with_folder = ServerSpec.model_validate({"url": "http://localhost:8000", "weights_dir": "/shared/w"})
    others = (AutoSpec(), TransformersSpec(), VllmSpec(), with_folder)
    assert [untrainable(spec) for spec in others] == [None] * 4


def test_vllms_memory_by_what_is_beside_it() -> None:
    """A recipe's own figure holds wherever it is."""
    assert (VllmSpec().settled(alone=True).memory, VllmSpec().settled(alone=False).memory) == (0.8, 0.3)
    assert VllmSpec(memory=0.5).settled(alone=True).memory == 0.5
