"""Random access to the samples of packed tars by their index, with one positioned read for each sample.

The tars are plain WebDataset tars. Local files are read with pread, which lets threads and forks share a file without a common
position; remote files with a ranged read.
"""

import hashlib
import os
import struct
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from a2data.dataset.index_checks import check_column, check_rows, check_tars, ints, numbers
from a2data.store.filename import safe_name
from a2data.store.folder import Folder

COLUMNS = ("clip_id", "shard", "shard_sha256", "offset", "bytes", "frames", "height", "width", "roles")
# fields of a member's header: name, size, "ustar", name prefix
HEADER = struct.Struct("100s24x12s121x5s83x155s12x")
SHORT_HEADER = struct.Struct("100s24x11s122x5s83xc166x")  # the same, with the first byte of the prefix
MAX_SAMPLE_BYTES = 1 << 28  # several samples are read at a time
MAX_OPEN = 256  # open files; a process may have 1024
MAX_FREE_BUFFERS = 64
ALIGN = 4096  # bytes, a page: the kernel copies half as fast to unaligned blocks of malloc


@dataclass(frozen=True)
class Index:
    """The rows of one or more `index.parquet` as columns: location and shape of every sample."""

    folders: list[Folder]
    shards: list[tuple[int, str]]  # number of the folder, file name of the tar
    keys: pa.Array  # of strings
    table: pa.Table | None  # the columns as read, for weights; None in workers
    folder: np.ndarray  # (n,) int64: number of the folder
    shard: np.ndarray  # (n,) int64: number of the shard
    offset: np.ndarray  # (n,) int64: of the sample's first header
    bytes: np.ndarray  # (n,) int64
    shape: tuple[np.ndarray, np.ndarray, np.ndarray]  # frames, height, width, (n,) int64 each
    references: np.ndarray  # (n,) int64: number of references
    digest: str  # of keys, offsets, sizes and the tars' sha256

    def __len__(self) -> int:
        return len(self.offset)

    def key(self, row: int) -> str:
        return self.keys[row].as_py()

    def tar_path(self, row: int) -> str:
        folder, name = self.shards[self.shard[row]]
        return f"{self.folders[folder].root}/{name}"

    def without_table(self) -> "Index":
        """Return the index without the columns that only weights need, to be sent to workers."""
        return replace(self, table=None)


def read_index(
    folders: Sequence[str | os.PathLike],
    name: str = "index.parquet",
    every_column: bool = False,
    max_bytes: int = MAX_SAMPLE_BYTES,
) -> Index:
    """Read and join the indexes of data sets, each given by its folder or URL.

    every_column: read all columns of `a2data.records.Packed` and those added by a writer, for weights. max_bytes: limit of a
    sample. Raises FileNotFoundError if an index or a tar that it lists is missing, ValueError if a tar is shorter than the index
    says, if its name leads out of the folder, and for rows with invalid values.
    """
    opened = [Folder(folder) for folder in folders]
    tables = [read_one_index(folder, name, None if every_column else list(COLUMNS)) for folder in opened]
    shards: list[tuple[int, str]] = []
    shard_of_row, sha = [], hashlib.sha256()
    for number, (folder, table) in enumerate(zip(opened, tables, strict=True)):
        names = table["shard"].combine_chunks().dictionary_encode()
        code = numbers(names.indices)
        shard_of_row.append(code + len(shards))
        tar_names = [safe_name(shard, f"{folder.root}/{name}") for shard in names.dictionary.to_pylist()]
        check_rows(f"{folder.root}/{name}", table, code, max_bytes)
        shards += [(number, shard) for shard in tar_names]
        check_tars(folder, tar_names, code, ints(table, "offset") + ints(table, "bytes"))
        for column in ("clip_id", "shard_sha256", "offset", "bytes"):
            hash_column(sha, table[column])
    table = pa.concat_tables(tables, promote_options="permissive")
    sizes = [len(t) for t in tables]
    return Index(
        opened,
        shards,
        pa.concat_arrays(table["clip_id"].chunks),
        table,
        np.repeat(np.arange(len(sizes)), sizes),
        np.concatenate(shard_of_row),
        ints(table, "offset"),
        ints(table, "bytes"),
        (ints(table, "frames"), ints(table, "height"), ints(table, "width")),
        numbers(pc.list_value_length(table["roles"].combine_chunks())),
        sha.hexdigest()[:16],
    )


