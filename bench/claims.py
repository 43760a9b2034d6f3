"""What the recipe tiny-r1 is to show, checked on unrounded means over seeds. Pure functions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev
from typing import Any

from bench.common import Usage, table

HELD_OUT = "held-out"
BASES = ("base", "student-base")
PROBLEMS, SAMPLES, SEEDS = 600, 4, (0, 1, 2)
"""How many held-out problems, completions of each and seeds the figures are to rest on, at least."""


@dataclass(frozen=True, slots=True)
class SeedResult:
    """One finished run."""

    seed: int
    models: Mapping[str, Mapping[str, Any]]
    """What `r1pipe scores --json` gives under `models`."""
    cpu_seconds: Mapping[str, float]
    """Of each stage."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One figure and the bound it has to keep."""

    text: str
    value: float | None
    """None when it was not measured, and then it is missed."""
    relation: str
    """`>=`, `<=` or `<`."""
    bound: float | None

    @property
    def held(self) -> bool:
        """Whether the figure keeps the bound, exactly: nothing is rounded."""
        if self.value is None or self.bound is None:
            return False
        return {
            ">=": self.value >= self.bound,
            "<=": self.value <= self.bound,
            "<": self.value < self.bound,
        }[self.relation]

    @property
    def as_json(self) -> dict[str, Any]:
        """The claim with its verdict."""
        return {
            "claim": self.text,
            "value": self.value,
            "relation": self.relation,
            "bound": self.bound,
            "held": self.held,
        }


def claims_table(found: Iterable[Claim]) -> str:
    """Every claim, whether it was held, and by how much, as Markdown."""
    rows = [
        [
            claim.text,
            "held" if claim.held else "**missed**",
            _exact(claim.value),
            claim.relation,
            _exact(claim.bound),
        ]
        for claim in found
    ]
    return table(["claim", "", "value", "", "bound"], rows)


