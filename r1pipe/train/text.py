"""The seam between text and tokens, the same for training, sampling and evaluation. Nothing here imports
torch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_prompt(tokenizer: "PreTrainedTokenizerBase", prompt: str) -> list[int]:
    """A rendered prompt as tokens, with the tokenizer's BOS unless a chat template has already written it."""
    written = bool(tokenizer.bos_token) and prompt.startswith(tokenizer.bos_token)
    # An EOS that some tokenizers add would end the prompt before the completion has begun.
    ids = list(tokenizer(prompt, add_special_tokens=not written)["input_ids"])
    added = ids[-1:] == [tokenizer.eos_token_id] and not prompt.rstrip().endswith(tokenizer.eos_token)
    return ids[:-1] if added else ids


def decode_completions(
    tokenizer: "PreTrainedTokenizerBase", completions: Sequence[Sequence[int]]
) -> list[str]:
    """Completions as text, without the EOS they end in.

    Special tokens stay: in many vocabularies `<think>` is one, and what a policy wrote is not ours to tidy.
    """
    ends = (tokenizer.eos_token_id, tokenizer.pad_token_id)
    bare = [list(ids[:-1] if ids and ids[-1] in ends else ids) for ids in completions]
    return [str(text) for text in tokenizer.batch_decode(bare, skip_special_tokens=False)]
