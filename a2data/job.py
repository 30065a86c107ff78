"""Run one job in this process: a group of stages over one shard, or one stage over all shards. Does not need Ray."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack, suppress
from threading import Thread
from typing import Any

from a2data import accounting
from a2data.corpus_job import drop_missing, run_over_all
from a2data.heartbeat import Progress, counted
from a2data.journal import note_units, progress_path
from a2data.records import ClipVideo, Failure, Reject
from a2data.stage import Stage
from a2data.store.lookup import Lookup
from a2data.store.parquet import DamagedError
from a2data.store.partial import StoredTaskMap
from a2data.store.schema import from_table, to_table
from a2data.store.source_files import SourceFiles
from a2data.store.tables import Footer, Part, Store
from a2data.store.url import scrub
from a2data.task_map import TaskMap, map_serial

log = logging.getLogger("a2data")

DECODE_AHEAD = 2  # most clips decoded before their turn; one of 81 frames of 832 x 480 takes 97 MB
UNIT = {"video": "video_id", "clip": "clip_id"}  # value of `per` -> id column of its units


def run_job(
    stages: Sequence[Stage],
    models: Sequence[Any],
    store: Store,
    job: tuple[int, ...],
    skip: dict[str, str] | None = None,
    task_map: TaskMap = map_serial,
    progress: Progress | None = None,
) -> None:
    """Write the parts of a job. task_map: parallel map for a stage over all shards. progress: counts the steps of units.

    Several stages, all per "clip", process the shard together and share the frames of each clip. A unit that raises is recorded
    with its error in the part's footer and skipped by later stages. The same applies to a unit in `skip` (unit -> reason), which
    has killed a worker before. A reason of "" marks a suspect, which was in flight with others when a worker died; it runs alone.
    A key "stage/unit" applies to one of the stages only. Exceptions of a stage per "shard" or "all" are propagated.

    A stage with several units in flight processes the shard alone, in threads.
    """
    progress = progress or Progress(stages[0].name())
    if stages[0].per in UNIT:
        _run_units(stages, models, store, job[0], skip or {}, progress, task_map)
        return
    (stage,), (model,) = stages, models
    footers = _input_footers(stage, store, job)
    if stage.per == "all":
        with progress.unit("", stage.name()):
            run_over_all(stage, model, store, job, task_map, footers)
        return
    began = time.perf_counter()
    with progress.unit("", stage.name()):
        yielded = _shard_rows(stage, model, store, job[0])
    table = to_table(stage.writes, [row for row in yielded if not isinstance(row, Reject | Failure)])
    others = [row for row in yielded if isinstance(row, Reject | Failure)]
    rows, rejected, failed = accounting.split_results(stage, table, others, _accountable(stage, store, job[0]))
    with store.create(stage.name(), stage.writes, job[0]) as part:
        part.add_table(rows)
        part.footer.rejected, part.footer.failed = rejected, failed
        part.footer.num_inputs = accounting.count(stage, rows, rejected) + len(failed)
        part.footer.skipped = sorted(_missing(stage, store, job[0]))
        part.footer.seconds = time.perf_counter() - began
        part.commit(stage, store.inputs(stage, job))


def _input_footers(
    stage: Stage, store: Store, job: tuple[int, ...], fused: Sequence[str] = ()
) -> dict[str, list[Footer]]:
    """Return the footers of the inputs. Raises FileNotFoundError, with the command to run, if one is missing."""
    footers: dict[str, list[Footer]] = {}
    for name in stage.reads:
        for shard in job if name not in fused else ():
            footer = store.footer(name, shard)
            if footer is None:
                raise FileNotFoundError(
                    f"{stage.name()} reads the table {name!r}, whose part for shard {shard} is missing: "
                    f"run `a2data {name} {store.root}` first"
                )
            footers.setdefault(name, []).append(footer)
    return footers


def _missing(stage: Stage, store: Store, shard: int, fused: Sequence[str] = ()) -> set[str]:
    """Return the units with a missing input because they failed in that stage or an earlier one."""
    footers = [store.footer(name, shard) for name in stage.reads if name not in fused]
    return set().union(*(footer.missing for footer in footers if footer))


# -- per video, per clip -----------------------------------------------------------------------------------------------


def _run_units(
    stages: Sequence[Stage],
    models: Sequence[Any],
    store: Store,
    shard: int,
    skip: dict[str, str],
    progress: Progress,
    task_map: TaskMap,
) -> None:
    fused: list[str] = []
    partials = {stage: StoredTaskMap(store, stage, shard, task_map) for stage in stages if stage.uses_task_map}
    missing = {}
    for stage in stages:
        _input_footers(stage, store, (shard,), fused)
        missing[stage] = _missing(stage, store, shard, fused)
        fused.append(stage.name())
    with ExitStack() as stack:
        parts = [stack.enter_context(store.create(stage.name(), stage.writes, shard)) for stage in stages]
        names = _unit_names(stages, store, shard)
        units = _units(stages, store, shard, names)

        def note(in_flight: Sequence[str], number: int) -> None:
            note_units(store, stages, shard, in_flight, number / len(names), parts)

        if len(stages) == 1 and stages[0].concurrency > 1:
            _run_concurrently(stages[0], models[0], parts[0], store, units, missing[stages[0]], skip, note, progress)
        else:
            for unit, inputs, decoded in _decode_ahead(stages, units, skip, note):
                with progress.unit(unit, stages[0].name()):
                    began = time.perf_counter()
                    wait([decoded])
                    parts[0].footer.seconds += time.perf_counter() - began
                    for stage, model, part in zip(stages, models, parts, strict=True):
                        progress.enter(stage.name())
                        due = _is_due(stage, part, unit, inputs, missing[stage], skip)
                        _run_unit(stage, model, part, store, unit, inputs, due, len(stages) > 1, partials.get(stage))
        _check_inputs(stages, parts, store, shard, fused)
        # in order, since each stage reads the digest of the one before it from the store
        for stage, part in zip(stages, parts, strict=True):
            part.footer.skipped.extend(sorted(missing[stage] - {*part.footer.skipped, *part.footer.failed}))
            part.commit(stage, store.inputs(stage, (shard,)))
    for partial in partials.values():
        partial.remove()
    store.remove(*progress_path(stages, shard))


def _decode_ahead(
    stages: Sequence[Stage],
    units: Iterable[tuple[str, dict[str, list]]],
    skip: dict[str, str],
    note: Callable[[Sequence[str], int], None],
) -> Iterator[tuple[str, dict[str, list], Future]]:
    """Yield the units in order, each with a future that is done once its clips are decoded.

    While a unit is processed, those after it are decoded in threads. A unit in `skip` has killed or blocked a worker: it is
    decoded by its stages, while no other unit is in flight.
    """
    ahead = DECODE_AHEAD if any(ClipVideo in stage.reads.values() for stage in stages) else 0
    suspects = {name.rpartition("/")[2] for name in skip}  # a name is UNIT or STAGE/UNIT
    pending: deque[tuple[str, dict[str, list], Future]] = deque()
    units = iter(units)
    next_unit, number, is_noted = next(units, None), 0, False
    while pending or next_unit:
        while next_unit and (not pending or (len(pending) <= ahead and not suspects & {pending[0][0], next_unit[0]})):
            unit, inputs = next_unit
            note(
                [*(name for name, *_ in pending), unit], number
            )  # before it starts, since it may kill this process at once
            pending.append((unit, inputs, _in_thread(_decode, {} if unit in suspects or not ahead else inputs)))
            next_unit, is_noted = next(units, None), True
        if not is_noted:
            note([name for name, *_ in pending], number)
        yield pending[0]
        pending.popleft()
        number, is_noted = number + 1, False


def _decode(inputs: dict[str, list]) -> None:
    for row in (row for rows in inputs.values() for row in rows if isinstance(row, ClipVideo)):
        with suppress(Exception):  # raised again in the stage that uses the frames
            row.frames  # noqa: B018  (cached)


def _run_unit(
    stage: Stage,
    model: Any,
    part: Part,
    store: Store,
    unit: str,
    inputs: dict[str, list],
    due: bool,
    keep: bool,
    partials: StoredTaskMap | None = None,
) -> None:
    """Run one stage on one unit, if it is due. keep: add its rows to the inputs for the stages after it."""
    began = time.perf_counter()
    rows = _run(stage, model, inputs, store, partials) if due else None
    if rows is not None and (produced := _write_unit(stage, part, unit, rows, keep)) is not None:
        inputs[stage.name()] = produced
    part.footer.seconds += time.perf_counter() - began


def _check_inputs(
    stages: Sequence[Stage], parts: Sequence[Part], store: Store, shard: int, fused: Sequence[str]
) -> None:
    """Raise DamagedError if a unit failed because its pixels are damaged, in a part written before checksums existed."""
    failed = {unit for part in parts for unit in part.footer.failed}
    for name in sorted({name for stage in stages for name in stage.reads} - {*fused}) if failed else ():
        store.check_pixels(name, shard, UNIT[stages[0].per], failed)


def _is_due(
    stage: Stage, part: Part, unit: str, inputs: dict[str, list], missing: set[str], skip: dict[str, str]
) -> bool:
    """Return whether a stage runs on a unit. If not, the unit is recorded in the footer."""
    footer = part.footer
    if any(name not in inputs for name in stage.reads) or {unit, unit.rpartition("-")[0]} & missing:
        footer.skipped.append(unit)
        return False
    footer.num_inputs += 1
    reason = skip.get(unit) or skip.get(f"{stage.name()}/{unit}")
    if reason:
        footer.failed[unit] = reason
        return False
    return True


def _run(
    stage: Stage, model: Any, inputs: dict[str, list], store: Store, partials: StoredTaskMap | None = None
) -> Iterator[Any]:
    """Yield what a stage yields for a unit. Nothing runs or raises before the first row is requested."""
    options: dict[str, Any] = {"source_file": SourceFiles(store).opener} if stage.opens_sources else {}
    options |= {"task_map": partials} if partials else {}
    yield from counted(stage.run(model, *(inputs[name] for name in stage.reads), **options))


def _write_unit(stage: Stage, part: Part, unit: str, results: Iterable[Any], keep: bool) -> list[Any] | None:
    """Write the rows of a unit to the part and return them if `keep`; if the unit raises, record the failure and return None."""
    rows: list[Any] = []
    rejected: list[Reject] = []
    count = 0  # of rows, also if they are not kept
    try:
        with part.unit() as add:  # atomic: a unit that raises half-way leaves no rows
            for row in results:
                if isinstance(row, Reject):
                    rejected.append(row)
                else:
                    add(row)
                    count += 1
                    if keep:
                        rows.append(row)
            if stage.accounts_for and not count and not rejected:
                raise LookupError(f"{stage.name()} yielded neither a row nor a reject")
    except DamagedError:  # an input part is damaged; the unit is not at fault
        raise
    except Exception as error:
        log.warning("%s: %s failed", stage.name(), unit, exc_info=True)
        part.footer.failed[unit] = scrub(f"{type(error).__name__}: {error}")
        return None
    part.footer.rejected += rejected
    return rows


def _run_concurrently(
    stage: Stage,
    model: Any,
    part: Part,
    store: Store,
    units: Iterable[tuple[str, dict[str, list]]],
    missing: set[str],
    skip: dict[str, str],
    note: Callable[[Sequence[str], int], None],
    progress: Progress,
) -> None:
    """Run one stage over a shard with up to `concurrency` units in flight, each in a thread, and write their rows in order.

    As many finished units may wait for a slow one before them. The threads are daemons, so that an interrupt ends the process at
    once, not after the last answer.
    """
    began, limit = time.perf_counter(), stage.concurrency
    pending: deque[tuple[str, Future]] = deque()  # started and not written yet, in order

    def running() -> list[tuple[str, Future]]:
        return [(unit, future) for unit, future in pending if not future.done()]

    def rows(unit: str, inputs: dict[str, list]) -> list[Any]:
        with progress.unit(unit, stage.name()):
            return list(_run(stage, model, inputs, store))

    def write_first() -> None:
        unit, future = pending.popleft()
        _write_unit(stage, part, unit, _rows_of(future), keep=False)

    for number, (unit, inputs) in enumerate(units):
        if not _is_due(stage, part, unit, inputs, missing, skip):
            continue
        max_others = 0 if unit in skip else limit - 1  # other units that may run at the same time
        while len(in_flight := running()) > max_others:
            wait([future for _, future in in_flight], return_when=FIRST_COMPLETED)
        while pending and (pending[0][1].done() or len(pending) >= 2 * limit):
            write_first()
        # before it starts, since it may kill this process at once
        note([*(name for name, _ in running()), unit], number)
        pending.append((unit, _in_thread(rows, unit, inputs)))
        if unit in skip:
            wait([pending[-1][1]])
    while pending:
        write_first()
    part.footer.seconds += time.perf_counter() - began


def _rows_of(future: Future) -> Iterator[Any]:
    """Yield the rows of a unit's thread, or raise its error."""
    yield from future.result()


