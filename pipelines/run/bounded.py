"""An executor with a timeout on every call, for a cluster that may be gone."""

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any

from pipelines.run.schedule import ClusterLostError, Group, Job, JobResult

# seconds for one call of Ray; after 60 s without the head node, Ray itself ends the process with a less helpful message
CALL_TIMEOUT_S = 40.0
RESUME = "restart it (`ray start`, or use --ray auto) and re-run the same command to resume"


class TimeoutExecutor:
    """An executor whose calls run one after another in a separate thread. A call that times out raises ClusterLostError.

    Ray's calls wait indefinitely for a cluster that is gone. Waiting in Python also keeps the process interruptible, which it is
    not inside Ray's C++ code.
    """

    def __init__(self, executor: Any, timeout_s: float = CALL_TIMEOUT_S):
        self.executor, self.timeout_s, self.lost = executor, timeout_s, False
        self.calls: SimpleQueue = SimpleQueue()
        Thread(target=self._serve, daemon=True).start()

    def acquire_worker(self, group: Group, waiting: int) -> Any:
        return self._call(self.executor.acquire_worker, group, waiting)

    def start(self, worker: Any, group: Group, todo: Group, job: Job, skip: dict[str, str]) -> None:
        self._call(self.executor.start, worker, group, todo, job, skip)

    def wait(self) -> list[JobResult]:
        return self._call(self.executor.wait)

    def release_idle(self) -> None:
        self._call(self.executor.release_idle)

    def close(self) -> None:
        if not self.lost:
            with suppress(ClusterLostError):  # already reported
                self._call(self.executor.close)
        self.calls.put(None)

    def _call(self, call: Callable[..., Any], *args: Any) -> Any:
        future: Future = Future()
        self.calls.put((future, call, args))
        try:
            return future.result(self.timeout_s)
        except TimeoutError:
            if future.done():  # raised by the call itself
                raise
            self.lost = True
            raise ClusterLostError(f"the Ray cluster has not answered for {self.timeout_s:g} s; {RESUME}") from None
        except ClusterLostError:
            self.lost = True
            raise

    def _serve(self) -> None:
        while (task := self.calls.get()) is not None:
            future, call, args = task
            try:
                future.set_result(call(*args))
            except BaseException as error:
                future.set_exception(error)
