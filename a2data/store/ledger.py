"""Completion state of a store: keys, digests and counts of all its parts, at the cost of one listing for each table.

<table>/parts.ledger holds an entry for each part: what its footer says of key, digest, settings and counts, and the size and
modification time of the file that was read. It is derived data. A command lists the table once, uses the entries whose
size and time equal those of the file, opens the other parts, and replaces the ledger atomically. A missing, damaged or outdated
ledger therefore costs time and nothing else, and any number of processes may write it: the last one wins, and what it did not
know is read again. Workers do not write it, so that killed ones cannot leave it half done.

A file replaced within one tick of its clock, by another of the same size, would look unchanged. As in Git's index, an entry is
therefore stored only if the file had not changed for RACY_NS when it was listed.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
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
UNKNOWN = Stamp(-1, 0)  # equals the stamp of no file


class Entry(NamedTuple):
    """What the ledger knows of a part."""

    stamp: Stamp  # of the file whose footer was read
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
            inputs = {}
            for name, entries in reads:
                found = [entry.digest for shard in job if (entry := entries.get(shard)) is not None]
                if len(found) < len(job):
                    return False
                inputs[name] = combined(found)
            wanted = key(inputs)
            parts = [entry for shard in job if (entry := mine.get(shard)) is not None]
            if len(parts) < len(job):
                return False
            if all(entry.key == wanted for entry in parts):
                return True
            if stage.per != "all":
                return False
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
                entries[shard] = self._entry(UNKNOWN, footer)

    def save(self) -> None:
        """List the outdated tables again and store the entries of their parts."""
        for table in sorted(self.outdated):
            self.refresh(table)
        self.outdated.clear()

    def refresh(self, table: str) -> None:
        """List a table, read the footers of the parts that are new or have changed, and store the ledger if it differs."""
        at_ns = time.time_ns()
        files = self.store.stamps(table)
        stamps = {int(name.split(".")[0]): stamp for name, stamp in files.items() if name.endswith(".parquet")}
        stored = self._load(table) if FILE in files else {}
        known = {shard: stored.get(shard) for shard in stamps}
        unread = [shard for shard, entry in known.items() if entry is None or entry.stamp != stamps[shard]]
        self.read_now[table] = unread
        settled = [shard for shard in unread if 0 < stamps[shard].modified_ns <= at_ns - RACY_NS]
        trusted = set(settled)
        lost = False
        for shard, footer in zip(unread, self._footers(table, unread), strict=True):
            stamp = stamps[shard] if shard in trusted else UNKNOWN
            known[shard] = self._entry(stamp, footer) if footer else None
            lost = lost or footer is None
        self.modified_ns[table] = max((stamp.modified_ns for stamp in stamps.values()), default=0)
        entries = self.tables.setdefault(table, {})
        entries.clear()
        entries.update((shard, entry) for shard, entry in known.items() if entry is not None)
        # a damaged part was moved aside while it was read
        self.listed[table] = self.store.names(table) if lost else list(files)
        if settled or not stored.keys() <= entries.keys():
            self._store(table, {shard: entry for shard, entry in entries.items() if entry.stamp != UNKNOWN})

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
        return Entry(stamp, footer.key, footer.digest, *counts, made_with)

    def _load(self, table: str) -> dict[int, Entry]:
        """Return the stored entries; {} if they cannot be read."""
        path = self.store.path(table, FILE)
        try:
            reader = parquet.Reader(pa.BufferReader(self.store.get(table, FILE) or b""), path)
            rows = reader.table()
            if not reader.sealed or rows.schema.remove_metadata() != SCHEMA:
                raise parquet.DamagedError(path, "it is not a ledger of this version")
        except parquet.DamagedError as error:
            log.warning("%s; reading every part of %s", error, table)
            return {}
        shards, sizes, times, *others, made_with = rows.combine_chunks().columns
        stamps = map(Stamp._make, zip(sizes.to_pylist(), times.to_pylist(), strict=True))
        coded = made_with.chunk(0) if made_with.num_chunks else pa.array([], SCHEMA.field("made_with").type)
        texts = [self.texts.setdefault(text, text) for text in coded.dictionary.to_pylist()]
        told = [texts[code] for code in coded.indices.to_pylist()]
        entries = map(Entry._make, zip(stamps, *(column.to_pylist() for column in others), told, strict=True))
        return dict(zip(shards.to_pylist(), entries, strict=True))

    def _store(self, table: str, entries: dict[int, Entry]) -> None:
        """Replace the stored entries. If the folder is not writable, the old ones stay."""
        columns = [list(entries), *zip(*((*e.stamp, *e[1:]) for e in entries.values()), strict=True)]
        columns = columns if entries else [[] for _ in SCHEMA]
        rows = pa.table([pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)], SCHEMA)
        try:
            with self.store.writing(table, FILE) as out:
                writer = parquet.Writer(out, SCHEMA)
                writer.write(rows)
                writer.close()
        except OSError as error:
            log.warning("%s cannot be written: %s", self.store.path(table, FILE), error)
