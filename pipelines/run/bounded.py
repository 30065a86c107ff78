"""A crew on a cluster that may be gone: its calls are given up after a while."""

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any

from pipelines.run.schedule import CrewLostError, Group, Job, JobResult

CALL_S = 40.0  # for one call of Ray; after 60 s without the cluster's head Ray itself ends the process, and says less
RESUME = "start it again (`ray start`, or leave it to --ray auto), and the same command goes on from here"


class Bounded:
    """A crew whose calls go through a thread of their own, one after another. One that is late raises CrewLostError.

    Ray's calls wait, with no limit, for a cluster that has gone. An interrupt gets through meanwhile, which it does not in C++.
    """

    def __init__(self, crew: Any, call_s: float = CALL_S):
        self.crew, self.call_s, self.lost = crew, call_s, False
        self.calls: SimpleQueue = SimpleQueue()
        Thread(target=self._serve, daemon=True).start()

    def submit(self, group: Group, waiting: int) -> Any:
        return self._call(self.crew.submit, group, waiting)

    def start(self, worker: Any, group: Group, todo: Group, job: Job, skip: dict[str, str]) -> None:
        self._call(self.crew.start, worker, group, todo, job, skip)

    def wait(self) -> list[JobResult]:
        return self._call(self.crew.wait)

    def rest(self) -> None:
        self._call(self.crew.rest)

    def close(self) -> None:
        if not self.lost:
            with suppress(CrewLostError):  # it has been said
                self._call(self.crew.close)
        self.calls.put(None)

    def _call(self, call: Callable[..., Any], *args: Any) -> Any:
        future: Future = Future()
        self.calls.put((future, call, args))
        try:
            return future.result(self.call_s)
        except TimeoutError:
            if future.done():  # the call's own
                raise
            self.lost = True
            raise CrewLostError(f"the Ray cluster has not answered for {self.call_s:g} s; {RESUME}") from None
        except CrewLostError:
            self.lost = True
            raise

    def _serve(self) -> None:
        while (task := self.calls.get()) is not None:
            future, call, args = task
            try:
                future.set_result(call(*args))
            except BaseException as error:
                future.set_exception(error)
