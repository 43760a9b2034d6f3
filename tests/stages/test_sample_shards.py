"""Sampling in shards and rounds: whatever stops it, the same completions, each once."""

import errno
import os
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from pydantic import ValidationError

from r1pipe import jsonl, pipeline
from r1pipe.curate.traces import validated
from r1pipe.errors import Conflict, RunFailed
from r1pipe.fingerprint import fingerprint_of
from r1pipe.rollout import Rollout
from r1pipe.rollout import local as engines
from r1pipe.rollout.shards import ShardFolder, shard_of
from r1pipe.run import RunFolder
from r1pipe.stage import counted
from r1pipe.verify.verdict import Verdict, passed, undecided
from stages import sample
from tests.stages.test_sample import ANYTHING, config, published, rejects, run, scripted, solve
from tests.tiny_model import inputs, workplace

LONG = {"prompts": 12, "samples": 2, "batch": 5, "keep": ANYTHING, "task": ["countdown", "documents"]}


def made(folder: Path) -> Counter[tuple[str, int]]:
    """(problem, sample) of all that was published or rejected."""
    files = [folder / "published" / name for name in ("part-00000.jsonl", "rejects.jsonl")]
    return Counter((row["problem_id"], row["sample"]) for file in files for row in jsonl.iter_rows(file))


def texts(folder: Path) -> dict[str, str]:
    """The completion of each trace, by its id."""
    files = [folder / "published" / name for name in ("part-00000.jsonl", "rejects.jsonl")]
    return {row["trace_id"]: row["completion"] for file in files for row in jsonl.iter_rows(file)}


