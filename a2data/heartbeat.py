"""How far the units in work have come, counted in the worker and read by a thread that reports it to the runner.

The runner ends a unit whose count has not changed for too long (see pipelines/run/watchdog.py). It sees the count only: no
clock of another machine enters.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

Report = dict[str, tuple[str, int]]  # unit -> stage, steps; the unit "" stands for the job as a whole


@dataclass
class Counter:
    """The steps of one unit, and the stage that took the last one."""

    stage: str
    steps: int = 0


_counter: ContextVar[Counter | None] = ContextVar("counter", default=None)


def step() -> None:
    """Count a step of the unit that this thread works on: a row, a frame, a task. Outside of a unit, do nothing."""
    counter = _counter.get()
    if counter is not None:
        counter.steps += 1


def counted(rows: Iterable[T]) -> Iterator[T]:
    """Return the same rows, each a step."""
    for row in rows:
        step()
        yield row


class Progress:
    """The units that one job has in work. Threads may enter and leave units while another one reads the report."""

    def __init__(self, stage: str):
        self.job = Counter(stage)
        self.units: dict[str, Counter] = {}

    def enter(self, stage: str) -> None:
        """Count a step of the present unit of this thread, or of the job, and name the stage that works from now on."""
        counter = _counter.get() or self.job
        counter.stage, counter.steps = stage, counter.steps + 1

    @contextmanager
    def unit(self, name: str, stage: str) -> Iterator[None]:
        """Let the steps of this thread count for a unit, "" for the job as a whole, until the block ends."""
        counter = self.units[name] = Counter(stage)
        token = _counter.set(counter)
        try:
            yield
        finally:
            _counter.reset(token)
            del self.units[name]
            self.job.steps += 1

    def report(self) -> Report:
        """The units in work, or "" where there is none: a model loads, inputs are read, a part is written."""
        units = dict(self.units) or {"": self.job}
        return {name: (counter.stage, counter.steps) for name, counter in units.items()}
