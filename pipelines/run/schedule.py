"""Scheduling of jobs: dependencies, order, retries. The same loop serves one process, several processes and a Ray cluster.

They differ in their executor (see pipelines/run/local.py and pipelines/run/on_ray.py):

* `submit(group, waiting) -> worker | None`: return an idle worker for this group of stages if one is available
* `start(worker, group, todo, job, skip)`: start a job on it
* `wait() -> list[JobResult]`: return the jobs that ended, or [] after a while, so that progress can be shown
* `rest()`: called when every job that can start was offered, so that unused workers may be stopped
* `close()`
"""

import json
import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from a2data.job import UNIT
from a2data.journal import progress_path
from a2data.records import ClipVideo
from a2data.stage import Stage
from a2data.store.tables import Store
from pipelines.run.watchdog import Stuck

log = logging.getLogger("a2data")

REMAKES = 2  # most times that a damaged part is rebuilt in one run
MAX_WORKER_DEATHS = 3  # after this many worker deaths, the unit is blamed

Group = tuple[Stage, ...]
Job = tuple[int, ...]


class JobResult(NamedTuple):
    """Result of a job that ended."""

    group: Group
    job: Job
    error: str  # message of the exception, "" if none was raised
    worker_error: str  # how the worker died, "" if it did not
    loaded: bool = True  # False: a model failed to load and would fail for other jobs too
    stuck: tuple[Stuck, ...] = ()  # units without progress, because of which the worker was killed


class CrewLostError(RuntimeError):
    """The cluster is gone or does not provide workers, so that no more jobs can run."""


@dataclass
class Summary:
    """Summary of a run."""

    jobs: int = 0  # finished jobs, stages x shards
    failed_jobs: dict[tuple[str, Job], str] = field(default_factory=dict)  # (stage, job) -> error message
    blocked: int = 0  # jobs that depend on failed ones


# called with ("begin" | "start" | "made" | "fresh" | "again" | "look" | "end", about)
Listener = Callable[[str, Any], None]


def groups(stages: Sequence[Stage]) -> list[Group]:
    """Group consecutive stages that read the frames of the same clips, so that one worker runs them over one decode.

    A stage with several clips in flight forms its own group because it waits for a server: in a shared group, detectors would
    hold a GPU meanwhile and would have to run in its threads. A second decode of each clip is cheaper than either.
    """
    out: list[Group] = []
    for stage in stages:
        if out and _is_groupable(stage) and _is_groupable(out[-1][0]) and _units_of(stage) == _units_of(out[-1][0]):
            out[-1] = (*out[-1], stage)
        else:
            out.append((stage,))
    return out


def _units_of(stage: Stage) -> str:
    """Return the table whose clips the stage runs on. Only the clips of the first stage pass through a group."""
    return next(iter(stage.reads))


def _is_groupable(stage: Stage) -> bool:
    return stage.per == "clip" and ClipVideo in stage.reads.values() and stage.concurrency == 1


def jobs(group: Group, shards: Sequence[int]) -> list[Job]:
    """Return the jobs of a group; each is the tuple of shards that are made together."""
    return [tuple(shards)] if group[0].per == "all" else [(shard,) for shard in shards]


def stale(group: Group, store: Store, job: Job) -> Group:
    """Return the stages of a group that this job must run, from the first stale one to the last; () if all are fresh."""
    for number, stage in enumerate(group):
        if not store.is_up_to_date(stage, job):
            return group[number:]
    return ()


def parts_of(group: Group, job: Job) -> list[tuple[str, int]]:
    """Return the parts (table, shard) that a job makes."""
    return [(stage.name(), shard) for stage in group for shard in job]


