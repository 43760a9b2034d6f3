"""Tasks by name, and mixtures of them."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from r1pipe.errors import UsageError
from r1pipe.tasks import TaskSpec, mixture, task_spec
from r1pipe.tasks.countdown import Countdown, CountdownSpec
from r1pipe.tasks.documents import Documents


def _spec(value: Any) -> TaskSpec:
    return task_spec(value)


def test_bare_name() -> None:
    """A bare name is the task with its defaults."""
    assert _spec("countdown") == CountdownSpec()
    assert _spec("countdown").make() == Countdown()
    assert _spec({"name": "documents", "truncated": "undecided"}).make() == Documents("undecided")


@pytest.mark.parametrize(
    ("value", "split"),
    [
        ("countdown", "seen"),
        ("documents", "seen"),
        ({"name": "countdown", "numbers": 4}, "held-out"),
        ({"name": "jsonl", "path": "a.jsonl"}, "all"),
        ({"name": "countdown", "split": "all"}, "all"),
    ],
)
def test_chosen_split(value: Any, split: str) -> None:
    """Held-out problems are never the default, but for the tier that is held out whole."""
    assert _spec(value).chosen_split == split


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("coutdown", "there is no task 'coutdown'; did you mean 'countdown'\\? there are countdown, "),
        ({"name": "countdown", "path": "a.jsonl"}, "takes no 'path'; it belongs to tasks 'jsonl', 'math', "),
        ({"name": "documents", "numbers": 4}, "belongs to task 'countdown'"),
        ({"name": "math", "path": "a", "isolation": "limits-only"}, "belongs to task 'code'"),
        ({"name": "jsonl"}, "needs a path or a dataset, and not both"),
        ({"name": "math", "path": "a.jsonl", "dataset": "openai/gsm8k"}, "and not both"),
        ({"name": "countdown", "numbers": 4, "split": "seen"}, "held-out"),
        ({"name": "countdown", "numbers": 7}, "less than or equal to 6"),
        ({"name": "gym:"}, "name a generator"),
        ({"name": "gym:chain_sum", "config": {"size": 5}}, "beside `config`"),
        ({"name": "math", "path": "a.jsonl", "judge": "exact"}, "'math'"),
        ({"name": "countdown", "split": "test"}, "held-out"),
        ({"name": "countdown", "weight": 0}, "greater than 0"),
        ({"name": "countdown", "wieght": 1}, "wieght"),
    ],
)
def test_bad_specs(value: Any, message: str) -> None:
    """A spec that contradicts itself, or sets what its task does not have, is refused with what is meant."""
    with pytest.raises(ValidationError, match=message):
        _spec(value)


def test_resolved_spec_is_valid() -> None:
    """A spec written out in full, as run.json holds it, is the same spec."""
    for spec in (_spec("documents"), _spec({"name": "countdown", "numbers": 4})):
        assert _spec(spec.model_dump()) == spec


def test_mixture_follows_weights() -> None:
    """Every stretch holds the tasks by their weights: of three to one, every four items are three and one."""
    specs = [_spec({"name": "countdown", "weight": 3}), _spec("documents")]
    names = [task.name for task, _ in mixture(specs, 400, 0)]
    for start in range(0, 400, 4):
        assert Counter(names[start : start + 4]) == {"countdown": 3, "documents": 1}


def test_mixture_is_a_function_of_seed_and_index() -> None:
    """A longer mixture starts with the shorter one; another seed gives another."""
    specs = [_spec("countdown"), _spec({"name": "documents", "weight": 0.3})]
    ids = [item.id for _, item in mixture(specs, 300, 1)]
    assert ids[:100] == [item.id for _, item in mixture(specs, 100, 1)]
    assert ids[:100] != [item.id for _, item in mixture(specs, 100, 2)]


def test_count_bounds_the_different_items() -> None:
    """A spec's count is how many different items it has; they come again in the same order."""
    ids = [item.id for _, item in mixture([_spec({"name": "countdown", "count": 10})], 25, 0)]
    assert len(set(ids)) == 10
    assert ids[:10] + ids[:10] + ids[:5] == ids


def test_without_count_each_spec_comes_once() -> None:
    """An evaluation over several tasks takes each one's items, one task after the other."""
    specs = [_spec({"name": "countdown", "count": 5}), _spec({"name": "documents", "count": 3})]
    assert [task.name for task, _ in mixture(specs, None, 0)] == ["countdown"] * 5 + ["documents"] * 3


def test_no_tasks() -> None:
    """An empty mixture is a usage error."""
    with pytest.raises(UsageError, match="at least one"):
        mixture([], 10, 0)


def test_rows_in_a_mixture(tmp_path: Path) -> None:
    """Rows of one's own mix with the other tasks."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "1 + 1", "answer": "2"}\n')
    items = mixture([_spec({"name": "jsonl", "path": str(path)}), _spec("countdown")], 4, 0)
    assert [task.name for task, _ in items] == ["jsonl", "countdown", "jsonl", "countdown"]


def test_an_id_names_one_problem(tmp_path: Path) -> None:
    """Two files that both number their rows from 1 would pass for the same problems."""
    specs = []
    for name, answer in (("a", "2"), ("b", "3")):
        path = tmp_path / f"{name}.jsonl"
        path.write_text(f'{{"id": 1, "question": "{name}", "answer": "{answer}"}}\n')
        specs.append(_spec({"name": "jsonl", "path": str(path)}))
    assert len(mixture([specs[0], specs[0]], 4, 0)) == 4
    assert len(mixture([_spec("countdown")], 4000, 0)) == 4000  # more than there are: some are asked again
    for count in (2, None):
        with pytest.raises(UsageError, match="Two problems have the id '1': 'a' and 'b'"):
            mixture(specs, count, 0)


def test_an_id_with_another_question_or_answer(tmp_path: Path) -> None:
    """Either of them makes it another problem."""
    for rows in (
        (
            '{"id": 1, "question": "capital of France?", "answer": "A"}',
            '{"id": 1, "question": "largest planet?", "answer": "A"}',
        ),
        ('{"id": 1, "question": "a", "answer": "A"}', '{"id": 1, "question": "a", "answer": "B"}'),
    ):
        specs = []
        for number, row in enumerate(rows):
            path = tmp_path / f"{number}.jsonl"
            path.write_text(row)
            specs.append(_spec({"name": "exact", "path": str(path)}))
        with pytest.raises(UsageError, match="Two problems have the id '1'"):
            mixture(specs, None, 0)


@pytest.mark.parametrize("value", [None, 5, ["countdown"]])
def test_what_is_no_task(value: Any) -> None:
    """It says what one looks like."""
    with pytest.raises(ValidationError, match="a task is its name, or a mapping with a `name`"):
        _spec(value)


def test_columns_that_have_no_use() -> None:
    """An option that would do nothing is refused."""
    for options, message in (
        ({"name": "logic", "path": "a", "answer_column": "b"}, "knows its columns by itself"),
        ({"name": "math", "path": "a", "dataset_split": "test"}, "belong to `dataset`"),
        ({"name": "countdown", "weight": float("inf")}, "finite"),
    ):
        with pytest.raises(ValidationError, match=message):
            _spec(options)
