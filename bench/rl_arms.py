"""One GRPO training with a clock: r1pipe's stage, or the script that a user of TRL would write.

    python bench/rl_arms.py trl --model runs/tiny-r1/artifacts/zero/v001-… --steps 6 --out trl.json

Both are given the same model, prompts in the same order, limit of tokens, rewards and learning rate; all else
is each one's own default. What a step took is the time from one row of logs to the next.
"""

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file, it stands beside its helpers and not above them
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.common import cpu_seconds
from r1pipe import jsonl

Row = dict[str, Any]
REWARDS = {"accuracy": 1.0, "format": 0.5}


@dataclass(frozen=True, slots=True)
class Setup:
    """What all trainings that are compared have in common."""

    model: str
    """The folder of a checkpoint."""
    steps: int = 6
    seed: int = 0
    learning_rate: float = 4e-4
    """Falls to 0 over the steps, linearly."""
    prompts_per_step: int = 16
    group_size: int = 8
    max_new_tokens: int = 224


@dataclass(frozen=True, slots=True)
class Arm:
    """One of those that are compared."""

    name: str
    told: str
    """What it is, for the page."""
    color: str
    threads: int | None = 1
    """None leaves the number to torch."""
    options: Row = field(default_factory=dict)
    """GRPOConfig's or the stage's, beyond what is in common."""

    @property
    def ours(self) -> bool:
        """Whether it is r1pipe's stage that is trained with."""
        return self.name.startswith("r1pipe")


_TUNED: Row = {"bf16": False, "gradient_checkpointing": False}
_BATCHING: Row = {
    "use_transformers_continuous_batching": True,
    # Left alone it takes nine tenths of the machine's memory, and spends its time on filling it.
    "transformers_continuous_batching_config": {
        "page_size": 64,
        "num_blocks": 1024,
        "max_batch_tokens": 1024,
    },
}

ARMS = {
    arm.name: arm
    for arm in (
        Arm("trl", "GRPOTrainer, its defaults on a CPU", "#c7681e", None),
        Arm("trl-tuned", "the same in float32, no checkpointing, one thread", "#9a4fb5", 1, _TUNED),
        Arm(
            "trl-batching",
            "tuned, and transformers' continuous batching",
            "#1d8a99",
            1,
            _TUNED | _BATCHING,
        ),
        Arm(
            "trl-none",
            "tuned, advantages not scaled, as in r1pipe",
            "#2f8f5b",
            1,
            _TUNED | {"scale_rewards": "none"},
        ),
        Arm("r1pipe", "the stage `rl`, its defaults", "#3566c8"),
        Arm("r1pipe-2", "the stage on two processes", "#b03a5b", 1, {"processes": 2}),
        Arm("r1pipe-vllm", "the stage with vLLM's rollouts", "#7a7f1e", 1, {"engine": "vllm"}),
    )
}


class Clock:
    """Turns rows of logs into steps with their times."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._last = (time.perf_counter(), cpu_seconds())

    def step(self, reward: float, length: float, split: Row) -> None:
        """One step has ended; `split` says how many of its seconds went where, training apart."""
        now = (time.perf_counter(), cpu_seconds())
        seconds, cpu = now[0] - self._last[0], now[1] - self._last[1]
        self._last = now
        split = {**split, "training": seconds - sum(split.values())}
        row = {
            "reward": reward,
            "length": length,
            "seconds": seconds,
            "cpu_seconds": cpu,
            "split": split,
        }
        self.rows.append({"step": len(self.rows) + 1, **row})


# --- r1pipe


def ours(setup: Setup, clock: Clock, changes: Row) -> None:
    """The stage, given a workplace as the pipeline does; `changes` are further fields of its config."""
    from r1pipe.artifact import Artifact
    from r1pipe.stage import Inputs, Work
    from stages import rl

    class Listener:
        def event(self, kind: str, stage: str, **fields: Any) -> None:
            if kind == "log":
                row = fields["row"]
                split = {
                    what: row.get(f"seconds_{what}", 0.0) for what in ("generation", "reward", "logprobs")
                }
                split["generation"] += row.get("seconds_sync", 0.0)
                clock.step(row["reward"], row["length"], split)

    model = Inputs({"model": [("model", Artifact(Path(setup.model), "checkpoint"))]})
    with tempfile.TemporaryDirectory() as folder:
        work = Work(Path(folder) / "work", "rl", setup.seed, Listener(), Path(folder) / "rl.jsonl")
        work.dir.mkdir()
        rl.run(stage_config(setup, changes), model, work)


def stage_config(setup: Setup, changes: Row) -> Any:
    """The stage's config, as tiny-r1 writes it."""
    from stages import rl

    return rl.Config.model_validate(
        {
            "model": "model",
            "task": "countdown",
            "template": "chat",
            "rewards": REWARDS,
            "group_size": setup.group_size,
            "prompts_per_step": setup.prompts_per_step,
            "steps": setup.steps,
            "learning_rate": setup.learning_rate,
            "max_new_tokens": setup.max_new_tokens,
            "trainer": {"lr_scheduler_type": "linear"},
            **changes,
        }
    )


