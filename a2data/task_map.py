"""Parallel map over many independent calls on a few large objects. Results do not depend on where the calls run.

A stage with `uses_task_map` is given a `TaskMap` by its executor. The one here is serial; pipelines/run/local.py uses threads and
pipelines/run/on_ray.py the tasks of a cluster.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

TaskMap = Callable[[Callable[..., Any], Sequence[Any], Sequence[tuple[int, ...]]], Iterator[Any]]


def map_serial(work: Callable[..., Any], arguments: Sequence[Any], tasks: Sequence[tuple[int, ...]]) -> Iterator[Any]:
    """Yield the result of `work` for each task, in order. `work` must be pure: a task may run twice, or on another machine.

    A task refers to its arguments by their indices in `arguments`, so that an object shared by many tasks is sent only once.
    """
    return (work(*(arguments[index] for index in task)) for task in tasks)
