"""What a person sees while `a2data sample` works: bars on a terminal, lines in a log, or nothing."""

import sys
import time
from pathlib import Path
from typing import Any

from pipelines.sample import job as jobs
from pipelines.sample.job import Job


def watcher(count: int, quiet: bool) -> Any:
    """Told when a job begins, when a step is done, when a video is made or has failed, and at the end."""
    if quiet or not count:
        return Nothing()
    return Bars(count) if sys.stderr.isatty() else Lines(count)


class Nothing:
    """Says nothing."""

    def begin(self, job: Job) -> None: ...
    def step(self) -> None: ...
    def made(self, job: Job, failure: str) -> None: ...
    def end(self) -> None: ...


class Lines(Nothing):
    """A line for each video: for logs."""

    def __init__(self, count: int):
        self.count, self.ended, self.began = count, 0, time.monotonic()

    def made(self, job: Job, failure: str) -> None:
        self.ended += 1
        took = f"[{time.monotonic() - self.began:7.1f} s] {self.ended} of {self.count}"
        print(f"{took}: {job.out}{': failed' if failure else ''}", file=sys.stderr, flush=True)


class Bars(Nothing):
    """A bar for the videos and one for the steps of the one in hand."""

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
        self.one = self.progress.add_task("the checkpoint loads", total=None)
        self.progress.start()

    def begin(self, job: Job) -> None:
        self.progress.reset(self.one, total=jobs.num_forward_passes(job), description=Path(job.out).name[-32:])

    def step(self) -> None:
        self.progress.advance(self.one)

    def made(self, job: Job, failure: str) -> None:
        self.progress.advance(self.all)

    def end(self) -> None:
        self.progress.stop()
