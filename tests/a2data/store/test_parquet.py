"""What no checksum of Parquet covers: the footer and the headers of pages."""

import io
import json
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from a2data.store.parquet import DamagedError, Reader, Writer
from a2data.store.schema import schema, to_table


@dataclass(frozen=True)
class Phrase:
    text: str


@dataclass(frozen=True)
class Row:
    clip_id: str
    frames: list[int]
    phrases: list[Phrase]


def row(n: int) -> Row:
    return Row(f"v-{n:08d}", list(range(n % 4)), [Phrase("she")] * (n % 3))


@pytest.fixture(scope="module")
def written() -> bytes:
    file, table = io.BytesIO(), to_table(Row, [row(n) for n in range(12)])
    writer = Writer(file, schema(Row))
    writer.write(table.slice(0, 7))
    writer.write(table.slice(7))
    writer.close({"a2data": json.dumps({"key": "k"})})
    return file.getvalue()


def read(data: bytes) -> tuple[list, dict]:
    reader = Reader(pa.BufferReader(data), "part")
    return reader.table().to_pylist(), reader.notes


def test_other_readers_of_parquet_read_the_file(written):
    assert pq.read_table(io.BytesIO(written)).to_pylist() == read(written)[0]
    assert len(read(written)[0]) == 12


@pytest.mark.parametrize("bit", [1, 2])
def test_no_flipped_bit_changes_a_row_or_a_note(written, bit):
    """Bits 1 and 2 are those that make the number of values in a page's header a little smaller."""
    expected, found = read(written), 0
    for at in range(len(written)):
        data = bytearray(written)
        data[at] ^= 1 << bit
        try:
            assert read(bytes(data)) == expected, at
        except DamagedError:
            found += 1
    assert found > 0.8 * len(written)


def test_a_file_that_is_cut_anywhere_is_damaged(written):
    for end in range(0, len(written), 7):
        with pytest.raises(DamagedError, match="part is damaged"):
            read(written[:end])
