"""The guard and the proofs in real trainings of the tiny model: they hold, they stop what is wrong, they
change nothing."""

import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from trl import GRPOTrainer

from r1pipe.errors import Interrupted, RunFailed
from r1pipe.rollout import Finished, Rollout, Sampling
from r1pipe.rollout.local import TransformersEngine
from r1pipe.train import checkpoints, grpo, models, ranks
from r1pipe.train.evidence import rollbacks
from r1pipe.train.grpo import Judgement, Prompt, Settings
from r1pipe.train.guard import GuardConfig
from r1pipe.train.micro_batches import Bounds
from tests.tiny_model import Ear, workplace

PROOFS = GuardConfig(on=False)
SMALL = {"num_generations": 4, "per_device_train_batch_size": 8, "max_completion_length": 20, "save_steps": 2}


class Tampering(TransformersEngine):
    """Changes what it has sampled before anybody sees it."""

    tamper: Callable[[list[Rollout]], None] | None = None

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        seeds: Sequence[int],
        finished: Finished | None = None,
    ) -> list[Rollout]:
        rollouts = super().generate(prompts, sampling, seeds=seeds, finished=finished)
        if self.tamper is not None:
            self.tamper(rollouts)
        return rollouts


@pytest.fixture(scope="module")
def ending(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with an EOS that it often writes: its embedding, which is tied, lies along the mean of
    the states. A random model hardly ever ends a completion."""
    model, tokenizer = models.open_model(tiny)
    torch.manual_seed(0)
    with torch.no_grad():
        states = model.model(torch.randint(10, 100, (64, 20))).last_hidden_state
        mean = states.mean((0, 1))
        model.get_input_embeddings().weight[tokenizer.eos_token_id] = 4 * mean / mean.norm() ** 2
    return models.publish(model, tokenizer, tmp_path_factory.mktemp("ending"))


def judge(batch: Sequence[tuple[Prompt, Rollout]]) -> list[Judgement]:
    """Every second completion is right."""
    return [Judgement({"accuracy": float(i % 2)}, bool(i % 2)) for i, _ in enumerate(batch)]


def train(
    ending: Path,
    folder: Path,
    guard: GuardConfig | None = PROOFS,
    *,
    steps: int = 1,
    judge: grpo.Judge = judge,
    tamper: Callable[[list[Rollout]], None] | None = None,
    settings: dict[str, Any] | None = None,
    stop_after: int | None = None,
    **options: Any,
) -> tuple[dict[str, torch.Tensor], Ear]:
    model, tokenizer = models.open_model(ending)
    texts = [f"nums {row % 9} 4 {'7 ' * (row % 3)}to {row % 30} <think>" for row in range(steps * 2)]
    prompts = [Prompt(row, text, tokenizer(text)["input_ids"]) for row, text in enumerate(texts)]
    engine = Tampering(model, eos_id=tokenizer.eos_token_id, pad_id=tokenizer.pad_token_id)
    engine.tamper = tamper
    work, ear = workplace(folder, stop_after=stop_after)
    passed_on = {**SMALL, "learning_rate": 1e-3, "max_steps": steps, **options}
    whole = Settings(bounds=Bounds(3), guard=guard, **settings or {})
    try:
        grpo.train(model, tokenizer, prompts, judge, {"accuracy": 1.0}, engine, passed_on, work, whole)
    except Interrupted:
        assert stop_after is not None
    return {name: value.clone() for name, value in model.state_dict().items()}, ear


# --- The first step


LOSSES = ["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"]


@pytest.mark.parametrize("loss", LOSSES)
def test_the_proofs_hold(loss: str, ending: Path, tmp_path: Path) -> None:
    """With every loss, KL on, and micro-batches of three: what was sampled is what is trained, to 1e-5."""
    _, ear = train(ending, tmp_path / "run", loss_type=loss, beta=0.01, temperature=0.7)
    (said,) = [line for line in ear.said.split("First step: ") if line.startswith("ratio 1")]
    differences = [float(told) for told in re.findall(r"differs by (\S+) at most", said)]
    (kl,) = [float(told) for told in re.findall(r", KL ([^,]+),", said)]
    assert differences and max(differences) < 1e-5 and 0 <= kl < 1e-5
    assert "completions end in their EOS" in said and said.endswith("no prompt cut.")


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"steps_per_generation": 2, "num_generations": 4}, id="two steps a rollout"),
        pytest.param({"num_iterations": 2}, id="two passes"),
        pytest.param({"importance_sampling_level": "sequence"}, id="by sequence"),
        pytest.param({"mask_truncated_completions": True}, id="truncated masked"),
        pytest.param({"top_p": 0.9}, id="top_p"),
        pytest.param({"scale_rewards": "group"}, id="scaled"),
    ],
)
def test_they_hold_with_options(options: dict[str, Any], ending: Path, tmp_path: Path) -> None:
    """What an option changes on purpose is no fault."""
    _, ear = train(ending, tmp_path / "run", steps=2, **options)
    assert ear.said.count("First step: ratio 1") == 1


def test_they_hold_in_bfloat16(ending: Path, tmp_path: Path) -> None:
    """Sampled in float32 and trained under bfloat16: what counts is the mean over the tokens."""
    _, ear = train(ending, tmp_path / "run", bf16=True, beta=0.01, gradient_checkpointing=True)
    assert ear.said.count("First step: ratio 1 (sampling differs by") == 1


def test_they_change_nothing(ending: Path, tmp_path: Path) -> None:
    """With guard and proofs and without: the weights after three steps are equal bit for bit."""
    one, _ = train(ending, tmp_path / "one", GuardConfig(), steps=3)
    other, ear = train(ending, tmp_path / "other", None, steps=3)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert "First step" not in ear.said


def test_a_resumed_training_has_no_first_step(ending: Path, tmp_path: Path) -> None:
    """It was proved when the training began."""
    _, first = train(ending, tmp_path / "run", steps=4, stop_after=2)
    _, second = train(ending, tmp_path / "run", steps=4)
    assert "First step" in first.said and "First step" not in second.said


def test_weights_changed_between_sampling_and_training(
    ending: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when an engine has not been given the present weights: the trainer's move after the rollout."""

    def judge_and_move(batch: Sequence[tuple[Prompt, Rollout]]) -> list[Judgement]:
        with torch.no_grad():
            moved[0].get_input_embeddings().weight.mul_(1.05)
        return judge(batch)

    moved: list[Any] = []
    init = grpo.Policy.__init__

    def noted(self: Any, **options: Any) -> None:
        moved.append(options["model"])
        init(self, **options)

    monkeypatch.setattr(grpo.Policy, "__init__", noted)
    with pytest.raises(RunFailed, match="log-probabilities and those of sampling differ"):
        train(ending, tmp_path / "run", judge=judge_and_move)


def test_an_engines_log_probabilities_shifted_by_one(ending: Path, tmp_path: Path) -> None:
    """Those of the token before: told by its name."""

    def tamper(rollouts: list[Rollout]) -> None:
        for rollout in rollouts:
            assert rollout.logprobs is not None
            rollout.logprobs = [rollout.logprobs[-1], *rollout.logprobs[:-1]]

    with pytest.raises(RunFailed, match="They agree when moved by one token"):
        train(ending, tmp_path / "run", tamper=tamper)


def test_a_trainer_that_masks_the_eos(ending: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask made by looking for EOS, as trainers with pad = eos have made it."""

    def masked(self: Any, inputs: Any) -> Any:
        rows = scored(self, inputs)
        rows["completion_mask"] = rows["completion_mask"] * (rows["completion_ids"] != 1)
        return rows

    scored = GRPOTrainer._generate_and_score_completions
    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", masked)
    with pytest.raises(RunFailed, match="its EOS, is masked"):
        train(ending, tmp_path / "run")


def test_a_reference_that_is_not_the_policy(
    ending: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KL is not 0 before the first update: the reference is another model."""
    reference = grpo.Policy.guard

    def other(self: Any, *args: Any) -> None:
        with torch.no_grad():
            self.ref_model.get_input_embeddings().weight.mul_(1.5)
        reference(self, *args)

    monkeypatch.setattr(grpo.Policy, "guard", other)
    with pytest.raises(RunFailed, match="those of the reference model differ"):
        train(ending, tmp_path / "run", beta=0.01)


def test_a_reference_of_another_vocabulary(
    ending: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused before anything is generated."""
    reference = grpo.Policy.guard

    def other(self: Any, *args: Any) -> None:
        self.ref_model.resize_token_embeddings(200)
        reference(self, *args)

    monkeypatch.setattr(grpo.Policy, "guard", other)
    with pytest.raises(RunFailed, match="reference model has a vocabulary of 200 tokens"):
        train(ending, tmp_path / "run", beta=0.01)


def test_a_policy_that_writes_another_end_of_turn(ending: Path, tmp_path: Path) -> None:
    """Every completion holds the template's end of turn and goes on."""

    def tamper(rollouts: list[Rollout]) -> None:
        for rollout in rollouts:
            rollout.token_ids.insert(0, 3)

    with pytest.raises(RunFailed, match="8 of 8 completions write the chat template's end of turn"):
        train(ending, tmp_path / "run", tamper=tamper, settings={"turn": 3})


# --- The guard

GUARD = GuardConfig(proofs=False, window=4, reward=0, entropy=0, length=0.3)


def collapsing(after: int) -> Callable[[list[Rollout]], None]:
    """From a generation on every completion is one token and EOS."""
    generations = iter(range(1, 1000))

    def tamper(rollouts: list[Rollout]) -> None:
        if next(generations) > after:
            for rollout in rollouts:
                rollout.token_ids, rollout.finish = [3, 1], "stop"

    return tamper


def test_a_collapse_stops_the_training(ending: Path, tmp_path: Path) -> None:
    """Completions of two tokens from step 7 on. The evidence holds them with their rewards, the last good
    checkpoint is whole and from before, and the alarm's step is not saved."""
    with pytest.raises(RunFailed, match="The length of completions collapsed") as failed:
        train(ending, tmp_path / "run", GUARD, steps=20, tamper=collapsing(6), save_steps=1)
    (folder,) = (tmp_path / "run" / "evidence").iterdir()
    step = int(folder.name.removeprefix("step-"))
    alarm = json.loads((folder / "alarm.json").read_text())
    assert alarm["calm_until"] == 6 < step == alarm["step"] <= 10
    completions = [json.loads(line) for line in (folder / "completions.jsonl").read_text().splitlines()]
    assert len(completions) == 8 and {row["tokens"] for row in completions} == {2}
    assert [row["rewards"]["accuracy"] for row in completions] == [0.0, 1.0] * 4
    assert completions[0]["prompt"].startswith("nums") and completions[0]["finish"] == "stop"
    good = checkpoints.latest(tmp_path / "run" / "good")
    assert good is not None and checkpoints.step_of(good) == 6 and str(good) in str(failed.value)
    newest = checkpoints.latest(tmp_path / "run" / "trainer")
    assert newest is not None and checkpoints.step_of(newest) == step - 1


def test_a_mismatch_by_design_is_no_alarm(ending: Path, tmp_path: Path) -> None:
    """What top_p leaves out makes engine and trainer differ by far more than the bound, in every row."""
    guard = GuardConfig(proofs=False, window=4, reward=0, entropy=0, length=0, repetition=0, mismatch=0.05)
    _, ear = train(ending, tmp_path / "run", guard, steps=4, top_p=0.2, learning_rate=1e-6)
    assert len(ear.rows) == 4 and min(row["mismatch"] for row in ear.rows) > 0.05


def test_a_policy_that_writes_one_thing_is_seen(ending: Path, tmp_path: Path) -> None:
    """From step 5 on all completions of a group are one, which is drawn with certainty and has no advantage,
    so the step says nothing of its entropy; the alarm is that of all that is drawn."""
    generations = iter(range(1, 1000))

    def tamper(rollouts: list[Rollout]) -> None:
        if next(generations) > 4:
            for rollout in rollouts:
                rollout.token_ids, rollout.logprobs, rollout.finish = [3, 1], [-1e-4, 0.0], "stop"

    def by_length(batch: Sequence[tuple[Prompt, Rollout]]) -> list[Judgement]:
        return [Judgement({"accuracy": len(rollout.token_ids) / 20}, True) for _, rollout in batch]

    guard = GuardConfig(proofs=False, window=4, reward=0, length=0)
    with pytest.raises(RunFailed, match=r"entropy collapsed.* steps 5 to 8 is 5e-05"):
        train(ending, tmp_path / "run", guard, steps=12, judge=by_length, tamper=tamper)


def test_the_columns_of_the_guard(ending: Path, tmp_path: Path) -> None:
    """Rows say how much is repeated and whether the thinking is empty."""
    _, ear = train(ending, tmp_path / "run", GUARD, tamper=collapsing(0))
    assert ear.rows[0]["repetition"] == 0.0
    assert 0.0 <= ear.rows[0]["empty_thinking"] <= 1.0
    assert "rollbacks" not in ear.rows[0]


@pytest.mark.slow
def test_going_back_draws_others(ending: Path, tmp_path: Path) -> None:
    """After a rollback the next run goes on from the good step, with other completions; rows say so.

    That run, interrupted and resumed, ends with the same bits as in one go.
    """
    back = GUARD.model_copy(update={"rollback": True})
    for name in ("whole", "parts"):
        with pytest.raises(RunFailed, match=r"rollback 1 of 1.*from step 6"):
            train(ending, tmp_path / name, back, steps=12, tamper=collapsing(6))
        assert rollbacks(tmp_path / name) == 1
    whole, ear = train(ending, tmp_path / "whole", back, steps=12)
    _, first = train(ending, tmp_path / "parts", back, steps=12, stop_after=8)
    parts, second = train(ending, tmp_path / "parts", back, steps=12)
    assert [row["step"] for row in ear.rows] == [7, 8, 9, 10, 11, 12]
    assert [row["step"] for row in first.rows + second.rows] == [7, 8, 9, 10, 11, 12]
    assert {row["rollbacks"] for row in ear.rows} == {1}
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    never, _ = train(ending, tmp_path / "never", back, steps=12)
    assert not all(torch.equal(whole[name], never[name]) for name in whole)


def test_a_training_that_was_killed_while_going_back(
    ending: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was moved yet: the next run counts the rollback, and goes on from the good step."""
    back = GUARD.model_copy(update={"rollback": True})

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(checkpoints, "go_back", killed)
        train(ending, tmp_path / "run", back, steps=12, tamper=collapsing(6))
    _, ear = train(ending, tmp_path / "run", back, steps=12, stop_after=8)
    assert [(row["step"], row["rollbacks"]) for row in ear.rows] == [(7, 1), (8, 1)]


def test_a_number_that_is_not_finite_leaves_evidence(ending: Path, tmp_path: Path) -> None:
    """The step is not taken, and what was generated for it is kept."""
    with pytest.raises(RunFailed, match=r"became nan at step 2.*learning_rate"):
        train(ending, tmp_path / "run", GUARD, steps=4, learning_rate=1e30, save_steps=1)
    folder = tmp_path / "run" / "evidence" / "step-2"
    assert json.loads((folder / "alarm.json").read_text())["kind"] == "not finite"
    assert (folder / "completions.jsonl").exists()


def test_a_loss_that_is_not_finite_on_another_rank(
    ending: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first rank's own is: it stops and saves the evidence all the same."""
    monkeypatch.setattr(ranks, "worst", lambda loss: math.nan)
    with pytest.raises(RunFailed, match="The loss became nan at step 1"):
        train(ending, tmp_path / "run", GUARD)
    assert (tmp_path / "run" / "evidence" / "step-1" / "completions.jsonl").exists()
