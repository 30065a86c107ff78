"""Packed shards as an attacker would write them: any key, any name in the index, in the JSON and in the tar."""

import functools
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import tiny_shards

from a2data.dataset import triplet as samples
from a2data.records import Packed
from a2data.store.schema import schema

KEY = "clip00-00000000"
SHARD = "00000-000.tar"


def names(outside: Path) -> list[str]:
    """Names that must never become a path; where they lead somewhere, it is below the folder `outside`."""
    return [
        str(outside / "absolute"),
        "../outside/relative",
        "../../outside/relative",
        "clip/../../outside/x",
        "..",
        ".hidden",
        "",
        "a\0b",
        "a\nb",
        "x" * 300,
    ]


@functools.cache
def plain() -> dict[str, bytes]:
    """The members of an honest sample."""
    return samples.to_members(tiny_shards.triplet(0))


def make(
    folder: Path,
    key: str = KEY,
    shard: str = SHARD,
    reference: str = "ref0",
    member: tarfile.TarInfo | None = None,
    index: dict[str, Any] | None = None,
    lacking: str = "",
    **facts: Any,
) -> Path:
    """Write an index of one row, and a tar with that sample.

    key, shard: as the index has them; the tar itself is always SHARD. reference: what ref0 is called. member: one more, without
    content, in the middle of the sample. lacking: extension of a member to leave out. index, facts: other values of the row and
    of the JSON.
    """
    said = json.loads(plain()["json"]) | facts
    said["references"][0]["name"] = reference
    parts = {name.replace("ref0", reference): data for name, data in plain().items()} | {
        "json": json.dumps(said).encode()
    }
    parts.pop(lacking, None)
    folder.mkdir(parents=True)
    with tarfile.open(folder / SHARD, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, (extension, data) in enumerate(parts.items()):
            if member is not None and number == 1:
                tar.addfile(member)
            header = tarfile.TarInfo(f"{key}.{extension}"[:100])
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
        size = tar.offset
    row = Packed(
        key, shard, "0" * 64, 0, size, sorted(parts), tiny_shards.FRAMES, tiny_shards.HEIGHT, tiny_shards.WIDTH,
        15.0, ["object", "background"], "CC0-1.0", 0.1,
    )  # fmt: skip
    table = pa.Table.from_pylist([vars(row) | (index or {})], schema=schema(Packed))
    pq.write_table(table, folder / "index.parquet")
    return folder


def tree(root: Path) -> dict[str, int]:
    """Every file and folder below `root`, with its size."""
    return {str(path.relative_to(root)): path.lstat().st_size if path.is_file() else -1 for path in root.rglob("*")}
