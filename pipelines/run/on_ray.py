"""Run jobs on a Ray cluster. Actors run the scheduled jobs; Ray places and scales them; the state is in the store.

Only shard numbers, messages and the arguments of `task_map` pass through Ray, never pixels. Workers read and write the store
themselves, so its root must be reachable from every node (a shared folder, or a URL such as s3://).
"""

import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import ray

from a2data.heartbeat import Progress, Report
from a2data.store.tables import Store
from a2data.task_map import map_serial
from model_zoo import cards
from pipelines.run.bounded import RESUME
from pipelines.run.local import ModelCache, attempt_job, set_threads
from pipelines.run.schedule import ClusterLostError, Group, Job, JobResult
from pipelines.run.watchdog import Timeouts, Verdict, Watchdog

log = logging.getLogger("a2data")

REPORT_S = 10.0  # interval of progress requests to a worker and of checks of the nodes
PLACEMENT_S = 1800.0  # longest time with pending and without running workers; an autoscaler takes minutes
CONTEXT_MB = 1000  # GPU memory of a process with CUDA and its libraries, without models
REMINDER_S = 60.0  # interval of messages about pending workers


class Worker:
    """Actor that runs the stages of a group with their models on one node.

    cpus: CPUs requested by each task of a task map. threads: those of the driver's set_threads.
    """

    def __init__(self, store: Store, cpus: float, threads: str):
        os.environ["OMP_NUM_THREADS"] = threads  # Ray sets the actor's CPUs; torch is not imported yet
        self.store, self.models, self.cpus = store, ModelCache(), cpus
        self.progress: Progress | None = None  # of the current job

    def ready(self) -> None:
        """Return once the actor is running."""

    def run(self, todo: Group, job: Job, skip: dict[str, str]) -> tuple[str, bool]:
        self.progress = Progress(todo[0].name())
        try:
            return attempt_job(
                self.models, todo, self.store, job, skip, partial(ray_task_map, self.cpus), self.progress
            )
        finally:
            self.progress = None

    @ray.method(concurrency_group="report")
    def report(self) -> Report:
        """Return the progress of the current job. Called while `run` runs."""
        progress = self.progress
        return progress.report() if progress else {}


def ray_task_map(
    cpus: float, function: Callable[..., Any], values: Sequence[Any], tasks: Sequence[tuple[int, ...]]
) -> Iterator[Any]:
    """Run tasks like a2data.task_map.map_serial: as Ray tasks from the first, and in this worker from the last, until they meet.

    This avoids a deadlock: an actor keeps its CPU while it waits, and if that is the last one, no task would ever start.
    """
    if len(tasks) < 2:
        yield from map_serial(function, values, tasks)
        return
    value_refs = [ray.put(value) for value in values]
    remote = ray.remote(_task).options(num_cpus=cpus, name="task_map")
    refs = [remote.remote(function, *(value_refs[index] for index in task)) for task in tasks]
    local_results: dict[int, Any] = {}
    last = len(refs)
    for number, ref in enumerate(refs):
        while number < last and not _is_finished(ref):
            last -= 1
            if not _is_finished(refs[last]):
                ray.cancel(refs[last])
                local_results[last] = function(*(values[index] for index in tasks[last]))
        yield local_results.pop(number) if number in local_results else ray.get(ref)


def _task(function: Callable[..., Any], *values: Any) -> Any:
    return function(*values)


def _is_finished(ref: Any) -> bool:
    return bool(ray.wait([ref], timeout=0)[0])


def connect(address: str) -> None:
    """Join the cluster at `address`. With "auto", join a running local cluster or start one on this machine."""
    if ray.is_initialized():
        return
    stop = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, logging_level=logging.WARNING)
    except ConnectionError:
        if address != "auto":
            raise
        ray.init(include_dashboard=False, logging_level=logging.WARNING)
    # Ray replaces the handler by one that exits at once; what Ray started is ended at exit, too
    if callable(stop):
        signal.signal(signal.SIGTERM, stop)


