"""Parquet files with checksums, so that damage is detected.

Every page has a CRC-32, which is part of Parquet and is verified on every read. Parquet does not have a checksum for the footer,
which holds the schema, the offsets of the pages and our notes; its sha256 is written in front of it, where other Parquet readers
do not look. Files of earlier versions have neither and are read without verification.
"""

import contextlib
import functools
import hashlib
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

# followed by 32 bytes, in front of the footer
SEAL = b"a2data-footer-sha256:"
FOOTER_END = 8  # bytes after the footer: its length, "PAR1"
TAIL_BYTES = 1 << 16  # bytes of the first read; nearly all footers are shorter


class DamagedError(ValueError):
    """The content of a file differs from what was written.

    path: its path in its file system. reason: what the reader found. moved: new path of the file, "" if it was not moved.
    """

    def __init__(self, path: str, reason: str, moved: str = ""):
        super().__init__(path, reason, moved)
        self.path, self.reason, self.moved = path, reason, moved

    def __str__(self) -> str:
        return f"{self.path} is damaged ({self.reason})" + (f": moved to {self.moved}" if self.moved else "")


@contextlib.contextmanager
def translate_errors(path: str) -> Iterator[None]:
    """Turn pyarrow's exceptions about the content of a file into DamagedError. I/O errors are propagated unchanged."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            raise
        raise DamagedError(path, _first_line(error)) from error
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise DamagedError(path, _first_line(error)) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class Writer:
    """Writer of a table, one row group at a time, to a file with `write` and `tell`. The file stays open."""

    def __init__(self, file: Any, schema: pa.Schema, compression: str = "zstd"):
        self.sink = _Sink(file)
        self.parquet = pq.ParquetWriter(self.sink, schema, compression=compression, write_page_checksum=True)

    def write(self, table: pa.Table) -> None:
        """Append a row group."""
        self.parquet.write_table(table, row_group_size=max(1, len(table)))

    def close(self, notes: dict[str, str] | None = None) -> None:
        """Write the footer, with these notes, and the seal in front of it."""
        if notes:
            self.parquet.add_key_value_metadata(notes)
        self.sink.buffer = bytearray()
        self.parquet.close()
        tail = bytes(self.sink.buffer)
        begin = len(tail) - FOOTER_END - _length(tail)
        self.sink.file.write(tail[:begin] + SEAL + hashlib.sha256(tail[begin:]).digest() + tail[begin:])


class _Sink:
    """The file that pyarrow writes to. If `buffer` is not None, it collects the bytes instead."""

    closed = False

    def __init__(self, file: Any):
        self.file = file
        self.buffer: bytearray | None = None

    def write(self, data: Any) -> int:
        if self.buffer is None:
            self.file.write(data)
        else:
            self.buffer += data
        return len(data)

    def tell(self) -> int:
        return self.file.tell() + len(self.buffer or b"")

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def _length(tail: bytes) -> int:
    """Return the length of the footer in bytes, from the last bytes of the file."""
    return int.from_bytes(tail[-FOOTER_END:-4], "little")


class Reader:
    """An open Parquet file that is verified while it is read.

    sealed: whether it has checksums. Every method raises DamagedError, with the path, if the content is not what was written.
    """

    def __init__(self, file: pa.NativeFile, path: str, read_dictionary: list[str] | None = None):
        self.path = path
        self.file, self.read_dictionary = file, read_dictionary
        self.metadata, self.sealed = _metadata(file, path)
        self.groups: int = self.metadata.num_row_groups
        self.rows: int = self.metadata.num_rows
        self.notes: dict[bytes, bytes] = self.metadata.metadata or {}

    @functools.cached_property
    def parquet(self) -> pq.ParquetFile:
        """Return pyarrow's reader, made when rows are needed: most parts are opened for their notes alone."""
        with translate_errors(self.path):
            return pq.ParquetFile(
                self.file,
                metadata=self.metadata,
                read_dictionary=self.read_dictionary,
                page_checksum_verification=True,
            )

    @functools.cached_property
    def schema(self) -> pa.Schema:
        """Return the names and types of the columns."""
        with translate_errors(self.path):
            return self.parquet.schema_arrow

    @property
    def names(self) -> list[str]:
        """Return the names of the columns."""
        return self.schema.names

    def group(self, number: int, columns: list[str] | None = None) -> pa.Table:
        """Return a row group."""
        with translate_errors(self.path):
            table = self.parquet.read_row_group(number, columns=columns)
            if not self.sealed:
                table.validate(full=True)
        group_metadata = self.metadata.row_group(number)
        if len(table) != group_metadata.num_rows:
            raise DamagedError(self.path, f"row group {number} has {len(table)} of {group_metadata.num_rows} rows")
        if self.sealed:
            self._count_values(table, group_metadata)
        return table

    def _count_values(self, table: pa.Table, group_metadata: pq.RowGroupMetaData) -> None:
        """Compare the lengths of lists with the footer. Checksums do not cover page headers, whose damage may shorten a list."""
        expected: dict[str, list[int]] = {}
        for number in range(group_metadata.num_columns):
            column = group_metadata.column(number)
            expected.setdefault(column.path_in_schema.split(".")[0], []).append(column.num_values)
        for name in table.column_names:
            counts_found = [sum(counts) for counts in zip(*map(_values, table[name].chunks), strict=True)]
            if counts_found and counts_found != expected[name]:
                raise DamagedError(
                    self.path, f"column {name!r} has {counts_found} values, but its footer says {expected[name]}"
                )

    def table(self, columns: list[str] | None = None) -> pa.Table:
        """Return all rows. They are read group by group, so that a page with a wrong number of values cannot shift later ones."""
        groups = [self.group(number, columns) for number in range(self.groups)]
        if groups:
            return pa.concat_tables(groups)
        empty = self.parquet.schema_arrow.empty_table()
        return empty if columns is None else empty.select(columns)


