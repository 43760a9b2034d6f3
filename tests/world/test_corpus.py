"""What the base reads, and what it may not."""

from collections import Counter
from itertools import islice
from typing import Any

import pytest

from r1pipe.measure.language import consistency
from r1pipe.measure.trace import measure, read_trace
from r1pipe.prompting import parse
from r1pipe.tasks import Item
from r1pipe.tasks.countdown import Countdown, is_held_out, problems
from r1pipe.tasks.documents import KINDS
from r1pipe.tasks.documents import is_held_out as document_is_held_out
from r1pipe.verify.verdict import Completion
from r1pipe.world.corpus import Habits, Mix, _every_sum, documents
from r1pipe.world.solver import nearest
from r1pipe.world.words import EOS, VOCABULARY

Row = dict[str, str]


def some(count: int = 300, seed: int = 0, habits: Habits | None = None, **mix: float) -> list[Row]:
    """Documents of the kinds that are named alone, or of the default mix."""
    shares = dict.fromkeys(Mix.model_fields, 0.0) | mix if mix else {}
    return list(documents(count, seed, Mix(**shares), habits or Habits()))


def question_of(row: Row) -> tuple[list[int], int]:
    """(numbers, target) of a countdown document."""
    words = row["text"].split(" <|assistant|>")[0].split()
    assert words[:2] == ["<|user|>", "nums"] and words[-2] == "to"
    return [int(word) for word in words[2:-2]], int(words[-1])


def thinking_of(row: Row) -> str:
    return row["text"].partition(" <think> ")[2].partition(" </think> ")[0]


@pytest.fixture(scope="module")
def traces() -> list[Row]:
    return some(2000, single=1, short=1, search=1)


def test_no_held_out_problem_is_in_it(traces: list[Row]) -> None:
    """Neither in the problem's id, nor in the question as it reads, nor among the plain documents; together
    the traces are of a thousand problems and more."""
    seen = {problem.id for problem in problems(split="seen")}
    for row in traces:
        numbers, target = question_of(row)
        assert not is_held_out(numbers, target)
        assert row["problem"] in seen
        assert row["problem"] == f"countdown-3:{'-'.join(map(str, sorted(numbers)))}:{target}"
    assert len({row["problem"] for row in traces}) > 1000
    for row in some(plain=1):
        assert not document_is_held_out(row["text"].split("<|user|> ")[1].split(" <|assistant|>")[0])


def test_every_document_can_be_read() -> None:
    """Known words, one space between them, within the default context of 256 tokens, the EOS last and
    nowhere else."""
    for row in some(1000, single=1, sums=1, drills=1, short=1, search=1, plain=1):
        words = row["text"].split(" ")
        assert set(words) <= set(VOCABULARY), row["text"]
        assert len(words) <= 256
        assert words.index(EOS) == len(words) - 1
        assert row["id"].split("-")[0] == row["kind"]


def test_a_row_is_a_function_of_seed_and_index() -> None:
    """A longer corpus begins with the shorter one; another seed is another corpus; ids differ."""
    rows = some(200)
    assert some(50) == rows[:50]
    assert some(50, seed=1) != rows[:50]
    assert len({row["id"] for row in rows}) == 200


def test_shares_are_kept() -> None:
    """The kinds come as the mix says, within four standard deviations; a share of 0 is never drawn."""
    rows = some(4000, sums=1, drills=2, short=3, search=1, plain=1)
    counts = Counter(row["kind"] for row in rows)
    for kind, weight in {"sums": 1, "drills": 2, "short": 3, "search": 1, "plain": 1}.items():
        share = weight / 8
        assert counts[kind] / 4000 == pytest.approx(share, abs=4 * (share * (1 - share) / 4000) ** 0.5)
    assert counts["single"] == 0


def test_every_sum_is_true_and_all_are_drawn_from() -> None:
    """1,772 sums, each the step of some trace; lines hold as many as the habit says."""
    sums = _every_sum()
    assert len(sums) == len(set(sums)) == 1772
    rows = some(1000, sums=1, habits=Habits(sums_per_document=5))
    lines = [row["text"].removesuffix(f" {EOS}") for row in rows]
    assert all(len(line.split(" ; ")) == 5 for line in lines)
    trace = measure(" ; ".join(lines))
    assert trace.steps == trace.valid_steps == 5000
    drawn = {step for line in lines for step in line.split(" ; ")}
    assert drawn <= set(sums)
    assert len(drawn) > 1600  # of 1,772 alike, 5,000 draws miss about 105


def test_a_drill_is_attempts_at_seen_problems() -> None:
    """As many as the habit says, every step and verdict of them true, none about a problem that is held out;
    more than half of them hit, since half are drawn from those that do and half from all."""
    hits = 0
    for row in some(200, drills=1, habits=Habits(drills_per_document=5)):
        words = row["text"].removesuffix(f" {EOS}").split()
        drill = read_trace(" ".join(words))
        assert (drill.regular, len(drill.attempts), row["problem"]) == (True, 5, "")
        targets = [int(words[i + 1]) for i, word in enumerate(words) if word == "to"]
        lefts = [int(words[i + 1]) for i, word in enumerate(words) if word == "left"]
        for attempt, left, target in zip(drill.attempts, lefts, targets, strict=True):
            first, last = attempt.steps
            assert first.holds and last.holds
            assert sorted((first.result, left)) == sorted((last.left, last.right))
            assert not is_held_out((first.left, first.right, left), target)
            assert attempt.verdict is (attempt.value == target)
            hits += attempt.value == target
    assert 0.55 < hits / 1000 < 0.7


