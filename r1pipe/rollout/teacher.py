"""A teacher behind a chat server: questions go as messages, and texts come back.

What any server of OpenAI's chat completions tells is enough: the text, why it ended, how many tokens it took.
The thinking is taken from where DeepSeek's and vLLM's servers put it (`reasoning_content`, `reasoning`), or
from the `<think>` in the text, and the completion is written as the student's template would have it begun.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast

from r1pipe.measure.samples import SampleRow
from r1pipe.prompting import CLOSE_THINK, OPEN_THINK, opens_thinking
from r1pipe.rollout.answers import JournalRow
from r1pipe.rollout.endpoint import Endpoint, HalfAnswer, Request
from r1pipe.rollout.engine import Sampling
from r1pipe.rollout.overlap import Overlapped
from r1pipe.rollout.specs import TeacherSpec
from r1pipe.rollout.writers import Keep, Origin, Pairs, Written, judged, tokens_of
from r1pipe.text import shortened
from r1pipe.verify.verdict import Mark

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_THINKING: Final = ("reasoning_content", "reasoning")
"""Where a message has its thinking, if it is not in its text."""
_CUT_OFF: Final = ("length", "content_filter")
"""The reasons of OpenAI's protocol why a text is not whole."""
_ANYTHING: Final = "What is 1 + 1?"
_SHOWN: Final = 200  # characters of a refusal that are kept


@dataclass(frozen=True, slots=True)
class Said:
    """An answer."""

    thinking: str | None
    """None where it came without one, or with one in the text."""
    text: str
    truncated: bool
    """Whether it was cut off, by the token limit or by the server's filter."""
    tokens: int | None
    """Generated, as the server counts them; None where it does not tell."""
    prompt_tokens: int | None
    refused: str | None = None
    """How the server said that it would not answer; then there is no text."""

    def completion(self, opened: bool) -> str:
        """What a student is to write; `opened` says whether its prompt has begun the thinking."""
        thinking, text = self.thinking, self.text
        if thinking is None and text.lstrip().startswith(OPEN_THINK):
            return text.lstrip().removeprefix(OPEN_THINK).lstrip("\n") if opened else text.lstrip()
        if thinking is None:
            return text
        begin = "" if opened else f"{OPEN_THINK}\n"
        if self.truncated and not text:  # it was cut off while it thought
            return f"{begin}{thinking}"
        return f"{begin}{thinking.strip()}\n{CLOSE_THINK}\n\n{text.strip()}"


