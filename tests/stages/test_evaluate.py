"""The evaluate stage: who is asked what, what is kept, and that a kill changes nothing."""

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from r1pipe import jsonl
from r1pipe.artifact import Artifact
from r1pipe.errors import Interrupted, UsageError
from r1pipe.measure.scores import score
from r1pipe.rollout.local import TransformersEngine
from r1pipe.rollout.writers import CheckpointReader
from r1pipe.stage import Inputs
from r1pipe.train import models
from r1pipe.world.tokenizer import build_tokenizer
from r1pipe.world.words import LANGUAGES
from stages import evaluate
from tests.loopback_server import serving
from tests.tiny_model import Ear, workplace

HELD_OUT = {"task": {"name": "countdown", "split": "held-out"}, "problems": 3, "samples": 2}
SMALL = {
    "models": ["base", "zero"],
    "sets": {"held-out": HELD_OUT},
    "engine": "transformers",
    "template": "chat",
    "max_new_tokens": 16,
    "batch": 4,
}


def config(**changes: Any) -> evaluate.Config:
    return evaluate.Config.model_validate({**SMALL, **changes})


def evaluated(folder: Path, tiny: Path, **changes: Any) -> tuple[list[dict[str, Any]], dict[str, Any], Ear]:
    """The rows, the metrics and what was told of an evaluation of one checkpoint under each name."""
    made = config(**changes)
    work, ear = workplace(folder)
    outcome = evaluate.run(made, given(made, tiny), work)
    assert outcome.kind == "dataset"
    rows = list(jsonl.iter_rows(outcome.path))
    assert outcome.tokens == sum(row["tokens"] for row in rows)
    return rows, outcome.metrics, ear


def given(made: evaluate.Config, *paths: Path) -> Inputs:
    """The models by name; where one path is given, it is everybody's."""
    several = paths if len(paths) > 1 else paths * len(made.models)
    artifacts = [Artifact(path, "checkpoint") for path in several]
    return Inputs({"models": list(zip(made.models, artifacts, strict=True))})


def test_all_are_asked_the_same(tiny: Path, tmp_path: Path) -> None:
    """One checkpoint under two names gets the same problems and random numbers, and so the same rows."""
    rows, metrics, ear = evaluated(tmp_path / "scores", tiny)
    by_model = {
        name: [{**row, "model": ""} for row in rows if row["model"] == name] for name in ("base", "zero")
    }
    assert by_model["base"] == by_model["zero"]
    assert [(row["problem_id"], row["sample"]) for row in by_model["base"]] == [
        (problem, sample) for problem in dict.fromkeys(row["problem_id"] for row in rows) for sample in (0, 1)
    ]
    assert len({row["problem_id"] for row in rows}) == 3
    assert {row["set"] for row in rows} == {"held-out"}
    scores = metrics["models"]["base"]["held-out"]
    assert scores == score([row for row in rows if row["model"] == "base"])  # type: ignore[misc]
    assert (scores["problems"], scores["samples"]) == (3, 6)
    assert [(row["step"], row["steps"], row["model"], row["set"]) for row in ear.rows] == [
        (1, 2, "base", "held-out"),
        (2, 2, "zero", "held-out"),
    ]
    assert ear.rows[0]["pass_at_1"] == scores["pass_at_1"]


def test_undecided_verdicts_are_told(tiny: Path, tmp_path: Path) -> None:
    """A random model never ends: where that is undecided it is counted, and said by set."""
    unsure = {**HELD_OUT, "task": {**HELD_OUT["task"], "truncated": "undecided"}}
    sets = {"held-out": HELD_OUT, "unsure": unsure}
    rows, metrics, ear = evaluated(tmp_path / "scores", tiny, models=["base"], sets=sets)
    cut = sum(row["truncated"] for row in rows if row["set"] == "unsure")
    assert cut > 0
    assert metrics["undecided_reasons"] == {"unsure": {"truncated": cut}}
    assert "Set 'unsure': Undecided verdicts: " in ear.said and ear.said.count("Undecided") == 1


def test_a_server_gives_the_same_rows(tiny: Path, tmp_path: Path) -> None:
    """As the local engine, forbidden tokens included; how fast it generated is logged where it did."""
    forbid = {"after": ["no", "bu"]}
    sets = {"held-out": HELD_OUT, "persist": {**HELD_OUT, "forbid": forbid, "max_new_tokens": 8}}
    rows, metrics, _ = evaluated(tmp_path / "local", tiny, models="base", sets=sets)
    model, tokenizer = models.open_model(tiny)
    engine = TransformersEngine(model, eos_id=tokenizer.eos_token_id, pad_id=tokenizer.pad_token_id)
    with serving(engine, tokenizer, 64) as server:
        spec = {"name": "vllm-server", "url": server.url}
        served = evaluated(tmp_path / "served", tiny, models="base", sets=sets, engine=spec)
    assert served[:2] == (rows, metrics)
    assert served[2].said == f"Engine: vllm-server, as set: {server.url} serves 'tiny'."
    assert [row["generation_tokens_per_second"] > 0 for row in served[2].rows] == [True, True]
    _, _, ear = evaluated(tmp_path / "served", tiny, models="base", sets=sets, engine=spec)
    assert ear.said == "" and not any("generation_tokens_per_second" in row for row in ear.rows)


