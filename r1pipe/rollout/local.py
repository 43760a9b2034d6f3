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
from r1pipe.rollout.engine import Rollout, Sampling

_DROP_AT = 0.85
"""Share of unfinished rows below which the others are dropped: not at once, as a drop copies the cache."""


class TransformersEngine:
    """Samples from a model in this process; its weights are the policy's, so there is nothing to sync."""

    def __init__(self, model: PreTrainedModel, *, eos_id: int, pad_id: int, batch: int = 256) -> None:
        self.model = model
        self.eos_id = eos_id
        self.pad_id = pad_id
        self.batch = batch

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling, *, seed: int) -> list[Rollout]:
        """One rollout per prompt, in order. Rows are computed `batch` at a time.

        Raises `ValueError` on an empty prompt.
        """
        if any(len(prompt) == 0 for prompt in prompts):
            raise ValueError("a prompt has no tokens")
        generator = torch.Generator(device=self.model.device).manual_seed(seed)
        with _evaluating(self.model), torch.inference_mode():
            return [
                rollout
                for start in range(0, len(prompts), self.batch)
                for rollout in self._generate(prompts[start : start + self.batch], sampling, generator)
            ]

    def _generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, generator: torch.Generator
    ) -> list[Rollout]:
        logits, cache, padding = self._read(prompts)  # [rows, vocabulary], …, [rows, prompt] or None
        rows = torch.arange(len(prompts), device=logits.device)  # the prompt each computed row belongs to
        previous = torch.tensor([prompt[-1] for prompt in prompts], device=logits.device)
        positions = torch.tensor([len(prompt) for prompt in prompts], device=logits.device)
        finished = torch.zeros_like(rows, dtype=torch.bool)
        # What is drawn stays on the device, a column a step, until the end: a `tolist` would wait for it.
        tokens = torch.full((len(prompts), sampling.max_new_tokens), self.pad_id, device=logits.device)
        logprobs = torch.zeros(tokens.shape, device=logits.device) if sampling.logprobs else None
        for step in range(sampling.max_new_tokens):
            drawn, drawn_logprobs = draw(logits, previous, sampling, generator)  # [rows]
            drawn = drawn.masked_fill(finished, self.pad_id)
            tokens[rows, step] = drawn
            if logprobs is not None:
                logprobs[rows, step] = drawn_logprobs
            finished = finished | (drawn == self.eos_id)
            left = int((~finished).sum())
            if left == 0 or step + 1 == sampling.max_new_tokens:
                break
            if left < _DROP_AT * len(rows):
                kept = (~finished).nonzero()[:, 0]
                cache.keep(kept)
                rows, drawn, positions, finished = rows[kept], drawn[kept], positions[kept], finished[kept]
                padding = padding[kept] if padding is not None else None
            previous = drawn
            logits, padding = self._step(drawn, positions, cache, padding)
            positions = positions + 1
        return self._collect(tokens, logprobs)

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

    def _step(
        self, drawn: torch.Tensor, positions: torch.Tensor, cache: RoomyCache, padding: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """One more token for each computed row: its logits, and the mask grown by a column."""
        arguments: dict[str, Any] = {}
        if padding is not None:
            padding = torch.cat([padding, padding.new_ones(len(padding), 1)], dim=1)
            arguments = {"attention_mask": padding, "position_ids": positions[:, None]}
        output = self.model(input_ids=drawn[:, None], past_key_values=cache, use_cache=True, **arguments)
        return output.logits[:, -1], padding

    def _collect(self, tokens: torch.Tensor, logprobs: torch.Tensor | None) -> list[Rollout]:
        rollouts = []
        for i, row in enumerate(tokens.tolist()):
            stop = row.index(self.eos_id) + 1 if self.eos_id in row else len(row)
            rollouts.append(
                Rollout(
                    token_ids=row[:stop],
                    finish="stop" if row[stop - 1] == self.eos_id else "length",
                    logprobs=logprobs[i, :stop].tolist() if logprobs is not None else None,
                )
            )
        return rollouts


def draw(
    logits: torch.Tensor, previous: torch.Tensor, sampling: Sampling, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a token for each row of `logits` [rows, vocabulary]; return tokens and log-probabilities [rows].

    Sampling takes the argmax of p / e with e exponential, which is a draw from p (the exponential race).
    """
    logits = logits.float()
    for before, banned in sampling.forbid_after.items():
        logits[:, banned] = logits[:, banned].masked_fill(previous == before, -torch.inf)
    if sampling.temperature == 0:
        drawn = logits.argmax(-1)
        return drawn, logits.log_softmax(-1).gather(1, drawn[:, None])[:, 0]
    logits = keep_likeliest(logits / sampling.temperature, sampling.top_k, sampling.top_p)
    probabilities = logits.softmax(-1)
    race = torch.empty_like(probabilities).exponential_(generator=generator)
    drawn = (probabilities / race).argmax(-1)
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
