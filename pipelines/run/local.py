"""Run jobs on this machine: in this process, or in child processes, which may die without ending the run."""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any

from a2data.heartbeat import Progress
from a2data.job import run_job
from a2data.store.parquet import DamagedError
from a2data.store.tables import Store
from a2data.store.url import scrub
from a2data.task_map import TaskMap, map_serial
from pipelines.run.schedule import MAX_WORKER_DEATHS, Group, Job, JobResult
from pipelines.run.watchdog import Timeouts, Verdict, Watchdog

log = logging.getLogger("a2data")

HEARTBEAT_S = 1.0  # interval between reports of a child
KILL_S = 10.0  # wait after SIGKILL; a process blocked on a dead network disk ignores signals


def set_threads() -> str:
    """Set OMP_NUM_THREADS to 1 unless it is set, and return it.

    Networks add in another order with other numbers of threads, so a number that followed from the workers or the machine would
    change the last bits of embeddings. Call it before torch is imported.
    """
    return os.environ.setdefault("OMP_NUM_THREADS", "1")


class InProcessExecutor:
    """Executor with one worker in this process, for tests and debuggers. A crash or hang of a job affects the whole run."""

    def __init__(self, store: Store):
        self.store, self.done = store, deque[JobResult]()
        self.models = ModelCache()

    def acquire_worker(self, group: Group, waiting: int) -> Any:
        return None if self.done else self

    def start(self, worker: Any, group: Group, todo: Group, job: Job, skip: dict[str, str]) -> None:
        error, loaded = attempt_job(self.models, todo, self.store, job, skip)
        self.done.append(JobResult(group, job, error, "", loaded))

    def wait(self) -> list[JobResult]:
        return [self.done.popleft()] if self.done else []

    def release_idle(self) -> None:
        pass

    def close(self) -> None:
        pass


