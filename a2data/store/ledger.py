"""Completion state of a store: keys, digests and counts of all its parts, at the cost of one listing for each table.

<root>/parts.ledger holds a row group for each table with an entry for each part: the key, digest, settings and counts in its
footer, and the size and modification time of the file that was read. It is derived data. A command lists each table once, uses
the entries whose size and time equal those of the file, opens the other parts, and replaces the ledger atomically when it ends. A
missing, damaged or outdated ledger therefore costs only time, and any number of processes may write it: the last one wins for the
tables that it listed, and missing entries are read again. Workers do not write it, so a killed worker cannot leave it incomplete.

A file replaced within one tick of its clock, by another of the same size, would look unchanged. As in Git's index, an entry is
therefore stored only if the file had not changed for RACY_NS when it was listed.
"""

import contextlib
import gc
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from a2data.stage import Stage
from a2data.store import parquet
from a2data.store.folder import Stamp
from a2data.store.tables import Footer, Store, combine_digests, key_of

log = logging.getLogger("a2data")

LEDGER_FILE = "parts.ledger"
RACY_NS = 2_000_000_000  # the coarsest clock of a file system, that of FAT, ticks every 2 s
MAX_THREADS = 16  # footers read at the same time from an object store
SCHEMA = pa.schema(
    [
        ("shard", pa.int32()),
        ("bytes", pa.int64()),
        ("modified_ns", pa.int64()),
        ("key", pa.string()),
        ("digest", pa.string()),
        ("num_inputs", pa.int64()),
        ("num_rejected", pa.int64()),
        ("num_failed", pa.int64()),
        ("made_with", pa.dictionary(pa.int32(), pa.string())),
        ("proof", pa.string()),
    ]
)
UNTRUSTED = Stamp(-1, 0)  # equals the stamp of no file
DIGEST = "S16"  # of a digest or key, 16 hexadecimal digits


class Entry(NamedTuple):
    """The ledger's copy of a part's footer."""

    bytes: int  # size and modification time of the file whose footer was read
    modified_ns: int
    key: str
    digest: str
    num_inputs: int
    num_rejected: int
    num_failed: int
    made_with: str  # JSON of its settings, models and version
    # the inputs of the verified key, see `Ledger.fresh`: the digest of those that do not depend on tables, then of each table
    proof: str = ""


