"""The engine agrees with transformers, whatever it leaves out, repeats or cuts into batches."""

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from r1pipe.rollout import Rollout, Sampling
from r1pipe.rollout.cache import RoomyCache
from r1pipe.rollout.local import TransformersEngine, draw, keep_likeliest
from tests.tiny_model import random_model

VOCABULARY = 24
PAD, EOS = 0, 1
MINUS_INFINITY = float("-inf")
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 128,
    "initializer_range": 0.25,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
}


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    """Random, with weights so large that it says different things after different prompts."""
    return random_model("llama", **SHAPE)


def engine_of(model: PreTrainedModel, **options: Any) -> TransformersEngine:
    return TransformersEngine(model, **{"eos_id": EOS, "pad_id": PAD, **options})


def prompts_of(count: int, seed: int = 0) -> list[list[int]]:
    """Prompts of 1 to 12 tokens, the special ones left out."""
    rng = random.Random(seed)
    return [[rng.randint(2, VOCABULARY - 1) for _ in range(rng.randint(1, 12))] for _ in range(count)]


@pytest.fixture
def shapes(model: PreTrainedModel) -> Iterator[list[tuple[int, int]]]:
    """(rows, columns) of the tokens that every forward pass reads."""
    seen: list[tuple[int, int]] = []

    def note(module: Any, args: Any) -> None:
        rows, *columns = args[0].shape
        seen.append((rows, columns[0] if columns else 1))

    handle = model.get_input_embeddings().register_forward_pre_hook(note)
    yield seen
    handle.remove()


def run(
    engine: TransformersEngine, prompts: Sequence[list[int]], sampling: Sampling, seed: int = 0
) -> list[Rollout]:
    """Generate with the seeds `seed`, `seed` + 1, …"""
    return engine.generate(prompts, sampling, seeds=range(seed, seed + len(prompts)))


def greedy_by_transformers(model: PreTrainedModel, prompt: list[int], eos_id: int, limit: int) -> list[int]:
    ids = torch.tensor([prompt])
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=limit,
        eos_token_id=eos_id,
        pad_token_id=PAD,
    )
    return [int(token) for token in output[0, len(prompt) :]]


def fresh_logprobs(model: PreTrainedModel, prompt: list[int], rollout: Rollout) -> torch.Tensor:
    """[tokens, vocabulary]: the distribution before each drawn token, by one pass without a cache."""
    ids = torch.tensor([[*prompt, *rollout.token_ids]])
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]


@pytest.mark.parametrize("batch", [256, 5])
def test_greedy_is_generate_token_for_token(
    model: PreTrainedModel, shapes: list[tuple[int, int]], batch: int
) -> None:
    """Sixteen prompts of mixed length, some of which end early: the finished rows are dropped, and those that
    are left say what transformers says about each prompt alone."""
    prompts, limit = prompts_of(16), 40
    free = [greedy_by_transformers(model, prompt, VOCABULARY, limit) for prompt in prompts]
    common = Counter(token for tokens in free for token in set(tokens[1:]))
    eos_id = next(token for token, count in common.most_common() if 6 <= count <= 12)
    expected = [greedy_by_transformers(model, prompt, eos_id, limit) for prompt in prompts]
    assert len({len(tokens) for tokens in expected}) > 4, "all end together: nothing would be dropped"
    shapes.clear()
    rollouts = run(engine_of(model, eos_id=eos_id, batch=batch), prompts, Sampling(limit, temperature=0))
    assert [rollout.token_ids for rollout in rollouts] == expected
    assert {rollout.finish for rollout in rollouts} == {"stop", "length"}
    for rollout in rollouts:
        assert (rollout.token_ids[-1] == eos_id) is (rollout.finish == "stop")
    assert shapes[0] == (min(batch, 16), max(map(len, prompts[:batch])))
    computed = [rows for rows, width in shapes if width == 1]
    assert min(computed) < min(batch, 16) * 0.85
    assert max(rows for rows, _ in shapes) <= batch