class TeacherWriter:
    """Asks a teacher, as many questions at once as its spec allows."""

    def __init__(
        self, spec: TeacherSpec, tokenizer: "PreTrainedTokenizerBase", say: Callable[[str], None]
    ) -> None:
        """`tokenizer` counts where the server does not. Raises `UsageError` for a missing key."""
        self._spec = spec
        self._tokenizer = tokenizer
        self._say = say
        self._endpoint = Endpoint(spec)
        self._told = False
        self._told_of_refusals = False

    @property
    def origin(self) -> Origin:
        """The server, which does not tell its version."""
        return Origin("teacher", None)

    def write(
        self, pairs: Pairs, sampling: Sampling, seeds: Sequence[int], keep: Keep, known: Collection[int] = ()
    ) -> Written:
        """Ask for one completion for each pair that is not known; each is judged as soon as it is there.

        Whether the seeds make the same text again is the server's affair. A question that it will not answer
        is undecided. Raises `RunFailed` where it answers none of these, nor what nobody would refuse.
        """
        self._introduce()
        places = [place for place in range(len(pairs)) if place not in known]
        asked = [pairs[place] for place in places]

        def judge(placed: Sequence[tuple[int, Said]]) -> list[SampleRow]:
            given = [asked[place] for place, _ in placed]
            texts = [
                said.completion(opens_thinking(question.prompt))
                for (question, _), (_, said) in zip(given, placed, strict=True)
            ]
            rows = judged(
                given,
                [
                    (text, self._count(said, text), said.truncated)
                    for text, (_, said) in zip(texts, placed, strict=True)
                ],
            )
            rows = [
                row if said.refused is None else _unanswered(row, said.refused)
                for row, (_, said) in zip(rows, placed, strict=True)
            ]
            keep(rows)
            return rows

        def finished(place: int, said: Said) -> None:
            if said.refused is None:  # else perhaps nothing is wrong with the question
                overlapped.finished(place, said)

        overlapped: Overlapped[Said, SampleRow]
        with Overlapped(judge) as overlapped:
            begun = time.monotonic()
            requests = [
                self._asking(question.item.question, seeds[place], sampling)
                for place, (question, _) in zip(places, asked, strict=True)
            ]
            said = asyncio.run(self._endpoint.ask_all(requests, finished))
            seconds = time.monotonic() - begun
            refused = [(place, each) for place, each in enumerate(said) if each.refused is not None]
            if refused and len(refused) == len(said):
                self._ask_anything(sampling)
            for each in refused:
                self._tell(each[1])
                overlapped.finished(*each)
            rows = overlapped.results(len(asked))
        prompts = [
            len(question.token_ids) if each.prompt_tokens is None else each.prompt_tokens
            for (question, _), each in zip(asked, said, strict=True)
        ]
        return Written(sum(row["tokens"] for row in rows), seconds, prompt_tokens=sum(prompts))

    def close(self) -> None:
        """Nothing is kept open between calls."""

    def _introduce(self) -> None:
        if not self._told:
            self._say(f"Teacher: {self._spec.model!r} on {self._endpoint.address}.")
            self._told = True

    def _ask_anything(self, sampling: Sampling) -> None:
        """Find out whether it answers what nobody would refuse. Raises `RunFailed` where it does not."""
        asyncio.run(self._endpoint.ask_all([replace(self._asking(_ANYTHING, 0, sampling), refused=None)]))

    def _tell(self, said: Said) -> None:
        if said.refused is not None and not self._told_of_refusals:
            self._say(f"The teacher will not answer some questions, which stay undecided: {said.refused}.")
            self._told_of_refusals = True

    def _asking(self, question: str, seed: int, sampling: Sampling) -> Request[Said]:
        system = [] if self._spec.system is None else [{"role": "system", "content": self._spec.system}]
        body = {
            "model": self._spec.model,
            "messages": [*system, {"role": "user", "content": question}],
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed,
            **({"top_k": sampling.top_k} if sampling.top_k else {}),  # a key that not all servers know
            **self._spec.options,
        }
        body = {key: value for key, value in body.items() if value is not None}
        about = f"an answer of up to {sampling.max_new_tokens} tokens"
        return Request("POST", "/v1/chat/completions", body, about, read_answer, self._spec.timeout, _refused)

    def _count(self, said: Said, text: str) -> int:
        return tokens_of(text, self._tokenizer) if said.tokens is None else said.tokens


def _refused(how: int | str, words: str) -> Said:
    """What a refusal is: an answer without text; `how` is the server's status, or what else says so."""
    said = f"refused ({how}): {shortened(words, _SHOWN)}".removesuffix(": ")
    return Said(None, "", truncated=False, tokens=0, prompt_tokens=0, refused=said)


def _paid(refusal: Said, usage: Any) -> Said:
    """A refusal that was generated: it took tokens, as the server tells."""
    tokens, prompt_tokens = (_tokens(usage, key) or 0 for key in ("completion_tokens", "prompt_tokens"))
    return replace(refusal, tokens=tokens, prompt_tokens=prompt_tokens)


def _unanswered(row: SampleRow, refusal: str) -> JournalRow:
    """The row of a question that was refused: nobody knows whether the teacher could have answered it."""
    told = {"verdict": Mark.UNDECIDED.value, "reason": refusal, "refused": True}
    return cast(JournalRow, {**row, **told})


def read_answer(answer: Any) -> Said:
    """Read the JSON of an answer. Raises `HalfAnswer` for one that lacks something."""
    choices = answer.get("choices") if isinstance(answer, Mapping) else None
    choice = choices[0] if isinstance(choices, list) and len(choices) == 1 else None
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(choice, Mapping) or not isinstance(message, Mapping):
        raise HalfAnswer("no message in it")
    if not isinstance(choice.get("finish_reason"), str):
        raise HalfAnswer("it does not say why it ended")
    thinking = next((message[key] for key in _THINKING if isinstance(message.get(key), str)), None)
    text = message.get("content")
    if not isinstance(text, str | None):
        raise HalfAnswer("no text in it")
    if text is None and thinking is None:
        if isinstance(refusal := message.get("refusal"), str):
            return _paid(_refused("its own words", refusal), answer.get("usage"))
        if choice["finish_reason"] == "content_filter":
            return _paid(_refused("content_filter", ""), answer.get("usage"))
        raise HalfAnswer("no text in it")
    usage = answer.get("usage")
    return Said(
        thinking or None,
        text or "",
        choice["finish_reason"] in _CUT_OFF,
        _tokens(usage, "completion_tokens"),
        _tokens(usage, "prompt_tokens"),
    )


def _tokens(usage: Any, key: str) -> int | None:
    count = usage.get(key) if isinstance(usage, Mapping) else None
    return count if type(count) is int and count >= 0 else None
