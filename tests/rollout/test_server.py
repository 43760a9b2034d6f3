"""The engine on a server: the same tokens as the local engine's, and a clear end where a server misbehaves.

The server is a real one on the loopback, and samples with the local engine; what goes wrong is put between.
"""

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from r1pipe.errors import RunFailed, UsageError
from r1pipe.rollout import Rollout, Sampling, endpoint
from r1pipe.rollout.local import TransformersEngine
from r1pipe.rollout.server import ServerEngine
from r1pipe.rollout.specs import ServerSpec
from r1pipe.train import models
from tests.loopback_server import Answer, Reply, Server, Trouble, serving
from tests.vllm_server import free_port, vllm_serving

CONTEXT = 64
PROMPTS = [[5, 6, 7], [9, 30, 12, 40, 8], [5, 6, 7], [21]]
SEEDS = [3, 1, 2**62 + 5, 0]
Opening = Callable[..., ServerEngine]


@pytest.fixture(scope="module")
def opened(tiny: Path) -> tuple[TransformersEngine, PreTrainedTokenizerBase]:
    model, tokenizer = models.open_model(tiny)
    engine = TransformersEngine(model, eos_id=tokenizer.eos_token_id, pad_id=tokenizer.pad_token_id)
    return engine, tokenizer


@pytest.fixture
def local(opened: tuple[TransformersEngine, PreTrainedTokenizerBase]) -> TransformersEngine:
    return opened[0]


