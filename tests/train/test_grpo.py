"""GRPO: what is saved on padding changes no gradient, and an interrupted run ends with the same bits."""

import random
from collections.abc import Sequence
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from r1pipe.errors import Interrupted, RunFailed
from r1pipe.rollout import Finished, Rollout, Sampling
from r1pipe.rollout.local import TransformersEngine
from r1pipe.train import checkpoints, grpo, models, steps
from r1pipe.train.callbacks import WorkCallback
from r1pipe.train.grpo import Judgement, Prompt
from r1pipe.train.micro_batches import Bounds, Micro
from r1pipe.train.steps import Stepping
from tests.tiny_model import Ear, difference, timeless, workplace

Weights = dict[str, torch.Tensor]

SMALL = {
    "num_generations": 4,
    "per_device_train_batch_size": 8,
    "max_completion_length": 20,
    "learning_rate": 1e-2,
    "save_steps": 2,
}
"""Two groups of four completions a step."""

SETTINGS = grpo.Settings(bounds=Bounds(2))
"""Two completions in a pass."""


class Uneven(TransformersEngine):
    """Ends each completion after 1 to 20 tokens drawn from the seed: a random model hardly ever does."""

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        seeds: Sequence[int],
        finished: Finished | None = None,
    ) -> list[Rollout]:
        rollouts = super().generate(prompts, sampling, seeds=seeds)
        for place, (rollout, seed) in enumerate(zip(rollouts, seeds, strict=True)):
            length = random.Random(seed).randint(1, sampling.max_new_tokens)
            if length < len(rollout.token_ids):
                rollout.token_ids[length - 1 :] = [self.eos_id]
                rollout.logprobs = rollout.logprobs and rollout.logprobs[:length]
                rollout.finish = "stop"
            if finished is not None:
                finished(place, rollout)
        return rollouts


def parity(batch: Sequence[tuple[Prompt, Rollout]]) -> list[Judgement]:
    """Rewards that differ within a group: whether a completion's length is even, and how much of it is one
    token."""
    return [
        Judgement(
            {"even": float(len(r.token_ids) % 2 == 0), "varied": len(set(r.token_ids)) / len(r.token_ids)},
            len(r.token_ids) % 2 == 0,
        )
        for _, r in batch
    ]


def train(
    tiny: Path,
    folder: Path,
    steps: int,
    *,
    judge: grpo.Judge = parity,
    stop_after: int | None = None,
    seed: int = 0,
    settings: grpo.Settings = SETTINGS,
    **options: Any,
) -> tuple[Weights, Ear]:
    """Train in `folder`, from its last checkpoint if it has one; return the weights and what was logged."""
    model, tokenizer = models.open_model(tiny)
    prompts = []
    for row in range(steps * 2):
        text = f"nums {row % 12} 4 {'7 ' * (row % 3)}to {row} <think>"  # prompts of three lengths
        prompts.append(Prompt(row, text, tokenizer(text)["input_ids"]))
    engine = Uneven(model, eos_id=tokenizer.eos_token_id, pad_id=tokenizer.pad_token_id)
    work, ear = workplace(folder, seed, stop_after=stop_after)
    passed_on = {**SMALL, "max_steps": steps, **options}
    try:
        grpo.train(
            model, tokenizer, prompts, judge, {"even": 1.0, "varied": 0.5}, engine, passed_on, work, settings
        )
    except Interrupted:
        assert stop_after is not None
    return {name: value.clone() for name, value in model.state_dict().items()}, ear


LOSSES = ["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"]


