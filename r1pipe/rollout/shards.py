"""The work of a sampling in shards: each prompt in one, by the hash of its problem's id.

    shards/
        plan.json       what is asked: the number of shards, a digest of the prompts and of how they are asked
        00003.jsonl     the journal of a shard that is being made: a line for each judged completion
        00003/          a finished shard: kept.jsonl, rejects.jsonl, and shard.json with what it took

A shard is finished by one rename, which is the mark that it is: nothing in it is ever made again. All of a
problem's completions are in one shard, so that what is chosen among them is chosen shard by shard, and memory
holds one.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from r1pipe import jsonl
from r1pipe.errors import Conflict
from r1pipe.rollout.asking import Question
from r1pipe.rollout.rounds import Rounds
from r1pipe.rollout.tally import Tally

PER_SHARD: Final = 20_000
"""Completions of a shard where a recipe names no number of shards: small jobs have one, and of long
completions some hundreds of megabytes are held."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A part of the prompts, which is sampled by itself."""

    number: int
    questions: Sequence[Question]
    """In the order in which they are asked."""
    budget: int | None
    """Its share of the completions that may be made in all."""

    def opening(self, rounds: Rounds) -> int:
        """Completions of its first round."""
        wanted = len(self.questions) * rounds.samples
        return wanted if self.budget is None else min(wanted, self.budget)


def shard_of(problem: str, shards: int) -> int:
    """The shard of a problem: a function of its id, the same on every machine and in every order."""
    return int.from_bytes(hashlib.sha256(problem.encode(errors="replace")).digest()[:8]) % shards


def cut(questions: Sequence[Question], rounds: Rounds, budget: int | None, shards: int | None) -> list[Shard]:
    """The shards that have prompts, in order; each gets a share of the budget by how many it has.

    Without `shards` there are as many as `PER_SHARD` makes of the first round.
    """
    count = shards or -(-len(questions) * rounds.samples // PER_SHARD)
    parts: list[list[Question]] = [[] for _ in range(count)]
    for question in questions:
        parts[shard_of(question.item.id, count)].append(question)
    shares: list[int | None] = [None] * count
    if budget is not None:
        before = 0
        for number, part in enumerate(parts):  # by rounding the running total, so that they add up
            shares[number] = budget * (before + len(part)) // len(questions) - budget * before // len(
                questions
            )
            before += len(part)
    return [
        Shard(number, part, shares[number])
        for number, part in enumerate(parts)
        if part and shares[number] != 0
    ]


class ShardFolder:
    """The shards of one sampling on the disk."""

    def __init__(self, path: Path, plan: dict[str, Any]) -> None:
        """`plan` is JSON, and says what is asked.

        Raises `Conflict` where other work lies.
        """
        self.path = path
        file = path / "plan.json"
        if file.exists() and (found := jsonl.loads(file.read_bytes())) != plan:
            other = ", ".join(key for key in plan if found.get(key) != plan[key])
            raise Conflict(
                f"'{path}' holds work on other prompts or by other options ({other}), begun by another "
                "version of r1pipe or put there by hand. Nothing of it is mixed in or lost: move the folder "
                "away, or give another output."
            )
        if not file.exists():
            jsonl.write_json(file, plan)

    def journal(self, shard: Shard) -> Path:
        """Where a shard's completions go as they come."""
        return self.path / f"{shard.number:05}.jsonl"

    def finished(self, shard: Shard) -> Tally | None:
        """What a finished shard holds; None for one that is not."""
        marker = self._folder(shard) / "shard.json"
        if not marker.exists():
            return None
        self.journal(shard).unlink(missing_ok=True)  # a kill may have come between the rename and this
        return Tally.model_validate(jsonl.loads(marker.read_bytes()))

    def finish(
        self, shard: Shard, kept: Iterable[jsonl.Row], rejected: Iterable[jsonl.Row], tally: Tally
    ) -> None:
        """Publish a shard whole, in one step; its journal, of which all rows are there now, goes."""
        beside, folder = self.path / f".{shard.number:05}.tmp", self._folder(shard)
        with jsonl.writing(folder):
            shutil.rmtree(beside, ignore_errors=True)
            jsonl.write_rows(beside / "kept.jsonl", kept)
            jsonl.write_rows(beside / "rejects.jsonl", rejected)
            jsonl.write_json(beside / "shard.json", tally.model_dump(mode="json"))
            os.rename(beside, folder)
            jsonl.fsync(self.path)
            self.journal(shard).unlink()

    def kept(self, shards: Iterable[Shard]) -> Iterator[jsonl.Row]:
        """The kept rows of finished shards, in order."""
        return self._rows(shards, "kept.jsonl")

    def rejected(self, shards: Iterable[Shard]) -> Iterator[jsonl.Row]:
        """The rejected rows of finished shards, in order."""
        return self._rows(shards, "rejects.jsonl")

    def _rows(self, shards: Iterable[Shard], name: str) -> Iterator[jsonl.Row]:
        for shard in shards:
            yield from jsonl.iter_rows(self._folder(shard) / name)

    def _folder(self, shard: Shard) -> Path:
        return self.path / f"{shard.number:05}"


def digest_of(questions: Sequence[Question]) -> str:
    """The digest of the prompts in their order, for the plan."""
    digest = hashlib.sha256()
    for each in questions:
        digest.update(jsonl.dumps([each.task.name, each.item.id, each.prompt]) + b"\n")
    return digest.hexdigest()
