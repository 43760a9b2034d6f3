"""What `r1pipe tasks` tells: every task with an example, and one task's options."""

from collections.abc import Mapping
from typing import Any, Final

from r1pipe.errors import UsageError
from r1pipe.hints import meant
from r1pipe.tasks.base import Item
from r1pipe.tasks.gym import PREFIX, GymSpec, generators
from r1pipe.tasks.own import OwnSpec, entry_names
from r1pipe.tasks.registry import task_spec
from r1pipe.tasks.rows import DataSpec
from r1pipe.tasks.spec import TaskSpec, specs

ROWS: Final[Mapping[str, Mapping[str, Any]]] = {
    "math": {"question": "Ann has 3 pears and buys 4. How many has she?", "answer": "3 + 4 = 7\n#### 7"},
    "logic": {
        "quiz": 'You meet Zoey and Oliver. Zoey said, "Oliver lies". Oliver said, "We are both knaves".',
        "names": ["Zoey", "Oliver"],
        "solution": [True, False],
    },
    "code": {
        "text": "Write a function to add two numbers.",
        "code": "def add(a, b):\n    return a + b",
        "test_list": ["assert add(2, 3) == 5"],
    },
    "choice": {"question": "Which is a prime?", "choices": ["21", "23", "25"], "answer": "B"},
    "exact": {"question": "What is the capital of France?", "answer": "Paris"},
    "open": {"prompt": "Write a greeting for Ada.", "rule": {"contains": "Ada", "at_most": 30}},
    "jsonl": {"question": "What is half of 3?", "answer": "1.5", "judge": "number"},
}
"""A row of each task that reads rows."""

_GYM_EXAMPLE: Final = ("State the final answer to the following arithmetic problem: 4 - 1 - 7 =", "-4")


def listing() -> list[dict[str, Any]]:
    """Every task: its `name`, what it is `about`, and an example's `question` and `answer`."""
    told = [_told(spec) for spec in specs()]
    own = dict.fromkeys(entry_names(), "A task of an installed package.")
    own["module:Class"] = " ".join(str(OwnSpec.__doc__).split())
    return [
        *told,
        *({"name": name, "about": about, "question": "", "answer": ""} for name, about in own.items()),
    ]


def details(name: str) -> dict[str, Any]:
    """One task's listing with its `options`, each with what it means, a `row` or the gym's `generators`.

    Raises:
        UsageError: there is no such task.
    """
    known = {spec.shown_name(): spec for spec in specs()}
    is_gym = name == PREFIX.rstrip(":") or name.removeprefix(PREFIX) in generators()
    found = known[GymSpec.shown_name()] if is_gym else known.get(name)
    if found is None:
        raise UsageError(
            f"There is no task {name!r}{meant(name, known) or '.'} There are {', '.join(known)}."
        )
    options = {
        key: " ".join(str(info.description or "").split())
        for key, info in found.model_fields.items()
        if key not in ("name", "judge") or (key == "judge" and name == "jsonl")
    }
    more = {"generators": generators()} if found.shown_name().startswith(PREFIX) else {}
    return {**_told(found), "options": options, "row": ROWS.get(name), **more}


def _told(spec: type[TaskSpec]) -> dict[str, Any]:
    name, about = spec.shown_name(), " ".join(str(spec.__doc__).split())
    question, answer = _asked(spec, name)
    return {"name": name, "about": about, "question": question, "answer": answer}


def _asked(spec: type[TaskSpec], name: str) -> tuple[str, str]:
    """(question, right answer) of an example, made as a recipe's are; the gym's needs no library."""
    if issubclass(spec, GymSpec):
        return _GYM_EXAMPLE
    if issubclass(spec, DataSpec):
        made = task_spec({"name": name, "path": "example"})
        assert isinstance(made, DataSpec)
        judge = made.judges()[ROWS[name].get("judge") or made.judge]
        item = judge.item(ROWS[name], None)
        assert isinstance(item, Item), item
        return item.question, judge.right_answer(item) or "(any that keeps its rule)"
    task = task_spec(name).make()
    (item,) = task.items("seen", 1, 0)
    return item.question, str(task.right_answer(item))
