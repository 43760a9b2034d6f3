"""The server that follows a policy: weights arrive and are checked, and whatever else it does ends the run.

The server is a real one on the loopback, which computes with a model of its own from random weights.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from r1pipe.errors import RunFailed, UsageError
from r1pipe.rollout import Sampling, endpoint
from r1pipe.rollout.choose import open_engine
from r1pipe.rollout.local import TransformersEngine
from r1pipe.rollout.policy_server import PolicyServerEngine
from r1pipe.rollout.specs import ServerSpec
from r1pipe.train import models, ranks
from stages import rl
from tests.loopback_server import Reply, Server, Trouble, serving
from tests.small_rl import config
from tests.tiny_model import inputs, workplace, write_tiny

CONTEXT = 64
PROMPTS = [[5, 6, 7], [9, 30, 12, 40, 8], [21]]
HOW = "For `rl` start it by: `VLLM_SERVER_DEV_MODE=1 vllm serve "
Opening = Callable[..., PolicyServerEngine]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def opened(tiny: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    return models.open_model(tiny)


@pytest.fixture
def policy(opened: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> PreTrainedModel:
    return opened[0]


@pytest.fixture
def server(
    opened: tuple[PreTrainedModel, PreTrainedTokenizerBase], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    monkeypatch.setattr(endpoint, "_FIRST_WAIT", 0.001)
    policy, tokenizer = opened
    torch.manual_seed(1)
    own = AutoModelForCausalLM.from_config(policy.config)
    engine = TransformersEngine(own, eos_id=tokenizer.eos_token_id, pad_id=tokenizer.pad_token_id)
    with serving(engine, tokenizer, CONTEXT) as server:
        yield server


@pytest.fixture
def opening(server: Server, tiny: Path, policy: PreTrainedModel, tmp_path: Path) -> Opening:
    def opening(**fields: Any) -> PolicyServerEngine:
        given = {"url": server.url, "weights_dir": str(tmp_path / "weights"), "retries": 1, **fields}
        spec = ServerSpec.model_validate(given)
        return PolicyServerEngine(spec, tiny, eos_id=server.engine.eos_id, context=CONTEXT, policy=policy)

    return opening


def moved(policy: PreTrainedModel) -> None:
    """A step of RL's size, which no probe would see."""
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(1e-6 * parameter.sign())


def at(path: str, then: Trouble) -> Trouble:
    """Trouble with one route alone."""
    return lambda reply: then(reply) if reply.handler.path.startswith(path) else None


def status(code: int, body: str) -> Trouble:
    def trouble(reply: Reply) -> None:
        reply.status, reply.body = code, body.encode()

    return trouble


def not_seen(reply: Reply) -> None:
    """The server has another folder of that name, or none."""
    assert isinstance(reply.handler.server, Server)
    if "weights_path" in str(reply.handler.server.done[-1]):
        status(500, "no such folder")(reply)


def told(answer: dict[str, Any]) -> Trouble:
    return lambda reply: reply.answer.update(answer)


# --- What goes well


def test_weights_arrive_by_a_path_of_their_own(
    opening: Opening, server: Server, policy: PreTrainedModel, tmp_path: Path
):
    """At the start and at each sync, bit for bit; the older ones go once the new ones are in use, and all
    when the engine is closed."""
    engine = opening()
    (first,) = (tmp_path / "weights").iterdir()
    moved(policy)
    during: list[list[Path]] = []
    server.trouble = at("/v1", lambda reply: during.append(sorted((tmp_path / "weights").iterdir())))
    engine.sync()
    (second,) = (tmp_path / "weights").iterdir()
    assert during == [sorted([first, second])] and first != second
    theirs = server.engine.model.state_dict()
    assert all(torch.equal(theirs[name], weight) for name, weight in policy.state_dict().items())
    assert engine.probe_difference is not None and engine.probe_difference < 1e-6
    assert server.done == [
        "/server_info?config_format=json",
        *[
            each
            for path in (first, second)
            for each in (
                {
                    "method": "update_config",
                    "kwargs": {"overrides": {"load_config": {"load_format": "safetensors"}}},
                },
                {"method": "reload_weights", "kwargs": {"weights_path": str(path)}},
                "/reset_prefix_cache",
                {"new_version": path.name},
            )
        ],
    ]
    engine.close()
    assert list((tmp_path / "weights").iterdir()) == []


