"""An executor with a timeout on every call, for a cluster that may be gone."""

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any

from pipelines.run.schedule import CrewLostError, Group, Job, JobResult

# seconds for one call of Ray; after 60 s without the head node, Ray itself ends the process with a less helpful message
CALL_S = 40.0
RESUME = "restart it (`ray start`, or use --ray auto) and re-run the same command to resume"


class Bounded:
    """An executor whose calls run one after another in a separate thread. A call that times out raises CrewLostError.

    Ray's calls wait indefinitely for a cluster that is gone. Waiting in Python also keeps the process interruptible, which it is
    not inside Ray's C++ code.
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
            with suppress(CrewLostError):  # already reported
                self._call(self.crew.close)
        self.calls.put(None)

    def _call(self, call: Callable[..., Any], *args: Any) -> Any:
        future: Future = Future()
        self.calls.put((future, call, args))
        try:
            return future.result(self.call_s)
        except TimeoutError:
            if future.done():  # raised by the call itself
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
