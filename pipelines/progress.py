"""What a person sees while a run goes on: a bar per stage on a terminal, a line per job elsewhere, nothing with --quiet."""

import json
import logging
import sys
import time
from typing import Any

from a2data.store import Store
from a2data.work import UNIT, journal
from pipelines.schedule import Board, Done, Group, Job, jobs

log = logging.getLogger("a2data")


def watcher(store: Store, quiet: bool, shards: list[int]) -> Any:
    """The function that `schedule.run` tells what happens."""
    if quiet:
        return lambda *_: None
    return Bars(store, shards) if sys.stderr.isatty() else Lines(store)


class Lines:
    """A line for each job that ended: for logs."""

    def __init__(self, store: Store):
        self.store, self.began = store, time.monotonic()

    def __call__(self, event: str, about: Any) -> None:
        if event == "made":
            todo, done = about
            print(
                f"[{time.monotonic() - self.began:7.1f} s] {tell(self.store, todo, done)}", file=sys.stderr, flush=True
            )


def tell(store: Store, todo: Group, done: Done) -> str:
    """How a job ended, in a line."""
    name, shard = (
        "+".join(stage.name() for stage in todo),
        f"shard {done.job[0]}" if len(done.job) == 1 else "all shards",
    )
    if done.error or done.death:
        return f"{name}, {shard}: {done.error or done.death}"
    done_, rejected, failed = counts(store, todo, done.job)
    return f"{name}, {shard}: {done_} done, {rejected} rejected, {failed} failed"


def counts(store: Store, todo: Group, job: Job) -> tuple[int, int, int]:
    """Of the parts of a job: units done, things rejected, units failed."""
    footers = [f for stage in todo for shard in job if (f := store.footer(stage.name(), shard))]
    failed = sum(len(f.failed) for f in footers)
    return max((f.units for f in footers), default=0), sum(len(f.rejected) for f in footers), failed


class Bars:
    """A progress bar for each group of stages: jobs done, and what they came to; the unit in hand moves the bar, too."""

    def __init__(self, store: Store, shards: list[int]):
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.store, self.shards = store, shards
        self.progress = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[told]:<44}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self.tasks: dict[str, Any] = {}
        self.totals: dict[str, list[int]] = {}

    def __call__(self, event: str, about: Any) -> None:
        if event == "begin":
            self._begin(about)
        elif event == "made":
            self._made(*about)
        elif event == "look":
            self._look(about)
        elif event == "end":
            for task in self.progress.tasks:
                if task.completed < (task.total or 0):
                    self.progress.update(task.id, told=task.fields["told"] or "not reached")
            self.progress.stop()

    def _begin(self, board: Board) -> None:
        self.progress.start()
        for group in board.groups:
            total = len(jobs(group, self.shards))
            name = "+".join(stage.name() for stage in group)
            label = name if len(name) <= 24 else f"{group[0].name()} … {group[-1].name()}"
            task = self.progress.add_task(label, total=total, told="")
            for stage in group:
                self.tasks[stage.name()], self.totals[stage.name()] = task, [0, 0, 0]

    def _made(self, todo: Group, done: Done) -> None:
        name = todo[0].name()
        if done.error or done.death:
            self.progress.console.print(tell(self.store, todo, done), style="red", highlight=False)
            return
        self.totals[name] = [a + b for a, b in zip(self.totals[name], counts(self.store, todo, done.job), strict=True)]
        self.progress.update(self.tasks[name], advance=1, told=_told(*self.totals[name]))

    def _look(self, busy: dict[tuple[Group, Job], Group]) -> None:
        for (_, job), todo in busy.items():
            if todo[0].per in UNIT and (note := self.store.get(*journal(todo, job[0]))):
                now = json.loads(note)
                done, rejected, failed = self.totals[todo[0].name()]
                told = _told(done + now["done"], rejected + now["rejected"], failed + now["failed"])
                self.progress.update(self.tasks[todo[0].name()], told=told)


def _told(done: int, rejected: int, failed: int) -> str:
    return f"{done} done · {rejected} rejected · {failed} failed"
