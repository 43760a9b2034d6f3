"""vLLM in this process, on a GPU or a CPU, with the policy's weights taken over in place and checked.

On a CPU vLLM multiplies with packed copies of the weights. They are therefore taken over by its workers'
`reload_weights`, which packs anew, and not by the model's `load_weights`, which does not. Each time a probe
is scored by both sides, and weights of each layer are compared, so that rollouts never come unnoticed from
other weights than the policy's.
"""

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from r1pipe.errors import EnvironmentUnfit, RunFailed, UsageError
from r1pipe.hints import meant
from r1pipe.rollout.engine import Finished, Rollout, Sampling
from r1pipe.rollout.probe import TOLERANCE, Probe
from r1pipe.rollout.specs import VllmSpec
from r1pipe.rollout.vllm_columns import Columns
from r1pipe.rollout.vllm_fit import (
    cache_values_per_token,
    check_installation,
    check_model,
    read_config,
    unavailable,
    unfit_temperature,
)
from r1pipe.rollout.weights import plain_weights
from r1pipe.train import ranks
from r1pipe.watchdog import watched

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["TOLERANCE", "VllmEngine", "unavailable"]

_CPU_BLOCK = 32
"""Tokens of a block of the cache, which are shared together. The smallest there is on a CPU, so that of a
group even a short prompt is read once."""

_OURS = frozenset(
    {
        "model", "dtype", "max_model_len", "tensor_parallel_size", "logprobs_mode", "generation_config",
        "skip_tokenizer_init", "load_format", "trust_remote_code", "enable_sleep_mode", "seed",
    }
)  # fmt: skip
"""Arguments of vLLM that are no options: the engine's other fields set them, or its promises need them."""


