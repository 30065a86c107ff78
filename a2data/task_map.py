"""Work that is many independent calls over few large things: who does it is the crew's affair, what comes of it is not.

A stage that `spreads` is given a `TaskMap`. Here the calls come one after another; pipelines/run/local.py has threads for them
and pipelines/run/on_ray.py the tasks of a cluster.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

TaskMap = Callable[[Callable[..., Any], Sequence[Any], Sequence[tuple[int, ...]]], Iterator[Any]]


def map_serial(work: Callable[..., Any], things: Sequence[Any], tasks: Sequence[tuple[int, ...]]) -> Iterator[Any]:
    """For each task, in order, what `work` makes of its things. `work` must be pure: a task may be done twice, or elsewhere.

    A task names its things by their places, so that one that many tasks need travels once.
    """
    return (work(*(things[place] for place in task)) for task in tasks)
