"""The row of a trace: its ids, its parts, and the schema that it is described by."""

import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from r1pipe.curate import Drawn, PassRates, TraceRow, trace_row
from r1pipe.curate.traces import schema, validated
from r1pipe.measure.samples import SampleRow, sample_row
from r1pipe.tasks.base import Item
from r1pipe.verify.verdict import Completion, Verdict, failed, passed, undecided

PASSED = passed("30")
DRAWN = Drawn("zero v001-1f3a9c2e", "f" * 64, "vllm", "0.29.0", 0.6, 0.95, 0, 512, 7)


def sampled(verdict: Verdict = PASSED, **changes: Any) -> SampleRow:
    item = Item(changes.pop("problem", "p"), "5 * 6?", "30", difficulty=2.0)
    text = changes.pop("text", "5 * 6 = 30 </think> It is <answer> 30 </answer>")
    completion = Completion(text, opened=True, truncated=changes.pop("truncated", False), tokens=9)
    return sample_row("countdown", item, changes.pop("sample", 0), completion, verdict)


def trace(row: SampleRow | None = None, drawn: Drawn | None = DRAWN, **changes: Any) -> TraceRow:
    given = {"prompt": "5 * 6? <think>", "prompt_tokens": 4, "source": "model", "verifier": "math"}
    return trace_row(row or sampled(), drawn=drawn, **{**given, **changes})


def test_the_parts_of_a_completion() -> None:
    """The thinking and what comes after it; the answer is what was judged."""
    row = trace()
    assert (row["thinking"], row["response"]) == ("5 * 6 = 30", "It is <answer> 30 </answer>")
    assert (row["answer"], row["verdict"], row["finish_reason"], row["flags"]) == ("30", "pass", "stop", [])
    assert (row["engine"], row["engine_version"], row["seed"]) == ("vllm", "0.29.0", 7)


def test_a_completion_that_was_cut_off() -> None:
    """It has no response, and the flag says why."""
    row = trace(sampled(failed("truncated"), text="5 * 6 =", truncated=True))
    assert (row["thinking"], row["response"]) == ("5 * 6 =", "")
    assert (row["finish_reason"], row["flags"]) == ("length", ["truncated"])


def test_what_is_known_only_while_it_is_made_stays_out() -> None:
    """A line of the journal has the time and how often it was judged."""
    row = trace({**sampled(), "time": "2026-01-02", "judged_again": 1, "engine": "other"})  # type: ignore[typeddict-unknown-key]
    assert "time" not in row and "judged_again" not in row and row["engine"] == "vllm"


def test_a_trace_id_is_that_of_a_draw() -> None:
    """The problem, its prompt, the sample and every option of the sampling count; text and engine do not."""
    same = [
        trace(),
        trace(sampled(text="another")),
        trace(source="rewritten"),
        trace(drawn=replace(DRAWN, engine="transformers", engine_version=None, model="elsewhere")),
    ]
    others = [
        trace(sampled(sample=1)),
        trace(sampled(problem="q")),
        trace(prompt="another template: 1 + 1?"),
        *(
            trace(drawn=replace(DRAWN, **change))
            for change in (
                {"model_fingerprint": "e" * 64},
                {"temperature": 1.0},
                {"top_p": 1.0},
                {"top_k": 20},
                {"max_new_tokens": 513},
                {"seed": 8},
            )
        ),
        trace(drawn=None, source="gold"),
        trace(drawn=None, source="solver"),
        trace(sampled(text="another"), drawn=None, source="solver"),
    ]
    assert len({row["trace_id"] for row in same}) == 1
    assert len({row["trace_id"] for row in [*others, trace()]}) == len(others) + 1


def test_pass_rates_leave_out_the_undecided() -> None:
    """One right and one wrong of three; of a problem that nobody decided there is no rate."""
    rates = PassRates()
    rates.add([sampled(), sampled(failed("wrong")), sampled(undecided("timed out"))])
    rates.add([sampled(undecided("timed out"), problem="q")])
    half = {"pass_rate": 0.5, "pass_rate_samples": 2, "pass_rate_passed": 1}
    assert rates.of("p") == half
    assert rates.of("q") == {"pass_rate": None, "pass_rate_samples": 0, "pass_rate_passed": 0}


def test_the_schema_tells_every_column() -> None:
    """Each with what it means, all of them required and no other allowed; it is JSON."""
    found = json.loads(json.dumps(schema()))
    assert list(found["properties"]) == list(trace())
    assert set(found["required"]) == set(found["properties"])
    assert found["additionalProperties"] is False
    assert [name for name, column in found["properties"].items() if not column["description"]] == []
    assert found["properties"]["finish_reason"]["enum"] == ["stop", "length", "refused"]


def test_a_row_is_checked_by_the_schema() -> None:
    """What a model did not write has no model, and is a row all the same."""
    assert validated(trace()) == trace()
    assert validated(trace(drawn=None, source="gold"))["model"] is None


@pytest.mark.parametrize(
    "change", [{"tokens": "9"}, {"flags": ["ugly"]}, {"extra": 1}, {"finish_reason": "eos"}, {"seed": 1.5}]
)
def test_what_is_no_row_is_refused(change: dict[str, Any]) -> None:
    """A number is not written as text, and a column too many is one too many."""
    with pytest.raises(ValidationError, match=next(iter(change))):
        validated({**trace(), **change})
