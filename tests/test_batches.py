"""The arithmetic of batches: exact numbers, the paper's among them, and TRL's own class agrees."""

from typing import Any

import pytest

from r1pipe.batches import BatchPlan

PAPER = {"prompts_per_step": 32, "group_size": 16, "minibatches": 16}


@pytest.mark.parametrize(
    ("micro_batch", "processes", "accumulated", "per_generation"),
    [(4, 1, 128, 2048), (4, 8, 16, 256), (16, 8, 4, 64), (1, 512, 1, 16), (512, 1, 1, 16)],
)
def test_the_papers_numbers(micro_batch: int, processes: int, accumulated: int, per_generation: int) -> None:
    """512 completions a step and 8,192 a rollout, however they are spread; only TRL's two counts change."""
    plan = BatchPlan(**PAPER, micro_batch=micro_batch, processes=processes, tokens=32768)
    assert plan.problems() == []
    assert (plan.completions_per_step, plan.completions_per_rollout) == (512, 8192)
    assert plan.prompts_per_rollout == 512
    assert (plan.gradient_accumulation_steps, plan.steps_per_generation) == (accumulated, per_generation)
    assert plan.tokens_per_step == 512 * 32768


def grpo_config(**options: Any) -> Any:
    """TRL's own reading; one process."""
    from trl import GRPOConfig

    return GRPOConfig(output_dir="nowhere", use_cpu=True, bf16=False, report_to="none", **options)


@pytest.mark.parametrize("micro_batch", [4, 16])
def test_trl_agrees(micro_batch: int) -> None:
    """What the plan gives GRPOConfig comes out as a generation of 8,192; so 512 prompts of 16."""
    plan = BatchPlan(**PAPER, micro_batch=micro_batch)
    config = grpo_config(
        per_device_train_batch_size=micro_batch,
        num_generations=plan.group_size,
        gradient_accumulation_steps=plan.gradient_accumulation_steps,
        steps_per_generation=plan.steps_per_generation,
    )
    assert config.generation_batch_size == plan.completions_per_rollout == 8192


def test_the_published_snippet_is_another_rollout() -> None:
    """`steps_per_generation=16` with micro-batches of 4 and an accumulation of 128, as TRL's page on the paper
    has it, generates 64 completions at once and not 8,192: it counts micro-batches."""
    config = grpo_config(
        per_device_train_batch_size=4,
        num_generations=16,
        gradient_accumulation_steps=128,
        steps_per_generation=16,
    )
    assert config.generation_batch_size == 64


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        (
            {"prompts_per_step": 32, "group_size": 8, "micro_batch": 24},
            "micro_batch: prompts_per_step x group_size = 256 cannot be cut into micro-batches of "
            "micro_batch = 24; set micro_batch: 16, a divisor of 256",
        ),
        (
            {"prompts_per_step": 2, "group_size": 2, "micro_batch": 16},
            "micro_batch: prompts_per_step x group_size = 4 cannot be cut into micro-batches of "
            "micro_batch = 16; set micro_batch: 4, a divisor of 4",
        ),
        (
            {"prompts_per_step": 12, "group_size": 8, "micro_batch": 16, "processes": 8},
            "micro_batch: prompts_per_step x group_size = 96 cannot be cut into micro-batches of "
            "micro_batch = 16 on each of 8 processes; set micro_batch: 12, a divisor of 12",
        ),
        (
            {"prompts_per_step": 3, "group_size": 4, "micro_batch": 1, "processes": 8},
            "prompts_per_step: prompts_per_step x group_size = 12 cannot be cut into micro-batches of "
            "micro_batch = 1 on each of 8 processes; set prompts_per_step: 8, a multiple of the processes",
        ),
    ],
)
def test_what_does_not_divide_is_told_with_a_way_out(sizes: dict[str, int], said: str) -> None:
    """And the way out works: with the value that it names, all divides."""
    assert BatchPlan(**sizes).problems() == [said]
    key, _, value = said.partition("; set ")[2].partition(",")[0].partition(": ")
    assert BatchPlan(**{**sizes, key: int(value)}).problems() == []


def test_rows_without_groups() -> None:
    """A supervised stage: batches of rows, no groups, the tokens unknown until the model is."""
    plan = BatchPlan(64, 1, 8, processes=4, words=("batch_size", "batch_size"))
    assert (plan.gradient_accumulation_steps, plan.completions_per_step, plan.tokens_per_step) == (2, 64, None)
