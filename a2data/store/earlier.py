"""What a stage over all shards knows of its last result, so that it only makes what has changed."""

import hashlib
import logging
import tempfile

import pyarrow as pa

from a2data.records import Reject
from a2data.stage import Stage
from a2data.store.tables import Footer, Store, key_of

log = logging.getLogger("a2data")

SHA256_BYTES = 32  # bytes at the end of a file, the sha256 of those before


class Earlier:
    """Tables that the stage keeps beside its parts, <stage>/NAME.kept, and the parts of its last result.

    The tables are derived data: a missing or damaged one costs time and nothing else.
    """

    def __init__(self, store: Store, stage: Stage, digests: dict[int, str], first: dict[int, str]):
        """digests: shard -> digest of its inputs other than the stage's first table; first: shard -> digest of that table."""
        self.store, self.stage, self.digests, self.first = store, stage, digests, first
        self.key = key_of(stage)({})  # of the settings, code version and models
        self.kept: set[int] = set()  # shards whose parts stay as they are
        self.last: dict[str, pa.Table] = {}

    def load(self, name: str, key: str = "") -> pa.Table | None:
        """Return a table, mapped from disk; None if there is none that was saved under this key."""
        path = self.store.path(self.stage.name(), f"{name}.kept")
        try:
            if self.store.local:
                data = pa.memory_map(path).read_buffer()
            else:
                with tempfile.NamedTemporaryFile() as copy:
                    copy.write(self.store.get(self.stage.name(), f"{name}.kept") or b"")
                    copy.flush()
                    data = pa.memory_map(copy.name).read_buffer()
        except (FileNotFoundError, pa.ArrowInvalid):
            return None
        body = data[: max(0, len(data) - SHA256_BYTES)]
        if hashlib.sha256(body).digest() != data[len(body) :].to_pybytes():
            if len(data):
                log.warning("%s is damaged: everything is paired again", path)
            return None
        table = pa.ipc.open_stream(body).read_all()
        return table if (table.schema.metadata or {}).get(b"key", b"") == key.encode() else None

    def save(self, name: str, table: pa.Table, key: str = "") -> None:
        """Replace a table."""
        with self.store.writing(self.stage.name(), f"{name}.kept") as out:
            sink = _HashingFile(out)
            with pa.ipc.new_stream(pa.PythonFile(sink, "w"), table.schema.with_metadata({"key": key})) as writer:
                writer.write_table(table)
            out.write(sink.sha.digest())

    def save_last(self, name: str, table: pa.Table) -> None:
        """Replace a table that describes the parts, when they are written; it does not exist meanwhile."""
        self.last[name] = table

    def before_writing(self) -> None:
        for name in self.last:
            self.store.remove(self.stage.name(), f"{name}.kept")

    def after_writing(self) -> None:
        for name, table in self.last.items():
            self.save(name, table, self.key)

    def keep(self, shard: int) -> bool:
        """Leave the part of this shard as it is, and return True, if it was made with the same settings."""
        if self._footer(shard) is None:
            return False
        self.kept.add(shard)
        return True

    def rows(self, shard: int) -> tuple[pa.Table, list[Reject]] | None:
        """Return the rows and rejects of the part of this shard; None if there is none made with the same settings."""
        footer = self._footer(shard)
        if footer is None:
            return None
        return self.store.table(self.stage.name(), shard, self.stage.writes), footer.rejected

    def _footer(self, shard: int) -> Footer | None:
        footer = self.store.footer(self.stage.name(), shard)
        return footer if footer is not None and settings_of(footer) == settings_of(stage_footer(self.stage)) else None


def settings_of(footer: Footer) -> tuple:
    return footer.settings, footer.models, footer.version


def stage_footer(stage: Stage) -> Footer:
    return Footer(settings=stage.cache_fields(), models=stage.models(), version=stage.version)


class _HashingFile:
    """A file that hashes what is written to it."""

    closed = False

    def __init__(self, file: pa.NativeFile):
        self.file, self.sha = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass
