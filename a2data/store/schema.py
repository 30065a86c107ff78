"""Conversion between records and Arrow tables, with schemas derived from the dataclasses."""

from collections.abc import Iterable
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import pyarrow as pa

_SCALARS = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(), bytes: pa.large_binary()}


def arrow_type(hint: Any) -> pa.DataType:
    """Return the Arrow type of an annotation. Raises TypeError if it does not have one."""
    if hint in _SCALARS:
        return _SCALARS[hint]
    if isinstance(hint, type) and is_dataclass(hint):
        return pa.struct([pa.field(f.name, arrow_type(h), nullable=False) for f, h in _hints(hint)])
    origin, args = get_origin(hint), get_args(hint)
    if origin is tuple:
        return pa.list_(arrow_type(args[0]), len(args))
    if origin is Annotated:
        return pa.list_(pa.field("item", pa.from_numpy_dtype(args[1]), nullable=False))
    if origin is list:
        return pa.list_(pa.field("item", arrow_type(args[0]), nullable=False))
    raise TypeError(f"no Arrow type for {hint!r}")


@cache
def _hints(record: type) -> list[tuple[Any, Any]]:
    hints = get_type_hints(record, include_extras=True)
    return [(f, hints[f.name]) for f in fields(record)]


def schema(record: type) -> pa.Schema:
    """Return the Arrow schema of a record type. Columns are not nullable; records use empty values for "none"."""
    return pa.schema([pa.field(f.name, arrow_type(h), nullable=False) for f, h in _hints(record)])


def to_table(record: type, rows: Iterable[Any]) -> pa.Table:
    """Return rows as an Arrow table. Raises TypeError, with the column, if a value does not fit."""
    rows = list(rows)
    columns = []
    for field in schema(record):
        values = [_to_python(getattr(row, field.name)) for row in rows]
        try:
            columns.append(pa.array(values, type=field.type))
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise TypeError(f"{record.__name__}.{field.name} does not hold a {field.type}: {error}") from error
    return pa.table(columns, schema=schema(record))


def add_missing_columns(record: type, table: pa.Table) -> pa.Table:
    """Return a table of an earlier version with its missing columns added, filled with the record's defaults.

    Raises ValueError for a missing column without a default: such a table cannot be read.
    """
    for position, (field, hint) in enumerate(_hints(record)):
        if field.name not in table.column_names:
            if field.default is MISSING:
                raise ValueError(
                    f"a table of {record.__name__} lacks the column {field.name!r}: it was written by another version; "
                    "`a2data run` makes it again"
                )
            value = pa.array([_to_python(field.default)] * len(table), arrow_type(hint))
            table = table.add_column(position, pa.field(field.name, arrow_type(hint), nullable=False), value)
    return table


def _to_python(value: Any) -> Any:
    """Convert nested records to dictionaries, and numpy scalars and arrays to Python values."""
    if is_dataclass(value):
        return {f.name: _to_python(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, list | tuple):
        return [_to_python(v) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value


def from_table(record: type, table: pa.Table | pa.RecordBatch) -> list[Any]:
    """Return the rows of a table as records, including nested ones."""
    hints = _hints(record)
    columns = [table.column(f.name).to_pylist() for f, _ in hints]
    converters = [_converter(h) for _, h in hints]
    return [
        record(*(convert(v) for convert, v in zip(converters, row, strict=True))) for row in zip(*columns, strict=True)
    ]


def _converter(hint: Any) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and is_dataclass(hint):
        field_converters = [(f.name, _converter(h)) for f, h in _hints(hint)]
        return lambda v: hint(**{name: convert(v[name]) for name, convert in field_converters})
    if origin is list and (is_dataclass(args[0]) or get_origin(args[0]) is tuple):
        convert = _converter(args[0])
        return lambda v: [convert(x) for x in v]
    if origin is tuple:
        return tuple
    assert origin not in (Union, UnionType), f"{hint} is optional: use an empty value instead"
    return lambda v: v
