"""Run a stage over all shards: its inputs are mapped from disk, and only parts whose content changes are written again."""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from a2data import accounting
from a2data.heartbeat import counted
from a2data.records import Failure, Reject
from a2data.stage import Stage
from a2data.store.earlier import Earlier
from a2data.store.lookup import Lookup
from a2data.store.schema import schema, to_table
from a2data.store.tables import Footer, Store, combine_digests
from a2data.task_map import TaskMap

BATCH_ROWS = 4096  # rows that are held as records


def run_over_all(
    stage: Stage, model: Any, store: Store, job: tuple[int, ...], task_map: TaskMap, footers: dict[str, list[Footer]]
) -> None:
    """Write the parts of a stage over all shards. footers: those of its inputs, table -> in the order of the shards."""
    began = time.perf_counter()
    digests = {name: [footer.digest for footer in of_table] for name, of_table in footers.items()}
    missing = [set().union(*(footers[name][n].missing for name in footers)) for n in range(len(job))]
    main, *others = stage.reads
    of_shard = {shard: _digest([digests[name][n] for name in others]) for n, shard in enumerate(job)}
    first = dict(zip(job, digests[main], strict=True))
    earlier = Earlier(store, stage, of_shard, first) if stage.uses_earlier else None
    with Spool() as spool:
        tables = [_input(store, name, record, job, missing, spool) for name, record in stage.reads.items()]
        units = tables[0].select(sorted({"clip_id", "shard", stage.accounts_for} - {""}))

        def counted_task_map(*arguments: Any) -> Iterator[Any]:
            return counted(task_map(*arguments))

        options: dict[str, Any] = {"task_map": counted_task_map} if stage.uses_task_map else {}
        options |= {"lookup": Lookup(store, stage.lookup_tables)} if stage.lookup_tables else {}
        options |= {"earlier": earlier} if earlier is not None else {}
        rows, rejects_and_failures = _collect(stage, counted(stage.run(model, *tables, **options)), spool)
        shard_of = units["shard"].to_numpy()
        rows_of_shard = _rows_by(stage, rows, units["clip_id"], shard_of)
        others_of_shard: dict[int, list[Reject | Failure]] = {shard: [] for shard in job}
        clips = pa.array([other.key.split("/")[0] for other in rejects_and_failures], pa.string())
        shards = _shards(clips, units["clip_id"], shard_of).tolist()
        for other, shard in zip(rejects_and_failures, shards, strict=True):
            others_of_shard[shard].append(other)
        if earlier is not None:
            earlier.before_writing()
        written = {}
        inputs = {name: combine_digests(of_table) for name, of_table in digests.items()}
        for n, shard in enumerate(job):
            if earlier is not None and shard in earlier.kept:
                continue
            indices = pa.array(rows_of_shard.get(shard, np.empty(0, np.int64)))
            accountable = _accountable(stage, units, shard)
            shard_rows, rejected, failed = accounting.split_results(
                stage, rows.take(indices), others_of_shard[shard], accountable
            )
            # read before `create`, which replaces the part at once where names are not temporary
            old_footer = store.footer(stage.name(), shard) if earlier is not None else None
            with store.create(stage.name(), stage.writes, shard) as part:
                part.add_table(shard_rows)
                part.footer.rejected, part.footer.failed = rejected, failed
                part.footer.num_inputs = accounting.count(stage, shard_rows, rejected) + len(failed)
                part.footer.skipped = sorted(missing[n])
                part.footer.seconds = (time.perf_counter() - began) / len(job)
                part.commit(stage, inputs, replaces=old_footer)
                written[shard] = part.footer.digest
        if earlier is not None:
            earlier.after_writing()
            results = [written[s] if s in written else _committed_digest(store, stage, s) for s in job]
            store.record_result(stage, inputs, results)


def _committed_digest(store: Store, stage: Stage, shard: int) -> str:
    footer = store.footer(stage.name(), shard)
    if footer is None:
        raise FileNotFoundError(f"{store.part(stage.name(), shard)} disappeared while it was in use: run again")
    return footer.digest


def _accountable(stage: Stage, units: pa.Table, shard: int) -> dict[str, str]:
    """Return the values of a shard that the stage must account for, each with its clip."""
    if not stage.accounts_for:
        return {}
    of_shard = units.filter(pc.equal(units["shard"], shard))
    return dict(zip(of_shard[stage.accounts_for].to_pylist(), of_shard["clip_id"].to_pylist(), strict=True))


