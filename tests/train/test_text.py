"""Between text and tokens nothing is added, lost or split otherwise than the tokenizer's files say."""

from pathlib import Path

import pytest

from r1pipe.train.text import decode_completions, encode_prompt, open_tokenizer
from r1pipe.world.tokenizer import build_tokenizer


class Beginning:
    """A tokenizer that writes a BOS and, as T5's does, an EOS."""

    bos_token, eos_token, eos_token_id = "<s>", "</s>", 2

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        ids = [1 if word == "<s>" else 9 for word in text.split()]
        return {"input_ids": [1, *ids, 2] if add_special_tokens else ids}


def test_a_prompt_has_one_bos_and_no_eos() -> None:
    """A chat template that wrote the BOS is not given a second; an EOS before the completion is taken off."""
    assert encode_prompt(Beginning(), "a b") == [1, 9, 9]  # type: ignore[arg-type]
    assert encode_prompt(Beginning(), "<s> a b") == [1, 9, 9]  # type: ignore[arg-type]


def test_decoding_keeps_tags_and_drops_the_end() -> None:
    """A truncated completion has no EOS to drop."""
    tokenizer = build_tokenizer(64)
    ids = tokenizer("1 + 2 </think> <answer> 3 </answer> <eos>")["input_ids"]
    assert decode_completions(tokenizer, [ids, ids[:-1], ids[:2], []]) == [
        "1 + 2 </think> <answer> 3 </answer>",
        "1 + 2 </think> <answer> 3 </answer>",
        "1 +",
        "",
    ]


@pytest.mark.parametrize("architecture", ["LlamaConfig", "Qwen2Config", "Qwen3Config"])
def test_a_tokenizer_is_what_its_files_say(architecture: str, tmp_path: Path) -> None:
    """A word-level tokenizer beside a Qwen2's config: `AutoTokenizer` splits its 12 into 1 and 2 and drops
    words."""
    import transformers

    getattr(transformers, architecture)().save_pretrained(tmp_path)
    tokenizer = build_tokenizer(64)
    tokenizer.save_pretrained(tmp_path)
    text = "<|user|> nums 1 12 3 to 34 <|assistant|> <think> 3 * 12 = 36 no wait </think>"
    opened = open_tokenizer(tmp_path)
    assert opened(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert opened.decode(opened(text)["input_ids"]) == text
    assert opened.chat_template == tokenizer.chat_template
