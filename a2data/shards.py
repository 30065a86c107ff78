"""WebDataset tars whose bytes depend on their content alone, the Parquet index over them, and the manifest. Local folders.

A sample is a key and its members, extension -> bytes. Members stand in order of key, then extension; every header has mode 644,
owner 0 and time 0. So the same samples give the same tar on any machine, and its sha256 says whether two data sets are the same.
"""

import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow.parquet as pq

from a2data.arrow import to_table
from a2data.records import Packed


class Placed(NamedTuple):
    """Where a sample went."""

    key: str
    shard: str  # file name of the tar
    offset: int  # of the sample's first header
    bytes: int  # headers and padding included
    members: list[str]  # extensions, in the order they stand in the tar


def write(
    samples: Iterable[tuple[str, dict[str, bytes]]], out: Path, shard: int, max_bytes: int = 1 << 30
) -> Iterator[Placed]:
    """Write samples to <out>/<shard>-<n>.tar, at most two of them in memory; each is yielded when its tar is in place.

    A new tar begins before the sample that would make the current one larger than max_bytes. Tars that an earlier run of this
    shard left over are removed. Raises ValueError where keys do not ascend or do not fit into a tar header.
    """
    number, previous, placed = 0, "", list[Placed]()
    rest = iter(samples)
    sample = next(rest, None)
    while sample is not None:
        name = f"{shard:05d}-{number:03d}.tar"
        with replacing(out / name) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            while sample is not None:
                key, members = sample
                check_key(key, previous)
                size = sum(512 + -(-len(data) // 512) * 512 for data in members.values())
                if placed and tar.offset + size > max_bytes:
                    break
                placed.append(Placed(key, name, tar.offset, size, sorted(members)))
                for extension in sorted(members):
                    add(tar, f"{key}.{extension}", members[extension])
                previous, sample = key, next(rest, None)
        yield from placed
        number, placed = number + 1, []
    for stale in sorted(out.glob(f"{shard:05d}-*.tar")):
        if int(stale.stem.partition("-")[2]) >= number:
            stale.unlink()


def check_key(key: str, previous: str) -> None:
    if key <= previous:
        raise ValueError(f"sample {key!r} comes after {previous!r}: samples must come in ascending order of their keys")
    if not key or set(key) & set("./\\"):
        raise ValueError(
            f"{key!r} cannot be the key of a sample: WebDataset takes what follows the first dot for an extension"
        )


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    header = tarfile.TarInfo(name)  # mode 644, owner 0 without a name, time 0
    header.size = len(data)
    tar.addfile(header, io.BytesIO(data))


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that appears under its name whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with scratch.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def finish(out: Path, packed: Iterable[Packed], about: dict[str, Any]) -> dict[str, Any]:
    """Write index.parquet and manifest.json for the tars of a data set, remove tars that it does not name; return the manifest.

    packed: every row of the stage `pack`, in any order. about: what else the manifest should say (recipe, models, licences), as
    JSON. Raises FileNotFoundError where a tar is missing.
    """
    rows = sorted(packed, key=lambda row: (row.shard, row.offset))
    names = sorted({row.shard for row in rows})
    missing = [name for name in names if not (out / name).exists()]
    if missing:
        raise FileNotFoundError(f"{out} lacks {', '.join(missing)}: run pack again")
    for stale in sorted(out.glob("*.tar")):
        if stale.name not in names:
            stale.unlink()
    samples = Counter(row.shard for row in rows)
    manifest = {
        "about": about,
        "format": "webdataset",
        "samples": len(rows),
        "frames": sum(row.frames for row in rows),
        "licenses": dict(sorted(Counter(row.license for row in rows).items())),
        "roles": dict(sorted(Counter(role for row in rows for role in row.roles).items())),
        "shards": [
            {"name": n, "bytes": (out / n).stat().st_size, "sha256": sha256(out / n), "samples": samples[n]}
            for n in names
        ],
    }
    with replacing(out / "index.parquet") as file:
        pq.write_table(to_table(Packed, rows), file, compression="zstd")
    with replacing(out / "manifest.json") as file:
        text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        file.write(text.encode() + b"\n")
    return manifest


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
