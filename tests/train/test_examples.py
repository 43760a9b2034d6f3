"""Rows become tokens with a loss on the completion alone; what cannot is set aside with its reason."""

import json
from pathlib import Path

import pytest

from r1pipe.train.examples import Example, Examples, example, reasons
from r1pipe.world.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def tokenizer():  # type: ignore[no-untyped-def]
    return build_tokenizer(64)


def test_labels_begin_after_the_prompt_and_end_with_eos(tokenizer) -> None:  # type: ignore[no-untyped-def]
    """The EOS is learnt: a model that never sees it in its labels never stops."""
    made = example({"prompt": "nums 1 2 <think>", "completion": "1 + 2 = 3 </think>"}, tokenizer)
    assert isinstance(made, Example)
    assert tokenizer.decode(made.token_ids) == "nums 1 2 <think> 1 + 2 = 3 </think> <eos>"
    assert made.labels == [-100] * 4 + made.token_ids[4:]
    assert made.labels[-1] == tokenizer.eos_token_id


def test_an_eos_that_is_written_is_not_doubled(tokenizer) -> None:  # type: ignore[no-untyped-def]
    """A completion may come with its EOS as text."""
    with_eos = example({"prompt": "nums", "completion": "3 <eos>"}, tokenizer)
    assert with_eos == example({"prompt": "nums", "completion": "3"}, tokenizer)


def test_messages_are_rendered_by_the_chat_template(tokenizer) -> None:  # type: ignore[no-untyped-def]
    """Thinking in the answer opens `<think>` once; an answer without thinking opens none."""
    user = {"role": "user", "content": "nums 1 2"}
    thinking = example(
        {"messages": [user, {"role": "assistant", "content": "<think> 3 </think> 3"}]}, tokenizer
    )
    assert isinstance(thinking, Example)
    assert (
        tokenizer.decode(thinking.token_ids) == "<|user|> nums 1 2 <|assistant|> <think> 3 </think> 3 <eos>"
    )
    assert thinking.prompt_tokens == 6
    direct = example({"messages": [user, {"role": "assistant", "content": "3"}]}, tokenizer)
    assert isinstance(direct, Example)
    assert tokenizer.decode(direct.token_ids) == "<|user|> nums 1 2 <|assistant|> 3 <eos>"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "nums"}, "no text in 'prompt' and 'completion'"),
        ({"prompt": "nums", "completion": 3}, "no text in 'prompt' and 'completion'"),
        ({"prompt": "nums", "completion": " "}, "the completion is empty"),
        ({"messages": "hello"}, "'messages' is not a list of {role, content}"),
        (
            {"messages": [{"role": "user", "content": "x"}]},
            "'messages' does not end in an assistant's answer",
        ),
    ],
)
def test_a_row_that_cannot_be_learnt_says_why(row, reason, tokenizer) -> None:  # type: ignore[no-untyped-def]
    """One reason each, in words that can be counted."""
    assert example(row, tokenizer) == reason


def test_counts_add_up(tmp_path: Path, tokenizer) -> None:  # type: ignore[no-untyped-def]
    """Every line is either an example or set aside: broken JSON, a missing column, a row over the context."""
    lines = [
        json.dumps({"prompt": "nums 1", "completion": "1"}),
        "{broken",
        json.dumps({"prompt": "nums"}),
        json.dumps({"prompt": "nums", "completion": "9 " * 20}),
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    examples = Examples()
    examples.read(tmp_path / "rows.jsonl", tokenizer, context=10)
    assert [tokenizer.decode(e.token_ids) for e in examples.kept] == ["nums 1 1 <eos>"]
    assert len(examples.set_aside) == 3
    assert reasons(examples.set_aside) == {
        "not JSON": 1,
        "no text in 'prompt' and 'completion'": 1,
        "longer than the context": 1,
    }
    assert examples.set_aside[-1]["reason"] == "22 tokens, and the context holds 10"


def test_a_limit_draws_rows_by_the_seed(tmp_path: Path, tokenizer) -> None:  # type: ignore[no-untyped-def]
    """Three of ten, the same three for one seed, other ones for another."""
    rows = [json.dumps({"prompt": "nums", "completion": str(n)}) for n in range(10)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))

    def drawn(seed: int) -> list[int]:
        examples = Examples()
        examples.read(tmp_path / "rows.jsonl", tokenizer, context=10, limit=3, seed=seed)
        return [e.token_ids[1] for e in examples.kept]

    assert len(set(drawn(0))) == 3
    assert drawn(0) == drawn(0) != drawn(1)
