"""Events as lines."""

import pytest

from r1pipe.lines import event_line, metrics_line

RL_ROW = {
    "step": 20,
    "steps": 130,
    "reward": 0.5124,
    "accuracy": 0.47,
    "length": 58.21,
    "truncated": 0.0078,
    "groups_without_spread": 0.28125,
    "undecided": 0.0,
    "loss": 0.00001,
    "tokens_per_second": 8123.0,
    "seconds_generation": 5.5,
    "seconds_reward": 0.5,
    "seconds_training": 4.0,
    "eta": 130.4,
}


def test_a_step_of_rl_says_all_that_is_asked_of_it() -> None:
    """Reward, accuracy, length, truncated, no spread, tokens/s, where the time went, ETA; but no loss."""
    assert metrics_line(RL_ROW) == (
        "step 20/130  reward 0.512  accuracy 0.470  length 58.2  truncated 0.8 %  no spread 28 %  "
        "tokens/s 8.12k  time: generation 55 %, reward 5 %, training 40 %  ETA 2m 10s"
    )


def test_a_step_of_fine_tuning_shows_its_loss() -> None:
    """Columns that a row does not have are left out."""
    assert metrics_line({"step": 5, "steps": 9, "loss": 1.25}) == "step 5/9  loss 1.250"


def test_an_evaluation_says_whose_score_it_is() -> None:
    """Model and set come before the numbers."""
    row = {"step": 2, "steps": 8, "model": "zero", "set": "held-out", "pass_at_1": 0.751, "stderr": 0.014}
    line = "step 2/8  zero on held-out  pass@1 0.751  length 64.2  truncated 0.4 %"
    assert metrics_line(row | {"mean_tokens": 64.25, "truncated": 0.004}) == line


def test_undecided_verdicts_are_shown_when_there_are_any() -> None:
    """None are nothing to say; some are a sign that the judge is in trouble."""
    assert "undecided 3 %" in metrics_line(RL_ROW | {"undecided": 0.03})


@pytest.mark.parametrize(
    ("kind", "fields", "line"),
    [
        ("say", {"text": "3 rows set aside"}, "3 rows set aside"),
        ("stage_started", {"verb": "rl", "reasons": ["never completed"]}, "starts (rl): never completed"),
        ("stage_started", {"verb": "rl", "reasons": [], "resumed": True}, "goes on (rl)"),
        ("stage_reused", {"artifact": "a/v001-11111111"}, "up to date: a/v001-11111111"),
        ("stage_finished", {"artifact": "a/v001", "cost": {"seconds": 192.0}}, "done in 3m 12s: a/v001"),
        ("stage_failed", {"error": "no memory"}, "failed: no memory"),
        ("stage_skipped", {"because": "'zero' is missing"}, "not run: 'zero' is missing"),
        ("run_finished", {"seconds": 75.0, "exit_code": 0}, "done in 1m 15s"),
        ("run_finished", {"seconds": 75.0, "exit_code": 130}, "stopped after 1m 15s"),
        ("run_finished", {"seconds": 75.0, "exit_code": 1}, "failed after 1m 15s"),
        ("progress", {"done": 1, "total": 2, "unit": "steps"}, None),
    ],
)
def test_every_event_has_its_words(kind: str, fields: dict[str, object], line: str | None) -> None:
    """One line for each kind; progress is drawn, not told."""
    assert event_line(kind, fields) == line


def test_a_run_begins_by_saying_how_much_there_is_to_do() -> None:
    """Stages that are up to date are not counted among those that run."""
    steps = [{"action": "up to date"}, {"action": "run"}, {"action": "waiting"}]
    assert event_line("run_started", {"run": "runs/x", "steps": steps}) == "run runs/x: 2 of 3 stages to run"


def test_a_sampling_tells_what_is_accepted_and_what_it_costs() -> None:
    """By task and by difficulty where there are several; by no more than six."""
    row = {
        "step": 2,
        "steps": 9,
        "acceptance": 0.5,
        "acceptance_by_task": {"countdown": 0.41, "math": 0.123},
        "acceptance_by_difficulty": {"countdown 3": 0.41},
        "accepted_per_second": 12.5,
        "tokens_per_second": 8100.0,
        "usd_per_accepted": 0.00123,
        "seconds_generation": 9.7,
        "seconds_judging": 0.3,
        "eta": 192.0,
    }
    assert event_line("log", {"row": row}) == (
        "step 2/9  accepted 50 %  accepted/s 12.5  tokens/s 8.1k  a trace costs $0.0012  "
        "by task: countdown 41 %, math 12 %  time: generation 97 %, judging 3 %  ETA 3m 12s"
    )
    many = {"step": 1, "acceptance_by_difficulty": {f"math {level}": 0.5 for level in range(7)}}
    assert event_line("log", {"row": many}) == "step 1"
