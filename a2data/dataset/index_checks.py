"""What an index of packed tars may say: checked when it is read, not days later."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from a2data.store.folder import Folder

MAX_SIDE = 1 << 20  # a2data.dataset.batch_plan.assign has 20 bits for a side


def check_column(where: str, name: str, column: pa.ChunkedArray) -> None:
    """Raises ValueError for a column that is not of the type that it has in `a2data.records.Packed`, or has gaps."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    fits = {str: pa.types.is_string, int: pa.types.is_integer, list: pa.types.is_list}
    wanted = {"clip_id": str, "shard": str, "shard_sha256": str, "roles": list}.get(name, int)
    if not fits[wanted](kind) or pa.types.is_unsigned_integer(kind):
        raise ValueError(f"{where}: the column {name} is of the type {column.type}: pack the data set again")
    if column.null_count:
        raise ValueError(
            f"{where}: {column.null_count} rows have nothing in the column {name}: pack the data set again"
        )


def check_rows(where: str, table: pa.Table, shard: np.ndarray, max_bytes: int) -> None:
    """Raises ValueError, naming the first, for rows with numbers that make no sense, or that overlap in their tar."""
    offset, size = ints(table, "offset"), ints(table, "bytes")
    bounds = {"offset": (0, 1 << 62), "bytes": (1024, max_bytes), "frames": (1, 1 << 22)}
    bounds |= {"height": (1, MAX_SIDE - 1), "width": (1, MAX_SIDE - 1)}
    for name, (low, high) in bounds.items():
        values = ints(table, name)
        wrong = np.flatnonzero((values < low) | (values > high))
        if len(wrong):
            row = int(wrong[0])
            raise ValueError(
                f"{where}: row {row} ({table['clip_id'][row].as_py()}) has {values[row]} for {name}, outside of {low} to {high}, "
                f"and so have {len(wrong) - 1} more: copy the index again, or pack again"
            )
    order = np.arange(len(offset))
    if not ((shard[1:] > shard[:-1]) | (shard[1:] == shard[:-1]) & (offset[1:] >= offset[:-1])).all():
        order = np.lexsort((offset, shard))
    first, then = order[:-1], order[1:]
    wrong = np.flatnonzero((shard[first] == shard[then]) & (offset[first] + size[first] > offset[then]))
    if len(wrong):
        pair = [table["clip_id"][int(rows[wrong[0]])].as_py() for rows in (first, then)]
        raise ValueError(f"{where}: {pair[0]} and {pair[1]} lie over one another in their tar: pack the data set again")


def check_tars(folder: Folder, names: list[str], shard: np.ndarray, ends: np.ndarray) -> None:
    """Say before the first step which tars are missing or cut off, not days later."""
    there = folder.sizes()
    missing = [name for name in names if name not in there]
    if missing:
        raise FileNotFoundError(f"{folder.root} lacks {named(missing)}, which its index names: copy it again")
    needed = np.zeros(len(names), np.int64)
    np.maximum.at(needed, shard, ends)
    short = [
        f"{name} ({there[name]} of {need} bytes)"
        for name, need in zip(names, needed, strict=True)
        if there[name] < need
    ]
    if short:
        raise ValueError(f"{folder.root}: {named(short)} ends before its last sample: it was cut off, copy it again")


def named(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def ints(table: pa.Table, column: str) -> np.ndarray:
    return numbers(table[column].combine_chunks())


def numbers(array: pa.Array) -> np.ndarray:
    """Integers as int64, in Arrow's memory where they are. Its to_numpy would import pandas first, if there is one: a second."""
    return np.from_dlpack(array).astype(np.int64, copy=False)  # type: ignore[arg-type]
