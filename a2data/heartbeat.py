"""Progress of the units in flight, counted in the worker and read by a thread that reports it to the runner.

The runner ends a unit whose count has not changed for too long (see pipelines/run/watchdog.py). It sees only the count, so the
clocks of other machines do not matter.
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
    """Number of steps of one unit, and the stage of the last one."""

    stage: str
    steps: int = 0


_counter: ContextVar[Counter | None] = ContextVar("counter", default=None)


def step() -> None:
    """Count a step (a row, frame or task) of the unit that this thread processes. Does nothing outside a unit."""
    counter = _counter.get()
    if counter is not None:
        counter.steps += 1


def counted(rows: Iterable[T]) -> Iterator[T]:
    """Yield the rows unchanged and count a step for each."""
    for row in rows:
        step()
        yield row


class Progress:
    """The units of a job that are in flight. Threads may enter and leave units while another thread reads the report."""

    def __init__(self, stage: str):
        self.job = Counter(stage)
        self.units: dict[str, Counter] = {}

    def enter(self, stage: str) -> None:
        """Count a step of this thread's current unit, or of the job, and set the stage that it enters."""
        counter = _counter.get() or self.job
        counter.stage, counter.steps = stage, counter.steps + 1

    @contextmanager
    def unit(self, name: str, stage: str) -> Iterator[None]:
        """Count the steps of this thread for a unit ("" for the job as a whole) during the block."""
        counter = self.units[name] = Counter(stage)
        token = _counter.set(counter)
        try:
            yield
        finally:
            _counter.reset(token)
            del self.units[name]
            self.job.steps += 1

    def report(self) -> Report:
        """Return the units in flight, or "" if there are none: a model is loading, inputs are read, a part is written."""
        units = dict(self.units) or {"": self.job}
        return {name: (counter.stage, counter.steps) for name, counter in units.items()}