def _in_thread(call: Callable[..., Any], *args: Any) -> Future:
    """Run a call in a new daemon thread. Unlike with a pool's threads, the process does not wait for it on exit."""
    future: Future = Future()

    def work() -> None:
        try:
            future.set_result(call(*args))
        except BaseException as error:
            future.set_exception(error)

    Thread(target=work, daemon=True).start()
    return future


def _unit_names(stages: Sequence[Stage], store: Store, shard: int) -> list[str]:
    """Return the names of the units of a shard, from the first table. Raises ValueError if they are not in ascending order."""
    main = next(iter(stages[0].reads))
    names = list(dict.fromkeys(store.values(main, shard, UNIT[stages[0].per])))
    if names != sorted(names):
        raise ValueError(f"shard {shard} of {main!r} does not hold its units in ascending order")
    return names


def _units(
    stages: Sequence[Stage], store: Store, shard: int, names: list[str]
) -> Iterator[tuple[str, dict[str, list]]]:
    """Yield the units of a shard in order of their names, each with its rows from every table that the stages read.

    All parts of a shard hold their units in the same ascending order, so the tables are merged while they are read.
    """
    column, fused = UNIT[stages[0].per], {stage.name() for stage in stages}
    reads = {name: record for stage in stages for name, record in stage.reads.items() if name not in fused}
    main, *others = reads
    readers = {name: store.groups(name, shard, reads[name], column, names) for name in others}
    lookahead = {name: next(reader, None) for name, reader in readers.items()}
    for unit, rows in store.groups(main, shard, reads[main], column):
        inputs = {main: rows}
        for name in others:
            next_rows = lookahead[name]
            if next_rows is not None and next_rows[0] == unit:
                inputs[name], lookahead[name] = next_rows[1], next(readers[name], None)
            else:
                inputs[name] = []
        yield unit, inputs


# -- per shard ---------------------------------------------------------------------------------------------------------


def _accountable(stage: Stage, store: Store, shard: int) -> dict[str, str]:
    """Return the values that a stage per "shard" or "all" must account for, each with its clip."""
    if not stage.accounts_for:
        return {}
    table = store.columns(next(iter(stage.reads)), shard, sorted({stage.accounts_for, "clip_id"}))
    table = drop_missing(table, _missing(stage, store, shard))
    return dict(zip(*(table.column(c).to_pylist() for c in (stage.accounts_for, "clip_id")), strict=True))


def _shard_rows(stage: Stage, model: Any, store: Store, shard: int) -> list[Any]:
    missing = _missing(stage, store, shard)
    inputs = [drop_missing(store.table(name, shard, record), missing) for name, record in stage.reads.items()]
    rows = [from_table(record, table) for record, table in zip(stage.reads.values(), inputs, strict=True)]
    return list(counted(stage.run(model, *rows, shard=shard, **_lookup(stage, store))))


def _lookup(stage: Stage, store: Store) -> dict[str, Any]:
    return {"lookup": Lookup(store, stage.lookup_tables)} if stage.lookup_tables else {}
