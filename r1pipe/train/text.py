"""The seam between text and tokens, the same for training, sampling and evaluation. Cheap to import."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from r1pipe import jsonl
from r1pipe.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def open_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer in a checkpoint's folder, as its files say it is.

    `AutoTokenizer` of transformers 5 sets aside the class that tokenizer_config.json names for some
    architectures, Qwen2 among them, and puts that family's own splitting into words in place of the one in
    tokenizer.json. A tokenizer that names no family, one trained for the model at hand, would then silently
    read other tokens than it was trained on.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    file = folder / "tokenizer_config.json"
    named = jsonl.loads(file.read_bytes()).get("tokenizer_class") if file.is_file() else None
    plain = (
        named in ("TokenizersBackend", "PreTrainedTokenizerFast") and (folder / "tokenizer.json").is_file()
    )
    opened = (PreTrainedTokenizerFast if plain else AutoTokenizer).from_pretrained(folder)
    return cast("PreTrainedTokenizerBase", opened)


def open_ending_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a model that ends what it writes; its padding is the EOS where it has none.

    Raises `UsageError` when it has no EOS, since such a model can neither end an answer nor learn to.
    """
    tokenizer = open_tokenizer(folder)
    if tokenizer.eos_token_id is None:
        raise UsageError(
            f"The tokenizer in {folder} has no EOS token. Set `eos_token` in its tokenizer_config.json."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


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
