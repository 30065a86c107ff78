"""Lookup of single rows in any shard's table by the value of a column, for stages with `lookup_tables`."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from a2data.store import parquet, pixels
from a2data.store.schema import add_missing_columns, from_table, schema
from a2data.store.tables import Store

# tables of elements in the order of the recipe, and the kinds of their elements
ELEMENT_TABLES = {
    "detect": ("human", "object"),
    "faces": ("face",),
    "parse": ("hair", "upper", "lower", "shoes", "accessory"),
    "background": ("background",),
    "ground": ("object",),
}
MAX_OPEN_PARTS = 256  # number of parts whose footers and id columns are kept in memory


class Lookup:
    """Callable `lookup(stage, shard, column, values) -> {value: row}`; values that do not occur are omitted.

    Reads the column once for each part, and then only the row groups with the requested values.
    """

    def __init__(self, store: Store, lookup_tables: dict[str, type]):
        self.store, self.lookup_tables = store, lookup_tables
        self._positions = lru_cache(MAX_OPEN_PARTS)(self._find_positions)

    def __call__(
        self, stage: str, shard: int, column: str, values: Iterable[str], record: type | None = None
    ) -> dict[str, Any]:
        """Return {value: row}. record: selects fewer columns than declared in `lookup_tables`, e.g. to avoid reading pixels."""
        record = record or self.lookup_tables[stage]
        part, positions = self._positions(stage, shard, column)
        groups: dict[int, list[str]] = {}
        for value in values:
            if value in positions:
                groups.setdefault(positions[value][0], []).append(value)
        rows_by_value: dict[str, Any] = {}
        for group, group_values in groups.items():
            try:
                columns = [name for name in schema(record).names if name in part.names]
                rows = add_missing_columns(record, part.group(group, columns))
                rows = rows.take([positions[value][1] for value in group_values])
                if not part.sealed:
                    pixels.check(rows, part.path)
            except parquet.DamagedError as error:
                raise self.store.set_aside(error) from error
            rows_by_value.update(zip(group_values, from_table(record, rows), strict=True))
        return rows_by_value

    def _find_positions(self, stage: str, shard: int, column: str) -> tuple[parquet.Reader, dict[str, tuple[int, int]]]:
        """Return the open part, and value of the column -> (row group, row in it) of its first occurrence."""
        path = self.store.part(stage, shard)
        positions: dict[str, tuple[int, int]] = {}
        try:
            part = parquet.Reader(self.store.fs.open_input_file(path), path)
            for group in range(part.groups):
                for row, value in enumerate(part.group(group, [column]).column(0).to_pylist()):
                    positions.setdefault(value, (group, row))
        except FileNotFoundError as error:  # moved aside by another worker
            raise parquet.DamagedError(path, "the file does not exist") from error
        except parquet.DamagedError as error:
            raise self.store.set_aside(error) from error
        return part, positions


def element_row(
    lookup: Callable[..., dict[str, Any]], kind: str, shard: int, element_id: str, record: type | None = None
) -> Any:
    """Return the row of an element from the tables of its kind; None if they do not contain it. record: as in Lookup."""
    return element_rows(lookup, kind, shard, [element_id], record).get(element_id)


def element_rows(
    lookup: Callable[..., dict[str, Any]], kind: str, shard: int, element_ids: Iterable[str], record: type | None = None
) -> dict[str, Any]:
    """Return the rows of elements of one kind and shard by id; missing elements are omitted. record: as in Lookup."""
    options = {} if record is None else {"record": record}
    rows_by_id: dict[str, Any] = {}
    for stage in (name for name, kinds in ELEMENT_TABLES.items() if kind in kinds):
        if missing := [element_id for element_id in element_ids if element_id not in rows_by_id]:
            rows_by_id |= lookup(stage, shard, "element_id", missing, **options)
    return rows_by_id
