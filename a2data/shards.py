"""WebDataset tars whose bytes depend on their content alone, the Parquet index over them, and the manifest.

A sample is a key and its members, extension -> bytes. Members stand in order of key, then extension; every header has mode 644,
owner 0 and time 0. So the same samples give the same tar on any machine, and its sha256 says whether two data sets are the same.
"""

import hashlib
import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from a2data.arrow import complete, from_table, to_table
from a2data.filename import safe_name
from a2data.folder import Folder
from a2data.records import Packed
from a2data.tars import members

# split, where the data set is split; shard of work; number within it
TAR = re.compile(r"(?:([a-z]+)-)?(\d+)-(\d{3,})\.tar")


class Placed(NamedTuple):
    """Where a sample went."""

    key: str
    shard: str  # file name of the tar
    shard_sha256: str  # of the whole tar
    offset: int  # of the sample's first header
    bytes: int  # headers and padding included
    members: list[str]  # extensions, in the order they stand in the tar


def write(
    samples: Iterable[tuple[str, dict[str, bytes]]], out: Folder, shard: int, max_bytes: int = 1 << 30, split: str = ""
) -> Iterator[Placed]:
    """Write samples to <out>/<shard>-<n>.tar, at most two of them in memory; each is yielded when its tar is in place.

    With a split, lower-case letters such as "train", it is <out>/<split>-<shard>-<n>.tar.

    A new tar begins before the sample that would make the current one larger than max_bytes. Tars that an earlier run of this
    shard left over are removed. Raises ValueError where keys do not ascend or do not fit into a tar header.
    """
    number, previous, placed = 0, "", list[Placed]()
    rest = iter(samples)
    sample = next(rest, None)
    while sample is not None:
        name = f"{split}-{shard:05d}-{number:03d}.tar" if split else f"{shard:05d}-{number:03d}.tar"
        with (
            out.writing(name) as file,
            tarfile.open(fileobj=(hashed := Hashed(file)), mode="w", format=tarfile.USTAR_FORMAT) as tar,
        ):
            while sample is not None:
                key, members = sample
                check_key(key, previous)
                size = sum(512 + -(-len(data) // 512) * 512 for data in members.values())
                if placed and tar.offset + size > max_bytes:
                    break
                placed.append(Placed(key, name, "", tar.offset, size, sorted(members)))
                for extension in sorted(members):
                    add(tar, f"{key}.{extension}", members[extension])
                previous, sample = key, next(rest, None)
        yield from (row._replace(shard_sha256=hashed.sha.hexdigest()) for row in placed)
        number, placed = number + 1, []
    for stale in out.names():
        found = TAR.fullmatch(stale)
        if found and (found[1] or "") == split and int(found[2]) == shard and int(found[3]) >= number:
            out.remove(stale)


class Hashed(io.BufferedIOBase):
    """A file that is written once, from its beginning to its end, and hashed on the way."""

    def __init__(self, file: pa.NativeFile):
        self.file, self.sha = file, hashlib.sha256()

    def write(self, data: Any, /) -> int:
        self.sha.update(data)
        return self.file.write(data)

    def tell(self) -> int:
        return self.file.tell()


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


def divided(rows: Iterable[Packed]) -> dict[str, dict[str, Any]]:
    """Split -> its samples, its share of all, its components, and the share of all in the largest; {} where there is no split.

    Raises ValueError where two splits have a component in common: what is trained on would be evaluated on.
    """
    counts: dict[str, Counter] = {}
    for row in rows:
        if row.split:
            counts.setdefault(row.split, Counter())[row.component] += 1
    total = sum(sum(each.values()) for each in counts.values())
    for component, n in Counter(c for each in counts.values() for c in each).items():
        if n > 1:
            raise ValueError(f"the component {component} is in {n} splits: run pack again")
    return {
        split: {
            "samples": sum(each.values()),
            "share": round(sum(each.values()) / total, 4),
            "components": len(each),
            "largest_component": round(max(each.values()) / total, 4),
        }
        for split, each in sorted(counts.items())
    }


def rows(folder: Folder) -> list[Packed]:
    """The rows of the index of a data set, in the order of the index.

    Columns that an older index lacks have the values that Packed gives them. Raises ValueError, with what to do, where there is
    no index or it lacks another column, and where a key or a shard cannot be used as a file name.
    """
    if "index.parquet" not in folder.names():
        raise ValueError(f"{folder.root} holds no index.parquet: it is no folder of shards; `a2data run` makes one")
    with folder.reading("index.parquet") as file:
        table = pq.read_table(file)
    try:
        found = from_table(Packed, complete(Packed, table))
    except ValueError as error:
        raise ValueError(f"{folder.root}/index.parquet cannot be read: {error}; pack the data set again") from None
    for name in {row.shard for row in found} | {row.clip_id for row in found}:
        safe_name(name, f"{folder.root}/index.parquet")
    return found


def read_sample(folder: Folder, key: str, shard: str, offset: int, size: int) -> dict[str, bytes]:
    """Return the members of one sample, extension -> bytes, from where the index has it.

    Raises FileNotFoundError where the tar is missing, ValueError for a shard outside the folder, for a place outside the tar and
    where the tar has another sample there.
    """
    with folder.reading(shard) as file:
        length = file.size()
        if not 0 <= offset < offset + size <= length:
            raise ValueError(
                f"{folder.root}/{shard} has {length} bytes, and the index has the sample {key} at byte {offset} with {size} bytes"
            )
        file.seek(offset)
        piece = memoryview(file.read(size))
    try:
        return {name: bytes(data) for name, data in members(piece, key, f"{folder.root}/{shard}").items()}
    except LookupError as error:
        raise ValueError(str(error)) from error


def finish(out: Folder, packed: Iterable[Packed], about: dict[str, Any]) -> dict[str, Any]:
    """Write index.parquet and manifest.json for the tars of a data set, remove tars that it does not name; return the manifest.

    packed: every row of the stage `pack`, in any order. about: what else the manifest should say (recipe, models, licences), as
    JSON. Raises FileNotFoundError where a tar is missing.
    """
    rows = sorted(packed, key=lambda row: (row.shard, row.offset))
    names = sorted({row.shard for row in rows})
    splits = divided(rows)
    there, sha256 = out.sizes(), {row.shard: row.shard_sha256 for row in rows}
    missing = [name for name in names if name not in there]
    if missing:
        raise FileNotFoundError(f"{out.root} lacks {', '.join(missing)}: run pack again")
    for stale in there:
        if TAR.fullmatch(stale) and stale not in names:
            out.remove(stale)
    samples = Counter(row.shard for row in rows)
    manifest = {
        "about": about,
        "format": "webdataset",
        "samples": len(rows),
        "frames": sum(row.frames for row in rows),
        "licenses": dict(sorted(Counter(row.license for row in rows).items())),
        "roles": dict(sorted(Counter(role for row in rows for role in row.roles).items())),
        **({"splits": splits} if splits else {}),
        "shards": [{"name": n, "samples": samples[n], "bytes": there[n], "sha256": sha256[n]} for n in names],
    }
    with out.writing("index.parquet") as file:
        pq.write_table(to_table(Packed, rows), file, compression="zstd")
    text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    out.put(text.encode() + b"\n", "manifest.json")
    return manifest
