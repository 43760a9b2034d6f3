"""Tokens per second of every engine for the same prompts and sampling, and how exact their numbers are.

    python bench/engines.py --run runs/tiny-r1

The model is the run's `zero`, at its trained lengths; the prompts are countdown problems in groups of eight,
as in RL. All engines take turns in one process with one thread, the server in another. What is not installed
is named as left out.
"""

import argparse
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

if __name__ == "__main__":  # run as a file, it stands beside its helpers and not above them
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.common import cpu_seconds, machine, machine_line, model_of, table, write_result
from r1pipe.rollout import Rollout, Sampling
from r1pipe.train.determinism import derive_seed

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Prompts = Sequence[Sequence[int]]
Generate = Callable[[Prompts, Sampling, Sequence[int]], list[Rollout]]
"""Prompts, sampling and a seed for each prompt: a rollout for each prompt."""

GROUP = 8
TOLD = {
    "generate": "transformers' `generate`",
    "batching": "transformers' continuous batching (`generate_batch`)",
    "whole": "r1pipe's loop with transformers' whole pass",
    "transformers": "r1pipe's loop with its lean pass (`engine: transformers`)",
    "vllm": "vLLM in this process (`engine: vllm`)",
    "vllm-server": "vLLM's server on the loopback (`engine: vllm-server`)",
}


# --- The engines


