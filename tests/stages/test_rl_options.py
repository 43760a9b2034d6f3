"""The rl stage's own options: how they are written, what is refused, what TRL is told, and pass rates."""

import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from pydantic import ValidationError

from r1pipe.errors import Interrupted, UsageError
from r1pipe.fingerprint import fingerprint_of
from r1pipe.pipeline import VERBS
from r1pipe.recipe import from_resolved, parse_recipe
from r1pipe.rollout import Finished, Rollout
from r1pipe.rollout.local import TransformersEngine
from r1pipe.rollout.pass_rates import Rates
from r1pipe.stage import counted
from r1pipe.tasks import Item
from r1pipe.tasks.base import Task
from r1pipe.tasks.rows import Rows
from r1pipe.train import prompts
from r1pipe.verbs import make_config
from r1pipe.verify.verdict import Completion, Verdict, failed, passed, undecided
from stages import rl
from tests.small_rl import SMALL
from tests.tiny_model import inputs, workplace

NEEDED = {"model": "org/base", "task": "countdown"}


def config(**changes: Any) -> rl.Config:
    return rl.Config.model_validate({**NEEDED, **changes})


# --- What TRL is told


def test_the_papers_numbers() -> None:
    """DeepSeek-R1 (2501.12948v2), Methods: 32 questions x 16 = 512 a step, 16 steps a rollout of 8,192."""
    options = rl._options(config(preset="paper"))
    told = {
        "num_generations": 16,
        "per_device_train_batch_size": 512,
        "gradient_accumulation_steps": 1,
        "steps_per_generation": 16,
        "learning_rate": 3e-6,
        "beta": 0.001,
        "use_bias_correction_kl": False,
        "sync_ref_model": True,
        "ref_model_sync_steps": 400,
        "ref_model_mixup_alpha": 1.0,
        "loss_type": "grpo",
        "scale_rewards": "group",
        "epsilon": 10.0,
        "epsilon_high": None,
        "importance_sampling_level": "token",
        "temperature": 1.0,
        "max_completion_length": 32768,
        "mask_truncated_completions": False,
    }
    assert {name: options[name] for name in told} == told
    assert options["per_device_train_batch_size"] * options["steps_per_generation"] == 8192


def test_what_is_written_beside_a_preset_counts() -> None:
    """Even where it is the stage's default, or nothing; all else stays the paper's."""
    made = config(
        preset="paper", group_size=8, kl=0, reference_every=None, max_new_tokens={0: 32768, 8192: 65536}
    )
    assert (made.group_size, made.kl, made.reference_every) == (8, 0, None)
    assert made.max_new_tokens == {0: 32768, 8192: 65536}
    assert (made.prompts_per_step, made.minibatches, made.learning_rate) == (32, 16, 3e-6)
    with pytest.raises(ValidationError, match="Input should be 'paper'"):
        config(preset="papper")


def test_options_by_trls_names() -> None:
    """What the stage calls otherwise than TRL, none of it at its default."""
    made = config(
        clip=0.1, clip_high=0.28, ratio="sequence", loss_type="luspo", truncated="mask", minibatches=4, kl=0.5
    )
    options = rl._options(made)
    told = {
        "epsilon": 0.1,
        "epsilon_high": 0.28,
        "importance_sampling_level": "sequence",
        "loss_type": "luspo",
        "mask_truncated_completions": True,
        "steps_per_generation": 4,
        "beta": 0.5,
    }
    assert {name: options[name] for name in told} == told
    assert "sync_ref_model" not in options
    settings = rl._settings(
        config(mismatch="token_mask", mismatch_bound=3, dynamic_sampling=2), None, waits=False
    )
    assert (settings.mismatch, settings.mismatch_bound, settings.dynamic_sampling) == ("token_mask", 3, 2)


def test_what_is_judged_in_batches_of_chance() -> None:
    """Judging that waits overlaps with generation, but where a preference model scores whole batches."""
    preference = config(rewards={"preference": 1.0}, preference_model="org/judge")
    assert rl._settings(config(), None, waits=True).overlap
    assert not rl._settings(config(), None, waits=False).overlap
    assert not rl._settings(preference, None, waits=True).overlap


