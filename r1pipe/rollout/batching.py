"""The batches of a sampling: each taken from the journal as far as that holds it, else generated, judged and
journalled.

A batch is a stretch of a round, and who is in a round depends on verdicts alone. So a sampling that goes on
after a kill has the batches of one that was never disturbed, and makes no more than one of them again.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from r1pipe import jsonl
from r1pipe.measure.samples import SampleRow
from r1pipe.rollout.answers import Answers, JournalRow
from r1pipe.rollout.asking import Question, judged_rows
from r1pipe.rollout.engine import Sampling
from r1pipe.rollout.rounds import Pair, Rounds
from r1pipe.rollout.shards import Shard, ShardFolder
from r1pipe.rollout.tally import Tally
from r1pipe.rollout.writers import Writer, Written
from r1pipe.stage import Work
from r1pipe.text import now
from r1pipe.train.determinism import derive_seed
from r1pipe.verify.verdict import Mark


@dataclass(frozen=True, slots=True)
class Batch:
    """A stretch of the work that is done."""

    step: int
    """From 1, over all shards."""
    steps: int
    """As many as are known of: all that is left of the round, and the first rounds of later shards."""
    rows: list[tuple[Question, JournalRow]]
    opening: int
    """How many of them are of a first round."""
    done: int
    """Completions up to the end of it."""
    total: int
    """As many as are known of."""
    seconds: float
    """What it took, judging included."""
    written: Written | None
    """None for one that the journal held whole."""
    held_prompt_tokens: int
    """Of the prompts that the journal held answers to, by the tokenizer's count."""
    fresh: bool
    """Whether its row of metrics is still to be written."""

    @property
    def tokens(self) -> int:
        """Tokens of its completions."""
        return sum(row["tokens"] for _, row in self.rows)


@dataclass(frozen=True, slots=True)
class Drawing:
    """How completions are drawn and judged."""

    sampling: Sampling
    rounds: Rounds
    batch: int
    """Completions generated and judged before the next ones begin."""
    judge_again: int
    """How often an undecided verdict is asked for again."""


class Job:
    """A sampling under way: how far it is over all of its shards."""

    def __init__(
        self, folder: ShardFolder, shards: Sequence[Shard], drawing: Drawing, writer: Writer, work: Work
    ) -> None:
        self._folder = folder
        self._drawing = drawing
        self._writer = writer
        self._work = work
        self._logged = _logged(work)
        self._going_on = False
        self._step = self._done = 0
        self._later = list(shards)  # whose first rounds are still ahead

    def pass_over(self, shard: Shard, tally: Tally) -> None:
        """Count a shard that was finished before."""
        self._later.remove(shard)
        self._step += tally.batches
        self._done += tally.generated

    def batches(self, shard: Shard, accepted: Callable[[str], int]) -> Iterator[Batch]:
        """All batches of a shard in order; `accepted` is asked when all before have been taken in."""
        self._later.remove(shard)
        size = self._drawing.batch
        with jsonl.Journal(self._folder.journal(shard)) as journal:
            answers = Answers(journal, _key)
            rounds = self._drawing.rounds.of(shard.questions, accepted, shard.budget)
            for number, pairs in enumerate(rounds):
                for start in range(0, len(pairs), size):
                    batch = pairs[start : start + size]
                    yield self._batch(batch, answers, first=number == 0, left=len(pairs) - start - len(batch))

    def _batch(self, pairs: Sequence[Pair], answers: Answers, *, first: bool, left: int) -> Batch:
        """Make a batch whole; `left` pairs of the round come after it."""
        self._step += 1
        begun, written = time.monotonic(), None
        keys = [(question.item.id, sample) for question, sample in pairs]
        known = {place for place, key in enumerate(keys) if key in answers}
        held = [place for place in known if _was_answered(answers[keys[place]])]
        whole = len(known) == len(pairs)
        if not whole:
            self._work.pause_point()
        if not self._going_on and not (whole and self._step in self._logged):
            self._work.rewind(self._step - 1)
            self._going_on = True
        if not whole:
            seeds = [seed_of(self._work.seed, *pair) for pair in pairs]
            written = self._writer.write(
                pairs, self._drawing.sampling, seeds, lambda rows: self._keep(rows, answers), known
            )
        self._judge_again(pairs, keys, answers)
        made = cast(list[JournalRow], [answers[key] for key in keys])
        rows = [(question, row) for (question, _), row in zip(pairs, made, strict=True)]
        self._done += len(pairs)
        steps, completions = self._ahead(left)
        return Batch(
            self._step,
            self._step + steps,
            rows,
            len(pairs) if first else 0,
            self._done,
            self._done + completions,
            time.monotonic() - begun,
            written,
            sum(len(pairs[place][0].token_ids) for place in held),
            self._going_on,
        )

    def _keep(self, rows: Sequence[SampleRow], answers: Answers) -> None:
        origin = self._writer.origin
        engine = {
            "engine": origin.engine if origin else None,
            "engine_version": origin.version if origin else None,
        }
        made = now()
        answers.add({**row, **engine, "time": made} for row in rows)

    def _judge_again(self, pairs: Sequence[Pair], keys: Sequence[tuple[str, int]], answers: Answers) -> None:
        """Ask again for verdicts that a judge did not come to, a bounded number of times.

        The machine may have been busy, or a worker have died. What was cut off stays as it is, as that it is
        undecided is the task's own rule, and so does what a teacher would not answer.
        """
        for _ in range(self._drawing.judge_again):
            open_: list[tuple[Question, JournalRow]] = [
                (question, cast(JournalRow, answers[key]))
                for (question, _), key in zip(pairs, keys, strict=True)
            ]
            open_ = [each for each in open_ if _may_be_decided(each[1], self._drawing.judge_again)]
            if not open_:
                return
            again = judged_rows(
                [
                    (question, row["sample"], question.completion(row["completion"], row["tokens"]))
                    for question, row in open_
                ]
            )
            answers.replace(
                {**row, **new, "judged_again": row.get("judged_again", 0) + 1}
                for (_, row), new in zip(open_, again, strict=True)
            )

    def _ahead(self, left: int) -> tuple[int, int]:
        """(batches, completions) that are known to come: `left` of this round, the first of later shards."""
        firsts = [shard.opening(self._drawing.rounds) for shard in self._later]
        size = self._drawing.batch
        return sum(-(-count // size) for count in (left, *firsts)), left + sum(firsts)


def _logged(work: Work) -> set[int]:
    """The steps that have a row of metrics."""
    if not work.metrics.exists():
        return set()
    with jsonl.Journal(work.metrics) as journal:
        return {row["step"] for row in journal.rows()}


def seed_of(seed: int, question: Question, sample: int) -> int:
    """What a completion is drawn with: it depends on no other one, nor on the batch."""
    return derive_seed(seed, "sample", question.task.name, question.item.id, sample)


def _may_be_decided(row: JournalRow, times: int) -> bool:
    """Whether a judge may come to a verdict yet: there is a text, and it is whole."""
    judgeable = not row.get("refused") and not row["truncated"]
    return judgeable and row["verdict"] == Mark.UNDECIDED and row.get("judged_again", 0) < times


def _was_answered(row: Mapping[str, Any]) -> bool:
    """Whether somebody generated it: not the tasks themselves, and not who refused to."""
    return row.get("engine") is not None and not row.get("refused")


def _key(row: Mapping[str, Any]) -> tuple[str, int]:
    return row["problem_id"], row["sample"]