def _values(array: pa.Array) -> list[int]:
    """Count the values of each leaf column of an array as Parquet does: an empty list counts as one."""
    dtype = array.type
    if pa.types.is_struct(dtype):
        return [count for number in range(dtype.num_fields) for count in _values(array.field(number))]
    if pa.types.is_list(dtype) or pa.types.is_large_list(dtype):
        empty = pc.sum(pc.equal(pc.fill_null(pc.list_value_length(array), 0), 0)).as_py() or 0
        return [empty + count for count in _values(array.flatten())]
    if pa.types.is_fixed_size_list(dtype):
        return _values(array.flatten())
    return [len(array)]


def _metadata(file: pa.NativeFile, path: str) -> tuple[pq.FileMetaData, bool]:
    """Return the footer and whether it has a seal. Raises DamagedError if the two disagree."""
    size = file.size()
    tail = file.read_at(min(size, TAIL_BYTES), max(0, size - TAIL_BYTES))
    need = _length(tail) + FOOTER_END + len(SEAL) + 32
    if len(tail) < need <= size:
        tail = file.read_at(need, size - need)
    if len(tail) < 12 or tail[-4:] != b"PAR1" or _length(tail) + FOOTER_END > len(tail):
        raise DamagedError(path, f"its {size} bytes lack the end of a Parquet file: truncated or overwritten")
    footer = tail[len(tail) - FOOTER_END - _length(tail) :]
    seal = tail[: len(tail) - len(footer)][-len(SEAL) - 32 :]
    sealed = seal.startswith(SEAL)
    if sealed and seal[len(SEAL) :] != hashlib.sha256(footer).digest():
        raise DamagedError(path, "the footer differs from its checksum")
    with translate_errors(path):
        return _parse_footer(footer), sealed


@functools.lru_cache(128)  # a run looks at the same few footers again and again
def _parse_footer(footer: bytes) -> pq.FileMetaData:
    return pq.read_metadata(pa.BufferReader(b"PAR1" + footer))