class ProcessExecutor:
    """Executor with child processes. A child that is killed, stops, or has a unit without progress is replaced."""

    def __init__(self, store: Store, count: int = 1, timeouts: Timeouts | None = None):
        self.store, self.count = store, count
        self.watchdog = Watchdog(timeouts or Timeouts())
        set_threads()  # the children inherit it
        self.idle: list[_Child] = []
        self.busy: dict[_Child, tuple[Group, Job]] = {}
        self.waiting = 0  # jobs that can start

    def acquire_worker(self, group: Group, waiting: int) -> "_Child | None":
        self.waiting = waiting
        self.idle = [child for child in self.idle if child.process.is_alive()]
        for child in self.idle:
            if child.group == group:  # has the models loaded
                return child
        if self.idle:
            return self.idle[0]
        if len(self.busy) < self.count:
            self.idle.append(_Child(self.store, self.watchdog.timeouts.interval_s(HEARTBEAT_S)))
            return self.idle[-1]
        return None

    def start(self, worker: "_Child", group: Group, todo: Group, job: Job, skip: dict[str, str]) -> None:
        self.idle.remove(worker)
        self.busy[worker] = group, job
        worker.group = group
        self.watchdog.begin(worker, todo)
        with suppress(BrokenPipeError, ConnectionResetError):  # the child just died; wait() handles it
            # of its tasks; no more than the children without a job, now and soon, would use
            threads = max(1, self.count // min(self.count, len(self.busy) + self.waiting - 1))
            worker.pipe.send((todo, job, skip, threads))

    def wait(self) -> list[JobResult]:
        by_pipe = {child.pipe: child for child in self.busy}
        out = []
        for pipe in wait(list(by_pipe), timeout=min(0.5, self.watchdog.timeouts.interval_s(HEARTBEAT_S))):
            out += self._receive(by_pipe[pipe])  # type: ignore[index]
        for child, verdict in self.watchdog.verdicts():
            out.append(self._end(child, verdict))
        return out

    def _receive(self, child: "_Child") -> list[JobResult]:
        """Read what a child has sent: reports and the result of its job."""
        try:
            while child.pipe.poll():
                kind, payload = child.pipe.recv()
                if kind == "report":
                    self.watchdog.beat(child, payload)
                    continue
                self.idle.append(child)
                return [JobResult(*self._pop(child), payload[0], "", payload[1])]
            return []
        except (EOFError, ConnectionResetError):
            child.process.join()
            return [JobResult(*self._pop(child), "", _exit_message(child.process.exitcode or 0))]

    def _end(self, child: Any, verdict: Verdict) -> JobResult:
        child.end()
        return JobResult(*self._pop(child), "", verdict.message(), stuck=verdict.stuck)

    def _pop(self, child: "_Child") -> tuple[Group, Job]:
        self.watchdog.end(child)
        return self.busy.pop(child)

    def release_idle(self) -> None:
        pass

    def close(self) -> None:
        for child in [*self.idle, *self.busy]:
            child.process.kill()  # kill all before waiting for any
        for child in [*self.idle, *self.busy]:
            child.end()


class _Child:
    """A child process that runs one job after another."""

    def __init__(self, store: Store, interval_s: float):
        # a forked child would inherit threads of FFmpeg, Arrow and torch
        context = multiprocessing.get_context("spawn")
        self.pipe, child_pipe = context.Pipe()
        self.group: Group = ()
        self.process = context.Process(target=_serve, args=(child_pipe, store, interval_s, log.level), daemon=True)
        self.process.start()
        child_pipe.close()

    def end(self) -> None:
        self.process.kill()
        self.process.join(KILL_S)
        if self.process.is_alive():
            log.error("process %d does not exit: it is blocked on a device or a network disk", self.process.pid)


def _serve(pipe: Connection, store: Store, interval_s: float, level: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles interrupts
    logging.basicConfig(format="%(levelname)s %(message)s")
    log.setLevel(level)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    models, reports = ModelCache(), Reports(pipe)
    threading.Thread(target=reports.send_periodically, args=(interval_s,), daemon=True).start()
    while True:
        todo, job, skip, threads = pipe.recv()
        progress = Progress(todo[0].name())
        reports.begin(progress)
        reports.end(attempt_job(models, todo, store, job, skip, partial(thread_task_map, threads), progress))


class Reports:
    """Messages from a child to its parent: periodic progress reports and the result of its job."""

    def __init__(self, pipe: Connection):
        self.pipe, self.lock = pipe, threading.Lock()
        self.progress: Progress | None = None

    def begin(self, progress: Progress) -> None:
        with self.lock:
            self.progress = progress
            self.pipe.send(("report", progress.report()))

    def end(self, outcome: tuple[str, bool]) -> None:
        with self.lock:
            self.progress = None  # a later report would be attributed to the next job
            self.pipe.send(("end", outcome))

    def send_periodically(self, interval_s: float) -> None:
        while True:
            time.sleep(interval_s)
            with self.lock:
                if self.progress is not None:
                    self.pipe.send(("report", self.progress.report()))


def thread_task_map(
    threads: int, function: Callable[..., Any], values: Sequence[Any], tasks: Sequence[tuple[int, ...]]
) -> Iterator[Any]:
    """Run tasks like a2data.task_map.map_serial, `threads` at a time: while one child works on all shards, the others idle."""
    with ThreadPoolExecutor(threads) as pool:
        # in a context that counts the steps of a task for the unit that it is of
        contexts = [copy_context() for _ in tasks]
        yield from pool.map(
            lambda task, context: context.run(function, *(values[index] for index in task)), tasks, contexts
        )


def _end_with_parent() -> None:
    """Exit when the parent dies. A killed parent cannot stop its child, which would run beside those of the next run."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


class ModelCache:
    """The models of the last group. Those of one group fit in memory; those of all groups together may not."""

    def __init__(self) -> None:
        self.loaded: dict[Any, Any] = {}

    def get(self, todo: Group) -> list[Any]:
        # free memory before loading
        self.loaded = {stage: model for stage, model in self.loaded.items() if stage in todo}
        for stage in todo:
            if stage not in self.loaded:
                self.loaded[stage] = stage.load()
        return [self.loaded[stage] for stage in todo]


def attempt_job(
    models: ModelCache,
    todo: Group,
    store: Store,
    job: Job,
    skip: dict[str, str],
    task_map: TaskMap = map_serial,
    progress: Progress | None = None,
) -> tuple[str, bool]:
    """Run a job. Returns its error message ("" on success) and whether the models could be loaded."""
    names = "+".join(stage.name() for stage in todo)
    try:
        loaded = models.get(todo)
    except Exception as error:
        log.warning("%s: loading a model failed", names, exc_info=True)
        return f"loading a model failed: {format_error(error)}", False
    try:
        for retries_left in reversed(range(MAX_WORKER_DEATHS)):
            try:
                run_job(todo, loaded, store, job, skip, task_map, progress)
                break
            except DamagedError as error:  # retry if the part was repaired meanwhile, see Store.set_aside
                log.error("%s", error)
                if not retries_left or not store.exists(*store.stage_and_shard(error.path)):
                    raise
    except Exception as error:
        log.warning("%s, shard %s failed", names, job[0], exc_info=True)
        return format_error(error), True
    return "", True


def format_error(error: Exception) -> str:
    """Format an error for users. The type's name is included where the message may be only a word or a number."""
    return scrub(
        str(error)
        if isinstance(error, FileNotFoundError | ModuleNotFoundError | DamagedError)
        else f"{type(error).__name__}: {error}"
    )


def _exit_message(code: int) -> str:
    return (
        f"the worker was killed by {signal.Signals(-code).name}" if code < 0 else f"the worker exited with code {code}"
    )
