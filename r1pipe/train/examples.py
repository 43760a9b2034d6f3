"""Rows of a dataset as token sequences with a loss on the completion alone. Nothing here imports torch."""

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1pipe import jsonl
from r1pipe.prompting import OPEN_THINK, opens_thinking
from r1pipe.train.determinism import derive_seed, epochs_of
from r1pipe.train.text import encode_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""The label of a token that no loss is taken on."""


@dataclass(frozen=True, slots=True, init=False)
class Example:
    """A prompt and its completion; the completion ends in EOS, which is learnt like the rest of it."""

    packed: "array[int]"
    """The tokens in 4 bytes each; in a list they take 36, and every process holds all rows."""
    prompt_tokens: int

    def __init__(self, token_ids: Iterable[int], prompt_tokens: int) -> None:
        object.__setattr__(self, "packed", array("i", token_ids))
        object.__setattr__(self, "prompt_tokens", prompt_tokens)

    @property
    def length(self) -> int:
        """Tokens of both together."""
        return len(self.packed)

    @property
    def token_ids(self) -> list[int]:
        """The tokens of both together."""
        return self.packed.tolist()

    @property
    def labels(self) -> list[int]:
        """The tokens, with those of the prompt ignored."""
        return [IGNORED] * self.prompt_tokens + self.token_ids[self.prompt_tokens :]


@dataclass(slots=True)
class Examples:
    """What a dataset gave: examples to train on, and the rows that were set aside."""

    kept: list[Example] = field(default_factory=list)
    set_aside: list[dict[str, Any]] = field(default_factory=list)
    """Each with its `path`, its `line` (broken JSON) or `index` among the rows, the `reason`, the row; one
    that is too long with its `tokens`."""

    @property
    def too_long(self) -> list[int]:
        """The tokens of each row that was too long."""
        return [row["tokens"] for row in self.set_aside if "tokens" in row]

    def read(
        self,
        path: Path,
        tokenizer: "PreTrainedTokenizerBase",
        *,
        context: int | None = None,
        limit: int | None = None,
        seed: int = 0,
    ) -> None:
        """Add the rows of a dataset's folder or `.jsonl` file, or `limit` of them drawn by the seed.

        A row is `{"prompt", "completion"}`, both text and the prompt already rendered, or `{"messages"}`
        whose last one is the assistant's. A broken row, and one longer than `context` tokens where that is
        given, is set aside: a trace that is cut would teach to stop in the middle.
        """
        rows, bad = jsonl.read_rows(path)
        self.set_aside += [{"path": b.path, "line": b.line, "reason": b.reason, "row": b.text} for b in bad]
        usable = []
        for index, row in enumerate(rows):
            made, place = example(row, tokenizer), {"path": str(path), "index": index}
            if isinstance(made, str):
                self.set_aside.append({**place, "reason": made, "row": row})
            elif context is not None and made.length > context:
                reason = f"{made.length} tokens, and the context holds {context}"
                self.set_aside.append({**place, "reason": reason, "tokens": made.length, "row": row})
            else:
                usable.append(made)
        if limit is not None and limit < len(usable):
            drawn = islice(epochs_of(len(usable), derive_seed(seed, "limit")), limit)
            usable = [usable[index] for index in drawn]
        self.kept += usable


def example(row: Mapping[str, Any], tokenizer: "PreTrainedTokenizerBase") -> Example | str:
    """The row as an example, or in a few words why it cannot be one."""
    pair = _from_messages(row["messages"], tokenizer) if "messages" in row else _from_columns(row)
    if isinstance(pair, str):
        return pair
    prompt, completion = pair
    prompt_ids = encode_prompt(tokenizer, prompt)
    completion_ids = list(tokenizer(completion, add_special_tokens=False)["input_ids"])
    if completion_ids[-1:] != [tokenizer.eos_token_id]:
        completion_ids.append(tokenizer.eos_token_id)
    return Example(prompt_ids + completion_ids, len(prompt_ids))


def _from_columns(row: Mapping[str, Any]) -> tuple[str, str] | str:
    prompt, completion = row.get("prompt"), row.get("completion")
    if not isinstance(prompt, str) or not isinstance(completion, str):
        return "no text in 'prompt' and 'completion'"
    return (prompt, completion) if completion.strip() else "the completion is empty"


def _from_messages(messages: Any, tokenizer: "PreTrainedTokenizerBase") -> tuple[str, str] | str:
    if not isinstance(messages, list) or not all(_is_message(message) for message in messages):
        return "'messages' is not a list of {role, content}"
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        return "'messages' does not end in an assistant's answer"
    if not tokenizer.chat_template:
        return "the model's tokenizer has no chat template for 'messages'"
    completion = messages[-1]["content"]
    thinks = completion.lstrip().startswith(OPEN_THINK)
    prompt = tokenizer.apply_chat_template(
        messages[:-1], tokenize=False, add_generation_prompt=True, enable_thinking=thinks
    )
    if thinks and opens_thinking(prompt):  # or it would be opened twice
        completion = completion.lstrip().removeprefix(OPEN_THINK)
    return (str(prompt), completion) if completion.strip() else "the completion is empty"


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))


def reasons(set_aside: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many rows were set aside for each reason, without the particulars of a row."""
    counts: dict[str, int] = {}
    for row in set_aside:
        reason = "longer than the context" if "context holds" in row["reason"] else row["reason"]
        reason = reason.partition(" (")[0]
        counts[reason] = counts.get(reason, 0) + 1
    return counts
