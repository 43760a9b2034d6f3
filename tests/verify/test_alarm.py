"""The alarm on undecided verdicts."""

import pytest

from r1pipe.verify.alarm import UndecidedAlarm, reasons_of, undecided_sentence


def test_the_sentence() -> None:
    """The share, the reasons by their number, and what to look at."""
    assert undecided_sentence({"comparison timed out": 15, "truncated": 4}, 512, "the last ") == (
        "Undecided verdicts: 4 % of the last 512 completions (3 % comparison timed out, 0.8 % truncated). "
        "They are left out and never count as wrong. Look whether the machine is overloaded, and at the "
        "answers that take the judge so long."
    )


@pytest.mark.parametrize(
    ("reasons", "of"), [({}, 0), ({}, 100), ({"truncated": 1}, 100), ({"a": 1, "b": 1}, 200)]
)
def test_up_to_one_percent_nothing_is_said(reasons: dict[str, int], of: int) -> None:
    """One in a hundred is no reason to worry, nor is nothing at all."""
    assert undecided_sentence(reasons, of) is None


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("truncated", "`max_new_tokens` higher"),
        ("comparison timed out", "overloaded"),
        ("right answer is not a number", "the task's `judge` suits them"),
    ],
)
def test_advice_fits_the_reason(reason: str, advice: str) -> None:
    """What to look at depends on the most frequent reason."""
    assert advice in (undecided_sentence({reason: 5, "another": 1}, 100) or "")


def test_many_reasons_are_summed_up() -> None:
    """Three are named, the rest together."""
    said = undecided_sentence({"a": 5, "b": 4, "c": 3, "d": 2, "e": 1}, 100)
    assert said is not None and "(5 % a, 4 % b, 3 % c, 3 % others)" in said


def test_reasons_of_rows() -> None:
    """Only undecided rows have a reason that counts here."""
    rows = [
        {"verdict": "undecided", "reason": "truncated"},
        {"verdict": "fail", "reason": "truncated"},
        {"verdict": "pass", "reason": ""},
    ]
    assert reasons_of(rows) == {"truncated": 1}


def test_a_running_alarm_waits_for_enough() -> None:
    """Nothing is said of fewer than 200 completions, however many of them are undecided."""
    running = UndecidedAlarm(patience=10)
    assert running.hear(["truncated"] * 198) is None
    said = running.hear([None] * 2)
    assert said is not None and said.startswith("Undecided verdicts: 99 % of the last 200 completions")


def test_a_running_alarm_is_not_said_at_every_batch() -> None:
    """Once said it is silent for `patience` batches, and longer when the verdicts are decided again."""
    running = UndecidedAlarm(patience=3)
    batch = ["crashed"] * 20 + [None] * 236
    said = [running.hear(batch) is not None for _ in range(8)]
    assert said == [True, False, False, True, False, False, True, False]
    assert [running.hear([None] * 256) for _ in range(5)] == [None] * 5


def test_a_running_alarm_forgets() -> None:
    """Only the last 512 completions count: an early trouble that has passed is not told later."""
    running = UndecidedAlarm(patience=1)
    assert running.hear(["crashed"] * 256) is not None
    assert running.hear([None] * 256) is not None
    assert running.hear([None] * 256) is None
