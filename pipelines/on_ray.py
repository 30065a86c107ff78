"""Run jobs on a Ray cluster: a pool of actors for each group of stages. Ray places, restarts and scales; the store remembers.

Through Ray go shard numbers and sentences, never pixels: workers read and write the store themselves, so its root must be
reachable from every node (a shared folder, or a URL such as s3://).
"""

import logging
from typing import Any

import ray

from a2data.store import Store
from pipelines.local import Models, attempt
from pipelines.schedule import Done, Group, Job

log = logging.getLogger("a2data")


class Worker:
    """An actor: the stages of a group, with their models, on one node."""

    def __init__(self, store: Store):
        self.store, self.models = store, Models()

    def ready(self) -> None:
        """Return when the actor runs."""

    def do(self, todo: Group, job: Job, skip: dict[str, str]) -> str:
        return attempt(self.models, todo, self.store, job, skip)


def connect(address: str) -> None:
    """Join the cluster at `address`, or with "auto" the one that runs here, or else start one on this machine."""
    if ray.is_initialized():
        return
    quiet = {"log_to_driver": True, "logging_level": logging.WARNING}
    if address == "auto":
        try:
            ray.init("auto", **quiet)
        except ConnectionError:
            ray.init(include_dashboard=False, **quiet)
    else:
        ray.init(address, **quiet)


class Actors:
    """A crew of actors, hired when there is work for them and let go when there is not.

    workers: most actors for a group, by the name of any of its stages; without one, as many as the cluster has room for,
    and one more that waits, so that an autoscaler sees the demand.
    cpus: what an actor asks for, in place of what its stages say; fractions let many pools share few cores.
    """

    def __init__(self, store: Store, workers: dict[str, int] | None = None, cpus: float | None = None):
        self.store, self.workers, self.cpus = store, workers or {}, cpus
        self.pools: dict[Group, list[Any]] = {}  # every actor of a group that is not known to be dead
        self.idle: dict[Group, list[Any]] = {}
        self.hiring: dict[Any, tuple[Group, Any]] = {}  # ref of ready() -> group, actor
        self.busy: dict[Any, tuple[Group, Job, Any]] = {}  # ref of do() -> group, job, actor
        self.warned: set[Group] = set()

    def take(self, group: Group, waiting: int) -> Any:
        if self.idle.get(group):
            return self.idle[group].pop()
        pool = self.pools.setdefault(group, [])
        hiring = sum(g is group for g, _ in self.hiring.values())
        if hiring < waiting and len(pool) < self._most(group):
            self._hire(group)
        return None

    def _most(self, group: Group) -> int:
        for stage in group:
            if stage.name() in self.workers:
                return self.workers[stage.name()]
        return int(ray.cluster_resources().get("CPU", 1) / max(self._cpus(group), 0.01)) + 1

    def _cpus(self, group: Group) -> float:
        return self.cpus if self.cpus is not None else max(stage.cpus for stage in group)

    def _hire(self, group: Group) -> None:
        gpus = min(1.0, sum(stage.gpus for stage in group))
        if gpus and not ray.cluster_resources().get("GPU"):
            if group not in self.warned:  # an actor that asks for a GPU where there is none waits for ever
                log.warning("%s would take %.2f GPU, but the cluster has none: on CPU, then", group[0].name(), gpus)
                self.warned.add(group)
            gpus = 0
        options = {"num_cpus": self._cpus(group), "num_gpus": gpus, "max_restarts": 0}
        actor = ray.remote(Worker).options(**options).remote(self.store)
        self.pools[group].append(actor)
        self.hiring[actor.ready.remote()] = group, actor

    def start(self, worker: Any, group: Group, todo: Group, job: Job, skip: dict[str, str]) -> None:
        self.busy[worker.do.remote(todo, job, skip)] = group, job, worker

    def wait(self) -> list[Done]:
        refs = [*self.busy, *self.hiring]
        if not refs:
            return []
        ended, _ = ray.wait(refs, num_returns=1, timeout=0.5)
        out = []
        for ref in ended:
            if ref in self.hiring:
                self._hired(ref)
            else:
                out.append(self._ended(ref))
        return out

    def _hired(self, ref: Any) -> None:
        group, actor = self.hiring.pop(ref)
        try:
            ray.get(ref)
            self.idle.setdefault(group, []).append(actor)
        except ray.exceptions.RayActorError as error:
            self.pools[group].remove(actor)
            log.warning("a worker for %s did not start: %s", group[0].name(), error)

    def _ended(self, ref: Any) -> Done:
        group, job, actor = self.busy.pop(ref)
        try:
            error, death = ray.get(ref), ""
            self.idle.setdefault(group, []).append(actor)
        except ray.exceptions.RayActorError as died:  # killed, or its node left
            self.pools[group].remove(actor)
            error, death = "", f"its worker died ({str(died).splitlines()[0]})"
        except ray.exceptions.RayTaskError as failed:  # could not even be sent: a stage that does not unpickle there
            self.idle.setdefault(group, []).append(actor)
            error, death = str(failed).splitlines()[-1], ""
        return Done(group, job, error, death)

    def rest(self, groups: set[Group]) -> None:
        """Let idle workers, and those still to come, of these groups go: others may need their place."""
        for group in groups:
            for ref in [ref for ref, (g, _) in self.hiring.items() if g is group]:
                self._dismiss(group, self.hiring.pop(ref)[1])
            for actor in self.idle.pop(group, []):
                self._dismiss(group, actor)

    def _dismiss(self, group: Group, actor: Any) -> None:
        self.pools[group].remove(actor)
        ray.kill(actor)

    def close(self) -> None:
        for pool in self.pools.values():
            for actor in pool:
                ray.kill(actor)
