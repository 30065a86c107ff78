"""Completion state of a store: keys, digests and counts of all its parts, at the cost of one listing for each table.

<root>/parts.ledger holds a row group for each table with an entry for each part: what its footer says of key, digest, settings
and counts, and the size and modification time of the file that was read. It is derived data. A command lists each table once,
uses the entries whose size and time equal those of the file, opens the other parts, and replaces the ledger atomically when it
ends. A missing, damaged or outdated ledger therefore costs time and nothing else, and any number of processes may write it: the
last one wins for the tables that it listed, and what it did not know is read again. Workers do not write it, so that killed ones
cannot leave it half done.

A file replaced within one tick of its clock, by another of the same size, would look unchanged. As in Git's index, an entry is
therefore stored only if the file had not changed for RACY_NS when it was listed.
"""

import contextlib
import gc
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import NamedTuple

import pyarrow as pa

from a2data.stage import Stage
from a2data.store import parquet
from a2data.store.folder import Stamp
from a2data.store.tables import Footer, Store, combined, key_of

log = logging.getLogger("a2data")

FILE = "parts.ledger"
RACY_NS = 2_000_000_000  # the coarsest clock of a file system, that of FAT, ticks every 2 s
THREADS = 16  # footers read at the same time from an object store
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
    ]
)
NEW = Stamp(-1, 0)  # equals the stamp of no file


class Entry(NamedTuple):
    """What the ledger knows of a part."""

    bytes: int  # size and modification time of the file whose footer was read
    modified_ns: int
    key: str
    digest: str
    num_inputs: int
    num_rejected: int
    num_failed: int
    made_with: str  # JSON of its settings, models and version


class Ledger:
    """The parts of a store as they were when their table was first asked for, except for those that were reread since."""

    def __init__(self, store: Store):
        self.store = store
        self.tables: dict[str, dict[int, Entry]] = {}  # table -> shard -> entry, shards in ascending order
        self.listed: dict[str, list[str]] = {}  # table -> names of all its files
        self.modified_ns: dict[str, int] = {}  # table -> modification time of its newest part
        self.read_now: dict[
            str, list[int]
        ] = {}  # table -> shards whose parts were new or had changed when it was listed
        self.texts: dict[str, str] = {}  # each value of made_with once
        self.outdated: set[str] = set()  # tables whose files have changed since they were listed
        self.unsaved: set[str] = set()  # tables with other entries than the file
        self.stored = _Stored(store)

    def entries(self, table: str) -> dict[int, Entry]:
        """Return the entries of a table by shard. The dictionary is updated in place by `reread` and `refresh`."""
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
        """Return a function that tells whether the parts of a job of this stage are up to date, as Store.is_up_to_date does."""
        mine, reads = self.entries(stage.name()), [(name, self.entries(name)) for name in stage.reads]
        key = key_of(stage)

        def fresh(job: tuple[int, ...]) -> bool:
            try:
                if stage.per != "all":
                    (shard,) = job
                    return mine[shard].key == key({name: entries[shard].digest for name, entries in reads})
                inputs = {name: combined([entries[shard].digest for shard in job]) for name, entries in reads}
                parts = [mine[shard] for shard in job]
            except KeyError:
                return False
            wanted = key(inputs)
            if all(entry.key == wanted for entry in parts):
                return True
            return self.store.recorded(stage.name()) == (wanted, combined([entry.digest for entry in parts]))

        return fresh

    def reread(self, parts: Iterable[tuple[str, int]]) -> None:
        """Read the footers of parts (table, shard) that may have changed. `save` stores them later."""
        for table, shard in parts:
            entries = self.entries(table)
            self.outdated.add(table)
            footer = self.store.footer(table, shard)
            if footer is None:
                entries.pop(shard, None)
            else:
                entries[shard] = self._entry(NEW, footer)

    def save(self) -> None:
        """List the outdated tables again and replace the stored entries of all tables, if any has changed.

        If the folder is not writable, the old ones stay.
        """
        for table in sorted(self.outdated):
            self.refresh(table)
        self.outdated.clear()
        if not self.unsaved:
            return
        kept = {table: [e for e in entries.items() if e[1][:2] != NEW] for table, entries in self.tables.items()}
        try:
            _write(self.store, kept)
        except OSError as error:
            log.warning("%s cannot be written: %s", self.store.path(FILE), error)
        self.unsaved.clear()
        self.stored = _Stored(self.store)

    def refresh(self, table: str) -> None:
        """List a table, and read the footers of the parts that are new or have changed. `save` stores them."""
        at_ns = time.time_ns()
        with _without_gc():
            files = self.store.stamps(table)
            stamps = {int(name[:-8]): stamp for name, stamp in files.items() if name.endswith(".parquet")}
            stored = self.stored.entries(table, self.texts)
            known = {shard: stored.get(shard) for shard in stamps}
            unread = [shard for shard, entry in known.items() if entry is None or entry[:2] != stamps[shard]]
        self.read_now[table] = unread
        settled = [shard for shard in unread if 0 < stamps[shard].modified_ns <= at_ns - RACY_NS]
        trusted = set(settled)
        lost = False
        for shard, footer in zip(unread, self._footers(table, unread), strict=True):
            stamp = stamps[shard] if shard in trusted else NEW
            known[shard] = self._entry(stamp, footer) if footer else None
            lost = lost or footer is None
        self.modified_ns[table] = max((stamp.modified_ns for stamp in stamps.values()), default=0)
        entries = self.tables.setdefault(table, {})
        entries.clear()
        entries.update((shard, entry) for shard, entry in known.items() if entry is not None)
        # a damaged part was moved aside while it was read
        self.listed[table] = self.store.names(table) if lost else list(files)
        if settled or not stored.keys() <= entries.keys():
            self.unsaved.add(table)

    def _footers(self, table: str, shards: list[int]) -> list[Footer | None]:
        if self.store.local:
            return [self.store.footer(table, shard) for shard in shards]
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(lambda shard: self.store.footer(table, shard), shards))

    def _entry(self, stamp: Stamp, footer: Footer) -> Entry:
        made_with = json.dumps(
            {"settings": footer.settings, "models": footer.models, "version": footer.version}, sort_keys=True
        )
        made_with = self.texts.setdefault(made_with, made_with)
        counts = footer.num_inputs, len(footer.rejected), len(footer.failed)
        return Entry(*stamp, footer.key, footer.digest, *counts, made_with)


