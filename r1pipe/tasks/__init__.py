"""What is asked and how an answer is judged."""

from r1pipe.tasks.base import Item, JudgeRule, Task, TruncatedRule, judge_all
from r1pipe.tasks.registry import TaskSpec, TaskSpecs, make_task, mixture

__all__ = [
    "Item",
    "JudgeRule",
    "Task",
    "TaskSpec",
    "TaskSpecs",
    "TruncatedRule",
    "judge_all",
    "make_task",
    "mixture",
]