def test_log_probabilities_are_those_of_what_is_drawn_from(opening: Opening, policy: PreTrainedModel):
    """At a temperature and with top-p, as the local engine tells them of the policy."""
    engine, sampling = opening(), Sampling(12, 0.7, top_p=0.9, logprobs=True)
    local = TransformersEngine(policy, eos_id=engine.eos_id, pad_id=0)
    expected = local.generate(PROMPTS, sampling, seeds=[3, 4, 5])
    for mine, theirs in zip(engine.generate(PROMPTS, sampling, seeds=[3, 4, 5]), expected, strict=True):
        assert mine.token_ids == theirs.token_ids
        assert mine.logprobs == pytest.approx(theirs.logprobs, abs=1e-5)


def test_the_first_rank_alone_hands_over(
    opening: Opening, server: Server, policy: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
):
    """Another one writes nothing and asks for nothing to be done, but makes the probe and takes up the name
    of the weights."""
    first = opening()
    server.done.clear()
    server.asked.clear()
    monkeypatch.setattr(ranks, "first", lambda: False)
    other = opening(weights_dir="/nowhere")
    assert server.done == ["/server_info?config_format=json", "/weight_info"]
    assert len(server.asked) == 1
    assert other.probe_difference == first.probe_difference
    assert other.generate(PROMPTS, Sampling(4), seeds=[0, 1, 2]) == first.generate(
        PROMPTS, Sampling(4), seeds=[0, 1, 2]
    )


def test_a_policy_is_trained(server: Server, tiny: Path, tmp_path: Path):
    """Two steps of the rl stage: nothing is left of the mismatch, and nothing of the weights' folder."""
    work, ear = workplace(tmp_path / "zero")
    engine = {"name": "vllm-server", "url": server.url, "weights_dir": str(tmp_path / "weights")}
    rl.run(config(engine=engine), inputs(model=tiny), work)
    assert f"Engine: vllm-server, as set: {server.url} serves 'tiny' and takes over" in ear.said
    assert [row["mismatch_ratio"] for row in ear.rows] == pytest.approx([1, 1], abs=1e-5)
    assert sum("new_version" in each for each in server.done) == 3
    assert list((tmp_path / "weights").iterdir()) == []


# --- What does not


def test_how_it_is_started(opening: Opening, server: Server, tiny: Path, monkeypatch: pytest.MonkeyPatch):
    """The command that messages end in, on a machine without a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("R1_KEY", "sk-1")
    server.models = [{"id": "a b", "max_model_len": CONTEXT}]
    server.trouble = at("/server_info", status(404, '{"detail":"Not Found"}'))
    with pytest.raises(RunFailed) as caught:
        opening(model="a b", api_key_env="R1_KEY")
    assert str(caught.value) == (
        f"The server at {server.url} was asked for how it was started (GET /server_info?config_format=json) "
        'once; it last said: 404 {"detail":"Not Found"}. It refuses the request itself; see its log. For '
        f"`rl` start it by: `VLLM_SERVER_DEV_MODE=1 vllm serve {tiny} --host 127.0.0.1 "
        f"--port {server.server_port} --load-format dummy --logprobs-mode processed_logprobs "
        "--dtype float32 --max-model-len 64 --served-model-name 'a b' --enforce-eager "
        "--no-enable-chunked-prefill --max-num-batched-tokens 8192 "
        '--api-key "$R1_KEY"`'
    )


@pytest.mark.parametrize(
    ("part", "key", "value", "said"),
    [
        ("load_config", "load_format", "auto", "--load-format is auto and has to be dummy"),
        (
            "model_config",
            "logprobs_mode",
            "raw_logprobs",
            "--logprobs-mode is raw_logprobs and has to be processed_logprobs",
        ),
        ("model_config", "dtype", "torch.bfloat16", "--dtype is bfloat16 and has to be float32"),
        ("model_config", "dtype", "torch.int8", "--dtype is int8 and has to be float32"),
    ],
)
def test_a_server_that_was_started_otherwise(
    opening: Opening, server: Server, tmp_path: Path, part: str, key: str, value: str, said: str
):
    """It is refused before anything is written, with the option and the whole command."""
    server.settings[part][key] = value
    with pytest.raises(UsageError) as caught:
        opening()
    assert f"was not started for a training: {said}. For `rl` start it by: `VLLM_SERVER" in str(caught.value)
    assert not (tmp_path / "weights").exists()


def test_a_finer_dtype_is_as_good(opening: Opening, server: Server, monkeypatch: pytest.MonkeyPatch):
    """Beside a GPU's policy, whose passes are in bfloat16, all three will do."""
    monkeypatch.setattr("r1pipe.rollout.policy_server._trained_in", lambda: torch.bfloat16)
    for dtype in ("float32", "float16", "bfloat16"):
        server.settings["model_config"]["dtype"] = f"torch.{dtype}"
        engine = opening()
        assert engine.probe_difference is not None and engine.probe_difference < 1e-6
        engine.close()


