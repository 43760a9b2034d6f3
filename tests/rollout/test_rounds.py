"""Who is asked how often: a function of each prompt's own verdicts."""

from collections import Counter, defaultdict
from itertools import chain
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1pipe.rollout.asking import Question
from r1pipe.rollout.rounds import Rounds
from r1pipe.rollout.shards import cut, shard_of
from r1pipe.tasks.base import Item
from r1pipe.tasks.countdown import Countdown

TASK = Countdown()


def questions(*names: str) -> list[Question]:
    return [Question(TASK, Item(name, name, ""), name, [1]) for name in names]


def asked(
    rounds: Rounds, prompts: list[Question], passing: dict[str, set[int]], budget: int | None = None
) -> list[list[tuple[str, int]]]:
    """The rounds where, of each problem, the samples `passing` are accepted."""
    right: Counter[str] = Counter()
    made = []
    for pairs in rounds.of(prompts, right.__getitem__, budget):
        made.append([(question.item.id, sample) for question, sample in pairs])
        for problem, sample in made[-1]:
            right[problem] += sample in passing.get(problem, set())
    return made


def test_without_most_there_is_one_round() -> None:
    """A problem that stands twice goes on counting."""
    assert asked(Rounds(2), questions("a", "b", "a"), {}) == [
        [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("a", 2), ("a", 3)]
    ]


def test_hard_prompts_are_asked_on() -> None:
    """Two are enough: `a` has them at once, `b` in the second round, `c` never; five are the most."""
    found = asked(Rounds(2, most=5, enough=2), questions("a", "b", "c"), {"a": {0, 1}, "b": {1, 3}})
    assert found == [
        [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("c", 0), ("c", 1)],
        [("b", 2), ("b", 3), ("c", 2), ("c", 3)],
        [("c", 4)],
    ]


def test_a_problem_that_stands_twice_needs_twice_as_many() -> None:
    """One of the two that are needed is there after the first round, both after the second."""
    found = asked(Rounds(1, most=9), questions("a", "a"), {"a": {1, 2}})
    assert found == [[("a", 0), ("a", 1)], [("a", 2), ("a", 3)]]


@pytest.mark.parametrize(
    ("budget", "counts"), [(1, [1]), (3, [3]), (6, [6]), (8, [6, 2]), (9, [6, 3]), (99, [6, 3])]
)
def test_a_budget_ends_the_work_in_order(budget: int, counts: list[int]) -> None:
    """What is asked of it is the beginning of what would be asked without it."""
    whole = asked(Rounds(2, most=3), questions("a", "b", "c"), {})
    cut_off = asked(Rounds(2, most=3), questions("a", "b", "c"), {}, budget)
    assert [len(pairs) for pairs in cut_off] == counts
    assert list(chain(*cut_off)) == list(chain(*whole))[:budget]


prompts = st.lists(st.sampled_from([f"p{i}" for i in range(12)]), min_size=1, max_size=30, unique=True)


@given(prompts, st.integers(1, 3), st.integers(0, 6), st.integers(1, 3), st.integers(0, 99))
def test_the_order_of_prompts_has_no_part(
    names: list[str], samples: int, more: int, enough: int, seed: int
) -> None:
    """Whatever passes: shuffled, and in other shards, the same (prompt, sample) are made."""
    rng = Random(seed)
    passing = {name: {i for i in range(10) if rng.random() < 0.3} for name in names}
    rounds = Rounds(samples, samples + more if more else None, enough)
    whole = sorted(chain(*asked(rounds, questions(*names), passing)))
    rng.shuffle(names)
    for shards in (1, 3):
        parts = cut(questions(*names), rounds, None, shards)
        made = [pair for part in parts for pair in chain(*asked(rounds, list(part.questions), passing))]
        assert sorted(made) == whole
        assert len(set(made)) == len(made)


@given(prompts, st.integers(1, 200), st.integers(1, 5))
def test_shards_part_prompts_and_budget(names: list[str], budget: int, count: int) -> None:
    """Every prompt is in the one shard of its id, unless nothing of the budget is left for that shard; the
    shares add up."""
    shards = cut(questions(*names), Rounds(1), budget, count)
    by_number = {shard.number: shard for shard in shards}
    expected = defaultdict(list)
    for name in names:
        expected[shard_of(name, count)].append(name)
    for number, shard in by_number.items():
        assert [each.item.id for each in shard.questions] == expected[number]
    assert sum(shard.budget or 0 for shard in shards) == budget
    if budget >= len(names):
        assert set(by_number) == set(expected)


def test_the_shard_of_an_id_never_changes() -> None:
    """Else a job that goes on under a later version would not find its work."""
    assert [shard_of(name, 7) for name in ("countdown-3:3-4-7:12", "row-1", "héé", "\ud800")] == [4, 5, 0, 3]


def test_small_jobs_have_one_shard() -> None:
    """As many as make 20,000 completions of the first round each."""
    many = questions(*map(str, range(3001)))
    assert len(cut(many, Rounds(4), None, None)) == 1
    assert len(cut(many, Rounds(20), None, None)) == 4
    assert len(cut(many, Rounds(20), None, 2)) == 2
