"""The cache that takes room ahead holds what the one that concatenates holds."""

import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM
from transformers.cache_utils import DynamicLayer

from r1pipe.rollout.cache import RoomyCache, RoomyLayer


def states(rows: int, new: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, rows, 3, new, 4, generator=generator)
    return keys, values


def test_it_holds_what_it_was_given() -> None:
    """A prompt, then 150 tokens one by one, twice past the room that was taken: equal at every length."""
    roomy, plain = RoomyLayer(), DynamicLayer()
    for step, new in enumerate([7] + [1] * 150):
        given = states(2, new, step)
        keys, values = roomy.update(*given)
        expected_keys, expected_values = plain.update(*given)
        assert torch.equal(keys, expected_keys)
        assert torch.equal(values, expected_values)
        assert roomy.get_seq_length() == plain.get_seq_length() == 7 + step


def test_a_token_copies_nothing() -> None:
    """Within the room that was taken the states stay where they are; beyond it they move once."""
    layer = RoomyLayer()
    places = {layer.update(*states(2, new, 0))[0].data_ptr() for new in [7] + [1] * 64}
    assert len(places) == 1
    places |= {layer.update(*states(2, 1, 0))[0].data_ptr() for _ in range(64)}
    assert len(places) == 2


def test_rows_are_kept_in_the_order_they_are_named() -> None:
    """One twice, one not at all; what is appended afterwards goes to the rows as they now stand."""
    layer = RoomyLayer()
    keys, values = states(3, 5, 0)
    layer.update(keys, values)
    kept = torch.tensor([2, 0, 2, 2])
    layer.keep(kept)
    assert torch.equal(layer.keys, keys[kept])
    assert torch.equal(layer.values, values[kept])
    more_keys, more_values = states(4, 1, 1)
    all_keys, all_values = layer.update(more_keys, more_values)
    assert torch.equal(all_keys, torch.cat([keys[kept], more_keys], 2))
    assert torch.equal(all_values, torch.cat([values[kept], more_values], 2))


def test_a_copied_row_is_a_row_of_its_own() -> None:
    """The first token of each member of a group is not written over by that of another."""
    layer = RoomyLayer()
    layer.update(*states(1, 5, 0))
    layer.keep(torch.tensor([0, 0]))
    keys, _ = layer.update(*states(2, 1, 1))
    assert torch.equal(keys[0, :, :5], keys[1, :, :5])
    assert not torch.equal(keys[0, :, 5], keys[1, :, 5])


def test_a_model_reads_it_like_the_other() -> None:
    """The logits of three steps are the same bits."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    model = LlamaForCausalLM(config).eval()
    roomy, plain = RoomyCache(model.config), DynamicCache(config=model.config)
    for ids in (
        torch.tensor([[5, 6, 7], [8, 9, 10]]),
        torch.tensor([[11], [12]]),
        torch.tensor([[13], [14]]),
    ):
        with torch.no_grad():
            ours = model(ids, past_key_values=roomy, use_cache=True).logits
            theirs = model(ids, past_key_values=plain, use_cache=True).logits
        assert torch.equal(ours, theirs)
    assert roomy.get_seq_length() == 5