@pytest.fixture
def server(
    opened: tuple[TransformersEngine, PreTrainedTokenizerBase], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    monkeypatch.setattr(endpoint, "_FIRST_WAIT", 0.001)
    with serving(*opened, CONTEXT) as server:
        yield server


@pytest.fixture
def open_engine(server: Server, tiny: Path) -> Callable[..., ServerEngine]:
    def opening(context: int = CONTEXT, **fields: Any) -> ServerEngine:
        spec = ServerSpec.model_validate({"url": server.url, **fields})
        return ServerEngine(spec, tiny, eos_id=server.engine.eos_id, context=context)

    return opening


def generate(engine: ServerEngine, sampling: Sampling = Sampling(12)) -> list[Rollout]:  # noqa: B008
    return engine.generate(PROMPTS, sampling, seeds=SEEDS)


def untimed(error: Exception) -> str:
    """The message without the seconds that it took."""
    return re.sub(r"times in [\d.]+ s", "times in _ s", str(error))


# --- What comes back


@pytest.mark.parametrize("address", ["", "/", "/v1", "/v1/"])
def test_greedy_is_the_local_engines(server: Server, local: TransformersEngine, tiny: Path, address: str):
    """Token for token, with the same finish and log-probabilities; the address may end in the protocol's."""
    spec = ServerSpec.model_validate({"url": server.url + address})
    sampling = Sampling(20, temperature=0, logprobs=True)
    engine = ServerEngine(spec, tiny, eos_id=local.eos_id, context=CONTEXT)
    assert engine.model == "tiny"
    expected = local.generate(PROMPTS, sampling, seeds=SEEDS)
    for mine, theirs in zip(generate(engine, sampling), expected, strict=True):
        assert (mine.token_ids, mine.finish) == (theirs.token_ids, theirs.finish)
        assert mine.logprobs == pytest.approx(theirs.logprobs, abs=1e-5)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_the_same_seeds_draw_the_same(
    open_engine: Opening, server: Server, local: TransformersEngine, concurrency: int
):
    """In the order of the prompts, however many go at once; each is told of once, by its place."""
    sampling = Sampling(30, 1.1, top_p=0.95, top_k=40)
    told: dict[int, Rollout] = {}
    engine = open_engine(concurrency=concurrency)
    made = engine.generate(PROMPTS * 3, sampling, seeds=range(12), finished=told.__setitem__)
    assert made == local.generate(PROMPTS * 3, sampling, seeds=range(12))
    assert {rollout.finish for rollout in made} == {"stop", "length"}
    assert [told[place] for place in range(12)] == made
    assert server.most <= concurrency
    assert engine.generate([], sampling, seeds=[]) == []


def test_a_rollout_is_told_of_as_it_arrives(open_engine: Opening, server: Server):
    """The first is told of while the server holds back the second until then."""
    first_told = threading.Event()

    def hold(reply: Reply) -> None:
        if reply.number == 2:
            assert first_told.wait(10)

    server.trouble = hold
    told: list[int] = []

    def finished(place: int, rollout: Rollout) -> None:
        told.append(place)
        first_told.set()

    open_engine(concurrency=2).generate(PROMPTS[:2], Sampling(4), seeds=[0, 1], finished=finished)
    assert sorted(told) == [0, 1]


def test_what_a_request_holds(open_engine: Opening, server: Server, local: TransformersEngine):
    """All that a server might fill in from the model's generation config is sent, in its neutral form."""
    open_engine().generate([[5, 6]], Sampling(4, 0.6, 0.95, 20), seeds=[2**63 - 1])
    assert server.asked == [
        {
            "model": "tiny",
            "prompt": [5, 6],
            "seed": 2**63 - 1,
            "max_tokens": 4,
            "temperature": 0.6,
            "top_p": 0.95,
            "top_k": 20,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "ignore_eos": True,
            "stop_token_ids": [local.eos_id],
            "add_special_tokens": False,
            "skip_special_tokens": False,
            "return_token_ids": True,
        }
    ]


def test_what_is_forbidden_is_not_drawn(open_engine: Opening, local: TransformersEngine):
    """The token that came second is forbidden after the first: another comes, as with the local engine."""
    first, second = generate(open_engine())[1].token_ids[:2]
    sampling = Sampling(12, forbid_after={first: second})
    made = generate(open_engine(), sampling)
    assert made[1].token_ids[0] == first and made[1].token_ids[1] != second
    assert made == local.generate(PROMPTS, sampling, seeds=SEEDS)


def test_what_cannot_be_asked_of_a_server(open_engine: Opening, server: Server):
    """An empty prompt, log-probabilities that a server computes otherwise, and an unspeakable pair."""
    engine = open_engine()
    with pytest.raises(ValueError, match="no tokens"):
        engine.generate([[5], []], Sampling(4), seeds=[0, 1])
    with pytest.raises(ValueError, match="the model's own distribution"):
        engine.generate([[5]], Sampling(4, 0.7, logprobs=True), seeds=[0])
    with pytest.raises(UsageError, match=r"is read as other tokens\. Name other words in `forbid`"):
        engine.generate([[5]], Sampling(4, forbid_after={8: 10**6}), seeds=[0])
    assert server.asked == []
    engine.sync()
    engine.close()


# --- What passes


def cut(reply: Reply) -> None:
    """The connection ends in the body."""
    whole = json.dumps(reply.answer).encode()
    reply.body, reply.length = whole[:30], len(whole)


def status(code: int, body: str = '{"error": "busy"}', **headers: str) -> Trouble:
    def trouble(reply: Reply) -> None:
        reply.status, reply.body = code, body.encode()
        reply.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    return trouble


def changed(**fields: Any) -> Trouble:
    """Something in the completion is other than it should be."""
    return lambda reply: reply.choice.update(fields)


PASSING: dict[str, tuple[Trouble, str]] = {
    "cut": (cut, "RemoteProtocolError: "),
    "500": (status(500), '500 {"error": "busy"}'),
    "503": (status(503), '503 {"error": "busy"}'),
    "429": (status(429, Retry_After="0"), '429 {"error": "busy"}'),
    "408": (status(408), '408 {"error": "busy"}'),
    "no token ids": (changed(token_ids=None), "half an answer, no token ids in it"),
    "nothing": (changed(token_ids=[]), "half an answer, no token ids in it"),
    "no finish": (changed(finish_reason=None), "half an answer, its finish_reason is None"),
    "aborted": (changed(finish_reason="abort"), "half an answer, its finish_reason is 'abort'"),
    "no choices": (lambda reply: reply.answer.update(choices=[]), "half an answer, no completion in it"),
    "no JSON": (status(200, "<html>"), "half an answer, no JSON: 200 <html>"),
    "a list": (status(200, "[]"), "half an answer, no completion in it: 200 []"),
}


@pytest.mark.parametrize("what", PASSING)
def test_what_passes_is_asked_for_again(
    open_engine: Opening, server: Server, local: TransformersEngine, what: str
):
    """Two of six requests go wrong: the rollouts are as if none had."""
    engine, trouble = open_engine(), PASSING[what][0]
    server.trouble = lambda reply: trouble(reply) if reply.number in (1, 3) else None
    assert generate(engine) == local.generate(PROMPTS, Sampling(12), seeds=SEEDS)
    assert len(server.asked) == 6


@pytest.mark.parametrize("what", PASSING)
def test_what_does_not_pass_ends_with_what_the_server_last_said(
    open_engine: Opening, server: Server, what: str
):
    """After the set number of tries: no completion is made up, and the message has all that is known."""
    trouble, said = PASSING[what]
    engine, server.trouble = open_engine(retries=2), trouble
    with pytest.raises(RunFailed) as caught:
        engine.generate([[5, 6, 7]], Sampling(12), seeds=[0])
    assert untimed(caught.value).startswith(
        f"The server at {server.url} was asked for a completion of 3 + up to 12 tokens "
        f"(POST /v1/completions) 3 times in _ s; it last said: {said}"
    )
    assert "engine.timeout is 600 s, engine.retries 2" in str(caught.value)
    assert len(server.asked) == 3


def test_waits_grow_and_a_servers_wish_is_heard(
    open_engine: Opening, server: Server, monkeypatch: pytest.MonkeyPatch
):
    """Each wait is about twice the one before it, up to a bound, and no shorter than `Retry-After`."""
    waits: list[float] = []

    async def slept(seconds: float) -> None:
        waits.append(seconds)

    engine = open_engine(retries=8)
    monkeypatch.setattr(endpoint, "_FIRST_WAIT", 0.5)
    monkeypatch.setattr(endpoint.asyncio, "sleep", slept)
    server.trouble = lambda reply: status(500 if reply.number < 9 else 503, Retry_After="0")(reply)
    with pytest.raises(RunFailed, match="9 times"):
        engine.generate([[5]], Sampling(2), seeds=[0])
    assert [0.5 * 2**n * 0.5 <= wait <= 0.5 * 2**n * 1.5 for n, wait in enumerate(waits[:6])] == [True] * 6
    assert all(15 <= wait <= 45 for wait in waits[6:]) and len(waits) == 8
    waits.clear()
    server.trouble = lambda reply: status(429, Retry_After="7")(reply) if reply.number == 10 else None
    engine.generate([[5]], Sampling(2), seeds=[0])
    assert waits == [7.0]


@pytest.mark.parametrize("pause", [0.05, 2])
def test_a_slow_server_is_given_up(open_engine: Opening, server: Server, pause: float):
    """One that is silent, and one that sends a byte now and then: the deadline is for the whole answer."""
    engine = open_engine(timeout=0.3, retries=1)

    def slow(reply: Reply) -> None:
        reply.pause = pause

    server.trouble = slow
    begun = time.monotonic()
    with pytest.raises(RunFailed, match=r"2 times in .* it last said: it gave no whole answer in 0.3 s"):
        engine.generate([[5]], Sampling(2), seeds=[0])
    assert time.monotonic() - begun < 10


# --- What does not


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (
            status(400, '{"error": "Token id 900 is out\n of vocabulary"}'),
            "Token id 900 is out of vocabulary",
        ),
        (status(404, "x" * 1000), f"404 {'x' * 300}…. It refuses the request itself"),
        (status(307, "", Location="http://elsewhere"), "last said: 307. It refuses the request itself"),
        (lambda r: r.answer.update(model="other"), "answers with another model's name: 'other', not 'tiny'."),
        (changed(prompt_token_ids=[1, 5]), "read another prompt than it was sent"),
        (changed(token_ids=[7, 8], finish_reason="stop"), "ended a completion at token 8 as 'stop'"),
        (
            changed(token_ids=[7, 8], finish_reason="length"),
            "cut a completion at 2 tokens, and 12 were asked",
        ),
    ],
    ids=["400", "404", "307", "another model", "another prompt", "another end", "cut short"],
)
def test_what_is_wrong_is_not_asked_for_again(
    open_engine: Opening, server: Server, trouble: Trouble, said: str
):
    """A refusal, and an answer that no repetition would mend, are told at once."""
    engine, server.trouble = open_engine(), trouble
    with pytest.raises(RunFailed) as caught:
        engine.generate([[5]], Sampling(12), seeds=[0])
    assert said in str(caught.value) and server.url in str(caught.value)
    assert len(server.asked) == 1


