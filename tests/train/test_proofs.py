"""Proofs of the setup and of the first step, as functions of tokens and tensors: each fails on its fault
alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from r1pipe.errors import RunFailed
from r1pipe.prompting import Template, render
from r1pipe.rollout import Rollout
from r1pipe.train import models, proofs
from r1pipe.train.grpo import Prompt
from r1pipe.train.proofs import FirstStep
from r1pipe.train.text import encode_prompt

EOS = 1


def nothing(said: str) -> None:
    raise AssertionError(f"it was not to say: {said}")


# --- Before anything starts


@pytest.fixture
def opened(tiny: Path) -> tuple[Any, Any]:
    return models.open_model(tiny)


def asked(tokenizer: Any, template: Template = "chat", count: int = 3) -> list[Prompt]:
    texts = [render(template, f"nums {row} 4 7 to 12", tokenizer=tokenizer) for row in range(count)]
    return [Prompt(row, text, encode_prompt(tokenizer, text)) for row, text in enumerate(texts)]


def prove(
    model: Any, tokenizer: Any, prompts: list[Prompt], say: Callable[[str], None] = nothing, **changes: Any
) -> int | None:
    options = {"template": "chat", "max_new_tokens": 16, "ends": {tokenizer.eos_token_id}} | changes
    return proofs.prove_setup(model, tokenizer, prompts, say=say, **options)


@pytest.mark.parametrize("template", ["chat", "r1-zero", "plain"])
def test_the_tiny_model_is_as_it_should_be(template: Template, opened: tuple[Any, Any]) -> None:
    """All templates; the words of the paper's that the tiny world has no token for are passed over."""
    model, tokenizer = opened
    model.config.max_position_embeddings = 128  # the paper's prompt alone has 70 words
    assert prove(model, tokenizer, asked(tokenizer, template), template=template) is None


def test_a_doubled_bos(opened: tuple[Any, Any]) -> None:
    """A chat template that writes the BOS, and a tokenizer that writes it too."""
    model, tokenizer = opened
    tokenizer.bos_token = "<unk>"
    bos, (prompt, *_) = tokenizer.bos_token_id, asked(tokenizer)
    with pytest.raises(RunFailed, match=r"Prompt 7 begins with the BOS token twice.*`add_bos_token`"):
        prove(model, tokenizer, [Prompt(7, prompt.text, [bos, bos, *prompt.token_ids])])


def test_a_prompt_that_would_be_cut(opened: tuple[Any, Any]) -> None:
    """The context of 64 less 60 new tokens leaves room for 4."""
    model, tokenizer = opened
    with pytest.raises(RunFailed, match=r"Prompt 0 has \d+ tokens, and the context leaves room for 4"):
        prove(model, tokenizer, asked(tokenizer), max_new_tokens=60)


def test_tokens_that_say_something_else(opened: tuple[Any, Any]) -> None:
    """One token of another tokenizer's, and one that no row of the embedding is for."""
    model, tokenizer = opened
    (prompt, *_) = asked(tokenizer)
    other = Prompt(0, prompt.text, [*prompt.token_ids[:-1], prompt.token_ids[-2]])
    with pytest.raises(RunFailed, match=r"tokens of prompt 0 say .* and it reads"):
        prove(model, tokenizer, [other])
    with pytest.raises(RunFailed, match="the model knows only those under"):
        prove(model, tokenizer, [Prompt(0, prompt.text, [*prompt.token_ids, 10_000])])


def test_an_engine_that_stops_elsewhere(opened: tuple[Any, Any]) -> None:
    """The tokenizer's EOS is not among the tokens that end a completion."""
    model, tokenizer = opened
    with pytest.raises(RunFailed, match=r"stops at the tokens \[5\], and the tokenizer's EOS is 1"):
        prove(model, tokenizer, asked(tokenizer), ends={5})


def turn_ends_in(tokenizer: Any, word: str) -> int:
    """Make the chat template end an assistant's turn in this word; return its token."""
    tokenizer.chat_template = tokenizer.chat_template.replace("<eos>", word)
    return int(tokenizer.convert_tokens_to_ids(word))


