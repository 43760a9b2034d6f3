"""What the steps decide that look at many rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1pipe.curate import picking
from r1pipe.curate.near import sketch
from r1pipe.curate.picking import Balance
from r1pipe.curate.table import READING, ROW, STAYS, VERDICTS, Loss, Table, Vocabulary
from r1pipe.curate.words import read


def table(rows: Sequence[dict[str, Any]], joins: Sequence[int] = (0,), seed: int = 0) -> Table:
    """Rows by their columns; ids count up, and what is not given is alike."""
    made, domains = np.zeros(len(rows), ROW), Vocabulary()
    for number, each in enumerate(rows):
        columns = {
            "id": number + 1,
            "verdict": "pass",
            "pass_rate": np.nan,
            "lost": STAYS,
            "domain": "math",
            **each,
        }
        columns["verdict"], columns["domain"] = (
            VERDICTS[columns["verdict"]],
            domains.number(columns["domain"]),
        )
        for name, value in columns.items():
            made[name][number] = value
    return Table(made, np.array(joins, np.int64), Vocabulary(), domains, {}, seed)


def left(table: Table, losses: list[Loss]) -> list[int]:
    """The rows that stay of all."""
    gone = {int(row) for loss in losses for row in loss.rows}
    return [row for row in range(len(table.rows)) if row not in gone]


def everything(table: Table) -> Any:
    return np.arange(len(table.rows))


def test_the_same_name_of_two_inputs() -> None:
    """It is one problem where both ask the same, and within an input whatever is asked."""
    rows = [
        {"source": 0, "problem": 1, "question": 10},
        {"source": 0, "problem": 1, "question": 11},  # in other words
        {"source": 1, "problem": 1, "question": 20},  # another problem
        {"source": 2, "problem": 1, "question": 10},  # the first one, sampled once more
        {"source": 3, "problem": 1, "question": 20},  # of the same input as source 1
        {"source": 0, "problem": 30, "question": 30},  # without a name
        {"source": 1, "problem": 30, "question": 30},
    ]
    made = picking.problems(table(rows), np.array([0, 1, 2, 1])).tolist()
    assert made[0] == made[1] == made[3]
    assert made[2] == made[4] != made[0]
    assert made[5:] == [30, 30]


def test_exact_traces() -> None:
    """The same question and completion; the same completion of another question is none."""
    rows = [{"question": q, "trace": t} for q, t in ((1, 1), (1, 2), (1, 1), (2, 1), (2, 1), (1, 1))]
    made = table(rows)
    (loss,) = picking.exact(made, everything(made), "trace")
    assert loss.rows.tolist() == [2, 4, 5]
    assert loss.others is not None
    assert loss.others.tolist() == [0, 3, 0]
    (later,) = picking.exact(made, np.array([1, 2, 5]), "trace")
    assert later.rows.tolist() == [5], "only what is there is compared"


def test_exact_questions() -> None:
    """Samples of one problem stay; all rows of a second problem with the same question go."""
    rows = [{"problem": p, "question": q} for p, q in ((1, 7), (1, 7), (2, 7), (3, 8), (2, 7), (1, 9))]
    made = table(rows)
    assert left(made, picking.exact(made, everything(made), "question")) == [0, 1, 3, 5]


def test_near_questions_take_whole_problems() -> None:
    """One row speaks for its problem; where its question is near another's, all rows of the later one go."""
    text = (
        "A farmer has twenty cows and thirty sheep and sells half of the sheep on the market in the next town"
    )
    questions = [
        text,
        text,
        text + " today",
        "How long is a day on the planet that is nearest to the sun in hours?",
    ]
    problems = [1, 1, 2, 3, 2]
    sketches = np.array(
        [sketch(read(questions[problem if problem != 1 else 0]).hashes) for problem in problems]
    )
    made = table([{"problem": problem, "question": problem} for problem in problems])
    made.sketches = {"question": sketches}
    (loss,) = picking.near(made, everything(made), "question", 0.8, _unasked)
    assert (loss.rows.tolist(), loss.others.tolist()) == ([2, 4], [0, 0])  # type: ignore[union-attr]
    assert min(loss.values) > 0.8  # type: ignore[arg-type]


def _unasked(of: str, some: Any, others: Any) -> Any:
    """The exact index, of the one pair that there is."""
    return np.full(len(some), 0.9)