def test_options_that_would_do_nothing_are_refused() -> None:
    """Rollouts come from r1pipe's engines: TRL's options are refused with what takes their place."""
    from trl import GRPOConfig

    theirs = [field.name for field in fields(GRPOConfig) if field.name.startswith("vllm_")]
    others = ["cache_implementation", "use_transformers_continuous_batching"]
    said = rl.check(config(engine="transformers", trainer=dict.fromkeys([*theirs, *others]))).wrong
    assert [each.partition(":")[0].split()[0] for each in said] == [
        f"trainer.{name}" for name in [*theirs, *others]
    ]
    told = {each.partition(":")[0]: each.partition(": ")[2] for each in said}
    expected = {
        "vllm_mode": "set `engine` on the stage instead, whose fields vLLM's options are",
        "vllm_server_host": "set `engine` on the stage instead, whose fields vLLM's options are",
        "vllm_server_base_url": "set `engine.url` on the stage instead",
        "vllm_gpu_memory_utilization": "set `engine.memory` on the stage instead",
        "vllm_importance_sampling_cap": "set `mismatch_bound` on the stage instead",
        "vllm_importance_sampling_clip_min cannot be set": "the ratio has no lower bound; "
        "`mismatch_bound` is the upper one",
        "cache_implementation cannot be set": "r1pipe's engine has a cache of its own; set `engine`",
    }
    assert {name: told[f"trainer.{name}"] for name in expected} == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss_type": "cispo"}, "cispo bounds the ratio itself by clip_high.*set clip_high: 5"),
        ({"loss_type": "cispo", "clip_high": 0.28}, "which has to be 1 or more"),
        ({"loss_type": "luspo"}, "one ratio for a whole completion; set ratio: sequence"),
        ({"loss_type": "vespo", "mismatch": "sequence_mask"}, "set mismatch: token_truncate or token_mask"),
        ({"reference_every": 400}, "reference_every = 400 has no use with kl: 0.*or reference_every: null"),
        ({"preset": "paper", "kl": 0}, "reference_every = 400 has no use with kl: 0"),
        ({"max_new_tokens": {4: 64}}, "a schedule begins with step 0"),
        ({"temperature": {}}, "a schedule begins with step 0"),
        ({"temperature": {0: 1, 10: 0}}, "greater than 0"),
        ({"max_new_tokens": {0: 8, 4: 16, 6: 32}, "minibatches": 4}, "changes at step 6, in the middle"),
        ({"mismatch_bound": 0.5}, "greater than or equal to 1"),
        ({"pass_rate": {"least": 0.9, "most": 0.1}}, "least = 0.9 is above most = 0.1"),
        ({"rewards": {"overlong": 1}, "max_new_tokens": {0: 8, 4: 16}}, "max_new_tokens has several"),
    ],
)
def test_what_does_not_go_together(changes: dict[str, Any], message: str) -> None:
    """Said before anything runs, with what to set in its place."""
    with pytest.raises(ValidationError, match=message):
        config(**changes)


def test_a_change_after_the_last_step_is_none() -> None:
    """The paper's schedule in a training too short to reach it."""
    made = config(max_new_tokens={0: 8, 8192: 16}, minibatches=16, steps=32)
    assert made.longest == 16


# --- How a schedule is written

RECIPE = """
name: x
stages:
  zero: {uses: rl, model: org/base, task: countdown, max_new_tokens: {0: 32, 10: 128, 2: 64}}
"""


def in_recipe(*overrides: str) -> rl.Config:
    made = parse_recipe(RECIPE, "x.yaml", VERBS, overrides).stages["zero"].config
    assert isinstance(made, rl.Config)
    return made


def test_a_schedule_in_a_recipe() -> None:
    """By rising steps, whatever order it was written in; its steps are keys of the fingerprint."""
    made = in_recipe()
    assert list(made.max_new_tokens.items()) == [(0, 32), (2, 64), (10, 128)]  # type: ignore[union-attr]
    flat = counted(made)
    told = {key: value for key, value in flat.items() if key.startswith("max_new_tokens")}
    assert told == {"max_new_tokens.0": 32, "max_new_tokens.2": 64, "max_new_tokens.10": 128}
    assert fingerprint_of("rl", 1, flat, [], 0) != fingerprint_of(
        "rl", 1, counted(in_recipe("stages.zero.max_new_tokens.10=127")), [], 0
    )


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("max_new_tokens.4=48", {0: 32, 2: 64, 4: 48, 10: 128}),
        ("max_new_tokens.0=8", {0: 8, 2: 64, 10: 128}),
        ("max_new_tokens={0: 8, 4: 16}", {0: 8, 4: 16}),
        ("max_new_tokens=48", 48),
        ("temperature={0: 1, 8: 0.7}", {0: 32, 2: 64, 10: 128}),
    ],
)
def test_a_schedule_by_set(override: str, expected: Any) -> None:
    """A step is added, changed, or the whole replaced, by a schedule or a number."""
    assert in_recipe(f"stages.zero.{override}").max_new_tokens == expected


