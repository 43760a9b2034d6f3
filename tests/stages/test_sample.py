"""The sample stage: what is kept, what is not, and that a stop changes neither."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from r1pipe import jsonl
from r1pipe.artifact import Store
from r1pipe.curate import Keep
from r1pipe.curate.traces import validated
from r1pipe.errors import Interrupted, RunFailed, UsageError
from r1pipe.rollout import Finished, Rollout, Sampling, tracing
from r1pipe.rollout import local as engines
from r1pipe.rollout.shards import ShardFolder
from r1pipe.stage import Outcome
from r1pipe.train import models
from r1pipe.world.solver import attempts
from r1pipe.world.tokenizer import build_tokenizer
from stages import sample
from tests.folders import manifest
from tests.loopback_server import serving
from tests.tiny_model import Ear, inputs, workplace

SMALL = {"model": "base", "task": "countdown", "template": "chat", "prompts": 4, "max_new_tokens": 32}
ENGINE = "Engine: transformers, as set."
ANYTHING = {"correct": False, "untruncated": False, "well_formed": False, "single_language": 0}


def config(**changes: Any) -> sample.Config:
    engine = {} if changes.get("answers") == "gold" else {"engine": "transformers"}
    return sample.Config.model_validate({**SMALL, **engine, **changes})


def run(tiny: Path, folder: Path, **changes: Any) -> tuple[Outcome, Ear]:
    work, ear = workplace(folder)
    return sample.run(config(**changes), inputs(model=tiny), work), ear


def rejects(outcome: Outcome) -> list[dict[str, Any]]:
    return list(jsonl.iter_rows(outcome.path / "rejects.jsonl"))


def journal(folder: Path, shard: int = 0) -> list[dict[str, Any]]:
    """What the journal of a shard under way holds, but for when it was written."""
    rows = jsonl.iter_rows(folder / sample.SHARDS / f"{shard:05}.jsonl")
    return [{key: value for key, value in row.items() if key != "time"} for row in rows]


def published(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (folder / "published").iterdir()}


class Scripted:
    """An engine that writes what a script says to the question in the prompt; None is cut off."""

    name = "transformers"
    exact = True

    def __init__(self, script: Callable[[str, int], str | None]) -> None:
        self.script = script
        self.tokenizer = build_tokenizer(64)
        self.asked: list[int] = []
        """How many prompts each call had."""

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        seeds: Sequence[int],
        finished: Finished | None = None,
    ) -> list[Rollout]:
        rollouts: list[Rollout] = []
        for ids in prompts:
            question = str(self.tokenizer.decode(ids)).split(" ", 1)[1].partition(" <|assistant|>")[0]
            text = self.script(question, sum(self.asked) + len(rollouts))
            tokens = list(self.tokenizer(text or "1 + 1")["input_ids"])
            rollouts.append(
                Rollout(tokens, "length")
                if text is None
                else Rollout([*tokens, self.tokenizer.eos_token_id], "stop")
            )
        self.asked.append(len(prompts))
        for place, rollout in reversed(list(enumerate(rollouts))):
            if finished is not None:
                finished(place, rollout)
        return rollouts

    def close(self) -> None:
        """Nothing is open."""


def scripted(monkeypatch: pytest.MonkeyPatch, script: Callable[[str, int], str | None]) -> Scripted:
    engine = Scripted(script)
    monkeypatch.setattr(engines, "TransformersEngine", lambda model, **options: engine)
    return engine


def solve(question: str, yes: str = "yes") -> str:
    """A right completion of a countdown question."""
    *numbers, target = [int(word) for word in question.split() if word.isdecimal()]
    way = next(way for way in attempts(tuple(sorted(numbers))) if way.value == target)
    return f"{way.line(target)} {yes} </think> <answer> {way.expression} </answer>"


def four_ways(question: str, place: int) -> str | None:
    """Right, wrong, cut off and without form, in turn."""
    return [solve(question), "1 + 1 = 2 no </think> <answer> 1 </answer>", None, "1 + 1"][place % 4]


def test_the_counts_add_up(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four completions of each prompt one is kept; the others lie beside them, with their reasons."""
    engine = scripted(monkeypatch, four_ways)
    outcome, ear = run(tiny, tmp_path / "traces", samples=4, batch=6)
    assert engine.asked == [6, 6, 4]
    assert outcome.metrics == {
        "prompts": 4,
        "generated": 16,
        "kept": 4,
        "rejected": {"truncated": 4, "wrong: other numbers": 4, "wrong: thinking not closed": 4},
        "acceptance": 0.25,
        "undecided": 0,
        "undecided_reasons": {},
        "judged_again": 0,
        "settled": 0,
        "rewritten": 0,
        "prompt_tokens": 4 * sum(each["prompt_tokens"] for each in jsonl.iter_rows(outcome.path)),
        "tokens": outcome.tokens,
        "by_task": {"countdown": {"generated": 16, "accepted": 4, "acceptance": 0.25}},
        "by_difficulty": {"countdown 3": {"generated": 16, "accepted": 4, "acceptance": 0.25}},
        "solver": 0,
        "set_aside": 0,
    }
    assert ear.said == ENGINE
    kept = list(jsonl.iter_rows(outcome.path))
    assert {row["source"] for row in kept} == {"model"} and len({row["problem_id"] for row in kept}) == 4
    assert all(row["completion"] == solve(row["question"]) for row in kept)
    assert kept[0]["prompt"] == f"<|user|> {kept[0]['question']} <|assistant|> <think>"
    assert (kept[0]["id"], kept[0]["verdict"], kept[0]["model"]) == (
        f"{kept[0]['problem_id']}#0",
        "pass",
        tiny.stem,
    )
    assert len({row["id"] for row in [*kept, *rejects(outcome)]}) == 16
    for row in [*kept, *rejects(outcome)]:
        validated({key: value for key, value in row.items() if key != "rejected"})
    assert outcome.tokens == sum(row["tokens"] for row in [*kept, *rejects(outcome)])
    assert [row["acceptance"] for row in ear.rows] == [2 / 6, 1 / 6, 1 / 4]
    assert [row["steps"] for row in ear.rows] == [3, 3, 3]
    assert [(row["step"], row["generated"], row["accepted"]) for row in ear.rows] == [
        (1, 6, 2),
        (2, 12, 3),
        (3, 16, 4),
    ]


