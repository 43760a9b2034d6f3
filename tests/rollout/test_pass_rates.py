"""Pass rates: which prompts are left out and why, and that a measurement that was stopped goes on."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from r1pipe import jsonl
from r1pipe.measure.samples import SampleRow
from r1pipe.rollout import Rollout, Sampling
from r1pipe.rollout.asking import Question
from r1pipe.rollout.pass_rates import PassRate, Rate, Rates, key_of
from r1pipe.tasks import Item, Task
from r1pipe.train import prompts
from r1pipe.verify.verdict import Mark, Verdict
from tests.tiny_model import workplace


class Scripted(Task):
    """A task that nobody has to answer: `Model` gives the verdicts."""

    name = "scripted"

    def items(self, split: str, count: int | None, seed: int) -> list[Item]:
        raise NotImplementedError

    def judge_answer(self, item: Item, answer: str) -> Verdict:
        raise NotImplementedError


TASK = Scripted()


def question(name: str) -> Question:
    return Question(TASK, Item(name, "q", "a"), "q", [1])


class Model:
    """Passes, fails or leaves undecided by a script, a letter a sample; stops where it is told to."""

    def __init__(self, script: dict[str, str], stop_after: int | None = None) -> None:
        self.script = script
        self.stop_after = stop_after
        self.asked: list[list[tuple[str, int]]] = []

    def __call__(self, pairs: Sequence[tuple[Question, int]]) -> list[SampleRow]:
        if len(self.asked) == self.stop_after:
            raise KeyboardInterrupt
        self.asked.append([(each.item.id, sample) for each, sample in pairs])
        marks = {"p": Mark.PASS, "f": Mark.FAIL, "u": Mark.UNDECIDED}
        rows = []
        for each, sample in pairs:
            row = each.judged(sample, "", tokens=1, truncated=True)
            rows.append(SampleRow(**row | {"verdict": marks[self.script[each.item.id][sample]].value}))  # type: ignore[typeddict-item]
        return rows


@pytest.mark.parametrize(
    ("passed", "decided", "reason"),
    [
        (0, 4, "too hard: solved 0 of 4 times"),
        (1, 4, None),
        (3, 4, None),
        (4, 4, "too easy: solved 4 of 4 times"),
        (1, 1, "too easy: solved 1 of 1 times"),
        (0, 0, "no verdict on it could be decided"),
    ],
)
def test_reasons(passed: int, decided: int, reason: str | None) -> None:
    """Bounds of 1/4 and 3/4 belong to what is kept; a prompt that nobody could judge is not kept."""
    assert Rate(passed, decided).reason_against(PassRate(least=0.25, most=0.75)) == reason


def test_the_defaults_leave_out_what_has_no_spread() -> None:
    """Eight samples: never and always solved go, one of eight and seven of eight stay."""
    bounds = PassRate()
    kept = [passed for passed in range(9) if Rate(passed, bounds.samples).reason_against(bounds) is None]
    assert kept == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    "wrong", [{"least": 0.5, "most": 0.4}, {"samples": 0}, {"most": 1.1}, {"least": -0.1}, {"lest": 0.1}]
)
def test_bounds_that_keep_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        PassRate.model_validate(wrong)


def test_a_measurement(tmp_path: Path) -> None:
    """Four prompts, one of them twice: each is asked once, two at a time, and the undecided do not count."""
    bounds = PassRate(samples=2, least=0.1, most=0.9)
    rates = Rates(tmp_path / "rates.jsonl", bounds)
    model = Model({"easy": "pp", "hard": "ff", "half": "pf", "blind": "uu"})
    questions = [question(name) for name in ("easy", "hard", "easy", "half", "blind")]
    assert list(rates.measure(questions, model, batch=5)) == [(2, 4), (4, 4)]
    assert model.asked == [
        [("easy", 0), ("easy", 1), ("hard", 0), ("hard", 1)],
        [("half", 0), ("half", 1), ("blind", 0), ("blind", 1)],
    ]
    assert [(row["task"], row["id"], row["passed"], row["decided"]) for row in rates.rows()] == [
        ("scripted", "easy", 2, 2),
        ("scripted", "hard", 0, 2),
        ("scripted", "half", 1, 2),
        ("scripted", "blind", 0, 0),
    ]
    assert [row["left_out"] for row in rates.rows()] == [
        "too easy: solved 2 of 2 times",
        "too hard: solved 0 of 2 times",
        None,
        "no verdict on it could be decided",
    ]
    assert [rates.reason_against(each) is None for each in questions] == [False, False, False, True, False]


def test_a_batch_smaller_than_a_prompts_samples(tmp_path: Path) -> None:
    """All samples of a prompt are asked at once, even where a batch has fewer: a prompt at a time."""
    model = Model({"a": "pf", "b": "pf"})
    rates = Rates(tmp_path / "rates.jsonl", PassRate(samples=2))
    assert list(rates.measure([question("a"), question("b")], model, batch=1)) == [(1, 2), (2, 2)]


def test_half_a_line_is_measured_again(tmp_path: Path) -> None:
    """A kill in the middle of a write leaves half a row: that prompt is asked again, no other is."""
    journal = tmp_path / "rates.jsonl"
    script = {"a": "pf", "b": "ff", "c": "pp"}
    questions = [question(name) for name in script]
    whole = Rates(journal, PassRate(samples=2))
    list(whole.measure(questions, Model(script), batch=2))
    journal.write_bytes(journal.read_bytes()[:-9])
    again, model = Rates(journal, PassRate(samples=2)), Model(script)
    assert list(again.measure(questions, model, batch=2)) == [(3, 3)]
    assert model.asked == [[("c", 0), ("c", 1)]]
    assert again.rows() == whole.rows()


def test_what_two_processes_measured_all_know_alike(tmp_path: Path) -> None:
    """Whichever journal is a process's own, the last one by name counts."""
    bounds = PassRate(samples=2)
    zero, one = tmp_path / "pass-rates.0.jsonl", tmp_path / "pass-rates.1.jsonl"
    list(Rates(zero, bounds).measure([question("a")], Model({"a": "ff"}), batch=2))
    list(Rates(one, bounds).measure([question("a")], Model({"a": "pf"}), batch=2))
    known = [Rates(own, bounds, [other]).rows() for own, other in ((zero, one), (one, zero))]
    assert known[0] == known[1] and [row["passed"] for row in known[0]] == [1]