class Opened:
    """The model, and every engine that can be had here."""

    def __init__(self, folder: Path, sequences: int, names: Sequence[str], stack: ExitStack) -> None:
        """`sequences` is the most that is ever asked for at once."""
        from r1pipe.train import models

        self.folder, self.sequences, self.stack = folder, sequences, stack
        self.model, self.tokenizer = models.open_model(folder)
        self.model.eval()
        self.eos_id, self.pad_id = int(self.tokenizer.eos_token_id), int(self.tokenizer.pad_token_id)
        self.context = models.context_of(self.model)
        self.left_out: dict[str, str] = {}
        self.engines: dict[str, Generate] = {}
        for name in names:
            if name.startswith("vllm") and find_spec("vllm") is None:
                self.left_out[name] = "vLLM is not installed"
            else:
                self.engines[name] = getattr(self, f"_{name.replace('-', '_')}")()

    def ours(self, batch: int | None = None) -> Generate:
        """r1pipe's loop, so many rows at a time; as many as it likes where none is given."""
        from r1pipe.rollout.local import TransformersEngine

        given = {} if batch is None else {"batch": batch}
        engine = TransformersEngine(self.model, eos_id=self.eos_id, pad_id=self.pad_id, **given)
        return lambda prompts, sampling, seeds: engine.generate(prompts, sampling, seeds=seeds)

    def _transformers(self) -> Generate:
        return self.ours()

    def _whole(self) -> Generate:
        from r1pipe.rollout.decoder import WholeDecoder

        ours = self.ours()

        def generate(prompts: Prompts, sampling: Sampling, seeds: Sequence[int]) -> list[Rollout]:
            with patch("r1pipe.rollout.local.decoder_of", lambda model, length: WholeDecoder(model)):
                return ours(prompts, sampling, seeds)

        return generate

    def _generate(self) -> Generate:
        import torch

        def generate(prompts: Prompts, sampling: Sampling, seeds: Sequence[int]) -> list[Rollout]:
            longest = max(map(len, prompts))
            ids = torch.tensor([[self.pad_id] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
            lengths = torch.tensor([len(prompt) for prompt in prompts])
            mask = (torch.arange(longest) >= (longest - lengths)[:, None]).long()
            torch.manual_seed(seeds[0])
            with torch.inference_mode():
                made = self.model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    generation_config=self._config(sampling),
                    return_dict_in_generate=True,
                    output_scores=sampling.logprobs,
                )
            drawn = made.sequences[:, longest:]
            rows: list[list[float]] | None = None
            if sampling.logprobs:
                scores = torch.stack(made.scores, 1).log_softmax(-1)  # [rows, tokens, vocabulary]
                rows = scores.gather(2, drawn[:, :, None])[:, :, 0].tolist()
            return [self._rollout(each, rows[i] if rows else None) for i, each in enumerate(drawn.tolist())]

        return generate

    def _batching(self) -> Generate:
        from transformers import ContinuousBatchingConfig

        def generate(prompts: Prompts, sampling: Sampling, seeds: Sequence[int]) -> list[Rollout]:
            # Left alone it takes nine tenths of the memory for its cache, and looks over all rows for each.
            pages = math.ceil((max(map(len, prompts)) + sampling.max_new_tokens) / _PAGE) + 1
            config = ContinuousBatchingConfig(
                page_size=_PAGE,
                num_blocks=pages * _ROWS,
                max_batch_tokens=_BATCH_TOKENS,
                max_requests_per_batch=_ROWS,
                return_logprobs=sampling.logprobs,
                seed=seeds[0] % 2**32,
            )
            made = self.model.generate_batch(
                [list(prompt) for prompt in prompts],
                generation_config=self._config(sampling),
                continuous_batching_config=config,
            )
            if len(made) < len(prompts):
                raise SystemExit("Continuous batching gave fewer completions than it was asked for.")
            return [
                self._rollout(each.generated_tokens, each.logprobs if sampling.logprobs else None)
                for each in made.values()
            ]

        return generate

    def _vllm(self) -> Generate:
        from r1pipe.rollout.specs import VllmSpec
        from r1pipe.rollout.vllm import VllmEngine

        spec = VllmSpec(max_sequences=self.sequences)
        engine = VllmEngine(self.folder, spec, eos_id=self.eos_id, context=self.context)
        self.stack.callback(engine.close)
        return lambda prompts, sampling, seeds: engine.generate(prompts, sampling, seeds=seeds)

    def _vllm_server(self) -> Generate:
        from r1pipe.rollout.server import ServerEngine
        from r1pipe.rollout.specs import ServerSpec

        url = self.stack.enter_context(_served(self.folder, self.context, self.sequences))
        spec = ServerSpec.model_validate({"url": url, "retries": 12, "concurrency": self.sequences})
        engine = ServerEngine(spec, self.folder, eos_id=self.eos_id, context=self.context)
        self.stack.callback(engine.close)
        return lambda prompts, sampling, seeds: engine.generate(prompts, sampling, seeds=seeds)

    def _config(self, sampling: Sampling) -> Any:
        from transformers import GenerationConfig

        return GenerationConfig(
            max_new_tokens=sampling.max_new_tokens,
            do_sample=True,
            temperature=sampling.temperature,
            top_k=0,
            top_p=1.0,
            eos_token_id=self.eos_id,
            pad_token_id=self.pad_id,
        )

    def _rollout(self, ids: list[int], logprobs: list[float] | None) -> Rollout:
        end = ids.index(self.eos_id) + 1 if self.eos_id in ids else len(ids)
        finish: Any = "stop" if ids[end - 1] == self.eos_id else "length"
        return Rollout(ids[:end], finish, None if logprobs is None else logprobs[:end])


_PAGE, _ROWS, _BATCH_TOKENS = 64, 64, 1024
"""Of continuous batching: tokens in a page of its cache, rows at a time, tokens of a pass."""


@contextmanager
def _served(folder: Path, context: int, sequences: int) -> Iterator[str]:
    """vLLM's own server on the loopback, as `engine: vllm` sets up vLLM; its address."""
    with closing(socket.create_server(("127.0.0.1", 0))) as held:
        port = held.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--enforce-eager", "--dtype", "float32"]
    command += ["--max-model-len", str(context), "--max-num-seqs", str(sequences), "--block-size", "32"]
    command += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", str(max(8192, context))]
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    environment |= {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    with subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.DEVNULL) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


# --- Measuring


def timed(generate: Generate, prompts: Prompts, sampling: Sampling, seeds: Sequence[int]) -> dict[str, float]:
    """One generation: its tokens, its seconds, and the processor's seconds of all processes together."""
    began, cpu_began = time.perf_counter(), cpu_seconds()
    rollouts = generate(prompts, sampling, seeds)
    seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu_began
    return {"tokens": sum(len(each.token_ids) for each in rollouts), "seconds": seconds, "cpu_seconds": cpu}


def in_turn(
    engines: Mapping[str, Generate], prompts: Prompts, sampling: Sampling, rounds: int
) -> dict[str, dict[str, float]]:
    """Medians over the rounds of each engine's tokens per second; in each round all get the same seeds."""
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in engines}
    for turn in range(rounds):
        seeds = [derive_seed("bench", turn, place) for place in range(len(prompts))]
        for name, generate in engines.items():
            measured[name].append(timed(generate, prompts, sampling, seeds))
    return {name: pace(each, len(prompts)) for name, each in measured.items()}


def pace(measured: Sequence[Mapping[str, float]], rows: int) -> dict[str, float]:
    """The medians of several generations of so many rows."""
    return {
        "tokens_per_second": median(each["tokens"] / each["seconds"] for each in measured),
        # A clock of hundredths may not have moved.
        "tokens_per_cpu_second": median(each["tokens"] / max(each["cpu_seconds"], 0.01) for each in measured),
        "length": fmean(each["tokens"] for each in measured) / rows,
    }


def mismatch(model: "PreTrainedModel", prompts: Prompts, rollouts: Sequence[Rollout]) -> dict[str, float]:
    """|difference| of an engine's log-probabilities to those of a fresh pass in float32 over each rollout."""
    import torch

    differences = []
    for prompt, rollout in zip(prompts, rollouts, strict=True):
        ids = torch.tensor([[*prompt, *rollout.token_ids]])
        with torch.inference_mode():
            logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
        drawn = torch.tensor(rollout.token_ids)
        exact = logits.float().log_softmax(-1).gather(1, drawn[:, None])[:, 0]
        differences.append((exact - torch.tensor(rollout.logprobs)).abs())
    every = torch.cat(differences)
    return {"tokens": len(every), "mean": float(every.mean()), "largest": float(every.max())}


