"""pass@k and maj@k from n samples of a problem."""

from collections import Counter
from collections.abc import Sequence
from math import comb


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """The chance that at least one of k samples passes, without bias: 1 - C(n - c, k) / C(n, k).

    Chen et al. 2021 (arXiv 2107.03374), equation 1. `samples` is n, `passed` is c.

    >>> pass_at_k(4, 1, 2)
    0.5

    Raises:
        ValueError: unless 1 <= k <= samples and 0 <= passed <= samples.
    """
    if not 1 <= k <= samples or not 0 <= passed <= samples:
        raise ValueError(f"pass@{k} cannot be taken from {samples} samples of which {passed} passed")
    return 1 - comb(samples - passed, k) / comb(samples, k)


def majority_at_k(answers: Sequence[str | None], passed: Sequence[bool], k: int) -> float:
    """The chance that the commonest of k samples' answers passes, over the disjoint blocks of k samples.

    A sample without an answer has no vote. Among equally common answers one is taken at random, so a block
    may count for a fraction. Samples left over from the last whole block are not used.

    Raises:
        ValueError: unless 1 <= k <= the number of samples, or the two sequences differ in length.
    """
    if len(answers) != len(passed) or not 1 <= k <= len(answers):
        raise ValueError(f"maj@{k} cannot be taken from {len(answers)} answers and {len(passed)} marks")
    starts = range(0, len(answers) - k + 1, k)
    return sum(_majority(answers[i : i + k], passed[i : i + k]) for i in starts) / len(starts)


def _majority(answers: Sequence[str | None], passed: Sequence[bool]) -> float:
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0.0
    right = dict(zip(answers, passed, strict=True))
    most = max(votes.values())
    leaders = [answer for answer, count in votes.items() if count == most]
    return sum(right[answer] for answer in leaders) / len(leaders)