def test_a_template_that_ends_in_another_token(opened: tuple[Any, Any]) -> None:
    """Where the model's own generation config names that token, completions would not stop: refused.

    Where it does not, the policy may have been trained to end in the EOS: said, and looked for in what it
    writes.
    """
    model, tokenizer = opened
    assert proofs.end_of_turn(tokenizer) == tokenizer.eos_token_id
    end = turn_ends_in(tokenizer, "<|user|>")
    prompts, said = asked(tokenizer), []
    assert proofs.end_of_turn(tokenizer) == end
    assert prove(model, tokenizer, prompts, said.append) == end
    assert "ends a turn in '<|user|>', completions end in '<eos>'" in said[0]
    model.generation_config.eos_token_id = [EOS, end]
    with pytest.raises(RunFailed, match=r"completions would run on .*Set `eos_token`.*'<\|user\|>'"):
        prove(model, tokenizer, prompts)
    assert prove(model, tokenizer, prompts, ends={EOS, end}) is None
    assert prove(model, tokenizer, asked(tokenizer, "plain"), template="plain") is None


def test_a_template_without_an_end(opened: tuple[Any, Any]) -> None:
    """Plain text after an answer ends nothing, and proves nothing."""
    model, tokenizer = opened
    tokenizer.chat_template = tokenizer.chat_template.replace("<eos>", "")
    assert proofs.end_of_turn(tokenizer) is None
    assert prove(model, tokenizer, asked(tokenizer)) is None


def test_a_reference_of_another_vocabulary(opened: tuple[Any, Any], tiny: Path) -> None:
    """Both sizes are named."""
    model, _ = opened
    other, _ = models.open_model(tiny)
    proofs.same_vocabulary(model, other)
    size = model.config.vocab_size
    other.resize_token_embeddings(size + 8)
    with pytest.raises(RunFailed, match=f"vocabulary of {size + 8} tokens, the policy one of {size}"):
        proofs.same_vocabulary(model, other)


# --- Of the first step, as tensors


MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
LOGPS = torch.tensor([[-1.0, -2.0, -0.5, -3.0], [-0.25, -4.0, -9.0, -9.0]])


def test_a_deviation_counts_what_the_mask_does() -> None:
    """Six tokens count, two of them differ by 0.3 and 0.6; padding may differ by anything, NaN is not
    known."""
    other = LOGPS.clone()
    other[0, 1] += 0.3
    other[1, 0] -= 0.6
    other[1, 3] = 100.0
    found = proofs.deviation(LOGPS, other, MASK)
    assert found.largest == pytest.approx(0.6) and found.mean == pytest.approx(0.15)
    other[1, 0] = torch.nan
    assert proofs.deviation(LOGPS, other, MASK).mean == pytest.approx(0.3 / 5)
    assert proofs.deviation(other, LOGPS, MASK).largest == torch.inf, "the trainer's own must be a number"
    assert proofs.deviation(LOGPS, other, MASK * 0).mean == 0


def test_a_shift_by_one_is_told_from_noise() -> None:
    """Either way, and only where it explains nearly all of the difference."""
    moved = torch.roll(LOGPS, 1, dims=1)
    assert proofs.is_shifted(LOGPS, moved, MASK) and proofs.is_shifted(moved, LOGPS, MASK)
    assert not proofs.is_shifted(LOGPS, LOGPS + 1, MASK)
    assert not proofs.is_shifted(LOGPS[:, :1], LOGPS[:, :1] + 1, MASK[:, :1]), "one token cannot be shifted"


def test_divergence_by_hand() -> None:
    """k3 of a reference that is log 2 likelier on one token of six: (2 - log 2 - 1) / 6."""
    reference = LOGPS.clone()
    reference[0, 0] += torch.tensor(2.0).log()
    assert proofs.divergence(LOGPS, reference, MASK) == pytest.approx((1 - 0.693147) / 6, rel=1e-4)
    assert proofs.divergence(LOGPS, LOGPS, MASK) == 0


def test_last_tokens() -> None:
    """Of a full row, a short one, one with a hole in it, and one that is masked whole."""
    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 0, 1], [0, 0, 0]])
    assert proofs.last_tokens(mask).tolist() == [2, 0, 2, -1]


