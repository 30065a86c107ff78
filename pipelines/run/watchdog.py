"""Watchdog that decides which workers to kill: those without a heartbeat and those whose units do not make progress.

A worker reports how many steps each of its units has taken (see a2data.heartbeat). The watchdog measures on its own clock how
long a count has not changed. It does not perform I/O: the executors pass it the reports and kill the workers.
"""

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from a2data.heartbeat import Report
from a2data.stage import Stage

# longest time without a heartbeat; a call into C that holds the GIL (a sort, an import) takes less
WORKER_TIMEOUT_S = 600.0
# shortest limit until the first report on a job: a new process may import for seconds or minutes
STARTUP_S = 600.0
# limit outside units: loading a model, reading the inputs, writing the part
SETUP_TIMEOUT_S = 3600.0
# most time counted between two checks; if more passed, the driver itself was stopped or delayed
MAX_TICK_S = 5.0


@dataclass(frozen=True)
class Timeouts:
    """Limits in seconds of units, by stage (`--unit-timeout`; by default `Stage.unit_timeout_s`), and of workers."""

    unit_s: dict[str, float] = field(default_factory=dict)  # stage -> limit
    worker_s: float = WORKER_TIMEOUT_S

    def of(self, stage: Stage) -> float:
        return self.unit_s.get(stage.name(), stage.unit_timeout_s)

    def interval_s(self, default_s: float) -> float:
        """Return the report interval of a worker: `default_s`, or less if a limit is short."""
        return min([default_s, self.worker_s / 4, *(limit / 8 for limit in self.unit_s.values())])


class Stuck(NamedTuple):
    """A unit without progress ("" for the job as a whole), its stage, and the limit that it exceeded."""

    unit: str
    stage: str
    limit_s: float

    def message(self) -> str:
        return f"{self.stage} made no progress for {self.limit_s:g} s: if it needs longer, raise {self._flag()}"

    def _flag(self) -> str:
        return f"--unit-timeout {self.stage}=SECONDS"


class Verdict(NamedTuple):
    """Reason to kill a worker: its stuck units, or else the time in seconds without a heartbeat."""

    stuck: tuple[Stuck, ...]
    silent_s: float = 0.0

    def message(self) -> str:
        if not self.stuck:
            return f"the worker sent no heartbeat for {self.silent_s:.3g} s and was killed"
        units = ", ".join(stuck.unit for stuck in self.stuck if stuck.unit)
        return (f"{units}: " if units else "") + self.stuck[0].message()


@dataclass
class _WorkerState:
    limits: dict[str, float]  # stage -> seconds
    setup_s: float  # limit while no unit is in flight
    started_s: float
    heartbeat_s: float | None = None  # time of the last heartbeat, None before the first one of this job
    last: Report = field(default_factory=dict)
    changed_s: dict[str, float] = field(default_factory=dict)  # unit -> time of the last change of its count


class Watchdog:
    """Watchdog over the workers that have a job."""

    def __init__(self, timeouts: Timeouts, clock: Callable[[], float] = time.monotonic):
        self.timeouts, self.clock = timeouts, clock
        self.now_s, self.checked_s = 0.0, clock()
        self.watched: dict[Hashable, _WorkerState] = {}

    def begin(self, worker: Hashable, todo: Sequence[Stage]) -> None:
        self._update_clock()
        limits = {stage.name(): self.timeouts.of(stage) for stage in todo}
        units = todo[0].per in ("video", "clip")
        setup_s = max(SETUP_TIMEOUT_S, *limits.values()) if units else max(limits.values())
        self.watched[worker] = _WorkerState(limits, setup_s, self.now_s)

    def beat(self, worker: Hashable, report: Report) -> None:
        """Process the report of a worker. A report of a worker that is not watched any more is ignored."""
        self._update_clock()
        watched = self.watched.get(worker)
        if watched is None:
            return
        watched.heartbeat_s = self.now_s
        unchanged = {unit for unit, count in report.items() if watched.last.get(unit) == count}
        watched.changed_s = {unit: watched.changed_s[unit] if unit in unchanged else self.now_s for unit in report}
        watched.last = report

    def end(self, worker: Hashable) -> None:
        self.watched.pop(worker, None)

    def verdicts(self) -> list[tuple[Hashable, Verdict]]:
        """Return the workers to kill now, with the reasons. They stay watched until `end` is called."""
        self._update_clock()
        found = ((worker, self._verdict(watched)) for worker, watched in self.watched.items())
        return [(worker, verdict) for worker, verdict in found if verdict]

    def _verdict(self, watched: _WorkerState) -> Verdict | None:
        if watched.heartbeat_s is None:
            silent_s = self.now_s - watched.started_s
            return Verdict((), silent_s) if silent_s >= max(STARTUP_S, self.timeouts.worker_s) else None
        silent_s = self.now_s - watched.heartbeat_s
        limits = {unit: watched.limits[stage] if unit else watched.setup_s for unit, (stage, _) in watched.last.items()}
        # silent for as long as a unit may take: without a report the unit at fault is unknown, so only the worker is blamed
        if silent_s >= min([self.timeouts.worker_s, *limits.values()]):
            return Verdict((), silent_s)
        stuck = tuple(
            Stuck(unit, watched.last[unit][0], limit_s)
            for unit, limit_s in limits.items()
            if self.now_s - watched.changed_s[unit] >= limit_s and silent_s < limit_s / 2
        )
        return Verdict(stuck) if stuck else None

    def _update_clock(self) -> None:
        now = self.clock()
        self.now_s += min(now - self.checked_s, MAX_TICK_S)
        self.checked_s = now
