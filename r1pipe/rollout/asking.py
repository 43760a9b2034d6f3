"""What is asked of a model: tasks' items as prompts in tokens, and the judged row of each completion."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from r1pipe.measure.samples import SampleRow, sample_row
from r1pipe.prompting import Template, opens_thinking, render
from r1pipe.tasks import Item, Task, judge_all
from r1pipe.train.text import encode_prompt
from r1pipe.verify.verdict import Completion

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Question:
    """One item, rendered."""

    task: Task
    item: Item
    prompt: str
    token_ids: list[int]

    def judged(self, sample: int, text: str, *, tokens: int, truncated: bool = False) -> SampleRow:
        """The row of one completion of `tokens` tokens, its EOS included, with the task's verdict on it."""
        return judged_rows([(self, sample, self.completion(text, tokens, truncated))])[0]

    def completion(self, text: str, tokens: int, truncated: bool = False) -> Completion:
        """A text as an answer to this question."""
        return Completion(text, opens_thinking(self.prompt), truncated, tokens)


def judged_rows(given: Sequence[tuple[Question, int, Completion]]) -> list[SampleRow]:
    """The rows of (question, sample, completion), in order; judged side by side where judging waits."""
    verdicts = judge_all([(question.task, question.item, completion) for question, _, completion in given])
    return [
        sample_row(question.task.name, question.item, sample, completion, verdict)
        for (question, sample, completion), verdict in zip(given, verdicts, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """All that is asked, in order, and what could not be."""

    questions: list[Question]
    set_aside: list[dict[str, Any]]
    """Broken rows of the tasks' files and over-long prompts, each with its `reason`."""


def ask(
    items: Iterable[tuple[Task, Item]], template: Template, tokenizer: "PreTrainedTokenizerBase", room: int
) -> QuestionSet:
    """Render and tokenise the items; a prompt of more than `room` tokens is set aside."""
    asked = QuestionSet([], [])
    tasks: dict[int, Task] = {}
    for task, item in items:
        tasks[id(task)] = task
        prompt = render(template, item.question, reasoning=item.reasoning, tokenizer=tokenizer)
        token_ids = encode_prompt(tokenizer, prompt)
        if len(token_ids) <= room:
            asked.questions.append(Question(task, item, prompt, token_ids))
        else:
            reason = f"the prompt has {len(token_ids)} tokens, and there is room for {room}"
            asked.set_aside.append({"id": item.id, "task": task.name, "reason": reason, "prompt": prompt})
    for task in tasks.values():
        for bad in task.bad:
            row = {"path": bad.path, "line": bad.line, "reason": bad.reason, "row": bad.text}
            asked.set_aside.append({"task": task.name, **row})
    return asked
