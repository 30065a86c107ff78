"""Storage of tables: one immutable Parquet part for each stage and shard, which records what it was made from.

A part is fresh if its file exists and the key in its footer equals that of the current settings, code version, models and inputs.
The inputs enter the key by the digest of their rows, so a change that does not alter rows does not propagate (early cut-off, as
in Bazel and Shake). Writes are atomic: a part is written to a temporary name and renamed, or, on an object store, uploaded in one
piece.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from itertools import count, groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from a2data.records import Reject
from a2data.stage import Stage
from a2data.store import parquet, pixels
from a2data.store.folder import Folder
from a2data.store.schema import add_missing_columns, from_table, schema, to_table
from a2data.store.url import reject_password

log = logging.getLogger("a2data")

SPILL_ROWS = 16
DAMAGED_SUFFIX = ".damaged"  # suffix of a part that was moved aside
RESULT_FILE = "made.json"  # of a stage over all shards, see Store.record
COPY_SUFFIX = ".copy"  # SHARD.copy is a second copy of SHARD.parquet
ROW_GROUP_BYTES = 1 << 20  # size of one read: some hundred rows without pixels, one or two clips with pixels


@dataclass
class Footer:
    """Metadata of a part: its key, its counts, and its failed, skipped and rejected units."""

    key: str = ""
    digest: str = ""  # of its rows and of the missing units
    num_inputs: int = 0  # number of units that the stage was run on
    rows: int = 0
    seconds: float = 0.0  # wall time
    failed: dict[str, str] = field(default_factory=dict)  # unit -> error
    skipped: list[str] = field(default_factory=list)  # units that failed in an earlier stage
    rejected: list[Reject] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    version: int = 0
    inputs: dict[str, str] = field(default_factory=dict)  # table -> digest of its rows, when this part was made

    @property
    def missing(self) -> set[str]:
        """Units that later stages must skip, since their rows are missing or incomplete."""
        return {*self.failed, *self.skipped}


class Store(Folder):
    """A folder of tables: <root>/<stage>/<shard>.parquet."""

    def __init__(self, root: str | os.PathLike):
        super().__init__(reject_password(str(root)))

    def part(self, stage: str, shard: int) -> str:
        return self.path(stage, f"{shard:05d}.parquet")

    def shards(self, stage: str) -> list[int]:
        """Return the shards for which the stage has a part."""
        return [int(name.split(".")[0]) for name in self.names(stage) if name.endswith(".parquet")]

    # -- damage ------------------------------------------------------------------------------------------------------

    def set_aside(self, error: parquet.DamagedError) -> parquet.DamagedError:
        """Move a damaged part to NAME.damaged, or NAME.damaged.1 and so on, and replace it by its copy if there is one.

        Returns the error with the new path. The part is read again before it is moved. If it is intact, because another worker
        rebuilt it or the network was at fault, it stays; so does a part that cannot be moved or is gone.
        """
        if error.moved or not error.path.startswith(f"{self.base}/"):
            return error
        stage, shard = self.stage_and_shard(error.path)
        name = f"{shard:05d}.parquet"
        try:
            self.check(stage, shard)
            return error
        except FileNotFoundError:
            return error
        except parquet.DamagedError:
            pass
        existing = set(self.names(stage))
        new_name = next(n for k in count() if (n := f"{name}{DAMAGED_SUFFIX}{f'.{k}' if k else ''}") not in existing)
        try:
            self.fs.move(error.path, self.path(stage, new_name))
        except OSError:
            return error
        if (copy := self._copy(stage, shard)) is not None:
            self.put(copy, stage, name)
        return parquet.DamagedError(error.path, error.reason, self.path(stage, new_name))

    def stage_and_shard(self, path: str) -> tuple[str, int]:
        """Return the stage and the shard of the part at a path."""
        *_, stage, name = path.split("/")
        return stage, int(name.split(".")[0])

    def exists(self, stage: str, shard: int) -> bool:
        """Return whether a part exists, damaged or not."""
        return f"{shard:05d}.parquet" in self.names(stage)

    def check(self, stage: str, shard: int) -> bool:
        """Read every page of a part and return whether it has checksums; without them, its pixels are decoded.

        Raises FileNotFoundError or DamagedError. I/O errors of the disk or network are propagated unchanged.
        """
        path = self.part(stage, shard)
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(self.fs.open_input_file(path))
            if not self.local:  # pyarrow would report network errors as damage of the file
                copy = stack.enter_context(tempfile.NamedTemporaryFile())
                shutil.copyfileobj(file, copy)
                copy.flush()
                file = stack.enter_context(pa.OSFile(copy.name))
            part = parquet.Reader(file, path)
            rows = 0
            for number in range(part.groups):
                table = part.group(number)
                rows += len(table)
                if not part.sealed:
                    pixels.check(table, path)
            if b"a2data" in part.notes and rows != (expected := _footer(part.notes[b"a2data"], path).rows):
                raise parquet.DamagedError(path, f"it has {rows} rows, but its footer says {expected}")
            return part.sealed

    def check_pixels(self, stage: str, shard: int, column: str, values: Iterable[str]) -> None:
        """Raise DamagedError if a part without checksums has damaged pixels in rows with one of these values in a column."""
        selected = pa.array(sorted(values), pa.string())
        with self.open_part(stage, shard) as part:
            if not part.sealed and column in part.names:
                for number in range(part.groups):
                    table = part.group(number)
                    pixels.check(table.filter(pc.is_in(table[column], selected)), part.path)

    def keep_copy(self, stage: str, shard: int) -> None:
        """Write a second copy of a part that stages cannot rebuild, unless a readable copy exists."""
        if self._copy(stage, shard) is None and (data := self.get(stage, f"{shard:05d}.parquet")):
            self.put(data, stage, f"{shard:05d}{COPY_SUFFIX}")

    def _copy(self, stage: str, shard: int) -> bytes | None:
        """Return the second copy of a part; None if it is missing or damaged."""
        data = self.get(stage, f"{shard:05d}{COPY_SUFFIX}")
        try:
            if data is not None:
                parquet.Reader(pa.BufferReader(data), self.path(stage, f"{shard:05d}{COPY_SUFFIX}")).table()
        except parquet.DamagedError:
            return None
        return data

    @contextlib.contextmanager
    def open_part(self, stage: str, shard: int) -> Iterator[parquet.Reader]:
        """Open a part for reading. A part found damaged is moved aside, and DamagedError has both paths.

        Raises FileNotFoundError if it does not exist.
        """
        path = self.part(stage, shard)
        with self.fs.open_input_file(path) as file:
            try:
                yield parquet.Reader(file, path)
            except parquet.DamagedError as error:
                raise self.set_aside(error) from error

    def damaged(self, stage: str, names: list[str] | None = None) -> dict[int, str]:
        """Return shard -> new path of the parts that were moved aside and not rebuilt yet. names: its files, if known."""
        names = self.names(stage) if names is None else names
        existing = set(names)
        aside = {
            int(name.split(".")[0]): self.path(stage, name) for name in names if f".parquet{DAMAGED_SUFFIX}" in name
        }
        return {shard: path for shard, path in aside.items() if f"{shard:05d}.parquet" not in existing}

    def remove_damaged(self, stage: str) -> None:
        """Remove the parts that were moved aside."""
        for name in self.names(stage):
            if f".parquet{DAMAGED_SUFFIX}" in name:
                self.remove(stage, name)

    # -- reading -----------------------------------------------------------------------------------------------------

    def footer(self, stage: str, shard: int) -> Footer | None:
        """Return the part's footer; None if the part is missing, or is damaged and therefore moved aside."""
        for _ in range(2):  # second try if its copy has replaced the part
            try:
                # an object store briefly shows discarded parts, which have no notes
                with self.open_part(stage, shard) as part:
                    return _footer(part.notes[b"a2data"], part.path) if b"a2data" in part.notes else None
            except FileNotFoundError:
                return None
            except parquet.DamagedError as error:
                log.error("%s", error)
        return None

    def table(self, stage: str, shard: int, record: type) -> pa.Table:
        """Return a part as a table with the columns of `record` only."""
        with self.open_part(stage, shard) as part:
            columns = [name for name in schema(record).names if name in part.names]
            return add_missing_columns(record, part.table(columns))

    def read_all(self, stage: str, record: type) -> pa.Table:
        """Return a table over all its shards, with an additional int32 column "shard"."""
        pieces = []
        for shard in self.shards(stage):
            piece = self.table(stage, shard, record)
            pieces.append(piece.append_column("shard", pa.array([shard] * len(piece), pa.int32())))
        empty = schema(record).append(pa.field("shard", pa.int32())).empty_table()
        return pa.concat_tables(pieces) if pieces else empty

    def columns(self, stage: str, shard: int, names: list[str]) -> pa.Table:
        """Return some columns of a part."""
        with self.open_part(stage, shard) as part:
            return part.table(names)

    def values(self, stage: str, shard: int, column: str) -> list[Any]:
        """Return one column of a part."""
        return self.columns(stage, shard, [column]).column(0).to_pylist()

    def read(self, stage: str, shard: int, record: type) -> Iterator[Any]:
        """Yield the rows of a part, with one row group in memory at a time."""
        for _, rows in self.groups(stage, shard, record, schema(record).names[0]):
            yield from rows

    def groups(
        self, stage: str, shard: int, record: type, column: str, only_values: Iterable[str] | None = None
    ) -> Iterator[tuple[str, list[Any]]]:
        """Yield the rows of a part grouped by consecutive equal values of a column; of `only_values` alone if given.

        Row groups without such a value are not read, so the cost is proportional to the rows yielded.
        """
        selected = None if only_values is None else set(only_values)
        columns = schema(record).names
        with self.open_part(stage, shard) as part:
            columns = [name for name in columns if name in part.names]

            def rows() -> Iterator[tuple[str, Any]]:
                for number in range(part.groups):
                    values = part.group(number, [column]).column(0).to_pylist()
                    if selected is None or not selected.isdisjoint(values):
                        records = from_table(record, add_missing_columns(record, part.group(number, columns)))
                        yield from (
                            (v, row)
                            for v, row in zip(values, records, strict=True)
                            if selected is None or v in selected
                        )

            for value, group in groupby(rows(), key=lambda pair: pair[0]):
                yield value, [row for _, row in group]

    # -- freshness ---------------------------------------------------------------------------------------------------

    def inputs(self, stage: Stage, job: tuple[int, ...]) -> dict[str, str] | None:
        """Return the inputs of the stage for this job, table -> digest; None if a part is missing."""
        digests = {}
        for name in stage.reads:
            footers = [self.footer(name, shard) for shard in job]
            if not all(footers):
                return None
            digests[name] = combine_digests([footer.digest for footer in footers if footer])
        return digests

    def key(self, stage: Stage, inputs: dict[str, str]) -> str:
        """Return the key of a fresh part: a hash of settings, code version, schema, models and inputs."""
        return key_of(stage)(inputs)

    def is_up_to_date(self, stage: Stage, job: tuple[int, ...]) -> bool:
        """Return whether the parts of a job are fresh, by their footers. For many jobs see a2data.store.ledger."""
        inputs = self.inputs(stage, job)
        if inputs is None:
            return False
        key = self.key(stage, inputs)
        footers = [footer for shard in job if (footer := self.footer(stage.name(), shard))]
        if len(footers) < len(job):
            return False
        if all(footer.key == key for footer in footers):
            return True
        return stage.per == "all" and self.recorded_result(stage.name()) == (
            key,
            combine_digests([f.digest for f in footers]),
        )

    def record_result(self, stage: Stage, inputs: dict[str, str], digests: list[str]) -> None:
        """Record that the parts with these digests, one for each shard, are what a stage over all shards makes of its inputs.

        The parts whose content has not changed keep the keys of an earlier result.
        """
        result = {"key": self.key(stage, inputs), "digest": combine_digests(digests)}
        self.put(json.dumps(result).encode(), stage.name(), RESULT_FILE)

    def recorded_result(self, stage: str) -> tuple[str, str]:
        """Return the key and the combined digest in the record of a stage over all shards; "" if there is none."""
        try:
            result = json.loads(self.get(stage, RESULT_FILE) or b"{}")
            return str(result.get("key", "")), str(result.get("digest", ""))
        except (ValueError, AttributeError):
            return "", ""

    # -- writing -----------------------------------------------------------------------------------------------------

    def create(self, name: str, record: type, shard: int) -> "Part":
        """Return a part to fill and commit. As a context manager it is discarded if the block ends without a commit."""
        return Part(self, self.part(name, shard), record)

    def write(self, name: str, shard: int, record: type, rows: list[Any]) -> None:
        """Write a part that does not come from a stage, such as the manifest's. Its key is the digest of its rows.

        It gets a second copy, since stages cannot rebuild it.
        """
        # remove the old copy first, so that deleted sources cannot reappear from it
        self.remove(name, f"{shard:05d}{COPY_SUFFIX}")
        with self.create(name, record, shard) as part:
            part.add(rows)
            part.footer.num_inputs = len(rows)
            part.commit()
        self.keep_copy(name, shard)


