"""On-policy distillation by TRL's trainer: a student answers itself, and learns the teacher's probabilities.

Agarwal et al. (arXiv 2306.13649). The paper of R1 does without: its students learn from finished traces
alone, and this is the ablation. What is added to `trl.DistillationTrainer`: completions come from our engine,
each drawn with a seed of its own, so that a resumed training draws what it would have drawn.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from transformers import AutoConfig, AutoModelForCausalLM
from trl import DistillationConfig, DistillationTrainer

from r1pipe.errors import UsageError
from r1pipe.rollout import Sampling
from r1pipe.rollout.local import TransformersEngine
from r1pipe.train.callbacks import Row, WorkCallback
from r1pipe.train.determinism import derive_seed
from r1pipe.train.running import FiniteTrainer, Trained, defaults, on_one_gpu, run
from r1pipe.train.text import open_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from r1pipe.stage import Work

Prompt = tuple[int, ...]
"""A prompt in tokens."""


def open_teacher(teacher: Path, *, longest: int) -> "PreTrainedModel":
    """The teacher, in float32. Raises `UsageError` where it does not read as many as `longest` tokens."""
    config = AutoConfig.from_pretrained(teacher).get_text_config()
    if config.max_position_embeddings < longest:
        raise UsageError(
            f"on_policy.teacher reads {config.max_position_embeddings:,} tokens, and a prompt with its "
            f"answer may have {longest:,}. Set `on_policy.max_new_tokens` or `max_length` lower."
        )
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(teacher, dtype=torch.float32)
    return model


def require_same_vocabulary(student: Path, teacher: Path) -> None:
    """Probabilities are compared token by token, so each has to mean the same to both.

    No weights are read. Raises `UsageError` where tokens or the numbers of outputs differ.
    """
    own, other = (open_tokenizer(each).get_vocab() for each in (student, teacher))
    if differing := sorted(token for token in {**own, **other} if own.get(token) != other.get(token)):
        token = differing[0]
        raise UsageError(
            f"on_policy.teacher has another vocabulary than the student: {len(differing):,} tokens differ, "
            f"e.g. {token!r} is {_place(own, token)} to the student and {_place(other, token)} to the "
            "teacher. Take a teacher of the student's family; or leave out `on_policy`, as learning from a "
            "teacher's traces needs no common vocabulary."
        )
    sizes = [
        int(AutoConfig.from_pretrained(each).get_text_config().vocab_size) for each in (student, teacher)
    ]
    if sizes[0] != sizes[1]:
        raise UsageError(
            f"on_policy.teacher has {sizes[1]:,} outputs and the student {sizes[0]:,}, for the same "
            f"{len(own):,} tokens; TRL compares them one by one. Widen the narrower model once, by "
            f"`model.resize_token_embeddings({max(sizes)})`, or leave out `on_policy`."
        )


def _place(vocabulary: Mapping[str, int], token: str) -> str:
    return f"number {vocabulary[token]}" if token in vocabulary else "unknown"


def train(
    student: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    teacher: "PreTrainedModel",
    prompts: Sequence[Prompt],
    options: Mapping[str, Any],
    work: "Work",
) -> Trained:
    """Train `student` in place, on one answer of its own to each of `prompts`, in their order.

    `options` are `DistillationConfig`'s fields; prompts are as many as all steps ask. Goes on from the newest
    whole checkpoint in `work.dir / "trainer"`. Raises `Interrupted` after a stop that was asked for,
    `RunFailed` when a number is no longer finite.
    """
    args = on_one_gpu(DistillationConfig(**(defaults(work) | {"shuffle_dataset": False} | dict(options))))
    trainer = OnPolicy(student, tokenizer, teacher, prompts, args)
    callback = WorkCallback(work, _row)
    weights = run(trainer, callback)
    return Trained(callback.headline, int(trainer.state.num_input_tokens_seen), weights)


class OnPolicy(FiniteTrainer, DistillationTrainer):
    """`trl.DistillationTrainer` whose answers come from our engine, and which stops at what is not finite."""

    def __init__(
        self,
        student: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        teacher: "PreTrainedModel",
        prompts: Sequence[Prompt],
        args: DistillationConfig,
    ) -> None:
        # TRL hands the column on as it is; it is the place of the prompt here, whose tokens are known.
        places = Dataset.from_dict({"prompt": [str(place) for place in range(len(prompts))]})
        super().__init__(
            model=student,
            teacher_model=teacher,
            args=args,
            train_dataset=places,
            processing_class=tokenizer,
        )
        self.prompts = prompts
        self.sampling = Sampling(args.max_completion_length, args.temperature, args.top_p, args.top_k)
        self.engine = TransformersEngine(
            self.model, eos_id=int(tokenizer.eos_token_id), pad_id=int(tokenizer.pad_token_id)
        )

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        self._places = [int(place) for place in prompts]
        return [list(self.prompts[place]) for place in self._places], None, {}

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], images: None, multimodal_fields: Mapping[str, Any], *_: Any
    ) -> list[list[int]]:
        # The prompts of all steps stand in one sequence, so a place is one answer's.
        seeds = [derive_seed(self.args.seed, "on-policy", place) for place in self._places]
        with self.accelerator.autocast():
            answers = self.engine.generate(prompt_ids, self.sampling, seeds=seeds)
        return [answer.token_ids for answer in answers]


def _row(logs: Row, seconds: float) -> Row:
    """A row of metrics from the trainer's logs."""
    return {
        "divergence": logs["loss"],
        "entropy": logs.get("entropy"),
        "length": logs.get("completions/mean_length"),
        "truncated": logs.get("completions/clipped_ratio"),
        "grad_norm": logs.get("grad_norm"),
        "learning_rate": logs.get("learning_rate"),
    }
