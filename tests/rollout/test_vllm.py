"""vLLM on the CPU, held against the policy it samples from. Needs `make vllm`; takes about a minute."""

import copy
import math
import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from r1pipe.errors import EnvironmentUnfit, RunFailed, UsageError
from r1pipe.rollout import Rollout, Sampling
from r1pipe.rollout import vllm as module
from r1pipe.rollout.local import TransformersEngine, keep_likeliest
from r1pipe.rollout.specs import VllmSpec
from r1pipe.rollout.vllm import TOLERANCE, VllmEngine
from r1pipe.rollout.vllm_fit import CPU_HEAD_SIZES, known_architectures
from tests.tiny_model import random_model

pytestmark = [pytest.mark.slow, pytest.mark.vllm]

VOCABULARY, CONTEXT = 24, 128
PAD, EOS = 0, 1
SPEC = VllmSpec(dtype="float32", cache_gb=0.1, max_sequences=64)


def qwen3(seed: int = 1, *, tied: bool = True) -> PreTrainedModel:
    """With weights so large that it says different things after different prompts."""
    return random_model(
        "qwen3",
        seed=seed,
        vocab_size=VOCABULARY,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        initializer_range=0.25,
        eos_token_id=EOS,
        pad_token_id=PAD,
        tie_word_embeddings=tied,
    )


@pytest.fixture(scope="module")
def policy() -> PreTrainedModel:
    return qwen3()


@pytest.fixture(scope="module")
def folder(policy: PreTrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policy")
    policy.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def engine(policy: PreTrainedModel, folder: Path) -> Iterator[VllmEngine]:
    engine = VllmEngine(folder, SPEC, eos_id=EOS, context=CONTEXT, policy=policy)
    yield engine
    engine.close()


@pytest.fixture
def moved(policy: PreTrainedModel, engine: VllmEngine) -> Iterator[Callable[[], None]]:
    """Moves the policy's weights far when called; after the test both sides are as they were."""
    before = copy.deepcopy(policy.state_dict())

    def move() -> None:
        torch.manual_seed(7)
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)

    yield move
    policy.load_state_dict(before)
    engine.sync()


def prompts_of(count: int, seed: int = 0) -> list[list[int]]:
    """Prompts of 1 to 40 tokens, the special ones left out: less and more than a block of the cache."""
    rng = random.Random(seed)
    return [[rng.randint(2, VOCABULARY - 1) for _ in range(rng.randint(1, 40))] for _ in range(count)]


def by_transformers(policy: PreTrainedModel, prompts: list[list[int]], sampling: Sampling) -> list[list[int]]:
    engine = TransformersEngine(policy, eos_id=EOS, pad_id=PAD)
    return tokens(engine.generate(prompts, sampling, seeds=range(len(prompts))))


def tokens(rollouts: list[Rollout]) -> list[list[int]]:
    return [rollout.token_ids for rollout in rollouts]


def run(engine: VllmEngine, prompts: list[list[int]], sampling: Sampling, seed: int = 0) -> list[Rollout]:
    return engine.generate(prompts, sampling, seeds=range(seed, seed + len(prompts)))


def test_greedy_is_the_policy_token_for_token(policy: PreTrainedModel, engine: VllmEngine) -> None:
    """Twenty prompts of mixed length, some completions of which end early."""
    prompts, sampling = prompts_of(20), Sampling(40, temperature=0)
    assert tokens(run(engine, prompts, sampling)) == by_transformers(policy, prompts, sampling)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.5, 0, 1.0), (1.0, 3, 1.0), (1.0, 0, 0.8), (0.0, 0, 1.0)],
    ids=["1", "0.5", "top-3", "top-p", "greedy"],
)
def test_logprobs_are_those_of_a_fresh_pass(
    policy: PreTrainedModel, engine: VllmEngine, temperature: float, top_k: int, top_p: float
) -> None:
    """To 1e-4, under the distribution that was drawn from."""
    prompts = prompts_of(40)
    sampling = Sampling(20, temperature=temperature, top_k=top_k, top_p=top_p, logprobs=True)
    for prompt, rollout in zip(prompts, run(engine, prompts, sampling), strict=True):
        ids = torch.tensor([[*prompt, *rollout.token_ids]])
        with torch.no_grad():
            logits = policy(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
        kept = keep_likeliest(logits / (temperature or 1), top_k, top_p).log_softmax(-1)
        expected = kept[range(len(rollout.token_ids)), rollout.token_ids]
        assert rollout.logprobs == pytest.approx(expected.tolist(), abs=1e-4)


def test_first_tokens_come_as_often_as_the_policy_says(policy: PreTrainedModel, engine: VllmEngine) -> None:
    """Of 3,000 draws with seeds in a row each token has its share, within four standard deviations."""
    prompt, draws = [3, 4, 5], 3000
    counts = Counter(rollout.token_ids[0] for rollout in run(engine, [prompt] * draws, Sampling(1)))
    with torch.no_grad():
        shares = policy(input_ids=torch.tensor([prompt])).logits[0, -1].softmax(-1).tolist()
    for token, p in enumerate(shares):
        assert counts[token] / draws == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / draws) + 1e-4)


