"""What Megatron-Energon needs beside the tars, so that `energon prepare` does not have to read them: .nv-meta and the offsets."""

import json
import struct
from collections import defaultdict
from collections.abc import Iterable

from a2data.dataset.writer import TAR
from a2data.records import Packed
from a2data.store.folder import Folder

FOLDER = ".nv-meta"
NAMES = {"": "train", "eval": "val"}  # Energon's own names of splits; others stay


def write(out: Folder, rows: Iterable[Packed]) -> None:
    """Write .nv-meta for the samples of a folder, and beside each tar the offsets of its samples.

    The samples are `CrudeSample`s: their members by extension. `energon prepare` still makes index.sqlite, which only joins and
    random access need.
    """
    tars: dict[str, list[Packed]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row.shard, row.offset)):
        tars[row.shard].append(row)
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for name, rows_of_tar in tars.items():
        splits.setdefault(NAMES.get(rows_of_tar[0].split, rows_of_tar[0].split), []).append(name)
        offsets = [*(row.offset for row in rows_of_tar), rows_of_tar[-1].offset + rows_of_tar[-1].bytes]
        out.put(struct.pack(f"<{len(offsets)}Q", *offsets), f"{name}.idx")
    for stale in (
        name for name in out.names() if name.endswith(".idx") and name.removesuffix(".idx") not in out.names()
    ):
        if TAR.fullmatch(stale.removesuffix(".idx")):
            out.remove(stale)
    out.put(_text({"__module__": "megatron.energon", "__class__": "CrudeWebdataset"}), FOLDER, "dataset.yaml")
    out.put(_text({"split_parts": splits, "exclude": []}), FOLDER, "split.yaml")
    counts = {name: len(rows_of_tar) for name, rows_of_tar in tars.items()}
    out.put(_text({"energon_version": None, "shard_counts": counts}), FOLDER, ".info.json")


def offsets(out: Folder, tar: str) -> list[int]:
    """Return the offsets of the samples of a tar and its end; [] without an index."""
    data = out.get(f"{tar}.idx") or b""
    return list(struct.unpack(f"<{len(data) // 8}Q", data))


def _text(value: object) -> bytes:
    """Return JSON, which is YAML too."""
    return json.dumps(value, indent=1).encode() + b"\n"
