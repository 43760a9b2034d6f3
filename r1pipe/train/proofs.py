"""Proofs that a training is what it should be, made before it starts and while its first step is taken.

Before the first update the policy is what sampled the completions, and the reference model as well. So the
ratio of probabilities is 1, KL is 0, and whatever differs is a fault: stale weights, another temperature,
dropout, tokens shifted by one, a mask that leaves out the EOS. Such a training runs and learns something
else; here it ends in its first minute with the reason. slime holds the first two in its tests, r1pipe in
every run.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn
from unicodedata import normalize

import torch
from trl import GRPOTrainer

from r1pipe.errors import RunFailed
from r1pipe.prompting import Template
from r1pipe.rollout import Rollout
from r1pipe.train.text import encode_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from r1pipe.train.grpo import Prompt

EXACT: Final = 1e-3
"""Largest difference of two log-probabilities that float32 may compute in another order: batch, padding,
cache. The tiny model's differ by 1e-5; a step that was taken at a learning rate of 1e-6 moves some by more
than this."""

LOOSE: Final = 0.1
"""Largest mean difference where bfloat16 or another engine is at work, which make 0.005 to 0.05; tokens
shifted by one or other weights make 1 and more."""

WRITTEN: Final = 0.5
"""Share of the completions that must hold the template's end of turn in their midst before the run is
stopped: a random model writes any token at times, one that ends its turns so does it nearly always."""

DECODED: Final = 64
"""Prompts that are decoded; all are measured."""

_OFF = "If this model cannot do better, set `guard.proofs: false`."


# --- Before anything starts


def prove_setup(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: "Sequence[Prompt]",
    *,
    template: Template,
    max_new_tokens: int,
    ends: Collection[int],
    say: Callable[[str], None],
) -> int | None:
    """Prove that prompts are whole and fit, and that what ends a turn ends a completion.

    `ends` are the tokens at which the engine stops. Returns the template's end of turn where it is not one of
    them; that is said, and may be meant. Raises `RunFailed` with what is wrong.
    """
    text = model.config.get_text_config()
    room = int(text.max_position_embeddings) - max_new_tokens
    for prompt in prompts:
        _prove_prompt(prompt, room, int(text.vocab_size), tokenizer.bos_token_id)
    for prompt in prompts[:: max(1, len(prompts) // DECODED)]:
        _prove_decoded(prompt, tokenizer)
    if tokenizer.eos_token_id not in ends:
        raise RunFailed(
            f"The engine stops at the tokens {sorted(ends)}, and the tokenizer's EOS is "
            f"{tokenizer.eos_token_id} ({tokenizer.eos_token!r}): no completion would end. Set `eos_token` "
            "in tokenizer_config.json."
        )
    if int(tokenizer.eos_token_id) >= int(text.vocab_size):
        raise RunFailed(
            f"The tokenizer's EOS is token {tokenizer.eos_token_id}, and the model has {text.vocab_size}: it "
            "can never be written. Start from a checkpoint whose model and tokenizer belong together."
        )
    return _prove_turn(model, tokenizer, ends, say) if template == "chat" else None


def same_vocabulary(policy: "PreTrainedModel", reference: "PreTrainedModel") -> None:
    """Raise `RunFailed` unless the reference model has the policy's vocabulary."""
    own, other = (int(each.config.get_text_config().vocab_size) for each in (policy, reference))
    if own != other:
        raise RunFailed(
            f"The reference model has a vocabulary of {other} tokens, the policy one of {own}: their "
            "probabilities cannot be compared. Take as a reference the checkpoint that the policy starts "
            "from, or set `kl: 0`."
        )


def end_of_turn(tokenizer: "PreTrainedTokenizerBase") -> int | None:
    """The special token that the chat template writes after an assistant's answer; None if it writes none."""
    answer = "an answer"
    turns = [{"role": "user", "content": "a question"}, {"role": "assistant", "content": answer}]
    text = str(tokenizer.apply_chat_template(turns, tokenize=False))
    after = text.rpartition(answer)[2].strip()
    special = {*tokenizer.all_special_ids, *getattr(tokenizer, "added_tokens_decoder", {})}
    ids = tokenizer(after, add_special_tokens=False)["input_ids"] if after else []
    return next((int(each) for each in ids if each in special), None)