def test_undecided_verdicts_are_told(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of four completions is cut off and the task leaves those undecided: counted by reason, and said."""
    scripted(monkeypatch, four_ways)
    task = {"name": "countdown", "truncated": "undecided"}
    outcome, ear = run(tiny, tmp_path / "traces", samples=4, task=task)
    assert outcome.metrics["undecided"] == 4
    assert outcome.metrics["undecided_reasons"] == {"truncated": 4}
    assert ear.said.startswith(f"{ENGINE} Undecided verdicts: 25 % of 16 completions (25 % truncated). ")


def test_a_data_set_holds_the_kept_rows_alone(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`load_dataset` on what is published does not see the rejects that lie in the same folder."""
    from datasets import load_dataset

    scripted(monkeypatch, four_ways)
    outcome, _ = run(tiny, tmp_path / "traces", samples=4)
    artifact = Store(tmp_path / "run").publish("traces", outcome.path, manifest("traces", "dataset"))
    loaded = load_dataset(str(artifact.path), cache_dir=str(tmp_path / "cache"))["train"]
    assert loaded["finish_reason"] == ["stop"] * 4
    assert (artifact.path / "rejects.jsonl").exists()


def test_right_answers_are_made_readable_and_judged_again(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they come they are refused for their two languages; rewritten they are kept, with the original."""
    scripted(monkeypatch, lambda question, place: f"1 + 1 = 2 no {solve(question, yes='dui')}")
    with pytest.raises(RunFailed, match="4 mixed languages"):
        run(tiny, tmp_path / "raw")
    outcome, _ = run(tiny, tmp_path / "readable", rewrite={}, keep={"language": "en"})
    assert (outcome.metrics["kept"], outcome.metrics["rewritten"]) == (4, 4)
    for row in jsonl.iter_rows(outcome.path):
        assert (row["source"], row["verdict"], row["language_consistency"]) == ("rewritten", "pass", 1.0)
        assert row["original"] == f"1 + 1 = 2 no {solve(row['question'], yes='dui')}"
        assert f"yes </think> so {row['answer']} = {row['gold']['target']} <answer>" in row["completion"]
        assert row["tokens"] == len(row["completion"].split()) + 1


def test_a_rewriting_that_does_not_pass_is_refused(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept was judged as it stands, not as it was."""
    scripted(monkeypatch, lambda question, place: solve(question))
    broken = "1 + 1 = 2 yes </think> <answer> 1 + 1 </answer>"
    monkeypatch.setattr(tracing, "make_readable", lambda *args, **kwargs: broken)
    with pytest.raises(RunFailed, match="4 wrong: other numbers"):
        run(tiny, tmp_path / "traces", rewrite={})


def test_a_limit_ends_the_sampling(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the second batch there are two traces of the two that are wanted: the third is never asked."""
    engine = scripted(monkeypatch, four_ways)
    outcome, _ = run(tiny, tmp_path / "traces", samples=4, batch=4, limit=2)
    assert engine.asked == [4, 4]
    counted = {key: outcome.metrics[key] for key in ("prompts", "generated", "kept")}
    assert counted == {"prompts": 2, "generated": 8, "kept": 2}
    scripted(monkeypatch, four_ways)
    outcome, _ = run(tiny, tmp_path / "wide", samples=4, batch=16, limit=3)
    assert (outcome.metrics["kept"], outcome.metrics["rejected"]["beyond the limit"]) == (3, 1)


def test_one_trace_of_a_problem(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three right answers the shortest is kept, also where a problem comes in two batches."""
    long = "1 + 1 = 2 no "
    scripted(monkeypatch, lambda question, place: long * [0, 1, 1][place % 3] + solve(question))
    outcome, _ = run(tiny, tmp_path / "traces", samples=3, batch=2, keep={"per_problem": 1})
    assert [row["sample"] for row in jsonl.iter_rows(outcome.path)] == [0, 0, 0, 0]
    assert outcome.metrics["rejected"] == {"duplicate": 4, "not among the shortest 1 of its problem": 4}


# --- Stopped and gone on with


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def undrawn(folder: Path) -> list[dict[str, Any]]:
    """All rows without what tells one engine and one copy of a checkpoint from another."""
    told = ("engine", "engine_version", "model_fingerprint", "trace_id")
    files = [folder / "published" / name for name in ("part-00000.jsonl", "rejects.jsonl")]
    rows = [row for file in files for row in jsonl.iter_rows(file)]
    return [{key: value for key, value in row.items() if key not in told} for row in rows]


def undisturbed(tiny: Path, folder: Path) -> dict[str, bytes]:
    run(tiny, folder, **RANDOM)
    return published(folder)


RANDOM = {"samples": 3, "batch": 4, "keep": ANYTHING, "task": ["countdown", "documents"], "solver": 2}


def test_a_crash_between_batches_changes_nothing(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine dies at the third batch of three; the second attempt asks for that batch alone."""
    generate, calls = engines.TransformersEngine.generate, []

    def dies(self: Any, prompts: Any, sampling: Any, *, seeds: Any, finished: Any) -> Any:
        calls.append(seeds)
        if len(calls) == 3:
            raise MemoryError
        return generate(self, prompts, sampling, seeds=seeds, finished=finished)

    monkeypatch.setattr(engines.TransformersEngine, "generate", dies)
    with pytest.raises(MemoryError):
        run(tiny, tmp_path / "one", **RANDOM)
    assert len(journal(tmp_path / "one")) == 8
    _, ear = run(tiny, tmp_path / "one", **RANDOM)
    assert [row["step"] for row in ear.rows] == [3]
    assert calls[2] == calls[3] and len(calls) == 4
    assert [row["step"] for row in jsonl.iter_rows(tmp_path / "one.jsonl")] == [1, 2, 3]
    assert published(tmp_path / "one") == undisturbed(tiny, tmp_path / "two")


def test_a_kill_before_a_batch_is_logged_loses_no_row(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed when the second batch is whole in the journal and has no row of metrics: it gets one."""
    work, _ = workplace(tmp_path / "one")
    log = work.log

    def killed(row: dict[str, Any]) -> None:
        if row["step"] == 2:
            raise KeyboardInterrupt
        log(row)

    monkeypatch.setattr(type(work), "log", lambda _, row: killed(row))
    with pytest.raises(KeyboardInterrupt):
        sample.run(config(**RANDOM), inputs(model=tiny), work)
    monkeypatch.undo()
    assert len(journal(tmp_path / "one")) == 8
    _, ear = run(tiny, tmp_path / "one", **RANDOM)
    assert [(row["step"], row["generated"]) for row in ear.rows] == [(2, 8), (3, 12)]
    assert [row["step"] for row in jsonl.iter_rows(tmp_path / "one.jsonl")] == [1, 2, 3]


@pytest.mark.parametrize("exact", [True, False])
def test_a_crash_within_a_batch_loses_nothing_whole(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exact: bool
) -> None:
    """The engine dies when two of the second batch's four are whole: they are in the journal, and an engine
    that does not come to the same bits again is asked for the other two alone. The speed of that is not
    told."""
    generate, calls = engines.TransformersEngine.generate, list[int]()

    def dies(self: Any, prompts: Any, sampling: Any, *, seeds: Any, finished: Any) -> Any:
        told = list[int]()

        def two(place: int, rollout: Rollout) -> None:
            if len(calls) == 2 and len(told) == 2:
                raise MemoryError
            told.append(place)
            finished(place, rollout)

        calls.append(len(prompts))
        return generate(self, prompts, sampling, seeds=seeds, finished=two)

    monkeypatch.setattr(engines.TransformersEngine, "generate", dies)
    monkeypatch.setattr(engines.TransformersEngine, "exact", exact)
    with pytest.raises(MemoryError):
        run(tiny, tmp_path / "one", **RANDOM)
    assert len(journal(tmp_path / "one")) == 6
    _, ear = run(tiny, tmp_path / "one", **RANDOM)
    assert calls == [4, 4, 4 if exact else 2, 4]
    assert [(row["step"], "tokens_per_second" in row) for row in ear.rows] == [(2, exact), (3, True)]
    assert published(tmp_path / "one") == undisturbed(tiny, tmp_path / "two")


@pytest.mark.parametrize("cut", [1, 300, 2000])
def test_a_journal_that_a_kill_cut_changes_nothing(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    """Bytes missing at its end, in the middle of a row and of a batch, are made again; the rest is taken.
    What was cut off is kept beside."""
    whole = undisturbed(tiny, tmp_path / "two")
    monkeypatch.setattr(ShardFolder, "finish", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(tiny, tmp_path / "one", **RANDOM)
        rows, file = journal(tmp_path / "one"), tmp_path / "one" / sample.SHARDS / "00000.jsonl"
        assert len(rows) == 12
        file.write_bytes(file.read_bytes()[:-cut])
    monkeypatch.undo()
    run(tiny, tmp_path / "one", **RANDOM)
    assert published(tmp_path / "one") == whole
    assert (file.with_name("00000.jsonl.torn").exists(), file.exists()) == (cut > 1, False)


def test_ctrl_c_keeps_what_was_sampled(tiny: Path, tmp_path: Path) -> None:
    """Asked to stop, the stage ends before its next batch and goes on from there."""
    work, ear = workplace(tmp_path / "one")
    log = ear.event

    def stop_after_the_first(kind: str, stage: str, **fields: Any) -> None:
        log(kind, stage, **fields)
        if kind == "log":
            work.stop.set()

    ear.event = stop_after_the_first  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        sample.run(config(**RANDOM), inputs(model=tiny), work)
    assert len(journal(tmp_path / "one")) == 4
    run(tiny, tmp_path / "one", **RANDOM)
    assert published(tmp_path / "one") == undisturbed(tiny, tmp_path / "two")


def test_the_seed_decides(tiny: Path, tmp_path: Path) -> None:
    """Another seed asks other problems and draws other completions."""
    work, _ = workplace(tmp_path / "other", seed=1)
    sample.run(config(**RANDOM), inputs(model=tiny), work)
    assert published(tmp_path / "other") != undisturbed(tiny, tmp_path / "two")


# --- Who else answers


def test_documents_are_kept_when_they_are_right(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Questions without thinking go through the same filters: here every other copy has its words right."""

    def copies(question: str, place: int) -> str:
        kind, *words = question.split()
        return " ".join(words) if kind == "copy" and place % 2 == 0 else "red red"

    scripted(monkeypatch, copies)
    outcome, _ = run(tiny, tmp_path / "general", task="documents", prompts=8, samples=2)
    assert outcome.metrics["rejected"] == {"wrong: wrong words": 14}
    for row in jsonl.iter_rows(outcome.path):
        assert row["question"] == f"copy {row['completion']}"
        assert (row["prompt"], row["thinking"]) == (f"<|user|> {row['question']} <|assistant|>", None)


def test_a_server_writes_the_same_rows(tiny: Path, tmp_path: Path) -> None:
    """Its seeds are those of the local engine. Of the checkpoint only the tokenizer and config are read, and
    what a server holds is said; the speed of generation alone is logged."""
    local, _ = run(tiny, tmp_path / "local", **RANDOM)
    model, tokenizer = models.open_model(tiny)
    engine = engines.TransformersEngine(model, eos_id=tokenizer.eos_token_id, pad_id=tokenizer.pad_token_id)
    bare = tmp_path / tiny.name
    shutil.copytree(tiny, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    with serving(engine, tokenizer, 64) as server:
        spec = {"name": "vllm-server", "url": server.url}
        served, ear = run(bare, tmp_path / "served", **RANDOM, engine=spec)
    assert undrawn(tmp_path / "served") == undrawn(tmp_path / "local")
    assert {row["engine"] for row in jsonl.iter_rows(served.path)} == {"vllm-server", None}
    assert served.metrics == local.metrics and served.tokens == local.tokens
    assert ear.said == f"Engine: vllm-server, as set: {server.url} serves 'tiny'."
    assert all(row["generation_tokens_per_second"] >= row["tokens_per_second"] > 0 for row in ear.rows)


def test_a_finished_journal_needs_no_engine(tiny: Path, tmp_path: Path) -> None:
    """The server is gone, and all that it was to write is there."""
    run(tiny, tmp_path / "one", **RANDOM)
    whole = published(tmp_path / "one")
    nobody = {"name": "vllm-server", "url": "http://127.0.0.1:1"}
    _, ear = run(tiny, tmp_path / "one", **RANDOM, engine=nobody)
    assert published(tmp_path / "one") == whole and ear.said == "" and ear.rows == []


def test_gold_answers_need_no_model(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The documents' own answers, judged like any other; the weights are not even read."""
    monkeypatch.setattr(engines, "TransformersEngine", None)
    outcome, _ = run(tiny, tmp_path / "general", task="documents", prompts=8, answers="gold")
    rows = list(jsonl.iter_rows(outcome.path))
    assert (outcome.metrics["kept"], outcome.tokens) == (8, None)
    assert all(row["completion"] == row["gold"] and row["source"] == "gold" for row in rows)
    assert rows[0]["tokens"] == len(rows[0]["gold"].split()) + 1


def test_the_solver_leaves_out_what_is_taken() -> None:
    """A problem that the model solved is passed over, and the next one takes its place."""
    rows = tracing.TraceMaker(build_tokenizer(64), None, seed=0, sampling=Sampling(32), keep=Keep())
    before = [row["problem_id"] for row in rows.solved(3, "chat", 64, set(), 30.0)]
    after = [row["problem_id"] for row in rows.solved(3, "chat", 64, {before[0]}, 30.0)]
    assert after[:2] == before[1:] and after[2] not in before


@pytest.mark.parametrize("template", ["chat", "plain"])
def test_the_solver_adds_rows_in_every_template(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    """They come after the model's; where the prompt does not open the thinking, the completion does."""
    begin = "" if template == "chat" else "<think> "
    scripted(monkeypatch, lambda question, place: begin + solve(question))
    keep = {"max_attempts": 4}
    outcome, _ = run(tiny, tmp_path / "cold", solver=3, keep=keep, template=template)
    rows = list(jsonl.iter_rows(outcome.path))
    assert [row["source"] for row in rows] == ["model"] * 4 + ["solver"] * 3
    assert (outcome.metrics["kept"], outcome.metrics["generated"], outcome.metrics["solver"]) == (4, 4, 3)
    assert len({row["problem_id"] for row in rows}) == 7
    assert all(row["completion"].startswith(begin) and row["verdict"] == "pass" for row in rows)
    assert all(" </think> so " in row["completion"] for row in rows[4:])


def test_a_solver_without_room_says_so(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No row of it is as short as `keep` wants."""
    scripted(monkeypatch, lambda question, place: solve(question))
    with pytest.raises(UsageError, match=r"could write 0 rows that `keep` allows, 1 were asked for"):
        run(tiny, tmp_path / "cold", solver=1, keep={"max_tokens": 28})


# --- What goes wrong


def test_nothing_kept_is_a_failure_with_the_reasons(tiny: Path, tmp_path: Path) -> None:
    """A random model solves nothing; its completions stay where the message says."""
    with pytest.raises(RunFailed, match=r"None of 8 completions was kept: \d+ .*loosen `keep`") as caught:
        run(tiny, tmp_path / "traces", samples=2)
    shards = tmp_path / "traces" / sample.SHARDS
    assert str(caught.value).endswith(f"The completions are in '{shards}'.")
    assert len(list(jsonl.iter_rows(shards / "00000" / "rejects.jsonl"))) == 8


def test_long_prompts_are_set_aside(tiny: Path, tmp_path: Path) -> None:
    """One of two rows leaves no room in the context of 64; where none does, nothing is sampled."""
    path = tmp_path / "rows.jsonl"
    jsonl.write_rows(path, [{"question": "copy " + "red " * n, "answer": "red"} for n in (1, 60)])
    task = {"name": "jsonl", "path": str(path)}
    outcome, ear = run(tiny, tmp_path / "some", task=task, prompts=None, keep=ANYTHING)
    assert (outcome.metrics["prompts"], outcome.metrics["set_aside"]) == (1, 1)
    (row,) = jsonl.iter_rows(outcome.path / "set-aside.jsonl")
    assert row["reason"] == "the prompt has 64 tokens, and there is room for 32"
    assert ear.said == f"Set aside as broken or too long for the context: 1 of the prompts. {ENGINE}"
    with pytest.raises(UsageError, match=r"All 2 prompts are too long.*`max_new_tokens` lower"):
        run(tiny, tmp_path / "none", task=task, prompts=None, max_new_tokens=62)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answers": "gold"}, "task 'countdown' asks for more, set answers: model"),
        ({"answers": "gold", "task": "documents", "engine": "vllm"}, "leave out engine: vllm"),
        ({"answers": "gold", "task": {"name": "jsonl", "path": "a"}}, "set reasoning: false"),
        ({"answers": "gold", "task": "documents", "samples": 2}, "one answer to a prompt, samples is 2"),
        ({"keep": {"language": "zh"}, "rewrite": {}}, "keep.language is zh and rewrite.language is en"),
        ({"keep": {"language": "fr"}, "solver": 1}, "keep.language is fr, and the solver writes en or zh"),
        ({"rewrite": {"language": "fr"}}, "'en' or 'zh'"),
        ({"keep": {"corect": True}}, "corect"),
        ({"top_p": 0}, "greater than 0"),
        ({"limit": 0}, "greater than or equal to 1"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], message: str) -> None:
    """Before anything starts, with both sides named."""
    with pytest.raises(ValidationError, match=message):
        config(**changes)
