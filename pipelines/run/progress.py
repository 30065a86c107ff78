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
FULL_WIDTH = 110  # columns of a terminal in which every column of a bar has its full width


def progress_listener(
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
def status_line(name: str, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Yield a function that displays the current step, on a terminal as a status line, elsewhere not at all."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status(name) as status:
        yield lambda text: status.update(f"{name}: {text}")


@contextlib.contextmanager
def step_counter(label: str, quiet: bool) -> Iterator[Callable[..., None]]:
    """Yield a function that begins the next task, given its description and number of steps, and without them counts a step.

    On a terminal the current task is a bar, elsewhere a line is printed when it begins and for each step. `label` describes the
    time before it.
    """
    bars, start_s = None, time.monotonic()
    task: dict[str, Any] = {}
    if sys.stderr.isatty() and not quiet:
        from rich.progress import MofNCompleteColumn

        bars = _bars(lambda _: MofNCompleteColumn())
        bars.add_task(label, total=None)

    def count(description: str = "", total: int = 0) -> None:
        if bars is not None and total:
            bars.reset(bars.task_ids[0], total=total, description=description[-24:])
        elif bars is not None:
            bars.advance(bars.task_ids[0])
        elif not quiet:
            task.update({"name": description, "total": total, "step": 0} if total else {"step": task["step"] + 1})
            step = "" if total else f" step {task['step']} of {task['total']}"
            print(f"[{time.monotonic() - start_s:7.1f} s] {task['name']}:{step}", file=sys.stderr, flush=True)

    with bars or contextlib.nullcontext():
        yield count


def _bars(middle_column: Callable[[int], Any], console: Any = None) -> Any:
    """Return a rich.progress.Progress. middle_column: the column after the bars, given its width in characters.

    On a narrow terminal the description and the middle are cut, so that the bar and the times stay.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.table import Column

    console = console or Console(stderr=True)
    description, bar = (24, 16) if console.width >= FULL_WIDTH else (18, 8)
    # elapsed, "left", remaining, and the gaps of six columns
    other_columns = description + bar + 7 + 4 + 7 + 5
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=_fixed(description)),
        BarColumn(bar_width=bar, table_column=Column(no_wrap=True)),
        middle_column(min(45, max(4, console.width - other_columns))),
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
        self.num_done: dict[Group, int] = {}  # jobs
        self.unit_counts: dict[Group, Counts] = {}  # counts of those jobs

    def __call__(self, event: str, payload: Any) -> None:
        """Count an event. A job that failed is not counted."""
        if event == "begin":
            self.ledger = payload.ledger
            for group in payload.groups:
                self.total[group] = len(jobs(group, self.shards))
                self.num_done[group], self.unit_counts[group] = 0, (0, 0, 0)
        elif event == "made" and not (payload[1].error or payload[1].worker_error):
            todo, done = payload
            self._count(done.group, todo, [done.job])
        elif event == "fresh":
            group, fresh = payload
            self._count(group, group, fresh)
        elif event == "again":
            self.num_done[payload[0]] -= 1

    def _count(self, group: Group, todo: Group, finished: Sequence[Job]) -> None:
        self.num_done[group] += len(finished)
        for job in finished:
            self.unit_counts[group] = _sum(self.unit_counts[group], count_units(self.ledger, todo, job))

    def with_busy(self, busy: Mapping[tuple[Group, Job], Group]) -> dict[Group, tuple[float, Counts]]:
        """Return {group: (jobs done plus the fractions of those in flight, counts)}, by the notes of the workers."""
        fractions, totals = dict.fromkeys(self.total, 0.0), dict(self.unit_counts)
        for (group, job), todo in busy.items():
            note = read_note(self.store, todo, job)
            fractions[group] += note["share"]
            totals[group] = _sum(totals[group], (note["done"], note["rejected"], note["failed"]))
        return {group: (self.num_done[group] + fraction, totals[group]) for group, fraction in fractions.items()}


class Lines:
    """A line for each group of stages that is done, a line a minute for one that is not, a line for each error; for logs."""

    def __init__(self, store: Store, shards: list[int], names: Mapping[int, str] = MappingProxyType({})):
        self.tally, self.names, self.start_s = Tally(store, shards), names, time.monotonic()
        self.printed_s: dict[Group, float] = {}  # group that was started and is not done -> time of its last line

    def __call__(self, event: str, payload: Any) -> None:
        self.tally(event, payload)
        if event == "start":
            self.printed_s.setdefault(payload[0], time.monotonic())
        elif event == "made" and (payload[1].error or payload[1].worker_error):
            self._print(format_result(self.tally.ledger, payload[0], payload[1], self.names))
        elif event in ("look", "end"):
            self._update(payload if event == "look" else {}, event == "end")

    def _update(self, busy: Mapping[tuple[Group, Job], Group], last: bool) -> None:
        now_s = time.monotonic()
        done = [group for group in self.printed_s if last or self.tally.num_done[group] == self.tally.total[group]]
        due = [group for group, last_s in self.printed_s.items() if group in done or now_s - last_s >= LINE_S]
        progress = self.tally.with_busy(busy) if due else {}
        for group in due:
            name, (jobs_done, units) = "+".join(stage.name() for stage in group), progress[group]
            self._print(f"{name}: {jobs_done:.3g} of {self.tally.total[group]} jobs, {_format_counts(units, ', ')}")
            self.printed_s[group] = now_s
        for group in done:
            del self.printed_s[group]

    def _print(self, text: str) -> None:
        print(f"[{time.monotonic() - self.start_s:7.1f} s] {text}", file=sys.stderr, flush=True)


def _format_counts(units: Counts, separator: str, short: bool = False) -> str:
    """Format counts. short: without zeros, and with failures before rejects, since the end may be cut."""
    parts = list(zip(units, ("done", "rejected", "failed"), strict=True))
    if short:
        parts = [(n, name) for n, name in (parts[0], parts[2], parts[1]) if n]
    return separator.join(f"{n} {name}" for n, name in parts)


def format_result(
    ledger: Ledger, todo: Group, result: JobResult, names: Mapping[int, str] = MappingProxyType({})
) -> str:
    """Format the result of a job as a line."""
    name = "+".join(stage.name() for stage in todo)
    shard = names.get(result.job[0], f"shard {result.job[0]}") if len(result.job) == 1 else "all shards"
    if result.error or result.worker_error:
        return f"{name}, {shard}: {result.error or result.worker_error}"
    units, rejected, failed = count_units(ledger, todo, result.job)
    return f"{name}, {shard}: {units} done, {rejected} rejected, {failed} failed"


def count_units(ledger: Ledger, todo: Group, job: Job) -> Counts:
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
        self.ledger, self.start_s = Ledger(store), time.monotonic()

    def __call__(self, event: str, payload: Any) -> None:
        if event == "begin":
            self.ledger = payload.ledger
        elif event == "made":
            print(self.line(*payload), file=sys.stderr, flush=True)

    def line(self, todo: Group, result: JobResult) -> str:
        """Format the result of a job as JSON."""
        error = result.error or result.worker_error
        units = dict(zip(("done", "rejected", "failed"), count_units(self.ledger, todo, result.job), strict=True))
        names = {"stages": [stage.name() for stage in todo], "shards": list(result.job)}
        record = {
            "time_s": round(time.monotonic() - self.start_s, 1),
            **names,
            "error": error,
            **({} if error else units),
        }
        return json.dumps(record)


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
            lambda width: TextColumn("{task.percentage:>3.0f}% {task.fields[counts]}", table_column=_fixed(width)),
            console,
        )
        self.short = self.progress.console.width < FULL_WIDTH
        self.tasks: dict[Group, Any] = {}
        self.started: set[Any] = set()  # tasks whose clock is running

    def __call__(self, event: str, payload: Any) -> None:
        self.tally(event, payload)
        if event == "begin":
            self._begin(payload)
        elif event == "start":
            self._start(payload[0])
        elif event == "made" and (payload[1].error or payload[1].worker_error):
            text = format_result(self.tally.ledger, payload[0], payload[1], self.names)
            self.progress.console.print(text, style="red", highlight=False, markup=False)
        elif event == "look":
            self._update(payload)
        elif event == "end":
            self._end()

    def _begin(self, scheduler: Scheduler) -> None:
        self.progress.start()
        for group in scheduler.groups:
            name = "+".join(stage.name() for stage in group)
            label = name if len(name) <= 24 else f"{group[0].name()} … {group[-1].name()}"
            self.tasks[group] = self.progress.add_task(label, total=self.tally.total[group], counts="", start=False)

    def _update(self, busy: Mapping[tuple[Group, Job], Group]) -> None:
        """Update every bar with the finished jobs and the progress notes of those in flight."""
        for group, (done, units) in self.tally.with_busy(busy).items():
            text = _format_counts(units, " · ", self.short)
            self.progress.update(self.tasks[group], completed=done, counts=text if done else "")

    def _start(self, group: Group) -> None:
        """Start the clock of a bar now: jobs that were fresh took no time and would distort the estimate."""
        task = self.tasks[group]
        if task not in self.started:
            self.started.add(task)
            self.progress.reset(task, completed=self.tally.num_done[group])

    def _end(self) -> None:
        self._update({})
        for task in self.progress.tasks:
            self.progress.stop_task(task.id)
            if task.completed < (task.total or 0):
                self.progress.update(task.id, counts=task.fields["counts"] or "not reached")
        self.progress.stop()


def _sum(a: Counts, b: Counts) -> Counts:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


NO_PROGRESS = {"share": 0.0, "done": 0, "rejected": 0, "failed": 0}


def read_note(store: Store, todo: Group, job: Job) -> dict[str, Any]:
    """Return the last progress note of the worker that runs this job, see a2data.journal; NO_PROGRESS before the first."""
    note = store.get(*progress_path(todo, job[0])) if todo[0].per in UNIT else None
    try:
        return json.loads(note) if note else NO_PROGRESS
    except ValueError:  # read during a write
        return NO_PROGRESS
