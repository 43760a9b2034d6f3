"""What the tiny world's base model reads: every behaviour of a reasoner is in it, untidily.

RL sharpens what a base model does now and then; it invents nothing (docs/experiments.md). So the corpus holds
search with backtracking as a minority habit, among many traces that give up after a try or two, sums, and
documents that need no thinking. Verdicts are put into either of two languages; the longer the search, the
more they mix.
"""

from collections.abc import Callable, Iterator
from functools import cache
from random import Random

from pydantic import BaseModel, ConfigDict, Field, model_validator

from r1pipe.tasks.countdown import CountdownProblem, problems
from r1pipe.tasks.documents import draw_document
from r1pipe.world.solver import SolverAttempt, attempts, guesses, nearest, write_answer, write_thinking
from r1pipe.world.words import ASSISTANT, EOS, LANGUAGES, USER, Role

_FIRST, _SECOND = LANGUAGES  # the language of most words, and the one that is mixed in


class Mix(BaseModel):
    """Shares of the kinds of documents; they need not add up to one."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    sums: float = Field(default=0.14, ge=0)
    """Lines of sums: `7 * 8 = 56 ; 3 + 9 = 12`."""
    drills: float = Field(default=0.03, ge=0)
    """Attempts at one problem after another, with nothing around them: `… left 6 to 34 ; 9 + 6 = 15 no …`."""
    single: float = Field(default=0.0, ge=0)
    """Traces of one attempt; more than half of them hit."""
    short: float = Field(default=0.45, ge=0)
    """Traces that try once or twice and give up."""
    search: float = Field(default=0.28, ge=0)
    """Traces that go on trying."""
    plain: float = Field(default=0.10, ge=0)
    """Documents that are answered without thinking."""

    @model_validator(mode="after")
    def _something(self) -> "Mix":
        if not any(share for _, share in self):
            raise ValueError(f"every share is 0; give one of {', '.join(type(self).model_fields)}")
        return self


class Habits(BaseModel):
    """How the documents are written."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    guess_temperature: float = Field(default=30.0, gt=0)
    """How badly the first attempt is guessed: near 0 only the best is made, far above 30 all are alike. Those
    after it follow in turn."""
    short_attempts: tuple[int, int] = (1, 2)
    """Fewest and most attempts of a trace that gives up."""
    search_attempts: tuple[int, int] = (3, 10)
    """Fewest and most attempts of a trace that searches."""
    short_mixing: float = Field(default=0.1, ge=0, le=1)
    """Chance that a word of a short trace is in the second language."""
    search_mixing: float = Field(default=0.45, ge=0, le=1)
    """The same for a long one."""
    repeats: float = Field(default=0.05, ge=0, le=1)
    """Chance, at each attempt of a long trace, that an earlier one is made again before it."""
    lost: float = Field(default=0.0, ge=0, le=1)
    """Chance that a long trace overlooks what hits, goes once through all its failures and gives up."""
    reflections: float = Field(default=0.3, ge=0, le=1)
    """Chance that a change of mind is put into words."""
    summaries: float = Field(default=0.25, ge=0, le=1)
    """Chance that a line which sums up the last attempt stands before the answer."""
    sums_per_document: int = Field(default=8, ge=1)
    """Sums on a line."""
    drills_per_document: int = Field(default=6, ge=1)
    """Attempts of a drill."""

    @model_validator(mode="after")
    def _bounds(self) -> "Habits":
        for name in ("short_attempts", "search_attempts"):
            fewest, most = getattr(self, name)
            if not 1 <= fewest <= most:
                raise ValueError(f"{name} is [{fewest}, {most}]: write the fewest, at least 1, and the most")
        return self


def documents(count: int, seed: int, mix: Mix, habits: Habits) -> Iterator[dict[str, str]]:
    """`count` rows `{id, kind, problem, text}`; row i is a function of the seed and i.

    Traces are about problems of the split "seen" only. `problem` is the problem's id, or "".
    """
    seen = problems(split="seen")
    writers: dict[str, Callable[[Random], tuple[str, str]]] = {
        "sums": lambda rng: ("", _sums(rng, habits)),
        "drills": lambda rng: ("", _drills(rng, habits)),
        "single": lambda rng: _single(rng, habits),
        "short": lambda rng: _trace(rng, rng.choice(seen), habits, searching=False),
        "search": lambda rng: _trace(rng, rng.choice(seen), habits, searching=True),
        "plain": _plain,
    }
    kinds = list(writers)
    shares = [getattr(mix, kind) for kind in kinds]
    for i in range(count):
        rng = Random(f"corpus:{seed}:{i}")
        kind = rng.choices(kinds, shares)[0]
        problem, text = writers[kind](rng)
        yield {"id": f"{kind}-{i}", "kind": kind, "problem": problem, "text": f"{text} {EOS}"}


