"""The prompts of an RL training: which are asked, in which order, and what each was made from."""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from r1pipe.errors import UsageError
from r1pipe.measure.samples import SampleRow
from r1pipe.prompting import Template, opens_thinking
from r1pipe.rewards import AskedItem
from r1pipe.rollout import Engine, Sampling
from r1pipe.rollout.asking import Question, ask, judged_rows
from r1pipe.rollout.pass_rates import PassRate, Rates, distinct, key_of
from r1pipe.tasks import Item, Task, TaskSpec, mixture
from r1pipe.train import ranks
from r1pipe.train.determinism import derive_seed, epochs_of
from r1pipe.train.rollouts import Prompt
from r1pipe.train.text import decode_completions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from r1pipe.stage import Work


class TrainingPrompts:
    """The prompts of a whole training in the order they are asked, and what each was made from."""

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        template: Template,
        tokenizer: "PreTrainedTokenizerBase",
        *,
        count: int,
        seed: int,
        context: int,
        longest: int,
    ) -> None:
        """Render and tokenise `count` prompts, in an order that is a function of `seed`.

        One that leaves no room for a completion of `longest` tokens within the model's `context` is set
        aside. Raises `UsageError` when none is left.
        """
        self._needed = count
        self._seed = seed
        room = context - longest
        asked = ask(mixture(tasks, count, seed), template, tokenizer, room)
        self.questions = asked.questions
        """Those that can be asked, in order; after `fill` all that are."""
        # A prompt that comes several times is one that is set aside; a broken row has no id, but a place.
        self.set_aside = {
            row["id"] if "id" in row else f"{row['path']}:{row['line']}": row for row in asked.set_aside
        }
        self.left_out: dict[str, int] = {}
        """How many prompts were too easy or too hard, for the metrics."""
        if not self.questions:
            raise UsageError(
                f"All {len(self.set_aside)} prompts are too long: a context of {context} tokens less "
                f"max_new_tokens = {longest} leaves {room} for them. "
                "Set `max_new_tokens` lower, or start from a model with a longer context."
            )

    def leave_out(self, rates: Rates, say: Callable[[str], None]) -> None:
        """Ask only what the policy solves sometimes. Raises `UsageError` when that is nothing."""
        reasons = {key_of(each): rates.reason_against(each) for each in self.questions}
        left_out = [reason for reason in reasons.values() if reason is not None]
        self.questions = [each for each in self.questions if reasons[key_of(each)] is None]
        easy = sum(reason.startswith("too easy") for reason in left_out)
        hard = sum(reason.startswith("too hard") for reason in left_out)
        blind = len(left_out) - easy - hard
        self.left_out = {"too_easy": easy, "too_hard": hard, "never_decided": blind}
        told = f"{easy} are too easy, {hard} too hard" + (f", {blind} without any verdict" if blind else "")
        say(f"Of {len(reasons)} prompts, {told}; these are not asked.")
        if not self.questions:
            raise UsageError(
                f"The policy solves none of {len(reasons)} prompts as often as `pass_rate` wants: {told}. "
                "Take other tasks or another model, or loosen `pass_rate`."
            )

    def fill(self) -> None:
        """Ask again, in another order each time, until there are prompts for every step."""
        again = islice(epochs_of(len(self.questions), self._seed), self._needed - len(self.questions))
        self.questions = [*self.questions, *(self.questions[i] for i in again)]

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt."""
        return max(len(question.token_ids) for question in self.questions)

    @property
    def items(self) -> list[tuple[Task, Item]]:
        """What each prompt was made from."""
        return [(question.task, question.item) for question in self.questions]

    @property
    def prompts(self) -> list[Prompt]:
        """The prompts in the order they are asked."""
        return [Prompt(row, each.prompt, each.token_ids) for row, each in enumerate(self.questions)]

    def tried(self) -> list[AskedItem]:
        """All items, as the check of the rewards wants them."""
        return [AskedItem(each.task, each.item, opens_thinking(each.prompt)) for each in self.questions]

    def rows(self) -> list[dict[str, str]]:
        """What the policy was asked, in order, so that anybody can look for a problem in it."""
        return [{"task": task.name, "id": item.id, "question": item.question} for task, item in self.items]


def measure_pass_rates(
    bounds: PassRate,
    questions: Sequence[Question],
    engine: Engine,
    tokenizer: "PreTrainedTokenizerBase",
    sampling: Sampling,
    work: "Work",
    *,
    batch: int,
) -> Rates:
    """Ask the policy every question a few times, about `batch` completions at once; what all ranks found.

    Each rank asks its share, and writes in a journal of its own, so that a stage that was stopped measures on
    where it was.
    """

    def ask_these(pairs: Sequence[tuple[Question, int]]) -> list[SampleRow]:
        work.pause_point()
        seeds = [derive_seed(work.seed, "pass rate", *key_of(each), sample) for each, sample in pairs]
        rollouts = engine.generate([each.token_ids for each, _ in pairs], sampling, seeds=seeds)
        texts = decode_completions(tokenizer, [rollout.token_ids for rollout in rollouts])
        return judged_rows(
            [
                (each, sample, each.completion(text, len(rollout.token_ids), rollout.finish == "length"))
                for (each, sample), text, rollout in zip(pairs, texts, rollouts, strict=True)
            ]
        )

    share = distinct(questions)[work.rank or 0 :: ranks.count()]
    for done, total in _rates(bounds, work).measure(share, ask_these, batch=batch):
        work.progress(done, total, "prompts measured")
    engine.rest()
    ranks.barrier()
    return _rates(bounds, work)


def _rates(bounds: PassRate, work: "Work") -> Rates:
    """What all ranks have measured so far."""
    own = work.dir / f"pass-rates.{work.rank or 0}.jsonl"
    others = [path for path in sorted(work.dir.glob("pass-rates.*.jsonl")) if path != own]
    return Rates(own, bounds, others)