def test_two_ranks_measure_no_prompt_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts that come again, at places of both ranks: each is asked by one rank alone."""
    asked: list[list[int]] = []

    class Noting:
        def generate(self, given: list[list[int]], sampling: Sampling, *, seeds: list[int]) -> list[Rollout]:
            asked.append([ids[0] for ids in given])
            return [Rollout([1], "stop") for _ in given]

        def rest(self) -> None: ...

    monkeypatch.setattr(prompts.ranks, "count", lambda: 2)
    monkeypatch.setattr(prompts, "decode_completions", lambda tokenizer, ids: [""] * len(ids))
    monkeypatch.setattr(
        prompts,
        "judged_rows",
        lambda batch: Model(dict.fromkeys("abc", "p"))([(each, sample) for each, sample, _ in batch]),
    )
    questions = [Question(TASK, Item(name, "q", "a"), "q", [ord(name)]) for name in "abcabc"]
    work, _ = workplace(tmp_path / "zero")
    for rank in (0, 1):
        prompts.measure_pass_rates(
            PassRate(samples=1),
            questions,
            Noting(),  # type: ignore[arg-type]
            None,  # type: ignore[arg-type]
            Sampling(4),
            replace(work, rank=rank),
            batch=8,
        )
    assert asked == [[ord("a"), ord("c")], [ord("b")]]


outcomes = st.lists(st.text("pfu", min_size=3, max_size=3), min_size=1, max_size=12)


@given(outcomes, st.integers(1, 20), st.integers(0, 6), st.randoms())
def test_a_stop_loses_and_doubles_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    scripts: list[str],
    batch: int,
    stop_after: int,
    rng: random.Random,
) -> None:
    """Whatever the verdicts and wherever it stops, both runs together ask every sample once, and the rates
    are those of a run that was not stopped: counted here a letter at a time."""
    script = {f"q{i}": letters for i, letters in enumerate(scripts)}
    questions = [question(name) for name in script for _ in range(rng.randint(1, 2))]
    rng.shuffle(questions)
    journal = tmp_path_factory.mktemp("rates") / "rates.jsonl"
    first, second = Model(script, stop_after), Model(script)
    try:
        _measured(journal, questions, first, batch)
    except KeyboardInterrupt:
        assert len(first.asked) == stop_after
    rates = _measured(journal, questions, second, batch)
    asked = [pair for each in first.asked + second.asked for pair in each]
    assert sorted(asked) == sorted((name, sample) for name in script for sample in range(3))
    counts = {row["id"]: (row["passed"], row["decided"]) for row in rates.rows()}
    assert counts == {name: (letters.count("p"), 3 - letters.count("u")) for name, letters in script.items()}
    assert len(jsonl.read_rows(journal)[0]) == len(script)


def _measured(journal: Path, questions: Sequence[Question], model: Model, batch: int) -> Rates:
    rates = Rates(journal, PassRate(samples=3))
    list(rates.measure(questions, model, batch=batch))
    return rates


def test_a_prompt_is_named_by_task_and_id() -> None:
    """Two tasks may use one id for different problems."""
    assert key_of(question("a")) == ("scripted", "a")