class Part:
    """A Parquet part being written, one row group at a time, with the footer at the end."""

    def __init__(self, store: Store, path: str, record: type):
        self.store, self.path, self.record, self.footer = store, path, record, Footer()
        self.scratch = store.scratch(path)
        self.out = store.fs.open_output_stream(self.scratch)
        pixels = any(f.type in (bytes, "bytes") for f in fields(record))  # PNG and H.264 are already compressed
        self.writer = parquet.Writer(self.out, schema(record), compression="none" if pixels else "zstd")
        self.sha, self.open = hashlib.sha256(), True
        self.batches: list[pa.RecordBatch] = []  # not yet a row group
        self.batches_bytes = 0

    def __enter__(self) -> "Part":
        return self

    @contextlib.contextmanager
    def unit(self) -> Iterator[Callable[[Any], None]]:
        """Yield a function that adds a row of one unit. The rows are written when the block ends, or not at all if it raises.

        The clips of a long film do not fit into memory, so all but the last few rows wait in a temporary file.
        """
        with contextlib.ExitStack() as stack:
            pending: list[Any] = []
            spools: list[tuple[Any, pa.ipc.RecordBatchStreamWriter]] = []  # at most one, opened on demand

            def add(row: Any) -> None:
                pending.append(row)
                if len(pending) == SPILL_ROWS:
                    if not spools:
                        spool = stack.enter_context(tempfile.TemporaryFile())
                        spools.append((spool, pa.ipc.new_stream(spool, schema(self.record))))
                    spools[0][1].write_table(to_table(self.record, pending))
                    pending.clear()

            yield add
            for spool, writer in spools:
                writer.close()
                spool.seek(0)
                for batch in pa.ipc.open_stream(spool):
                    self._append(batch)
            if pending:
                for batch in to_table(self.record, pending).to_batches():
                    self._append(batch)

    def add(self, rows: Iterable[Any]) -> None:
        """Append rows."""
        with self.unit() as add:
            for row in rows:
                add(row)

    def add_table(self, table: pa.Table) -> None:
        """Append the rows of a table, in the same batches as `add`, because the digest is of batches as they are written."""
        table = table.combine_chunks()
        for start in range(0, len(table), SPILL_ROWS):
            rows = pa.array(range(start, min(start + SPILL_ROWS, len(table))))
            # a slice would be written with other offsets and padding
            for batch in table.take(rows).combine_chunks().to_batches():
                self._append(batch)

    def _append(self, batch: pa.RecordBatch) -> None:
        self.sha.update(batch.serialize())
        self.footer.rows += len(batch)
        self.batches.append(batch)
        self.batches_bytes += batch.nbytes
        if self.batches_bytes >= ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self.batches:
            self.writer.write(pa.Table.from_batches(self.batches))
            self.batches, self.batches_bytes = [], 0

    def commit(
        self, stage: Stage | None = None, inputs: dict[str, str] | None = None, replaces: Footer | None = None
    ) -> None:
        """Publish the part with the key of the stage and its inputs.

        replaces: footer of the part that it would replace; if all that it says but the key is the same, that part stays. In an
            object store, which has no temporary names, it is always replaced.
        """
        self._flush()
        footer = self.footer
        self.sha.update(json.dumps(sorted(footer.missing)).encode())
        footer.digest = footer.key = self.sha.hexdigest()[:16]
        if stage is not None:
            footer.key = self.store.key(stage, inputs or {})
            footer.settings, footer.models, footer.version = stage.cache_fields(), stage.models(), stage.version
            footer.inputs = inputs or {}
        if replaces is not None and self.scratch != self.path:
            same = replace(replaces, key=footer.key, inputs=footer.inputs, seconds=footer.seconds)
            if same == footer:
                return
        metadata = vars(footer) | {"rejected": [(r.key, r.reason, r.detail) for r in footer.rejected]}
        self._close({"a2data": json.dumps(metadata, ensure_ascii=False, sort_keys=True)})
        self.store.publish(self.scratch, self.path)

    def _close(self, notes: dict[str, str] | None = None) -> None:
        self.open = False
        self.writer.close(notes)
        self.out.close()

    def __exit__(self, *_: Any) -> None:
        if self.open:
            with contextlib.suppress(OSError, pa.ArrowInvalid):
                self._close()
            self.store.fs.delete_file(self.scratch)


