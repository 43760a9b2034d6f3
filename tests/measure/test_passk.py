"""pass@k and maj@k."""

from itertools import combinations

import pytest

from r1pipe.measure.passk import majority_at_k, pass_at_k


@pytest.mark.parametrize(("samples", "passed"), [(1, 0), (1, 1), (5, 0), (5, 2), (5, 5), (8, 3)])
def test_pass_at_k_is_the_share_of_subsets(samples: int, passed: int) -> None:
    """pass@k is the share of all k-subsets of the samples that hold one that passes."""
    marks = [True] * passed + [False] * (samples - passed)
    for k in range(1, samples + 1):
        subsets = list(combinations(marks, k))
        assert pass_at_k(samples, passed, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


@pytest.mark.parametrize(("samples", "passed", "k"), [(4, 1, 0), (4, 1, 5), (4, 5, 1), (4, -1, 1)])
def test_pass_at_k_refuses(samples: int, passed: int, k: int) -> None:
    """What no samples could have given is refused."""
    with pytest.raises(ValueError, match="pass@"):
        pass_at_k(samples, passed, k)


@pytest.mark.parametrize(
    ("answers", "right", "k", "share"),
    [
        ("aab", "a", 3, 1.0),
        ("abb", "a", 3, 0.0),
        ("ab", "a", 2, 0.5),  # a tie is settled at random
        ("abc", "a", 3, 1 / 3),
        ("aabb", "a", 2, 0.5),  # two blocks: one right, one wrong
        ("aabbb", "a", 2, 0.5),  # the fifth sample is in no whole block
        ("--a", "a", 3, 1.0),  # a sample without an answer has no vote
        ("---", "a", 3, 0.0),
        ("ab", "a", 1, 0.5),
    ],
)
def test_majority_at_k(answers: str, right: str, k: int, share: float) -> None:
    """The commonest answer counts, over the disjoint blocks of k samples."""
    given = [None if answer == "-" else answer for answer in answers]
    assert majority_at_k(given, [answer == right for answer in given], k) == pytest.approx(share)


def test_majority_at_k_refuses() -> None:
    """More samples than there are cannot vote."""
    with pytest.raises(ValueError, match="maj@3"):
        majority_at_k(["a", "b"], [True, False], 3)