def test_a_seed_decides_whatever_is_beside_it(engine: VllmEngine) -> None:
    """Alone, in a batch, in another order and by seeds near 2**63: the same tokens; other seeds, others. The
    process's own random numbers are as they were."""
    prompts, sampling = prompts_of(12), Sampling(30)
    seeds = [2**63 - 1 - i for i in range(12)]
    before = torch.get_rng_state(), random.getstate()
    together = tokens(engine.generate(prompts, sampling, seeds=seeds))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    alone = [
        engine.generate([p], sampling, seeds=[s])[0].token_ids for p, s in zip(prompts, seeds, strict=True)
    ]
    assert alone == together
    backwards = engine.generate(prompts[::-1], sampling, seeds=seeds[::-1])
    assert tokens(backwards)[::-1] == together
    assert tokens(run(engine, prompts, sampling)) != together
    assert len({tuple(ids) for ids in tokens(run(engine, [prompts[0]] * 8, sampling))}) > 4


def test_an_eos_ends_a_completion(engine: VllmEngine) -> None:
    """It stands last exactly when the completion stopped, and nowhere else; each rollout is told of once."""
    told: dict[int, Rollout] = {}

    def finished(place: int, rollout: Rollout) -> None:
        assert place not in told
        told[place] = rollout

    prompts = prompts_of(150)
    rollouts = engine.generate(prompts, Sampling(15), seeds=range(150), finished=finished)
    assert {rollout.finish for rollout in rollouts} == {"stop", "length"}
    for rollout in rollouts:
        assert rollout.token_ids.count(EOS) == (rollout.finish == "stop")
        assert (rollout.token_ids[-1] == EOS) is (rollout.finish == "stop")
        assert rollout.finish == "stop" or len(rollout.token_ids) == 15
        assert rollout.logprobs is None
    assert list(told) != sorted(told), "told as they end, and not in the order of their prompts"
    assert [told[i] for i in range(150)] == rollouts


