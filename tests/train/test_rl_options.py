"""What an option does to a training, counted or computed by hand: advantages, dynamic sampling, the mismatch,
the reference, what is not computed, and schedules."""

import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

import pytest
import torch

from r1pipe.errors import UsageError
from r1pipe.rollout import Engine, Finished, Rollout, Sampling
from r1pipe.train import grpo
from r1pipe.train.grpo import Prompt
from r1pipe.train.micro_batches import Bounds
from tests.tiny_model import difference, timeless
from tests.tiny_rl import (
    GROUP,
    SETTINGS,
    Drawn,
    Recording,
    distribution,
    logps,
    policy_of,
    record,
    total,
    write_talker,
)


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model whose completions are of all lengths; read only."""
    return write_talker(tmp_path_factory.mktemp("talker"))


class Around:
    """An engine around the usual one that notes what it was asked."""

    exact = True

    def __init__(self, inner: Engine) -> None:
        self.inner = inner
        self.name = inner.name
        self.asked: list[tuple[list[tuple[int, ...]], Sampling, list[int]]] = []
        self.busy = False

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        seeds: Sequence[int],
        finished: Finished | None = None,
    ) -> list[Rollout]:
        self.asked.append(([tuple(prompt) for prompt in prompts], sampling, list(seeds)))
        self.busy = True
        try:
            return self.inner.generate(prompts, sampling, seeds=seeds, finished=finished)
        finally:
            self.busy = False

    def sync(self) -> None:
        self.inner.sync()

    def rest(self) -> None:
        self.inner.rest()

    def close(self) -> None:
        self.inner.close()


def engines() -> tuple[list[Around], Any]:
    """What `record` puts around its engine, and where it is found after that."""
    made: list[Around] = []

    def around(inner: Engine) -> Engine:
        made.append(Around(inner))
        return made[-1]

    return made, around


# --- Advantages


@pytest.mark.parametrize("scale", ["none", "group", "batch"])
def test_advantages(scale: Literal["none", "group", "batch"], talker: Path, tmp_path: Path) -> None:
    """Reward less the mean of the group's decided, by nothing, their deviation or that of all decided of the
    rollout (n - 1 in the denominator, 1e-4 added); one that nobody could judge has none, and is in no mean.
    """
    recording = record(talker, tmp_path / "run", scale_rewards=scale)
    (step,) = recording.steps
    rewards = [total(each.judgement.rewards) for each in recording.generated]
    everywhere = stdev([reward for reward in rewards if reward is not None])
    expected = {}
    for start in range(0, 12, GROUP):
        group = [reward for reward in rewards[start : start + GROUP] if reward is not None]
        spread = {"none": 1, "group": stdev(group) + 1e-4, "batch": everywhere + 1e-4}[scale]
        for each, reward in zip(recording.generated[start:][:GROUP], rewards[start:][:GROUP], strict=True):
            expected[id(each)] = 0 if reward is None else (reward - mean(group)) / spread
    given = step.rows["advantages"].tolist()
    assert given == pytest.approx([expected[id(drawn)] for drawn in step.drawn], rel=1e-5, abs=1e-6)
    assert rewards.count(None) == 1 and sum(value == 0 for value in expected.values()) == 1 + GROUP
    (row,) = recording.rows
    assert (row["undecided"], row["groups_without_spread"]) == pytest.approx((1 / 12, 1 / 3))


def test_one_reward_decides_where_another_does_not(talker: Path, tmp_path: Path) -> None:
    """A completion that only one of two rewards could be given for has that one's weight alone."""

    def script(prompt: Prompt, place: int, rollout: Rollout) -> Mapping[str, float | None]:
        return {"even": None if place == 0 else 1.0, "varied": (0.5, 0.0, 1.0, 0.5)[place]}

    recording = record(talker, tmp_path / "run", script=script, scale_rewards="none")
    drawn = recording.generated[0]
    (step,) = recording.steps
    given = dict(zip(map(id, step.drawn), step.rows["advantages"].tolist(), strict=True))
    assert given[id(drawn)] == pytest.approx(0.25 - mean([0.25, 1.0, 1.5, 1.25]))


# --- Dynamic sampling


def sometimes(prompt: Prompt, place: int, rollout: Rollout) -> Mapping[str, float | None]:
    """Flat for the prompts of two rows of three, so that a replacement may be flat again."""
    spread = (0.0, 1.0, 1.0, 0.0)[place]
    return {"even": spread if prompt.row % 3 == 0 else 1.0, "varied": 0.5}