def test_a_server_that_knows_no_eos_or_bad_words_is_found_out(
    open_engine: Opening, server: Server, local: TransformersEngine
):
    """It goes on after the EOS; it draws what is forbidden."""
    engine = open_engine()
    server.trouble = changed(token_ids=[7, local.eos_id, 8, 9], finish_reason="length")
    with pytest.raises(RunFailed, match="went on after the checkpoint's EOS"):
        engine.generate([[5]], Sampling(4), seeds=[0])
    server.trouble = changed(token_ids=[7, 8, 9, 9], finish_reason="length")
    with pytest.raises(RunFailed, match="drew token 9 after 8, which is forbidden"):
        engine.generate([[5]], Sampling(4, forbid_after={8: 9}), seeds=[0])


@pytest.mark.parametrize("given", [None, {"token_logprobs": [-1.0]}, {"token_logprobs": [None] * 4}])
def test_missing_log_probabilities_are_half_an_answer(open_engine: Opening, server: Server, given: Any):
    """None at all, too few, and one that is no number."""
    engine, server.trouble = open_engine(retries=0), changed(logprobs=given)
    with pytest.raises(RunFailed, match=r"once; it last said: half an answer, (no|a) log-probability"):
        engine.generate([[5]], Sampling(4, logprobs=True), seeds=[0])


