"""General data: open questions, a teacher's answers to them, and a preference model that chooses among those.

The teacher is a real server on the loopback, the preference model a real classifier with random weights.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from r1pipe import jsonl
from r1pipe.curate.traces import validated
from r1pipe.errors import Interrupted, RunFailed, UsageError
from r1pipe.rollout.preferring import Preferring
from r1pipe.stage import Outcome, references
from r1pipe.train.preference import PreferenceModel
from stages import rl, sample
from tests import curating, small_rl
from tests.rollout.test_teacher import Message, Teacher, reply, teaching
from tests.stages.test_evaluate import evaluated
from tests.stages.test_sample import published, scripted
from tests.tiny_model import Ear, inputs, workplace, write_classifier

WORDS = ("red", "blue", "green", "ada", "wei", "hello", "copy", "sort")
PROMPTS = [f"greet {word}" for word in WORDS]


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A preference model."""
    return write_classifier(tmp_path_factory.mktemp("judge"))


def prompts(folder: Path, rows: Sequence[dict[str, Any]] | None = None) -> str:
    """A file of open questions."""
    path = folder / "prompts.jsonl"
    jsonl.write_rows(path, rows or [{"id": each.split()[1], "prompt": each} for each in PROMPTS])
    return str(path)


def general(
    folder: Path, tiny: Path, judge: Path | None = None, *, stop_after: int | None = None, **changes: Any
) -> tuple[Outcome, Ear]:
    """Sample answers to open questions, directly unless told otherwise."""
    folder.mkdir(exist_ok=True)
    task = {"name": "open", "path": prompts(folder.parent), "reasoning": False, **changes.pop("task", {})}
    engine = {} if changes.keys() & {"teacher", "answers"} else {"engine": "transformers"}
    told = {"model": "base", "task": task, "template": "chat", "max_new_tokens": 24, **engine, **changes}
    given = {"model": tiny}
    if judge is not None:
        told["preference_model"] = "judge"
        given["preference_model"] = judge
    work, ear = workplace(folder, stop_after=stop_after)
    return sample.run(sample.Config.model_validate(told), inputs(**given), work), ear


def rows_of(outcome: Outcome) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(kept, rejected), all valid by the schema."""
    kept = list(jsonl.iter_rows(outcome.path))
    rejected = list(jsonl.iter_rows(outcome.path / "rejects.jsonl"))
    for row in [*kept, *rejected]:
        validated({key: value for key, value in row.items() if key != "rejected"})
    return kept, rejected


def chatter(question: str, place: int) -> str | None:
    """Eight answers in turn, each another text."""
    return " ".join(WORDS[place % 8 :]) + f" {place}"


# --- A teacher


def poet(body: Message, number: int) -> tuple[int, Any]:
    """Thinks about some questions, and answers all."""
    word = body["messages"][-1]["content"].split()[1]
    thinking = {"reasoning_content": f"so {word} it is"} if word in WORDS[:4] else {}
    return reply({"content": f"hello {word}", **thinking})


def taught(folder: Path, tiny: Path, server: Teacher, **changes: Any) -> Outcome:
    teacher = {"url": server.url, "model": "v3", "concurrency": 4}
    return general(folder, tiny, teacher=teacher, **changes)[0]


def test_a_teacher_answers_directly(tiny: Path, tmp_path: Path) -> None:
    """Without `reasoning` the text is the whole completion; one that thinks unasked has not the form."""
    with teaching(poet) as server:
        kept, rejected = rows_of(taught(tmp_path / "direct", tiny, server))
    assert {row["completion"] for row in kept} == {f"hello {word}" for word in WORDS[4:]}
    for row in kept:
        assert (row["thinking"], row["reasoning"], row["opened"]) == (None, False, False)
        assert (row["verdict"], row["reason"], row["verifier"]) == ("unjudged", "no rule", "open")
        assert (row["answer"], row["pass_rate"], row["preference"]) == (None, None, None)
    assert [row["rejected"] for row in rejected] == ["not well formed"] * 4


def test_a_teachers_thinking_is_kept(tiny: Path, tmp_path: Path) -> None:
    """With `reasoning` the thinking stands before the answer, and an answer without one is refused."""
    with teaching(poet) as server:
        changes = {"task": {"reasoning": True}, "keep": {"well_formed": False}}
        kept, rejected = rows_of(taught(tmp_path / "thinking", tiny, server, **changes))
    assert {row["completion"] for row in kept} == {
        f"so {word} it is\n</think>\n\nhello {word}" for word in WORDS[:4]
    }
    assert {(row["thinking"], row["response"], row["verdict"]) for row in kept} == {
        (f"so {word} it is", f"hello {word}", "unjudged") for word in WORDS[:4]
    }
    assert [row["rejected"] for row in rejected] == ["wrong: thinking not closed"] * 4


def test_a_rule_judges(tiny: Path, tmp_path: Path) -> None:
    """Where there is a rule, answers pass or fail by it, and it may be a row's own."""
    rows = [{"prompt": each, "rule": {"contains": "ada"}} for each in PROMPTS[4:]]
    path = prompts(tmp_path, [*({"prompt": each} for each in PROMPTS[:4]), *rows])
    with teaching(lambda body, number: reply({"content": "hello wei"})) as server:
        changes = {"task": {"path": path, "rule": {"contains": "wei"}}}
        teacher = {"url": server.url, "model": "v3"}
        told = {"name": "open", "reasoning": False, **changes["task"]}
        work, _ = workplace(tmp_path / "ruled")
        config = {"model": "base", "task": told, "template": "chat", "teacher": teacher}
        outcome = sample.run(sample.Config.model_validate(config), inputs(model=tiny), work)
    kept, rejected = rows_of(outcome)
    assert [(row["verdict"], row["answer"], row["pass_rate"]) for row in kept] == [
        ("pass", "hello wei", 1.0)
    ] * 4
    assert [row["rejected"] for row in rejected] == ["wrong: does not contain 'ada'"] * 4


