"""What is asked and how an answer is judged."""

from r1pipe.tasks.base import Item, JudgeRule, Task, TruncatedRule
from r1pipe.tasks.registry import TaskSpec, TaskSpecs, make_task, mixture

__all__ = ["Item", "JudgeRule", "Task", "TaskSpec", "TaskSpecs", "TruncatedRule", "make_task", "mixture"]
