"""Progress of a run: a bar per group of stages on a terminal, a line per group and minute elsewhere, nothing with --quiet."""

import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from a2data.job import UNIT
from a2data.journal import progress_path
from a2data.store.ledger import Ledger
from a2data.store.tables import Store
from pipelines.run.schedule import Group, Job, JobResult, Scheduler, jobs

log = logging.getLogger("a2data")


Counts = tuple[int, int, int]  # units done, rejects, units failed
LINE_S = 60.0  # least time between two lines about a group of stages that is not done
WIDE = 110  # columns of a terminal in which every column of a bar has its full width


def watcher(
    store: Store,
    quiet: bool,
    shards: list[int],
    names: Mapping[int, str] = MappingProxyType({}),
    log_json: bool = False,
) -> Any:
    """Return the listener that displays the events of `schedule.run`. names: {shard: name} to show instead of the number."""
    if log_json:
        return JsonLines(store)
    if quiet:
        return lambda *_: None
    return Bars(store, shards, names=names) if sys.stderr.isatty() else Lines(store, shards, names)


@contextlib.contextmanager
def steps(name: str, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Yield a function that displays the current step, on a terminal as a status line, elsewhere not at all."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status(name) as status:
        yield lambda text: status.update(f"{name}: {text}")


@contextlib.contextmanager
def counter(first: str, quiet: bool) -> Iterator[Callable[..., None]]:
    """Yield a function that begins the next task, given its description and number of steps, and without them counts a step.

    On a terminal the current task is a bar, elsewhere a line is printed when it begins and for each step. `first` describes the
    time before it.
    """
    bars, began = None, time.monotonic()
    task: dict[str, Any] = {}
    if sys.stderr.isatty() and not quiet:
        from rich.progress import MofNCompleteColumn

        bars = _bars(lambda _: MofNCompleteColumn())
        bars.add_task(first, total=None)

    def count(description: str = "", total: int = 0) -> None:
        if bars is not None and total:
            bars.reset(bars.task_ids[0], total=total, description=description[-24:])
        elif bars is not None:
            bars.advance(bars.task_ids[0])
        elif not quiet:
            task.update({"name": description, "total": total, "step": 0} if total else {"step": task["step"] + 1})
            step = "" if total else f" step {task['step']} of {task['total']}"
            print(f"[{time.monotonic() - began:7.1f} s] {task['name']}:{step}", file=sys.stderr, flush=True)

    with bars or contextlib.nullcontext():
        yield count


def _bars(middle: Callable[[int], Any], console: Any = None) -> Any:
    """Return a rich.progress.Progress. middle: the column after the bars, given its width in characters.

    On a narrow terminal the description and the middle are cut, so that the bar and the times stay.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.table import Column

    console = console or Console(stderr=True)
    description, bar = (24, 16) if console.width >= WIDE else (18, 8)
    # elapsed, "left", remaining, and the gaps of six columns
    rest = description + bar + 7 + 4 + 7 + 5
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=_fixed(description)),
        BarColumn(bar_width=bar, table_column=Column(no_wrap=True)),
        middle(min(45, max(4, console.width - rest))),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        TextColumn("left"),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        console=console,
        speed_estimate_period=3600,  # a job may take many minutes
    )


def _fixed(width: int) -> Any:
    """Return a column of this width in characters, whose text is cut."""
    from rich.table import Column

    return Column(width=width, no_wrap=True, overflow="ellipsis")


class Tally:
    """Jobs and units of each group of stages that are done, counted from the events of `schedule.run`."""

    def __init__(self, store: Store, shards: list[int]):
        self.store, self.shards, self.ledger = store, shards, Ledger(store)
        self.total: dict[Group, int] = {}  # jobs
        self.made: dict[Group, int] = {}  # jobs
        self.totals: dict[Group, Counts] = {}  # counts of those jobs

    def __call__(self, event: str, about: Any) -> None:
        """Count an event. A job that failed is not counted."""
        if event == "begin":
            self.ledger = about.ledger
            for group in about.groups:
                self.total[group] = len(jobs(group, self.shards))
                self.made[group], self.totals[group] = 0, (0, 0, 0)
        elif event == "made" and not (about[1].error or about[1].worker_error):
            todo, done = about
            self._count(done.group, todo, [done.job])
        elif event == "fresh":
            group, fresh = about
            self._count(group, group, fresh)
        elif event == "again":
            self.made[about[0]] -= 1

    def _count(self, group: Group, todo: Group, finished: Sequence[Job]) -> None:
        self.made[group] += len(finished)
        for job in finished:
            self.totals[group] = _sum(self.totals[group], counts(self.ledger, todo, job))

    def with_busy(self, busy: Mapping[tuple[Group, Job], Group]) -> dict[Group, tuple[float, Counts]]:
        """Return {group: (jobs done plus the fractions of those in flight, counts)}, by the notes of the workers."""
        shares, totals = dict.fromkeys(self.total, 0.0), dict(self.totals)
        for (group, job), todo in busy.items():
            note = glance(self.store, todo, job)
            shares[group] += note["share"]
            totals[group] = _sum(totals[group], (note["done"], note["rejected"], note["failed"]))
        return {group: (self.made[group] + share, totals[group]) for group, share in shares.items()}


class Lines:
    """A line for each group of stages that is done, a line a minute for one that is not, a line for each error; for logs."""

    def __init__(self, store: Store, shards: list[int], names: Mapping[int, str] = MappingProxyType({})):
        self.tally, self.names, self.began = Tally(store, shards), names, time.monotonic()
        self.told: dict[Group, float] = {}  # group that was started and is not done -> time of its last line

    def __call__(self, event: str, about: Any) -> None:
        self.tally(event, about)
        if event == "start":
            self.told.setdefault(about[0], time.monotonic())
        elif event == "made" and (about[1].error or about[1].worker_error):
            self._print(tell(self.tally.ledger, about[0], about[1], self.names))
        elif event in ("look", "end"):
            self._look(about if event == "look" else {}, event == "end")

    def _look(self, busy: Mapping[tuple[Group, Job], Group], last: bool) -> None:
        now_s = time.monotonic()
        done = [group for group in self.told if last or self.tally.made[group] == self.tally.total[group]]
        due = [group for group, told_s in self.told.items() if group in done or now_s - told_s >= LINE_S]
        found = self.tally.with_busy(busy) if due else {}
        for group in due:
            name, (jobs_done, units) = "+".join(stage.name() for stage in group), found[group]
            self._print(f"{name}: {jobs_done:.3g} of {self.tally.total[group]} jobs, {_told(units, ', ')}")
            self.told[group] = now_s
        for group in done:
            del self.told[group]

    def _print(self, text: str) -> None:
        print(f"[{time.monotonic() - self.began:7.1f} s] {text}", file=sys.stderr, flush=True)


def _told(units: Counts, separator: str, short: bool = False) -> str:
    """Format counts. short: without zeros, and with failures before rejects, since the end may be cut."""
    told = list(zip(units, ("done", "rejected", "failed"), strict=True))
    if short:
        told = [(n, what) for n, what in (told[0], told[2], told[1]) if n]
    return separator.join(f"{n} {what}" for n, what in told)


def tell(ledger: Ledger, todo: Group, done: JobResult, names: Mapping[int, str] = MappingProxyType({})) -> str:
    """Format the result of a job as a line."""
    name = "+".join(stage.name() for stage in todo)
    shard = names.get(done.job[0], f"shard {done.job[0]}") if len(done.job) == 1 else "all shards"
    if done.error or done.worker_error:
        return f"{name}, {shard}: {done.error or done.worker_error}"
    units, rejected, failed = counts(ledger, todo, done.job)
    return f"{name}, {shard}: {units} done, {rejected} rejected, {failed} failed"


def counts(ledger: Ledger, todo: Group, job: Job) -> Counts:
    """Count in the parts of a job: units that did not fail (of the stage with the most), rejects and failed units."""
    units = rejected = failed = 0
    for stage in todo:
        entries = ledger.entries(stage.name())
        found = [entry for shard in job if (entry := entries.get(shard))]
        units = max(units, sum(entry.num_inputs - entry.num_failed for entry in found))
        rejected += sum(entry.num_rejected for entry in found)
        failed += sum(entry.num_failed for entry in found)
    return units, rejected, failed


class JsonLines:
    """A JSON object for each finished job, for logs that programs read.

    Its fields: time_s since the begin of the run, stages, shards, error ("" if none), and done, rejected and failed units.
    """

    def __init__(self, store: Store):
        self.ledger, self.began = Ledger(store), time.monotonic()

    def __call__(self, event: str, about: Any) -> None:
        if event == "begin":
            self.ledger = about.ledger
        elif event == "made":
            print(self.line(*about), file=sys.stderr, flush=True)

    def line(self, todo: Group, done: JobResult) -> str:
        """Format the result of a job as JSON."""
        error = done.error or done.worker_error
        units = dict(zip(("done", "rejected", "failed"), counts(self.ledger, todo, done.job), strict=True))
        names = {"stages": [stage.name() for stage in todo], "shards": list(done.job)}
        told = {"time_s": round(time.monotonic() - self.began, 1), **names, "error": error, **({} if error else units)}
        return json.dumps(told)


class Bars:
    """A progress bar for each group of stages: jobs done plus the fraction of those in flight, counts, time left."""

    def __init__(
        self,
        store: Store,
        shards: list[int],
        console: Any = None,
        names: Mapping[int, str] = MappingProxyType({}),
    ):
        from rich.progress import TextColumn

        self.tally, self.names = Tally(store, shards), names
        self.progress = _bars(
            lambda width: TextColumn("{task.percentage:>3.0f}% {task.fields[told]}", table_column=_fixed(width)),
            console,
        )
        self.short = self.progress.console.width < WIDE
        self.tasks: dict[Group, Any] = {}
        self.started: set[Any] = set()  # tasks whose clock is running

    def __call__(self, event: str, about: Any) -> None:
        self.tally(event, about)
        if event == "begin":
            self._begin(about)
        elif event == "start":
            self._start(about[0])
        elif event == "made" and (about[1].error or about[1].worker_error):
            text = tell(self.tally.ledger, about[0], about[1], self.names)
            self.progress.console.print(text, style="red", highlight=False, markup=False)
        elif event == "look":
            self._look(about)
        elif event == "end":
            self._end()

    def _begin(self, board: Scheduler) -> None:
        self.progress.start()
        for group in board.groups:
            name = "+".join(stage.name() for stage in group)
            label = name if len(name) <= 24 else f"{group[0].name()} … {group[-1].name()}"
            self.tasks[group] = self.progress.add_task(label, total=self.tally.total[group], told="", start=False)

    def _look(self, busy: Mapping[tuple[Group, Job], Group]) -> None:
        """Update every bar with the finished jobs and the progress notes of those in flight."""
        for group, (done, units) in self.tally.with_busy(busy).items():
            told = _told(units, " · ", self.short)
            self.progress.update(self.tasks[group], completed=done, told=told if done else "")

    def _start(self, group: Group) -> None:
        """Start the clock of a bar now: jobs that were fresh took no time and would distort the estimate."""
        task = self.tasks[group]
        if task not in self.started:
            self.started.add(task)
            self.progress.reset(task, completed=self.tally.made[group])

    def _end(self) -> None:
        self._look({})
        for task in self.progress.tasks:
            self.progress.stop_task(task.id)
            if task.completed < (task.total or 0):
                self.progress.update(task.id, told=task.fields["told"] or "not reached")
        self.progress.stop()


def _sum(a: Counts, b: Counts) -> Counts:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


NOTHING = {"share": 0.0, "done": 0, "rejected": 0, "failed": 0}


def glance(store: Store, todo: Group, job: Job) -> dict[str, Any]:
    """Return the last progress note of the worker that runs this job, see a2data.journal; NOTHING before the first."""
    note = store.get(*progress_path(todo, job[0])) if todo[0].per in UNIT else None
    try:
        return json.loads(note) if note else NOTHING
    except ValueError:  # read during a write
        return NOTHING