def test_prompts_of_one_length_need_no_mask(model: PreTrainedModel) -> None:
    """Without padding the model works out the positions by itself, and comes to the same."""
    prompts = [[5, 6, 7], [8, 9, 10], [11, 12, 13]]
    rollouts = run(engine_of(model), prompts, Sampling(20, temperature=0))
    expected = [greedy_by_transformers(model, prompt, EOS, 20) for prompt in prompts]
    assert [rollout.token_ids for rollout in rollouts] == expected


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("qwen2", {}),
        ("qwen3", {"head_dim": 16}),
        ("mistral", {"sliding_window": 6, "head_dim": 16}),
        ("gemma2", {"sliding_window": 6, "head_dim": 16}),
    ],
)
def test_other_architectures(architecture: str, options: dict[str, Any]) -> None:
    """Grouped heads, and windows of attention that are shorter than what has been written."""
    model = random_model(architecture, num_key_value_heads=1, **SHAPE, **options)
    prompts = prompts_of(6)
    rollouts = run(engine_of(model), prompts, Sampling(20, temperature=0))
    expected = [greedy_by_transformers(model, prompt, EOS, 20) for prompt in prompts]
    assert [rollout.token_ids for rollout in rollouts] == expected


def test_a_group_is_read_once(model: PreTrainedModel, shapes: list[tuple[int, int]]) -> None:
    """Two prompts, four times each and not side by side: the first pass reads two rows, and the completions
    stand where their prompts stand."""
    one, other = [3, 4, 5, 6], [7, 8]
    asked = [one, other, other, one, one, other, one, other]
    rollouts = run(engine_of(model), asked, Sampling(8, temperature=0))
    assert shapes[0] == (2, 4)
    assert shapes[1] == (8, 1)
    expected = {tuple(p): greedy_by_transformers(model, p, EOS, 8) for p in (one, other)}
    assert [rollout.token_ids for rollout in rollouts] == [expected[tuple(prompt)] for prompt in asked]


def test_members_of_a_group_are_drawn_from_the_model(model: PreTrainedModel) -> None:
    """Over 20,000 copies of a prompt, next to a longer one, first and second tokens come as often as the
    model says, within four standard deviations each."""
    prompt, draws = [3, 4, 5], 20_000
    asked = [prompt] * draws + [[6, 7, 8, 9, 10]]
    rollouts = run(engine_of(model, batch=draws + 1), asked, Sampling(2))[:draws]
    firsts = Counter(rollout.token_ids[0] for rollout in rollouts)
    first = torch.softmax(fresh_logprobs(model, prompt, Rollout([2], "length"))[0], -1)
    assert_frequencies(firsts, first)
    likeliest = max(range(2, VOCABULARY), key=firsts.__getitem__)
    seconds = Counter(r.token_ids[1] for r in rollouts if r.token_ids[0] == likeliest)
    second = torch.softmax(fresh_logprobs(model, [*prompt, likeliest], Rollout([2], "length"))[0], -1)
    assert_frequencies(seconds, second)


def assert_frequencies(counts: Counter[int], probabilities: torch.Tensor) -> None:
    total = counts.total()
    assert total > 1000
    for token, p in enumerate(probabilities.tolist()):
        assert counts[token] / total == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / total) + 1e-4)