def read_one_index(folder: Folder, name: str, columns: list[str] | None) -> pa.Table:
    try:
        with folder.reading(name) as file:
            table = pq.ParquetFile(
                file, read_dictionary=["shard", "shard_sha256"], page_checksum_verification=True
            ).read(columns, use_threads=False)
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder.path(name)} is missing: give the folder that `pack` wrote") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{folder.root}/{name} cannot be read ({reason}): copy it again or repack the data set"
        ) from error
    missing = sorted(set(COLUMNS) - set(table.column_names))
    if missing:
        raise ValueError(f"{folder.root}/{name} does not have the column {', '.join(missing)}: repack the data set")
    for column in COLUMNS:
        check_column(f"{folder.root}/{name}", column, table[column])
    if not len(table):
        raise ValueError(f"{folder.root}/{name} does not contain any samples")
    return table


def hash_column(sha: Any, column: pa.ChunkedArray) -> None:
    """Add the values of a column to a hash, independent of its chunks and dictionaries."""
    if pa.types.is_dictionary(column.type):
        values = column.combine_chunks().dictionary_encode() if column.num_chunks else column
        joined = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        sha.update(repr(pc.unique(joined).to_pylist()).encode())
        return
    array = pa.concat_arrays(column.chunks)
    if pa.types.is_string(array.type):
        sha.update(numbers(pc.binary_length(array)).tobytes())
        begin, end = np.frombuffer(array.buffers()[1], np.int32)[[array.offset, array.offset + len(array)]]
        sha.update(array.buffers()[2].slice(begin, end - begin) if array.buffers()[2] else b"")
    else:
        sha.update(numbers(array).tobytes())