class Entries(MutableMapping[int, Entry]):
    """The entries of a table by shard, in columns until one of them is looked up or changed."""

    def __init__(self, rows: pa.Table):
        """rows: SCHEMA."""
        self._rows: pa.Table | None = rows
        self._by_shard: dict[int, Entry] | None = None

    @property
    def rows(self) -> pa.Table:
        """Return the entries as a table of SCHEMA."""
        if self._rows is None:
            columns: list[Any] = [list(self), *zip(*self.values(), strict=True)] if self else [[] for _ in SCHEMA]
            self._rows = pa.table([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], SCHEMA)
        return self._rows

    @property
    def by_shard(self) -> dict[int, Entry]:
        if self._by_shard is None:
            shards, *columns = (column.to_pylist() for column in self.rows.columns)
            with _without_gc():
                rows = map(tuple.__new__, repeat(Entry), zip(*columns, strict=True))
                self._by_shard = dict(zip(shards, rows, strict=True))
        return self._by_shard

    def __getitem__(self, shard: int) -> Entry:
        return self.by_shard[shard]

    def __setitem__(self, shard: int, entry: Entry) -> None:
        self.by_shard[shard] = entry
        self._rows = None

    def __delitem__(self, shard: int) -> None:
        del self.by_shard[shard]
        self._rows = None

    def __iter__(self) -> Iterator[int]:
        return iter(self.by_shard if self._rows is None else self._rows["shard"].to_pylist())

    def __len__(self) -> int:
        return len(self.by_shard if self._rows is None else self._rows)

    def column(self, name: str) -> np.ndarray:
        """Return a column of integers. Arrow's to_numpy would import pandas first, which takes half a second."""
        dtype = SCHEMA.field(name).type.to_pandas_dtype()
        chunks = self.rows[name].chunks
        arrays = [np.frombuffer(c.buffers()[1], dtype, len(c), c.offset * dtype().itemsize) for c in chunks if len(c)]
        return np.concatenate(arrays) if arrays else np.empty(0, dtype)

    def strings(self, name: str, length: int) -> np.ndarray:
        """Return a column of ASCII text, (n,) bytes; text of another length is empty."""
        array = self.rows[name].combine_chunks()
        array = array.chunk(0) if isinstance(array, pa.ChunkedArray) and array.num_chunks else array
        if not len(array):
            return np.empty(0, f"S{length}")
        _, offsets, data = array.buffers()
        ends = np.frombuffer(offsets, np.int32, len(array) + 1, array.offset * 4)
        if np.all(np.diff(ends) == length):
            return np.frombuffer(data, f"S{length}", len(array), ends[0])
        return np.array([value if len(value) == length else "" for value in array.to_pylist()], f"S{length}")

    def find(self, shards: np.ndarray) -> np.ndarray:
        """Return the index of each shard, (n,) int64; -1 if it has no entry."""
        known_shards = self.column("shard")
        order = np.argsort(known_shards, kind="stable")
        index = (
            order[np.minimum(np.searchsorted(known_shards, shards, sorter=order), len(known_shards) - 1)]
            if len(known_shards)
            else order
        )
        return np.where(known_shards[index] == shards, index, -1) if len(known_shards) else np.full(len(shards), -1)

    def digests(self, shards: np.ndarray) -> list[str]:
        """Return the digest of the part of each shard; "" if it has no entry."""
        index = self.find(shards)
        digests = np.append(self.strings("digest", 16), b"")
        return [digest.decode() for digest in digests[index].tolist()]

    def set_proofs(self, proofs: dict[int, str]) -> None:
        """Set the proofs of some entries, by index."""
        column = self.rows["proof"].to_pylist()
        for index, proof in proofs.items():
            column[index] = proof
        position = SCHEMA.get_field_index("proof")
        self._rows, self._by_shard = (
            self.rows.set_column(position, SCHEMA.field(position), pa.array(column, pa.string())),
            None,
        )

    def replace(self, rows: pa.Table) -> None:
        self._rows, self._by_shard = rows, None


