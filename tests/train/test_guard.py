"""The collapse guard: each sign sounds on what it is for, and none on trainings that were healthy."""

import json
import math
import random
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
from pydantic import ValidationError

from r1pipe.train.guard import SAMPLED, CollapseAlarm, CollapseDetector, GuardConfig, sampled, texture

HEALTHY = Path(__file__).parent / "healthy"
FOUR = GuardConfig(window=4)

Row = dict[str, Any]


def rows(**columns: list[float | None]) -> list[Row]:
    """Rows of steps 1, 2, … with these columns."""
    count = len(next(iter(columns.values())))
    return [{"step": i + 1, **{name: values[i] for name, values in columns.items()}} for i in range(count)]


def seen(guard: GuardConfig, given: list[Row]) -> tuple[CollapseAlarm | None, CollapseDetector]:
    """The first alarm, and the detector as it is then."""
    detector = CollapseDetector(guard)
    for row in given:
        if (alarm := detector.see(row)) is not None:
            return alarm, detector
    return None, detector


@pytest.mark.parametrize("path", sorted(HEALTHY.glob("*.jsonl")), ids=lambda path: path.stem)
def test_a_healthy_training_is_let_be(path: Path) -> None:
    """The four trainings of a whole tiny-r1: length doubles, the reward swings, entropy falls; no alarm,
    and every step is a good one to keep."""
    detector = CollapseDetector(GuardConfig())
    for line in path.read_text().splitlines():
        assert detector.see(json.loads(line)) is None
        assert detector.calm


