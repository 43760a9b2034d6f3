"""What `r1pipe tasks` tells."""

import pytest

from r1pipe.errors import UsageError
from r1pipe.tasks import task_spec
from r1pipe.tasks.listing import details, listing


def test_every_task_is_listed_with_an_example() -> None:
    """By the names that a recipe uses; the example is what the task really asks."""
    told = {each["name"]: each for each in listing()}
    assert set(told) == {
        "countdown", "documents", "gym:<generator>", "jsonl", "math", "exact", "open", "choice", "logic",
        "code", "module:Class",
    }  # fmt: skip
    item = task_spec("countdown").make().items("seen", 1, 0)[0]
    assert told["countdown"]["question"] == item.question
    assert told["math"]["answer"] == "7"
    assert told["open"]["question"] == "Write a greeting for Ada."
    assert told["open"]["answer"] == "(any that keeps its rule)"
    assert told["logic"]["answer"] == "Zoey is a knight, Oliver is a knave"
    assert "assert add" not in told["code"]["question"]
    assert told["code"]["answer"] == "def add(a, b):\n    return a + b"


def test_one_task() -> None:
    """Its options with their meanings, and a row of its kind."""
    found = details("choice")
    assert found["row"]["choices"] == ["21", "23", "25"]
    assert "path" in found["options"] and "isolation" not in found["options"]
    assert "judge" in details("jsonl")["options"] and "judge" not in details("math")["options"]
    assert details("gym:chain_sum")["name"] == details("gym")["name"] == "gym:<generator>"
    with pytest.raises(UsageError, match="There is no task 'chioce'; did you mean 'choice'"):
        details("chioce")
