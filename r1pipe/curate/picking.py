"""What the steps decide that look at many rows: pure functions on columns; `near` alone asks for texts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

import numpy as np

from r1pipe.curate.near import clusters, estimates, kept
from r1pipe.curate.table import READING, VERDICTS, Array, Compare, Loss, Numbers, Of, Table, scrambled

Prefer = Literal["shortest", "diverse", "random", "first", "best"]
Order = Literal["random", "shortest", "longest", "first"]


# --- Problems


def problems(table: Table, inputs: Numbers) -> Array:
    """The problem of each row, by which rows are counted and capped together: [rows].

    Two inputs may give one name to different problems, as those that count from 1 do. So the name stands for
    one problem within an input, and in two inputs only where the first of its questions, by their hashes, is
    the same. `inputs` says for each source of which input it is a part.
    """
    names, questions = table.rows["problem"], table.rows["question"]
    within = scrambled(names) + inputs[table.rows["source"]].astype(np.uint64)
    _, which = np.unique(within, return_inverse=True)
    least: Array = np.full(len(names), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(least, which, questions)
    unnamed = names == questions  # called by the question already
    return np.where(unnamed, names, scrambled(names) + least[which])


# --- Duplicates


def duplicate_ids(table: Table, rows: Numbers, inputs: Numbers) -> tuple[list[Loss], Numbers]:
    """(what is lost, rows that need a new id). `inputs` says for each source of which input it is a part.

    A second row with an id of the same input is lost: it would be trained on twice, or one of the two is
    damaged. The same id in another input is another row, and only needs another name.
    """
    ids, places = table.rows["id"][rows], inputs[table.rows["source"][rows]]
    within = scrambled(ids) + places.astype(np.uint64)
    first = _first(within)
    again = first != np.arange(len(rows))
    lost = [Loss(rows[again], "duplicate id", rows[first[again]])]
    left = rows[~again]
    return lost, left[_first(ids[~again]) != np.arange(len(left))]


def exact(table: Table, rows: Numbers, of: Of) -> list[Loss]:
    """Of traces: the same question and completion again. Of questions: other problems with the same question.

    The rows of a problem are samples of one question and no duplicates of each other.
    """
    questions = table.rows["question"][rows]
    if of == "trace":
        keys = scrambled(questions) + table.rows["trace"][rows]
        first = _first(keys)
        again = first != np.arange(len(rows))
    else:
        first, problems = _first(questions), table.rows["problem"][rows]
        again = problems != problems[first]
    return [Loss(rows[again], f"duplicate {of}", rows[first[again]])]


def near(table: Table, rows: Numbers, of: Of, threshold: float, compare: Compare) -> list[Loss]:
    """What is so like another row, or like one that is like it, that one of them is enough; the first stays.

    Of questions, one row speaks for all of its problem, and the rows of all problems but the first leave.
    """
    if of == "question":
        problems = table.rows["problem"][rows]
        speaks = np.flatnonzero(_first(problems) == np.arange(len(rows)))
    else:
        speaks = np.arange(len(rows))
    speakers = rows[speaks]
    labels = clusters(
        table.sketches[of][speakers],
        threshold,
        lambda some, others: compare(of, speakers[some], speakers[others]),
    )
    stays = kept(labels, np.arange(len(speakers)))
    if of == "question":
        stays = stays[np.searchsorted(speaks, _first(problems))]
        stands_for = rows[speaks[stays]]
        again = problems != table.rows["problem"][stands_for]
    else:
        stands_for = speakers[stays]
        again = stands_for != rows
    lost, others = rows[again], stands_for[again]
    like = estimates(table.sketches[of], lost, others) if len(lost) else None
    return [Loss(lost, f"near-duplicate {of}", others, like)]


def _first(keys: Array) -> Numbers:
    """For each the place of the first that is equal to it."""
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    return np.asarray(first[which], np.int64)


# --- Difficulty


def pass_rates(table: Table, step: int | None = None) -> Array:
    """The share of its problem's completions that are right, for each row; NaN where nobody knows: [rows].

    A row's own column comes first. Else all rows are counted that have come in by this step (by the last one
    where none is given), those too that steps have taken: after `correct` every rate would be 1. What the
    reading set aside, such as a row that comes twice, is not.
    """
    own = table.rows["pass_rate"]
    uncounted = table.left == READING
    if step is not None:
        uncounted |= table.joins[table.rows["source"]] > step
    verdicts = np.where(uncounted, VERDICTS[None], table.rows["verdict"])
    decided = (verdicts == VERDICTS["pass"]) | (verdicts == VERDICTS["fail"])
    _, which = np.unique(table.rows["problem"], return_inverse=True)
    counts = np.bincount(which, weights=decided)
    passes = np.bincount(which, weights=verdicts == VERDICTS["pass"])
    with np.errstate(invalid="ignore"):
        counted = (passes / counts)[which]
    return np.where(np.isnan(own), counted, own)


def by_pass_rate(table: Table, rows: Numbers, step: int, least: float, most: float) -> list[Loss]:
    """Rows whose problem is solved less or more often than that; where nobody knows they stay."""
    rates = pass_rates(table, step)[rows]
    hard, easy = rates < least, rates > most
    return [Loss(rows[hard], "too hard", None, rates[hard]), Loss(rows[easy], "too easy", None, rates[easy])]


# --- So many per problem


def per_problem(table: Table, rows: Numbers, count: int, prefer: Prefer) -> list[Loss]:
    """The rows of a problem beyond so many; of equally good ones the first stay."""
    if prefer == "diverse":
        chosen = _diverse(table, rows, count)
    else:
        rank = _rank(table, rows, prefer)
        order = np.lexsort((rank, table.rows["problem"][rows]))
        chosen = _none_of(rows)
        chosen[order[_place_in_group(table.rows["problem"][rows][order]) < count]] = True
    return [Loss(rows[~chosen], f"not among the {prefer} {count} of its problem")]


def _rank(table: Table, rows: Numbers, order: Prefer | Order) -> Array:
    if order == "first":
        return np.arange(len(rows))
    if order == "random":
        return table.shuffled(rows)
    if order == "best":
        return -table.rows["preference"][rows]  # a row without a score is NaN, which sorts last
    tokens = table.rows["tokens"][rows].astype(np.int64)
    return -tokens if order == "longest" else tokens


def _place_in_group(groups: Array) -> Numbers:
    """For each of a sorted array its place among its equals: [n]."""
    begins = np.flatnonzero(np.concatenate(([True], groups[1:] != groups[:-1]))) if len(groups) else groups
    sizes = np.diff(np.append(begins, len(groups)))
    return np.arange(len(groups)) - np.repeat(begins, sizes).astype(np.int64)


def _diverse(table: Table, rows: Numbers, count: int) -> Array:
    """Of each problem the shortest, then always the one least like those that are chosen already: [rows]."""
    problems = table.rows["problem"][rows]
    order = np.lexsort((table.rows["tokens"][rows], problems))
    chosen = _none_of(rows)
    for group in np.split(order, np.flatnonzero(np.diff(problems[order])) + 1):
        if len(group) <= count:
            chosen[group] = True
        else:
            chosen[group[_farthest(table.sketches["trace"], rows[group], count)]] = True
    return chosen


def _farthest(sketches: Array, rows: Numbers, count: int) -> list[int]:
    picked = [0]
    likeness = np.zeros(len(rows))
    while len(picked) < count:
        newest = np.full(len(rows), rows[picked[-1]])
        likeness = np.maximum(likeness, estimates(sketches, rows, newest))
        likeness[picked] = np.inf
        picked.append(int(likeness.argmin()))
    return picked


# --- Balance

BINS: Final = (1_000, 2_000, 4_000, 8_000, 16_000)
"""Tokens at which one class of length ends and the next begins."""


@dataclass(frozen=True, slots=True)
class Balance:
    """What is to be balanced, and how much is kept; see `steps.Balance`."""

    by: Sequence[str]
    shares: Mapping[str, float]
    budget: int | None
    unit: Literal["tokens", "rows"]
    prefer: Order


def balance(table: Table, rows: Numbers, step: int, how: Balance) -> list[Loss]:
    """Rows beyond the room of their cell, a cell being what has its domain, difficulty and length in common.

    Cells share the budget by their weights. One that has less than its share gives the rest to the others, as
    water finds its level. Without a budget it is what the scarcest cell allows: all shares then hold exactly.
    """
    if not len(rows):
        return []
    names, domains, cell = _cells(table, rows, step, how.by)
    cost = (
        table.rows["tokens"][rows].astype(np.int64) if how.unit == "tokens" else np.ones(len(rows), np.int64)
    )
    has = np.bincount(cell, weights=cost, minlength=len(names))
    weights = _weights(domains, how.shares)
    room = _rooms(has, weights, how.budget)
    order = np.lexsort((_rank(table, rows, how.prefer), cell))
    spent = _spent(cell[order], cost[order])
    over = _none_of(rows)
    over[order] = spent > room[cell[order]] + 1e-6
    over |= weights[cell] == 0  # a row that costs nothing has no room there either
    told = f"of {{}} there {'are' if how.unit == 'rows' else 'is'} more than the budget has room for"
    return [
        Loss(rows[mine], told.format(name))
        for number, name in enumerate(names)
        if len(mine := np.flatnonzero(over & (cell == number)))
    ]


def _cells(table: Table, rows: Numbers, step: int, by: Sequence[str]) -> tuple[list[str], list[str], Numbers]:
    """(what the cells are called, their domains, the number of each row's cell)."""
    parts = [_classes(table, rows, step, each) for each in ("domain", "difficulty", "length") if each in by]
    combined: Numbers = np.zeros(len(rows), np.int64)
    for words, numbers in parts:
        combined = combined * len(words) + numbers
    found, cell = np.unique(combined, return_inverse=True)
    names, domains = [], []
    for code in found.tolist():
        told: list[str] = []
        for words, _ in reversed(parts):
            code, place = divmod(code, len(words))
            told.insert(0, words[place])
        names.append(", ".join(told))
        domains.append(told[0] if "domain" in by else "")
    return names, domains, cell


def _classes(table: Table, rows: Numbers, step: int, by: str) -> tuple[Sequence[str], Numbers]:
    """(what the classes are called, the number of each row's class)."""
    if by == "domain":
        return table.domains.words, table.rows["domain"][rows]
    if by == "difficulty":
        return DIFFICULTIES, difficulties(pass_rates(table, step)[rows])
    return length_names(), np.digitize(table.rows["tokens"][rows], BINS)


DIFFICULTIES: Final = ("hard", "medium", "easy", "of unknown difficulty")
"""A pass rate up to a third, up to two thirds, above."""


def difficulties(rates: Array) -> Numbers:
    """The place in `DIFFICULTIES` of each pass rate."""
    return np.where(np.isnan(rates), 3, np.digitize(rates, (1 / 3, 2 / 3), right=True)).astype(np.int64)


def length_names() -> list[str]:
    """How the classes of length are called."""
    told = [f"{end // 1000}k" for end in BINS]
    return [
        f"under {told[0]}",
        *(f"{a} to {b}" for a, b in pairwise(told)),
        f"{told[-1]} or more",
    ]


def _weights(domains: Sequence[str], shares: Mapping[str, float]) -> Array:
    """The weight of each cell: of a domain's cells together its share; without shares all alike."""
    cells = Counter(domains)
    return np.array([shares.get(each, 0.0) / cells[each] if shares else 1.0 for each in domains])


def _rooms(has: Array, weights: Array, budget: int | None) -> Array:
    """How much of each cell is kept, in the budget's unit."""
    weighted = weights > 0
    if not weighted.any():
        return np.zeros(len(has))
    if budget is None:
        return np.where(weighted, weights * (has[weighted] / weights[weighted]).min(), 0.0)
    room, open_, left = np.zeros(len(has)), weighted.copy(), float(budget)
    while open_.any():
        offered = weights * left / weights[open_].sum()
        full = open_ & (has <= offered)
        if not full.any():
            room[open_] = offered[open_]
            break
        room[full] = has[full]
        left -= has[full].sum()
        open_ &= ~full
    return room


def _spent(groups: Array, costs: Array) -> Array:
    """Of a sorted array the sum of the costs in each group up to each one, itself included."""
    total = np.cumsum(costs)
    begins = np.flatnonzero(np.concatenate(([True], groups[1:] != groups[:-1])))
    before = total[begins] - costs[begins]
    return total - np.repeat(before, np.diff(np.append(begins, len(groups))))


# --- Mixing and splitting


def mixed_in(table: Table, rows: Numbers, step: int, wanted: int | None, share: float | None) -> list[Loss]:
    """Of the rows that come in with this step those beyond so many, or beyond this share of the result."""
    comes = table.joins[table.rows["source"][rows]] == step
    new, there = rows[comes], int((~comes).sum())
    if share is not None:
        wanted = round(share / (1 - share) * there)
    if wanted is None or len(new) <= wanted:
        return []
    order = np.argsort(table.shuffled(new, step), kind="stable")
    return [Loss(new[np.sort(order[wanted:])], "beyond what is mixed in")]


def validation(table: Table, rows: Numbers, share: float) -> Array:
    """Which rows are for validation: this share of the problems, whole: [rows].

    What shares its problem or its question is on one side.
    """
    if not share or not len(rows):
        return _none_of(rows)
    groups = _joined(table.rows["problem"][rows], table.rows["question"][rows])
    names, which = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        return _none_of(rows)
    least: Array = np.full(len(names), np.iinfo(np.uint64).max, np.uint64)
    salt = np.uint64(table.seed * 2 + 1)
    np.minimum.at(least, which, scrambled(table.rows["question"][rows] + salt))
    wanted = min(len(names) - 1, max(1, round(share * len(names))))
    chosen = _none_of(names)
    chosen[np.argsort(least, kind="stable")[:wanted]] = True
    return chosen[which]


def _none_of(rows: Array) -> Array:
    return np.zeros(len(rows), np.bool_)


def _joined(problems: Array, questions: Array) -> Numbers:
    """Groups of what is joined by a problem or a question, directly or through others: [rows]."""
    _, problem = np.unique(problems, return_inverse=True)
    _, question = np.unique(questions, return_inverse=True)
    labels = np.arange(len(problems))
    while True:
        before = labels
        for groups in (problem, question):
            least = np.full(groups.max() + 1, len(labels))
            np.minimum.at(least, groups, labels)
            labels = least[groups]
        if np.array_equal(before, labels):
            return labels
