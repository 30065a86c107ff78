"""Validation of an index of packed tars when it is read, so that errors do not appear days later."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from a2data.store.folder import Folder

MAX_SIDE = 1 << 20  # px; a2data.dataset.batch_plan.assign uses 20 bits for a side


def check_column(origin: str, name: str, column: pa.ChunkedArray) -> None:
    """Raise ValueError if a column has nulls or another type than in `a2data.records.Packed`."""
    dtype = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    fits = {str: pa.types.is_string, int: pa.types.is_integer, list: pa.types.is_list}
    expected = {"clip_id": str, "shard": str, "shard_sha256": str, "roles": list}.get(name, int)
    if not fits[expected](dtype) or pa.types.is_unsigned_integer(dtype):
        raise ValueError(f"{origin}: the column {name} has the invalid type {column.type}: repack the data set")
    if column.null_count:
        raise ValueError(f"{origin}: the column {name} is null in {column.null_count} rows: repack the data set")


def check_rows(origin: str, table: pa.Table, shard: np.ndarray, max_bytes: int) -> None:
    """Raise ValueError, with the first row, for rows with numbers out of range or that overlap in their tar."""
    offset, size = ints(table, "offset"), ints(table, "bytes")
    bounds = {"offset": (0, 1 << 62), "bytes": (1024, max_bytes), "frames": (1, 1 << 22)}
    bounds |= {"height": (1, MAX_SIDE - 1), "width": (1, MAX_SIDE - 1)}
    for name, (low, high) in bounds.items():
        values = ints(table, name)
        invalid = np.flatnonzero((values < low) | (values > high))
        if len(invalid):
            row = int(invalid[0])
            raise ValueError(
                f"{origin}: row {row} ({table['clip_id'][row].as_py()}) has {values[row]} for {name}, outside {low} to {high}; "
                f"{len(invalid) - 1} more rows are invalid: copy the index again or repack the data set"
            )
    order = np.arange(len(offset))
    if not ((shard[1:] > shard[:-1]) | (shard[1:] == shard[:-1]) & (offset[1:] >= offset[:-1])).all():
        order = np.lexsort((offset, shard))
    first, second = order[:-1], order[1:]
    invalid = np.flatnonzero((shard[first] == shard[second]) & (offset[first] + size[first] > offset[second]))
    if len(invalid):
        pair = [table["clip_id"][int(rows[invalid[0]])].as_py() for rows in (first, second)]
        raise ValueError(f"{origin}: {pair[0]} and {pair[1]} overlap in their tar: repack the data set")


def check_tars(folder: Folder, names: list[str], shard: np.ndarray, ends: np.ndarray) -> None:
    """Raise FileNotFoundError for missing tars and ValueError for truncated ones, before the first step."""
    sizes = folder.sizes()
    missing = [name for name in names if name not in sizes]
    if missing:
        raise FileNotFoundError(f"{folder.root}: {join_names(missing)} listed in the index but missing: copy it again")
    needed = np.zeros(len(names), np.int64)
    np.maximum.at(needed, shard, ends)
    truncated = [
        f"{name} ({sizes[name]} of {required} bytes)"
        for name, required in zip(names, needed, strict=True)
        if sizes[name] < required
    ]
    if truncated:
        raise ValueError(
            f"{folder.root}: {join_names(truncated)} truncated before the end of the last sample: copy it again"
        )


def join_names(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def ints(table: pa.Table, column: str) -> np.ndarray:
    return numbers(table[column].combine_chunks())


def numbers(array: pa.Array) -> np.ndarray:
    """Return integers as int64, without a copy if possible. Arrow's to_numpy would import pandas first, which takes a second."""
    return np.from_dlpack(array).astype(np.int64, copy=False)  # type: ignore[arg-type]