def test_pass_rates() -> None:
    """Counted over all rows of the problem that are decided, those that left too; a row's own comes first."""
    rows = [
        *({"problem": 1, "verdict": verdict} for verdict in ("pass", "fail", "undecided", "pass", None)),
        {"problem": 2, "verdict": None},
        {"problem": 3, "verdict": "pass", "pass_rate": 0.25},
    ]
    made = table(rows)
    made.left[1] = 1
    assert picking.pass_rates(made)[:5] == pytest.approx([2 / 3] * 5)
    assert np.isnan(picking.pass_rates(made)[5])
    assert picking.pass_rates(made)[6] == 0.25
    hard, easy = picking.by_pass_rate(made, made.present(5), 5, 0.3, 0.6)
    assert (hard.reason, hard.rows.tolist()) == ("too hard", [6])
    assert (easy.reason, easy.rows.tolist()) == ("too easy", [0, 2, 3, 4])


def test_a_row_that_comes_twice_counts_once_in_a_pass_rate() -> None:
    """The reading has set the second one aside."""
    made = table([{"problem": 1, "verdict": verdict} for verdict in ("pass", "fail", "pass")])
    made.left[2] = READING
    assert picking.pass_rates(made)[0] == 0.5


def test_rows_that_come_in_later_do_not_count_in_a_pass_rate() -> None:
    """The second file is mixed in with step 3."""
    rows = [{"problem": 1, "verdict": "pass"}, *[{"problem": 1, "verdict": "fail", "source": 1}] * 3]
    made = table(rows, joins=(0, 3))
    assert [picking.pass_rates(made, step)[0] for step in (2, 3, None)] == [1.0, 0.25, 0.25]
    assert picking.by_pass_rate(made, made.present(2), 2, 0.5, 1.0)[0].rows.tolist() == []


@pytest.mark.parametrize(("prefer", "kept"), [("shortest", [1, 3, 4]), ("first", [0, 1, 4])])
def test_cap(prefer: Any, kept: list[int]) -> None:
    """So many of each problem; of equally short ones the first."""
    tokens, problems = [9, 5, 7, 5, 1], [1, 1, 1, 1, 2]
    made = table([{"problem": p, "tokens": t} for p, t in zip(problems, tokens, strict=True)])
    losses = picking.per_problem(made, everything(made), 2, prefer)
    assert left(made, losses) == kept
    assert losses[0].reason == f"not among the {prefer} 2 of its problem"


def test_cap_at_random() -> None:
    """The seed decides, and not the place in the file; others are chosen by another seed."""
    rows = [{"problem": 1, "id": number} for number in range(1, 101)]

    def chosen(rows: list[dict[str, Any]], seed: int) -> set[int]:
        made = table(rows, seed=seed)
        return {
            rows[row]["id"] for row in left(made, picking.per_problem(made, everything(made), 10, "random"))
        }

    assert chosen(rows, 0) == chosen(rows[::-1], 0) != chosen(rows, 1)
    assert len(chosen(rows, 0)) == len(chosen(rows, 1)) == 10


def test_cap_diverse() -> None:
    """The shortest, then what is least like it; near copies of it come last."""
    words = [f"alpha{n % 3 if n < 3 else n} " * 1 + " ".join(f"a{m}" for m in range(60)) for n in range(4)]
    other = " ".join(f"b{m}" for m in range(60))
    half = " ".join([*(f"a{m}" for m in range(30)), *(f"c{m}" for m in range(30))])
    texts = [*words, other, half]
    made = table([{"problem": 1, "tokens": 10 + number} for number in range(len(texts))])
    made.sketches = {"trace": np.array([sketch(read(text).hashes) for text in texts])}
    assert left(made, picking.per_problem(made, everything(made), 2, "diverse")) == [0, 4]
    assert left(made, picking.per_problem(made, everything(made), 3, "diverse")) == [0, 4, 5]


def balanced(rows: Sequence[dict[str, Any]], **how: Any) -> tuple[list[int], list[Loss]]:
    made = table(rows)
    options = {"by": ["domain"], "shares": {}, "budget": None, "unit": "rows", "prefer": "first", **how}
    losses = picking.balance(made, everything(made), 5, Balance(**options))
    return left(made, losses), losses


MATH = [{"domain": "math", "tokens": 10}] * 6
CODE = [{"domain": "code", "tokens": 10}] * 2


def test_balance_without_a_budget() -> None:
    """What the scarcest domain allows, so that the shares hold exactly; one that is not named is left out."""
    assert balanced([*MATH, *CODE])[0] == [0, 1, 6, 7]
    assert balanced([*MATH, *CODE], shares={"math": 2, "code": 1})[0] == [0, 1, 2, 3, 6, 7]
    kept, losses = balanced([*MATH, *CODE], shares={"code": 1})
    assert kept == [6, 7]
    assert [loss.reason for loss in losses] == ["of math there are more than the budget has room for"]


