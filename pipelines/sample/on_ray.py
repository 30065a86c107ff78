"""`a2data sample --ray`: actors on a Ray cluster, each with a GPU, that sample one job after another.

Only jobs and messages pass through Ray, never pixels: references, checkpoint and videos must have the same paths on every node.
If an actor dies, its job is reported as failed, and the remaining jobs go to a new actor.
"""

from collections.abc import Sequence
from typing import Any

import ray

from pipelines.run import on_ray
from pipelines.sample import job as jobs
from pipelines.sample.acceleration import Acceleration
from pipelines.sample.sampler import Sampler, SampleRequest


class Worker:
    """Actor with a loaded checkpoint."""

    def __init__(self, checkpoint: str, device: str, dtype: str, how: Acceleration):
        self.sampler = Sampler(checkpoint, device, dtype, how)

    def do(self, task: SampleRequest) -> str:
        """Sample a job. Returns why it failed, or ""."""
        try:
            self.sampler.sample(task)
            return ""
        except Exception as error:
            return f"{type(error).__name__}: {error}"


def spread(
    todo: Sequence[SampleRequest], watch: Any, checkpoint: tuple[str, str, str, Acceleration], worker: type = Worker
) -> dict[str, str]:
    """Sample the requests on as many actors as resources and work allow. Returns {out: error} of the failed ones."""
    need, count = on_ray.actor_options(checkpoint[1], len(todo))
    waiting, failed = list(todo), {}
    busy: dict[Any, tuple[Any, SampleRequest]] = {}

    def start_actor() -> Any:
        return ray.remote(worker).options(**need, max_restarts=0).remote(*checkpoint)

    for _ in range(count):
        _give(start_actor(), waiting, busy, None)
    while busy:
        (ref,), _ = ray.wait(list(busy), num_returns=1)
        actor, task = busy.pop(ref)
        try:
            why = ray.get(ref)
        except ray.exceptions.RayError as error:
            why, actor = f"its worker died ({_cause(error)})", start_actor() if waiting else None
        if why:
            failed[task.job.out] = why
        watch.made(task.job, why)
        _give(actor, waiting, busy, task)
    return failed


def _give(
    actor: Any, waiting: list[SampleRequest], busy: dict[Any, tuple[Any, SampleRequest]], last: SampleRequest | None
) -> None:
    """Submit the next request, preferably one with the shape of the last."""
    if not waiting:
        return
    same = (n for n, task in enumerate(waiting) if last and jobs.shape(task.job) == jobs.shape(last.job))
    task = waiting.pop(next(same, 0))
    busy[actor.do.remote(task)] = actor, task


def _cause(error: Exception) -> str:
    """Return the last line of Ray's message, which has the error that ended the actor."""
    return [line.strip() for line in str(error).splitlines() if line.strip()][-1]
