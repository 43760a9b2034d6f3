"""The server's engine for a policy that trains: its weights go through a folder that both sides see.

Before each rollout the first rank writes the weights there and asks vLLM's server to take them over, by the
routes that it opens in its dev mode. Three things keep rollouts from coming unnoticed from other weights: the
server starts from random ones, so that a weight which does not arrive shows in the first probe, as with vLLM
in process; each hand-over has a path of its own, so that no older file is read in its place; and the server
keeps the name of the last, which a restart or another training would have changed.
"""

import shlex
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from r1pipe.errors import R1pipeError, RunFailed, UsageError
from r1pipe.rollout.endpoint import HalfAnswer
from r1pipe.rollout.engine import Finished, Rollout, Sampling
from r1pipe.rollout.probe import TOLERANCE, Probe
from r1pipe.rollout.server import ServerEngine, read_choice, read_logprobs, read_token_ids
from r1pipe.rollout.specs import ServerSpec
from r1pipe.rollout.weights import plain_weights, write_weights
from r1pipe.train import ranks

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PolicyServerEngine(ServerEngine):
    """Samples from a server that takes over a policy's weights, and checks that it has."""

    tells_drawn = True

    probe_difference: float | None = None
    """Mean |difference| of the probe's log-probabilities after the last `sync`; None before the first."""

    def __init__(
        self, spec: ServerSpec, folder: Path, *, eos_id: int, context: int, policy: "PreTrainedModel"
    ) -> None:
        """Ask the server how it was started, and hand over the policy's weights at once.

        Raises as `ServerEngine` does; `UsageError` also for a server that was not started for a training.
        """
        assert spec.weights_dir is not None
        self._start = f"For `rl` start it by: `{start_command(spec, folder, context)}`"
        super().__init__(spec, folder, eos_id=eos_id, context=context, way=self._start)
        self._policy = policy
        self._probed = Probe.of(policy, context)
        self._weights_dir = Path(spec.weights_dir).expanduser().absolute()
        self._written: list[Path] = []
        """What this rank has handed over and not removed, the last at the end."""
        self._version = ""
        self._dtype = self._suited(
            self._ask("GET", "/server_info?config_format=json", None, "how it was started", _settings)
        )
        try:
            self.sync()
        except R1pipeError:
            self.close()
            raise

    @property
    def describes(self) -> str:
        """What it is, in a few words."""
        return f"{super().describes} and takes over the policy's weights from {self._weights_dir}"

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        seeds: Sequence[int],
        finished: Finished | None = None,
    ) -> list[Rollout]:
        """As `ServerEngine`; raises `RunFailed` also where the server has lost the policy's weights."""
        rollouts = super().generate(prompts, sampling, seeds=seeds, finished=finished)
        if (version := self._held()) != self._version:
            raise RunFailed(
                f"The server at {self._endpoint.address} answered from other weights than the policy's: it "
                f"holds {version!r}, and {self._version!r} was handed over last. It was started anew "
                "meanwhile, or another training uses it, which needs a server of its own. Run the same "
                f"command to go on. {self._start}"
            )
        return rollouts

    def sync(self) -> float | None:
        """Hand over the policy's present weights, by the first rank; each checks that they are in use.

        Returns the probe's difference. Raises `RunFailed` where they cannot be written or taken over, and
        where the two sides do not agree about the probe within `TOLERANCE`.
        """
        if ranks.first():
            self._written.append(self._weights_dir / f"policy-{uuid.uuid4().hex[:12]}")
            write_weights(self._policy, self._written[-1])
            self._take_over(self._written[-1])
        else:
            for _ in plain_weights(self._policy):  # where weights are sharded, all ranks gather them
                pass
        ranks.barrier()
        self._version = self._written[-1].name if self._written else self._held()
        self._check_probe()
        self._keep_last(1)
        return self.probe_difference

    def close(self) -> None:
        """Remove what was written; the server has read it, and starts without it."""
        self._keep_last(0)

    def _keep_last(self, count: int) -> None:
        while len(self._written) > count:
            shutil.rmtree(self._written.pop(0), ignore_errors=True)

    def _take_over(self, weights: Path) -> None:
        # Random weights were not read; from now on there is something to read.
        load = {"overrides": {"load_config": {"load_format": "safetensors"}}}
        self._rpc("update_config", load, "a format of weights")
        path = {"weights_path": str(weights)}
        self._rpc("reload_weights", path, f"taking over the weights in {weights}, which it must see there")
        self._ask("POST", "/reset_prefix_cache", None, "forgetting the prompts that it read", _done)
        version = {"new_version": weights.name}
        self._ask("POST", "/update_weight_version", version, "keeping the weights' name", _done)

    def _check_probe(self) -> None:
        asked = self._asked(Sampling(self._probed.drawn, temperature=0, logprobs=True))
        asked |= {"prompt": self._probed.prompt, "prompt_logprobs": 0, "stop_token_ids": []}
        told = self._ask("POST", "/v1/completions", asked, "a probe's log-probabilities", self._told)
        self.probe_difference, refused = self._probed.compared(self._policy, *told, self._dtype)
        if refused:
            raise RunFailed(f"The server at {self._endpoint.address} {refused} {self._start}")

    def _told(self, answer: Any) -> tuple[list[int], list[float]]:
        """The continuation of the probe, and the log-probabilities of both."""
        choice = read_choice(answer)
        continuation = read_token_ids(choice)
        try:
            positions = zip(self._probed.prompt[1:], choice["prompt_logprobs"][1:], strict=True)
            read = [float(position[str(token)]["logprob"]) for token, position in positions]
        except (KeyError, TypeError, ValueError):
            raise HalfAnswer("no log-probability for each token of the prompt") from None
        return continuation, read + read_logprobs(choice, len(continuation))

    def _held(self) -> str:
        """The name of the weights that the server holds."""
        return self._ask("GET", "/weight_info", None, "the name of its weights", _version)

    def _suited(self, settings: Mapping[str, str]) -> torch.dtype:
        """The server's dtype. Raises `UsageError` where it was not started as a training needs it."""
        own = _trained_in()
        finer = {_name(dtype): dtype for dtype, rounding in TOLERANCE.items() if rounding <= TOLERANCE[own]}
        needed = dict(_NEEDED)
        if settings["dtype"] not in finer:  # coarser than the policy's own passes
            needed["dtype"] = _name(own)
        wrong = [
            f"{_option(name)} is {settings[name]} and has to be {value}"
            for name, value in needed.items()
            if settings[name] != value
        ]
        if wrong:
            raise UsageError(
                f"The server at {self._endpoint.address} was not started for a training: {', '.join(wrong)}. "
                f"{self._start}"
            )
        return finer[settings["dtype"]]

    def _rpc(self, method: str, kwargs: Mapping[str, Any], about: str) -> None:
        """Have the server's workers do something."""
        self._ask("POST", "/collective_rpc", {"method": method, "kwargs": kwargs}, about, _done)