def test_a_server_serves_one_model() -> None:
    """Two would need two servers, and a stage has one engine."""
    spec = {"name": "vllm-server", "url": "http://127.0.0.1:1"}
    with pytest.raises(ValidationError, match="serves one model, and `models` names base, zero; give each"):
        config(engine=spec)


def test_another_evaluation_asks_the_same(tiny: Path, tmp_path: Path) -> None:
    """The rows of a model are the same in a stage of another name that asks it alone, so that a recipe may
    spread its models over several stages."""
    rows, _, _ = evaluated(tmp_path / "scores", tiny)
    alone, _, _ = evaluated(tmp_path / "elsewhere", tiny, models="zero")
    assert alone == [row for row in rows if row["model"] == "zero"]


def test_more_problems_begin_with_the_same(tiny: Path, tmp_path: Path) -> None:
    """The first problems of a longer set are those of a shorter one: sets of one split are comparable."""
    short, _, _ = evaluated(tmp_path / "short", tiny, models="base")
    longer = {**HELD_OUT, "problems": 5}
    long, _, _ = evaluated(tmp_path / "long", tiny, models="base", sets={"more": longer})
    problems = list(dict.fromkeys(row["problem_id"] for row in long))
    assert len(problems) == 5
    assert problems[:3] == list(dict.fromkeys(row["problem_id"] for row in short))


def test_a_kill_changes_nothing(tiny: Path, tmp_path: Path) -> None:
    """Killed in the middle of writing a batch, the evaluation ends with the same rows and scores; each pair
    of model and set is logged once."""
    rows, metrics, _ = evaluated(tmp_path / "whole", tiny)
    lines = (tmp_path / "whole" / "rows.jsonl").read_bytes().splitlines(keepends=True)
    cut = tmp_path / "cut"
    cut.mkdir()
    (cut / "rows.jsonl").write_bytes(b"".join(lines[:9]) + lines[9][:20])  # in the third batch, of zero
    again, again_metrics, _ = evaluated(cut, tiny)
    assert (again, again_metrics) == (rows, metrics)
    evaluated(cut, tiny)
    assert len(list(jsonl.iter_rows(tmp_path / "cut.jsonl"))) == 2
    assert sorted((cut / "rows.jsonl").read_bytes().splitlines(keepends=True)) == sorted(lines)


def test_a_stop_keeps_what_was_answered(tiny: Path, tmp_path: Path) -> None:
    """Asked to stop, it ends between two batches, and the next attempt does not ask those again."""
    work, ear = workplace(tmp_path / "scores")
    ear.event = lambda kind, stage, **fields: work.stop.set()  # type: ignore[method-assign]
    made = config()
    with pytest.raises(Interrupted):
        evaluate.run(made, given(made, tiny), work)
    first = list(jsonl.iter_rows(work.dir / "rows.jsonl"))
    assert len(first) == 4
    rows, _, _ = evaluated(work.dir, tiny)
    assert [row for row in rows if row in first] == first


def test_a_set_may_be_for_some_models_and_have_limits_of_its_own(tiny: Path, tmp_path: Path) -> None:
    """`models`, `max_new_tokens` and `pass_at` of a set; the scores of a set nobody else was asked are one
    model's alone."""
    short = {**HELD_OUT, "models": ["zero"], "max_new_tokens": 5, "samples": 3, "pass_at": [3]}
    rows, metrics, _ = evaluated(tmp_path / "scores", tiny, sets={"held-out": HELD_OUT, "short": short})
    assert {name: list(sets) for name, sets in metrics["models"].items()} == {
        "base": ["held-out"],
        "zero": ["held-out", "short"],
    }
    lengths = {
        name: max(row["tokens"] for row in rows if row["set"] == name) for name in ("held-out", "short")
    }
    assert lengths == {"held-out": 16, "short": 5}
    assert list(metrics["models"]["zero"]["short"]["pass_at_k"]) == ["3"]
    assert list(metrics["models"]["zero"]["held-out"]["pass_at_k"]) == ["1", "2"]


def test_a_word_may_forbid_another(tiny: Path, tmp_path: Path) -> None:
    """Greedy decoding shows which token the model gives after which; once it is forbidden, it never does."""

    def pairs(folder: str, **more: Any) -> list[tuple[str, str]]:
        sets = {"held-out": {**HELD_OUT, **more, "samples": 1}}
        rows, _, _ = evaluated(tmp_path / folder, tiny, models="base", sets=sets, temperature=0)
        return [pair for row in rows for pair in pairwise(["<think>", *row["completion"].split()])]

    before, after = pairs("free")[0]
    held = pairs("held", forbid={"after": [before, "wait"], "token": after})
    assert (before, after) not in held
    assert before in [first for first, _ in held]


