"""The live figures of a sampling: how much is accepted, how fast, at what cost, until when."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from r1pipe import jsonl
from r1pipe.measure.cost import Price
from r1pipe.measure.pace import Pace
from r1pipe.rollout.batching import Batch
from r1pipe.rollout.tally import Tally
from r1pipe.rollout.writers import Written
from r1pipe.text import now


class Meter:
    """Makes a row of metrics of each batch."""

    def __init__(self, price: Price | None, metrics: Path, limit: int | None) -> None:
        """`metrics` are the rows logged so far, whose costs count; `limit` is how many are to be kept."""
        self._price = price
        self._metrics = metrics
        self._limit = limit
        self._pace = Pace()
        self._spent: float | None = None

    @property
    def usd(self) -> float:
        """What all batches have cost that were logged, by this process and by those before it.

        Of a batch that a kill broke off all tokens that were kept are in it; its time is not known.
        """
        if self._spent is None:
            logged = []
            if self._metrics.exists():
                with jsonl.Journal(self._metrics) as journal:
                    logged = journal.rows()
            self._spent = sum(row.get("usd", 0.0) for row in logged)
        return self._spent

    def row(self, batch: Batch, accepted: Sequence[bool], total: Tally) -> dict[str, Any]:
        """The row of a batch; `accepted` says of each completion whether it alone may be kept, `total` counts
        all up to it."""
        rows = [row for _, row in batch.rows]
        judged = [row for row in rows if row["verdict"] != "unjudged"]
        return {
            "step": batch.step,
            "steps": batch.steps,
            "time": now(),
            "generated": total.generated,
            "accepted": total.accepted,
            "accuracy": sum(row["verdict"] == "pass" for row in judged) / len(judged) if judged else None,
            "acceptance": sum(accepted) / len(rows),
            "acceptance_by_task": {name: each.acceptance for name, each in total.by_task.items()},
            "acceptance_by_difficulty": {
                name: each.acceptance for name, each in sorted(total.by_difficulty.items())
            },
            "undecided": sum(row["verdict"] == "undecided" for row in rows) / len(rows),
            "mean_tokens": batch.tokens / len(rows),
            "truncated": sum(row["truncated"] for row in rows) / len(rows),
            **self._speed(batch, sum(accepted)),
            **self._cost(batch, total),
            **self._end(batch, sum(accepted), total),
        }

    def _speed(self, batch: Batch, accepted: int) -> dict[str, float]:
        """How fast a batch was made; of one that was only finished now, just how long that took."""
        if batch.written is None:
            return {}
        generation, opening = batch.written.seconds or 0.0, batch.written.opening
        seconds = max(batch.seconds - opening, 1e-9)
        # Judging goes on beside generation; this is what it adds.
        spent = {"seconds_generation": generation, "seconds_judging": max(0.0, seconds - generation)}
        if opening >= 0.1:
            spent["seconds_opening"] = opening
        if batch.written.again:
            spent["tokens_again"] = batch.written.again
        if batch.written.tokens < batch.tokens:
            return spent
        return {
            "tokens_per_second": batch.tokens / seconds,
            "accepted_per_second": accepted / seconds,
            **({"generation_tokens_per_second": batch.tokens / generation} if generation else {}),
            **spent,
        }

    def _cost(self, batch: Batch, total: Tally) -> dict[str, float | None]:
        if self._price is None:
            return {}
        before, written = self.usd, batch.written or Written(0)
        # What the journal held was made by a process that did not live to log this batch.
        cost = self._price.of(
            seconds=batch.seconds,
            prompt_tokens=written.prompt_tokens + batch.held_prompt_tokens,
            tokens=batch.tokens + written.again,
        )
        self._spent = before + cost
        return {"usd": cost, "usd_per_accepted": self._spent / total.accepted if total.accepted else None}

    def _end(self, batch: Batch, accepted: int, total: Tally) -> dict[str, float]:
        if batch.written is not None:
            self._pace.add(batch.seconds - batch.written.opening, len(batch.rows), accepted)
        wanted = None if self._limit is None else max(0, self._limit - total.accepted)
        eta = self._pace.eta(batch.total - batch.done, wanted)
        return {} if eta is None else {"eta": eta}