# --- A preference model


def test_scores_are_the_models(
    tiny: Path, judge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each score is 1 / (1 + e^-logit) of question and answer; what is no answer is not asked about."""
    scripted(monkeypatch, lambda question, place: chatter(question, place) if place % 4 else None)
    outcome, ear = general(tmp_path / "one", tiny, judge, samples=2)
    kept, rejected = rows_of(outcome)
    model = PreferenceModel(judge, batch=16, max_tokens=64, device=lambda: torch.device("cpu"))
    logits = torch.tensor(model([(row["question"], row["completion"]) for row in kept]))
    assert [row["preference"] for row in kept] == pytest.approx(torch.sigmoid(logits).tolist(), abs=1e-5)
    assert len({round(row["preference"], 4) for row in kept}) == 12, "scores that are alike prove nothing"
    assert [(row["rejected"], row["preference"]) for row in rejected] == [("truncated", None)] * 4
    assert ear.rows[-1]["accuracy"] == 0.0, "those that were cut off failed; the others count in no rate"


def test_the_least_score(tiny: Path, judge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What scores less is rejected with the reason, its score beside it, and all counts add up."""
    scripted(monkeypatch, chatter)
    kept, _ = rows_of(general(tmp_path / "all", tiny, judge, samples=2)[0])
    least = sorted(row["preference"] for row in kept)[6]
    scripted(monkeypatch, chatter)
    outcome, _ = general(tmp_path / "good", tiny, judge, samples=2, keep={"preference": least})
    good, poor = rows_of(outcome)
    assert [row["id"] for row in good] == [row["id"] for row in kept if row["preference"] >= least]
    assert len(good) == 10 and outcome.metrics["rejected"] == {f"preference under {least:g}": 6}
    assert all(row["preference"] < least for row in poor)


def test_the_best_of_a_problem(
    tiny: Path, judge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four answers the one that the model likes best, whatever its length."""
    scripted(monkeypatch, chatter)
    outcome, _ = general(tmp_path / "best", tiny, judge, samples=4, keep={"per_problem": 1, "prefer": "best"})
    best, others = rows_of(outcome)
    assert len(best) == 8 and len(others) == 24
    for row in best:
        rivals = [each["preference"] for each in others if each["problem_id"] == row["problem_id"]]
        assert len(rivals) == 3 and row["preference"] > max(rivals)
    assert {row["rejected"] for row in others} == {"not among the best 1 of its problem"}


def test_rounds_go_on_until_an_answer_is_liked(
    tiny: Path, judge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt is asked on while none of its answers scores enough."""
    scripted(monkeypatch, chatter)
    kept, _ = rows_of(general(tmp_path / "all", tiny, judge, samples=1)[0])
    least = sorted(row["preference"] for row in kept)[4]
    scripted(monkeypatch, lambda question, place: chatter(question, place))
    outcome, _ = general(tmp_path / "on", tiny, judge, samples=1, most=3, keep={"preference": least})
    good, poor = rows_of(outcome)
    asked = {row["problem_id"]: row["sample"] for row in [*poor, *good] if row["sample"] > 0}
    liked = {row["problem_id"] for row in kept if row["preference"] >= least}
    assert asked and not asked.keys() & liked


def test_a_stop_changes_nothing(tiny: Path, judge: Path, tmp_path: Path) -> None:
    """A sampling that was stopped after a batch ends with the same files, scores included."""
    changes: dict[str, Any] = {
        "samples": 2,
        "batch": 4,
        "keep": {"well_formed": False, "correct": False, "untruncated": False},
    }
    general(tmp_path / "whole", tiny, judge, **changes)
    with pytest.raises(Interrupted):
        general(tmp_path / "parts", tiny, judge, stop_after=8, **changes)
    general(tmp_path / "parts", tiny, judge, **changes)
    assert published(tmp_path / "whole") == published(tmp_path / "parts")
    scores = [row["preference"] for row in jsonl.iter_rows(tmp_path / "whole" / "published")]
    assert len(scores) == 16 and len({round(score, 3) for score in scores}) > 8


def test_the_files_own_answers_may_be_scored(tiny: Path, judge: Path, tmp_path: Path) -> None:
    """`answers: gold` takes them as they are; a question without one is told."""
    rows = [{"prompt": each, "answer": f"hello {each.split()[1]}"} for each in PROMPTS]
    jsonl.write_rows(tmp_path / "own.jsonl", rows)
    task = {"path": str(tmp_path / "own.jsonl")}
    kept, _ = rows_of(general(tmp_path / "gold", tiny, judge, answers="gold", task=task)[0])
    assert {row["completion"].strip() for row in kept} == {row["answer"] for row in rows}
    assert {row["source"] for row in kept} == {"gold"}
    assert all(0 < row["preference"] < 1 for row in kept)
    with pytest.raises(UsageError, match=r"the right answer of 'red' is none; set answers: model"):
        jsonl.write_rows(tmp_path / "own.jsonl", [{"id": "red", "prompt": "greet red"}])
        general(tmp_path / "none", tiny, answers="gold", task=task)


@pytest.mark.parametrize("keep", [{"preference": 0.5}, {"per_problem": 1, "prefer": "best"}])
def test_somebody_has_to_be_asked(keep: dict[str, Any]) -> None:
    """A least score, or the best, without a model to say so."""
    with pytest.raises(ValidationError, match="needs `preference_model`"):
        sample.Config.model_validate({"model": "base", "task": "countdown", "keep": keep})


def test_the_preference_model_is_an_input() -> None:
    """It is resolved, fingerprinted and recorded as a parent."""
    made = sample.Config.model_validate({"model": "base", "task": "countdown", "preference_model": "judge"})
    assert ("preference_model", "judge") in [(each.role, each.value) for each in references(made)]


def test_a_score_that_is_no_number(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is made up for it: the completion is named, and the stage ends."""
    scripted(monkeypatch, chatter)
    kept, _ = rows_of(general(tmp_path / "one", tiny)[0])
    preferring = Preferring(
        lambda pairs: [float("nan")] * len(pairs), sample.Config.model_fields["keep"].default
    )
    with pytest.raises(RunFailed, match=f"no number for completion '{kept[0]['id']}'"):
        preferring.scored(kept)  # type: ignore[arg-type]


# --- What learns from it, and what measures


def test_rl_needs_somebody_who_judges(tiny: Path, judge: Path, tmp_path: Path) -> None:
    """Without a rule and without a preference model there is nothing to learn from; with one there is."""
    task = {"name": "open", "path": prompts(tmp_path), "reasoning": False}
    work, ear = workplace(tmp_path / "refused")
    with pytest.raises(UsageError, match=r"Nothing judges answers to item .* Give `preference` a weight"):
        rl.run(small_rl.config(task=task), inputs(model=tiny), work)
    assert ear.rows == []
    work, ear = workplace(tmp_path / "taught")
    rewards = {"accuracy": 1.0, "preference": 1.0}
    made = small_rl.config(task=task, rewards=rewards, preference_model="judge")
    outcome = rl.run(made, inputs(model=tiny, preference_model=judge), work)
    assert outcome.metrics["preference_spread"] > 0
    row = ear.rows[-1]
    assert row["undecided"] == 0 and not row.get("accuracy")
    assert "Check of 8 items of open: it knows no right answer to try" in ear.said


def test_rl_with_a_rule(tiny: Path, tmp_path: Path) -> None:
    """A rule is a judge like any other; that unrelated words keep it is no fault of an open question."""
    task = {"name": "open", "path": prompts(tmp_path), "reasoning": False, "rule": {"at_most": 3}}
    work, ear = workplace(tmp_path / "short")
    rl.run(small_rl.config(task=task), inputs(model=tiny), work)
    assert "accuracy" in ear.rows[-1]


def test_an_evaluation_counts_them_in_no_rate(tiny: Path, tmp_path: Path) -> None:
    """They are told apart from right ones and wrong ones, and it is said."""
    task = {"name": "open", "path": prompts(tmp_path), "reasoning": False, "truncated": "undecided"}
    sets = {"talk": {"task": task, "problems": 8, "samples": 2}}
    rows, metrics, ear = evaluated(tmp_path / "scores", tiny, models=["base"], sets=sets, max_new_tokens=40)
    scores = metrics["models"]["base"]["talk"]
    unjudged = sum(row["verdict"] == "unjudged" for row in rows)
    assert unjudged > 0 and scores["unjudged"] == unjudged
    assert scores["pass_at_1"] == (0.0 if any(row["verdict"] == "fail" for row in rows) else None)
    assert f"Set 'talk': nothing judges {unjudged} of 16 answers, which are in no rate" in ear.said


# --- The paper's fifth


def test_a_fifth_of_the_data(
    tiny: Path, judge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe of docs/traces.md, small: the best answer to each open question, mixed with reasoning traces
    at a quarter; the steps before judge the traces alone, those after see all."""
    scripted(monkeypatch, chatter)
    keep = {"preference": 0.01, "per_problem": 2, "prefer": "best"}
    outcome, _ = general(tmp_path / "general", tiny, judge, samples=4, keep=keep)
    assert outcome.metrics["kept"] == 16
    talk = curating.write(tmp_path / "talk.jsonl", list(jsonl.iter_rows(outcome.path)))
    traces = curating.write(
        tmp_path / "traces.jsonl",
        [curating.row(n, verdict="fail" if n >= 12 else "pass") for n in range(14)],
    )
    steps = [
        "correct",
        {"name": "mix", "data": str(talk), "share": 0.25},
        {"name": "cap", "count": 1, "prefer": "best"},
    ]
    made, _ = curating.run(tmp_path / "set", traces, steps=steps)
    rows = curating.kept(made)
    assert [row["verdict"] for row in rows].count("pass") == 12
    assert 1 <= [row["verdict"] for row in rows].count("unjudged") <= 4
    told = {step["name"]: step for step in made.metrics["steps"]}
    assert told["correct"]["rejected"] == {"wrong": 2}
    assert told["mix"]["rejected"] == {"beyond what is mixed in": 12}
    assert all(row["preference"] is not None for row in rows if row["task"] == "open")


def test_steps_on_open_rows(tmp_path: Path) -> None:
    """`correct` takes them for rows without a verdict, `preference` and `best` go by their score."""
    scores = [0.9, 0.2, None, 0.6]
    rows = [
        curating.row(n, problem_id="p", verdict="unjudged", preference=score, gold=None)
        for n, score in enumerate(scores)
    ]
    file = curating.write(tmp_path / "rows.jsonl", rows)
    outcome, _ = curating.run(
        tmp_path / "a", file, steps=[{"name": "correct", "unjudged": True}, "preference"]
    )
    assert [row["preference"] for row in curating.kept(outcome)] == [0.9, None, 0.6]
    assert [(each["reason"], each["evidence"]) for each in curating.ledger(outcome)] == [
        ("low preference", 0.2)
    ]
    with pytest.raises(RunFailed, match=r"correct: 4 of 4 \(no verdict 4\)"):
        curating.run(tmp_path / "b", file, steps=["correct"])
    best, _ = curating.run(tmp_path / "c", file, steps=[{"name": "cap", "count": 3, "prefer": "best"}])
    assert [row["preference"] for row in curating.kept(best)] == [0.9, 0.2, 0.6]
    columns = {"preference": "quality.help"}
    foreign = [
        {"prompt": f"q{n}", "completion": f"a{n}", "quality": {"help": score}}
        for n, score in enumerate((3, -2))
    ]
    file = curating.write(tmp_path / "foreign.jsonl", foreign)
    steps = [{"name": "preference", "at_least": -1}]
    liked, _ = curating.run(tmp_path / "d", file, steps=steps, columns=columns)
    assert [row["prompt"] for row in curating.kept(liked)] == ["q0"]
