"""One optimiser step of a GRPO training, cut into passes by tokens, with no pass that is not needed.

TRL cuts a step by rows and makes a call of the trainer for each part. Here one call is one step, and what
TRL logs for each part becomes one figure. The mismatch between engine and trainer is corrected in the pass
that is made anyway; where the engine's numbers are the trainer's, the old policy's pass is left out.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Final

import torch

from r1pipe.train import ranks
from r1pipe.train.micro_batches import SHARE, TOKEN_SHARE, Micro, cut, passes, telling_first
from r1pipe.train.mismatch import Ratio, ratio
from r1pipe.train.proofs import Proved
from r1pipe.train.running import FiniteTrainer
from r1pipe.train.settings import Settings


class Stepping(FiniteTrainer, Proved):
    """A GRPO trainer that cuts a step itself, and whose first one is proved."""

    settings: Settings
    exact: bool
    """Whether the engine's log-probabilities are the trainer's own: they need no correction."""
    old_is_sampled: bool = False
    """Whether they also stand for the old policy's, where steps share a rollout."""
    sampled: list[list[float]] | None = None
    """This generation's log-probabilities, by the engine."""
    spent: dict[str, float]
    """Seconds since the last row of metrics, by what they were spent on."""
    _present: Micro
    """What the loss is being computed of."""

    def training_step(
        self, model: torch.nn.Module, inputs: Any, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Forward and backward over the micro-batches of a step; return the loss of all of them."""
        model.train()
        prepared = self._prepare_inputs(inputs)
        began = {name: len(values) for name, values in self._metrics["train"].items()}
        micro_batches = self._cut(prepared)
        loss = torch.zeros((), device=self.accelerator.device)
        for i, micro in enumerate(micro_batches):
            # Gradients are summed here, and meet those of other processes once.
            self.accelerator.gradient_state._set_sync_gradients(i + 1 == len(micro_batches))
            with self._alone(model, last=i + 1 == len(micro_batches)):
                with self.compute_loss_context_manager():
                    part = self.compute_loss(model, micro)
                self.accelerator.backward(part)
            loss += part.detach()
        tokens = [float(micro["completion_mask"].sum()) for micro in micro_batches]
        self._merge(began, tokens)
        self._share_mismatch(sum(tokens))
        self._step += 1
        self._require_finite("loss", ranks.worst(loss.item()))
        self.prove()
        return loss

    @contextmanager
    def _alone(self, model: torch.nn.Module, *, last: bool) -> Iterator[None]:
        """Keep a gradient from being exchanged with other processes before the last micro-batch."""
        if last or self.accelerator.num_processes == 1:
            yield
        else:
            with self.accelerator.no_sync(model):
                yield

    def _cut(self, rows: Micro) -> list[Micro]:
        kept = len(rows["advantages"])
        if self._advantage_is_all():
            rows, kept = telling_first(rows)
        micro_batches = cut(rows, self.loss_type, self.settings.bounds, keep=kept)
        if self.accelerator.num_processes > 1:
            here = torch.tensor(len(micro_batches), device=self.accelerator.device)
            most = int(self.accelerator.gather(here[None]).max())
            micro_batches = cut(rows, self.loss_type, self.settings.bounds, keep=kept, count=most)
        return micro_batches

    def _advantage_is_all(self) -> bool:
        """Whether a completion without advantage pulls on nothing, so that it need not be computed."""
        others = self._entropy_bonus_enabled or self.top_entropy_quantile < 1 or self.aux_loss_enabled
        return self.beta == 0 and not others

    def _merge(self, began: Mapping[str, int], tokens: Sequence[float]) -> None:
        """Make one figure of those that TRL logged for each micro-batch, by the tokens of each."""
        for name, values in self._metrics["train"].items():
            fresh = values[began.get(name, 0) :]
            if len(fresh) == len(tokens) > 1:
                values[began.get(name, 0) :] = [_merged(name, fresh, tokens)]

    def _share_mismatch(self, tokens: float) -> None:
        """Make the step's mismatch that of all ranks, by the tokens of each; all ranks log it, or none."""
        metrics = self._metrics["train"]
        names = [name for name in _MISMATCH if name in metrics]
        if not names or not ranks.several():
            return
        told = ranks.each([tokens, *(metrics[name][-1] for name in names)])
        for place, name in enumerate(names, 1):
            metrics[name][-1] = _merged(name, [rank[place] for rank in told], [rank[0] for rank in told])

    def _compute_loss(self, model: torch.nn.Module, inputs: Micro) -> torch.Tensor:
        self._present = dict(inputs)
        bonus = self._entropy_weight()  # TRL may move it on within this call
        with ranks.ragged(self.accelerator):  # micro-batches have rows of their own number on every rank
            loss: torch.Tensor = super()._compute_loss(model, self._present)
        means = self._means(bonus)
        return (loss - means) * inputs[SHARE] + means * inputs[TOKEN_SHARE]

    def _entropy_weight(self) -> float:
        """What TRL is about to multiply the entropy by."""
        if not self._entropy_bonus_enabled:
            return 0.0
        held_back = self.use_adaptive_entropy and self._last_world_entropy > self.args.entropy_target
        return 0.0 if held_back else float(self.entropy_coef)

    def _means(self, bonus: float) -> torch.Tensor:
        """The part of TRL's present loss that is a mean over tokens, whatever the loss itself divides by."""
        entropies, mask, aux_loss = (
            self._present[name] for name in ("entropies", "entropy_mask", "aux_loss")
        )
        means = torch.zeros((), device=self.accelerator.device)
        if bonus:
            means = means - bonus * (entropies * mask).sum() / mask.sum().clamp(min=1)
        if aux_loss is not None:
            means = means + self.router_aux_loss_coef * aux_loss
        return means

    def get_high_entropy_mask(
        self, entropies: torch.Tensor, mask: torch.Tensor, threshold: float
    ) -> torch.Tensor:
        """As TRL's, the quantile being that of the micro-batch; the entropy bonus acts on these tokens."""
        chosen: torch.Tensor = super().get_high_entropy_mask(entropies, mask, threshold)
        self._present["entropy_mask"] = chosen
        return chosen

    # --- Log-probabilities

    def _get_per_token_logps_and_entropies(
        self,
        model: torch.nn.Module,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **others: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """As TRL's, [rows, logits_to_keep]; with gradients also the place where the mismatch is corrected.

        Without gradients these are the reference's or the old policy's log-probabilities of a whole
        generation, which TRL computes at its full padded width. `others` are inputs of vision models.
        """
        plain = not any(value is not None for value in others.values())
        if torch.is_grad_enabled() or batch_size is None or not plain:
            result: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None] = (
                super()._get_per_token_logps_and_entropies(
                    model, input_ids, attention_mask, logits_to_keep, batch_size, **others
                )
            )
            if torch.is_grad_enabled():
                self._hear(*result)
            return result
        if self.old_is_sampled and self.sampled is not None:
            # Once: the reference is asked for next, and with adapters it is the same object.
            sampled, self.sampled = self.sampled, None
            return _padded(sampled, logits_to_keep, input_ids.device), None, None
        # Ranks read in passes of their own number.
        with self.timed("logprobs"), ranks.gathered(model):
            return self._logps(model, input_ids, attention_mask, logits_to_keep), None, None

    def _hear(
        self, logps: torch.Tensor, entropies: torch.Tensor | None, aux_loss: torch.Tensor | None
    ) -> None:
        """Note what the pass over the present micro-batch gave, and correct the mismatch by it."""
        mask = self._present["completion_mask"]
        self._present |= {"entropies": entropies, "entropy_mask": mask, "aux_loss": aux_loss}
        if "sampling_per_token_logps" in self._present and not self.exact:
            self._correct(logps.detach())

    def _logps(
        self, model: torch.nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor, columns: int
    ) -> torch.Tensor:
        """Log-probabilities [rows, columns], completions of like length at a time, each at its own width."""
        logps = torch.zeros(input_ids.shape[0], columns, device=input_ids.device)
        prompt = input_ids.shape[1] - columns
        masks = {"prompt_mask": attention_mask[:, :prompt], "completion_mask": attention_mask[:, prompt:]}
        for rows in passes(masks, self.settings.bounds):
            # Prompts are padded on the left, so what is kept is one stretch.
            kept = attention_mask[rows].any(0).nonzero()
            first, last = int(kept[0]), max(int(kept[-1]), prompt) + 1
            ids, mask = input_ids[rows, first:last], attention_mask[rows, first:last]
            part, _, _ = super()._get_per_token_logps_and_entropies(model, ids, mask, last - prompt)
            logps[rows, : last - prompt] = part.to(logps.dtype)
        return logps

    def _correct(self, logps: torch.Tensor) -> None:
        """Weight this micro-batch's advantages by trainer / engine; TRL reads them after this pass.

        VESPO's own weight is a function of the ratio to what was sampled from, so TRL is given the ratio.
        The trainer's side is the policy that the completions were drawn from: the old one, which where there
        has been no update since is the present one, `logps` [rows, tokens].
        """
        micro = self._present
        trainer = micro.get("old_per_token_logps", logps)
        found = ratio(
            trainer,
            micro["sampling_per_token_logps"],
            micro["completion_mask"],
            self.settings.mismatch,
            self.settings.mismatch_bound,
        )
        if found.weights is not None and self.loss_type == "vespo":
            micro["importance_sampling_ratio"] = found.weights
        elif found.weights is not None:
            micro["advantages"] = micro["advantages"][:, None] * found.weights
        self._log_ratio(found)

    def _log_ratio(self, found: Ratio) -> None:
        figures = (found.difference, found.mean, found.largest, found.cut)
        for name, figure in zip(_MISMATCH, figures, strict=True):
            self._metrics["train"][name].append(figure)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        began = perf_counter()
        yield
        self.spent[what] += perf_counter() - began


_MISMATCH: Final = ("mismatch", "mismatch_ratio", "mismatch_ratio_max", "mismatch_cut")
"""The columns of a `Ratio`; TRL knows nothing of them."""


def _merged(name: str, values: Sequence[float], tokens: Sequence[float]) -> float:
    if name.endswith(("_max", "/max")):
        return max(values)
    if name.endswith(("_min", "/min")):
        return min(values)
    known = [(value, weight) for value, weight in zip(values, tokens, strict=True) if not math.isnan(value)]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if total else math.nan


def _padded(rows: Sequence[Sequence[float]], columns: int, device: torch.device) -> torch.Tensor:
    """[rows, columns], zeros after each row's end."""
    padded = torch.zeros(len(rows), columns)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = torch.tensor(row)
    return padded.to(device)