class Scheduler:
    """Queue of jobs with their order and dependencies."""

    def __init__(self, stages: Sequence[Stage], store: Store, shards: Sequence[int], watch: Listener = lambda *_: None):
        self.store, self.groups, self.watch = store, groups(stages), watch
        self.ready: dict[Group, deque[Job]] = {group: deque() for group in self.groups}
        self.waits: dict[tuple[Group, Job], set[tuple[str, int]]] = {}  # parts still to come
        self.feeds: dict[tuple[str, int], list[tuple[Group, Job]]] = {}  # (table, shard) -> jobs that read it
        self.summary = Summary()
        self.deaths: Counter = Counter()  # (group, job, unit in flight) -> worker deaths
        self.skip: dict[tuple[Group, Job], dict[str, str]] = {}
        self.todo: dict[tuple[Group, Job], Group] = {}  # stages that a ready job must run, filled on demand
        self.finished: set[tuple[Group, Job]] = set()
        self.remade: Counter = Counter()  # (table, shard) -> times that a finished part was damaged
        self.left = 0
        self.stopped = False  # no more jobs are started
        made_by = {stage.name(): group for group in self.groups for stage in group}
        for group in self.groups:
            reads = {name for stage in group for name in stage.reads if made_by.get(name, group) is not group}
            for job in jobs(group, shards):
                inputs = [(name, shard) for name in sorted(reads) for shard in job]
                for part in inputs:
                    self.feeds.setdefault(part, []).append((group, job))
                self.waits[group, job] = set(inputs)
                self.left += 1
                if not inputs:
                    self.ready[group].append(job)

    def next(self, group: Group) -> Job | None:
        """Return a job of this group that can start, or None. Fresh jobs are marked as finished on the way."""
        while self.ready[group] and not self.stopped:
            job = self.ready[group][0]
            if (group, job) not in self.todo:
                self.todo[group, job] = stale(group, self.store, job)
            if self.todo[group, job]:
                return job
            self.ready[group].popleft()
            self.finish(group, job)
            self.watch("fresh", (group, job))
        return None

    def finish(self, group: Group, job: Job) -> None:
        self.left -= 1
        self.finished.add((group, job))
        for part in parts_of(group, job):
            for later in self.feeds.get(part, ()):
                if part in self.waits[later]:
                    self.waits[later].remove(part)
                    if not self.waits[later]:
                        self.ready[later[0]].append(later[1])

    def on_job_done(self, done: JobResult, made: int) -> None:
        """Process the result of a job: success, an exception (its dependents stay blocked), a stuck unit, or a dead worker."""
        if not done.error and not done.worker_error:
            self.summary.jobs += made
            self.finish(done.group, done.job)
        elif done.error:
            if not self._wait_for_damaged(done):
                self._on_job_failed(done, done.error)
        elif done.stuck:
            self._skip_stuck(done)
        else:
            self._on_worker_death(done)

    def _wait_for_damaged(self, done: JobResult) -> bool:
        """Schedule damaged parts, which were moved aside, to be rebuilt, and make the job that found them wait.

        Returns whether there are any. After REMAKES rebuilds a damaged part is not rebuilt again: then the disk is at fault.
        """
        if not done.loaded:
            return False
        names = {stage.name() for group in self.groups for stage in group}
        there = {(name, shard) for name in names for shard in self.store.shards(name)}
        lost = {key: lost for key in self.finished if (lost := set(parts_of(*key)) - there)}
        missing = {part for parts in lost.values() for part in parts}
        self.remade.update(missing)
        if any(self.remade[part] > REMAKES for part in missing):
            return False
        for group, job in lost:
            self.finished.remove((group, job))
            self.todo.pop((group, job), None)
            self.left += 1
            self.ready[group].append(job)
            self.watch("again", (group, job))
        key = done.group, done.job
        # parts that another job found damaged before this job missed them
        missing |= {
            part for part, later in self.feeds.items() if key in later and part not in there and part[0] in names
        }
        for part in missing:
            readers = self.feeds.setdefault(part, [])
            if key not in readers:  # a lookup table of the stage
                readers.append(key)
            self.waits[key].add(part)
            for later in readers:
                if self.waits[later]:
                    self.waits[later].add(part)
        if missing:
            log.warning("%s: %s", done.group[0].name(), done.error)
        return bool(missing)

    def _on_job_failed(self, done: JobResult, why: str) -> None:
        self.left -= 1
        # a model that does not load would fail every other job too
        self.stopped = self.stopped or not done.loaded
        name = self.todo[done.group, done.job][0].name()
        self.summary.failed_jobs[name, done.job] = why
        self.store.put(why.encode(), name, f"{done.job[0]:05d}.broken")

    def _skip_stuck(self, done: JobResult) -> None:
        """Record the unit without progress as failed, since a retry would take as long again, and continue with the others.

        If several units made no progress, one may have blocked the others: each runs alone from now on.
        """
        key = done.group, done.job
        first = done.stuck[0]
        log.warning("%s %s: %s", first.stage, done.job[:3], done.worker_error)
        if not first.unit:
            self._on_job_failed(done, first.sentence())
            return
        self.store.remove(*progress_path(self.todo[key], done.job[0]))
        skip = self.skip.setdefault(key, {})
        if len(done.stuck) == 1:
            skip[f"{first.stage}/{first.unit}"] = first.sentence()
        else:
            skip.update(dict.fromkeys((stuck.unit for stuck in done.stuck), ""))
        self.ready[done.group].append(done.job)

    def _on_worker_death(self, done: JobResult) -> None:
        key = done.group, done.job
        units = [""]
        if done.group[0].per in UNIT:
            where = progress_path(self.todo[key], done.job[0])
            note = self.store.get(*where)
            self.store.remove(*where)
            units = json.loads(note)["units"] if note else [""]
        in_flight = f" with {', '.join(units)} in flight" if any(units) else ""
        log.warning("%s %s: %s%s", done.group[0].name(), done.job[:3], done.worker_error, in_flight)
        for unit in units:
            self.deaths[*key, unit] += 1
            killed = self.deaths[*key, unit] >= MAX_WORKER_DEATHS
            why = f"killed its worker {MAX_WORKER_DEATHS} times: {done.worker_error}" if killed else ""
            if killed and not unit:
                self._on_job_failed(done, why)
                return
            if unit:
                # "": only one of several suspects, which runs alone from now on
                self.skip.setdefault(key, {})[unit] = why
        self.ready[done.group].append(done.job)


def run(
    stages: Sequence[Stage], store: Store, shards: Sequence[int], crew: Any, watch: Listener = lambda *_: None
) -> Summary:
    """Bring every part of every stage up to date. Failed jobs are recorded in the summary; the rest of the run continues."""
    store.remove_stale_temp_files([stage.name() for stage in stages])
    board = Scheduler(stages, store, shards, watch)
    watch("begin", board)
    busy: dict[tuple[Group, Job], Group] = {}
    try:
        while board.left:
            for group in board.groups:
                while (job := board.next(group)) is not None:
                    worker = crew.submit(group, len(board.ready[group]))
                    if worker is None:
                        break
                    board.ready[group].popleft()
                    todo = busy[group, job] = board.todo[group, job]
                    watch("start", (group, job))
                    crew.start(worker, group, todo, job, board.skip.get((group, job), {}))
            if not busy and (board.stopped or not any(board.ready.values())):
                break
            crew.rest()
            for done in crew.wait():
                todo = busy.pop((done.group, done.job))
                board.on_job_done(done, len(todo) * len(done.job))
                watch("made", (todo, done))
            watch("look", busy)
    finally:
        crew.close()
        watch("end", board)
    board.summary.blocked = board.left
    return board.summary
