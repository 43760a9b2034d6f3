"""Does a trained model end its answers? Asked of what is published, after a fine-tuning.

A model that was fine-tuned without its EOS in the loss, or for too short, answers rightly and never stops:
every completion then runs to `max_new_tokens`. RL proves the EOS in its first step; here the model is asked.
Importing it is cheap: torch comes with `check`.
"""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from r1pipe import jsonl
from r1pipe.checkpoint import parameters
from r1pipe.errors import RunFailed
from r1pipe.machine import is_full_memory
from r1pipe.rollout.engine import Rollout, Sampling
from r1pipe.text import percent, quantity
from r1pipe.train.determinism import derive_seed, epochs_of
from r1pipe.train.examples import Example

if TYPE_CHECKING:
    from r1pipe.stage import Work

TEMPERATURE: Final = 0.6
"""The paper's, of its evaluations. Greedy answers of a small model go round in circles, which says nothing of
its EOS."""
TOP_P: Final = 0.95
EXPECTED: Final = 0.9
"""Share of the answers below which a warning is given."""
_ROOM: Final = 1.3
"""Memory of the cache and of what a pass computes, beside the weights, as a factor."""
_ASKED: Final = "stop-check.json"


class StopCheck(BaseModel):
    """How a trained model is asked whether it ends its answers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    prompts: int = Field(default=16, ge=0)
    """Training prompts that are answered once; 0 asks nothing."""
    max_new_tokens: int = Field(default=4096, ge=1)
    """An answer of so many tokens did not stop. Asked are prompts whose own completion is at most half as
    long."""
    least: float = Field(default=0.0, ge=0, le=1)
    """Share of the answers that has to stop; with less the stage fails, and what it trained is kept: lower
    this, and the same command goes on."""


def note(folder: Path, examples: Sequence[Example], how: StopCheck, context: int, seed: int) -> None:
    """Write down what will be asked: prompts in tokens, different ones, drawn by the seed.

    `context` is the most tokens that the model reads.
    """
    lengths = [example.length - example.prompt_tokens for example in examples]
    rows = [row for row, length in enumerate(lengths) if length <= how.max_new_tokens // 2]
    asked: dict[tuple[int, ...], int] = {}  # by prompt, the tokens of a completion that stopped
    for place in islice(epochs_of(len(rows), derive_seed(seed, "stop")), len(rows)):
        if len(asked) == how.prompts:
            break
        row = rows[place]
        prompt = tuple(examples[row].token_ids[: examples[row].prompt_tokens])
        asked[prompt] = max(lengths[row], asked.get(prompt, 0))
    tokens = min([2 * max(asked.values()), *(context - len(prompt) for prompt in asked)]) if asked else 0
    _write(folder, list(asked), tokens, min(lengths, default=0))


def note_prompts(folder: Path, prompts: Sequence[tuple[int, ...]], how: StopCheck, tokens: int) -> None:
    """Write down the first of some prompts as what will be asked, for answers of at most so many `tokens`."""
    _write(folder, prompts[: how.prompts], min(tokens, how.max_new_tokens), 0)


def _write(folder: Path, prompts: Sequence[tuple[int, ...]], tokens: int, shortest: int) -> None:
    asked = {"prompts": [list(each) for each in prompts], "max_new_tokens": tokens, "shortest": shortest}
    jsonl.write_json(folder / _ASKED, asked)


def check(model: Path, how: StopCheck, work: "Work") -> dict[str, Any]:
    """Ask the model in the folder `model`, tell how many of its answers stop, and return that as metrics.

    Raises `RunFailed` where fewer stop than `how.least`.
    """
    asked = jsonl.loads((work.dir / _ASKED).read_bytes())
    if how.prompts == 0:
        return {}
    if not asked["prompts"]:
        work.say(
            "Whether the model ends its answers was not asked: the shortest completion has "
            f"{asked['shortest']:,} tokens, which is more than half of stop_check.max_new_tokens."
        )
        return {}
    if lacking := _too_large(model):
        work.say(f"Whether the model ends its answers was not asked: {lacking}")
        return {}
    try:
        answers = _answers(model, asked["prompts"], asked["max_new_tokens"], work.seed)
    except RuntimeError as error:
        if not is_full_memory(error):
            raise
        work.say("Whether the model ends its answers was not asked: the GPU's memory is full.")
        return {}
    share = sum(each.finish == "stop" for each in answers) / len(answers)
    told = (
        f"{percent(share)} of {len(answers)} answers to training prompts end by themselves within "
        f"{asked['max_new_tokens']:,} tokens"
    )
    if share < how.least:
        raise RunFailed(
            f"{told}; stop_check.least asks for {percent(how.least)}. {_WAYS_OUT} To publish it as it is, "
            "run again with a lower `stop_check.least`: nothing is trained anew."
        )
    work.say(
        f"{told}."
        if share >= EXPECTED
        else f"{told}: it may not know when to stop, or answers at length. {_WAYS_OUT}"
    )
    return {"stops": share, "stop_prompts": len(answers)}


_WAYS_OUT: Final = (
    "Train for more `epochs` or with a higher `learning_rate`; if none stops at all, look whether "
    "tokenizer_config.json names the EOS that the completions end in."
)


def _too_large(model: Path) -> str | None:
    """Why the model is not opened here; None where there is room."""
    import torch

    if not torch.cuda.is_available():
        return None
    from r1pipe.train.running import release

    release()
    needed, free = parameters(model) * 2 * _ROOM, torch.cuda.mem_get_info()[0]
    if needed <= free:
        return None
    return (
        f"it needs about {quantity(needed)}B of the GPU's memory, and {quantity(free)}B are free. "
        "`r1pipe evaluate` with `engine: {name: vllm, tensor_parallel: …}` tells it as `truncated`."
    )


def _answers(model: Path, prompts: list[list[int]], tokens: int, seed: int) -> list[Rollout]:
    """One answer to each prompt, by the weights as they are published, on a GPU in bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM

    from r1pipe.rollout.local import TransformersEngine
    from r1pipe.train import models
    from r1pipe.train.text import open_ending_tokenizer

    models.hush()
    on_gpu = torch.cuda.is_available()
    tokenizer = open_ending_tokenizer(model)
    opened = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16 if on_gpu else torch.float32)
    models.place(opened)
    engine = TransformersEngine(
        opened, eos_id=int(tokenizer.eos_token_id), pad_id=int(tokenizer.pad_token_id), batch=len(prompts)
    )
    seeds = [derive_seed(seed, "stop", place) for place in range(len(prompts))]
    return engine.generate(prompts, Sampling(tokens, TEMPERATURE, TOP_P), seeds=seeds)
