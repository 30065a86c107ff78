"""`a2data sample --ray`: actors over a Ray cluster, a GPU each, that sample one job after another.

Through Ray go jobs and sentences, never pixels: references, checkpoint and videos must be in reach of every node by the same
paths. A job whose actor dies is named as failed; the next ones go to another.
"""

from collections.abc import Sequence
from typing import Any

import ray

from pipelines.run import on_ray
from pipelines.sample import job as jobs
from pipelines.sample.acceleration import Acceleration
from pipelines.sample.sampler import Sampler, SampleRequest


class Worker:
    """An actor: a loaded checkpoint."""

    def __init__(self, checkpoint: str, device: str, dtype: str, how: Acceleration):
        self.sampler = Sampler(checkpoint, device, dtype, how)

    def do(self, task: SampleRequest) -> str:
        """Why the job failed; "" if it did not."""
        try:
            self.sampler.sample(task)
            return ""
        except Exception as error:
            return f"{type(error).__name__}: {error}"


def spread(
    todo: Sequence[SampleRequest], watch: Any, checkpoint: tuple[str, str, str, Acceleration], worker: type = Worker
) -> dict[str, str]:
    """Sample the tasks, in as many actors as there is room and work for. {out: why it failed}."""
    need, count = on_ray.actor_options(checkpoint[1], len(todo))
    waiting, failed = list(todo), {}
    busy: dict[Any, tuple[Any, SampleRequest]] = {}

    def hire() -> Any:
        return ray.remote(worker).options(**need, max_restarts=0).remote(*checkpoint)

    for _ in range(count):
        _give(hire(), waiting, busy, None)
    while busy:
        (ref,), _ = ray.wait(list(busy), num_returns=1)
        actor, task = busy.pop(ref)
        try:
            why = ray.get(ref)
        except ray.exceptions.RayError as error:
            why, actor = f"its worker died ({_cause(error)})", hire() if waiting else None
        if why:
            failed[task.job.out] = why
        watch.made(task.job, why)
        _give(actor, waiting, busy, task)
    return failed


def _give(
    actor: Any, waiting: list[SampleRequest], busy: dict[Any, tuple[Any, SampleRequest]], last: SampleRequest | None
) -> None:
    """Hand out the next task, of the last one's shape if there is one."""
    if not waiting:
        return
    same = (n for n, task in enumerate(waiting) if last and jobs.shape(task.job) == jobs.shape(last.job))
    task = waiting.pop(next(same, 0))
    busy[actor.do.remote(task)] = actor, task


def _cause(error: Exception) -> str:
    """The last line of what Ray says, which names the error that an actor ended with."""
    return [line.strip() for line in str(error).splitlines() if line.strip()][-1]