@cache
def _every_sum() -> tuple[str, ...]:
    """Every distinct step of every way to spend the numbers of a problem: 1,772 sums."""
    given = dict.fromkeys(problem.numbers for problem in problems(split="seen"))
    steps = (step for numbers in given for way in attempts(numbers) for step in way.steps)
    return tuple(dict.fromkeys(steps))


def _sums(rng: Random, habits: Habits) -> str:
    # Each sum alike: in traces 300 of them make up three quarters, and the others are learned here.
    return " ; ".join(rng.choices(_every_sum(), k=habits.sums_per_document))


def _drills(rng: Random, habits: Habits) -> str:
    words = []
    for _ in range(habits.drills_per_document):
        problem = rng.choice(problems(split="seen"))
        tried = _one_attempt(problem, rng)
        verdict = _word("yes" if tried.value == problem.target else "no", habits.short_mixing, rng)
        words += [tried.line(problem.target), verdict]
    return " ".join(words)


def _word(role: Role, mixing: float, rng: Random) -> str:
    return LANGUAGES[_language(mixing, rng)][role]


def _language(mixing: float, rng: Random) -> str:
    return _SECOND if rng.random() < mixing else _FIRST


def _single(rng: Random, habits: Habits) -> tuple[str, str]:
    problem = rng.choice(problems(split="seen"))
    return _document(rng, problem, [_one_attempt(problem, rng)], habits.short_mixing, habits)


def _one_attempt(problem: CountdownProblem, rng: Random) -> SolverAttempt:
    """Any attempt, or as often one that hits."""
    ways = nearest(problem.numbers, problem.target)
    hits = [way for way in ways if way.value == problem.target]
    return rng.choice(hits if rng.random() < 0.5 else ways)


def _trace(rng: Random, problem: CountdownProblem, habits: Habits, *, searching: bool) -> tuple[str, str]:
    most = rng.randint(*(habits.search_attempts if searching else habits.short_attempts))
    mixing = habits.search_mixing if searching else habits.short_mixing
    tried = guesses(problem.numbers, problem.target, most, habits.guess_temperature, rng)
    if searching and rng.random() < habits.lost:
        tried = _lost(problem, rng) or tried
    elif searching:
        tried = list(_with_repeats(tried, problem.target, habits.repeats, rng))
    return _document(rng, problem, tried, mixing, habits)


def _document(
    rng: Random, problem: CountdownProblem, tried: list[SolverAttempt], mixing: float, habits: Habits
) -> tuple[str, str]:
    thinking = write_thinking(
        tried,
        problem.target,
        language=lambda: _language(mixing, rng),
        reflects=lambda: rng.random() < habits.reflections,
    )
    asked = f"{USER} {problem.question(rng)} {ASSISTANT}"
    summary = _language(mixing, rng) if rng.random() < habits.summaries else None
    return problem.id, f"{asked} <think> {thinking} </think> {write_answer(tried[-1], summary=summary)}"


def _lost(problem: CountdownProblem, rng: Random) -> list[SolverAttempt]:
    """Every failure in turn, from any of them on; none where every attempt hits."""
    failures = [way for way in nearest(problem.numbers, problem.target) if way.value != problem.target]
    begin = rng.randrange(len(failures)) if failures else 0
    return failures[begin:] + failures[:begin]


def _with_repeats(
    tried: list[SolverAttempt], target: int, chance: float, rng: Random
) -> Iterator[SolverAttempt]:
    """The same attempts, some of the failed ones made again later, as an untidy searcher would."""
    for i, attempt in enumerate(tried):
        if i > 1 and rng.random() < chance:
            yield rng.choice(tried[: i - 1])
        yield attempt


def _plain(rng: Random) -> tuple[str, str]:
    question, answer = draw_document(rng)
    return "", f"{USER} {question} {ASSISTANT} {answer}"
