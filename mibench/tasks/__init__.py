"""What is reconstructed: one module per task, which owns goal, checks, truth, matching, control and nulls."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

from mibench.card import TASKS
from mibench.errors import UserError
from mibench.tasks.base import Task


@cache
def get_task(name: str) -> Task[Any, Any]:
    """Return the task called ``name``.

    Raises:
        UserError: If there is no module of that task.
    """
    if name not in TASKS:
        raise UserError(f"There is no task '{name}'; there are {', '.join(TASKS)}.")
    module = importlib.import_module(f"mibench.tasks.{TASKS[name]}")
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Task)]
    task: Task[Any, Any] = next(kind for kind in kinds if vars(kind).get("name") == name)()
    return task
