"""The engine that asks a server which speaks OpenAI's protocol, as `vllm serve` starts it.

One request is one completion: the prompt goes as tokens, and tokens come back (vLLM's `return_token_ids`), so
that nothing is ever tokenised twice. What the server would fill in from the model's generation_config.json,
a repetition penalty for one, is sent along in its neutral form.
"""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, TypeVar

from r1pipe.errors import RunFailed, UsageError
from r1pipe.rollout.endpoint import Endpoint, HalfAnswer, Request
from r1pipe.rollout.engine import Finished, Rollout, Sampling
from r1pipe.rollout.specs import ServerSpec
from r1pipe.train.text import open_tokenizer

T = TypeVar("T")

_OPENING: Final = 30.0
"""Seconds in which a server says what it serves; it does so without touching the model."""


class ServerEngine:
    """Samples from the model that a server holds; it never learns of a policy's weights."""

    name = "vllm-server"
    exact = False
    tells_drawn = False
    """Whether log-probabilities are known to be those of the distribution that is drawn from."""

    def __init__(self, spec: ServerSpec, folder: Path, *, eos_id: int, context: int, way: str = "") -> None:
        """Ask the server what it serves.

        `folder` is the checkpoint as the recipe knows it, of which only the tokenizer may be read; `context`
        the most tokens that a prompt and its completion have together; `way` what helps where the server does
        not answer, for messages.

        Raises:
            UsageError: the key is missing or wrong, the server does not serve the model that the spec names,
                or its context is too short.
            RunFailed: it does not answer, or not as such a server does.
        """
        self.spec = spec
        self.folder = folder
        self.eos_id = eos_id
        self._endpoint = Endpoint(spec, way)
        seconds = min(spec.timeout, _OPENING)
        served = self._ask("GET", "/v1/models", None, "the list of its models", _models_in, seconds)
        self.model = _chosen(served, spec.model, self._endpoint.address)
        self.context = served[self.model]
        if self.context is not None:
            self._fits(self.context, context)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        seeds: Sequence[int],
        finished: Finished | None = None,
    ) -> list[Rollout]:
        """One rollout per prompt, in order, `spec.concurrency` of them at a time.

        With `sampling.logprobs` the distribution must be the model's own, as a server gives log-probabilities
        before temperature and the like, unless it `tells_drawn`.

        Raises:
            ValueError: an empty prompt, or log-probabilities of another distribution.
            UsageError: a prompt that the server's context cannot hold.
            RunFailed: a completion did not come, in spite of all repetitions, or came as no server of this
                protocol gives it.
        """
        if any(len(prompt) == 0 for prompt in prompts):
            raise ValueError("a prompt has no tokens")
        own = (sampling.top_p, sampling.top_k, dict(sampling.forbid_after)) == (1, 0, {})
        if sampling.logprobs and not (self.tells_drawn or (own and sampling.temperature in (0, 1))):
            raise ValueError("a server gives log-probabilities of the model's own distribution alone")
        if prompts and self.context is not None:
            self._fits(self.context, max(map(len, prompts)) + sampling.max_new_tokens)
        asked = self._asked(sampling)
        given = zip(prompts, seeds, strict=True)
        requests = [self._request(prompt, seed, sampling, asked) for prompt, seed in given]
        return asyncio.run(self._endpoint.ask_all(requests, finished))

    def sync(self) -> float | None:
        """Nothing: no policy stands behind it."""
        return None

    def rest(self) -> None:
        """Nothing: its memory is its own."""

    def close(self) -> None:
        """Nothing is kept open between calls."""

    @property
    def describes(self) -> str:
        """What it is, in a few words."""
        return f"{self._endpoint.address} serves {self.model!r}"

    def _ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        about: str,
        read: Callable[[Any], T],
        seconds: float | None = None,
    ) -> T:
        """Ask one thing; see `Request`."""

        async def asked() -> T:
            async with self._endpoint.client() as client:
                request = Request(method, path, body, about, read, seconds or self.spec.timeout)
                return await self._endpoint.ask(client, request)

        return asyncio.run(asked())

    def _fits(self, has: int, needed: int) -> None:
        if needed > has:
            raise UsageError(
                f"The server at {self._endpoint.address} has a context of {has} tokens for {self.model!r}; "
                f"the longest prompt and its completion need {needed}. Start it with "
                f"--max-model-len {needed}, or set `max_new_tokens` lower."
            )

    def _asked(self, sampling: Sampling) -> dict[str, Any]:
        """All of a request that is the same for every prompt."""
        asked: dict[str, Any] = {
            "model": self.model,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            # The checkpoint's EOS ends a completion and nothing else does, as with the other engines.
            "ignore_eos": True,
            "stop_token_ids": [self.eos_id],
            "add_special_tokens": False,
            "skip_special_tokens": False,
            "return_token_ids": True,
        }
        if sampling.logprobs:
            asked["logprobs"] = 0  # of the drawn token, and of no other
        if sampling.forbid_after:
            asked["bad_words"] = self._bad_words(sampling.forbid_after)
        return asked

    def _bad_words(self, forbid_after: Mapping[int, int]) -> list[str]:
        """What may not follow a token, as texts of two tokens, the second of which vLLM never draws.

        Raises `UsageError` for a pair that its text does not give back.
        """
        tokenizer = open_tokenizer(self.folder)
        words = []
        for pair in forbid_after.items():
            word = str(tokenizer.decode(list(pair)))
            if tokenizer.encode(word, add_special_tokens=False) != list(pair):
                raise UsageError(
                    f"A server is told what to forbid as text, and {word!r} is read as other tokens. Name "
                    "other words in `forbid`, or set engine: vllm or engine: transformers."
                )
            words.append(word)
        return words

    def _request(
        self, prompt: Sequence[int], seed: int, sampling: Sampling, asked: Mapping[str, Any]
    ) -> Request[Rollout]:
        """The request for one completion."""

        def read(answer: Any) -> Rollout:
            return self._rollout(answer, prompt, sampling)

        body = {**asked, "prompt": list(prompt), "seed": seed}
        about = f"a completion of {len(prompt)} + up to {sampling.max_new_tokens} tokens"
        return Request("POST", "/v1/completions", body, about, read, self.spec.timeout)

    def _rollout(self, answer: Any, prompt: Sequence[int], sampling: Sampling) -> Rollout:
        """Read an answer. Raises `HalfAnswer` for one that lacks something, `RunFailed` for a wrong one."""
        choice = read_choice(answer)
        token_ids, finish = read_token_ids(choice), choice.get("finish_reason")
        if finish not in ("stop", "length"):
            raise HalfAnswer(f"its finish_reason is {finish!r}")
        logprobs = read_logprobs(choice, len(token_ids)) if sampling.logprobs else None
        if wrong := self._wrong(answer, choice, prompt, token_ids, sampling):
            raise RunFailed(f"The server at {self._endpoint.address} {wrong}")
        return Rollout(token_ids, finish, logprobs)

    def _wrong(
        self,
        answer: Mapping[str, Any],
        choice: Mapping[str, Any],
        prompt: Sequence[int],
        token_ids: Sequence[int],
        sampling: Sampling,
    ) -> str | None:
        """What is wrong with a whole answer, which asking again would not mend."""
        if answer.get("model", self.model) != self.model:
            return f"answers with another model's name: {answer['model']!r}, not {self.model!r}."
        if choice.get("prompt_token_ids") not in (None, list(prompt)):
            return (
                "read another prompt than it was sent: it adds or changes tokens. Take one that leaves alone "
                "what comes as tokens, as vLLM does."
            )
        ended = token_ids[-1] == self.eos_id
        if ended != (choice["finish_reason"] == "stop"):
            return (
                f"ended a completion at token {token_ids[-1]} as {choice['finish_reason']!r}, and the "
                f"checkpoint's EOS is {self.eos_id}. It serves another model, or has an end of its own set."
            )
        if self.eos_id in token_ids[:-1]:
            return f"went on after the checkpoint's EOS, {self.eos_id}. It must know vLLM's `stop_token_ids`."
        if not ended and len(token_ids) != sampling.max_new_tokens:
            return (
                f"cut a completion at {len(token_ids)} tokens, and {sampling.max_new_tokens} were asked for. "
                "Start it without a limit of its own (--override-generation-config)."
            )
        for before, after in pairwise([prompt[-1], *token_ids]):
            if sampling.forbid_after.get(before) == after:
                return (
                    f"drew token {after} after {before}, which is forbidden. It must know vLLM's `bad_words`."
                )
        return None


