"""What is reconstructed: one module per task, which owns goal, checks, truth, matching and control."""

from __future__ import annotations

from typing import Any

from mibench.errors import UserError
from mibench.tasks.attribute import AttributeTask
from mibench.tasks.base import Task
from mibench.tasks.class_ import ClassTask
from mibench.tasks.completion import CompletionTask
from mibench.tasks.instance import InstanceTask

_TASKS: dict[str, type[Task[Any, Any]]] = {
    task.name: task for task in (ClassTask, InstanceTask, CompletionTask, AttributeTask)
}


def get_task(name: str) -> Task[Any, Any]:
    """Return the task called ``name``.

    Raises:
        UserError: If no component of that task exists yet.
    """
    if name not in _TASKS:
        raise UserError(f"Task '{name}' has no module yet; the tasks that can be run are {', '.join(_TASKS)}.")
    return _TASKS[name]()
