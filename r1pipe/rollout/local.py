"""The engine that needs nothing but the model: batched sampling with `transformers`' own forward pass.

Transformers' `generate` computes finished rows until the last one is done. With groups of samples whose
lengths differ by a factor of five that is most of the work, so this loop drops a row soon after its EOS. A
prompt that stands several times in a batch (a group) is read once.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from r1pipe.rollout.cache import RoomyCache
from r1pipe.rollout.decoder import decoder_of
from r1pipe.rollout.engine import Finished, Rollout, Sampling

_DROP_AT = 0.85
"""Share of unfinished rows below which the others are dropped: not at once, as a drop copies the cache."""


class TransformersEngine:
    """Samples from a model in this process; its weights are the policy's, so there is nothing to sync."""

    name = "transformers"
    exact = True

    def __init__(self, model: PreTrainedModel, *, eos_id: int, pad_id: int, batch: int = 256) -> None:
        self.model = model
        self.eos_id = eos_id
        self.pad_id = pad_id
        self.batch = batch

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        seeds: Sequence[int],
        finished: Finished | None = None,
    ) -> list[Rollout]:
        """One rollout per prompt, in order. Rows are computed `batch` at a time.

        Raises `ValueError` on an empty prompt.
        """
        if any(len(prompt) == 0 for prompt in prompts):
            raise ValueError("a prompt has no tokens")
        rollouts: list[Rollout] = []
        with _evaluating(self.model), torch.inference_mode():
            for start in range(0, len(prompts), self.batch):
                end = start + self.batch
                rows = _Rows(start, len(prompts[start:end]), self.eos_id, finished)
                self._generate(prompts[start:end], sampling, seeds[start:end], rows)
                rollouts += rows.rollouts
        return rollouts

    def sync(self) -> float | None:
        """Nothing: the weights that are sampled from are the policy's."""
        return None

    def rest(self) -> None:
        """Nothing is held between calls."""

    def close(self) -> None:
        """Nothing is held that the policy does not hold."""

    def _generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int], done: "_Rows"
    ) -> None:
        logits, cache, padding = self._read(prompts)  # [rows, vocabulary], …, [rows, prompt] or None
        device = logits.device
        decode = decoder_of(self.model, max(map(len, prompts)) + sampling.max_new_tokens)
        rows = torch.arange(len(prompts), device=device)  # the prompt each computed row belongs to
        previous = torch.tensor([prompt[-1] for prompt in prompts], device=device)
        positions = torch.tensor([len(prompt) for prompt in prompts], device=device)
        ended = torch.zeros_like(rows, dtype=torch.bool)
        uniforms = uniforms_of(seeds, sampling).to(device)  # [rows, max_new_tokens]
        # What is drawn stays on the device, a column a step, until rows are dropped: a `tolist` waits for it.
        tokens = torch.full((len(prompts), sampling.max_new_tokens), self.pad_id, device=device)
        logprobs = torch.zeros(tokens.shape, device=device) if sampling.logprobs else None
        for step in range(sampling.max_new_tokens):
            drawn, drawn_logprobs = draw(logits, previous, sampling, uniforms[rows, step])  # [rows]
            drawn = drawn.masked_fill(ended, self.pad_id)
            tokens[rows, step] = drawn
            if logprobs is not None:
                logprobs[rows, step] = drawn_logprobs
            ended = ended | (drawn == self.eos_id)
            left = int((~ended).sum())
            if left == 0 or step + 1 == sampling.max_new_tokens:
                break
            if left < _DROP_AT * len(rows):
                done.take(rows[ended], tokens, logprobs)
                kept = (~ended).nonzero()[:, 0]
                cache.keep(kept)
                rows, drawn, positions, ended = rows[kept], drawn[kept], positions[kept], ended[kept]
                padding = padding[kept] if padding is not None else None
            previous = drawn
            if padding is not None:
                padding = torch.cat([padding, padding.new_ones(len(padding), 1)], dim=1)
            logits = decode(drawn, positions, cache, padding)
            positions = positions + 1
        done.take(rows, tokens, logprobs)

    def _read(self, prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, RoomyCache, torch.Tensor | None]:
        """Read the prompts, each distinct one once, padded on the left: next-token logits, cache, mask."""
        distinct = {tuple(prompt): None for prompt in prompts}
        index = {prompt: i for i, prompt in enumerate(distinct)}
        longest = max(map(len, distinct))
        device = self.model.device
        ids = torch.tensor([[self.pad_id] * (longest - len(p)) + list(p) for p in distinct], device=device)
        lengths = torch.tensor([len(p) for p in distinct], device=device)
        mask = (torch.arange(longest, device=device) >= (longest - lengths)[:, None]).long()
        padded = bool((mask == 0).any())
        cache = RoomyCache(self.model.config)
        arguments: dict[str, Any] = {}
        if padded:
            arguments = {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
        output = self.model(
            input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1, **arguments
        )
        repeat = torch.tensor([index[tuple(prompt)] for prompt in prompts], device=device)
        cache.keep(repeat)
        return output.logits[repeat, -1], cache, mask[repeat] if padded else None


class _Rows:
    """The rollouts of one batch, taken off the device as they end."""

    def __init__(self, start: int, count: int, eos_id: int, finished: Finished | None) -> None:
        self._start = start
        self._eos_id = eos_id
        self._finished = finished
        self._rollouts: list[Rollout | None] = [None] * count

    def take(self, rows: torch.Tensor, tokens: torch.Tensor, logprobs: torch.Tensor | None) -> None:
        """Make rollouts of these rows of `tokens` and `logprobs` [prompts, max_new_tokens]."""
        scores = logprobs[rows].tolist() if logprobs is not None else None
        for i, (row, ids) in enumerate(zip(rows.tolist(), tokens[rows].tolist(), strict=True)):
            end = ids.index(self._eos_id) + 1 if self._eos_id in ids else len(ids)
            rollout = self._rollouts[row] = Rollout(
                token_ids=ids[:end],
                finish="stop" if ids[end - 1] == self._eos_id else "length",
                logprobs=scores[i][:end] if scores is not None else None,
            )
            if self._finished is not None:
                self._finished(self._start + row, rollout)

    @property
    def rollouts(self) -> list[Rollout]:
        """All of them, once each was taken."""
        return [rollout for rollout in self._rollouts if rollout is not None]


def uniforms_of(seeds: Sequence[int], sampling: Sampling) -> torch.Tensor:
    """The number in [0, 1) that decides each token, [rows, max_new_tokens]: a stream of its own per seed."""
    if sampling.temperature == 0:
        return torch.zeros(len(seeds), sampling.max_new_tokens, dtype=torch.float64)
    generator = torch.Generator()
    rows = [
        torch.rand(sampling.max_new_tokens, dtype=torch.float64, generator=generator.manual_seed(seed))
        for seed in seeds
    ]
    return torch.stack(rows)


def draw(
    logits: torch.Tensor, previous: torch.Tensor, sampling: Sampling, uniforms: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a token for each row of `logits` [rows, vocabulary]; return tokens and log-probabilities [rows].

    A token is the place where the cumulated probabilities pass the row's number in `uniforms` [rows], which
    is a draw by the inverse of the distribution function: one number a token, whatever the vocabulary.
    """
    logits = logits.float()
    for before, banned in sampling.forbid_after.items():
        logits[:, banned] = logits[:, banned].masked_fill(previous == before, -torch.inf)
    if sampling.temperature == 0:
        drawn = logits.argmax(-1)
        return drawn, logits.log_softmax(-1).gather(1, drawn[:, None])[:, 0]
    logits = keep_likeliest(logits / sampling.temperature, sampling.top_k, sampling.top_p)
    probabilities = logits.softmax(-1)
    cumulated = probabilities.cumsum(-1, dtype=torch.float64)
    total = cumulated[:, -1]
    # Below the total, so that rounding cannot point past the last token that has a probability.
    passed = torch.minimum(uniforms * total, torch.nextafter(total, torch.zeros_like(total)))
    drawn = torch.searchsorted(cumulated, passed[:, None], right=True)[:, 0]
    chosen = probabilities.gather(1, drawn[:, None])[:, 0]
    return drawn, chosen.log()


def keep_likeliest(logits: torch.Tensor, top_k: int, top_p: float) -> torch.Tensor:
    """Set to -inf what is outside the `top_k` likeliest tokens or the smallest set of probability `top_p`."""
    if 0 < top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k, dim=-1).values[:, -1:], -torch.inf)
    if top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)  # probability of all that is likelier
        outside = torch.zeros_like(logits, dtype=torch.bool).scatter(1, order, before >= top_p)
        logits = logits.masked_fill(outside, -torch.inf)
    return logits


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Dropout off while sampling, and on again after it if it was on."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