TROUBLES: dict[str, tuple[Trouble, str]] = {
    "another folder": (
        at("/collective_rpc", not_seen),
        r"asked for taking over the weights in /\S+/policy-\w+, which it must see there .* 2 times .* 500 no",
    ),
    "prompts kept": (
        at("/reset_prefix_cache", told({"success": False})),
        r"forgetting the prompts .* half an answer, it was not done",
    ),
    "not vLLM's settings": (at("/server_info", told({"vllm_config": {}})), "no settings of vLLM 0.29 in it"),
    "no name": (at("/weight_info", told({"weight_version": None})), "no name of weights in it"),
    "no probe": (
        at("/v1/completions", lambda reply: reply.choice.update(prompt_logprobs=[None])),
        "no log-probability for each token of the prompt",
    ),
}


@pytest.mark.parametrize("what", TROUBLES)
def test_what_a_server_does_not_do(opening: Opening, server: Server, what: str):
    """It is asked again, then named with what it said and how to start it."""
    server.trouble, said = TROUBLES[what]
    with pytest.raises(RunFailed, match=said) as caught:
        opening().generate(PROMPTS, Sampling(4), seeds=[0, 1, 2])
    assert server.url in str(caught.value) and HOW in str(caught.value)


def test_weights_that_did_not_arrive(
    opening: Opening, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The server says that all is done and goes on with its own: the probe tells. What was written goes."""
    monkeypatch.setattr(server.engine.model, "load_state_dict", lambda weights: None)
    said = rf"{server.url} does not compute what the policy computes: .* differ by .* float32 explains 0\.001"
    with pytest.raises(RunFailed, match=said) as caught:
        opening()
    assert HOW in str(caught.value)
    assert list((tmp_path / "weights").iterdir()) == []


def test_a_server_that_was_started_anew(opening: Opening, server: Server):
    """While it was asked: it has answered, from random weights."""
    engine = opening()
    server.version = "default"
    with pytest.raises(RunFailed, match=r"holds 'default', and 'policy-\w+' was handed over") as caught:
        engine.generate(PROMPTS, Sampling(4), seeds=[0, 1, 2])
    assert HOW in str(caught.value)
    engine.sync()
    engine.generate(PROMPTS, Sampling(4), seeds=[0, 1, 2])


def test_a_server_that_died(opening: Opening, server: Server):
    engine = opening()
    server.shutdown()
    server.server_close()
    for ask in (engine.sync, lambda: engine.generate(PROMPTS, Sampling(4), seeds=[0, 1, 2])):
        with pytest.raises(RunFailed, match="last said: ConnectError") as caught:
            ask()
        assert server.url in str(caught.value) and HOW in str(caught.value)


def test_it_is_chosen_where_there_is_a_policy(
    server: Server, tiny: Path, policy: PreTrainedModel, tmp_path: Path
):
    """Without one its folder has no use, and is refused: what is asked would be another model's answer."""
    fields = {"url": server.url, "weights_dir": str(tmp_path / "weights")}
    spec = ServerSpec.model_validate(fields)
    given: dict[str, Any] = {"eos_id": server.engine.eos_id, "pad_id": 0, "context": CONTEXT}
    engine, _ = open_engine(spec, tiny, **given, model=policy)
    assert isinstance(engine, PolicyServerEngine)
    with pytest.raises(UsageError, match=r"engine\.weights_dir is for `rl`.* Leave it out"):
        open_engine(spec, tiny, **given)