# --- Opening


def test_a_server_that_is_down(tiny: Path, monkeypatch: pytest.MonkeyPatch):
    """Nobody listens there: the address, what was asked for and how often, and what to look at."""
    monkeypatch.setattr(endpoint, "_FIRST_WAIT", 0.001)
    with closing(socket.create_server(("127.0.0.1", 0))) as held:
        port = held.getsockname()[1]
    spec = ServerSpec.model_validate({"url": f"http://127.0.0.1:{port}", "retries": 3})
    with pytest.raises(RunFailed) as caught:
        ServerEngine(spec, tiny, eos_id=1, context=CONTEXT)
    assert untimed(caught.value).startswith(
        f"The server at http://127.0.0.1:{port} was asked for the list of its models (GET /v1/models) "
        "4 times in _ s; it last said: ConnectError: "
    )
    assert "See whether it runs and what its log says" in str(caught.value)


@pytest.mark.parametrize(
    ("served", "fields", "said"),
    [
        (["tiny", "tiny-base"], {"model": "tine"}, "does not serve 'tine': it serves 'tiny', 'tiny-base'."),
        (["tiny", "tiny-base"], {}, "Set engine.model to say which model of the server at"),
        ([], {}, "is meant: it serves none."),
        (
            ["tiny"],
            {"context": 65},
            "a context of 64 tokens for 'tiny'; the longest prompt and its completion",
        ),
    ],
)
def test_a_server_that_does_not_suit(
    open_engine: Opening, server: Server, served: Sequence[str], fields: dict[str, Any], said: str
):
    """Another model, several and none named, none at all, too short a context: nothing is generated."""
    server.models = [{"id": name, "max_model_len": CONTEXT} for name in served]
    with pytest.raises(UsageError) as caught:
        open_engine(**fields)
    assert said in str(caught.value)