def _digest(digests: list[str]) -> str:
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:16]


def _input(
    store: Store, name: str, record: type, job: tuple[int, ...], missing_of: list[set[str]], spool: "Spool"
) -> pa.Table:
    """Return a table over all shards, without the rows of missing units and with a column "shard", mapped from disk."""

    def pieces() -> Iterator[pa.Table]:
        for shard, missing in zip(job, missing_of, strict=True):
            piece = drop_missing(store.table(name, shard, record), missing)
            yield piece.append_column("shard", pa.array(np.full(len(piece), shard, np.int32)))

    return spool.table(schema(record).append(pa.field("shard", pa.int32())), pieces())


def drop_missing(table: pa.Table, missing: set[str]) -> pa.Table:
    """Return the table without the rows of missing units."""
    for column in ("video_id", "clip_id"):
        if missing and column in table.column_names:
            table = table.filter(pc.invert(pc.is_in(table.column(column), pa.array(sorted(missing), pa.string()))))
    return table


def _collect(stage: Stage, yielded: Iterable[Any], spool: "Spool") -> tuple[pa.Table, list[Reject | Failure]]:
    """Return the rows that a stage yields, one by one or as tables, mapped from disk, and its rejects and failures."""
    others: list[Reject | Failure] = []

    def pieces() -> Iterator[pa.Table]:
        pending: list[Any] = []
        for item in yielded:
            if isinstance(item, Reject | Failure):
                others.append(item)
            elif isinstance(item, pa.Table):
                yield item
            else:
                pending.append(item)
                if len(pending) == BATCH_ROWS:
                    yield to_table(stage.writes, pending)
                    pending.clear()
        yield to_table(stage.writes, pending)

    return spool.table(schema(stage.writes), pieces()), others


def _shards(clips: pa.Array | pa.ChunkedArray, clip_ids: pa.ChunkedArray, shard_of: np.ndarray) -> np.ndarray:
    index = pc.index_in(clips, value_set=clip_ids.combine_chunks())
    if index.null_count:
        name = clips.filter(pc.is_null(index))[0].as_py()
        raise KeyError(f"a result for {name}, which is not in the first input table")
    return shard_of[index.to_numpy()]


def _rows_by(stage: Stage, rows: pa.Table, clip_ids: pa.ChunkedArray, shard_of: np.ndarray) -> dict[int, np.ndarray]:
    """Return the indices of the rows of each shard, by what the stage accounts for, else in the order they were made."""
    shard = _shards(rows["clip_id"], clip_ids, shard_of)
    order = np.arange(len(rows))
    if stage.accounts_for and len(rows):
        order = np.argsort(pc.rank(rows[stage.accounts_for], tiebreaker="min").to_numpy(), kind="stable")
    order = order[np.argsort(shard[order], kind="stable")]
    numbers, first = np.unique(shard[order], return_index=True)
    ends = [*first[1:], len(order)]
    return {int(n): order[begin:end] for n, begin, end in zip(numbers, first, ends, strict=False)}


class Spool:
    """Temporary files, from which tables are mapped. They are in TMPDIR, and removed when the block ends."""

    def __enter__(self) -> "Spool":
        self.folder = tempfile.TemporaryDirectory(prefix="a2data-")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.folder.cleanup()

    def table(self, schema: pa.Schema, pieces: Iterable[pa.Table]) -> pa.Table:
        """Return the pieces as one table whose columns are contiguous: `take` would copy those of several chunks."""
        path = self._write(schema, pieces)
        with pa.memory_map(path) as source:
            chunked = pa.ipc.open_stream(source).read_all()
        columns = []
        for field, column in zip(schema, chunked.columns, strict=True):
            single = pa.schema([field])
            column_path = self._write(single, [pa.table([column.combine_chunks()], single)])
            with pa.memory_map(column_path) as source:
                columns.append(pa.ipc.open_stream(source).read_all().column(0))
        os.remove(path)
        return pa.table(columns, schema)

    def _write(self, schema: pa.Schema, pieces: Iterable[pa.Table]) -> str:
        handle, path = tempfile.mkstemp(".arrow", dir=self.folder.name)
        os.close(handle)
        with pa.OSFile(path, "wb") as file, pa.ipc.new_stream(file, schema) as writer:
            for piece in pieces:
                writer.write_table(piece.select(schema.names).cast(schema))
        return path