# --- Of the first step, a micro-batch at a time

ASKED = [[7, 8], [9]]
ROLLED = [Rollout([5, 6, 3, EOS], "stop"), Rollout([4, EOS], "stop"), Rollout([2, 2, 2, 2], "length")]


def step(said: list[str] | None = None, **options: Any) -> FirstStep:
    """A first step that has seen three completions of two prompts."""
    say = said.append if said is not None else nothing
    first = FirstStep(**{"exact": True, "say": say} | options)
    first.generated([ASKED[0], ASKED[1], ASKED[1]], ROLLED)
    return first


def micro(**changes: Any) -> dict[str, Any]:
    """What a trainer makes of the first two of them."""
    return {
        "prompt_ids": torch.tensor([[7, 8], [0, 9]]),
        "prompt_mask": torch.tensor([[1, 1], [0, 1]]),
        "completion_ids": torch.tensor([[5, 6, 3, EOS], [4, EOS, 0, 0]]),
        "completion_mask": MASK,
        "advantages": torch.tensor([0.5, -0.5]),
        **changes,
    }


def take(first: FirstStep, given: dict[str, Any], loss_mask: torch.Tensor | None = None) -> None:
    """One pass: the loss is the advantages' mean over the tokens of `loss_mask`."""
    logps = LOGPS.clone().requires_grad_() * 1.0  # in the midst of a graph, as a model's are
    first.forward(given, logps)
    kept = given["completion_mask"] if loss_mask is None else loss_mask
    (-(given["advantages"].reshape(2, -1) * logps * kept).sum() / kept.sum()).backward()
    first.check()


def test_what_holds_is_said_in_one_sentence() -> None:
    """All that can be looked at is given, and all is equal."""
    said: list[str] = []
    first = step(said)
    same = dict.fromkeys(("sampling_per_token_logps", "old_per_token_logps", "ref_per_token_logps"), LOGPS)
    take(first, micro(**same))
    first.conclude()
    assert said == [
        "First step: ratio 1 (sampling differs by 0 at most, the pass before the step differs by 0 at most, "
        "the reference model differs by 0 at most), KL 0, 2 completions end in their EOS and 2 of them teach "
        "it, no prompt cut."
    ]


def test_where_nothing_ended_nothing_is_claimed() -> None:
    """A completion that was cut off, and one that is masked whole, say nothing of the EOS."""
    said: list[str] = []
    first = step(said)
    ids, mask = torch.tensor([[2, 2, 2, 2], [5, 6, 3, EOS]]), torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0]])
    prompts = {"prompt_ids": torch.tensor([[0, 9], [7, 8]]), "prompt_mask": torch.tensor([[0, 1], [1, 1]])}
    take(first, micro(completion_ids=ids, completion_mask=mask, **prompts))
    first.conclude()
    assert said == [
        "First step: ratio 1, no completion ended by itself, so nothing is known of the EOS, no prompt cut."
    ]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("sampling_per_token_logps", "those of sampling differ"),
        ("old_per_token_logps", "those of the pass before the step differ"),
        ("ref_per_token_logps", "those of the reference model differ"),
    ],
)
def test_weights_that_changed_in_between(name: str, told: str) -> None:
    """One token's log-probability is off by 0.002: more than float32's rounding, so these are not the
    weights."""
    other = LOGPS.clone()
    other[0, 2] += 0.002
    with pytest.raises(
        RunFailed, match=f"{told} by 0.00033 a token, 0.002 at most, where at most 0.001 in any"
    ):
        take(step(), micro(**{name: other}))
    take(step(exact=False), micro(**{name: other}))


def test_another_engine_may_differ_in_the_mean() -> None:
    """Not exact: 0.09 a token passes, one outlier passes, 0.2 a token does not."""
    outlier = LOGPS.clone()
    outlier[0, 0] -= 0.5
    for other in (LOGPS + 0.09, outlier):
        take(step(exact=False), micro(sampling_per_token_logps=other))
    with pytest.raises(
        RunFailed, match=r"0\.1 in the mean is right.*The weights, the temperature or the dropout"
    ):
        take(step(exact=False), micro(sampling_per_token_logps=LOGPS + 0.2))


