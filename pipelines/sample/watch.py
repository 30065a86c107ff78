"""Progress of `a2data sample`: bars on a terminal, lines in a log, or nothing."""

import sys
import time
from pathlib import Path
from typing import Any

from pipelines.sample import job as jobs
from pipelines.sample.job import Job


def watcher(count: int, quiet: bool) -> Any:
    """Return the listener for the start of a job, each step, each finished or failed video, and the end."""
    if quiet or not count:
        return Nothing()
    return Bars(count) if sys.stderr.isatty() else Lines(count)


class Nothing:
    """Listener without output."""

    def begin(self, job: Job) -> None: ...
    def step(self) -> None: ...
    def made(self, job: Job, failure: str) -> None: ...
    def end(self) -> None: ...


class Lines(Nothing):
    """Listener that prints a line per video, for logs."""

    def __init__(self, count: int):
        self.count, self.ended, self.began = count, 0, time.monotonic()

    def made(self, job: Job, failure: str) -> None:
        self.ended += 1
        took = f"[{time.monotonic() - self.began:7.1f} s] {self.ended} of {self.count}"
        print(f"{took}: {job.out}{': failed' if failure else ''}", file=sys.stderr, flush=True)


class Bars(Nothing):
    """Listener with a bar for the videos and a bar for the steps of the current one."""

    def __init__(self, count: int, console: Any = None):
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.progress = Progress(
            TextColumn("{task.description:<32}", markup=False),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console or Console(stderr=True),
            speed_estimate_period=3600,
        )
        self.all = self.progress.add_task("videos", total=count)
        self.one = self.progress.add_task("loading the checkpoint", total=None)
        self.progress.start()

    def begin(self, job: Job) -> None:
        self.progress.reset(self.one, total=jobs.num_forward_passes(job), description=Path(job.out).name[-32:])

    def step(self) -> None:
        self.progress.advance(self.one)

    def made(self, job: Job, failure: str) -> None:
        self.progress.advance(self.all)

    def end(self) -> None:
        self.progress.stop()