class Ledger:
    """The parts of a store as of the first access to their table, except for those that were reread since."""

    def __init__(self, store: Store):
        self.store = store
        self.tables: dict[str, Entries] = {}
        self.listed: dict[str, list[str]] = {}  # table -> names of all its files
        self.modified_ns: dict[str, int] = {}  # table -> modification time of its newest part
        # table -> shards whose parts were new or had changed when it was listed
        self.reread_shards: dict[str, list[int]] = {}
        self.outdated: set[str] = set()  # tables whose files have changed since they were listed
        self.unsaved: set[str] = set()  # tables with other entries than the file
        self.stored = _LedgerFile(store)

    def entries(self, table: str) -> Entries:
        """Return the entries of a table by shard. They are updated in place by `reread` and `refresh`."""
        if table not in self.tables:
            self.refresh(table)
        return self.tables[table]

    def shards(self, table: str) -> list[int]:
        """Return the shards for which the table has a readable part."""
        return list(self.entries(table))

    def names(self, table: str) -> list[str]:
        """Return the names of the files of a table."""
        self.entries(table)
        return self.listed[table]

    def is_fresh(self, stage: Stage) -> Callable[[tuple[int, ...]], bool]:
        """Return a function that returns whether the parts of a job of this stage are up to date, like Store.is_up_to_date."""
        own, reads = self.entries(stage.name()), [(name, self.entries(name)) for name in stage.reads]
        key = key_of(stage)

        def fresh(job: tuple[int, ...]) -> bool:
            if stage.per != "all":
                (shard,) = job
                try:
                    return own[shard].key == key({name: entries[shard].digest for name, entries in reads})
                except KeyError:
                    return False
            shards = np.array(job, np.int64)
            digests = {name: entries.digests(shards) for name, entries in [*reads, ("", own)]}
            if not all(map(all, digests.values())):
                return False
            own_digest = combine_digests(digests.pop(""))
            expected = key({name: combine_digests(of_shards) for name, of_shards in digests.items()})
            if np.all(own.strings("key", 16)[own.find(shards)] == expected.encode()):
                return True
            return self.store.recorded_result(stage.name()) == (expected, own_digest)

        return fresh

    def fresh(self, stage: Stage, shards: Sequence[int]) -> np.ndarray:
        """Return whether the part of each shard is up to date, (n,) bool, as `is_fresh` does. Not for a stage over all shards.

        The key of a part is a hash of the stage's settings, code version, schema and models and of the digests of its inputs.
        Once it was computed and found equal, these are its proof, and later checks compare them without the hash.
        """
        own, reads = self.entries(stage.name()), [(name, self.entries(name)) for name in sorted(stage.reads)]
        if not len(shards):
            return np.zeros(0, bool)
        key, job_shards = key_of(stage), np.asarray(shards, np.int64)
        own_index, input_indices = own.find(job_shards), [entries.find(job_shards) for _, entries in reads]
        exists = np.min([own_index, *input_indices], axis=0) >= 0
        digests_by_input = np.zeros((len(job_shards), 1 + len(reads)), DIGEST)
        digests_by_input[:, 0] = key({"": " ".join(stage.reads)})
        for number, ((_, entries), index) in enumerate(zip(reads, input_indices, strict=True), 1):
            if len(entries):
                digests_by_input[:, number] = entries.strings("digest", 16)[index]
        proof = digests_by_input.view(f"S{digests_by_input.dtype.itemsize * digests_by_input.shape[1]}").ravel()
        if not len(own):
            return exists
        up_to_date = exists & (own.strings("proof", proof.dtype.itemsize)[own_index] == proof)
        keys, new_proofs = own.strings("key", 16), {}
        for n in np.flatnonzero(exists & ~up_to_date).tolist():
            digests = [digest.decode() for digest in digests_by_input[n, 1:].tolist()]
            inputs = dict(zip((name for name, _ in reads), digests, strict=True))
            if all(digests) and keys[own_index[n]] == key(inputs).encode():
                up_to_date[n], new_proofs[int(own_index[n])] = True, proof[n].decode()
        if new_proofs:
            own.set_proofs(new_proofs)
            self.unsaved.add(stage.name())
        return up_to_date

    def reread(self, parts: Iterable[tuple[str, int]]) -> None:
        """Read the footers of parts (table, shard) that may have changed. `save` stores them later."""
        for table, shard in parts:
            entries = self.entries(table)
            self.outdated.add(table)
            footer = self.store.footer(table, shard)
            if footer is None:
                entries.pop(shard, None)
            else:
                entries[shard] = self._entry(UNTRUSTED, footer)

    def save(self) -> None:
        """List the outdated tables again and replace the stored entries of all tables, if any has changed.

        If the folder is not writable, the old ones stay.
        """
        for table in sorted(self.outdated):
            self.refresh(table)
        self.outdated.clear()
        if not self.unsaved:
            return
        tables = {
            table: entries.rows.filter(pc.not_equal(entries.rows["bytes"], UNTRUSTED.bytes))
            for table, entries in self.tables.items()
        }
        try:
            _write(self.store, tables)
        except OSError as error:
            log.warning("%s cannot be written: %s", self.store.path(LEDGER_FILE), error)
        self.unsaved.clear()
        self.stored = _LedgerFile(self.store)

    def refresh(self, table: str) -> None:
        """List a table, and read the footers of the parts that are new or have changed. `save` stores them."""
        listed_ns = time.time_ns()
        with _without_gc():
            names, sizes, modified_ns = self.store.listing(table)
        parts = [n for n, name in enumerate(names) if name.endswith(".parquet")]
        shards = np.array([int(names[n][:-8]) for n in parts], np.int64)
        stamps = np.array([sizes, modified_ns], np.int64).reshape(2, -1)[:, parts]
        stored = Entries(self.stored.table(table))
        index = stored.find(shards)
        same = index >= 0
        for name, values in zip(("bytes", "modified_ns"), stamps, strict=True):
            same &= (stored.column(name)[index] == values) if len(stored) else False
        self.reread_shards[table] = changed = shards[~same].tolist()
        trusted = ((stamps[1] > 0) & (stamps[1] <= listed_ns - RACY_NS))[~same].tolist()
        read = list[tuple[int, Entry]]()
        for shard, size, modified, is_trusted, footer in zip(
            changed, *stamps[:, ~same].tolist(), trusted, self._footers(table, changed), strict=True
        ):
            if footer:
                read.append((shard, self._entry(Stamp(size, modified) if is_trusted else UNTRUSTED, footer)))
        self.modified_ns[table] = int(stamps[1].max(initial=0))
        rows = stored.rows
        if not (same.all() and np.array_equal(index, np.arange(len(stored)))):
            rows = rows.take(pa.array(index[same].tolist(), pa.int64()))
        if read:
            new_entries = Entries(SCHEMA.empty_table())
            new_entries.update(read)
            rows = pa.concat_tables([rows, new_entries.rows]).unify_dictionaries()
            order = Entries(rows).find(shards)
            rows = rows.take(pa.array(order[order >= 0].tolist(), pa.int64()))
        self.tables.setdefault(table, Entries(rows)).replace(rows)
        # a damaged part was moved aside while it was read
        self.listed[table] = self.store.names(table) if len(read) < len(changed) else names
        if any(trusted) or len(rows) - len(read) < len(stored):
            self.unsaved.add(table)

    def _footers(self, table: str, shards: list[int]) -> list[Footer | None]:
        if self.store.local:
            return [self.store.footer(table, shard) for shard in shards]
        with ThreadPoolExecutor(MAX_THREADS) as pool:
            return list(pool.map(lambda shard: self.store.footer(table, shard), shards))

    def _entry(self, stamp: Stamp, footer: Footer) -> Entry:
        made_with = json.dumps(
            {"settings": footer.settings, "models": footer.models, "version": footer.version}, sort_keys=True
        )
        counts = footer.num_inputs, len(footer.rejected), len(footer.failed)
        return Entry(*stamp, footer.key, footer.digest, *counts, made_with)