class VllmEngine:
    """Samples with vLLM: from the checkpoint in `folder`, or from a policy that trains in this process."""

    name = "vllm"
    exact = False

    probe_difference: float | None = None
    """Mean |difference| of the probe's log-probabilities after the last `sync`; None before the first."""

    def __init__(
        self,
        folder: Path,
        spec: VllmSpec,
        *,
        eos_id: int,
        context: int,
        policy: "PreTrainedModel | None" = None,
    ) -> None:
        """Start vLLM for sequences of at most `context` tokens; a policy's weights are taken over at once.

        Raises `EnvironmentUnfit` where vLLM is not installed as it should be or the memory is too small,
        `UsageError` where vLLM cannot serve the model or does not know an option.
        """
        check_installation()
        check_model(folder)
        if policy is not None and spec.tensor_parallel > 1:
            raise UsageError(
                "Beside a trainer each process has a vLLM of its own, so `tensor_parallel` must be 1. "
                "A policy that is too large for one GPU is trained with `lora`, or as a smaller model."
            )
        spec = spec.settled(alone=policy is None)
        self.eos_id = eos_id
        self.context = context
        self._policy = policy
        self._spec = spec
        self._sleeps = policy is not None and spec.sleep and torch.cuda.is_available()
        self._asleep = False
        self._columns = Columns()
        self._owns_process_group = not torch.distributed.is_initialized()
        with _this_process_kept(), _memory_errors_explained(spec):
            self._llm = _start(_arguments(folder, spec, context, policy is not None, self._sleeps))
        if policy is not None:
            self.sync()

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        seeds: Sequence[int],
        finished: Finished | None = None,
    ) -> list[Rollout]:
        """One rollout per prompt, in order; a completion also ends where the context does.

        A step that does not return within the spec's `timeout` ends the process.
        Raises `ValueError` on an empty prompt, `UsageError` on a prompt that fills the context and on
        sampling that vLLM cannot do.
        """
        self._check(prompts, sampling)
        if self._asleep:
            self.sync()
        engine = self._llm.llm_engine
        rollouts: dict[int, Rollout] = {}
        with _random_numbers_kept(), watched(self._spec.timeout) as came_back:
            try:
                for i, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
                    engine.add_request(str(i), _tokens(prompt), self._parameters(sampling, seed))
                while engine.has_unfinished_requests():
                    outputs = engine.step()
                    came_back()
                    for output in outputs:
                        if output.finished:
                            place = int(output.request_id)
                            rollouts[place] = self._rollout(output.outputs[0])
                            if finished is not None:
                                finished(place, rollouts[place])
            finally:  # an interruption must not leave requests to the next call
                engine.abort_request([str(i) for i in range(len(prompts)) if i not in rollouts])
        return [rollouts[i] for i in range(len(prompts))]

    def sync(self) -> float | None:
        """Take over the policy's present weights in place, forget cached prompts, and check both.

        Returns the probe's difference. Without a policy the weights are the checkpoint's, and there is
        nothing to do. Raises `RunFailed` where the two sides do not agree about the probe within `TOLERANCE`,
        and where vLLM goes on with older weights or prompts. What is not through within the spec's `timeout`
        ends the process.
        """
        if self._policy is not None:
            ranks.barrier()  # another rank that still writes a checkpoint is no vLLM that hangs
            with watched(self._spec.timeout):
                self._take_over(self._policy)
        return self.probe_difference

    def _take_over(self, policy: "PreTrainedModel") -> None:
        if self._asleep:
            self._wake("weights")
        weights = self._columns.noted(plain_weights(policy))
        try:
            self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
            self._llm.apply_model(_repack_embeddings)
        except (KeyError, ValueError, AttributeError, RuntimeError) as error:
            raise RunFailed(
                f"vLLM could not take over the policy's weights ({type(error).__name__}: {error}). "
                "Write `engine: transformers`, which samples from the policy itself."
            ) from error
        if self._asleep:
            self._wake("kv_cache")
            self._asleep = False
        if not self._llm.reset_prefix_cache():
            raise RunFailed(
                "vLLM would not forget the prompts that it read with older weights, so what follows them "
                "would be drawn from a mixture. Run the stage again, or write `engine: transformers`."
            )
        self._check_probe(policy)
        for _ in weights:  # what vLLM did not read is missing in it, and is compared all the same
            pass
        self._check_columns()

    def rest(self) -> None:
        """Sleep, where the recipe lets it and a GPU is shared with a trainer."""
        if self._sleeps and not self._asleep:
            self._llm.sleep(level=2)  # 2 keeps no copy of the weights: the policy's are taken over again
            self._asleep = True

    def _wake(self, what: str) -> None:
        """Take the memory again; torch holds what training has let go until it is told not to."""
        torch.cuda.empty_cache()
        with _memory_errors_explained(self._spec):
            self._llm.wake_up(tags=[what])

    def close(self) -> None:
        """Give back the memory, and the process group where vLLM made it. A second call does nothing."""
        from vllm.distributed.parallel_state import destroy_model_parallel

        llm, self._llm = self._llm, None
        if llm is None:
            return
        core = llm.llm_engine.engine_core
        if self._owns_process_group:
            core.shutdown()
        else:  # the whole shutdown would end the trainer's process group too
            core.engine_core.model_executor.shutdown()
            destroy_model_parallel()
        del core, llm
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _check(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> None:
        if said := unfit_temperature(sampling.temperature):
            raise UsageError(said)
        for prompt in prompts:
            if len(prompt) == 0:
                raise ValueError("a prompt has no tokens")
            if len(prompt) >= self.context:
                raise UsageError(
                    f"A prompt of {len(prompt)} tokens leaves no room for a completion in a context of "
                    f"{self.context}. Leave out the longest prompts, or take a model with a longer context."
                )
            if prompt[-1] in sampling.forbid_after:
                raise UsageError(
                    f"A prompt ends with token {prompt[-1]}, after which something is forbidden: vLLM looks "
                    "at completions only. Write `engine: transformers` for this evaluation."
                )

    def _parameters(self, sampling: Sampling, seed: int) -> Any:
        """One request's `SamplingParams`. It stops at `eos_id` alone, whatever else the model ends with."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        parameters = SamplingParams(
            max_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            seed=seed,
            logprobs=0 if sampling.logprobs else None,  # none beside the drawn token's
            stop_token_ids=[self.eos_id],
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_clone=True,
        )
        if sampling.forbid_after:  # `bad_words` as tokens: the last of a sequence is barred after the others
            parameters._bad_words_token_ids = [
                [before, after] for before, after in sampling.forbid_after.items()
            ]
        return parameters

    def _rollout(self, completion: Any) -> Rollout:
        if completion.finish_reason not in ("stop", "length"):
            raise RunFailed(
                f"vLLM ended a completion with {completion.finish_reason!r}. Run the stage again."
            )
        ids = list(completion.token_ids)
        return Rollout(
            token_ids=ids,
            finish="stop" if ids[-1] == self.eos_id else "length",
            logprobs=_logprobs(ids, completion.logprobs) if completion.logprobs is not None else None,
        )

    def _check_probe(self, policy: "PreTrainedModel") -> None:
        probe = Probe.of(policy, self.context)
        tokens, logprobs = self._probe(probe)
        dtype = self._llm.llm_engine.model_config.dtype
        self.probe_difference, refused = probe.compared(policy, tokens, logprobs, dtype)
        if refused:
            raise RunFailed(
                f"vLLM {refused} Write `engine: transformers`; or try `dtype: float32` or no `options` for "
                "vLLM."
            )

    def _check_columns(self) -> None:
        differing = self._llm.apply_model(self._columns.differing)[0]
        if differing:
            raise RunFailed(
                f"vLLM goes on with older weights than the policy's: {len(differing)} of the "
                f"{len(self._columns.compared or ())} weights that were compared are not what was handed "
                f"over ({', '.join(differing[:3])}). Write `engine: transformers`, which samples "
                "from the policy itself."
            )

    def _probe(self, probe: Probe) -> tuple[list[int], list[float]]:
        """vLLM's own likeliest continuation of the probe, and its log-probabilities of both."""
        from vllm import SamplingParams

        parameters = SamplingParams(
            max_tokens=probe.drawn,
            temperature=0,
            prompt_logprobs=0,
            logprobs=0,
            ignore_eos=True,
            detokenize=False,
        )
        with _random_numbers_kept():
            output = self._llm.generate([_tokens(probe.prompt)], [parameters], use_tqdm=False)[0]
        continuation = list(output.outputs[0].token_ids)
        read = _logprobs(probe.prompt[1:], output.prompt_logprobs[1:])
        return continuation, read + _logprobs(continuation, output.outputs[0].logprobs)


def _tokens(prompt: Sequence[int]) -> dict[str, list[int]]:
    return {"prompt_token_ids": list(prompt)}


def _logprobs(tokens: Sequence[int], positions: Sequence[Any]) -> list[float]:
    """The log-probability of each token out of vLLM's mappings, one per position."""
    return [float(position[token].logprob) for token, position in zip(tokens, positions, strict=True)]


def _repack_embeddings(model: torch.nn.Module) -> None:
    """Let embeddings and output heads pack their weights again.

    A head whose weight is the embedding's gets nothing by its own name, so `reload_weights` passes it over,
    and on a CPU it would go on with a packed copy of the old weight. Elsewhere this does nothing.
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

    for module in model.modules():
        if isinstance(module, VocabParallelEmbedding):
            module.quant_method.process_weights_after_loading(module)


def _arguments(
    folder: Path, spec: VllmSpec, context: int, beside_trainer: bool, sleeps: bool
) -> dict[str, Any]:
    """vLLM's `EngineArgs`, the spec's `options` over our defaults."""
    gpu = torch.cuda.is_available()
    _check_options(spec)
    arguments: dict[str, Any] = {
        "model": str(folder),
        "skip_tokenizer_init": True,  # it is given tokens and asked for tokens
        "generation_config": "vllm",  # no defaults from the checkpoint, which might cut the distribution
        "dtype": spec.dtype if spec.dtype != "auto" else "bfloat16" if gpu else "float32",
        "max_model_len": context,
        "max_num_seqs": spec.max_sequences,
        "tensor_parallel_size": spec.tensor_parallel,
        "logprobs_mode": "processed_logprobs",  # of the distribution that is drawn from
        "enable_sleep_mode": sleeps,
        "seed": 0,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        # Random weights: one that the policy's do not reach shows in the first probe, and not steps later.
        "load_format": "dummy" if beside_trainer else "auto",
    }
    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        arguments["distributed_executor_backend"] = "external_launcher"
    arguments |= _gpu_arguments(spec) if gpu else _cpu_arguments(folder, spec, context)
    return arguments | spec.options


def _gpu_arguments(spec: VllmSpec) -> dict[str, Any]:
    return {
        "gpu_memory_utilization": spec.memory,
        "enforce_eager": spec.eager,
        # vLLM sets memory aside for a pass over this many tokens; its default is meant for a GPU of its own.
        "max_num_batched_tokens": max(4096, spec.max_sequences),
    }


def _cpu_arguments(folder: Path, spec: VllmSpec, context: int) -> dict[str, Any]:
    return {
        "kv_cache_memory_bytes": _cache_bytes(folder, spec, context),
        "block_size": _CPU_BLOCK,
        "enforce_eager": True,  # compiling takes half a minute and makes it no faster
        # vLLM 0.29 cannot read a prompt in parts on a CPU where requests have seeds.
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(context, 8192, spec.max_sequences),
    }


def _cache_bytes(folder: Path, spec: VllmSpec, context: int) -> int:
    """What `cache_gb` allows, and no more than `max_sequences` whole contexts need: it is all written to."""
    allowed = int(spec.cache_gb * 2**30)
    values = cache_values_per_token(read_config(folder))
    if values is None:
        return allowed
    blocks = spec.max_sequences * -(-context // _CPU_BLOCK) + 1  # vLLM keeps one block empty
    return min(allowed, blocks * _CPU_BLOCK * values * (2 if spec.dtype in ("bfloat16", "float16") else 4))


def _check_options(spec: VllmSpec) -> None:
    from vllm.engine.arg_utils import EngineArgs

    known = {field.name for field in fields(EngineArgs)}
    for name in spec.options:
        if name in _OURS:
            raise UsageError(f"`options.{name}` of the vLLM engine is set by r1pipe itself. Leave it out.")
        if name not in known:
            raise UsageError(f"vLLM has no argument `{name}`{meant(name, known)}. Mend it in `options`.")


def _start(arguments: dict[str, Any]) -> Any:
    """A `vllm.LLM` in this process."""
    from vllm import LLM

    try:
        return LLM(**arguments)
    except (ValueError, TypeError, NotImplementedError, AssertionError) as error:
        if _speaks_of_memory(error):
            raise
        raise UsageError(
            f"vLLM cannot serve {arguments['model']}: {_first_words(error)} "
            "Change the engine's fields accordingly, or write `engine: transformers`."
        ) from error


def _speaks_of_memory(error: Exception) -> bool:
    words = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "memory" in words or "kv cache" in words


def _first_words(error: Exception) -> str:
    return " ".join(str(error).split())[:400]


@contextmanager
def _memory_errors_explained(spec: VllmSpec) -> Iterator[None]:
    try:
        yield
    except (
        ValueError,
        RuntimeError,
        MemoryError,
        AssertionError,
    ) as error:  # torch's OutOfMemoryError is a RuntimeError
        if not _speaks_of_memory(error):
            raise
        field = f"memory: {spec.memory}" if torch.cuda.is_available() else f"cache_gb: {spec.cache_gb}"
        raise EnvironmentUnfit(
            f"The memory is too small for vLLM: {_first_words(error)} Raise `{field}` of the engine if "
            f"there is more, else lower `max_sequences: {spec.max_sequences}` or `max_new_tokens`."
        ) from error


@contextmanager
def _this_process_kept() -> Iterator[None]:
    """What vLLM needs before it is imported; and what it changes in the process is put back after its start.

    It sets all seeds, forbids torch's number of threads to be changed, and puts libraries into LD_PRELOAD,
    which every child process would inherit.
    """
    os.environ.update(VLLM_NO_USAGE_STATS="1", DO_NOT_TRACK="1", VLLM_ENABLE_V1_MULTIPROCESSING="0")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    environment = dict(os.environ)
    set_num_threads, threads = torch.set_num_threads, torch.get_num_threads()
    try:
        with _random_numbers_kept():
            yield
    finally:
        torch.set_num_threads = set_num_threads
        torch.set_num_threads(threads)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)


@contextmanager
def _random_numbers_kept() -> Iterator[None]:
    """Leave all generators as they were: on a CPU vLLM draws from torch's own beside the requests' seeds."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
