"""Scheduling of jobs: dependencies, order, retries. The same loop serves one process, several processes and a Ray cluster.

They differ in their executor (see pipelines/run/local.py and pipelines/run/on_ray.py):

* `acquire_worker(group, waiting) -> worker | None`: return an idle worker for this group of stages if one is available
* `start(worker, group, todo, job, skip)`: start a job on it
* `wait() -> list[JobResult]`: return the jobs that ended, or [] after a while, so that progress can be shown
* `release_idle()`: called when every job that can start was offered, so that idle workers may be stopped
* `close()`
"""

import json
import logging
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from a2data.job import UNIT
from a2data.journal import progress_path
from a2data.records import ClipVideo
from a2data.stage import Stage
from a2data.store.ledger import Ledger
from a2data.store.tables import Store
from pipelines.run.watchdog import Stuck

log = logging.getLogger("a2data")

MAX_REBUILDS = 2  # of a damaged part in one run
SAVE_INTERVAL_S = 600.0  # of the ledger; after a kill, the parts of at most this time are read again
MAX_WORKER_DEATHS = 3  # after this many worker deaths, the unit is blamed
NODE_LOSS_WEIGHT = 0.25  # of a worker death: spot nodes leave without a fault, but a unit may also take its node down

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
    node_lost: bool = False  # the worker died with its node


class ClusterLostError(RuntimeError):
    """The cluster is gone or does not provide workers, so that no more jobs can run."""


@dataclass
class Summary:
    """Summary of a run."""

    ledger: Ledger = field(repr=False)  # of the store, after the run
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


def parts_of(group: Group, job: Job) -> list[tuple[str, int]]:
    """Return the parts (table, shard) that a job makes."""
    return [(stage.name(), shard) for stage in group for shard in job]


@dataclass(eq=False)
class Task:
    """A job that is not finished. Compared by identity: a job over all shards is too long to hash each time."""

    group: Group
    job: Job
    pending_inputs: set[tuple[str, int]]  # parts still to come
    todo: Group | None = None  # stages that it must run, from the first stale one to the last; None: not decided yet
    failed: bool = False