def _exact(value: float | None) -> str:
    """Digits enough to see by how much a claim is held or missed."""
    return "not measured" if value is None else f"{value:.6g}"


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over seeds with its standard error, which one seed does not have."""

    value: float
    stderr: float | None


class Means:
    """Means over seeds of any score."""

    def __init__(self, seeds: Sequence[SeedResult]) -> None:
        self.seeds = seeds
        self.models = list(dict.fromkeys(model for seed in seeds for model in seed.models))
        """Those that any seed has scores for."""

    def of(self, model: str, key: str, in_set: str = HELD_OUT) -> Mean | None:
        """The mean of a score such as `pass_at_1` or `pass_at_k.16`; None unless every seed has it."""
        found = [_score(seed, model, key, in_set) for seed in self.seeds]
        values = [value for value in found if value is not None]
        if not values or len(values) < len(found):
            return None
        return Mean(fmean(values), stdev(values) / sqrt(len(values)) if len(values) > 1 else None)

    def value(self, model: str, key: str, in_set: str = HELD_OUT) -> float | None:
        """The mean alone."""
        mean = self.of(model, key, in_set)
        return None if mean is None else mean.value

    def least(self, model: str, key: str) -> float | None:
        """The smallest over seeds, on the held-out problems; None unless every seed has it."""
        return _least([_score(seed, model, key, HELD_OUT) for seed in self.seeds])

    def error_of_difference(self, one: str, other: str) -> float | None:
        """Standard error of the difference of two models' mean pass@1, from the problems of each seed.

        The errors are taken as independent; since both models answer the same problems, the true one is
        rather smaller.
        """
        found = [_score(seed, model, "stderr", HELD_OUT) for seed in self.seeds for model in (one, other)]
        errors = [error for error in found if error is not None]
        if not errors or len(errors) < len(found):
            return None
        return sqrt(sum(error**2 for error in errors)) / len(self.seeds)


def _score(seed: SeedResult, model: str, key: str, in_set: str) -> float | None:
    found: Any = seed.models.get(model, {}).get("sets", {}).get(in_set)
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def claims(seeds: Sequence[SeedResult]) -> list[Claim]:
    """Every claim about the tree, in the order of its stages."""
    means = Means(seeds)
    return [*_size(means), *_reinforcement(means), *_readability(means), *_students(means), _cut(means)]


def resources(usages: Sequence[Usage]) -> list[Claim]:
    """What a run on two cores may take.

    A figure that was not measured is 0 in `usages`, as where several seeds were run at once and the time of
    none says anything. At least one has to be there.
    """
    minutes = [usage.seconds / 60 for usage in usages]
    gigabytes = [usage.peak_bytes / 1e9 for usage in usages]
    return [
        Claim("wall minutes of a run (the longest that was measured) <= 15", _most(minutes), "<=", 15),
        Claim("GB of memory of a run (the most that was measured) <= 4", _most(gigabytes), "<=", 4),
    ]


def _most(measured: Sequence[float]) -> float | None:
    return max(filter(None, measured), default=None)


def _size(means: Means) -> Iterator[Claim]:
    yield Claim("seeds", len({seed.seed for seed in means.seeds}), ">=", len(SEEDS))
    problems = [means.least(model, "problems") for model in means.models]
    yield Claim("held-out problems of every model", _least(problems), ">=", PROBLEMS)
    samples = [means.least(model, "samples") for model in means.models]
    yield Claim("held-out completions of every model", _least(samples), ">=", PROBLEMS * SAMPLES)


def _reinforcement(means: Means) -> Iterator[Claim]:
    base, zero, cold, reasoner, sft, r1 = (
        means.value(model, "pass_at_1") for model in ("base", "zero", "cold", "reasoner", "sft", "r1")
    )
    yield Claim("zero >= base + 0.30", zero, ">=", _plus(base, 0.30))
    length = means.value("base", "mean_tokens")
    text = "length of zero >= 1.5 x that of base"
    yield Claim(text, means.value("zero", "mean_tokens"), ">=", None if length is None else 1.5 * length)
    yield Claim("reasoner >= cold + 0.03", reasoner, ">=", _plus(cold, 0.03))
    yield Claim("sft >= base + 0.30", sft, ">=", _plus(base, 0.30))
    yield Claim("r1 >= 0.70", r1, ">=", 0.70)
    yield Claim("r1 >= sft", r1, ">=", sft)
    error = means.error_of_difference("zero", "r1")
    bound = None if error is None else _plus(zero, -2 * error)
    yield Claim("r1 >= zero - 2 standard errors", r1, ">=", bound)


def _readability(means: Means) -> Iterator[Claim]:
    said = {
        model: means.value(model, "language_consistency")
        for model in ("base", "zero", "cold", "reasoner", "r1")
    }
    yield Claim("language consistency of zero < that of base", said["zero"], "<", said["base"])
    for model in ("cold", "reasoner", "r1"):
        yield Claim(f"language consistency of {model} >= 0.97", said[model], ">=", 0.97)


def _students(means: Means) -> Iterator[Claim]:
    control = means.value("student-rl", "pass_at_1")
    distilled = means.value("student", "pass_at_1")
    yield Claim("student >= student-rl + 0.05", distilled, ">=", _plus(control, 0.05))
    spent = {stage: _cpu_seconds(means, stage) for stage in ("student", "student-rl")}
    yield Claim("CPU seconds of student <= those of student-rl", spent["student"], "<=", spent["student-rl"])


def _cpu_seconds(means: Means, stage: str) -> float | None:
    found = [seed.cpu_seconds.get(stage) for seed in means.seeds]
    values = [value for value in found if value is not None]
    return fmean(values) if values and len(values) == len(found) else None


def _cut(means: Means) -> Claim:
    """Of all models but the bases, the one that is cut off most often."""
    trained = [model for model in means.models if model not in BASES]
    shares = [means.value(model, "truncated") for model in trained]
    known = [share for share in shares if share is not None]
    most = max(known) if known and len(known) == len(shares) else None
    return Claim(
        "truncated on held-out problems <= 0.05 for every model but the bases (the largest)", most, "<=", 0.05
    )


def persistence_share(means: Means) -> float | None:
    """How much of zero's gain over the base is had by merely forbidding the base to give up."""
    base, zero = means.value("base", "pass_at_1"), means.value("zero", "pass_at_1")
    held = means.value("base", "pass_at_1", "persist")
    if base is None or zero is None or held is None or zero == base:
        return None
    return (held - base) / (zero - base)


def _plus(value: float | None, more: float) -> float | None:
    return None if value is None else value + more


def _least(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return min(known) if known and len(known) == len(values) else None
