"""Asking an HTTP server for something, again where that may help, and saying well why nothing came.

A try has a deadline for the whole of it. What may pass is asked for again after growing waits: no connection,
no answer in time, half an answer, 429 and 5xx. What a server refuses (4xx) it would refuse again.
"""

import asyncio
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Generic, TypeVar

import httpx2

from r1pipe.errors import RunFailed, UsageError
from r1pipe.rollout.specs import RemoteSpec, TeacherSpec

T = TypeVar("T")

_CONNECTING: Final = 10.0
"""Seconds for a connection, which needs no model."""
_FIRST_WAIT: Final = 0.5
"""Seconds before the first repetition; each further wait is twice as long."""
_LONGEST_WAIT: Final = 30.0
_CHANCE: Final = random.SystemRandom()
"""Spreads the waits, so that what failed together does not come again together; nobody's seed knows it."""
_SHOWN: Final = 300
"""Characters of an answer that a message shows."""
_PASSING: Final = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
"""What passes, besides all of 5xx."""
_OF_THE_REQUEST: Final = {
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
}
"""What is said of one request, and not of the server, its key or its model."""


class HalfAnswer(Exception):
    """An answer lacks something, and may be whole when it is asked for again."""


@dataclass(frozen=True, slots=True)
class Request(Generic[T]):
    """One thing asked of a server."""

    method: str
    path: str
    body: dict[str, Any] | None
    about: str
    """What it is, for a message."""
    read: Callable[[Any], T]
    """Makes the result of an answer's JSON; raises `HalfAnswer`."""
    seconds: float
    """After which one try is given up."""
    refused: Callable[[int, str], T] | None = None
    """Makes the result of status and words of a server that will not have this request; where it is None,
    that ends all."""


class Endpoint:
    """The server's address and key, and how often it is asked."""

    def __init__(self, spec: RemoteSpec, way: str = "") -> None:
        """`way` is what helps where the server gives nothing, for the end of a message."""
        # People write the address with and without the protocol's `/v1`.
        self.address = str(spec.url).rstrip("/").removesuffix("/v1")
        self._spec = spec
        self._way = f" {way}" if way else ""
        self._of = "teacher" if isinstance(spec, TeacherSpec) else "engine"  # where a recipe has its fields
        self._key = _key(spec.api_key_env, self._of)

    def client(self) -> httpx2.AsyncClient:
        """A client for one event loop."""
        most = self._spec.concurrency
        return httpx2.AsyncClient(
            base_url=self.address,
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx2.Timeout(None, connect=_CONNECTING),  # the whole try has a deadline
            limits=httpx2.Limits(max_connections=most, max_keepalive_connections=most),
        )

    async def ask(self, client: httpx2.AsyncClient, request: Request[T]) -> T:
        """The answer. Raises `RunFailed` where none came, `UsageError` where it is the key that is wrong."""
        begun = time.monotonic()
        tries = self._spec.retries + 1
        for number in range(1, tries + 1):
            try:
                return await self._try(client, request)
            except _Failed as failure:
                if request.refused is not None and failure.status in _OF_THE_REQUEST:
                    return request.refused(failure.status, failure.words)
                if number == tries or not failure.passing:
                    tried = "once" if number == 1 else f"{number} times in {time.monotonic() - begun:.1f} s"
                    raise self._given_up(request, failure, tried) from None
                wait = min(_FIRST_WAIT * 2 ** (number - 1), _LONGEST_WAIT) * _CHANCE.uniform(0.5, 1.5)
                await asyncio.sleep(max(wait, failure.wait))
        raise AssertionError("the last try returns or raises")

    async def ask_all(
        self, requests: Sequence[Request[T]], finished: Callable[[int, T], None] | None = None
    ) -> list[T]:
        """The answers in order, as many under way at once as the spec allows; raises what `ask` does.

        `finished` is told of each as soon as it is there, by its place. The first that fails ends all.
        """
        room = asyncio.Semaphore(self._spec.concurrency)

        async def one(place: int, request: Request[T]) -> T:
            async with room:  # the time spent waiting for room does not count
                answer = await self.ask(client, request)
            if finished is not None:
                finished(place, answer)
            return answer

        async with self.client() as client:
            tasks = [asyncio.ensure_future(one(*each)) for each in enumerate(requests)]
            try:
                return await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()

    async def _try(self, client: httpx2.AsyncClient, request: Request[T]) -> T:
        """Ask once. Raises `_Failed`."""
        try:
            async with asyncio.timeout(request.seconds):
                answer = await client.request(request.method, request.path, json=request.body)
        except TimeoutError:
            raise _Failed(f"it gave no whole answer in {request.seconds:g} s") from None
        except httpx2.RequestError as error:
            raise _Failed(
                f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            ) from None
        words = self._shown(answer.text)
        said = f"{answer.status_code} {words}".strip()
        if answer.status_code != HTTPStatus.OK:
            passing = answer.is_server_error or answer.status_code in _PASSING
            raise _Failed(said, passing, answer.status_code, words, wait=_retry_after(answer))
        try:
            return request.read(answer.json())
        except HalfAnswer as half:
            raise _Failed(f"half an answer, {half}: {said}") from None
        except ValueError:  # no JSON, or bytes that are no text
            raise _Failed(f"half an answer, no JSON: {said}") from None

    def _shown(self, text: str) -> str:
        """The first characters of an answer, in which a key that it repeats is not told."""
        bare = " ".join(text.split())
        bare = bare.replace(self._key, "***") if self._key else bare
        return bare if len(bare) <= _SHOWN else f"{bare[:_SHOWN]}…"

    def _given_up(self, request: Request[Any], failure: "_Failed", tried: str) -> RunFailed | UsageError:
        asked = f"{request.about} ({request.method} {request.path})"
        said = f"The server at {self.address} was asked for {asked} {tried}; it last said: {failure}"
        if failure.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            held = self._spec.api_key_env
            way = f"Look at the key in {held}." if held else f"Set {self._of}.api_key_env to its variable."
            return UsageError(f"{said}. {way}")
        if not failure.passing:
            return RunFailed(f"{said}. It refuses the request itself; see its log.{self._way}")
        return RunFailed(
            f"{said}. See whether it runs and what its log says; {self._of}.timeout is "
            f"{self._spec.timeout:g} s, {self._of}.retries {self._spec.retries}. Run the same command to go "
            f"on.{self._way}"
        )


class _Failed(Exception):
    """A try did not succeed; the message is what the server said."""

    def __init__(
        self, said: str, passing: bool = True, status: int = 0, words: str = "", *, wait: float = 0.0
    ) -> None:
        """`passing`: whether another try may help, after at least `wait` seconds; `words`: of the answer."""
        super().__init__(said)
        self.passing = passing
        self.status = status
        self.words = words
        self.wait = wait


def _retry_after(answer: httpx2.Response) -> float:
    """Seconds that the server wants to be left alone, within reason."""
    text = answer.headers.get("Retry-After", "")
    return min(float(text), 2 * _LONGEST_WAIT) if text.isdecimal() else 0.0


def _key(variable: str | None, of: str) -> str | None:
    """The key in an environment variable, as `of` names it. Raises `UsageError`, which does not tell it."""
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UsageError(f"{of}.api_key_env names {variable}, which is not set. Put the server's key in it.")
    if not key.isascii() or not key.isprintable():
        raise UsageError(f"The key in {variable} has a character that no key has. Set the variable anew.")
    return key