SGD = {"optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0}
"""One step with rate 1 moves the weights by the gradient."""


def as_trl_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the optimiser step, the loss and the log-probabilities to TRL, at full width."""
    for name in ("training_step", "_compute_loss", "_get_per_token_logps_and_entropies"):
        monkeypatch.delattr(Stepping, name)


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(rows, columns) of the completions in every micro-batch."""
    seen: list[tuple[int, int]] = []

    def noted(*args: Any, **kwargs: Any) -> list[Micro]:
        result = cut(*args, **kwargs)
        seen.extend(tuple(micro["completion_ids"].shape) for micro in result)
        return result

    cut = steps.cut
    monkeypatch.setattr(steps, "cut", noted)
    return seen


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_cutting_changes_no_gradient(
    loss: str,
    beta: float,
    shapes: list[tuple[int, int]],
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The gradient is TRL's own, computed of all rows at once at the width of the longest completion.

    Completions have 1 to 20 tokens, and the second group is flat: without a KL term its rows are left out.
    """
    options = {**SGD, "loss_type": loss, "beta": beta, "epsilon_high": 5.0}

    def judge(batch: Sequence[tuple[Prompt, Rollout]]) -> list[Judgement]:
        return [
            Judgement({"even": (1.1 * (i % 2) if p.row == 0 else 1.1), "varied": 0.1}, True)
            for i, (p, _) in enumerate(batch)
        ]

    before = load_file(tiny / "model.safetensors")
    ours, _ = train(tiny, tmp_path / "ours", 1, judge=judge, **options)
    assert len({width for _, width in shapes}) > 1, "nothing was cut"
    assert sum(rows for rows, _ in shapes) == (8 if beta else 4)
    as_trl_does(monkeypatch)
    theirs, _ = train(tiny, tmp_path / "theirs", 1, judge=judge, **options)
    assert difference({name: ours[name] for name in before}, before) > 1e-3, "a gradient of nothing"
    assert difference(ours, theirs) < 1e-6


def test_what_teaches_nothing_is_not_computed(
    shapes: list[tuple[int, int]], tiny: Path, tmp_path: Path
) -> None:
    """When all groups are flat, one row is still computed and moves nothing."""
    flat: grpo.Judge = lambda batch: [Judgement({"even": 1.1, "varied": 0.1}, True) for _ in batch]  # noqa: E731
    weights, _ = train(tiny, tmp_path / "run", 1, judge=flat, **SGD)
    assert [rows for rows, _ in shapes] == [1]
    assert difference(weights, load_all(tiny)) == 0.0


@pytest.mark.parametrize("options", [{"entropy_coef": 0.1}, {"top_entropy_quantile": 0.5}], ids=str)
def test_rows_that_an_entropy_pulls_on_are_kept(
    options: dict[str, Any], shapes: list[tuple[int, int]], tiny: Path, tmp_path: Path
) -> None:
    """An entropy term acts on completions without advantage too."""
    flat: grpo.Judge = lambda batch: [Judgement({"even": 1.1, "varied": 0.1}, True) for _ in batch]  # noqa: E731
    train(tiny, tmp_path / "run", 1, judge=flat, **SGD, **options)
    assert sum(rows for rows, _ in shapes) == 8


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="plain"),
        pytest.param(
            {"beta": 0.05, "sync_ref_model": True, "ref_model_sync_steps": 2, "ref_model_mixup_alpha": 0.6},
            id="synced reference",
        ),
        pytest.param({"steps_per_generation": 2}, id="two steps a generation"),
        pytest.param({"num_iterations": 2}, id="two passes over a generation"),
    ],
)
def test_interrupted_is_uninterrupted(options: dict[str, Any], tiny: Path, tmp_path: Path) -> None:
    """Six steps in one go, and six with a stop after the third or fourth: the weights are equal bit for bit.

    So are the rows of metrics but for their times, which says that every rollout was the same too.
    """
    whole, ear = train(tiny, tmp_path / "whole", 6, **options)
    _, first = train(tiny, tmp_path / "parts", 6, stop_after=3, **options)
    resumed, second = train(tiny, tmp_path / "parts", 6, **options)
    assert 3 <= len(first.rows) < 6
    assert difference(whole, load_all(tiny)) > 1e-3
    assert difference(whole, resumed) == 0.0
    assert timeless(ear.rows) == timeless(first.rows + second.rows)


def load_all(tiny: Path) -> Weights:
    return dict(models.open_model(tiny)[0].state_dict())


def test_a_kill_while_a_checkpoint_is_written(tiny: Path, tmp_path: Path) -> None:
    """The half-written checkpoint is passed over, the one before it taken, and the metrics are cut back to
    it."""
    whole, ear = train(tiny, tmp_path / "whole", 6)
    train(tiny, tmp_path / "killed", 6, stop_after=4)
    trainer = tmp_path / "killed" / "trainer"
    newest = trainer / "checkpoint-4"
    (newest / checkpoints.MARKER).unlink()
    (newest / "optimizer.pt").write_bytes(b"half")
    resumed, second = train(tiny, tmp_path / "killed", 6)
    assert [row["step"] for row in second.rows] == [3, 4, 5, 6]
    assert difference(whole, resumed) == 0.0
    assert timeless(ear.rows)[2:] == timeless(second.rows)
    work, _ = workplace(tmp_path / "killed")
    assert [line.split(",")[0] for line in work.metrics.read_text().splitlines()] == [
        f'{{"step":{step}' for step in range(1, 7)
    ]


def test_a_kill_after_the_last_step(tiny: Path, tmp_path: Path) -> None:
    """Trained to the end and run again, as after a kill before publishing: nothing moves, the metrics are
    there."""
    whole, ear = train(tiny, tmp_path / "run", 2)
    again, second = train(tiny, tmp_path / "run", 2)
    assert difference(whole, again) == 0.0
    assert second.rows == []
    work, _ = workplace(tmp_path / "run")
    callback = WorkCallback(work, lambda logs, seconds: {})
    callback.recall(2)
    assert timeless([callback.last]) == timeless(ear.rows[-1:]) and callback.headline["step"] == 2


def test_two_checkpoints_are_kept(tiny: Path, tmp_path: Path) -> None:
    """The older one goes only when the newer one is sealed, so there is always a whole one."""
    train(tiny, tmp_path / "run", 6)
    kept = sorted(p.name for p in (tmp_path / "run" / "trainer").glob("checkpoint-*"))
    assert kept == ["checkpoint-4", "checkpoint-6"]
    assert all(checkpoints.is_whole(tmp_path / "run" / "trainer" / name) for name in kept)


def test_checkpoints_stand_where_a_generation_ends(tiny: Path, tmp_path: Path) -> None:
    """With three steps a generation, `save_steps` 2 is not exact to resume from; it becomes 3, and that is
    said."""
    _, ear = train(tiny, tmp_path / "run", 3, steps_per_generation=3)
    assert "every 3 steps" in ear.said
    assert [p.name for p in (tmp_path / "run" / "trainer").glob("checkpoint-*")] == ["checkpoint-3"]


@pytest.mark.parametrize("steps", [1, 3])
def test_a_generation_that_the_steps_do_not_fill(steps: int, tiny: Path, tmp_path: Path) -> None:
    """A generation of two steps' prompts: one step or three are taken, with prompts from the front again."""
    _, ear = train(tiny, tmp_path / "run", steps, steps_per_generation=2)
    assert [row["step"] for row in ear.rows] == list(range(1, steps + 1))


def test_another_seed_is_another_run(tiny: Path, tmp_path: Path) -> None:
    """The seed reaches the rollouts: else "same seed, same result" would be true of nothing."""
    one, _ = train(tiny, tmp_path / "one", 1)
    other, _ = train(tiny, tmp_path / "other", 1, seed=1)
    assert difference(one, other) > 0


def test_undecided_completions_teach_nothing(tiny: Path, tmp_path: Path) -> None:
    """When no completion could be judged the weights stay where they are, and the share is shown as 1.

    A reward of zero for some of them would move the weights; None moves nothing.
    """
    blind: grpo.Judge = lambda batch: [Judgement({"even": None, "varied": None}, None) for _ in batch]  # noqa: E731
    weights, ear = train(tiny, tmp_path / "run", 2, judge=blind)
    assert difference(weights, load_all(tiny)) == 0.0
    assert [row["undecided"] for row in ear.rows] == [1.0, 1.0]
    assert "accuracy" not in ear.rows[0] and "reward" not in ear.rows[0]


def test_groups_that_agree_are_counted(tiny: Path, tmp_path: Path) -> None:
    """The first prompt's group gets one reward, the second's differing ones: half the groups teach
    nothing."""

    def judge(batch: Sequence[tuple[Prompt, Rollout]]) -> list[Judgement]:
        return [
            Judgement({"even": float(p.row and i % 2), "varied": 0.0}, True) for i, (p, _) in enumerate(batch)
        ]

    _, ear = train(tiny, tmp_path / "run", 1, judge=judge)
    assert ear.rows[0]["groups_without_spread"] == 0.5
    assert ear.rows[0]["accuracy"] == 1.0
    assert ear.rows[0]["reward"] == 0.25


def test_a_number_that_is_not_finite_ends_the_run(tiny: Path, tmp_path: Path) -> None:
    """A rate that throws the weights out of range at step 1 makes step 2's loss NaN: that step is never
    taken."""
    with pytest.raises(RunFailed, match=r"became nan at step 2.*learning_rate"):
        train(tiny, tmp_path / "run", 4, learning_rate=1e30, save_steps=1)
    newest = checkpoints.latest(tmp_path / "run" / "trainer")
    assert newest is not None and checkpoints.step_of(newest) == 1
    assert all(value.isfinite().all() for value in load_file(newest / "model.safetensors").values())


def test_what_a_judge_raises_ends_the_run(tiny: Path, tmp_path: Path) -> None:
    """An error in a judge is never a reward."""

    def judge(batch: Sequence[tuple[Prompt, Rollout]]) -> list[Judgement]:
        raise RunFailed("the sandbox is gone")

    with pytest.raises(RunFailed, match="sandbox"):
        train(tiny, tmp_path / "run", 1, judge=judge)


def test_the_row_adds_up(tiny: Path, tmp_path: Path) -> None:
    """A row's counts are those of the rollouts the judge saw, and its three times are the whole time."""
    seen: list[Rollout] = []

    def judge(batch: Sequence[tuple[Prompt, Rollout]]) -> list[Judgement]:
        seen.extend(rollout for _, rollout in batch)
        return parity(batch)

    _, ear = train(tiny, tmp_path / "run", 1, judge=judge)
    (row,) = ear.rows
    lengths = [len(rollout.token_ids) for rollout in seen]
    assert len(seen) == 8
    assert (row["step"], row["steps"], row["eta"]) == (1, 1, 0.0)
    assert row["length"] == pytest.approx(sum(lengths) / 8)
    assert row["truncated"] == sum(rollout.finish == "length" for rollout in seen) / 8
    assert row["even"] == row["accuracy"] == sum(length % 2 == 0 for length in lengths) / 8
    assert row["reward"] == pytest.approx(row["even"] + 0.5 * row["varied"], rel=1e-5)
    judged = [one.rewards for one in parity([(Prompt(0, "", []), rollout) for rollout in seen])]
    for name in ("even", "varied"):
        assert row[f"{name}_spread"] == pytest.approx(stdev(one[name] or 0.0 for one in judged), rel=1e-4)
    totals = [(one["even"] or 0.0) + 0.5 * (one["varied"] or 0.0) for one in judged]
    assert row["reward_spread"] == pytest.approx(stdev(totals), rel=1e-4)
    seconds = sum(value for name, value in row.items() if name.startswith("seconds_"))
    assert sum(lengths) / row["tokens_per_second"] == pytest.approx(seconds, rel=1e-4)