def test_shards_hold_the_same_as_one(tiny: Path, tmp_path: Path) -> None:
    """The draws are the same up to rounding, which in this model changes nothing; each row is one of the
    schema; the rows stand shard by shard, and the batches are counted over all shards."""
    one, _ = run(tiny, tmp_path / "one", **LONG)
    five, ear = run(tiny, tmp_path / "five", **LONG, shards=5)
    assert texts(tmp_path / "one") == texts(tmp_path / "five")
    assert {**one.metrics, "rejected": None} == {**five.metrics, "rejected": None}
    rows = [validated(row) for row in jsonl.iter_rows(five.path)]
    whole = [validated(row) for row in jsonl.iter_rows(one.path)]
    assert sorted(row["id"] for row in rows) == sorted(row["id"] for row in whole)
    order = [shard_of(row["problem_id"], 5) for row in rows]
    assert order == sorted(order) and len(set(order)) == 5
    steps = sum(-(-count // 5) for count in Counter(order).values())
    assert [(row["step"], row["steps"]) for row in ear.rows] == [(i + 1, steps) for i in range(steps)]


def test_a_finished_shard_is_never_asked_again(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine dies in the third shard. What the first two asked is not asked again, though their journals
    are gone, and the counts are those of an undisturbed job."""
    whole, ear = run(tiny, tmp_path / "whole", **LONG, shards=4)
    generate, asked = engines.TransformersEngine.generate, list[tuple[int, ...]]()
    folder = tmp_path / "one" / sample.SHARDS

    def dies(self: Any, prompts: Any, sampling: Any, *, seeds: Any, finished: Any) -> Any:
        if len(list(folder.glob("*/shard.json"))) == 2:
            raise MemoryError
        asked.append(tuple(seeds))
        return generate(self, prompts, sampling, seeds=seeds, finished=finished)

    monkeypatch.setattr(engines.TransformersEngine, "generate", dies)
    with pytest.raises(MemoryError):
        run(tiny, tmp_path / "one", **LONG, shards=4)
    before = list(asked)
    kinds = [path.is_dir() for path in sorted(folder.glob("0*"))]
    assert kinds == [True, True, False]
    monkeypatch.setattr(engines.TransformersEngine, "generate", generate)
    again, later = run(tiny, tmp_path / "one", **LONG, shards=4)
    assert published(tmp_path / "one") == published(tmp_path / "whole")
    assert again.metrics == whole.metrics and again.tokens == whole.tokens
    assert [row["step"] for row in later.rows] == [row["step"] for row in ear.rows][len(before) :]
    logged = [row["step"] for row in jsonl.iter_rows(tmp_path / "one.jsonl")]
    assert logged == [row["step"] for row in ear.rows]


@pytest.mark.parametrize("moment", ["rows", "marker", "rename", "journal"])
def test_a_kill_while_a_shard_is_finished(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Before its rows are written, before its marker, before the rename and before its journal is removed:
    the shard is whole afterwards, once."""
    run(tiny, tmp_path / "whole", **LONG, shards=3)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    name = {"rows": "write_rows", "marker": "write_json"}.get(moment)
    if name is not None:
        kept = getattr(jsonl, name)
        last = "kept.jsonl" if moment == "rows" else "shard.json"
        monkeypatch.setattr(
            jsonl, name, lambda path, *rest: killed() if Path(path).name == last else kept(path, *rest)
        )
    elif moment == "rename":
        monkeypatch.setattr(os, "rename", killed)
    else:
        monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tiny, tmp_path / "one", **LONG, shards=3)
    monkeypatch.undo()
    run(tiny, tmp_path / "one", **LONG, shards=3)
    assert published(tmp_path / "one") == published(tmp_path / "whole")
    assert not list((tmp_path / "one" / sample.SHARDS).glob("*.jsonl"))


def test_stopped_again_and_again_it_comes_to_the_same(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full after a random number of bytes, in the middle of a line, until the job is through."""
    whole, _ = run(tiny, tmp_path / "whole", **LONG, shards=2)
    write, rng, stops = os.write, Random(0), 0

    def fills_up(after: int) -> Callable[[int, Any], int]:
        left = after

        def writes(file: int, text: Any) -> int:
            nonlocal left
            if left <= 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            count = write(file, text[: min(len(text), left)])
            left -= count
            return count

        return writes

    while stops < 50:
        monkeypatch.setattr(os, "write", fills_up(rng.randrange(1, 6000)))
        try:
            again, _ = run(tiny, tmp_path / "one", **LONG, shards=2)
            break
        except RunFailed as error:
            assert "The disk is full" in str(error) and "run the same command again" in str(error)
            stops += 1
    assert 3 < stops < 50
    assert published(tmp_path / "one") == published(tmp_path / "whole")
    assert again.metrics == whole.metrics
    assert set(made(tmp_path / "one").values()) == {1}


# --- Rounds


def ladder(question: str, place: int) -> str | None:
    """Wrong at first for the problems whose target is odd; a sum of the counts so far decides nothing."""
    target = int(question.rsplit(" ", 1)[1])
    ladder.asked[question] += 1  # type: ignore[attr-defined]
    hard = target % 2 and ladder.asked[question] <= 3  # type: ignore[attr-defined]
    return "1 + 1 = 2 no </think> <answer> 1 </answer>" if hard else solve(question)


def test_hard_prompts_are_asked_on(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One completion first, up to six; the easy ones are right at once, the hard ones at the fourth. Each
    row carries the pass rate of its prompt over all rounds."""
    ladder.asked = Counter()  # type: ignore[attr-defined]
    scripted(monkeypatch, ladder)
    outcome, ear = run(tiny, tmp_path / "one", prompts=8, most=6, batch=3)
    rows = [*jsonl.iter_rows(outcome.path), *rejects(outcome)]
    counts = Counter(row["problem_id"] for row in rows)
    odd = {row["problem_id"] for row in rows if row["gold"]["target"] % 2}
    assert 0 < len(odd) < 8
    assert counts == {name: 4 if name in odd else 1 for name in counts}
    for row in rows:
        hard = row["problem_id"] in odd
        told = (row["pass_rate"], row["pass_rate_samples"], row["pass_rate_passed"])
        assert told == ((0.25, 4, 1) if hard else (1.0, 1, 1))
        assert (row["verdict"] == "pass") == (row["sample"] == (3 if hard else 0))
    assert (outcome.metrics["prompts"], outcome.metrics["generated"]) == (8, 8 + 3 * len(odd))
    assert outcome.metrics["kept"] == 8
    steps = [(row["step"], row["steps"]) for row in ear.rows]
    assert [step for step, _ in steps] == list(range(1, len(steps) + 1)) and steps[0] == (1, 3)
    assert steps[-1][0] == steps[-1][1]


def test_equal_completions_are_not_enough(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two are wanted, and one text is written again and again: it is asked for to the end."""
    scripted(monkeypatch, lambda question, place: solve(question))
    outcome, _ = run(tiny, tmp_path / "one", prompts=1, samples=2, most=5, enough=2)
    assert (outcome.metrics["generated"], outcome.metrics["kept"]) == (5, 1)


def test_a_budget_is_spent_in_order(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is ever right: the first round asks all four, the second has room for two more."""
    asked: list[str] = []

    def first_alone(question: str, place: int) -> str:
        asked.append(question)
        return solve(question) if place == 0 else "1 + 1 = 2 no </think> <answer> 1 </answer>"

    scripted(monkeypatch, first_alone)
    outcome, _ = run(tiny, tmp_path / "one", most=3, budget=6)
    assert asked[4:] == asked[1:3]
    assert (outcome.metrics["prompts"], outcome.metrics["generated"]) == (4, 6)


def test_rounds_end_as_if_never_stopped(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model under rounds, a budget and shards, of which every second call dies: what counts as
    accepted is drawn by its text, and the rows are those of a job that was left alone."""
    options = {"prompts": 10, "samples": 2, "most": 6, "enough": 2, "budget": 40, "batch": 4, "shards": 2}
    keep = {**ANYTHING, "max_tokens": 31}
    whole, _ = run(tiny, tmp_path / "whole", **options, keep=keep)
    assert 20 < whole.metrics["generated"] <= 40
    generate, calls, stops = engines.TransformersEngine.generate, 0, 0

    def dies(self: Any, prompts: Any, sampling: Any, *, seeds: Any, finished: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls % 2 == 0:
            raise MemoryError
        return generate(self, prompts, sampling, seeds=seeds, finished=finished)

    monkeypatch.setattr(engines.TransformersEngine, "generate", dies)
    while True:
        try:
            again, _ = run(tiny, tmp_path / "one", **options, keep=keep)
            break
        except MemoryError:
            stops += 1
    assert stops > 3
    assert published(tmp_path / "one") == published(tmp_path / "whole")
    assert again.metrics == whole.metrics


# --- Verdicts that nobody came to


def flaky(monkeypatch: pytest.MonkeyPatch, failures: dict[str, int]) -> Counter[str]:
    """A judge that does not come to a verdict the first so many times; it counts how often it was asked."""
    asked: Counter[str] = Counter()

    def judge(self: Any, item: Any, completion: Any) -> Verdict:
        asked[item.id] += 1
        return undecided("comparison timed out") if asked[item.id] <= failures["all"] else passed("1")

    monkeypatch.setattr("r1pipe.tasks.countdown.Countdown.judge", judge)
    return asked


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_undecided_verdicts_are_asked_for_again(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    """Twice more and no oftener; what stays undecided is counted with its reason, and is not wrong."""
    scripted(monkeypatch, lambda question, place: solve(question))
    asked = flaky(monkeypatch, {"all": failures})
    if failures == 3:
        with pytest.raises(RunFailed, match="4 undecided: comparison timed out"):
            run(tiny, tmp_path / "one")
    else:
        outcome, _ = run(tiny, tmp_path / "one")
        told = {name: outcome.metrics[name] for name in ("kept", "judged_again", "settled", "undecided")}
        assert told == {"kept": 4, "judged_again": 4, "settled": 4, "undecided": 0}
    assert set(asked.values()) == {min(failures + 1, 3)}


def test_it_is_remembered_how_often_was_asked(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Going on after a kill, nobody is asked a third time for a verdict that did not come twice."""
    scripted(monkeypatch, lambda question, place: solve(question))
    asked = flaky(monkeypatch, {"all": 99})
    monkeypatch.setattr(ShardFolder, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run(tiny, tmp_path / "one")
    assert set(asked.values()) == {3}


def test_what_was_cut_off_is_not_judged_again(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it is undecided is the task's own rule, and would be so again."""
    scripted(monkeypatch, lambda question, place: solve(question) if place else None)
    task = {"name": "countdown", "truncated": "undecided"}
    outcome, _ = run(tiny, tmp_path / "one", task=task)
    assert (outcome.metrics["undecided"], outcome.metrics["judged_again"]) == (1, 0)


def test_a_gold_that_does_not_parse_is_set_aside_or_undecided(tiny: Path, tmp_path: Path) -> None:
    """No answer to it counts as wrong: the row that cannot be asked is set aside with its reason, and the
    others are asked."""
    path = tmp_path / "rows.jsonl"
    golds = ["red", "seven or so", "7", "", "\\frac{1}{"]
    jsonl.write_rows(path, [{"question": f"copy red {i}", "answer": gold} for i, gold in enumerate(golds)])
    task = {"name": "jsonl", "path": str(path), "judge": "number"}
    outcome, _ = run(tiny, tmp_path / "one", task=task, prompts=None, keep=ANYTHING)
    aside = list(jsonl.iter_rows(outcome.path / "set-aside.jsonl"))
    rows = list(jsonl.iter_rows(outcome.path))
    assert len(aside) + len({row["problem_id"] for row in rows}) == len(golds)
    assert all(row["reason"] for row in aside)
    for row in rows:
        wrong = row["verdict"] == "fail" and row["reason"].startswith("wrong")
        assert row["gold"] == "7" or not wrong, row


# --- What must not be mixed


@pytest.mark.parametrize(
    "change",
    [
        {"prompts": 13},
        {"samples": 3},
        {"temperature": 0.5},
        {"shards": 3},
        {"most": 4},
        {"template": "plain"},
    ],
)
def test_work_by_other_options_is_refused(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    """A run puts such work aside by the fingerprint; put there by hand, nothing of it gets into the data."""
    monkeypatch.setattr(ShardFolder, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(tiny, tmp_path / "one", **LONG)
    monkeypatch.undo()
    before = (tmp_path / "one" / sample.SHARDS / "00000.jsonl").read_bytes()
    with pytest.raises(Conflict, match=r"on other prompts or by other options .*move the folder"):
        run(tiny, tmp_path / "one", **{**LONG, **change})
    assert (tmp_path / "one" / sample.SHARDS / "00000.jsonl").read_bytes() == before


def test_two_jobs_on_one_output(tiny: Path, tmp_path: Path) -> None:
    """The second is told who is at work there, and touches nothing."""
    out = tmp_path / "traces"
    spec = config(model=str(tiny))
    held = pytest.raises(Conflict, match=r"is held by .*give another run folder")
    with RunFolder(tmp_path / "traces.run").writing(), held:
        pipeline.run_alone("sample", spec, out, preload=())
    assert not out.exists() and not (tmp_path / "traces.run" / "work").exists()


def test_changed_options_and_inputs_are_another_artifact() -> None:
    """Whatever may change a row changes the fingerprint; what cannot, does not."""
    changes: list[dict[str, Any]] = [
        {}, {"samples": 3}, {"most": 4}, {"most": 4, "enough": 2}, {"budget": 9}, {"shards": 2},
        {"judge_again": 0}, {"temperature": 0.5}, {"top_p": 0.9}, {"top_k": 5}, {"max_new_tokens": 33},
        {"prompts": 5}, {"limit": 3}, {"template": "plain"}, {"batch": 8}, {"task": "documents"},
        {"keep": {"repeats": True}}, {"rewrite": {}},
    ]  # fmt: skip

    def fingerprint(model: str, seed: int, **change: Any) -> str:
        return fingerprint_of("sample", sample.VERSION, counted(config(**change)), [("model", model)], seed)

    made = [fingerprint("a", 0, **change) for change in changes]
    made += [fingerprint("b", 0), fingerprint("a", 1)]
    assert len(set(made)) == len(made)
    assert fingerprint("a", 0, price={"gpu_hour": 2}) == made[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"enough": 2}, "enough is 2, and without `most`"),
        ({"most": 4, "samples": 4}, "most = 4 is not above samples = 4"),
        ({"most": 3, "enough": 4}, "enough = 4 is above most = 3"),
        ({"most": 3, "answers": "gold", "task": "documents"}, "leave out most"),
        ({"price": {}}, "leave out price"),
        ({"shards": 0}, "greater than or equal to 1"),
    ],
)
def test_contradictions_of_rounds_are_refused(change: dict[str, Any], message: str) -> None:
    """Before anything starts, with both sides named."""
    with pytest.raises(ValidationError, match=message):
        config(**change)


# --- What it costs


def test_the_price_of_a_trace(tiny: Path, tmp_path: Path) -> None:
    """By tokens, so that it can be told in advance; two attempts cost what both have taken."""
    price = {"million_tokens": 1000.0, "million_prompt_tokens": 100.0}
    work, ear = workplace(tmp_path / "one")
    outcome = sample.run(config(**LONG, price=price), inputs(model=tiny), work)
    usd = (1000 * outcome.metrics["tokens"] + 100 * outcome.metrics["prompt_tokens"]) / 1e6
    assert outcome.cost["usd"] == pytest.approx(usd)
    last = ear.rows[-1]
    assert last["usd_per_accepted"] == pytest.approx(usd / last["accepted"])
    assert sum(row["usd"] for row in ear.rows) == pytest.approx(usd)
    assert all(one["generated"] < two["generated"] for one, two in pairwise(ear.rows))
    plain, _ = run(tiny, tmp_path / "two", **LONG)
    assert plain.cost == {} and published(tmp_path / "two") == published(tmp_path / "one")


def test_what_is_generated_twice_is_told_and_paid_twice(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine dies when three of the second batch's five are whole; it makes the five again. The three
    of the attempt that died are paid for with the batch, as nobody has logged them."""
    generate, calls = engines.TransformersEngine.generate, 0

    def dies(self: Any, prompts: Any, sampling: Any, *, seeds: Any, finished: Any) -> Any:
        nonlocal calls
        calls += 1
        left = 3 if calls == 2 else 99

        def some(place: int, rollout: Rollout) -> None:
            nonlocal left
            if not left:
                raise MemoryError
            left -= 1
            finished(place, rollout)

        return generate(self, prompts, sampling, seeds=seeds, finished=some)

    monkeypatch.setattr(engines.TransformersEngine, "generate", dies)
    with pytest.raises(MemoryError):
        run(tiny, tmp_path / "one", **LONG)
    known = list(jsonl.iter_rows(tmp_path / "one" / sample.SHARDS / "00000.jsonl"))
    assert len(known) == 8
    price = {"million_tokens": 1e6}
    outcome, ear = run(tiny, tmp_path / "one", **LONG, price=price)
    again = sum(row["tokens"] for row in known[5:])
    assert [row.get("tokens_again") for row in ear.rows][:2] == [again, None]
    before = sum(row["tokens"] for row in known[:5])  # by an attempt that had no price
    assert outcome.cost["usd"] == pytest.approx(outcome.metrics["tokens"] - before + again)