def test_every_step_has_its_time(engine: VllmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the one before took; a sync has it too, and between the calls nothing is watched."""
    step, plain, left = engine._llm.llm_engine.step, module.plain_weights, list[float]()

    def watched() -> None:
        left.append(signal.getitimer(signal.ITIMER_REAL)[0])
        signal.setitimer(signal.ITIMER_REAL, 300)  # half of the time is gone

    def watched_step() -> Any:
        watched()
        return step()

    def watched_weights(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
        watched()
        return plain(model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine._llm.llm_engine, "step", watched_step)
        run(engine, prompts_of(3), Sampling(5))
    assert len(left) >= 5
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    monkeypatch.setattr(module, "plain_weights", watched_weights)
    engine.sync()
    assert min(left) > SPEC.timeout - 100
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_a_completion_ends_where_the_context_does(engine: VllmEngine) -> None:
    """After 126 tokens there is room for two."""
    (rollout,) = run(engine, [[5] * (CONTEXT - 2)], Sampling(40, temperature=0))
    assert len(rollout.token_ids) == 2 or rollout.finish == "stop"


def test_what_is_forbidden_does_not_follow(policy: PreTrainedModel, engine: VllmEngine) -> None:
    """The commonest pair of tokens is forbidden: greedy completions are the policy's under the same rule."""
    prompts, free = prompts_of(12), Sampling(30, temperature=0)
    pairs: Counter[tuple[int, int]] = Counter()
    for ids in tokens(run(engine, prompts, free)):
        pairs.update(pairwise(ids))
    (before, after), _ = pairs.most_common(1)[0]
    prompts = [prompt for prompt in prompts if prompt[-1] != before]
    barred = Sampling(30, temperature=0, forbid_after={before: after})
    result = tokens(run(engine, prompts, barred))
    assert result == by_transformers(policy, prompts, barred)
    assert not any((before, after) in pairwise(ids) for ids in result)


def test_new_weights_arrive(
    policy: PreTrainedModel, engine: VllmEngine, moved: Callable[[], None], folder: Path
) -> None:
    """After the policy moved and `sync`, greedy completions are the new policy's; before, the old one's."""
    prompts, sampling = prompts_of(12), Sampling(20, temperature=0)
    old = by_transformers(policy, prompts, sampling)
    moved()
    assert tokens(run(engine, prompts, sampling)) == old
    engine.sync()
    new = by_transformers(policy, prompts, sampling)
    assert new != old
    assert tokens(run(engine, prompts, sampling)) == new
    assert engine.probe_difference is not None
    assert engine.probe_difference < 1e-4 < TOLERANCE[torch.float32]


def _lost(engine: VllmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's worker takes nothing over."""
    monkeypatch.setattr(engine._llm, "collective_rpc", lambda *args, **kwargs: None)


def _stale_head(engine: VllmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The head, tied to the embedding, goes on with its packed copy: what vLLM 0.29 does by itself."""
    monkeypatch.setattr(module, "_repack_embeddings", lambda model: None)


def _corrupted(engine: VllmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """One norm of one layer arrives half as large again."""
    plain = module.plain_weights

    def corrupt(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
        for name, weight in plain(model):
            yield name, weight * 1.5 if name == "model.layers.1.input_layernorm.weight" else weight

    monkeypatch.setattr(module, "plain_weights", corrupt)


@pytest.mark.parametrize("fault", [_lost, _stale_head, _corrupted])
def test_weights_that_did_not_arrive_stop_the_run(
    engine: VllmEngine,
    moved: Callable[[], None],
    fault: Callable[[VllmEngine, pytest.MonkeyPatch], None],
) -> None:
    """Each of the faults that generate garbage in silence is seen at once, and said with its size."""
    moved()
    with pytest.MonkeyPatch.context() as patch:
        fault(engine, patch)
        with pytest.raises(
            RunFailed, match=r"probe of 64 tokens differ by .* float32 explains 0\.001"
        ) as error:
            engine.sync()
    assert "engine: transformers" in str(error.value)
    assert engine.probe_difference is not None
    assert engine.probe_difference > TOLERANCE[torch.float32]


@pytest.mark.parametrize("fault", [_lost, _stale_head], ids=["all", "head"])
def test_a_small_step_that_did_not_arrive_stops_the_run(
    engine: VllmEngine,
    policy: PreTrainedModel,
    moved: Callable[[], None],
    fault: Callable[[VllmEngine, pytest.MonkeyPatch], None],
) -> None:
    """A step of RL's size, 1e-6, moves the probe far less than is allowed for rounding: the weights
    themselves are compared, all of the model's, with the head's packed copy. (The padding's zeros stay.)"""
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(1e-6 * parameter.sign())
    with pytest.MonkeyPatch.context() as patch:
        fault(engine, patch)
        with pytest.raises(RunFailed, match=r"older weights.* of the 19 weights .*lm_head\.weight"):
            engine.sync()
    assert engine.probe_difference is not None
    assert engine.probe_difference < TOLERANCE[torch.float32] / 10
    engine.sync()


def test_prompts_that_are_not_forgotten_stop_the_run(
    engine: VllmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine._llm, "reset_prefix_cache", lambda: False)
    with pytest.raises(RunFailed, match="would not forget the prompts"):
        engine.sync()


def test_not_a_number_is_no_agreement(engine: VllmEngine, policy: PreTrainedModel, moved: Any) -> None:
    with torch.no_grad():
        policy.model.norm.weight.fill_(float("nan"))
    with pytest.raises(RunFailed, match="differ by nan"):
        engine.sync()


def test_it_sleeps_between_rollouts(
    engine: VllmEngine, policy: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: it goes to sleep when it is told to rest, whatever came before, and wakes with the
    policy's weights before the cache takes its memory back, for a `sync` or for the next call. (The calls
    alone: on a CPU they do nothing.)"""
    calls: list[Any] = []
    take_over = engine._llm.collective_rpc

    def rpc(name: str, **rest: Any) -> Any:
        calls.append(name)
        return take_over(name, **rest)

    monkeypatch.setattr(engine, "_sleeps", True)
    monkeypatch.setattr(engine._llm, "sleep", lambda level: calls.append(level))
    monkeypatch.setattr(engine._llm, "wake_up", lambda tags: calls.extend(tags))
    monkeypatch.setattr(engine._llm, "collective_rpc", rpc)
    prompts, sampling = prompts_of(3), Sampling(5, temperature=0)
    woken = ["weights", "reload_weights", "kv_cache"]
    run(engine, prompts, sampling)
    run(engine, prompts, sampling)
    assert calls == []
    engine.rest()
    engine.rest()
    assert calls == [2]
    assert tokens(run(engine, prompts, sampling)) == by_transformers(policy, prompts, sampling)
    assert calls == [2, *woken]
    engine.rest()
    engine.sync()
    assert calls == [2, *woken, 2, *woken]
    engine.sync()
    assert calls == [2, *woken, 2, *woken, "reload_weights"]


def test_a_failed_profiling_of_memory_names_the_field() -> None:
    """vLLM asserts that nobody else let go of memory while it looked."""
    with (
        pytest.raises(EnvironmentUnfit, match=r"Error in memory profiling.*Raise `cache_gb: 0\.1`"),
        module._memory_errors_explained(SPEC),
    ):
        raise AssertionError("Error in memory profiling. Initial free memory 1 GiB, current 2 GiB.")


def test_an_interruption_leaves_nothing_behind(engine: VllmEngine) -> None:
    """Whoever is told of a rollout may break off; the next call returns its own rollouts and no others."""
    prompts, sampling = prompts_of(20), Sampling(20)
    expected = tokens(run(engine, prompts[:5], sampling))

    def stop(place: int, rollout: Rollout) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.generate(prompts, sampling, seeds=range(20), finished=stop)
    assert tokens(run(engine, prompts[:5], sampling)) == expected


def test_what_vllm_cannot_do_is_said_beforehand(engine: VllmEngine) -> None:
    with pytest.raises(UsageError, match=r"from 0\.01 to 2\.0.*3\.0 was asked for"):
        run(engine, [[5]], Sampling(4, temperature=3.0))
    with pytest.raises(UsageError, match=r"128 tokens leaves no room .* context of 128"):
        run(engine, [[5] * CONTEXT], Sampling(4))
    with pytest.raises(UsageError, match=r"ends with token 5.*engine: transformers"):
        run(engine, [[4, 5]], Sampling(4, forbid_after={5: 6}))
    with pytest.raises(ValueError, match="no tokens"):
        run(engine, [[]], Sampling(4))


def test_the_process_is_left_as_it_was(engine: VllmEngine) -> None:
    """Threads can be set, no library is preloaded into children, and nothing reports its usage."""
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    assert torch.get_num_threads() == threads + 1
    torch.set_num_threads(threads)
    assert "LD_PRELOAD" not in os.environ
    assert os.environ["VLLM_NO_USAGE_STATS"] == "1"


@pytest.mark.parametrize("options", [{"max_num_seq": 3}, {"trust_remote_code": True}, {"dtype": "half"}])
def test_options_are_checked(folder: Path, options: dict[str, Any]) -> None:
    spec = SPEC.model_copy(update={"options": options})
    with pytest.raises(UsageError, match=r"did you mean 'max_num_seqs'|set by r1pipe itself"):
        VllmEngine(folder, spec, eos_id=EOS, context=CONTEXT)


def test_what_stands_in_vllms_source() -> None:
    """The two things that are known without importing vLLM are what it says of itself."""
    from vllm import ModelRegistry
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    assert list(CPU_HEAD_SIZES) == CPUAttentionBackend.get_supported_head_sizes()
    assert {"LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"} < known_architectures()
    assert set(ModelRegistry.get_supported_archs()) <= known_architectures()


def test_too_little_memory_names_the_field(folder: Path) -> None:
    """A cache of a few kilobytes holds no context."""
    with pytest.raises(EnvironmentUnfit, match=r"cache_gb: 1e-05.*max_sequences: 64"):
        VllmEngine(folder, SPEC.model_copy(update={"cache_gb": 1e-5}), eos_id=EOS, context=CONTEXT)


@pytest.mark.parametrize("adapted", [False, True], ids=["untied", "lora"])
def test_other_policies_arrive(adapted: bool, tmp_path: Path) -> None:
    """A head of its own, and LoRA, which is added on the way: the policy's weights stay bit for bit."""
    policy = qwen3(3, tied=adapted)
    policy.save_pretrained(tmp_path)
    if adapted:
        peft = pytest.importorskip("peft")
        config = peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
        policy = peft.get_peft_model(policy, config)
    before = copy.deepcopy(policy.state_dict())
    engine = VllmEngine(tmp_path, SPEC, eos_id=EOS, context=CONTEXT, policy=policy)
    prompts, sampling = prompts_of(6), Sampling(12, temperature=0)
    assert tokens(run(engine, prompts, sampling)) == by_transformers(policy, prompts, sampling)
    assert all(torch.equal(before[name], value) for name, value in policy.state_dict().items())
    engine.close()
    engine.close()


def test_without_a_policy_the_checkpoint_is_served(
    policy: PreTrainedModel, folder: Path, engine: VllmEngine
) -> None:
    """`sync` has nothing to do then."""
    alone = VllmEngine(folder, SPEC, eos_id=EOS, context=CONTEXT)
    alone.sync()
    assert alone.probe_difference is None
    prompts, sampling = prompts_of(6), Sampling(12, temperature=0)
    assert tokens(run(alone, prompts, sampling)) == by_transformers(policy, prompts, sampling)
    alone.close()