@pytest.mark.parametrize("exact", [True, False])
def test_log_probabilities_shifted_by_one_token(exact: bool) -> None:
    """The commonest mistake with them is told by its name."""
    with pytest.raises(RunFailed, match="They agree when moved by one token"):
        take(step(exact=exact), micro(sampling_per_token_logps=torch.roll(LOGPS, 1, dims=1)))


def test_cut_distributions_are_not_compared() -> None:
    """With top_p or top_k what was drawn from is not what is trained, and that is meant."""
    shifted = micro(sampling_per_token_logps=LOGPS + 1)
    take(step(whole_distribution=False), shifted)
    with pytest.raises(RunFailed):
        take(step(), shifted)


def test_a_masked_eos() -> None:
    """pad = eos and a mask made by looking for padding: the last token of each completion falls out of it."""
    given = micro(completion_mask=(micro()["completion_ids"] > EOS).long())
    with pytest.raises(RunFailed, match="its EOS, is masked"):
        take(step(), given)


def test_an_eos_that_the_loss_leaves_out() -> None:
    """The mask has it, but the loss does not: no gradient reaches it."""
    kept = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    with pytest.raises(RunFailed, match=r"in 1 of 2 completions that ended .* the EOS is not learnt"):
        take(step(), micro(), kept)
    take(step(eos_learnt=False), micro(), kept)


def test_a_ratio_outside_the_clip_needs_no_gradient() -> None:
    """By token the EOS itself is off, by 0.5; by sequence the first completion's four tokens, by 0.125.

    Within the clip an EOS that is left out is still found.
    """
    kept, old = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]]), LOGPS.clone()
    old[0, 3] += 0.5
    given = micro(old_per_token_logps=old)
    take(step(exact=False, clip=0.2), given, kept)
    take(step(exact=False, clip=4e-4, by_sequence=True), given, kept)
    for clip, by_sequence in ((10.0, False), (0.3, True)):
        with pytest.raises(RunFailed, match=r"in 1 of 2 completions that ended .* the EOS is not learnt"):
            take(step(exact=False, clip=clip, by_sequence=by_sequence), given, kept)


def test_no_advantage_needs_no_gradient() -> None:
    """A group of equal rewards teaches nothing, its EOS neither; a weight of 0 on the last token is the
    same."""
    take(step(), micro(advantages=torch.tensor([0.0, -0.5])))
    weighted = torch.tensor([[0.5, 0.5, 0.5, 0.0], [-0.5, -0.5, 0.0, 0.0]])
    take(step(), micro(advantages=weighted))


def test_a_loss_on_padding() -> None:
    """Tokens that no completion holds."""
    with pytest.raises(RunFailed, match="the loss pulls on padding"):
        take(step(), micro(), torch.ones(2, 4))


def test_what_is_trained_on_is_what_was_judged() -> None:
    """A token that changed, and a prompt that lost its first one."""
    ids = micro()["completion_ids"].clone()
    ids[0, 1] = 4
    with pytest.raises(RunFailed, match="A completion is not among those that were judged"):
        take(step(), micro(completion_ids=ids))
    with pytest.raises(RunFailed, match="A prompt is not among those that were asked"):
        take(step(), micro(prompt_mask=torch.tensor([[0, 1], [0, 1]])))


def test_a_policy_that_ends_its_turns_elsewhere() -> None:
    """Two of three write the template's end of turn in their midst and go on; one of three may be chance."""
    with pytest.raises(
        RunFailed, match=r"2 of 3 completions write .* \(token 6\) and go on.*Set `eos_token`"
    ):
        first = FirstStep(exact=True, say=nothing, turn=6)
        first.generated([[7], [8], [9]], [Rollout([6, 2], "length"), Rollout([6, 4, 1], "stop"), ROLLED[1]])
    first = FirstStep(exact=True, say=nothing, turn=6)
    first.generated([[7], [8], [9]], [Rollout([6, 2], "length"), Rollout([4, 6], "length"), ROLLED[1]])