def test_flat_groups_give_way(talker: Path, tmp_path: Path) -> None:
    """Three groups, two flat: those two are asked again with other prompts, and of these again what is flat.

    What was replaced is in no step; what replaced it stands in its place, and the figures are those counted
    here. Every completion has a seed of its own.
    """
    made, around = engines()
    settings = grpo.Settings(bounds=Bounds(3), dynamic_sampling=2)
    options = {"max_steps": 2, "scale_rewards": "none"}
    recording = record(
        talker, tmp_path / "run", script=sometimes, settings=settings, engine=around, **options
    )
    calls = iter(recording.generations)
    for step, row in zip(recording.steps, recording.rows, strict=True):
        standing = _groups(next(calls))
        assert row["groups_without_spread"] == pytest.approx(2 / 3)
        replaced = 0
        for _ in range(2):
            flat = [place for place, group in enumerate(standing) if not _has_spread(group)]
            if not flat:
                break
            for place, group in zip(flat, _groups(next(calls)), strict=True):
                assert len({drawn.prompt.row for drawn in group}) == 1
                standing[place] = group
            replaced += len(flat)
        assert row["groups_replaced"] == pytest.approx(replaced / 3)
        assert row["groups_left_flat"] == pytest.approx(sum(not _has_spread(g) for g in standing) / 3)
        learned = Counter(id(drawn) for drawn in step.drawn)
        assert learned == Counter(id(drawn) for group in standing for drawn in group)
        telling = sum(abs(advantage) > 0 for advantage in step.rows["advantages"].tolist())
        assert telling == GROUP * sum(map(_has_spread, standing))
    assert next(calls, None) is None
    seeds = [seed for _, _, each in made[0].asked for seed in each]
    assert len(set(seeds)) == len(seeds) == len(recording.generated)
    assert any(row["groups_replaced"] > 2 / 3 for row in recording.rows), "no replacement was flat"
    assert any(row["groups_left_flat"] < 2 / 3 for row in recording.rows), "no replacement had spread"


def test_the_budget_is_kept(talker: Path, tmp_path: Path) -> None:
    """Where every group is always flat, three replacements are three more calls of the engine, and nothing
    moves; accuracy is that of the first draw."""
    asked: list[int] = []

    def script(prompt: Prompt, place: int, rollout: Rollout) -> Mapping[str, float | None]:
        asked.append(prompt.row)
        return {"even": float(len(asked) <= 12), "varied": 0.0}  # right at first, wrong in replacements

    recording = record(
        talker, tmp_path / "run", script=script, settings=grpo.Settings(bounds=Bounds(3), dynamic_sampling=3)
    )
    assert [len(generation) for generation in recording.generations] == [12, 12, 12, 12]
    (row,) = recording.rows
    assert (row["groups_replaced"], row["groups_left_flat"], row["groups_without_spread"]) == (3, 1, 1)
    assert row["accuracy"] == 1.0
    assert difference(recording.weights, recording.steps[0].weights) == 0.0


def test_what_has_spread_is_left_alone(talker: Path, tmp_path: Path) -> None:
    """The engine is asked once, and the step is that of a training without dynamic sampling."""

    def script(prompt: Prompt, place: int, rollout: Rollout) -> Mapping[str, float | None]:
        return {"even": place % 2, "varied": 0.0}

    with_it = record(
        talker, tmp_path / "on", script=script, settings=grpo.Settings(bounds=Bounds(3), dynamic_sampling=3)
    )
    without = record(talker, tmp_path / "off", script=script)
    assert len(with_it.generations) == 1
    assert (with_it.rows[0]["groups_replaced"], with_it.rows[0]["groups_left_flat"]) == (0, 0)
    assert "groups_replaced" not in without.rows[0]
    assert difference(with_it.weights, without.weights) == 0.0


def _groups(drawn: Sequence[Drawn]) -> list[Sequence[Drawn]]:
    return [drawn[start : start + GROUP] for start in range(0, len(drawn), GROUP)]


def _has_spread(group: Sequence[Drawn]) -> bool:
    return len({total(drawn.judgement.rewards) for drawn in group}) > 1


# --- The mismatch


