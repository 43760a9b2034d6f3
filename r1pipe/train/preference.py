"""A preference model: a sequence classifier with one label that says how good an answer is.

DeepSeek-R1 paper, section 2.3.4: the model of helpfulness sees the question and the final summary. What it
says is a logit, which has no bounds; `r1pipe.rewards` makes a reward of it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jinja2 import TemplateError
from transformers import AutoConfig, AutoModelForSequenceClassification

from r1pipe import machine
from r1pipe.errors import UsageError
from r1pipe.train.models import hush
from r1pipe.train.text import open_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class PreferenceModel:
    """Scores (question, answer) pairs; a `r1pipe.rewards.Scorer`."""

    def __init__(
        self, folder: Path, *, batch: int, max_tokens: int, device: Callable[[], torch.device]
    ) -> None:
        """Open the classifier in `folder`.

        `batch` pairs are scored at once; one of more than `max_tokens` tokens, or than the model can read, is
        cut at its end. `device` says where the policy is when a batch is scored, and the model goes there.

        Raises:
            UsageError: the folder holds no sequence classifier with one label, or only a part of one.
        """
        self.tokenizer = open_tokenizer(folder)
        self.model = _open_classifier(folder, self.tokenizer)
        self._device = device
        context = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        self._max_tokens = min(max_tokens, context or max_tokens)
        # The classifier reads the last token before the padding, which it has to know for that.
        self._batch = batch if self.tokenizer.pad_token_id is not None else 1

    @machine.full_memory_explained("Set `preference_batch` or `preference_max_tokens` lower.")
    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """The logit of each pair, in order."""
        self.model.to(self._device())
        rows = [self._encode(question, answer) for question, answer in pairs]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        logits = [0.0] * len(rows)
        for start in range(0, len(order), self._batch):
            places = order[start : start + self._batch]
            for place, logit in zip(places, self._score([rows[i] for i in places]), strict=True):
                logits[place] = logit
        return logits

    def _encode(self, question: str, answer: str) -> list[int]:
        """The tokens of a conversation of one turn, in the form the model was trained on if it says so."""
        text, special = f"{question}\n\n{answer}", True
        if self.tokenizer.chat_template:
            turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            try:
                text = str(self.tokenizer.apply_chat_template(turns, tokenize=False))
            except TemplateError as error:
                raise UsageError(
                    f"The preference model's chat template cannot be used: {type(error).__name__}: {error}. "
                    "Correct or remove its chat_template."
                ) from error
            special = not (self.tokenizer.bos_token and text.startswith(self.tokenizer.bos_token))
        encoded = self.tokenizer(
            text, add_special_tokens=special, truncation=True, max_length=self._max_tokens
        )
        return list(encoded["input_ids"])

    def _score(self, rows: Sequence[list[int]]) -> list[float]:
        """The logits of rows of like length, padded on the right: [rows, longest] in, [rows] out."""
        longest = max(map(len, rows))
        pad = self.tokenizer.pad_token_id or 0
        ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        device = self._device()
        with torch.no_grad():
            output = self.model(input_ids=ids.to(device), attention_mask=mask.to(device))  # logits: [rows, 1]
        return [float(logit) for logit in output.logits[:, 0].float().tolist()]


def _open_classifier(folder: Path, tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedModel":
    hush()
    try:
        config = AutoConfig.from_pretrained(folder)
        _require_one_label(folder, config.num_labels)
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            folder,
            dtype="auto" if torch.cuda.is_available() else torch.float32,
            use_safetensors=True,
            output_loading_info=True,
        )
    except ValueError as error:
        raise UsageError(
            f"The model in {folder} cannot be opened as a sequence classifier: {str(error).splitlines()[0]} "
            "Set `preference_model` to one."
        ) from error
    if loading["missing_keys"]:
        missing = ", ".join(sorted(loading["missing_keys"])[:3])
        raise UsageError(
            f"The model in {folder} has no weights for {missing}, so its scores would be random. Set "
            "`preference_model` to a trained sequence classifier."
        )
    for each in (model.config, model.config.get_text_config()):
        each.pad_token_id = tokenizer.pad_token_id
    model.eval()
    return model


def _require_one_label(folder: Path, labels: int) -> None:
    if labels != 1:
        raise UsageError(
            f"The model in {folder} has {labels} labels, and a preference model has one. Set "
            "`preference_model` to a sequence classifier trained on comparisons (num_labels: 1)."
        )