class Scheduler:
    """Queue of jobs with their order and dependencies."""

    def __init__(
        self, stages: Sequence[Stage], ledger: Ledger, shards: Sequence[int], listener: Listener = lambda *_: None
    ):
        self.store, self.groups, self.shards, self.listener = ledger.store, groups(stages), shards, listener
        self.ledger = ledger
        self.summary = Summary(self.ledger)
        self.ready: dict[Group, deque[Task]] = {group: deque() for group in self.groups}
        self.open: dict[Group, dict[Job, Task]] = {group: {} for group in self.groups}  # all but the finished ones
        self.dependents: dict[tuple[str, int], list[Task]] = {}  # (table, shard) -> open tasks that read it
        self.deaths: dict[tuple, float] = defaultdict(
            float
        )  # (group, job, unit in flight) -> worker deaths, see NODE_LOSS_WEIGHT
        self.skip: dict[tuple[Group, Job], dict[str, str]] = {}
        self.rebuild_counts: Counter = Counter()  # (table, shard) -> times that a finished part was damaged
        self.num_open = 0
        self.stopped = False  # no more jobs are started
        made_by = {stage.name(): group for group in self.groups for stage in group}
        # tables of other groups of this run
        self.reads: dict[Group, list[str]] = {
            group: sorted({name for stage in group for name in stage.reads if made_by.get(name, group) is not group})
            for group in self.groups
        }
        self.fresh: dict[Group, list[Callable[[Job], bool]]] = {}  # for each stage of a group

    def begin(self) -> None:
        """Open a task for each job, except for those that are fresh and depend on fresh jobs alone."""
        fresh_shards: dict[str, set[int]] = {}
        for group in self.groups:
            self.fresh[group] = [self.ledger.is_fresh(stage) for stage in group]
            reads = [(name, fresh_shards.get(name, set())) for name in self.reads[group]]
            fresh_jobs, group_fresh = [], self._fresh_shards(group)
            for job in jobs(group, self.shards):
                pending_inputs = {(name, shard) for name, fresh in reads for shard in job if shard not in fresh}
                if pending_inputs or (
                    job[0] not in group_fresh if group_fresh is not None else self._stages_to_run(group, job)
                ):
                    self._add_task(group, job, pending_inputs)
                else:
                    fresh_jobs.append(job)
            shards = {shard for job in fresh_jobs for shard in job}
            fresh_shards.update({stage.name(): shards for stage in group})
            if fresh_jobs:
                self.listener("fresh", (group, fresh_jobs))

    def _fresh_shards(self, group: Group) -> set[int] | None:
        """Return the shards for which all parts of a group are fresh; None for a stage over all shards."""
        if group[0].per == "all":
            return None
        fresh = np.logical_and.reduce([self.ledger.fresh(stage, self.shards) for stage in group])
        return {shard for shard, done in zip(self.shards, fresh.tolist(), strict=True) if done}

    def _add_task(self, group: Group, job: Job, pending_inputs: set[tuple[str, int]]) -> None:
        task = self.open[group][job] = Task(group, job, pending_inputs)
        self.num_open += 1
        for name in self.reads[group]:
            for shard in job:
                self.dependents.setdefault((name, shard), []).append(task)
        if not pending_inputs:
            self.ready[group].append(task)

    def _stages_to_run(self, group: Group, job: Job) -> Group:
        """Return the stages of a group that this job must run, from the first stale one to the last; () if all are fresh."""
        for number, is_fresh in enumerate(self.fresh[group]):
            if not is_fresh(job):
                return group[number:]
        return ()

    def next(self, group: Group) -> Task | None:
        """Return a task of this group that can start, or None. Fresh jobs are marked as finished on the way."""
        while self.ready[group] and not self.stopped:
            task = self.ready[group][0]
            if task.todo is None:
                task.todo = self._stages_to_run(group, task.job)
            if task.todo:
                return task
            self.ready[group].popleft()
            self.finish(task)
            self.listener("fresh", (group, [task.job]))
        return None

    def finish(self, task: Task) -> None:
        self.num_open -= 1
        del self.open[task.group][task.job]
        for part in parts_of(task.group, task.job):
            for dependent in self.dependents.get(part, ()):
                if part in dependent.pending_inputs:
                    dependent.pending_inputs.remove(part)
                    if not dependent.pending_inputs:
                        self.ready[dependent.group].append(dependent)

    def on_job_done(self, result: JobResult, num_parts: int) -> None:
        """Process the result of a job: success, an exception (its dependents stay blocked), a stuck unit, or a dead worker."""
        task = self.open[result.group][result.job]
        if not result.error and not result.worker_error:
            self.ledger.reread(parts_of(task.todo or (), result.job))
            self.summary.jobs += num_parts
            self.finish(task)
        elif result.error:
            if not self._wait_for_damaged(task, result):
                self._on_job_failed(task, result.error, result.loaded)
        elif result.stuck:
            self._skip_stuck(task, result)
        else:
            self._on_worker_death(task, result)

    def _wait_for_damaged(self, task: Task, result: JobResult) -> bool:
        """Schedule damaged parts, which were moved aside, to be rebuilt, and make the job that found them wait.

        Returns whether there are any. After MAX_REBUILDS rebuilds a damaged part is not rebuilt again: then the disk is at fault.
        """
        if not result.loaded:
            return False
        existing = {stage.name(): set(self.store.shards(stage.name())) for group in self.groups for stage in group}
        jobs_to_rerun, missing = self._missing_parts(existing)
        self.ledger.reread(missing)
        self.rebuild_counts.update(missing)
        if any(self.rebuild_counts[part] > MAX_REBUILDS for part in missing):
            return False
        for group, job in jobs_to_rerun:
            self._add_task(group, job, set())
            self.listener("again", (group, job))
        # parts that another job found damaged before this job missed them
        missing |= {
            (name, shard)
            for (name, shard), dependents in self.dependents.items()
            if name in existing and shard not in existing[name] and task in dependents
        }
        self.ledger.reread(missing)
        for part in missing:
            dependents = self.dependents.setdefault(part, [])
            if task not in dependents:  # a lookup table of the stage
                dependents.append(task)
            task.pending_inputs.add(part)
            for dependent in dependents:
                if dependent.pending_inputs:
                    dependent.pending_inputs.add(part)
        if missing:
            log.warning("%s: %s", result.group[0].name(), result.error)
        return bool(missing)

    def _missing_parts(self, existing: dict[str, set[int]]) -> tuple[list[tuple[Group, Job]], set[tuple[str, int]]]:
        """Return the finished jobs with parts that do not exist, and those parts. existing: table -> shards that exist."""
        incomplete, missing = [], set[tuple[str, int]]()
        for group in self.groups:
            for job in jobs(group, self.shards):
                absent = {(name, shard) for name, shard in parts_of(group, job) if shard not in existing[name]}
                if absent and job not in self.open[group]:
                    incomplete.append((group, job))
                    missing |= absent
        return incomplete, missing

    def _on_job_failed(self, task: Task, error: str, loaded: bool = True) -> None:
        self.num_open -= 1
        task.failed = True
        # a model that does not load would fail every other job too
        self.stopped = self.stopped or not loaded
        name = (task.todo or task.group)[0].name()
        self.summary.failed_jobs[name, task.job] = error
        self.store.put(error.encode(), name, f"{task.job[0]:05d}.broken")
        self.ledger.outdated.add(name)

    def _skip_stuck(self, task: Task, result: JobResult) -> None:
        """Record the unit without progress as failed, since a retry would take as long again, and continue with the others.

        If several units made no progress, one may have blocked the others: each runs alone from now on.
        """
        first = result.stuck[0]
        log.warning("%s %s: %s", first.stage, result.job[:3], result.worker_error)
        if not first.unit:
            self._on_job_failed(task, first.message())
            return
        self.store.remove(*progress_path(task.todo or (), result.job[0]))
        skip = self.skip.setdefault((result.group, result.job), {})
        if len(result.stuck) == 1:
            skip[f"{first.stage}/{first.unit}"] = first.message()
        else:
            skip.update(dict.fromkeys((stuck.unit for stuck in result.stuck), ""))
        self.ready[result.group].append(task)

    def _on_worker_death(self, task: Task, result: JobResult) -> None:
        key = result.group, result.job
        units = [""]
        if result.group[0].per in UNIT:
            note_path = progress_path(task.todo or (), result.job[0])
            note = self.store.get(*note_path)
            self.store.remove(*note_path)
            units = json.loads(note)["units"] if note else [""]
        in_flight = f" with {', '.join(units)} in flight" if any(units) else ""
        log.warning("%s %s: %s%s", result.group[0].name(), result.job[:3], result.worker_error, in_flight)
        for unit in units:
            self.deaths[*key, unit] += NODE_LOSS_WEIGHT if result.node_lost else 1
            killed = self.deaths[*key, unit] >= MAX_WORKER_DEATHS
            node_message = f"was in flight on {MAX_WORKER_DEATHS / NODE_LOSS_WEIGHT:g} nodes that left"
            cause = node_message if result.node_lost else f"killed its worker {MAX_WORKER_DEATHS} times"
            error = f"{cause}: {result.worker_error}" if killed else ""
            if killed and not unit:
                self._on_job_failed(task, error)
                return
            if unit and (killed or not result.node_lost):
                # "": only one of several suspects, which runs alone from now on
                self.skip.setdefault(key, {})[unit] = error
        self.ready[result.group].append(task)


