"""The arithmetic of batches: exact numbers, the paper's among them, and TRL's own class agrees."""

from typing import Any

import pytest

from r1pipe.batches import BatchPlan
from r1pipe.train import supervised
from stages import distill, rl

PAPER = {"prompts_per_step": 32, "group_size": 16, "minibatches": 16}


@pytest.mark.parametrize(
    ("micro_batch", "processes", "a_process", "micro_batches"),
    [(4, 1, 512, 128), (4, 8, 64, 16), (16, 8, 64, 4), (1, 32, 16, 16), (24, 1, 512, 22)],
)
def test_the_papers_numbers(micro_batch: int, processes: int, a_process: int, micro_batches: int) -> None:
    """512 completions a step and 8,192 a rollout, however they are spread and cut; a call of the trainer is a
    whole step, so that 16 of them learn from a rollout."""
    plan = BatchPlan.of_rollouts(**PAPER, micro_batch=micro_batch, processes=processes, tokens=32768)
    assert (plan.completions_per_step, plan.completions_per_rollout) == (512, 8192)
    assert plan.prompts_per_rollout == 512
    assert (plan.completions_per_process, plan.micro_batches) == (a_process, micro_batches)
    assert (plan.per_device_train_batch_size, plan.gradient_accumulation_steps) == (a_process, 1)
    assert plan.steps_per_generation == 16
    assert plan.tokens_per_step == 512 * 32768


def grpo_config(**options: Any) -> Any:
    """TRL's own reading; one process."""
    from trl import GRPOConfig

    return GRPOConfig(output_dir="nowhere", use_cpu=True, bf16=False, report_to="none", **options)


def test_trl_agrees() -> None:
    """What the plan gives GRPOConfig comes out as a generation of 8,192; so 512 prompts of 16."""
    plan = BatchPlan(**PAPER, micro_batch=4)
    config = grpo_config(**plan.trainer_options)
    assert config.generation_batch_size == plan.completions_per_rollout == 8192


def test_the_stage_passes_on_what_is_planned() -> None:
    """The paper's preset: the numbers that the `rl` stage gives TRL are the plan's."""
    config = rl.Config.model_validate({"model": "base", "task": "countdown", "preset": "paper"})
    assert rl.batches(config).completions_per_rollout == 8192
    assert (
        rl._options(config).items()
        >= {
            "num_generations": 16,
            "per_device_train_batch_size": 512,
            "gradient_accumulation_steps": 1,
            "steps_per_generation": 16,
        }.items()
    )


def test_a_supervised_stage_passes_on_what_is_planned() -> None:
    """64 rows in micro-batches of 8."""
    config = distill.Config.model_validate({"model": "base", "data": "rows", "micro_batch": 8})
    passed_on = supervised.options(config, steps=30)
    assert passed_on.items() >= {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 8}.items()
    assert "steps_per_generation" not in passed_on and "num_generations" not in passed_on


def test_the_published_snippet_is_another_rollout() -> None:
    """`steps_per_generation=16` with micro-batches of 4 and an accumulation of 128, as TRL's page on the
    paper has it, generates 64 completions at once and not 8,192: it counts micro-batches."""
    config = grpo_config(
        per_device_train_batch_size=4,
        num_generations=16,
        gradient_accumulation_steps=128,
        steps_per_generation=16,
    )
    assert config.generation_batch_size == 64


def test_rows_without_groups() -> None:
    """A supervised stage: batches of rows, no groups, the tokens unknown until the model is."""
    plan = BatchPlan.of_rows(64, 8, processes=4, tokens=None)
    assert (plan.gradient_accumulation_steps, plan.completions_per_step, plan.tokens_per_step) == (
        2,
        64,
        None,
    )