class Off(Around):
    """An engine that is not exact: what it says of a token is off by up to 0.5, and here and there it is
    silent."""

    exact = False

    def __init__(self, inner: Engine, scale: float = 0.5) -> None:
        super().__init__(inner)
        self.scale = scale

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        seeds: Sequence[int],
        finished: Finished | None = None,
    ) -> list[Rollout]:
        rollouts = super().generate(prompts, sampling, seeds=seeds)
        for rollout in rollouts:
            assert rollout.logprobs is not None, "an engine that is not exact is asked for them"
            rollout.logprobs = [
                value + self.scale * (-1 if (i + token) % 3 else 1)
                for i, (value, token) in enumerate(zip(rollout.logprobs, rollout.token_ids, strict=True))
            ]
        return rollouts


BOUND = 1.5


@pytest.fixture(scope="module", params=["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"])
def corrected(
    request: pytest.FixtureRequest, talker: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Recording]:
    """Two steps of a rollout under each correction."""
    settings = grpo.Settings(bounds=Bounds(3, 60), mismatch=request.param, mismatch_bound=BOUND)
    options = {"max_steps": 2, "steps_per_generation": 2, "learning_rate": 0.1, "loss_type": "bnpo"}
    folder = tmp_path_factory.mktemp("corrected")
    return request.param, record(talker, folder / "run", settings=settings, engine=Off, **options)


def test_each_token_is_weighted(corrected: tuple[str, Recording], talker: Path) -> None:
    """The loss is that of DAPO, each token times trainer / engine, the trainer being the policy that drew:
    cut to 1.5 or left out beyond it, of tokens or of products over completions. So is the gradient.

    The figures are taken before the cut, over the completions of the step that have an advantage.
    """
    correction, recording = corrected
    advantages = {
        id(drawn): value
        for step in recording.steps
        for drawn, value in zip(step.drawn, step.rows["advantages"].tolist(), strict=True)
    }
    after = [recording.steps[1].weights, recording.weights]
    old = policy_of(talker, recording.steps[0].weights)
    for step, row, weights in zip(recording.steps, recording.rows, after, strict=True):
        policy = policy_of(talker, step.weights)
        terms, ratios, differences = [], [], []
        tokens = sum(len(drawn.rollout.token_ids) for drawn in step.drawn)
        for drawn in step.drawn:
            advantage = advantages[id(drawn)]
            with torch.no_grad():
                before = logps(old, drawn)
            difference = before - torch.tensor(drawn.rollout.logprobs)
            ratio = difference.sum().exp()[None] if "sequence" in correction else difference.exp()
            kept = ratio.clamp(max=BOUND) if "truncate" in correction else ratio * (ratio <= BOUND)
            policy_ratio = (logps(policy, drawn) - before).exp()
            clipped = policy_ratio.clamp(0.8, 1.2)
            terms.append((torch.min(policy_ratio * advantage, clipped * advantage) * kept).sum())
            if abs(advantage) > 1e-6:
                ratios.append(ratio)
                differences.append(difference.abs())
        loss = -torch.stack(terms).sum() / tokens
        assert row["loss"] == pytest.approx(loss.item(), rel=1e-5, abs=1e-6)
        every = torch.cat(ratios)
        assert row["mismatch"] == pytest.approx(torch.cat(differences).mean().item(), rel=1e-4)
        assert row["mismatch_ratio_max"] == pytest.approx(every.max().item(), rel=1e-4)
        if "token" in correction:
            assert row["mismatch_ratio"] == pytest.approx(every.mean().item(), rel=1e-4)
            assert row["mismatch_cut"] == pytest.approx((every > BOUND).double().mean().item(), rel=1e-4)
        assert (every > BOUND).any() and (every < BOUND).any()
        loss.backward()
        for name, parameter in policy.named_parameters():
            moved = (step.weights[name] - weights[name]) / 0.1
            torch.testing.assert_close(moved.double(), parameter.grad, rtol=1e-3, atol=2e-5)


def test_vespo_weighs_by_the_ratio_to_the_engine(talker: Path, tmp_path: Path) -> None:
    """φ(W) A log π, W being the product of new / old and of old / engine, the latter cut off: nothing is
    weighted besides."""
    settings = grpo.Settings(bounds=Bounds(3, 60), mismatch_bound=1.05)
    options = {"max_steps": 2, "steps_per_generation": 2, "learning_rate": 0.1, "loss_type": "vespo"}
    recording = record(
        talker, tmp_path / "run", settings=settings, engine=lambda inner: Off(inner, scale=0.1), **options
    )
    old = policy_of(talker, recording.steps[0].weights)
    tokens = sum(len(drawn.rollout.token_ids) for drawn in recording.generated) / 2
    for step, row in zip(recording.steps, recording.rows, strict=True):
        policy, value = policy_of(talker, step.weights), 0.0
        for drawn, advantage in zip(step.drawn, step.rows["advantages"].tolist(), strict=True):
            with torch.no_grad():
                new, before = logps(policy, drawn), logps(old, drawn)
            engine = (before - torch.tensor(drawn.rollout.logprobs)).exp().clamp(max=1.05)
            whole = (new - before).sum().exp() * engine.prod()
            k, rate = (2, 3) if advantage >= 0 else (3, 2)
            phi = whole**k * (rate * (1 - whole)).exp()
            value -= (phi * advantage * new).sum().item() / tokens
        assert row["mismatch_cut"] > 0.1
        assert row["loss"] == pytest.approx(value, rel=1e-4)