class Buffers:
    """Pool of reusable memory, since allocating memory costs more than filling it.

    Each lease is a separate array object, which is kept alive by every view of it. When the last view is gone, a finalizer
    returns the memory to the free list. Reference counts are not used, since they differ between versions of Python.
    """

    def __init__(self) -> None:
        self.free: list[np.ndarray] = []  # uint8, page-aligned

    def lease(self, size: int) -> memoryview:
        """Return `size` bytes that are not shared with any live view of an earlier lease."""
        memory = self._acquire(size)
        lease = memory[:size]
        # the finalizer must not refer to the lease, or the lease would never be freed
        weakref.finalize(lease, return_to_pool, self.free, memory).atexit = False
        return lease.data

    def _acquire(self, size: int) -> np.ndarray:
        while self.free:
            memory = self.free.pop(0)
            if len(memory) >= size:
                return memory
        memory = np.empty(size * 5 // 4 + ALIGN, np.uint8)
        return memory[-memory.ctypes.data % ALIGN :]


def return_to_pool(free: list[np.ndarray], memory: np.ndarray) -> None:
    if len(free) < MAX_FREE_BUFFERS:
        free.append(memory)


class Tars:
    """The open files of an index. One per process; pickles as its index."""

    def __init__(self, index: Index):
        self.index = index
        # items of a memoryview are Python ints, three times as fast as numpy's
        self.shard, self.offset, self.bytes = index.shard.data, index.offset.data, index.bytes.data
        self.open: dict[int, Any] = {}  # shard -> file descriptor, or a file of an object store
        self.buffers = Buffers()

    def __reduce__(self) -> tuple:
        return type(self), (self.index,)

    def read(self, row: int) -> memoryview:
        """Return the bytes of a sample in its tar, with headers. Raises FileNotFoundError, or ValueError if truncated."""
        index, offset, size = self.index, self.offset[row], self.bytes[row]
        file = self.file(self.shard[row])
        if isinstance(file, int):
            data = self.buffers.lease(size)
            count = os.preadv(file, [data], offset)
        else:
            data = memoryview(file.read_at(size, offset))
            count = len(data)
        if count < size:
            raise ValueError(
                f"{index.tar_path(row)} is truncated: it ends at byte {offset + count}, but the sample {index.key(row)} ends at "
                f"{offset + size}: copy it again"
            )
        return data

    def tar_matches_index(self, row: int) -> bool:
        """Return whether another sample of the same tar is at its offset in the index, so that the tar belongs to this index."""
        others = np.flatnonzero(self.index.shard == self.shard[row])
        nearest = others[np.argsort(np.abs(others - row), kind="stable")][1:9]
        return any(self.has_header_at(int(other)) for other in nearest)

    def has_header_at(self, row: int) -> bool:
        """Return whether the tar has a header of this sample at the offset in the index."""
        file, offset = self.file(self.shard[row]), self.offset[row]
        data = os.pread(file, 512, offset) if isinstance(file, int) else file.read_at(512, offset)
        return parse_header(memoryview(data), 0)[0].startswith(f"{self.index.key(row)}.")

    def file(self, shard: int) -> Any:
        if shard not in self.open:
            if len(self.open) >= MAX_OPEN:
                self.close(next(iter(self.open)))
            folder, name = self.index.folders[self.index.shards[shard][0]], self.index.shards[shard][1]
            try:
                local = folder.local
                self.open[shard] = os.open(folder.path(name), os.O_RDONLY) if local else folder.reading(name)
            except FileNotFoundError:
                raise FileNotFoundError(
                    f"{folder.root}/{name} is listed in the index but missing: copy it again"
                ) from None
        return self.open[shard]

    def close(self, shard: int) -> None:
        file = self.open.pop(shard)
        os.close(file) if isinstance(file, int) else file.close()

    def __del__(self) -> None:
        for shard in list(getattr(self, "open", {})):
            self.close(shard)


def members(piece: memoryview, key: str, origin: str) -> dict[str, memoryview]:
    """Return extension -> bytes of a sample, from its bytes in a tar, without a copy.

    Raises LookupError if the bytes do not begin with this sample, that is, if index and tar disagree, and ValueError if a later
    header is damaged, that is, if the sample is corrupt.
    """
    by_extension: dict[str, memoryview] = {}
    prefix_bytes, offset, end = f"{key}.".encode(), 0, len(piece)
    prefix_length = len(prefix_bytes)
    while offset < end:
        # inlined for short names, which nearly all are, since a sample has a dozen members
        try:
            name_field, octal, magic, prefix = SHORT_HEADER.unpack_from(piece, offset)
            is_short = magic == b"ustar" and prefix == b"\0" and name_field.startswith(prefix_bytes)
            size = int(octal, 8) if is_short else -1
            extension = decode_name(name_field[prefix_length:]) if is_short else ""
        except (ValueError, struct.error):
            size = -1
        if size < 0:
            extension, size = parse_member(piece, offset, key, origin)
        offset += 512
        if extension in by_extension:
            raise ValueError(f"contains two members .{extension}")
        by_extension[extension] = piece[offset : offset + size]
        offset += (size + 511) & -512
    if offset > end:
        raise ValueError(f"has a damaged header {offset} bytes after its first")
    return by_extension


@lru_cache(1024)
def decode_name(field: bytes) -> str:
    return field.rstrip(b"\0").decode()


def parse_member(piece: memoryview, offset: int, key: str, origin: str) -> tuple[str, int]:
    """Return extension and size of the member whose header begins at byte `offset`. Raises as `members` does."""
    name, size = parse_header(piece, offset)
    if name.startswith(f"{key}."):
        return name[len(key) + 1 :], size
    if offset == 0:
        found = f"the member {name!r}" if name else "no tar header"
        raise LookupError(
            f"{origin}: at the offset of the sample {key} the tar has {found}: index and tar are from different runs; copy "
            "both again or repack the data set"
        )
    raise ValueError(f"has a damaged header {offset} bytes after its first")


def parse_header(piece: memoryview, offset: int) -> tuple[str, int]:
    """Return name and size of the member whose USTAR header begins at byte `offset` of the piece; ("", 0) if there is none.

    The checksum is not verified: a wrong size leads past the piece or to bytes that are not a header, a wrong name to an unknown
    member.
    """
    try:
        name, size, magic, prefix = HEADER.unpack_from(piece, offset)
        decoded = name.rstrip(b"\0").decode()
        if magic == b"ustar":
            length = int(size[:11], 8)
            if length >= 0:
                return (prefix.rstrip(b"\0").decode() + "/" + decoded if prefix[0] else decoded), length
    except (ValueError, struct.error):
        pass
    return "", 0
