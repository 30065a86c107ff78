"""Single rows of any shard's table, by the value of a column: what a stage that borrows is given."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from a2data.store import parquet, pixels
from a2data.store.schema import add_missing_columns, from_table, schema
from a2data.store.tables import Store

# The tables in which elements of a kind may be; all others: parse.
TABLES = {"human": ("detect",), "object": ("detect", "ground"), "face": ("faces",), "background": ("background",)}
OPEN = 256  # parts whose footers and columns of ids are kept in memory


class Lookup:
    """`lookup(stage, shard, column, values) -> {value: row}`, without the values that are not there.

    Reads the column once for each part, and then only the row groups that hold what is asked for.
    """

    def __init__(self, store: Store, borrows: dict[str, type]):
        self.store, self.lookup_tables = store, borrows
        self._places = lru_cache(OPEN)(self._find_places)

    def __call__(
        self, stage: str, shard: int, column: str, values: Iterable[str], record: type | None = None
    ) -> dict[str, Any]:
        """record: fewer columns than the stage declared to borrow; pixels, for one, are dear."""
        record = record or self.lookup_tables[stage]
        part, places = self._places(stage, shard, column)
        groups: dict[int, list[str]] = {}
        for value in values:
            if value in places:
                groups.setdefault(places[value][0], []).append(value)
        found = {}
        for group, wanted in groups.items():
            try:
                columns = [name for name in schema(record).names if name in part.names]
                rows = add_missing_columns(record, part.group(group, columns))
                if not part.sealed:
                    pixels.check(rows.take([places[value][1] for value in wanted]), part.path)
            except parquet.DamagedError as error:
                raise self.store.set_aside(error) from error
            for value in wanted:
                (found[value],) = from_table(record, rows.slice(places[value][1], 1))
        return found

    def _find_places(self, stage: str, shard: int, column: str) -> tuple[parquet.Reader, dict[str, tuple[int, int]]]:
        """The open part, and for each value of the column its row group and its place there; the first where it is not alone."""
        path = self.store.part(stage, shard)
        places: dict[str, tuple[int, int]] = {}
        try:
            part = parquet.Reader(self.store.fs.open_input_file(path), path)
            for group in range(part.groups):
                for row, value in enumerate(part.group(group, [column]).column(0).to_pylist()):
                    places.setdefault(value, (group, row))
        except FileNotFoundError as error:  # another worker has moved it aside: that is no fault of what is looked up
            raise parquet.DamagedError(path, "there is no such file") from error
        except parquet.DamagedError as error:
            raise self.store.set_aside(error) from error
        return part, places


def element_row(
    lookup: Callable[..., dict[str, Any]], kind: str, shard: int, element_id: str, record: type | None = None
) -> Any:
    """The row of an element in whichever table of its kind has it; None where none has. record: as in Lookup."""
    return element_rows(lookup, kind, shard, [element_id], record).get(element_id)


def element_rows(
    lookup: Callable[..., dict[str, Any]], kind: str, shard: int, element_ids: Iterable[str], record: type | None = None
) -> dict[str, Any]:
    """The rows of elements of one kind and shard, by their ids, without those that no table has. record: as in Lookup."""
    more = {} if record is None else {"record": record}
    found: dict[str, Any] = {}
    for stage in TABLES.get(kind, ("parse",)):
        if left := [element_id for element_id in element_ids if element_id not in found]:
            found |= lookup(stage, shard, "element_id", left, **more)
    return found