def test_none_changes_nothing(talker: Path, tmp_path: Path) -> None:
    """`mismatch: none` and an engine that is off: the weights of a training with one that is exact, and the
    mismatch is told all the same. So does any correction of an engine that says it is not exact but is."""
    plain = record(talker, tmp_path / "plain")
    uncorrected = grpo.Settings(bounds=Bounds(3), mismatch="none")
    off = record(talker, tmp_path / "off", settings=uncorrected, engine=Off)
    assert difference(plain.weights, off.weights) == 0.0
    assert off.rows[0]["mismatch"] == pytest.approx(0.5, rel=1e-3)
    assert "mismatch" not in plain.rows[0]
    honest = record(talker, tmp_path / "honest", engine=lambda inner: Off(inner, scale=0.0))
    assert difference(plain.weights, honest.weights) < 1e-5
    assert honest.rows[0]["mismatch"] < 1e-5
    assert honest.rows[0]["mismatch_ratio_max"] == pytest.approx(1, abs=1e-5)


def test_what_top_p_leaves_out_is_a_mismatch(talker: Path, tmp_path: Path) -> None:
    """With `top_p` even the exact engine draws from another distribution than the trainer's: the ratio is the
    probability of what was kept, so it is never above 1."""
    recording = record(talker, tmp_path / "run", top_p=0.8)
    (row,) = recording.rows
    assert row["mismatch_ratio_max"] <= 1 + 1e-5 and 0.8 - 1e-5 <= row["mismatch_ratio"] < 0.99


# --- What is not computed


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Forward passes of the policy and its reference by what they are for: drawing, learning, or neither."""
    counts: Counter[str] = Counter()
    build = grpo.Policy.__init__

    def counted(self: grpo.Policy, **given: Any) -> None:
        build(self, **given)
        drawing = given["engine"]

        def count(what: str) -> None:
            if not drawing.busy:
                counts["learning" if torch.is_grad_enabled() else what] += 1

        self.model.register_forward_pre_hook(lambda *_: count("old"))
        if self.ref_model is not None:
            self.ref_model.register_forward_pre_hook(lambda *_: count("reference"))

    monkeypatch.setattr(grpo.Policy, "__init__", counted)
    yield counts


@pytest.mark.parametrize(
    ("engine", "options", "without_gradients"),
    [
        pytest.param(Around, {}, {}, id="exact"),
        pytest.param(Around, {"steps_per_generation": 2}, {}, id="exact, two steps"),
        pytest.param(Around, {"beta": 0.1, "steps_per_generation": 2}, {"reference"}, id="exact, reference"),
        pytest.param(Off, {}, {}, id="off"),
        pytest.param(Off, {"steps_per_generation": 2}, {"old"}, id="off, two steps"),
        pytest.param(Off, {"beta": 0.1}, {"reference"}, id="off, reference"),
    ],
)
def test_no_pass_too_many(
    engine: type[Around],
    options: dict[str, Any],
    without_gradients: set[str],
    passes: Counter[str],
    talker: Path,
    tmp_path: Path,
) -> None:
    """The old policy is computed where steps share a rollout of an engine that is off, the reference with a
    KL term, and nothing for the mismatch itself. Passes with gradients are one for each micro-batch."""
    recording = record(talker, tmp_path / "run", engine=engine, max_steps=2, **options)
    assert set(passes) - {"learning"} == set(without_gradients)
    learned = 0
    for step in recording.steps:
        telling = int((step.rows["advantages"].abs() > 1e-6).sum())
        learned += -(-(12 if options.get("beta") else telling) // SETTINGS.bounds.rows)
    assert passes["learning"] == learned


def test_the_engines_numbers_are_the_old_policys(talker: Path, tmp_path: Path) -> None:
    """Where they are taken for it, they equal a fresh pass of the policy that drew to 1e-5, at a temperature
    too, and are zero behind a completion's end."""
    recording = record(talker, tmp_path / "run", max_steps=2, steps_per_generation=2, temperature=0.7)
    old = policy_of(talker, recording.steps[0].weights)
    for step in recording.steps:
        for drawn, taken in zip(step.drawn, step.rows["old_per_token_logps"], strict=True):
            with torch.no_grad():
                fresh = logps(old, drawn, temperature=0.7)
            torch.testing.assert_close(taken[: len(fresh)].double(), fresh, rtol=0, atol=1e-5)
            assert not taken[len(fresh) :].any()