@pytest.mark.parametrize("chance", [0.1, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("completions", [4, 64])
def test_chance_is_no_collapse(chance: float, completions: int) -> None:
    """Four hundred steps of a policy that stays as good as it is: the noise of a handful of completions a
    step, whose luckiest and unluckiest windows lie far apart, raises nothing."""
    draw = random.Random(completions)
    for _ in range(3):
        given = []
        for step in range(1, 401):
            rewards = [float(draw.random() < chance) for _ in range(completions)]
            given.append({"step": step, "reward": fmean(rewards), "reward_spread": stdev(rewards)})
        assert seen(GuardConfig(), given)[0] is None


def test_a_policy_that_becomes_good_is_let_be() -> None:
    """From nothing right to all right, with the spread going up and down and length growing hundredfold."""
    right = [step / 200 for step in range(201)]
    given = rows(
        reward=right,
        reward_spread=[math.sqrt(p * (1 - p)) for p in right],
        length=[40 * 1.025**step for step in range(201)],
        entropy=[0.6 * 0.99**step for step in range(201)],
    )
    assert seen(GuardConfig(), given)[0] is None


@pytest.mark.parametrize("column", ["loss", "grad_norm", "reward", "entropy", "kl"])
def test_a_number_that_is_not_finite(column: str) -> None:
    """It stops a training at once, without any window."""
    alarm, _ = seen(GuardConfig(), [{"step": 1, column: 0.5}, {"step": 2, column: math.nan}])
    assert alarm is not None and (alarm.kind, alarm.step, alarm.calm_until) == ("not finite", 2, 1)
    assert f"The {column.replace('_norm', 'ient norm')} became nan at step 2" in alarm.sentence
    assert "`learning_rate`" in alarm.sentence


def test_a_reward_far_under_its_best() -> None:
    """Best mean 1 with a spread of 0.4, so half a spread below is 0.8; then 0.7 a step.

    The mean of eight reaches 0.8 when six of them are 0.7, at step 30; the newest two were half the way
    there at once, so the last calm step is 24.
    """
    given = rows(reward=[1.0] * 24 + [0.7] * 20, reward_spread=[0.4] * 44)
    assert seen(GuardConfig(window=8), given)[0] == CollapseAlarm(
        "reward",
        "The reward fell far under its best: the mean over steps 23 to 30 is 0.775, where it was 1 over "
        "steps 1 to 8, and `guard.reward` sets the bound at 0.8. Set `learning_rate` lower, or `kl` higher.",
        30,
        24,
    )


def test_chance_widens_the_bound_of_the_reward() -> None:
    """With next to no spread allowed the noise is the bound: ten deviations of a mean of eight.

    At step 28 there are 27 differences from row to row, one of them 0.3 and the others 0: a row's variance
    is 0.09 / 27 / 2, that of a mean of eight an eighth of it, ten deviations are 0.144. The mean is down by
    0.15.
    """
    assert 1 - 10 * math.sqrt(0.09 / 27 / 2 / 8) == pytest.approx(0.856, abs=5e-4)
    given = rows(reward=[1.0] * 24 + [0.7] * 20, reward_spread=[0.4] * 44)
    alarm, _ = seen(GuardConfig(window=8, reward=0.01), given)
    assert alarm is not None and alarm.step == 28 and "bound at 0.856." in alarm.sentence


def test_nearly_all_right_is_no_tripwire() -> None:
    """At 99 % right a completion's spread is 0.1, and half of it 0.05; a fall to 90 % makes a spread of
    0.3, which counts then, and 0.9 is within it."""
    right = [0.99] * 40 + [0.99 - 0.003 * i for i in range(30)] + [0.9] * 60
    given = rows(reward=right, reward_spread=[math.sqrt(p * (1 - p)) for p in right])
    assert seen(GuardConfig(), given)[0] is None
    right += [0.9 - 0.01 * i for i in range(90)]
    given = rows(reward=right, reward_spread=[math.sqrt(max(0.0, p * (1 - p))) for p in right])
    alarm, _ = seen(GuardConfig(), given)
    assert alarm is not None and alarm.kind == "reward"


@pytest.mark.parametrize(
    ("column", "before", "after", "bound", "word"),
    [
        ("entropy", 0.5, 0.005, "0.01", "`temperature`"),
        ("length", 200.0, 20.0, "30", "brevity"),
        ("repetition", 0.1, 0.9, "0.5", "`repetition` a weight"),
        ("empty_thinking", 0.0, 0.8, "0.4", "without thinking"),
    ],
)
def test_each_sign(column: str, before: float, after: float, bound: str, word: str) -> None:
    """A column that leaps past its bound: the mean of four steps crosses it with some of the bad ones in
    it, and the last calm step is that before the leap."""
    given = rows(**{column: [before] * 6 + [after] * 6})
    alarm, _ = seen(FOUR, given)
    assert alarm is not None and alarm.kind == column
    assert 7 <= alarm.step <= 10 and alarm.calm_until == 6
    assert f"`guard.{column}` sets the bound at {bound}." in alarm.sentence
    assert f"over steps {alarm.step - 3} to {alarm.step}" in alarm.sentence and word in alarm.sentence


def test_the_entropy_is_that_of_all_that_is_drawn() -> None:
    """The few completions with an advantage look as they did, while all others are one and the same; and the
    other way round, where nearly none has an advantage, nothing is amiss."""
    one, other = [0.5] * 20, [0.5] * 8 + [0.001] * 12
    alarm, _ = seen(FOUR, rows(entropy=one, surprise=other))
    assert alarm is not None and (alarm.kind, alarm.step) == ("entropy", 12)
    assert "`guard.entropy` sets the bound at 0.01" in alarm.sentence
    assert seen(FOUR, rows(entropy=other, surprise=one))[0] is None


def test_mismatch_is_held_against_nothing() -> None:
    """What engine and trainer may differ by does not depend on where the training began."""
    assert seen(FOUR, rows(mismatch=[0.02] * 20))[0] is None
    alarm, _ = seen(FOUR, rows(mismatch=[0.3] * 4))
    assert alarm is not None and (alarm.kind, alarm.step) == ("mismatch", 4)
    assert "bound at 0.2" in alarm.sentence and "engine: transformers" in alarm.sentence


def test_a_base_that_rambles_is_not_held_against_it() -> None:
    """Completions that the limit cuts off have its length; a policy that then learns to stop has not
    collapsed."""
    length, cut = [512.0] * 8 + [60.0] * 8, [1.0] * 8 + [0.0] * 8
    assert seen(FOUR, rows(length=length, truncated=cut))[0] is None
    assert seen(FOUR, rows(length=length, truncated=[0.0] * 16))[0] is not None


def test_a_base_that_repeats_itself_is_not_held_against_it() -> None:
    """What was there when the training began is no collapse of it."""
    assert seen(FOUR, rows(repetition=[0.7] * 20, empty_thinking=[0.9] * 20))[0] is None


def test_rows_between_generations_are_passed_over() -> None:
    """With several steps a rollout most rows have no length: windows are of those that have one."""
    every = rows(length=[200.0] * 6 + [10.0] * 6)
    second: list[float | None] = [x for row in every for x in (row["length"], None)]
    one, other = seen(FOUR, every)[0], seen(FOUR, rows(length=second))[0]
    assert one is not None and other is not None and other.step == 2 * one.step - 1


def test_a_sign_can_be_turned_off() -> None:
    """A bound of 0 is none."""
    given = rows(entropy=[0.5] * 6 + [0.0] * 10, length=[200.0] * 6 + [1.0] * 10)
    alarm, _ = seen(GuardConfig(window=4, entropy=0), given)
    assert alarm is not None and alarm.kind == "length"
    assert seen(GuardConfig(window=4, entropy=0, length=0), given)[0] is None


def test_calm_is_less_than_half_the_way() -> None:
    """Empty thinking may rise by 0.4: at 0.19 a checkpoint is good, at 0.21 it is no longer, and no alarm
    yet.

    The newest of a window of four is one row, so that a sudden fall shows before the window's mean does.
    """
    _, detector = seen(FOUR, rows(empty_thinking=[0.0] * 4 + [0.19]))
    assert detector.calm
    alarm, detector = seen(FOUR, rows(empty_thinking=[0.0] * 4 + [0.19, 0.21]))
    assert alarm is None and not detector.calm


def test_a_resumed_training_sees_what_it_would_have_seen() -> None:
    """The alarm is a function of the rows: those of the file shown again, and the rest."""
    draw = random.Random(0)
    good = [1 + draw.random() / 10 for _ in range(30)]
    given = rows(reward=[*good, *[0.3] * 20], reward_spread=[0.2] * 50)
    whole, _ = seen(GuardConfig(window=8), given)
    shown = [json.loads(json.dumps(row)) for row in given]
    assert whole is not None and seen(GuardConfig(window=8), shown)[0] == whole


def test_texture_by_hand() -> None:
    """Twenty tokens over and over, 60 in all: 41 runs of 20, of which 20 are different. And a completion of
    60 different tokens, which says nothing twice: the mean is half of 21 / 41."""
    loop, fresh = list(range(20)) * 3, list(range(60))
    found = texture(["", "</think> 5"], [loop, fresh], [True, True])
    assert found == {"repetition": pytest.approx(21 / 41 / 2), "empty_thinking": 1.0}


def test_only_what_thinks_can_think_nothing() -> None:
    """Of four, one thinks, one begins and closes at once, one is opened by itself and empty, one does not
    think: two of three are empty. Where none thinks there is no such column."""
    texts = ["1 + 1 </think> 2", " </think> 2", "<think> </think> 2", "2"]
    opened = [True, True, False, False]
    assert texture(texts, [[1]] * 4, opened)["empty_thinking"] == pytest.approx(2 / 3)
    assert texture(["2"], [[1]], [False]) == {"repetition": 0.0}
    assert texture([], [], []) == {}


def test_a_sample_is_spread_evenly() -> None:
    """No more than the limit, all of a small generation, and from one end to the other of a large one."""
    assert list(sampled(5)) == [0, 1, 2, 3, 4]
    places = sampled(8192)
    assert len(places) == SAMPLED and places[-1] == 8192 - 256
    assert all(len(sampled(count)) <= SAMPLED for count in range(1, 300))


def test_a_recipe_writes_a_guard() -> None:
    """Unknown keys and bounds that mean nothing are refused."""
    assert GuardConfig.model_validate({"window": 8, "rollback": True}).rollbacks == 1
    for wrong in ({"windw": 8}, {"length": 1.5}, {"window": 1}, {"reward": -1}):
        with pytest.raises(ValidationError):
            GuardConfig.model_validate(wrong)
