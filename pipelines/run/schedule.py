"""Which jobs there are, which are ready, who does them. The same loop for one process, some processes and a Ray cluster.

A crew is what differs between them (see pipelines/run/local.py and pipelines/run/on_ray.py):

* `take(group, waiting) -> worker | None`: an idle worker for this group of stages, if one can be had now
* `start(worker, group, job, skip)`: let it do a job
* `wait() -> list[Done]`: what ended since, or [] after a while, so that progress can be shown
* `rest()`: told that every job that can start now was offered, so that workers nobody asked for may be let go
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

REMAKES = 2  # times that a part is made again in one run because it was found damaged
MAX_WORKER_DEATHS = 3  # a worker that dies in the same unit this often, dies of it

Group = tuple[Stage, ...]
Job = tuple[int, ...]


class JobResult(NamedTuple):
    """A job that ended."""

    group: Group
    job: Job
    error: str  # "" when it was done; a sentence when it raised
    worker_error: str  # how its worker died, when it did
    loaded: bool = True  # False: a model did not load, and would not for another job
    stuck: tuple[Stuck, ...] = ()  # units that made no progress, for which its worker was ended


class CrewLostError(RuntimeError):
    """The cluster is gone, or gives no worker: no job can be done any more."""


@dataclass
class Summary:
    """What a run came to."""

    jobs: int = 0  # stages x shards that were made
    failed_jobs: dict[tuple[str, Job], str] = field(default_factory=dict)  # jobs that could not be done, and why
    blocked: int = 0  # jobs that waited for one of those


# called with ("begin" | "start" | "made" | "fresh" | "again" | "look" | "end", about)
Listener = Callable[[str, Any], None]


def groups(stages: Sequence[Stage]) -> list[Group]:
    """Stages in runs that one worker does together: neighbours that look at the frames of the same clips.

    One that keeps several clips in flight is alone. It waits for a server: together, detectors would hold a GPU meanwhile, and
    would have to run in its threads. A second decode of each clip is cheaper than either.
    """
    out: list[Group] = []
    for stage in stages:
        if out and _looks(stage) and _looks(out[-1][0]) and _units_of(stage) == _units_of(out[-1][0]):
            out[-1] = (*out[-1], stage)
        else:
            out.append((stage,))
    return out


def _units_of(stage: Stage) -> str:
    """The table whose clips the stage is run on. Only the first stage's clips pass through a group."""
    return next(iter(stage.reads))


def _looks(stage: Stage) -> bool:
    return stage.per == "clip" and ClipVideo in stage.reads.values() and stage.concurrency == 1


def jobs(group: Group, shards: Sequence[int]) -> list[Job]:
    """The units of work of a group, each a set of shards made together."""
    return [tuple(shards)] if group[0].per == "all" else [(shard,) for shard in shards]


def stale(group: Group, store: Store, job: Job) -> Group:
    """The stages of a group that this job must do: from the first that is not fresh to the last. () when all are."""
    for number, stage in enumerate(group):
        if not store.fresh(stage, job):
            return group[number:]
    return ()


def parts_of(group: Group, job: Job) -> list[tuple[str, int]]:
    """Return the parts, (table, shard), that a job makes."""
    return [(stage.name(), shard) for stage in group for shard in job]


class Scheduler:
    """What is to be done, in which order, and what waits for what."""

    def __init__(self, stages: Sequence[Stage], store: Store, shards: Sequence[int], watch: Listener = lambda *_: None):
        self.store, self.groups, self.watch = store, groups(stages), watch
        self.ready: dict[Group, deque[Job]] = {group: deque() for group in self.groups}
        self.waits: dict[tuple[Group, Job], set[tuple[str, int]]] = {}  # parts still to come
        self.feeds: dict[tuple[str, int], list[tuple[Group, Job]]] = {}  # (table, shard) -> jobs that read it
        self.summary = Summary()
        self.deaths: Counter = Counter()  # (group, job, unit), for each unit that was in hand
        self.skip: dict[tuple[Group, Job], dict[str, str]] = {}
        self.todo: dict[tuple[Group, Job], Group] = {}  # what a ready job must do, once it was looked up
        self.finished: set[tuple[Group, Job]] = set()
        self.remade: Counter = Counter()  # (table, shard) -> times that a finished part was damaged
        self.left = 0
        self.stopped = False  # nothing more is to be started
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
        """A job of this group that can start, or None. Jobs that are fresh already are ticked off on the way."""
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
        """Take in how a job ended: done, raised (what waits for it is never ready), stuck, or its worker died (then again)."""
        if not done.error and not done.worker_error:
            self.summary.jobs += made
            self.finish(done.group, done.job)
        elif done.error:
            if not self._wait_for_damaged(done):
                self._on_job_failed(done, done.error)
        elif done.stuck:
            self._leave_out_stuck(done)
        else:
            self._on_worker_death(done)

    def _wait_for_damaged(self, done: JobResult) -> bool:
        """Make finished parts again that were found damaged and moved aside, and let the job that found them wait for that.

        Returns whether there are any. A part that is damaged REMAKES times is not made again: then the disk is at fault.
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
        # parts of jobs that another job found damaged before this one met the gap
        missing |= {
            part for part, later in self.feeds.items() if key in later and part not in there and part[0] in names
        }
        for part in missing:
            readers = self.feeds.setdefault(part, [])
            if key not in readers:  # a table that it borrows
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
        self.stopped = self.stopped or not done.loaded  # or every job would say so, hours later
        name = self.todo[done.group, done.job][0].name()
        self.summary.failed_jobs[name, done.job] = why
        self.store.put(why.encode(), name, f"{done.job[0]:05d}.broken")

    def _leave_out_stuck(self, done: JobResult) -> None:
        """Name the unit that made no progress as failed, at once: another try would take as long again. Do the others.

        Where several made none, one may have held up the others: each is done alone from now on.
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
        in_hand = f" while it had {', '.join(units)} in hand" if any(units) else ""
        log.warning("%s %s: %s%s", done.group[0].name(), done.job[:3], done.worker_error, in_hand)
        for unit in units:
            self.deaths[*key, unit] += 1
            killed = self.deaths[*key, unit] >= MAX_WORKER_DEATHS
            why = f"killed its worker {MAX_WORKER_DEATHS} times: {done.worker_error}" if killed else ""
            if killed and not unit:
                self._on_job_failed(done, why)
                return
            if unit:
                # "": one of several that may have done it, done alone from now on
                self.skip.setdefault(key, {})[unit] = why
        self.ready[done.group].append(done.job)


def run(
    stages: Sequence[Stage], store: Store, shards: Sequence[int], crew: Any, watch: Listener = lambda *_: None
) -> Summary:
    """Bring every part of every stage up to date; what cannot be done is named in the summary and left."""
    store.sweep([stage.name() for stage in stages])
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