def run(
    stages: Sequence[Stage],
    store: Store,
    shards: Sequence[int],
    executor: Any,
    listener: Listener = lambda *_: None,
    ledger: Ledger | None = None,
) -> Summary:
    """Bring every part of every stage up to date. Failed jobs are recorded in the summary; the rest of the run continues.

    ledger: that of the store, if the caller has it.
    """
    scheduler = Scheduler(stages, ledger or Ledger(store), shards, listener)
    for stage in stages:
        if store.remove_stale_temp_files(stage.name(), scheduler.ledger.names(stage.name())):
            scheduler.ledger.outdated.add(stage.name())
    listener("begin", scheduler)
    scheduler.begin()
    last_saved_s = time.monotonic()
    busy: dict[tuple[Group, Job], Group] = {}
    try:
        while scheduler.num_open:
            for group in scheduler.groups:
                while (task := scheduler.next(group)) is not None:
                    worker = executor.acquire_worker(group, len(scheduler.ready[group]))
                    if worker is None:
                        break
                    scheduler.ready[group].popleft()
                    job, todo = task.job, task.todo or ()
                    busy[group, job] = todo
                    listener("start", (group, job))
                    executor.start(worker, group, todo, job, scheduler.skip.get((group, job), {}))
            if not busy and (scheduler.stopped or not any(scheduler.ready.values())):
                break
            executor.release_idle()
            for result in executor.wait():
                todo = busy.pop((result.group, result.job))
                scheduler.on_job_done(result, len(todo) * len(result.job))
                listener("made", (todo, result))
            listener("look", busy)
            if time.monotonic() - last_saved_s > SAVE_INTERVAL_S:
                scheduler.ledger.save()
                last_saved_s = time.monotonic()
        scheduler.ledger.save()
    finally:
        executor.close()
        listener("end", scheduler)
    scheduler.summary.blocked = scheduler.num_open
    return scheduler.summary
