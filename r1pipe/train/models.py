"""Opening a checkpoint to train it, and writing the one that is published."""

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.utils import logging as transformers_logging

from r1pipe import jsonl
from r1pipe.train.text import open_ending_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def open_model(
    folder: Path, config: "PreTrainedConfig | None" = None
) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """A causal language model in float32 and its tokenizer; `config` takes the place of the folder's.

    Training keeps float32 weights everywhere; on a GPU the forward pass runs in bfloat16 by autocast. Raises
    `UsageError` when the tokenizer has no EOS, since a model that cannot end its answer cannot be trained to.
    """
    hush()
    tokenizer = open_ending_tokenizer(folder)
    given = {} if config is None else {"config": config}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **given)
    return model, tokenizer


def place(model: "PreTrainedModel") -> None:
    """Put a model where this process will train it, for what is asked of it before."""
    if torch.cuda.is_available():
        model.to(f"cuda:{int(os.environ.get('LOCAL_RANK', 0))}")


def context_of(model: "PreTrainedModel") -> int:
    """The most tokens the model can read, prompt and completion together."""
    return int(model.config.get_text_config().max_position_embeddings)


def publish(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    folder: Path,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> Path:
    """Write weights, config, generation config and tokenizer as `from_pretrained` and vLLM open them.

    `weights` are the model's where it holds only a part of them.
    Generation ends at the tokenizer's EOS, and at every other end the model already knew (an end of turn).
    """
    known = model.generation_config.eos_token_id if model.generation_config is not None else None
    ends = known if isinstance(known, list) else [known] if known is not None else []
    if tokenizer.eos_token_id not in ends:
        ends = [tokenizer.eos_token_id, *ends]
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends if len(ends) > 1 else ends[0],
        pad_token_id=tokenizer.pad_token_id,
    )
    text_config = model.config.get_text_config()
    text_config.eos_token_id = model.generation_config.eos_token_id
    text_config.pad_token_id = tokenizer.pad_token_id
    text_config.use_cache = True  # trainers turn it off
    folder.mkdir(parents=True, exist_ok=True)
    # Gathered weights no longer show which of them are one and the same.
    tied = model.all_tied_weights_keys if weights is not None else ()
    whole = {name: weight for name, weight in weights.items() if name not in tied} if weights else None
    model.save_pretrained(folder, state_dict=whole)
    tokenizer.save_pretrained(folder)
    for part in folder.glob("*.safetensors"):  # written for their owner's eyes only, unlike all else
        part.chmod((folder / "config.json").stat().st_mode)
    return folder


def publish_set_aside(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Keep beside a checkpoint what it was not trained on, each row with its reason; no rows, no file."""
    if rows:
        jsonl.write_rows(folder / "set-aside.jsonl", rows)


def hush() -> None:
    """Keep the libraries' bars and advice off the terminal: what matters there the stage says itself."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("trl").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