_NEEDED: Final = {
    "load_format": "dummy",  # random weights: one that does not arrive shows in the first probe
    "logprobs_mode": "processed_logprobs",  # of the distribution that is drawn from
}
"""How a server has to be started, whatever the machine."""


def start_command(spec: ServerSpec, folder: Path, context: int) -> str:
    """The command that starts a server for a training, on a machine like this one."""
    parts = ["vllm", "serve", str(folder.absolute())]
    parts += ["--host", str(spec.url.host), "--port", str(spec.url.port)]
    for name, value in {**_NEEDED, "dtype": _name(_trained_in()), "max_model_len": str(context)}.items():
        parts += [_option(name), value]
    if spec.model is not None:
        parts += ["--served-model-name", spec.model]
    if not torch.cuda.is_available():
        # As `vllm._cpu_arguments`: compiling gains nothing, and prompts cannot be read in parts.
        parts += ["--enforce-eager", "--no-enable-chunked-prefill"]
        parts += ["--max-num-batched-tokens", str(max(context, 8192))]
    key = f' --api-key "${spec.api_key_env}"' if spec.api_key_env else ""
    return f"VLLM_SERVER_DEV_MODE=1 {shlex.join(parts)}{key}"


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _trained_in() -> torch.dtype:
    """What the policy's passes compute in: see `train.running.defaults`."""
    return torch.bfloat16 if torch.cuda.is_available() else torch.float32


# --- Reading answers


def _done(answer: Any) -> None:
    if not isinstance(answer, dict) or answer.get("success") is False:
        raise HalfAnswer("it was not done")


def _version(answer: Any) -> str:
    if not isinstance(answer, dict) or not isinstance(answer.get("weight_version"), str):
        raise HalfAnswer("no name of weights in it")
    return str(answer["weight_version"])


def _settings(answer: Any) -> dict[str, str]:
    """Those settings of vLLM's that matter here."""
    try:
        config = answer["vllm_config"]
        model, load = config["model_config"], config["load_config"]
        return {
            "load_format": str(load["load_format"]),
            "logprobs_mode": str(model["logprobs_mode"]),
            "dtype": str(model["dtype"]).removeprefix("torch."),  # as torch writes it
        }
    except (KeyError, TypeError):
        raise HalfAnswer("no settings of vLLM 0.29 in it") from None
