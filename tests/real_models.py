"""Random models laid out as Qwen's, Meta's and DeepSeek's releases are: architecture, tokenizer, files."""

import json
from pathlib import Path
from typing import Any

END = "<|end_of_text|>"
BEGIN = "<|begin_of_text|>"
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen2.5's bases bring it along, without the system prompt that theirs begins with."""


def train_bpe(folder: Path, texts: list[str], special: list[str], begins_with: str | None) -> int:
    """Write `tokenizer.json`; return how many tokens there are."""
    from tokenizers import (
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    if begins_with is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begins_with} $A", special_tokens=[(begins_with, tokenizer.token_to_id(begins_with))]
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    return int(tokenizer.get_vocab_size())


def write_qwen2(folder: Path, texts: list[str]) -> Path:
    """As Qwen2.5-0.5B: the base ends in <|endoftext|>, which pads as well; `bos_token_id` is in the config
    alone."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    size = train_bpe(folder, texts, special, None)
    tokens = {"eos_token": special[0], "pad_token": special[0], "bos_token": None, "unk_token": None}
    tokens["chat_template"] = CHATML
    write_tokenizer_config(folder, tokenizer_class="Qwen2Tokenizer", add_bos_token=False, **tokens)
    return write_model(folder, "qwen2", size, {"bos_token_id": 0, "eos_token_id": 0})


def write_llama(folder: Path, texts: list[str], *, instruct: bool = False) -> Path:
    """As Llama-3.2-1B: a BOS before every text, no padding token; a chat template where it is an instruct."""
    size = train_bpe(folder, texts, [BEGIN, END], BEGIN)
    tokens = {"bos_token": BEGIN, "eos_token": END} | ({"chat_template": CHATML} if instruct else {})
    write_tokenizer_config(folder, tokenizer_class="PreTrainedTokenizerFast", **tokens)
    return write_model(folder, "llama", size, {"bos_token_id": 0, "eos_token_id": 1, "head_dim": 16})


def write_tokenizer_config(folder: Path, **fields: Any) -> None:
    fields |= {"model_max_length": 131072, "clean_up_tokenization_spaces": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))


def write_model(folder: Path, architecture: str, tokens: int, options: dict[str, Any]) -> Path:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    options = {"num_key_value_heads": 2} | options
    shape = AutoConfig.for_model(
        architecture,
        vocab_size=-(-tokens // 64) * 64 + 64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        initializer_range=0.08,
        tie_word_embeddings=True,
        **options,
    )
    model = AutoModelForCausalLM.from_config(shape).to(torch.bfloat16)
    model.generation_config.do_sample = True  # as released ones say
    model.generation_config.top_p = 0.9
    model.save_pretrained(folder)
    return folder


def write_deepseek(folder: Path, texts: list[str]) -> Path:
    """As DeepSeek-V3-Base: latent attention, and experts from the second layer on."""
    begin, end = "<\uff5cbegin\u2581of\u2581sentence\uff5c>", "<\uff5cend\u2581of\u2581sentence\uff5c>"
    size = train_bpe(folder, texts, [begin, end], begin)
    tokens = {"bos_token": begin, "eos_token": end, "pad_token": end}
    write_tokenizer_config(folder, tokenizer_class="LlamaTokenizerFast", **tokens)
    attention = {
        "num_key_value_heads": 4,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 8,
        "v_head_dim": 16,
    }
    experts = {
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_shared_experts": 1,
        "n_group": 2,
        "topk_group": 1,
        "moe_intermediate_size": 32,
        "first_k_dense_replace": 1,
    }
    return write_model(
        folder, "deepseek_v3", size, {"bos_token_id": 0, "eos_token_id": 1} | attention | experts
    )