def test_one_seed_one_result(model: PreTrainedModel) -> None:
    """The same tokens whatever was drawn before; others under another seed; the process's own random numbers
    are as they were."""
    engine, prompts, sampling = engine_of(model, batch=3), prompts_of(8), Sampling(12)

    def tokens(seed: int) -> list[list[int]]:
        return [r.token_ids for r in run(engine, prompts, sampling, seed)]

    before = torch.get_rng_state()
    first = tokens(7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(123)
    torch.rand(5)
    assert tokens(7) == first
    assert tokens(8) != first


def test_batches_draw_different_numbers(model: PreTrainedModel) -> None:
    """The second batch of one prompt has seeds of its own: a copy of the first would be half the samples
    lost."""
    rollouts = run(engine_of(model, batch=4), [[3, 4, 5]] * 8, Sampling(12))
    drawn = [tuple(rollout.token_ids) for rollout in rollouts]
    assert drawn[:4] != drawn[4:]
    assert len(set(drawn)) > 4


@pytest.mark.parametrize("pad_id", [PAD, EOS])
def test_an_eos_ends_a_completion(model: PreTrainedModel, pad_id: int) -> None:
    """It stands last exactly when the completion stopped, and nowhere else, even where it pads as well."""
    rollouts = run(engine_of(model, pad_id=pad_id), prompts_of(200), Sampling(15))
    assert {rollout.finish for rollout in rollouts} == {"stop", "length"}
    for rollout in rollouts:
        stopped = rollout.finish == "stop"
        assert rollout.token_ids.count(EOS) == stopped
        assert (rollout.token_ids[-1] == EOS) is stopped
        assert stopped or len(rollout.token_ids) == 15
        assert rollout.logprobs is None


@pytest.mark.parametrize(
    ("temperature", "top_k"), [(1.0, 0), (0.5, 0), (1.0, 3), (0.0, 0)], ids=["1", "0.5", "top-3", "greedy"]
)
def test_logprobs_are_those_of_a_fresh_pass(model: PreTrainedModel, temperature: float, top_k: int) -> None:
    """To 1e-5, for mixed lengths and after rows were dropped, under the distribution that was drawn from."""
    prompts = prompts_of(40)
    sampling = Sampling(20, temperature=temperature, top_k=top_k, logprobs=True)
    rollouts = run(engine_of(model), prompts, sampling)
    if temperature:
        assert len({len(rollout.token_ids) for rollout in rollouts}) > 5
    for prompt, rollout in zip(prompts, rollouts, strict=True):
        logits = keep_likeliest(fresh_logprobs(model, prompt, rollout) / (temperature or 1), top_k, 1.0)
        expected = logits.log_softmax(-1)[range(len(rollout.token_ids)), rollout.token_ids]
        assert rollout.logprobs == pytest.approx(expected.tolist(), abs=1e-5)


def test_the_likeliest_are_kept_exactly() -> None:
    """Probabilities 0.5, 0.3, 0.15 and 0.05 out of order: what each setting leaves."""
    logits = torch.tensor([[0.15, 0.5, 0.05, 0.3]]).log()

    def kept(top_k: int = 0, top_p: float = 1.0) -> list[int]:
        result = keep_likeliest(logits, top_k, top_p)
        left = [i for i, value in enumerate(result[0].tolist()) if value != MINUS_INFINITY]
        assert torch.equal(result[0, left], logits[0, left])
        return left

    assert kept() == kept(top_k=4) == kept(top_k=9) == [0, 1, 2, 3]
    assert kept(top_k=1) == kept(top_p=0.0001) == kept(top_p=0.49) == [1]
    assert kept(top_k=2) == kept(top_p=0.51) == kept(top_p=0.79) == [1, 3]
    assert kept(top_k=3) == kept(top_p=0.81) == kept(top_p=0.94) == [0, 1, 3]
    assert kept(top_p=0.96) == [0, 1, 2, 3]
    assert kept(top_k=3, top_p=0.5) == [1]  # of the three, the first has 0.526
    assert kept(top_k=2, top_p=0.9) == [1, 3]


def test_rows_are_cut_each_for_itself() -> None:
    """A sure row keeps one token where a flat row keeps three of four."""
    logits = torch.tensor([[0.97, 0.01, 0.01, 0.01], [0.25, 0.25, 0.25, 0.25]]).log()
    left = keep_likeliest(logits, 0, 0.7) > MINUS_INFINITY
    assert left.sum(-1).tolist() == [1, 3]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_is_forbidden_is_not_drawn(temperature: float) -> None:
    """Token 2 is all but certain: after a 5 it is never drawn and the rest share its probability, after
    another token it is; two rules hold side by side."""
    logits = torch.tensor([[0.0, 1.0, 20.0, 3.0]]).repeat(600, 1)
    previous = torch.tensor([5, 6, 7] * 200)
    sampling = Sampling(1, temperature=temperature, forbid_after={5: 2, 7: 3})
    drawn, logprobs = draw(
        logits.clone(), previous, sampling, torch.linspace(0, 0.999, 600, dtype=torch.float64)
    )
    assert 2 not in drawn[previous == 5]
    assert set(drawn[previous != 5].tolist()) == {2}
    shares = torch.tensor([0.0, 1.0, MINUS_INFINITY, 3.0]).log_softmax(-1)
    assert logprobs[0].item() == pytest.approx(shares[drawn[0]].item(), abs=1e-5)


def test_a_completion_obeys_what_is_forbidden(model: PreTrainedModel) -> None:
    """In whole completions too, the prompt's last token counting as the one before the first."""
    prompts = [[3, 4, token] for token in range(2, VOCABULARY)] * 10
    free = run(engine_of(model), prompts, Sampling(20))

    def pairs(rollouts: list[Rollout]) -> Counter[tuple[int, int]]:
        found: Counter[tuple[int, int]] = Counter()
        for prompt, rollout in zip(prompts, rollouts, strict=True):
            found.update(zip([prompt[-1], *rollout.token_ids], rollout.token_ids, strict=False))
        return found

    (before, banned), count = pairs(free).most_common(1)[0]
    assert count > 10
    bound = run(engine_of(model), prompts, Sampling(20, forbid_after={before: banned}))
    assert pairs(bound)[before, banned] == 0
    assert any(pair[0] == before for pair in pairs(bound))


def test_dropout_is_off_and_comes_back(model: PreTrainedModel) -> None:
    """A model in training samples as one that is not, and is in training afterwards, after a mistake too."""
    engine, prompts = engine_of(model), prompts_of(4)
    expected = run(engine, prompts, Sampling(8))
    modes: list[bool] = []
    handle = model.register_forward_pre_hook(lambda module, args: modes.append(module.training))
    try:
        model.train()
        assert run(engine, prompts, Sampling(8)) == expected
        assert model.training
        with pytest.raises(IndexError):
            run(engine, [[VOCABULARY]], Sampling(8))
        assert model.training
    finally:
        handle.remove()
        model.eval()
    assert set(modes) == {False}


def test_an_empty_prompt_is_refused(model: PreTrainedModel) -> None:
    """It has no last token to go on from; no prompts at all are no completions."""
    with pytest.raises(ValueError, match="no tokens"):
        run(engine_of(model), [[3], []], Sampling(8))
    assert run(engine_of(model), [], Sampling(8)) == []


def test_one_token_needs_one_pass(model: PreTrainedModel, shapes: list[tuple[int, int]]) -> None:
    """The last token is drawn and not read: a limit of n costs n passes."""
    run(engine_of(model, eos_id=VOCABULARY), prompts_of(3), Sampling(1))
    assert len(shapes) == 1
    shapes.clear()
    run(engine_of(model, eos_id=VOCABULARY), prompts_of(3), Sampling(5))
    assert len(shapes) == 5


def test_a_drop_is_put_off_until_it_pays(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are dropped when fewer than 85 in 100 of them are unfinished, so a drop never copies more than
    that, and the first copy is the one that makes groups."""
    kept: list[int] = []
    keep = RoomyCache.keep

    def noted(cache: RoomyCache, rows: torch.Tensor) -> None:
        kept.append(len(rows))
        keep(cache, rows)

    monkeypatch.setattr(RoomyCache, "keep", noted)
    run(engine_of(model), [[3, 4, 5]] * 100, Sampling(30))
    assert kept[0] == 100
    assert len(kept) > 3
    assert all(later < 0.85 * earlier for earlier, later in pairwise(kept))