# --- The reference


def test_a_refreshed_reference(talker: Path, tmp_path: Path) -> None:
    """Refreshed every two steps: the KL of steps 1 and 3 is 0, of steps 2 and 4 the mean over tokens of the
    k3 estimate against the policy before step 1 and before step 3."""
    options = {"sync_ref_model": True, "ref_model_sync_steps": 2, "ref_model_mixup_alpha": 1.0}
    recording = record(talker, tmp_path / "run", max_steps=4, beta=0.3, learning_rate=0.1, **options)
    policies = [policy_of(talker, step.weights) for step in recording.steps]
    for i, (step, row) in enumerate(zip(recording.steps, recording.rows, strict=True)):
        with torch.no_grad():
            log_ratios = [logps(policies[i // 2 * 2], d) - logps(policies[i], d) for d in step.drawn]
        k3 = torch.cat([each.exp() - each - 1 for each in log_ratios]).mean().item()
        assert row["kl"] == pytest.approx(k3, rel=1e-4, abs=1e-9)
        assert (row["kl"] < 1e-9) is (i % 2 == 0)


# --- Schedules


SCHEDULE = grpo.Settings(bounds=Bounds(3), lengths={0: 4, 2: 16, 5: 7}, temperatures={0: 1.0, 3: 0.5})
SCHEDULED = {
    "max_steps": 6,
    "loss_type": "dr_grpo",
    "optim": "adamw_torch",
    "learning_rate": 1e-3,
    "save_steps": 2,
}


@pytest.fixture(scope="module")
def scheduled(talker: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recording, list[Around]]:
    """Six steps over legs that end at 2, 3 and 5."""
    made, around = engines()
    folder = tmp_path_factory.mktemp("scheduled")
    return record(talker, folder / "run", settings=SCHEDULE, engine=around, **SCHEDULED), made


def test_each_step_obeys_its_values(scheduled: tuple[Recording, list[Around]], talker: Path) -> None:
    """What was asked for, what was drawn, and what the loss takes for the policy's distribution and for Dr.
    GRPO's constant: each is that of its step."""
    recording, (engine,) = scheduled
    lengths, temperatures = [4, 4, 16, 16, 16, 7], [1.0, 1.0, 1.0, 0.5, 0.5, 0.5]
    assert [sampling.max_new_tokens for _, sampling, _ in engine.asked] == lengths
    assert [sampling.temperature for _, sampling, _ in engine.asked] == temperatures
    assert [row["step"] for row in recording.rows] == [1, 2, 3, 4, 5, 6]
    for step, row, limit, temperature in zip(
        recording.steps, recording.rows, lengths, temperatures, strict=True
    ):
        for drawn in step.drawn:
            drawn_tokens = len(drawn.rollout.token_ids)
            assert drawn_tokens <= limit
            assert (drawn.rollout.finish == "length") <= (drawn_tokens == limit)
        policy = policy_of(talker, step.weights)
        # On policy the value of the loss says nothing of the distribution, the entropy does; see the gradient
        # in test_losses.py.
        advantages = step.rows["advantages"].tolist()
        sums = [a * len(d.rollout.token_ids) for a, d in zip(advantages, step.drawn, strict=True)]
        assert row["loss"] == pytest.approx(-sum(sums) / (12 * limit), rel=1e-4, abs=1e-6)
        telling = [d for a, d in zip(advantages, step.drawn, strict=True) if abs(a) > 1e-6]
        assert row["entropy"] == pytest.approx(_entropy(policy, telling, temperature), rel=1e-4)
    assert max(len(drawn.rollout.token_ids) for drawn in recording.steps[2].drawn) == 16


def _entropy(policy: Any, drawn: Sequence[Drawn], temperature: float) -> float:
    with torch.no_grad():
        every = torch.cat([distribution(policy, each, temperature) for each in drawn])
    return float(-(every.exp() * every).sum(-1).mean())


@pytest.mark.parametrize("stop_after", [1, 2, 4])
def test_interrupted_across_a_change(
    stop_after: int, scheduled: tuple[Recording, list[Around]], talker: Path, tmp_path: Path
) -> None:
    """Stopped within a leg, where one ends, and in the third: weights and metrics are those of the training
    that was not stopped, bit for bit."""
    whole, _ = scheduled
    first = record(talker, tmp_path / "run", settings=SCHEDULE, stop_after=stop_after, **SCHEDULED)
    second = record(talker, tmp_path / "run", settings=SCHEDULE, **SCHEDULED)
    assert [len(first.rows), len(second.rows)] == [stop_after, 6 - stop_after]
    assert difference(whole.weights, second.weights) == 0.0
    assert timeless(first.rows + second.rows) == timeless(whole.rows)


def test_a_leg_leaves_nothing_behind(talker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the trainer of the next leg is made, the one before is gone, and so are its optimiser and its
    reference model: there is never memory for two."""
    held: list[weakref.ref[Any]] = []
    alive: list[int] = []
    init, create = grpo.Policy.__init__, grpo.Policy.create_optimizer

    def counted(self: Any, **options: Any) -> None:
        alive.append(sum(each() is not None for each in held))
        init(self, **options)
        held.extend([weakref.ref(self), weakref.ref(self.ref_model)])

    def noted(self: Any, *args: Any) -> Any:
        held.append(weakref.ref(optimizer := create(self, *args)))
        return optimizer

    monkeypatch.setattr(grpo.Policy, "__init__", counted)
    monkeypatch.setattr(grpo.Policy, "create_optimizer", noted)
    settings = grpo.Settings(bounds=Bounds(3), temperatures={0: 1.0, 1: 0.5, 2: 0.7})
    record(talker, tmp_path / "run", settings=settings, **SCHEDULED | {"max_steps": 3, "beta": 0.1})
    assert len(held) == 9 and alive == [0, 0, 0]


def test_dynamic_sampling_interrupted(talker: Path, tmp_path: Path) -> None:
    """Replacements are a function of the seed and the step: a stopped training asks and learns the same, with
    two steps to a rollout too."""
    settings = grpo.Settings(bounds=Bounds(3), dynamic_sampling=2)
    options = SCHEDULED | {"steps_per_generation": 2, "max_steps": 4}
    both = {"script": sometimes, "settings": settings, **options}
    whole = record(talker, tmp_path / "whole", **both)
    first = record(talker, tmp_path / "parts", stop_after=1, **both)
    second = record(talker, tmp_path / "parts", **both)
    assert [len(first.rows), len(second.rows)] == [2, 2]
    assert difference(whole.weights, second.weights) == 0.0
    assert timeless(first.rows + second.rows) == timeless(whole.rows)
    assert [d.prompt.row for d in first.generated + second.generated] == [
        d.prompt.row for d in whole.generated
    ]


def test_a_change_within_a_rollout_is_refused(talker: Path, tmp_path: Path) -> None:
    """Before anything is generated, though the first change, at step 2, would do: the second is at step 3."""
    made, around = engines()
    settings = grpo.Settings(lengths={0: 4, 2: 8, 3: 16})
    with pytest.raises(UsageError, match=r"changes at step 3, in the middle of a rollout that lasts 2 steps"):
        record(
            talker, tmp_path / "run", settings=settings, engine=around, max_steps=4, steps_per_generation=2
        )
    assert made[0].asked == []


@pytest.mark.parametrize("overlap", [False, True])
def test_undecided_verdicts_are_heard_by_the_generation(
    overlap: bool, talker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve completions a generation, none decided: said at the first and, after two, at the third; judged
    in how many parts ever."""

    def undecided(prompt: Prompt, place: int, rollout: Rollout) -> Mapping[str, float | None]:
        return {"even": None, "varied": None}

    monkeypatch.setattr("r1pipe.verify.alarm.FEWEST", 12)
    monkeypatch.setattr("r1pipe.train.grpo.ALARM_EVERY", 2)
    settings = grpo.Settings(bounds=Bounds(3), overlap=overlap)
    recording = record(talker, tmp_path / "run", script=undecided, settings=settings, max_steps=4)
    said = [told.split(" completions")[0] for told in recording.said.split("Undecided verdicts: ")[1:]]
    assert said == ["100 % of the last 12", "100 % of the last 36"]