def test_one_of_several_models_is_asked(open_engine: Opening, server: Server):
    """By the name in the spec; a server that does not tell its context is taken as it is."""
    server.models = [{"id": "tiny-base", "max_model_len": 8}, {"id": "tiny"}]
    engine = open_engine(model="tiny", context=10**6)
    engine.generate([[5]], Sampling(2), seeds=[0])
    assert server.asked[0]["model"] == "tiny"
    assert engine.describes == f"{server.url} serves 'tiny'"


def test_a_prompt_too_long_is_refused_before_any_is_sent(open_engine: Opening, server: Server):
    """60 tokens and 5 more do not fit into 64."""
    with pytest.raises(UsageError, match=r"need 65\. Start it with --max-model-len 65"):
        open_engine().generate([[5], [5] * 60], Sampling(5), seeds=[0, 1])
    assert server.asked == []


@pytest.mark.parametrize("answer", [{"data": "tiny"}, {"data": [{"name": "tiny"}]}, {}])
def test_an_answer_without_models(open_engine: Opening, server: Server, answer: Answer):
    """Some other server listens there."""

    def trouble(reply: Reply) -> None:
        reply.answer = answer

    server.trouble = trouble
    with pytest.raises(RunFailed, match="last said: half an answer, no list of models: 200"):
        open_engine(retries=0)


# --- The key


def test_the_key_is_sent_and_never_told(
    open_engine: Opening, server: Server, monkeypatch: pytest.MonkeyPatch
):
    """It goes in the header; a server that repeats it in a refusal has it struck out of the message."""
    monkeypatch.setenv("R1_KEY", "sk-secret-123")
    engine = open_engine(api_key_env="R1_KEY")
    assert server.keys == ["Bearer sk-secret-123"]
    server.trouble = status(401, "no such key: sk-secret-123")
    with pytest.raises(UsageError) as caught:
        engine.generate([[5]], Sampling(2), seeds=[0])
    assert "401 no such key: ***. Look at the key in R1_KEY." in str(caught.value)
    assert "sk-secret" not in str(caught.value) + repr(engine.spec)
    with pytest.raises(UsageError, match=r"Set engine\.api_key_env to its variable"):
        open_engine()
    assert server.keys[-1] is None


@pytest.mark.parametrize(("key", "said"), [("", "which is not set"), ("sk-se\ncret", "no key has")])
def test_a_key_that_is_none(open_engine: Opening, monkeypatch: pytest.MonkeyPatch, key: str, said: str):
    """Missing, or with a line break in it, which an HTTP library would tell of in full."""
    monkeypatch.setenv("R1_KEY", key)
    with pytest.raises(UsageError, match=said) as caught:
        open_engine(api_key_env="R1_KEY")
    assert "sk-se" not in str(caught.value)


# --- The real one


@pytest.mark.slow
@pytest.mark.vllm
def test_vllms_own_server(tiny: Path, local: TransformersEngine, tmp_path: Path):
    """Greedy tokens and log-probabilities are the local engine's; seeds draw the same in any order; what is
    forbidden is not drawn."""
    port = free_port()
    options = ["--host", "127.0.0.1", "--port", str(port), "--enforce-eager", "--dtype", "float32"]
    with vllm_serving(tiny, tmp_path / "log", options):
        spec = ServerSpec.model_validate({"url": f"http://127.0.0.1:{port}", "retries": 12})
        engine = ServerEngine(spec, tiny, eos_id=local.eos_id, context=CONTEXT)
        greedy = Sampling(20, temperature=0, logprobs=True)
        for mine, theirs in zip(
            generate(engine, greedy), local.generate(PROMPTS, greedy, seeds=SEEDS), strict=True
        ):
            assert (mine.token_ids, mine.finish) == (theirs.token_ids, theirs.finish)
            assert mine.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)
        drawn = generate(engine, Sampling(20, top_p=0.9))
        again = engine.generate(PROMPTS[::-1], Sampling(20, top_p=0.9), seeds=SEEDS[::-1])
        assert drawn == again[::-1]
        first, second = drawn[0].token_ids[:2]
        other = generate(engine, Sampling(20, top_p=0.9, forbid_after={first: second}))
        assert other[0].token_ids[0] == first and other[0].token_ids[1] != second
