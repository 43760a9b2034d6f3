"""What is asked and how an answer is judged."""

from r1pipe.tasks.base import Item, Task, TruncatedRule, judge_all
from r1pipe.tasks.registry import AnyTask, TaskSpecs, mixture, task_spec, told_apart
from r1pipe.tasks.spec import TaskSpec

__all__ = [
    "AnyTask",
    "Item",
    "Task",
    "TaskSpec",
    "TaskSpecs",
    "TruncatedRule",
    "judge_all",
    "mixture",
    "task_spec",
    "told_apart",
]