RENAMED_FIELDS = {"units": "num_inputs", "left_out": "skipped"}  # fields of the footers of earlier versions


def _footer(notes: bytes, path: str) -> Footer:
    """Return the footer in a part's notes. Fields of other versions are not damage: renamed ones are read, others ignored."""
    try:
        values = {RENAMED_FIELDS.get(name, name): value for name, value in json.loads(notes).items()}
        arguments = {f.name: values[f.name] for f in fields(Footer) if f.name in values}
        return Footer(**arguments | {"rejected": [Reject(*r) for r in values["rejected"]]})
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # of a part without checksums
        raise parquet.DamagedError(path, f"its notes cannot be read: {error}") from error


def combine_digests(digests: list[str]) -> str:
    """Return the digest of a table over the shards of a job."""
    return digests[0] if len(digests) == 1 else hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:16]


def key_of(stage: Stage) -> Callable[[dict[str, str]], str]:
    """Return the function from the inputs of a stage (table -> digest) to the key of a fresh part.

    The part of the hash that does not depend on the inputs is computed once. Names and digests need no escapes in JSON.
    """
    fixed = [stage.name(), stage.version, stage.cache_fields(), str(schema(stage.writes)), stage.models()]
    start = hashlib.sha256(f"{json.dumps(fixed, sort_keys=True)[:-1]}, ".encode())

    def key(inputs: dict[str, str]) -> str:
        sha = start.copy()
        inputs_json = ", ".join([f'"{name}": "{digest}"' for name, digest in sorted(inputs.items())])
        sha.update(f"{{{inputs_json}}}]".encode())
        return sha.hexdigest()[:16]

    return key