def test_balance_within_a_budget() -> None:
    """What a scarce domain leaves goes to the others; the budget is never exceeded."""
    assert balanced([*MATH, *CODE], budget=7)[0] == [0, 1, 2, 3, 4, 6, 7]
    assert balanced([*MATH, *CODE], budget=2)[0] == [0, 6]
    assert balanced([*MATH, *CODE], budget=55, unit="tokens")[0] == [0, 1, 2, 6, 7]
    assert balanced([*MATH, *CODE], budget=10**9, unit="tokens")[0] == list(range(8))
    assert balanced([*MATH, *CODE], budget=4, shares={"math": 3, "code": 1})[0] == [0, 1, 2, 6]


def test_balance_prefers() -> None:
    """Within a domain the shortest or the longest stay."""
    rows = [{"tokens": tokens} for tokens in (30, 10, 20)]
    assert balanced(rows, budget=1, prefer="shortest")[0] == [1]
    assert balanced(rows, budget=1, prefer="longest")[0] == [0]
    assert balanced(rows, budget=35, unit="tokens", prefer="shortest")[0] == [1, 2]


def test_balance_by_difficulty_and_length() -> None:
    """A cell is what has all of them in common; the reason names it."""
    rows = [
        {"pass_rate": rate, "tokens": tokens}
        for rate, tokens in ((0.1, 500), (0.1, 500), (0.9, 500), (0.1, 9000))
    ]
    kept, losses = balanced(rows, by=["difficulty", "length"])
    assert kept == [0, 2, 3]
    assert losses[0].reason == "of hard, under 1k there are more than the budget has room for"


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50)), min_size=1, max_size=40),
    st.integers(1, 600),
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 5)),
)
def test_a_budget_is_kept_and_used(rows: list[tuple[str, int]], budget: int, shares: dict[str, int]) -> None:
    """Never more than the budget; all that is named where the budget is large enough for it."""
    made = table([{"domain": domain, "tokens": tokens} for domain, tokens in rows])
    how = Balance(["domain"], shares, budget, "tokens", "first")
    stays = left(made, picking.balance(made, everything(made), 5, how))
    spent = sum(rows[row][1] for row in stays)
    assert spent <= budget
    named = [(domain, tokens) for domain, tokens in rows if not shares or domain in shares]
    if sum(tokens for _, tokens in named) <= budget:
        assert len(stays) == len(named)


def test_mixing_in() -> None:
    """So many of what comes in, or so that it is this share of the whole; what was there stays."""
    rows = [{"source": 0}] * 6 + [{"source": 1}] * 6
    made = table(rows, joins=(0, 3))
    assert made.present(2).tolist() == list(range(6))
    assert len(made.present(3)) == 12
    for wanted, share, more in (
        (2, None, 2),
        (None, 0.25, 2),
        (None, 0.4, 4),
        (None, None, 6),
        (99, None, 6),
    ):
        stays = left(made, picking.mixed_in(made, made.present(3), 3, wanted, share))
        assert stays[:6] == list(range(6))
        assert len(stays) == 6 + more


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40), st.floats(0.01, 0.99)
)
def test_validation_shares_no_problem_and_no_question(rows: list[tuple[int, int]], share: float) -> None:
    """Nothing that hangs together by a problem or a question is on both sides; each side has some of it."""
    made = table([{"problem": problem, "question": question} for problem, question in rows])
    validates = picking.validation(made, everything(made), share)
    for place in (0, 1):
        names = [
            [row[place] for row, flag in zip(rows, validates, strict=True) if flag == side] for side in (0, 1)
        ]
        assert not set(names[0]) & set(names[1])
    assert not validates.all()
    assert not picking.validation(made, everything(made), 0.0).any()


def test_validation_is_the_share_of_the_problems() -> None:
    """Of a hundred problems with five rows each; their places in the file do not count, the seed does."""
    rows = [{"problem": number // 5, "question": number // 5} for number in range(500)]

    def chosen(rows: list[dict[str, Any]], seed: int) -> set[int]:
        made = table(rows, seed=seed)
        flags = picking.validation(made, everything(made), 0.1)
        assert flags.sum() == 50
        return {row["problem"] for row, flag in zip(rows, flags, strict=True) if flag}

    assert len(chosen(rows, 0)) == 10
    assert chosen(rows, 0) == chosen(rows[::-1], 0) != chosen(rows, 1)


def test_ids_of_two_inputs() -> None:
    """The same id twice in an input is lost the second time; in another input it is another row, renamed."""
    rows = [{"id": i, "source": s} for i, s in ((1, 0), (1, 0), (2, 0), (1, 1), (3, 1), (2, 2), (1, 3))]
    made = table(rows, joins=(0, 0, 0, 0))
    losses, renamed = picking.duplicate_ids(made, everything(made), np.array([0, 1, 1, 0]))
    assert [(loss.rows.tolist(), loss.others.tolist()) for loss in losses] == [([1, 6], [0, 0])]  # type: ignore[union-attr]
    assert renamed.tolist() == [3, 5]
