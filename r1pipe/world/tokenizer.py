"""The tiny world's tokenizer: one token per word, saved as a stock `tokenizer.json`."""

from typing import TYPE_CHECKING

from r1pipe.world.words import ASSISTANT, EOS, PAD, TAGS, UNKNOWN, USER, VOCABULARY

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# The keyword is the one Qwen3 introduced: without thinking the model answers at once.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}"
    "{{- '" + USER + " ' + message['content'] + ' ' -}}"
    "{%- else -%}"
    "{{- '" + ASSISTANT + " ' + message['content'] + ' " + EOS + " ' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}"
    "{{- '" + ASSISTANT + "' -}}"
    "{%- if enable_thinking is not defined or enable_thinking -%}{{- ' <think>' -}}{%- endif -%}"
    "{%- endif -%}"
)


def build_tokenizer(context: int) -> "PreTrainedTokenizerFast":
    """A word-level tokenizer over `VOCABULARY`, with the chat template, for up to `context` tokens."""
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.add_special_tokens([PAD, EOS, UNKNOWN])
    # Tags are split off even where no space stands beside them, as at the seam of prompt and completion.
    tokenizer.add_tokens(
        [AddedToken(tag, normalized=False, special=False) for tag in (USER, ASSISTANT, *TAGS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        chat_template=CHAT_TEMPLATE,
        model_max_length=context,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
