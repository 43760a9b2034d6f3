"""What the tiny world's base model is pretrained on, as a dataset that can be looked at."""

from typing import ClassVar

from pydantic import Field

from r1pipe import jsonl
from r1pipe.stage import Inputs, Outcome, StageConfig, Work
from r1pipe.world.corpus import Habits, Mix, documents

VERSION = 2
SUMMARY = "Write the corpus of the tiny world, from which a base model is pretrained."


class Config(StageConfig):
    """What the `corpus` stage reads from a recipe. No document is about a held-out problem."""

    makes: ClassVar = "dataset"

    documents: int = Field(default=70_000, ge=1)
    """How many documents are written, about 53 tokens each."""
    mix: Mix = Mix()
    """Shares of the kinds of documents: `sums`, `drills`, `single`, `short`, `search` and `plain`."""
    habits: Habits = Habits()
    """How documents are written: how well the first attempt is guessed, how many are made, how words mix."""


def run(config: Config, inputs: Inputs, work: Work) -> Outcome:
    """Write the documents; a stopped stage begins anew, since all of them take seconds."""
    kinds: dict[str, int] = {}
    tokens = 0
    rows = []
    for row in documents(config.documents, work.seed, config.mix, config.habits):
        kinds[row["kind"]] = kinds.get(row["kind"], 0) + 1
        tokens += row["text"].count(" ") + 1  # a word is a token
        rows.append(row)
    folder = work.dir / "published"
    jsonl.write_shards(folder, rows, rows_per_shard=50_000)
    return Outcome("dataset", folder, {"rows": len(rows), "tokens": tokens, "kinds": kinds}, tokens=tokens)