def _prove_prompt(prompt: "Prompt", room: int, vocabulary: int, bos: int | None) -> None:
    ids = prompt.token_ids
    if len(ids) > room:
        raise RunFailed(
            f"Prompt {prompt.row} has {len(ids)} tokens, and the context leaves room for {room} beside "
            "`max_new_tokens`: it would be cut. Set `max_new_tokens` lower."
        )
    if bos is not None and ids[:2] == [bos, bos]:
        raise RunFailed(
            f"Prompt {prompt.row} begins with the BOS token twice, which no model was trained on. The chat "
            "template and the tokenizer both write it: take `add_bos_token` out of tokenizer_config.json."
        )
    if not ids or max(ids) >= vocabulary:
        raise RunFailed(
            f"Prompt {prompt.row} has {len(ids)} tokens, and the model knows only those under {vocabulary}. "
            "Start from a checkpoint whose model and tokenizer belong together."
        )


def _prove_decoded(prompt: "Prompt", tokenizer: "PreTrainedTokenizerBase") -> None:
    """The tokens are those of the text, and say what it says but for spaces, case and forms of a letter."""
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in prompt.token_ids:
        return  # what the tokenizer has no token for cannot come back
    decoded = str(tokenizer.decode(prompt.token_ids, skip_special_tokens=False))
    if tokenizer.bos_token and not prompt.text.startswith(tokenizer.bos_token):
        decoded = decoded.removeprefix(tokenizer.bos_token)
    if list(prompt.token_ids) != encode_prompt(tokenizer, prompt.text) or _bare(decoded) != _bare(
        prompt.text
    ):
        raise RunFailed(
            f"The tokens of prompt {prompt.row} say {decoded!r}, and it reads {prompt.text!r}. The tokenizer "
            "is not the one that made them, or loses what it reads: start from a checkpoint with its own."
        )


def _bare(text: str) -> str:
    return "".join(normalize("NFKC", text).casefold().split())


def _prove_turn(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    ends: Collection[int],
    say: Callable[[str], None],
) -> int | None:
    """A model that says it ends at the template's end of turn must be stopped there."""
    end = end_of_turn(tokenizer)
    if end is None or end in ends:
        return None
    token = tokenizer.convert_ids_to_tokens(end)
    generation = model.generation_config
    declared = generation.eos_token_id if generation is not None else None
    if end in (declared if isinstance(declared, list) else [declared]):
        raise RunFailed(
            f"The chat template and the model's generation_config.json end a turn in {token!r}, and the "
            f"engine does not stop there: completions would run on to `max_new_tokens`. Set `eos_token` in "
            f"tokenizer_config.json to {token!r}, or `template: r1-zero`."
        )
    say(
        f"The chat template ends a turn in {token!r}, completions end in {tokenizer.eos_token!r}: right for "
        "a policy that was trained to; else set `eos_token` in tokenizer_config.json."
    )
    return end


