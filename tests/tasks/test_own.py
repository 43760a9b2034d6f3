"""Tasks of one's own, by dotted path and by entry point."""

import importlib
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
from pydantic import ValidationError

from r1pipe.errors import RunFailed, UsageError
from r1pipe.tasks import Item, judge_all, mixture, own, task_spec
from r1pipe.verify.verdict import Completion

DOCS = Path(__file__).parents[2] / "docs" / "tasks.md"


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The module of the documentation, as a user would copy it beside a recipe."""
    code = DOCS.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    (tmp_path / "parity_example.py").write_text(code)
    (tmp_path / "broken_example.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "parity_example"
    sys.modules.pop("parity_example", None)


def test_the_documented_example(example: str) -> None:
    """It is twenty lines, found from the current folder, and asks and judges as it stands."""
    source = Path(f"{example}.py").read_text().strip().splitlines()
    assert len([line for line in source if line.strip() and not line.startswith("#")]) <= 20
    task = task_spec({"name": f"{example}:Parity", "options": {"digits": 2}, "truncated": "undecided"}).make()
    item = task.items("all", 3, 0)[1]
    assert (item.question, item.gold) == ("Is 7 odd or even?", "odd")
    assert task.judge(item, Completion("so </think> <answer> odd </answer>", opened=True)).passed
    assert task.judge(item, Completion("so </think> <answer> even </answer>", True)).reason == "wrong"
    assert task.judge(item, Completion("so", True, truncated=True)).decided is False
    assert task.right_answer(item) == "odd"


def test_an_entry_point(example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package brings a task under a name of its own."""
    monkeypatch.syspath_prepend(str(Path.cwd()))
    point = EntryPoint("parity", f"{example}:Parity", own.GROUP)
    monkeypatch.setattr(own, "entry_points", lambda group: EntryPoints([point]))
    assert own.entry_names() == ["parity"]
    assert task_spec("parity").make().name == "parity"
    with pytest.raises(ValidationError, match=r"there are countdown, .*, parity, and 'module:Class'"):
        task_spec("party-time")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("no_such_module:Task", {}, "cannot be loaded: ModuleNotFoundError: .* module:Class"),
        ("parity_example:Nothing", {}, "cannot be loaded: AttributeError"),
        ("parity_example:Parity", {"digit": 2}, "refuses its options: .*'digit'"),
        ("broken_example:Task", {}, "cannot be loaded: ZeroDivisionError"),
        ("..parity_example:Parity", {}, "cannot be loaded"),
        ("parity_example:Item", {"id": "a", "question": "q", "gold": 1}, "is a Item, no r1pipe.tasks.Task"),
    ],
)
def test_what_is_none(example: str, name: str, options: dict[str, object], message: str) -> None:
    """A module or a class that is not there, options that the class does not take, no task at all."""
    with pytest.raises(UsageError, match=message):
        task_spec({"name": name, "options": options}).make()


def test_split() -> None:
    """Everything it gives, unless the recipe says otherwise."""
    assert task_spec("a:B").chosen_split == "all"
    assert task_spec({"name": "a:B", "split": "seen"}).chosen_split == "seen"


def test_a_class_keeps_its_own_rule_for_the_truncated(example: str) -> None:
    """Unless the recipe sets one."""
    source = Path(f"{example}.py")
    source.write_text(
        source.read_text().replace('name = "parity"', 'name = "parity"\n    truncated = "undecided"')
    )
    assert task_spec(f"{example}:Parity").make().truncated == "undecided"
    assert task_spec({"name": f"{example}:Parity", "truncated": "fail"}).make().truncated == "fail"


def test_an_own_task_without_items_or_with_one_id(example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are told before anything is asked."""
    monkeypatch.syspath_prepend(str(Path.cwd()))
    module = importlib.import_module(example)
    monkeypatch.setattr(module.Parity, "items", lambda *_: [])
    with pytest.raises(UsageError, match="gives no items of the split 'all'"):
        mixture([task_spec(f"{example}:Parity")], 5, 0)
    monkeypatch.setattr(module.Parity, "items", lambda *_: [Item("one", str(i), "odd") for i in range(3)])
    with pytest.raises(UsageError, match="Two problems have the id 'one'"):
        mixture([task_spec(f"{example}:Parity")], 3, 0)


def test_a_judge_that_gives_no_verdict(example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The item is named, and no verdict is made up."""
    task = task_spec(f"{example}:Parity").make()
    (item,) = task.items("all", 1, 0)
    monkeypatch.setattr(type(task), "judge_answer", lambda *_: True)
    with pytest.raises(RunFailed, match=r"item 'parity-0' of 'parity' failed with TypeError: a judge gives"):
        judge_all([(task, item, Completion("</think> <answer> odd </answer>", opened=True))])