# --- Reading answers


def _models_in(answer: Any) -> dict[str, int | None]:
    """Name and context of each model in the answer to `/v1/models`."""
    models = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(models, list) or not all(isinstance(m, dict) and "id" in m for m in models):
        raise HalfAnswer("no list of models")
    contexts = {str(model["id"]): model.get("max_model_len") for model in models}
    return {name: context if isinstance(context, int) else None for name, context in contexts.items()}


def _chosen(served: Mapping[str, int | None], named: str | None, address: str) -> str:
    """The model to ask for. Raises `UsageError` where it is not served, or none is named among several."""
    offered = f"it serves {', '.join(map(repr, served)) or 'none'}"
    if named is not None and named not in served:
        raise UsageError(
            f"The server at {address} does not serve {named!r}: {offered}. Set engine.model to what it "
            f"serves, or start it with --served-model-name {named}."
        )
    if named is None and len(served) != 1:
        raise UsageError(
            f"Set engine.model to say which model of the server at {address} is meant: {offered}."
        )
    return named or next(iter(served))


def read_choice(answer: Any) -> dict[str, Any]:
    """The one completion in an answer. Raises `HalfAnswer`, as do those below."""
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise HalfAnswer("no completion in it")
    return choices[0]


def read_token_ids(choice: Mapping[str, Any]) -> list[int]:
    """The tokens of a completion."""
    token_ids = choice.get("token_ids")
    if not isinstance(token_ids, list) or not token_ids or not all(type(each) is int for each in token_ids):
        raise HalfAnswer("no token ids in it; a server must know vLLM's `return_token_ids`")
    return token_ids


def read_logprobs(choice: Mapping[str, Any], count: int) -> list[float]:
    """The log-probability of each of its `count` tokens."""
    given = choice.get("logprobs")
    logprobs = given.get("token_logprobs") if isinstance(given, dict) else None
    if not isinstance(logprobs, list) or len(logprobs) != count:
        raise HalfAnswer("no log-probability for each token")
    if not all(isinstance(each, int | float) and math.isfinite(each) for each in logprobs):
        raise HalfAnswer("a log-probability is no number")
    return [float(each) for each in logprobs]