def questions(tokenizer: Any, count: int) -> list[list[int]]:
    """`count` countdown prompts in tokens, each eight times in a row."""
    from r1pipe.rollout.asking import ask
    from r1pipe.tasks import mixture, task_spec

    items = mixture([task_spec("countdown")], math.ceil(count / GROUP), derive_seed("bench", "engines"))
    asked = ask(items, "chat", tokenizer, 1 << 30).questions
    return [each.token_ids for each in asked for _ in range(GROUP)][:count]


# --- The page


def page(result: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    names, sizes = list(result["mismatch"]), list(result["sizes"])
    parts = [
        "# Engines",
        f"Completions of at most {result['max_new_tokens']} tokens at temperature 1, by a model at its "
        f"trained lengths, in groups of {GROUP}; {result['rounds']} times in turn, medians; one thread. Load "
        f"of the machine before: {result['load_before']:g}. {machine_line(result['machine'])}",
        "\n".join(f"- `{name}`: {TOLD[name]}." for name in names),
        *(f"`{name}` was left out: {said}." for name, said in result["left_out"].items()),
        "## Tokens per second",
        _paces(result, names, sizes, "tokens_per_second"),
        "Per second of the processor, of all processes together:",
        _paces(result, names, sizes, "tokens_per_cpu_second"),
        "Mean length: "
        + ", ".join(f"{name} {result['sizes'][sizes[-1]][name]['length']:.1f}" for name in names)
        + ".",
        "## Log-probabilities against a fresh pass in float32",
        table(
            ["", "tokens", "mean difference", "largest"],
            [
                [name, f"{each['tokens']}", f"{each['mean']:.2g}", f"{each['largest']:.2g}"]
                for name, each in result["mismatch"].items()
            ],
        ),
    ]
    if result["batches"]:
        parts += [
            "## Rows at a time",
            f"r1pipe's loop on {sizes[-1]} sequences.",
            table(
                ["rows", "tokens/s", "tokens per CPU second"],
                [
                    [rows, f"{each['tokens_per_second']:,.0f}", f"{each['tokens_per_cpu_second']:,.0f}"]
                    for rows, each in result["batches"].items()
                ],
            ),
        ]
    return "\n\n".join(parts) + "\n"


def _paces(result: Mapping[str, Any], names: Sequence[str], sizes: Sequence[str], key: str) -> str:
    rows = [[name, *(f"{result['sizes'][size][name][key]:,.0f}" for size in sizes)] for name in names]
    return table(["", *(f"{size} sequences" for size in sizes)], rows)


# --- The command


def main(arguments: Sequence[str] | None = None) -> int:
    """Open, measure, write."""
    chosen = _options().parse_args(arguments)
    if chosen.quick:
        chosen.sizes, chosen.rounds, chosen.batches, chosen.max_new_tokens = [2, 4], 1, [2], 12
    import torch

    torch.set_num_threads(1)
    sampling = Sampling(chosen.max_new_tokens)
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        opened = Opened(model_of(chosen.run, "zero"), max(chosen.sizes), chosen.engines, stack)
        prompts = questions(opened.tokenizer, max(chosen.sizes))
        # Also each one's first generation, in which libraries warm up.
        exactness = {}
        exact_sampling = Sampling(chosen.max_new_tokens, logprobs=True)
        few = prompts[: min(64, len(prompts))]
        for name, generate in opened.engines.items():
            rollouts = generate(few, exact_sampling, list(range(len(few))))
            exactness[name] = mismatch(opened.model, few, rollouts)
        sizes = {
            str(size): in_turn(opened.engines, prompts[:size], sampling, chosen.rounds)
            for size in chosen.sizes
        }
        loops = {str(batch): opened.ours(batch) for batch in chosen.batches}
        batches = in_turn(loops, prompts, sampling, chosen.rounds)
    result = {
        "rounds": chosen.rounds,
        "max_new_tokens": chosen.max_new_tokens,
        "sizes": sizes,
        "mismatch": exactness,
        "batches": batches,
        "left_out": opened.left_out,
        "load_before": round(load, 2),
        "machine": machine(),
    }
    write_result(chosen.out, result, page(result))
    return 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, default=Path("runs/tiny-r1"), help="a run whose zero is used")
    parser.add_argument("--engines", nargs="+", choices=list(TOLD), default=list(TOLD))
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 64, 256, 512], help="sequences at once")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-new-tokens", type=int, default=224)
    parser.add_argument(
        "--batches", type=int, nargs="*", default=[16, 32, 48, 64, 128, 256], help="rows of r1pipe's loop"
    )
    parser.add_argument("--quick", action="store_true", help="a few tokens, to see that it works")
    parser.add_argument("--out", type=Path, default=Path("bench/results/engines.json"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
