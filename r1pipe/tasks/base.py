"""The promise every task makes: items by seed and index, and a verdict on any completion."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar, Final, Literal, Protocol, TypeVar, get_args

from r1pipe.errors import RunFailed, UsageError
from r1pipe.jsonl import BadRow
from r1pipe.machine import cores
from r1pipe.prompting import Parsed, parse
from r1pipe.verify.verdict import Completion, Verdict, failed, undecided

T = TypeVar("T")
Split = Literal["seen", "held-out", "all"]
SPLITS: Final[tuple[Split, ...]] = get_args(Split)
"""What may be trained on, what may not, and both."""
TruncatedRule = Literal["fail", "undecided"]

MISTAKES: Final = (
    ArithmeticError, AssertionError, AttributeError, LookupError, NameError, OSError, RuntimeError,
    StopIteration, TypeError, ValueError,
)  # fmt: skip
"""What a judge or a reward with a mistake in it raises."""

HELD_OUT_ONE_IN: Final = 5
"""One problem in this many is held out: it occurs in no corpus, no step of training and no trace."""


@dataclass(frozen=True, slots=True)
class Item:
    """One question with what is needed to judge an answer to it."""

    id: str
    """The problem's own name: the same problem worded twice has one id."""
    question: str
    gold: Any
    """JSON. What it means is the task's own affair."""
    reasoning: bool = True
    """Whether the prompt opens `<think>`, and whether the format reward expects thinking."""
    difficulty: float | None = None
    """How hard it is on the task's own scale; None where the task does not say."""
    meta: dict[str, Any] = field(default_factory=dict)


class Task(ABC):
    """Questions that a program can ask and judge."""

    splits: ClassVar[tuple[Split, ...]] = SPLITS
    truncated: TruncatedRule = "fail"
    """What a completion cut off by the token limit counts as. The paper's accuracy counts it as wrong."""
    bad: tuple[BadRow, ...] = ()
    """Rows of its file that were set aside, each with its place and the reason."""
    rewords: ClassVar[bool] = False
    """Whether one problem may be asked in several wordings, under one id."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What rows and messages call it; a plain class attribute will do."""

    @abstractmethod
    def items(self, split: str, count: int | None, seed: int) -> list[Item]:
        """The first `count` items of a split, or one pass over it. Item i depends on the seed and i alone.

        Raises:
            UsageError: the task has no such split, or nothing is in it.
        """

    @property
    def waits(self) -> bool:
        """Whether a judgement waits for another process, so that several are worth making side by side."""
        return False

    @abstractmethod
    def judge_answer(self, item: Item, answer: str) -> Verdict:
        """The verdict on an answer that was taken out of its completion. Never raises on any answer."""

    def right_answer(self, item: Item) -> str | None:
        """An answer that must pass, or None where the task knows none; the check before an RL gives it."""
        return item.gold if isinstance(item.gold, str) else None

    def is_open(self, item: Item) -> bool:
        """Whether the question has no one right answer, so that unrelated words may well pass."""
        return False

    def extract(self, item: Item, parsed: Parsed) -> str | None:
        """The answer in a completion, or None; before anything is compared."""
        return parsed.answer

    def judge(self, item: Item, completion: Completion) -> Verdict:
        """The verdict on a whole completion. Never raises on any completion."""
        if completion.truncated:
            return failed("truncated") if self.truncated == "fail" else undecided("truncated")
        parsed = parse(completion.text, completion.opened)
        if not parsed.closed:
            return failed("thinking not closed")
        answer = self.extract(item, parsed)
        return failed("no answer") if answer is None else self.judge_answer(item, answer)


Judged = tuple[Task, Item, Completion]
"""What is to be judged: a completion, and whose question it answers."""


def judge_all(given: Sequence[Judged]) -> list[Verdict]:
    """The verdicts in order; those that wait for other processes are made side by side, one for each core.

    Raises:
        RunFailed: a judge has a mistake in it; the item and the completion are named, no verdict is made up.
    """
    if not any(task.waits for task, _, _ in given):
        return list(map(_judged, given))
    with ThreadPoolExecutor(cores()) as threads:
        return list(threads.map(_judged, given))


def _judged(each: Judged) -> Verdict:
    task, item, completion = each
    try:
        verdict = task.judge(item, completion)
        if not isinstance(verdict, Verdict):
            raise TypeError(f"a judge gives a Verdict, not {verdict!r}")
        return verdict
    except MISTAKES as error:
        raise RunFailed(
            f"Judging item {item.id!r} of {task.name!r} failed with {type(error).__name__}: {error}. "
            f"The completion was {completion.text!r}. No verdict was made up for it."
        ) from error


def take(pool: Sequence[T], count: int | None, seed: int) -> Iterator[tuple[T, Random]]:
    """The first `count` members of a pool in the order of a seed, each with its own source of randomness.

    Every pass over the pool is a permutation of its own, so no member comes twice before all have come once.
    Without a count it is one pass.
    """
    wanted = len(pool) if count is None else count
    for start in range(0, wanted, len(pool)) if pool else ():
        passed = list(pool)
        Random(f"{seed}:pass:{start // len(pool)}").shuffle(passed)
        for i, member in enumerate(passed[: wanted - start], start):
            yield member, Random(f"{seed}:item:{i}")


class _Named(Protocol):
    @property
    def id(self) -> str: ...


N = TypeVar("N", bound=_Named)
REDRAWS: Final = 30
"""Draws made to avoid asking the same twice; a small space has to repeat itself."""


def distinct(draw: Callable[[int, Random], N], rngs: Iterable[Random]) -> Iterator[N]:
    """One draw of (place, randomness) for each source of randomness, drawn again while it has come before."""
    asked: set[str] = set()
    for place, rng in enumerate(rngs):
        drawn = draw(place, rng)
        for _ in range(REDRAWS):
            if drawn.id not in asked:
                break
            drawn = draw(place, rng)
        asked.add(drawn.id)
        yield drawn


def held_out(key: str) -> bool:
    """Whether the problem that `key` names is held out; the same on every machine and for every seed."""
    return int(hashlib.sha256(key.encode()).hexdigest(), 16) % HELD_OUT_ONE_IN == 0


def check_split(task: Task, split: str) -> None:
    """Raises UsageError when the task has no such split."""
    if split not in task.splits:
        raise UsageError(f"Task {task.name!r} has no split {split!r}; it has {', '.join(task.splits)}.")


def in_split(problem_held_out: bool, split: str) -> bool:
    """Whether a problem belongs to a split."""
    return split == "all" or problem_held_out == (split == "held-out")
