"""Writer of reproducible WebDataset tars, their Parquet index, and the manifest.

A sample is a key and its members, extension -> bytes. Members are in order of key, then extension; every header has mode 644,
owner 0 and time 0. The same samples therefore give a byte-identical tar on any machine, and its sha256 shows whether two data
sets are equal.
"""

import hashlib
import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

import pyarrow.parquet as pq

from a2data.dataset.reader import members
from a2data.dataset.triplet import FORMAT
from a2data.records import Packed
from a2data.store.filename import safe_name
from a2data.store.folder import Folder
from a2data.store.schema import add_missing_columns, from_table, to_table

# split, if the data set is split; shard of work; number within it; prefix of its sha256 (absent before 2026-12)
TAR = re.compile(r"(?:([a-z]+)-)?(\d+)-(\d{3,})(?:-[0-9a-f]{12})?\.tar")
FORMATS = ("webdataset", FORMAT)  # of a manifest; the first is that of format 2, whose samples differ in their members
PENDING = ".pending"  # NAME.pending marks a tar that the folder's owner wrote and that the manifest does not list yet
REPLACED = "replaced.json"  # names of tars listed in the old manifest and not in the new one


class WrittenSample(NamedTuple):
    """Location of a written sample."""

    key: str
    shard: str  # file name of the tar
    shard_sha256: str  # of the whole tar
    offset: int  # of the sample's first header
    bytes: int  # including headers and padding
    members: list[str]  # extensions, in the order of the tar


