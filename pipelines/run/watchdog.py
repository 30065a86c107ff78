"""Which workers are to be ended: those that gave no sign of life for too long, and those whose units make no progress.

A worker reports how many steps each of its units has taken (see a2data.heartbeat). The watchdog measures, by its own clock, how
long it has seen no change. It does no input or output: the crews bring it the reports and end the workers.
"""

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from a2data.heartbeat import Report
from a2data.stage import Stage

WORKER_TIMEOUT_S = (
    600.0  # without a sign of life; a call into C that keeps Python's lock (a sort, an import) takes less
)
STARTUP_S = 600.0  # at least, until a worker first reports on its job: a process that starts imports for seconds, or for minutes
SETUP_TIMEOUT_S = 3600.0  # for what is not a unit: to load a model, to read the inputs, to write the part
LONGEST_LOOK_S = 5.0  # counted between two looks; where more went by, the driver itself was stopped or held up


@dataclass(frozen=True)
class Timeouts:
    """Limits in seconds: of the stages named (`--unit-timeout`), else what the stage says; of workers."""

    unit_s: dict[str, float] = field(default_factory=dict)  # stage -> limit
    worker_s: float = WORKER_TIMEOUT_S

    def of(self, stage: Stage) -> float:
        return self.unit_s.get(stage.name(), stage.unit_timeout_s)

    def interval_s(self, usual_s: float) -> float:
        """How often a worker is to report: `usual_s`, and more often where a limit is short."""
        return min([usual_s, self.worker_s / 4, *(limit / 8 for limit in self.unit_s.values())])


class Stuck(NamedTuple):
    """A unit that made no progress, "" for a job as a whole, the stage that had it, and for how long."""

    unit: str
    stage: str
    limit_s: float

    def sentence(self) -> str:
        return f"{self.stage} made no progress for {self.limit_s:g} s: where it needs longer, raise {self._flag()}"

    def _flag(self) -> str:
        return f"--unit-timeout {self.stage}=SECONDS"


class Verdict(NamedTuple):
    """Why a worker is to be ended: units that are stuck, or else for how long it was silent."""

    stuck: tuple[Stuck, ...]
    silent_s: float = 0.0

    def sentence(self) -> str:
        if not self.stuck:
            return f"the worker gave no sign of life for {self.silent_s:.3g} s and was ended"
        units = ", ".join(stuck.unit for stuck in self.stuck if stuck.unit)
        return (f"{units}: " if units else "") + self.stuck[0].sentence()


@dataclass
class _Watched:
    limits: dict[str, float]  # stage -> seconds
    setup_s: float  # the limit where no unit is in work
    begun_s: float
    heard_s: float | None = None  # when it last gave a sign of life, None before the first one of this job
    last: Report = field(default_factory=dict)
    changed_s: dict[str, float] = field(default_factory=dict)  # unit -> when its count was last seen to change


class Watchdog:
    """Follows the workers that have a job."""

    def __init__(self, timeouts: Timeouts, clock: Callable[[], float] = time.monotonic):
        self.timeouts, self.clock = timeouts, clock
        self.now_s, self.looked = 0.0, clock()
        self.watched: dict[Hashable, _Watched] = {}

    def begin(self, worker: Hashable, todo: Sequence[Stage]) -> None:
        self._look()
        limits = {stage.name(): self.timeouts.of(stage) for stage in todo}
        units = todo[0].per in ("video", "clip")
        setup_s = max(SETUP_TIMEOUT_S, *limits.values()) if units else max(limits.values())
        self.watched[worker] = _Watched(limits, setup_s, self.now_s)

    def beat(self, worker: Hashable, report: Report) -> None:
        """Take in what a worker reports. One that is not watched any more is ignored."""
        self._look()
        watched = self.watched.get(worker)
        if watched is None:
            return
        watched.heard_s = self.now_s
        same = {unit for unit, count in report.items() if watched.last.get(unit) == count}
        watched.changed_s = {unit: watched.changed_s[unit] if unit in same else self.now_s for unit in report}
        watched.last = report

    def end(self, worker: Hashable) -> None:
        self.watched.pop(worker, None)

    def verdicts(self) -> list[tuple[Hashable, Verdict]]:
        """The workers that are to be ended now. They are followed until `end` is called."""
        self._look()
        found = ((worker, self._verdict(watched)) for worker, watched in self.watched.items())
        return [(worker, verdict) for worker, verdict in found if verdict]

    def _verdict(self, watched: _Watched) -> Verdict | None:
        if watched.heard_s is None:
            silent_s = self.now_s - watched.begun_s
            return Verdict((), silent_s) if silent_s >= max(STARTUP_S, self.timeouts.worker_s) else None
        silent_s = self.now_s - watched.heard_s
        limits = {unit: watched.limits[stage] if unit else watched.setup_s for unit, (stage, _) in watched.last.items()}
        # silent for as long as a unit may take: no report says which unit is at fault, so it is the worker that is ended
        if silent_s >= min([self.timeouts.worker_s, *limits.values()]):
            return Verdict((), silent_s)
        stuck = tuple(
            Stuck(unit, watched.last[unit][0], limit_s)
            for unit, limit_s in limits.items()
            if self.now_s - watched.changed_s[unit] >= limit_s and silent_s < limit_s / 2
        )
        return Verdict(stuck) if stuck else None

    def _look(self) -> None:
        now = self.clock()
        self.now_s += min(now - self.looked, LONGEST_LOOK_S)
        self.looked = now