@contextlib.contextmanager
def _without_gc() -> Iterator[None]:
    """Disable garbage collection while many tuples are created: it would take a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class _LedgerFile:
    """The stored entries of a store; none if the file is missing or cannot be read."""

    def __init__(self, store: Store):
        self.store, self.path = store, store.path(LEDGER_FILE)
        self.reader: parquet.Reader | None = None
        self.groups: dict[str, int] | None = None  # table -> its row group; None: not read yet

    def table(self, name: str) -> pa.Table:
        """Return the rows of a table."""
        try:
            if self.groups is None:
                self.groups = self._open()
            if self.reader and name in self.groups:
                return self.reader.group(self.groups[name])
        except parquet.DamagedError as error:
            log.warning("%s; reading every part again", error)
            self.groups = {}
        return SCHEMA.empty_table()

    def _open(self) -> dict[str, int]:
        data = self.store.get(LEDGER_FILE)
        if data is None:
            return {}
        self.reader = parquet.Reader(pa.BufferReader(data), self.path)
        if not self.reader.sealed or self.reader.parquet.schema_arrow.remove_metadata() != SCHEMA:
            raise parquet.DamagedError(self.path, "it is not a ledger of this version")
        return {table: number for number, table in enumerate(json.loads(self.reader.notes[b"tables"]))}


def _write(store: Store, tables: dict[str, pa.Table]) -> None:
    """Replace the file by these entries; those of other tables stay as they are."""
    old = _LedgerFile(store)
    old.table("")
    others = {name: old.table(name) for name in old.groups or {} if name not in tables}
    tables_written = {name: rows for name, rows in (others | tables).items() if len(rows)}
    with store.writing(LEDGER_FILE) as out:
        writer = parquet.Writer(out, SCHEMA)
        for rows in tables_written.values():
            writer.write(rows.combine_chunks())
        writer.close({"tables": json.dumps([*tables_written])})