def test_a_schedule_as_an_option() -> None:
    """`r1pipe rl --max-new-tokens '{0: 32, 2: 64}'`, or a number."""
    for text, expected in (("{0: 32, 2: 64}", {0: 32, 2: 64}), ("64", 64)):
        made = make_config("rl", {"model": "org/base", "task": "countdown", "max_new_tokens": text})
        assert isinstance(made, rl.Config) and made.max_new_tokens == expected
    with pytest.raises(UsageError, match=r"^--max-new-tokens \{2: 3\}: .* a schedule begins with step 0"):
        make_config("rl", {"model": "org/base", "task": "countdown", "max_new_tokens": "{2: 3}"})


def test_a_schedule_in_a_runs_record() -> None:
    """JSON has text for keys, and may sort them as such, 10 before 2: the config read back is the same."""
    recipe = parse_recipe(RECIPE, "x.yaml", VERBS)
    record = json.loads(json.dumps(recipe.resolved(), sort_keys=True))
    assert list(record["stages"]["zero"]["max_new_tokens"]) == ["0", "10", "2"]
    assert from_resolved(record, "run.json", VERBS).stages["zero"].config == in_recipe()


def test_a_mistake_in_a_schedule_has_a_place() -> None:
    """The line and column of the schedule, or of the value in it."""
    with pytest.raises(UsageError, match=r"^x.yaml:4:\d+: 'stages.zero.max_new_tokens': a schedule begins"):
        parse_recipe(RECIPE.replace("0: 32, ", ""), "x.yaml", VERBS)
    with pytest.raises(UsageError, match=r"^x.yaml:4:\d+: 'stages.zero.max_new_tokens.2': should be greater"):
        parse_recipe(RECIPE.replace("64", "-64"), "x.yaml", VERBS)


# --- Pass rates


class Script:
    """Verdicts by an item's id and how often it was answered; the check of the rewards is left alone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answered: Counter[str] = Counter()
        plain, turn = Task.judge, threading.Lock()
        marks: dict[str, Callable[[int], Verdict]] = {
            "easy": lambda count: passed(),
            "hard": lambda count: failed("wrong answer"),
            "half": lambda count: passed() if count % 2 else failed("wrong answer"),
            "blind": lambda count: undecided("timeout"),
        }

        def judge(task: Rows, item: Item, completion: Completion) -> Verdict:
            if completion.tokens == 0:
                return plain(task, item, completion)
            with turn:  # several threads judge
                self.answered[item.id] += 1
                return marks[item.id.split("-")[0]](self.answered[item.id])

        monkeypatch.setattr(Rows, "judge", judge, raising=False)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    return Script(monkeypatch)


def rated(folder: Path, *ids: str, **changes: Any) -> rl.Config:
    """A training on these problems, each to be solved in a quarter to three quarters of four tries."""
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"id": i, "question": f"copy {i}", "answer": "red"}) for i in ids))
    rate = {"samples": 4, "least": 0.25, "most": 0.75}
    task = {"name": "jsonl", "path": str(path), "split": "all"}
    return config(**{**SMALL, "task": task, "pass_rate": rate, **changes})


def test_only_what_teaches_is_asked(script: Script, tiny: Path, tmp_path: Path) -> None:
    """Of eight prompts two are solved sometimes: they alone are asked, four times each, and the rates of all
    lie beside the policy."""
    ids = ["easy-1", "hard-1", "half-1", "blind-1", "easy-2", "half-2", "hard-2", "hard-3"]
    work, ear = workplace(tmp_path / "zero")
    outcome = rl.run(rated(tmp_path, *ids), inputs(model=tiny), work)
    assert "Of 8 prompts, 2 are too easy, 3 too hard, 1 without any verdict; these are not asked." in ear.said
    metrics = {name: outcome.metrics[name] for name in ("too_easy", "too_hard", "never_decided")}
    assert metrics == {"too_easy": 2, "too_hard": 3, "never_decided": 1}
    asked = Counter(json.loads(line)["id"] for line in (outcome.path / "prompts.jsonl").open())
    assert asked == {"half-1": 4, "half-2": 4}
    rows = {row["id"]: row for row in map(json.loads, (outcome.path / "pass-rates.jsonl").open())}
    assert {name: (row["passed"], row["decided"]) for name, row in rows.items()} == {
        **dict.fromkeys(["easy-1", "easy-2"], (4, 4)),
        **dict.fromkeys(["hard-1", "hard-2", "hard-3"], (0, 4)),
        **dict.fromkeys(["half-1", "half-2"], (2, 4)),
        "blind-1": (0, 0),
    }
    assert rows["hard-1"]["left_out"] == "too hard: solved 0 of 4 times"
    assert rows["half-1"]["left_out"] is None
    # Four tries each, and two steps of four prompts with two completions each.
    assert script.answered == Counter(dict.fromkeys(ids, 4)) + Counter({"half-1": 8, "half-2": 8})


def test_a_measurement_goes_on_from_its_journal(
    script: Script, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after the first two of six prompts, and the last line of the journal cut by a kill: the second
    run asks the other five, and what is published is what an undisturbed run publishes."""
    ids = ["easy-1", "half-1", "hard-1", "half-2", "easy-2", "hard-2"]
    made = rated(tmp_path, *ids, steps=1, prompts_per_step=6)
    made = made.model_copy(update={"group_size": 2})
    monkeypatch.setattr(prompts, "measure_pass_rates", _in_twos(prompts.measure_pass_rates))
    whole = rl.run(made, inputs(model=tiny), workplace(tmp_path / "whole")[0])
    script.answered.clear()
    work, _ = workplace(tmp_path / "parts")
    work.progress = lambda done, *_: work.stop.set() if done == 2 else None  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        rl.run(made, inputs(model=tiny), work)
    assert sum(script.answered.values()) == 8
    (journal,) = (tmp_path / "parts").glob("pass-rates.0.jsonl")
    journal.write_bytes(journal.read_bytes()[:-5])
    before = Counter(script.answered)
    measured: list[tuple[int, int]] = []
    work, _ = workplace(tmp_path / "parts")
    work.progress = lambda done, total, unit: (  # type: ignore[method-assign]
        measured.append((done, total)) if unit == "prompts measured" else None
    )
    parts = rl.run(made, inputs(model=tiny), work)
    assert measured == [(3, 6), (5, 6), (6, 6)]
    again = sum((script.answered - before).values())
    assert again == 5 * 4 + 12  # the other five measured, and one step of six groups of two
    for name in ("pass-rates.jsonl", "prompts.jsonl"):
        assert sorted((parts.path / name).open()) == sorted((whole.path / name).open())