def write(
    samples: Iterable[tuple[str, dict[str, bytes]]], out: Folder, shard: int, max_bytes: int = 1 << 30, split: str = ""
) -> Iterator[WrittenSample]:
    """Write samples to <out>/<shard>-<n>-<sha256>.tar, with at most two in memory; yield each once its tar is in place.

    With a split, lower-case letters such as "train", the name is <out>/<split>-<shard>-<n>-<sha256>.tar. It ends in the first 12
    hex digits of the tar's sha256, so a tar never replaces one with other bytes: readers of the current index are not affected.
    Old tars are not removed here but in `finish`. A file NAME.pending beside each new tar marks it as written by the owner.

    A new tar starts before the sample that would make the current one larger than max_bytes. Raises ValueError if keys are not in
    ascending order or do not fit into a tar header, FileExistsError if the owner of `out` did not write the file of that name.
    """
    number, previous, placed, owned = 0, "", list[WrittenSample](), owned_tars(out)
    remaining = iter(samples)
    sample = next(remaining, None)
    while sample is not None:
        with out.draft() as (file, publish):
            with tarfile.open(fileobj=(hashing := HashingFile(file)), mode="w", format=tarfile.USTAR_FORMAT) as tar:
                while sample is not None:
                    key, members = sample
                    check_key(key, previous)
                    size = sum(512 + -(-len(data) // 512) * 512 for data in members.values())
                    if placed and tar.offset + size > max_bytes:
                        break
                    placed.append(WrittenSample(key, "", "", tar.offset, size, sorted(members)))
                    for extension in sorted(members):
                        add(tar, f"{key}.{extension}", members[extension])
                    previous, sample = key, next(remaining, None)
            sha256 = hashing.sha.hexdigest()
            name = f"{split}-" * bool(split) + f"{shard:05d}-{number:03d}-{sha256[:12]}.tar"
            if name not in owned:
                _check_name(out, name, sha256)
            out.put(b"", name + PENDING)
            publish(name)
        yield from (row._replace(shard=name, shard_sha256=sha256) for row in placed)
        number, placed = number + 1, []


def _check_name(out: Folder, name: str, sha256: str) -> None:
    """Raise FileExistsError if a file of this name exists with other bytes."""
    if name in out.names() and out.sha256(name) != sha256:
        raise FileExistsError(f"{out.path(name)} was not written by this work folder: move it away")


class HashingFile(io.BufferedIOBase):
    """A file that is written sequentially and hashed while it is written."""

    def __init__(self, file: BinaryIO):
        self.file, self.sha = file, hashlib.sha256()

    def write(self, data: Any, /) -> int:
        self.sha.update(data)
        return self.file.write(data)

    def tell(self) -> int:
        return self.file.tell()


def check_key(key: str, previous: str) -> None:
    if key <= previous:
        raise ValueError(f"sample {key!r} follows {previous!r}: samples must be in ascending order of their keys")
    if not key or set(key) & set("./\\"):
        raise ValueError(
            f"{key!r} is not a valid sample key: it must not be empty or contain dots or slashes, since WebDataset treats "
            "everything after the first dot as the extension"
        )


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    header = tarfile.TarInfo(name)  # mode 644, owner 0 without a name, time 0
    header.size = len(data)
    tar.addfile(header, io.BytesIO(data))


def split_statistics(rows: Iterable[Packed]) -> dict[str, dict[str, Any]]:
    """Return the statistics of each split: samples, fraction of all, components, fraction in the largest; {} without splits.

    Raises ValueError if two splits share a component, since training data would leak into evaluation.
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
    """Return the rows of the index of a data set, in order.

    Columns that are missing in an older index get their defaults from Packed. Raises ValueError if the index or a column without
    a default is missing, and if a key or a shard cannot be used as a file name.
    """
    if "index.parquet" not in folder.names():
        raise ValueError(f"{folder.root} is not a folder of shards: index.parquet is missing; `a2data run` creates it")
    try:
        with folder.reading("index.parquet") as file:
            table = pq.read_table(file, page_checksum_verification=True)
        packed = from_table(Packed, add_missing_columns(Packed, table))
    except (ValueError, OSError) as error:
        raise ValueError(f"{folder.root}/index.parquet cannot be read: {error}; repack the data set") from None
    for name in {row.shard for row in packed} | {row.clip_id for row in packed}:
        safe_name(name, f"{folder.root}/index.parquet")
    return packed


def read_sample(folder: Folder, key: str, shard: str, offset: int, size: int) -> dict[str, bytes]:
    """Return the members of one sample, extension -> bytes, from its offset in the index.

    Raises FileNotFoundError if the tar is missing, ValueError for a shard outside the folder, for an offset outside the tar and
    if the tar has another sample there.
    """
    with folder.reading(shard) as file:
        length = file.size()
        if not 0 <= offset < offset + size <= length:
            raise ValueError(
                f"{folder.root}/{shard} has {length} bytes, but the index has the sample {key} at byte {offset} with {size} bytes"
            )
        file.seek(offset)
        piece = memoryview(file.read(size))
    try:
        return {name: bytes(data) for name, data in members(piece, key, f"{folder.root}/{shard}").items()}
    except LookupError as error:
        raise ValueError(str(error)) from error


def manifest(out: Folder) -> dict[str, Any]:
    """Return the manifest of a folder of shards; {} if it is missing or damaged."""
    try:
        found = json.loads(out.get("manifest.json") or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if is_manifest(found) else {}


def is_manifest(data: object) -> bool:
    """Return whether parsed JSON has the types of a manifest: names, sizes and sha256 of the tars and the index, splits."""
    if not isinstance(data, dict):
        return False
    shards, index, splits = data.get("shards", []), data.get("index", {}), data.get("splits", {})
    types = {"bytes": int, "sha256": str}
    return (
        isinstance(data.get("format", ""), str)
        and isinstance(shards, list)
        and all(isinstance(e, dict) and isinstance(e.get("name"), str) for e in shards)
        and all(isinstance(e.get(key), type_) for e in shards for key, type_ in types.items())
        and all(isinstance(each, dict) for each in (index, splits, data.get("about", {})))
        and all(
            isinstance(statistics, dict) and {"share", "largest_component"} <= statistics.keys()
            for statistics in splits.values()
        )
        and all(isinstance(index[key], type_) for key, type_ in types.items() if key in index)
    )


def listed_tars(about: dict[str, Any]) -> set[str]:
    """Return the names of the tars that a manifest, as `manifest` returns it, lists. Entries with other names are ignored."""
    return {entry["name"] for entry in about.get("shards", []) if TAR.fullmatch(entry["name"])}


def owned_tars(out: Folder) -> set[str]:
    """Return the names of the tars that the owner of a folder wrote, both listed in the manifest and pending."""
    pending = {name.removesuffix(PENDING) for name in out.names() if name.endswith(PENDING)}
    return listed_tars(manifest(out)) | {name for name in pending if TAR.fullmatch(name)}


def put_manifest(out: Folder, about: dict[str, Any]) -> None:
    """Write manifest.json as canonical JSON, so that equal manifests are byte-identical."""
    text = json.dumps(about, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    out.put(text.encode() + b"\n", "manifest.json")


def check_owner(out: Folder, about: dict[str, Any], owner: dict[str, str] | None) -> None:
    """Raise PermissionError if the manifest of a folder has another owner, because another run took it over meanwhile."""
    found = about.get("owner")
    if found != owner:
        other = found.get("work") if isinstance(found, dict) else "another folder"
        raise PermissionError(f"{out.root} was taken over by {other} after this run started: nothing was published")


def finish(
    out: Folder, packed: Iterable[Packed], extra: dict[str, Any], owner: dict[str, str] | None = None
) -> dict[str, Any]:
    """Write index.parquet and manifest.json for the tars of a data set, then remove the tars that they replace.

    packed: every row of the stage `pack`, in any order. extra: additional content of the manifest (recipe, models, licences), as
    JSON. owner: the work folder that the manifest must belong to; None keeps the owner. Returns the manifest.

    Tars are removed after index and manifest are in place, and only those listed in the old manifest or left by `write`. Raises
    FileNotFoundError if a tar is missing, PermissionError if the folder belongs to another owner by now.
    """
    rows = sorted(packed, key=lambda row: (row.shard, row.offset))
    names = sorted({row.shard for row in rows})
    splits = split_statistics(rows)
    sizes, sha256 = out.sizes(), {row.shard: row.shard_sha256 for row in rows}
    missing = [name for name in names if name not in sizes]
    if missing:
        raise FileNotFoundError(f"{', '.join(missing)} missing in {out.root}: run pack again")
    previous = manifest(out)
    owner = owner or previous.get("owner")
    check_owner(out, previous, owner)
    samples, index = Counter(row.shard for row in rows), io.BytesIO()
    pq.write_table(to_table(Packed, rows), index, compression="zstd", write_page_checksum=True)
    published = {
        "about": extra,
        "format": FORMAT,
        "samples": len(rows),
        "frames": sum(row.frames for row in rows),
        "index": {"bytes": index.tell(), "sha256": hashlib.sha256(index.getbuffer()).hexdigest()},
        "licenses": dict(sorted(Counter(row.license for row in rows).items())),
        "roles": dict(sorted(Counter(role for row in rows for role in row.roles).items())),
        **({"splits": splits} if splits else {}),
        **({"owner": owner} if owner else {}),
        "shards": [{"name": n, "samples": samples[n], "bytes": sizes[n], "sha256": sha256[n]} for n in names],
    }
    replaced = listed_tars(previous) - set(names)
    if replaced:  # otherwise a run killed after writing the manifest would leave unlisted tars
        out.put(json.dumps(sorted(replaced | _replaced(out))).encode(), REPLACED)
    out.put(index.getvalue(), "index.parquet")
    put_manifest(out, published)
    remove_replaced(out)
    return published


def _replaced(out: Folder) -> set[str]:
    """Return the tar names in REPLACED, ignoring other entries."""
    try:
        return {name for name in json.loads(out.get(REPLACED) or b"[]") if TAR.fullmatch(name)}
    except (TypeError, ValueError):
        return set()


def remove_replaced(out: Folder) -> None:
    """Remove the tars that the owner of a folder wrote and that its manifest does not list. The manifest must be up to date.

    These are the tars of the previous manifest and those of interrupted runs. Other files are not touched.
    """
    existing = out.names()
    markers = [name for name in existing if name.endswith(PENDING) and TAR.fullmatch(name.removesuffix(PENDING))]
    if not markers and REPLACED not in existing:
        return
    for name in sorted(
        {*(marker.removesuffix(PENDING) for marker in markers), *_replaced(out)} - listed_tars(manifest(out))
    ):
        out.remove(name)
    for marker in markers:
        out.remove(marker)
    if REPLACED in existing:
        out.remove(REPLACED)