def device(address: str, requested: str | None) -> str:
    """Join the cluster and return the device of its actors, "cpu" or "cuda".

    Raises ValueError if a GPU is requested and no node has one.
    """
    connect(address)
    gpus = ray.cluster_resources().get("GPU", 0)
    if requested not in (None, "cpu", "cuda"):
        raise ValueError(f"--device {requested}: on a cluster write cpu or cuda; Ray chooses the GPU")
    if requested == "cuda" and not gpus:
        raise ValueError("--device cuda: no node of the cluster has a GPU; omit the flag to run on CPU")
    return requested or ("cuda" if gpus else "cpu")


def gpu_fraction(group: Group, memory_gb: float | None) -> float:
    """Return the fraction of a GPU that a worker of a group requests, at most 1.

    It is the sum of the stages' fractions or, for GPUs of `memory_gb`, that of the memory on the cards of their models. A model
    whose card does not state it takes the card's fraction.
    """
    fractions = [stage.gpus for stage in group]
    if memory_gb is None or not any(fractions):
        return min(1.0, sum(fractions))
    with cards.names_only():
        used = [cards.base_card(name) for stage in group if stage.gpus for name in stage.models()]
    gpus = [card.memory_mb / 1000 / memory_gb if card.memory_mb else card.gpus for card in used if card.gpus]
    return min(1.0, math.ceil((sum(gpus) + CONTEXT_MB / 1000 / memory_gb) * 100) / 100)


def node_lost(error: Exception) -> bool:
    """Return whether an actor died with its node. If the node is killed, Ray only finds the actor unreachable at first."""
    return isinstance(error, ray.exceptions.ActorUnavailableError) or "its node has died" in str(error)


Shape = tuple[float, float]  # CPUs and GPUs that an actor requests