# --- Of the first step, as tensors


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far two sets of log-probabilities lie apart."""

    largest: float
    mean: float


def deviation(one: torch.Tensor, other: torch.Tensor, mask: torch.Tensor) -> Deviation:
    """|one - other| over the tokens that count, all [rows, tokens]; what is NaN in `other` is unknown."""
    apart = (one - other).abs()[mask.bool() & ~other.isnan()]
    if not len(apart):
        return Deviation(0.0, 0.0)
    # A NaN on the side of the trainer is as far apart as can be.
    apart = apart.nan_to_num(nan=torch.inf, posinf=torch.inf)
    return Deviation(float(apart.max()), float(apart.mean()))


def is_shifted(one: torch.Tensor, other: torch.Tensor, mask: torch.Tensor) -> bool:
    """Whether the two, [rows, tokens], agree much better when either is moved by one token."""
    both = mask[:, 1:] * mask[:, :-1]
    moved = (
        deviation(one[:, 1:], other[:, :-1], both).mean,
        deviation(one[:, :-1], other[:, 1:], both).mean,
    )
    return bool(both.any()) and min(moved) < 0.1 * deviation(one, other, mask).mean


def divergence(policy: torch.Tensor, reference: torch.Tensor, mask: torch.Tensor) -> float:
    """The mean of KL's estimate k3 over the tokens that count, as GRPO's loss takes it; all [rows, tokens].

    exp(r - p) - (r - p) - 1: DeepSeekMath (arXiv 2402.03300), equation 4.
    """
    apart = (reference - policy)[mask.bool()]
    return float((apart.exp() - apart - 1).mean()) if len(apart) else 0.0


def last_tokens(mask: torch.Tensor) -> torch.Tensor:
    """The place of the last token that counts in each row of `mask` [rows, tokens], -1 in an empty one:
    [rows]."""
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return (mask.bool() * places).amax(1) - 1


# --- Of the first step, as the trainer takes it


class FirstStep:
    """Looks at each micro-batch of a fresh training's first optimiser step; stops at what is wrong."""

    def __init__(
        self,
        *,
        exact: bool,
        say: Callable[[str], None],
        turn: int | None = None,
        whole_distribution: bool = True,
        eos_learnt: bool = True,
        clip: float = math.inf,
        by_sequence: bool = False,
    ) -> None:
        """`exact`: sampling and training compute in float32 with the same weights, so `EXACT` holds, else
        `LOOSE`.

        `turn` is the template's end of turn where completions do not end in it. `whole_distribution`:
        tokens are drawn without top_p and top_k, which training knows nothing of. `eos_learnt`: no option
        leaves tokens or rows out of the loss on purpose. `clip` is how far the ratio of new to old policy,
        a token's or with `by_sequence` a completion's, may leave 1.
        """
        self.exact = exact
        self._say = say
        self._turn = turn
        self._whole_distribution = whole_distribution
        self._eos_learnt = eos_learnt
        self._clip = clip
        self._by_sequence = by_sequence
        self._judged: dict[tuple[tuple[int, ...], tuple[int, ...]], Rollout] = {}
        self._passes: list[tuple[Mapping[str, Any], torch.Tensor]] = []
        self._seen: dict[str, Deviation] = {}
        self._kl: float | None = None
        self._finished = self._learnt = 0

    def generated(self, prompts: Sequence[Sequence[int]], rollouts: Sequence[Rollout]) -> None:
        """Take in what was generated, as it is judged."""
        for prompt, rollout in zip(prompts, rollouts, strict=True):
            self._judged[tuple(prompt), tuple(rollout.token_ids)] = rollout
        written = sum(self._turn in rollout.token_ids[:-1] for rollout in rollouts)
        if self._turn is not None and written >= WRITTEN * len(rollouts):
            raise RunFailed(
                f"{written} of {len(rollouts)} completions write the chat template's end of turn (token "
                f"{self._turn}) and go on: the engine does not stop there. Set `eos_token` in the model's "
                f"tokenizer_config.json to that token, or `template: r1-zero`. {_OFF}"
            )

    def forward(self, micro: Mapping[str, Any], logps: torch.Tensor) -> None:
        """Take in a micro-batch and the trainer's log-probabilities of it [rows, tokens], in the graph."""
        if logps.requires_grad:
            logps.retain_grad()
        self._passes.append((micro, logps))

    def check(self) -> None:
        """Look at the micro-batches whose backward pass is done. Raises `RunFailed` with the reason."""
        for micro, logps in self._passes:
            self._check(micro, logps.detach(), logps.grad)
        self._passes.clear()

    def _check(self, micro: Mapping[str, Any], logps: torch.Tensor, gradient: torch.Tensor | None) -> None:
        mask = micro["completion_mask"]
        finished = self._check_tokens(micro)
        if "sampling_per_token_logps" in micro and self._whole_distribution:
            self._compare("sampling", logps, micro["sampling_per_token_logps"], mask)
        if "old_per_token_logps" in micro:
            self._compare("the pass before the step", logps, micro["old_per_token_logps"], mask)
        if "ref_per_token_logps" in micro:
            self._compare("the reference model", logps, micro["ref_per_token_logps"], mask)
            kl = divergence(logps, micro["ref_per_token_logps"], mask)
            self._kl = max(self._kl or 0.0, kl)
        if self._eos_learnt and gradient is not None:
            finished &= self._unclipped(micro, logps)
            self._check_eos(gradient, mask, micro["advantages"], finished)

    def _unclipped(self, micro: Mapping[str, Any], logps: torch.Tensor) -> torch.Tensor:
        """Which rows [rows] have the ratio at their EOS well within the clip, so that the EOS has a gradient.

        An old policy's pass in bfloat16 rounds otherwise than the step does, and a clip may be narrower.
        """
        mask = micro["completion_mask"]
        apart = (logps - micro.get("old_per_token_logps", logps)) * mask
        if self._by_sequence:
            apart = (apart.sum(1) / mask.sum(1).clamp(min=1))[:, None].expand_as(apart)
        at_end = apart.gather(1, last_tokens(mask).clamp(min=0)[:, None])[:, 0]
        return at_end.expm1().abs() <= self._clip / 2

    def conclude(self) -> None:
        """Say what was proved."""
        said = [f"{name} differs by {worst.largest:.1g} at most" for name, worst in self._seen.items()]
        ratio = f"ratio 1 ({', '.join(said)})" if said else "ratio 1"
        kl = f", KL {self._kl:.1g}" if self._kl is not None else ""
        eos = (
            f"{self._finished} completions end in their EOS and {self._learnt} of them teach it"
            if self._finished
            else "no completion ended by itself, so nothing is known of the EOS"
        )
        self._say(f"First step: {ratio}{kl}, {eos}, no prompt cut.")

    def _check_tokens(self, micro: Mapping[str, Any]) -> torch.Tensor:
        """The tokens trained on are those that were judged; return which rows [rows] ended by themselves."""
        finished = []
        columns = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
        for prompt, prompt_mask, ids, mask in zip(*(micro[name] for name in columns), strict=True):
            asked, trained = tuple(prompt[prompt_mask.bool()].tolist()), tuple(ids[mask.bool()].tolist())
            rollout = self._judged.get((asked, trained))
            if trained and rollout is None:
                self._refuse(asked, trained)
            finished.append(rollout is not None and rollout.finish == "stop")
        self._finished += sum(finished)
        return torch.tensor(finished, device=micro["completion_mask"].device)

    def _refuse(self, asked: tuple[int, ...], trained: tuple[int, ...]) -> NoReturn:
        answers = [answer for prompt, answer in self._judged if prompt == asked]
        if not answers:
            what = "A prompt is not among those that were asked: it was cut or padded wrongly."
        elif any(answer[:-1] == trained for answer in answers):
            what = "The last token of a completion, its EOS, is masked: the policy would never learn to stop."
        else:
            what = "A completion is not among those that were judged: tokens were lost or moved."
        raise RunFailed(f"First step: {what} Take out what `trainer:` sets, and see whether it holds. {_OFF}")

    def _compare(self, name: str, logps: torch.Tensor, other: torch.Tensor, mask: torch.Tensor) -> None:
        found = deviation(logps, other, mask)
        before = self._seen.get(name, Deviation(0.0, 0.0))
        self._seen[name] = max(before, found, key=lambda each: each.largest)
        if (found.largest <= EXACT) if self.exact else (found.mean <= LOOSE):
            return
        allowed = f"at most {EXACT:g} in any" if self.exact else f"{LOOSE:g} in the mean"
        why = (
            "They agree when moved by one token."
            if is_shifted(logps, other, mask)
            else "The weights, the temperature or the dropout are not the same in both."
        )
        raise RunFailed(
            f"First step: the policy's log-probabilities and those of {name} differ by {found.mean:.2g} a "
            f"token, {found.largest:.2g} at most, where {allowed} is right before the first update. {why} "
            "Set `engine: transformers` and take out what `trainer:` sets, one after the other, to see which "
            f"it is. {_OFF}"
        )

    def _check_eos(
        self, gradient: torch.Tensor, mask: torch.Tensor, advantages: torch.Tensor, finished: torch.Tensor
    ) -> None:
        """The loss pulls on the EOS of every completion that ended and has an advantage, and on no padding.

        `finished` are the rows that ended and are not clipped.
        `gradient` is that of the loss by the log-probabilities [rows, tokens]; `advantages` are [rows], or
        [rows, tokens] where each token's is weighted. An EOS of probability p passes
        (1 - p) times its own on to its logit, so what is not zero here is learnt.
        """
        if bool((gradient[~mask.bool()] != 0).any()):
            raise RunFailed(
                "First step: the loss pulls on padding, which no completion has written. Take out what "
                f"`trainer:` sets, and see whether it holds. {_OFF}"
            )
        last = last_tokens(mask).clamp(min=0)[:, None]
        telling = finished & (advantages.reshape(len(mask), -1).expand_as(mask).gather(1, last)[:, 0] != 0)
        pulls = gradient.gather(1, last)[:, 0] != 0
        if bool((telling & ~pulls).any()):
            raise RunFailed(
                f"First step: in {int((telling & ~pulls).sum())} of {int(telling.sum())} completions that "
                "ended and have an advantage the EOS is not learnt: the policy would never learn when to "
                f"stop. Take out what `trainer:` sets, and see whether it holds. {_OFF}"
            )
        self._learnt += int(telling.sum())


class Proved(GRPOTrainer):
    """A GRPO trainer that shows the micro-batches of its first optimiser step to `first_step`."""

    first_step: FirstStep | None = None
    _shown: Mapping[str, Any] | None = None

    def _compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        self._shown = inputs
        loss: torch.Tensor = super()._compute_loss(model, inputs)
        self._shown = None
        return loss

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        result = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        if self.first_step is not None and self._shown is not None:
            self.first_step.forward(self._shown, result[0])
        return result

    def prove(self) -> None:
        """Look at what was computed; to be called after the backward passes of a `training_step`.

        A training that was resumed has no first step left to look at.
        """
        if self.first_step is not None and self.state.global_step == 0:
            self.first_step.check()
            self.first_step.conclude()
        self.first_step = None
