"""The tiny world's questions that need no thinking: copy, reverse, sort, greet.

They stand for the paper's non-reasoning data (section 2.3.3): pretraining taught them, RL on reasoning alone
neglects them, and the later stages bring them back. Each is judged by its own rule.
"""

from dataclasses import dataclass
from random import Random
from typing import ClassVar, Final, Literal

from r1pipe.tasks.base import Item, Split, Task, TruncatedRule, check_split, distinct, held_out, in_split
from r1pipe.tasks.spec import TaskSpec
from r1pipe.verify.verdict import Verdict, failed, passed
from r1pipe.world.words import NAMES, WORDS

KINDS: Final = ("copy", "reverse", "sort", "greet")
ONE_PASS: Final = 400
"""Items given when no count is asked for: there are too many documents to go through them all."""
LARGEST_SORTED: Final = 12


@dataclass(frozen=True, slots=True)
class Document:
    """A question and the one right answer to it."""

    kind: str
    question: str
    answer: str

    @property
    def id(self) -> str:
        """The question as a name: `copy:red-blue`."""
        return self.question.replace(" ", ":", 1).replace(" ", "-")


def write_document(kind: str, rng: Random) -> Document:
    """A document of a kind over two to four words or numbers, or one to three names."""
    if kind == "greet":
        names = " ".join(rng.sample(NAMES, rng.randint(1, 3)))
        return Document(kind, f"greet {names}", f"hello {names}")
    length = rng.randint(2, 4)
    if kind == "sort":
        numbers = rng.sample(range(1, LARGEST_SORTED + 1), length)
        return Document(kind, f"sort {_join(numbers)}", _join(sorted(numbers)))
    words = rng.sample(WORDS, length)
    return Document(kind, f"{kind} {_join(words)}", _join(words if kind == "copy" else words[::-1]))


def draw_document(rng: Random, split: str = "seen") -> tuple[str, str]:
    """(question, answer) of a random document in a split."""
    document = _draw(rng.choice(KINDS), rng, split)
    return document.question, document.answer


def is_held_out(question: str) -> bool:
    """Whether a document may be in no corpus and in no training step."""
    return held_out(question)


def _draw(kind: str, rng: Random, split: str) -> Document:
    while True:  # one document in five is held out and the others are not, so a few draws are enough
        document = write_document(kind, rng)
        if in_split(is_held_out(document.question), split):
            return document


def _join(parts: list[str] | list[int]) -> str:
    return " ".join(map(str, parts))


@dataclass(frozen=True)
class Documents(Task):
    """The task; `gold` is the right answer's text."""

    name: ClassVar[str] = "documents"
    truncated: TruncatedRule = "fail"

    def items(self, split: str, count: int | None, seed: int) -> list[Item]:
        """Documents of the four kinds in turn.

        Raises:
            UsageError: no such split.
        """
        check_split(self, split)
        rngs = [Random(f"{seed}:document:{i}") for i in range(ONE_PASS if count is None else count)]
        drawn = distinct(lambda place, rng: _draw(KINDS[place % len(KINDS)], rng, split), rngs)
        return [self._item(document) for document in drawn]

    def _item(self, document: Document) -> Item:
        meta = {"kind": document.kind}
        return Item(document.id, document.question, document.answer, reasoning=False, meta=meta)

    def judge_answer(self, item: Item, answer: str) -> Verdict:
        """Pass when the answer's words are the right ones in the right order."""
        words = _join(answer.split())
        return passed(words) if words == item.gold else failed("wrong words", words)


class DocumentsSpec(TaskSpec):
    """The tiny world's questions that need no thinking: copy, reverse, sort, greet."""

    usual_split: ClassVar[Split] = "seen"

    name: Literal["documents"] = "documents"

    @property
    def answers_directly(self) -> bool:
        """They do."""
        return True

    def make(self) -> Documents:
        """The task."""
        return Documents(truncated=self.truncated)