def _in_twos(measure: Callable[..., Rates]) -> Callable[..., Rates]:
    """Two prompts of four samples at a time, whatever a step holds."""
    return lambda *given, batch: measure(*given, batch=8)


def test_nothing_that_teaches(script: Script, tiny: Path, tmp_path: Path) -> None:
    """All too easy or too hard: one message with the ways out, before anything is trained."""
    work, ear = workplace(tmp_path / "zero")
    with pytest.raises(
        UsageError,
        match=r"solves none of 3 prompts as often as `pass_rate` wants: 1 are too easy, 2 too hard\. "
        r"Take other tasks or another model, or loosen `pass_rate`\.",
    ):
        rl.run(rated(tmp_path, "easy-1", "hard-1", "hard-2"), inputs(model=tiny), work)
    assert ear.rows == []


# --- Overlong


def test_overlong_alone_moves_the_policy(
    script: Script, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All answers are wrong, so the length is what is learned from: up to 8 tokens earn 0, 16 earn -1.

    DAPO, equation 13, over the completions that the engine gave.
    """
    rollouts: list[Rollout] = []
    generate = TransformersEngine.generate

    def shortened(
        self: TransformersEngine, *args: Any, finished: Finished | None = None, **kwargs: Any
    ) -> list[Rollout]:
        made = generate(self, *args, **kwargs)
        for i, rollout in enumerate(made):
            end = (6, 11, 16, 14)[i % 4]
            if end < len(rollout.token_ids):
                rollout.token_ids[end - 1 :] = [self.eos_id]
                rollout.logprobs = rollout.logprobs and rollout.logprobs[:end]
                rollout.finish = "stop"
            if finished is not None:
                finished(i, rollout)
        rollouts.extend(made)
        return made

    monkeypatch.setattr(TransformersEngine, "generate", shortened)
    rewards = {"accuracy": 1, "overlong": 0.5}
    made = rated(tmp_path, "hard-1", "hard-2", pass_rate=None, rewards=rewards, overlong_buffer=8, steps=1)
    made = made.model_copy(update={"guard": made.guard.model_copy(update={"proofs": False})})
    work, ear = workplace(tmp_path / "zero")
    rl.run(made, inputs(model=tiny), work)
    (row,) = ear.rows
    expected = [max(-1.0, min(0.0, (8 - len(rollout.token_ids)) / 8)) for rollout in rollouts]
    assert {-1.0, 0.0} < set(expected)
    assert row["overlong"] == pytest.approx(mean(expected))
    assert (row["accuracy"], row["reward"]) == (0, pytest.approx(0.5 * mean(expected)))
    assert row["groups_without_spread"] == 0 and row["grad_norm"] > 0
