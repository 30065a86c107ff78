"""Parser of video lists (.csv, .jsonl and .parquet). Errors state file and row."""

import codecs
import csv
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from a2data.store.url import is_url, public_name

SUFFIXES = (".csv", ".jsonl", ".parquet")
COLUMNS = ("path", "url", "license", "source", "label")
ALIASES = {"licence": "license"}
MAX_LISTED_ERRORS = 10  # rows listed in one error message
BYTE_ORDER_MARKS = (  # UTF-32 first, since its mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)


@dataclass(frozen=True)
class Entry:
    """A video listed in an input, with the input's metadata."""

    location: str = field(repr=False)  # absolute local path, or a URL with secrets, which must not leave this process
    license: str = ""
    source: str = ""
    label: str = ""
    stated_in: str = ""  # "list.csv, row 3"; "" for the command line
    problem: str = ""  # why it must not be opened

    @property
    def trusted(self) -> bool:
        """Whether it was given on the command line, not in a list."""
        return not self.stated_in


class _InvalidRow(Exception):  # noqa: N818
    """An invalid row."""


def is_list(path: str) -> bool:
    """Return whether a path or URL is a list, by its suffix."""
    return PurePath(public_name(path)).suffix.lower() in SUFFIXES


def entries(data: bytes, path: str, encoding: str = "") -> list[Entry]:
    """Return the rows of a list with the bytes `data`; relative paths are unchanged.

    path: path of the list, whose suffix determines the format. encoding: of .csv and .jsonl; "" for that of the byte order mark,
    or UTF-8. Raises ValueError with the list and the first invalid rows.
    """
    name = public_name(path)
    suffix = PurePath(name).suffix.lower()
    if suffix == ".parquet":
        rows = _parquet(data, name)
    else:
        text = _decode(data, name, encoding)
        rows = _jsonl(text) if suffix == ".jsonl" else _csv(text)
    parsed, errors = [], []
    for number, row in rows:
        try:
            if isinstance(row, _InvalidRow):
                raise row
            parsed.append(_entry(row, f"{name}, row {number}"))
        except _InvalidRow as error:
            errors.append(f"row {number}: {error}")
    if errors:
        more = f"; and {len(errors) - MAX_LISTED_ERRORS} more rows" if len(errors) > MAX_LISTED_ERRORS else ""
        raise ValueError(f"{name}, {'; '.join(errors[:MAX_LISTED_ERRORS])}{more}")
    return parsed


# -- text --------------------------------------------------------------------------------------------------------------


def _decode(data: bytes, name: str, encoding: str) -> str:
    bom_encoding = next((bom_encoding for mark, bom_encoding in BYTE_ORDER_MARKS if data.startswith(mark)), "")
    codec = bom_encoding or encoding or "utf-8"
    try:
        text = data.decode(codec)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{name}, line {line} is not {codec.upper()}, at byte {error.start} ({data[error.start : error.start + 1]!r}): "
            "save the list as UTF-8, or give its encoding with --list-encoding, such as latin-1"
        ) from None
    except LookupError:
        raise ValueError(f"--list-encoding {encoding!r}: unknown encoding; write utf-8, latin-1, utf-16-le …") from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ValueError(
            f"{name}, line {line} contains a NUL: if it is UTF-16 without a byte order mark, use --list-encoding utf-16-le"
        )
    return text


Rows = Iterator[tuple[int, "dict[str, Any] | _InvalidRow"]]  # numbered from 1


def _csv(text: str) -> Rows:
    """Yield rows by the rules of csv. str.splitlines() would also break lines at U+2028, U+0085 and the vertical tab."""
    limit = csv.field_size_limit(len(text) + 1)  # restored below, since the module has one limit for all readers
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
        header: list[str] | None = None
        number = 0
        try:
            for cells in reader:
                if not cells:
                    continue
                if header is None:
                    header = cells
                    continue
                number += 1
                if len(cells) > len(header):
                    yield (
                        number,
                        _InvalidRow(
                            f"has {len(cells)} fields, the header {len(header)}: quote fields that contain commas"
                        ),
                    )
                else:
                    yield number, _row_values(zip(header, cells, strict=False))
        except csv.Error as error:
            yield number + 1, _InvalidRow(f"is not csv, at line {reader.line_num}: {error}")
    finally:
        csv.field_size_limit(limit)


def _jsonl(text: str) -> Rows:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_row_values)
        except (ValueError, RecursionError) as error:
            yield number, _InvalidRow(f"is not JSON: {error}")
            continue
        yield (
            number,
            row
            if isinstance(row, dict | _InvalidRow)
            else _InvalidRow(f"is a JSON {type(row).__name__}, not an object"),
        )


def _parquet(data: bytes, name: str) -> Rows:
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        columns = [column for column in file.schema_arrow.names if _column_name(column) in COLUMNS]
        rows = file.read(columns=columns).to_pylist() if columns else [dict.fromkeys(file.schema_arrow.names)]
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{name} is not a readable parquet file: {error}") from None
    for number, row in enumerate(rows, 1):
        yield number, _row_values(row.items())


def _column_name(column: str) -> str:
    name = column.strip().lower()
    return ALIASES.get(name, name)


def _row_values(pairs: Any) -> "dict[str, Any] | _InvalidRow":
    """Return the values by the normalised names of their columns."""
    row: dict[str, Any] = {}
    for column, value in pairs:
        name = _column_name(column)
        if name in COLUMNS and name in row and row[name] != value:
            difference = f": {row[name]!r} and {value!r}" if name not in ("path", "url") else ""
            return _InvalidRow(f"states {name!r} twice{difference}")
        row[name] = value
    return row


# -- a row -------------------------------------------------------------------------------------------------------------


def _entry(row: dict[str, Any], stated_in: str) -> Entry:
    values = {column: _value(row.get(column), column) for column in COLUMNS}
    path = values["path"] or values["url"]
    if not path:
        raise _InvalidRow(f'needs a "path" or a "url", has {", ".join(map(str, row)) or "nothing"}')
    if values["path"] and values["url"] and values["path"] != values["url"]:
        raise _InvalidRow('has a "path" and a different "url": give only one of them')
    metadata = {column: values[column].strip(" \t") for column in ("license", "source", "label")}
    return Entry(path, **metadata, stated_in=stated_in)


def _value(value: Any, column: str) -> str:
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise _InvalidRow(
                f"has a {column!r} that is not UTF-8: {public_name(value.decode(errors='backslashreplace'))!r}"
            ) from None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and column not in ("path", "url")
    if not isinstance(value, str) and not is_number:
        raise _InvalidRow(f"has a {column!r} that is not text: {type(value).__name__}")
    text = str(value)
    if "\0" in text:
        raise _InvalidRow(f"has a NUL in its {column!r}")
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        raise _InvalidRow(f"has a {column!r} that is not valid Unicode: {public_name(text)!a}")
    return text


def resolve_location(path: str, list_path: str) -> str:
    """Return a path of a list as an absolute one; relative paths are resolved from the folder of the list.

    >>> resolve_location("b/c.mp4", "/lists/a.csv"), resolve_location("c.mp4", "https://host/lists/a.csv?sig=x")
    ('/lists/b/c.mp4', 'https://host/lists/c.mp4')
    """
    if is_url(path) or path.startswith("/"):
        return path
    folder = public_name(list_path).rpartition("/")[0]
    return f"{folder}/{path}" if folder else path