@contextlib.contextmanager
def _without_gc() -> Iterator[None]:
    """Stop the search for cycles while many tuples are made, of which it would take a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class _Stored:
    """The stored entries of a store; none if the file is missing or cannot be read."""

    def __init__(self, store: Store):
        self.store, self.path = store, store.path(FILE)
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
        data = self.store.get(FILE)
        if data is None:
            return {}
        self.reader = parquet.Reader(pa.BufferReader(data), self.path)
        if not self.reader.sealed or self.reader.parquet.schema_arrow.remove_metadata() != SCHEMA:
            raise parquet.DamagedError(self.path, "it is not a ledger of this version")
        return {table: number for number, table in enumerate(json.loads(self.reader.notes[b"tables"]))}

    def entries(self, name: str, texts: dict[str, str]) -> dict[int, Entry]:
        """Return the entries of a table by shard. texts: each value of made_with once."""
        shards, *others, made_with = self.table(name).combine_chunks().columns
        coded = made_with.chunk(0) if made_with.num_chunks else pa.array([], SCHEMA.field("made_with").type)
        values = [texts.setdefault(text, text) for text in coded.dictionary.to_pylist()]
        told = [values[code] for code in coded.indices.to_pylist()]
        rows = zip(*(column.to_pylist() for column in others), told, strict=True)
        return dict(zip(shards.to_pylist(), map(tuple.__new__, repeat(Entry), rows), strict=True))


def _write(store: Store, tables: dict[str, list[tuple[int, Entry]]]) -> None:
    """Replace the file by these entries; those of other tables stay as they are."""
    old = _Stored(store)
    old.table("")
    others = {name: rows for name in old.groups or {} if name not in tables and len(rows := old.table(name))}
    with store.writing(FILE) as out:
        writer = parquet.Writer(out, SCHEMA)
        for rows in others.values():
            writer.write(rows)
        made = {name: entries for name, entries in tables.items() if entries}
        for entries in made.values():
            columns = [[shard for shard, _ in entries], *zip(*(entry for _, entry in entries), strict=True)]
            writer.write(pa.table([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], SCHEMA))
        writer.close({"tables": json.dumps([*others, *made])})
