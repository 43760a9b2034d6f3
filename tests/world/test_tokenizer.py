"""One token a word, and a template that opens the thinking or does not."""

from pathlib import Path
from typing import Any

import pytest

from r1pipe.train.text import open_tokenizer
from r1pipe.world.tokenizer import build_tokenizer
from r1pipe.world.words import VOCABULARY


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer(128)


def test_token_i_is_word_i(tokenizer: Any) -> None:
    """The whole vocabulary in a row reads as 0, 1, 2, …, comes back as it was, and nothing is added."""
    ids = list(range(len(VOCABULARY)))
    assert tokenizer(" ".join(VOCABULARY))["input_ids"] == ids
    assert tokenizer.decode(ids) == " ".join(VOCABULARY)
    assert len(tokenizer) == len(VOCABULARY)
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    assert tokenizer.bos_token_id is None
    assert tokenizer.model_max_length == 128


def test_other_words_are_unknown(tokenizer: Any) -> None:
    """A number above 99 and a word that is not in the world."""
    assert tokenizer("7 100 tiger 9")["input_ids"] == [
        VOCABULARY.index("7"), 2, 2, VOCABULARY.index("9"),
    ]  # fmt: skip


def test_tags_need_no_space(tokenizer: Any) -> None:
    """A prompt and its completion read alike joined and apart, with and without a space at the seam."""
    apart = tokenizer("to 34 <think>")["input_ids"] + tokenizer("4 + 5 </think>")["input_ids"]
    assert tokenizer("to 34 <think>4 + 5</think>")["input_ids"] == apart
    assert tokenizer("to 34 <think> 4 + 5 </think>")["input_ids"] == apart


def test_the_template_word_for_word(tokenizer: Any) -> None:
    """The prompt opens the thinking unless it is turned off; a finished turn ends in an EOS."""
    asked = [{"role": "user", "content": "copy red"}]

    def render(messages: list[dict[str, str]], **options: Any) -> str:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, **options))

    opened = "<|user|> copy red <|assistant|> <think>"
    assert render(asked, add_generation_prompt=True) == opened
    assert render(asked, add_generation_prompt=True, enable_thinking=True) == opened
    assert (
        render(asked, add_generation_prompt=True, enable_thinking=False) == "<|user|> copy red <|assistant|>"
    )
    answered = [*asked, {"role": "assistant", "content": "red"}]
    assert render(answered) == "<|user|> copy red <|assistant|> red <eos> "


def test_saved_and_opened_it_is_the_same(tokenizer: Any, tmp_path: Path) -> None:
    """Ids, special tokens, the side of the padding and the template survive the files."""
    tokenizer.save_pretrained(tmp_path)
    again = open_tokenizer(tmp_path)
    text = "<|user|> nums 1 12 3 to 36 <|assistant|> <think>1 * 12 = 12</think>"
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    for name in ("pad_token_id", "eos_token_id", "unk_token_id", "padding_side", "model_max_length"):
        assert getattr(again, name) == getattr(tokenizer, name), name
    assert again.chat_template == tokenizer.chat_template