# --- TRL


def trl(setup: Setup, clock: Clock, options: Row) -> None:
    """What a user of TRL writes: a data set of prompts as text, reward functions, a config, `train`."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    prompts, rewards, tokenizer = _prompts_and_rewards(setup)
    spent = _profiled()
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder,
            use_cpu=True,
            seed=setup.seed,
            max_steps=setup.steps,
            learning_rate=setup.learning_rate,
            lr_scheduler_type="linear",
            num_generations=setup.group_size,
            per_device_train_batch_size=setup.prompts_per_step,
            gradient_accumulation_steps=setup.group_size,
            max_completion_length=setup.max_new_tokens,
            reward_weights=list(REWARDS.values()),
            shuffle_dataset=False,  # the same prompts in the same order
            logging_steps=1,  # a curve needs every step
            report_to="none",
            disable_tqdm=True,
            **options,
        )
        trainer = GRPOTrainer(
            model=setup.model,
            reward_funcs=rewards,
            args=config,
            train_dataset=Dataset.from_list(prompts),
            processing_class=tokenizer,
        )
        trainer.add_callback(_listener(clock, spent))
        trainer.train()


def _prompts_and_rewards(setup: Setup) -> tuple[list[Row], list[Callable[..., list[float | None]]], Any]:
    """The prompts that the stage asks, as text; its judge as plain reward functions; the tokenizer."""
    from r1pipe.errors import RunFailed
    from r1pipe.rewards import make_rewards
    from r1pipe.rollout import Rollout
    from r1pipe.train.determinism import derive_seed
    from r1pipe.train.grpo import Prompt
    from r1pipe.train.judging import RewardJudge
    from r1pipe.train.prompts import TrainingPrompts
    from r1pipe.train.text import open_tokenizer

    tokenizer = open_tokenizer(Path(setup.model))
    config = stage_config(setup, {})
    asked = TrainingPrompts(
        config.task,
        config.template,
        tokenizer,
        count=config.steps * config.prompts_per_step,
        seed=derive_seed(setup.seed, "rl"),
        context=1 << 30,
        longest=config.longest,
    )
    judge = RewardJudge(asked.items, tokenizer, make_rewards(list(REWARDS), language="en"))
    texts = [prompt.text for prompt in asked.prompts]
    if tokenizer(text=texts)["input_ids"] != [prompt.token_ids for prompt in asked.prompts]:
        raise RunFailed("TRL reads the prompts as other tokens than r1pipe does.")

    def judged(row: list[int], completion_ids: list[list[int]]) -> Any:
        eos = tokenizer.eos_token_id
        rollouts = [Rollout(ids, "stop" if ids[-1] == eos else "length") for ids in completion_ids]
        return judge([(Prompt(i, texts[i], []), rollout) for i, rollout in zip(row, rollouts, strict=True)])

    def accuracy(row: list[int], completion_ids: list[list[int]], **_: Any) -> list[float | None]:
        return [one.rewards["accuracy"] for one in judged(row, completion_ids)]

    def format(row: list[int], completion_ids: list[list[int]], **_: Any) -> list[float | None]:
        return [one.rewards["format"] for one in judged(row, completion_ids)]

    rows = [{"prompt": text, "row": row} for row, text in enumerate(texts)]
    return rows, [accuracy, format], tokenizer


def _profiled() -> dict[str, float]:
    """Where TRL's own profiling puts its seconds, by the name of what it timed."""
    from trl.extras.profiling import ProfilingContext

    spent: dict[str, float] = defaultdict(float)

    def keep(self: Any, duration: float) -> None:
        spent[self.name.partition(".")[2]] += duration

    ProfilingContext._log_metrics = keep
    return spent


def _listener(clock: Clock, spent: dict[str, float]) -> Any:
    from transformers import TrainerCallback

    class Listener(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Row | None = None, **kwargs: Any) -> None:
            if logs and "loss" in logs:
                generation = spent["transformers.generate"] + spent["transformers.generate_batch"]
                split = {"generation": generation, "reward": sum(spent[name] for name in REWARDS)}
                clock.step(logs["reward"], logs["completions/mean_length"], split)
                spent.clear()

    return Listener()


def main(arguments: Sequence[str] | None = None) -> None:
    """Train once; write the steps."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("arm", choices=sorted(ARMS))
    parser.add_argument("--out", type=Path, required=True)
    for name, default in asdict(Setup("")).items():
        kind: Any = type(default)
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=default)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="fields of the stage")
    chosen = vars(parser.parse_args(arguments))
    arm, out, changes = ARMS[chosen.pop("arm")], chosen.pop("out"), chosen.pop("set")
    setup, clock = Setup(**chosen), Clock()
    if arm.threads is not None:
        import torch

        torch.set_num_threads(arm.threads)
    if arm.ours:
        ours(setup, clock, arm.options | dict(change.split("=", 1) for change in changes))
    else:
        trl(setup, clock, arm.options)
    jsonl.write_json(out, {"arm": arm.name, "setup": asdict(setup), "changes": changes, "rows": clock.rows})


if __name__ == "__main__":
    main()