class RayExecutor:
    """Executor with Ray actors, which are started on demand and stopped to free resources.

    An actor can run the jobs of any group with the same resource request. It keeps the models of its last group and is given
    that group's jobs first.

    workers: most concurrent jobs of a group, by the name of any of its stages; by default as many as fit on the cluster and one
    more that waits, so that an autoscaler sees the demand.
    cpus: CPUs that an actor requests, instead of those of its stages; fractions let many actors share few cores.
    gpu_memory_gb: memory of each GPU; an actor then requests the fraction that its models need, see `gpu_fraction`.
    """

    def __init__(
        self,
        store: Store,
        workers: dict[str, int] | None = None,
        cpus: float | None = None,
        timeouts: Timeouts | None = None,
        placement_s: float = PLACEMENT_S,
        gpu_memory_gb: float | None = None,
    ):
        self.store, self.workers, self.cpus, self.placement_s = store, workers or {}, cpus, placement_s
        self.gpu_memory_gb = gpu_memory_gb
        self.watchdog = Watchdog(timeouts or Timeouts())
        self.interval_s = self.watchdog.timeouts.interval_s(REPORT_S)
        self.reports: dict[Any, Any] = {}  # ref of report() -> ref of run()
        # when reports were last requested, and when the nodes were last checked
        self.requested_s = self.checked_s = time.monotonic()
        # when a worker last had a job or none was pending
        self.placed_s = self.reminded_s = time.monotonic()
        self.pools: dict[Shape, list[Any]] = {}  # every actor not known to be dead
        self.idle: dict[Shape, list[tuple[Group, Any]]] = {}  # last group, actor
        self.starting: dict[Any, tuple[Shape, Any]] = {}  # ref of ready() -> actor
        self.busy: dict[Any, tuple[Group, Job, Any]] = {}  # ref of run() -> group, job, actor
        self.shapes: dict[Group, Shape] = {}
        self.cluster_resources: dict[
            str, float
        ] = {}  # the cluster's resources, queried once between two calls of release_idle()
        self.requested_shapes: set[Shape] = set()  # shapes of workers requested since the last release_idle()

    def acquire_worker(self, group: Group, waiting: int) -> Any:
        shape = self._shape(group)
        if sum(g == group for g, _, _ in self.busy.values()) >= self._max_workers(group, shape):
            return None
        idle = self.idle.setdefault(shape, [])
        if idle:
            best = next((n for n, (last, _) in enumerate(idle) if last == group), 0)
            return idle.pop(best)[1]
        self.requested_shapes.add(shape)
        starting = sum(s == shape for s, _ in self.starting.values())
        if starting < waiting and len(self.pools.setdefault(shape, [])) < self._capacity(shape):
            self._start_actor(shape)
        return None

    def _shape(self, group: Group) -> Shape:
        if group not in self.shapes:
            cpus = self.cpus if self.cpus is not None else max(stage.cpus for stage in group)
            gpus = gpu_fraction(group, self.gpu_memory_gb)
            if gpus and not ray.cluster_resources().get("GPU"):  # the actor would never be placed
                log.warning("%s requests %.2f GPU, but the cluster has none; running on CPU", group[0].name(), gpus)
                gpus = 0.0
            self.shapes[group] = cpus, gpus
        return self.shapes[group]

    def _capacity(self, shape: Shape) -> int:
        self.cluster_resources = self.cluster_resources or ray.cluster_resources()
        fits = [
            int(self.cluster_resources.get(name, 0) / amount)
            for name, amount in zip(("CPU", "GPU"), shape, strict=True)
            if amount
        ]
        return min(fits, default=1) + 1

    def _max_workers(self, group: Group, shape: Shape) -> int:
        limits = [self.workers[stage.name()] for stage in group if stage.name() in self.workers]
        return min(limits, default=self._capacity(shape))

    def _start_actor(self, shape: Shape) -> None:
        actor: Any = (
            ray.remote(concurrency_groups={"report": 1})(Worker)  # type: ignore[call-overload]
            .options(num_cpus=shape[0], num_gpus=shape[1], max_restarts=0)
            .remote(self.store, shape[0], set_threads())
        )
        self.pools[shape].append(actor)
        self.starting[actor.ready.remote()] = shape, actor

    def start(self, worker: Any, group: Group, todo: Group, job: Job, skip: dict[str, str]) -> None:
        ref = worker.run.remote(todo, job, skip)
        self.busy[ref] = group, job, worker
        self.watchdog.begin(ref, todo)

    def wait(self) -> list[JobResult]:
        refs = [*self.busy, *self.starting]
        ended = ray.wait(refs, num_returns=1, timeout=min(0.5, self.interval_s))[0] if refs else []
        out = [
            result
            for ref in ended
            for result in (self._on_worker_started(ref) if ref in self.starting else self._on_job_ended(ref))
        ]
        self._poll_reports()
        out += [self._kill_worker(ref, verdict) for ref, verdict in self.watchdog.verdicts()]
        self._check_own_node()
        self._check_placement()
        return out

    def _poll_reports(self) -> None:
        """Process received reports and request new ones, except from workers that have not answered yet."""
        for ref in ray.wait(list(self.reports), num_returns=len(self.reports), timeout=0)[0] if self.reports else []:
            job_ref = self.reports.pop(ref)
            with suppress(ray.exceptions.RayError):  # the ref of its job raises it too
                self.watchdog.beat(job_ref, ray.get(ref))
        if time.monotonic() - self.requested_s >= self.interval_s:
            self.requested_s = time.monotonic()
            requested = set(self.reports.values())
            for ref, (_, _, actor) in self.busy.items():
                if ref not in requested:
                    self.reports[actor.report.remote()] = ref

    def _kill_worker(self, ref: Any, verdict: Verdict) -> JobResult:
        group, job, actor = self.busy.pop(ref)
        self._forget(ref)
        self._kill_actor(self.shapes[group], actor)  # by the node's raylet, so it works for a stopped process too
        return JobResult(group, job, "", verdict.message(), stuck=verdict.stuck)

    def _forget(self, ref: Any) -> None:
        self.watchdog.end(ref)
        self.reports = {report: job_ref for report, job_ref in self.reports.items() if job_ref != ref}

    def _check_own_node(self) -> None:
        """Raise ClusterLostError if the driver's node has left the cluster: it cannot start workers any more."""
        if time.monotonic() - self.checked_s < REPORT_S:
            return
        self.checked_s = time.monotonic()
        node_id = ray.get_runtime_context().get_node_id()
        if not any(node["Alive"] for node in ray.nodes() if node["NodeID"] == node_id):
            raise ClusterLostError(f"the Ray node of this machine has died; {RESUME}")

    def _check_placement(self) -> None:
        """Report when workers are pending and none is running. Raises ClusterLostError after `placement_s`."""
        now = time.monotonic()
        if self.busy or not self.starting:
            self.placed_s = self.reminded_s = now
            return
        shapes = " or ".join(
            f"{cpus:g} CPU" + f" and {gpus:g} GPU" * bool(gpus) for cpus, gpus in self.pending_shapes()
        )
        if now - self.reminded_s >= REMINDER_S:
            self.reminded_s = now
            log.error("no worker for %.0f s: the cluster has no node with %s free", now - self.placed_s, shapes)
        if now - self.placed_s >= self.placement_s:
            raise ClusterLostError(
                f"the cluster has placed no worker for {self.placement_s:g} s: each requests {shapes}, and no node has that free "
                f"(see `ray status`); {RESUME}"
            )

    def pending_shapes(self) -> list[Shape]:
        """Return the resource requests of workers that are not placed yet."""
        return sorted({shape for shape, _ in self.starting.values()})

    def _on_worker_started(self, ref: Any) -> list[JobResult]:
        shape, actor = self.starting.pop(ref)
        try:
            ray.get(ref)
            self.idle.setdefault(shape, []).append(((), actor))
        except ray.exceptions.RayActorError as error:
            self.pools[shape].remove(actor)
            log.warning("a worker did not start: %s", error)
        return []

    def _on_job_ended(self, ref: Any) -> list[JobResult]:
        group, job, actor = self.busy.pop(ref)
        self._forget(ref)
        shape = self.shapes[group]
        try:
            message, loaded = ray.get(ref)
            self.idle[shape].append((group, actor))
            return [JobResult(group, job, message, "", loaded)]
        except ray.exceptions.RayTaskError as failed:  # the job did not start, e.g. its stage cannot be unpickled there
            self.idle[shape].append((group, actor))
            return [JobResult(group, job, str(failed).splitlines()[-1], "")]
        except ray.exceptions.RayError as error:  # killed, out of memory, or its node left
            # it may only be unreachable; two actors would write the same part
            self._kill_actor(shape, actor)
            lines = str(error).splitlines()
            if node_lost(error):
                return [JobResult(group, job, "", f"its node left ({lines[-1].strip()})", node_lost=True)]
            return [JobResult(group, job, "", f"its worker died ({lines[0]})")]

    def release_idle(self) -> None:
        """Stop actors that are not needed if others wait for resources. Called once all jobs that can start were offered."""
        for shape, idle in self.idle.items():
            if self.requested_shapes - {shape}:
                while idle:
                    self._kill_actor(shape, idle.pop()[1])
        for ref, (shape, actor) in list(self.starting.items()):
            if shape not in self.requested_shapes:
                del self.starting[ref]
                self._kill_actor(shape, actor)
        self.requested_shapes.clear()
        self.cluster_resources = {}  # nodes come and go

    def _kill_actor(self, shape: Shape, actor: Any) -> None:
        self.pools[shape].remove(actor)
        ray.kill(actor)

    def close(self) -> None:
        for pool in self.pools.values():
            for actor in pool:
                ray.kill(actor)