def test_forbidden_words_are_tokens(tiny: Path) -> None:
    """The words for `no` of both languages, each forbidding `</think>`; what is no word of the tokenizer, or
    several, is refused with its name."""
    tokenizer = build_tokenizer(64)
    ids = {word: tokenizer.convert_tokens_to_ids(word) for word in ("no", "bu", "</think>")}
    assert {LANGUAGES["en"]["no"], LANGUAGES["zh"]["no"]} == {"no", "bu"}
    candidate = evaluate.Candidate("base", tiny, CheckpointReader.of(tiny))
    banned = evaluate.forbidden(evaluate.Forbid(after=["no", "bu"]), candidate, "persist")
    assert banned == {ids["no"]: ids["</think>"], ids["bu"]: ids["</think>"]}
    for word, is_ in (("nein", "an unknown word"), ("no wait", "2 tokens")):
        with pytest.raises(UsageError, match=f"`sets.persist.forbid`.* {word!r} is {is_} to .* of 'base'"):
            evaluate.forbidden(evaluate.Forbid(after=[word]), candidate, "persist")


def rows_file(path: Path, *questions: str) -> dict[str, Any]:
    path.write_text("".join(json.dumps({"question": q, "answer": "red"}) + "\n" for q in questions))
    return {"name": "jsonl", "path": str(path), "reasoning": False}


def test_what_cannot_be_asked_is_set_aside_for_all(tiny: Path, tmp_path: Path) -> None:
    """A prompt too long for one model's context is asked nobody; the rows beside it are, and it is said."""
    roomy = tmp_path / "roomy"
    shutil.copytree(tiny, roomy)
    settings = json.loads((roomy / "config.json").read_text())
    (roomy / "config.json").write_text(json.dumps({**settings, "max_position_embeddings": 256}))
    task = rows_file(tmp_path / "rows.jsonl", "copy red", "copy " + "red " * 60)
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write("not JSON\n")
    made = config(sets={"own": {"task": task, "samples": 1}})
    work, ear = workplace(tmp_path / "scores")
    outcome = evaluate.run(made, given(made, tiny, roomy), work)
    assert [row["question"] for row in jsonl.iter_rows(outcome.path)] == ["copy red", "copy red"]
    aside = list(jsonl.iter_rows(outcome.path / "set-aside.jsonl"))
    assert [row["set"] for row in aside] == ["own", "own"]
    assert aside[0]["reason"] == "the prompt has 63 tokens, and there is room for 48"
    assert aside[1]["line"] == 3
    assert outcome.metrics["set_aside"] == 2
    assert "Set 'own': 2 problems are set aside, for every model." in ear.said
    assert "Set 'own': 2 problems, as the task's split has no more." in ear.said


def test_no_room_for_any_prompt(tiny: Path, tmp_path: Path) -> None:
    """A limit as long as the context leaves no room: one message with the way out, before anyone is asked."""
    with pytest.raises(UsageError, match=r"No prompt of set 'held-out' can be asked.*`max_new_tokens` lower"):
        evaluated(tmp_path / "scores", tiny, max_new_tokens=64)


def test_a_model_without_a_chat_template_is_named(tiny: Path, tmp_path: Path) -> None:
    """The message says which of the models it is, before anyone is asked."""
    plain = tmp_path / "plain"
    shutil.copytree(tiny, plain)
    (plain / "chat_template.jinja").unlink()
    made = config()
    work, ear = workplace(tmp_path / "scores")
    with pytest.raises(UsageError, match="Model 'zero': The template 'chat' needs a tokenizer with a chat"):
        evaluate.run(made, given(made, tiny, plain), work)
    assert ear.events == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ["base", "base"]}, "`models` names base twice"),
        ({"models": []}, "at least 1 item"),
        ({"sets": {}}, "at least 1 item"),
        (
            {"sets": {"more": {**HELD_OUT, "models": ["r1"]}}},
            "`sets.more.models` names r1; the stage's models are base, zero",
        ),
        ({"sets": {"more": {**HELD_OUT, "pass_at": [1, 4]}}}, "pass_at 4 needs as many samples, .* is 2"),
        (
            {"sets": {"more": {**HELD_OUT, "task": {"name": "countdown", "count": 5}}}},
            "`task.count` has no use here; set `problems`",
        ),
    ],
)
def test_configs_that_are_refused(changes: dict[str, Any], message: str) -> None:
    """Each says what to write instead."""
    with pytest.raises(ValidationError, match=message):
        config(**changes)


def test_models_alone_are_enough() -> None:
    """600 held-out countdown problems, 4 samples each, are what is asked when nothing is said."""
    sets = evaluate.Config(models=["base"]).sets
    (held_out,) = sets.values()
    assert list(sets) == ["held-out"]
    assert (held_out.problems, held_out.samples, held_out.task.chosen_split) == (600, 4, "held-out")
