"""Megatron-Energon: tars of the exported clips with its .nv-meta. Each sample is a dict of members, for a cooker of the user's.

Source: NVIDIA/Megatron-Energon, CrudeWebdataset; the layout is that of a2data.dataset.energon.
"""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from itertools import pairwise

from a2data.dataset import energon, writer
from a2data.dataset.triplet import NO_PICTURE
from a2data.records import Packed
from a2data.store.folder import Folder
from pipelines.export.target import CheckResult, Exported, SkippedRow

ROWS_PER_TAR = 256


def write(out: Folder, rows: Sequence[Exported]) -> list[str]:
    """Write NNNNN-000.tar and .nv-meta. Every sample has the same members; an absent picture is white, of one pixel."""
    slots = max((len(row.pictures) for row in rows), default=0)
    index_rows: list[Packed] = []
    for start in range(0, len(rows), ROWS_PER_TAR):
        name = f"{start // ROWS_PER_TAR:05d}-000.tar"
        with out.writing(name) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for row in rows[start : start + ROWS_PER_TAR]:
                offset, members = tar.offset, dict(_members(out, row, slots))
                for extension in sorted(members):
                    writer.add(tar, f"{row.clip_id}.{extension}", members[extension])
                index_rows.append(_index_row(row, name, offset, tar.offset - offset, sorted(members)))
    tars = {name for name in out.names() if writer.TAR.fullmatch(name)}
    for stale in tars - {row.shard for row in index_rows}:
        out.remove(stale)
    energon.write(out, index_rows)
    return [*sorted({row.shard for row in index_rows}), energon.FOLDER]


def _members(out: Folder, row: Exported, slots: int) -> Iterator[tuple[str, bytes]]:
    metadata = {
        "prompt": row.prompt,
        "roles": [each.role for each in row.pictures],
        "phrases": [each.phrase for each in row.pictures],
        "frames": row.frames,
        "fps": row.fps,
        "license": row.license,
    }
    yield "json", json.dumps(metadata, ensure_ascii=False, sort_keys=True).encode()
    yield "mp4", out.get(row.video) or b""
    for slot in range(slots):
        yield f"ref{slot}.png", (out.get(row.pictures[slot].path) or b"") if slot < len(row.pictures) else NO_PICTURE


def _index_row(row: Exported, name: str, offset: int, size: int, members: list[str]) -> Packed:
    roles = [each.role for each in row.pictures]
    location = (row.clip_id, name, "", offset, size, members)
    return Packed(*location, row.frames, row.height, row.width, row.fps, roles, row.license, 0.0)


def check(out: Folder) -> CheckResult:
    """Read every sample by its offsets, as Energon does, and compare the number of pictures with that of roles."""
    counts = json.loads(out.get(energon.FOLDER, ".info.json") or b"{}").get("shard_counts", {})
    rows, skipped = 0, []
    for name, count in sorted(counts.items()):
        offsets = energon.offsets(out, name)
        if len(offsets) != count + 1:
            skipped.append(SkippedRow(name, f"its index has {len(offsets) - 1} samples, .info.json says {count}"))
        data = out.get(name) or b""
        for start, end in pairwise(offsets):
            rows += 1
            with tarfile.open(fileobj=io.BytesIO(data[start:end])) as tar:
                sample = {each.name.partition(".")[2]: tar.extractfile(each).read() for each in tar}  # type: ignore[union-attr]
            pictures = [sample[f"ref{n}.png"] for n in range(len(sample) - 2)]
            if not sample["mp4"] or sum(each != NO_PICTURE for each in pictures) != len(
                json.loads(sample["json"])["roles"]
            ):
                skipped.append(SkippedRow(f"{name} byte {start}", "a video or a picture is missing"))
    return CheckResult(rows, skipped, [])