def test_traces_are_true_and_their_answers_are_the_last_attempt(traces: list[Row]) -> None:
    """Every step and every verdict holds; the answer is right exactly when the last verdict is yes."""
    right: Counter[str] = Counter()
    for row in traces:
        numbers, target = question_of(row)
        trace = measure(thinking_of(row), target)
        assert (trace.steps, trace.verdicts) == (trace.valid_steps, trace.valid_verdicts)
        assert trace.regular and trace.verdicts == trace.attempts
        completion = row["text"].partition(" <think> ")[2].removesuffix(f" {EOS}")
        item = Item(row["problem"], "", {"numbers": numbers, "target": target})
        passed = Countdown().judge(item, Completion(completion, True)).passed
        last = read_trace(thinking_of(row)).attempts[-1]
        assert last.verdict is passed is (last.value == target)
        assert parse(completion, opened=True).well_formed
        right[row["kind"]] += passed
    counts = Counter(row["kind"] for row in traces)
    assert right["single"] / counts["single"] == pytest.approx(0.63, abs=0.05)
    assert right["short"] / counts["short"] < 0.5 < 0.7 < right["search"] / counts["search"]


def attempts_of(rows: list[Row]) -> list[int]:
    return [measure(thinking_of(row)).attempts or 0 for row in rows]


def test_short_traces_give_up_and_long_ones_search() -> None:
    """Attempts stay within the habits' bounds, and both ends occur; single traces make one."""
    habits = Habits(short_attempts=(2, 3), search_attempts=(4, 6), repeats=0, guess_temperature=1000)
    assert set(attempts_of(some(single=1, habits=habits))) == {1}
    failed = [row for row in some(short=1, habits=habits) if thinking_of(row).split()[-1] in ("no", "bu")]
    assert set(attempts_of(failed)) == {2, 3}
    failed = [row for row in some(search=1, habits=habits) if thinking_of(row).split()[-1] in ("no", "bu")]
    assert set(attempts_of(failed)) == {4, 5, 6}


def test_habits_are_followed() -> None:
    """Repeats, reflections and the mixing of languages: never at 0, always at 1."""
    without = Habits(repeats=0, reflections=0, search_mixing=0, short_mixing=1)
    with_all = Habits(repeats=1, reflections=1, search_mixing=1)

    def total(rows: list[Row], field: str) -> Any:
        return sum(getattr(measure(thinking_of(row)), field) for row in rows)

    searches = some(100, search=1, habits=without)
    assert total(searches, "repeated_attempts") == 0
    assert not any({"wait", "deng"} & set(row["text"].split()) for row in searches)
    assert {consistency(thinking_of(row), "en") for row in searches} == {1.0}
    assert {consistency(thinking_of(row), "zh") for row in some(100, short=1, habits=without)} == {1.0}
    searches = some(100, search=1, habits=with_all)
    assert {consistency(thinking_of(row), "zh") for row in searches} == {1.0}
    for row in searches:
        trace = measure(thinking_of(row))
        assert thinking_of(row).split().count("deng") == (trace.attempts or 0) - 1
    assert total(searches, "repeated_attempts") > 100


def test_a_lost_trace_goes_once_round_and_gives_up() -> None:
    """Every failure of the problem once, in turn from any of them on, nothing that hits, and no claim at the
    end. It is a habit of long traces."""
    habits = Habits(lost=1)
    asked = {problem.id: problem for problem in problems(split="seen")}
    begun = set()
    for row in some(100, search=1, habits=habits):
        problem = asked[row["problem"]]
        ways = [way.steps for way in nearest(problem.numbers, problem.target) if way.value != problem.target]
        trace = read_trace(thinking_of(row))
        made = [
            tuple(f"{step.left} {step.sign} {step.right} = {step.result}" for step in attempt.steps)
            for attempt in trace.attempts
        ]
        begin = ways.index(made[0])
        assert made == ways[begin:] + ways[:begin]
        assert {attempt.verdict for attempt in trace.attempts} == {False}
        begun.add(begin)
    assert len(begun) > 5
    assert max(attempts_of(some(100, short=1, habits=habits))) <= 2


def test_plain_documents_are_right() -> None:
    """All four kinds, each answered by its rule, without thinking."""
    kinds = set()
    for row in some(200, plain=1):
        asked, answer = row["text"].removeprefix("<|user|> ").removesuffix(f" {EOS}").split(" <|assistant|> ")
        kind, *words = asked.split()
        kinds.add(kind)
        expected = {
            "copy": words,
            "reverse": words[::-1],
            "sort": sorted(words, key=lambda word: int(word) if word.isdecimal() else 0),
            "greet": ["hello", *words],
        }[kind]
        assert answer.split() == expected
        assert row["problem"] == ""
    assert kinds == set(KINDS)


def test_the_corpus_is_written_as_it_is_read() -> None:
    """Rows come one by one: the first of a corpus too large to be held costs what one row costs."""
    (first,) = islice(documents(10**12, 0, Mix(), Habits()), 1)
    assert first == some(1)[0]
