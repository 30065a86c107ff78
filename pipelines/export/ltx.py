"""LTX-2's own trainer: JSON for `process_dataset.py`. It reads no pictures as references.

Source: Lightricks/LTX-2 packages/ltx-trainer/docs/dataset-preparation.md and scripts/process_videos.py (MediaDataset).
"""

import math
from collections.abc import Sequence

from a2data.store.folder import Folder
from pipelines.export.probe import probe, read_json, to_json
from pipelines.export.target import CheckResult, Exported, SkippedRow

Bucket = tuple[int, int, int]  # frames, height, width


def write(out: Folder, rows: Sequence[Exported]) -> list[str]:
    """Write the rows, and the buckets for --resolution-buckets, one for each size and frame count."""
    out.put(to_json([{"caption": row.prompt, "video": row.video} for row in rows]), "dataset.json")
    buckets = sorted({(row.width, row.height, row.count) for row in rows})
    out.put((";".join(f"{w}x{h}x{n}" for w, h, n in buckets) + "\n").encode(), "buckets.txt")
    return ["buckets.txt", "dataset.json"]


def check(out: Folder) -> CheckResult:
    """Run the trainer's choice of a bucket over every row."""
    text = (out.get("buckets.txt") or b"").decode().strip()
    buckets = []
    for each in text.split(";"):
        width, height, frames = map(int, each.split("x"))
        buckets.append((frames, height, width))
    rows, skipped = read_json(out, "dataset.json"), []
    for number, row in enumerate(rows, 1):
        try:
            media = probe(out, row["video"])
            bucket = nearest_bucket(buckets, (media.frames, media.height, media.width))
            if bucket[1:] != (media.height, media.width):
                raise ValueError(f"{media.width} x {media.height} px would be scaled to {bucket[2]} x {bucket[1]}")
        except ValueError as error:
            skipped.append(SkippedRow(f"dataset.json row {number}", str(error)))
    skipped += [
        SkippedRow("buckets.txt", f"{b} breaks frames % 8 == 1 or sides % 32 == 0") for b in buckets if _is_invalid(b)
    ]
    notes = [f'ltx-trainer: --resolution-buckets "{text}", and batch_size 1 if there is more than one']
    return CheckResult(len(rows), skipped, notes)


def _is_invalid(bucket: Bucket) -> bool:
    return bucket[0] % 8 != 1 or bool(bucket[1] % 32 or bucket[2] % 32)


def nearest_bucket(buckets: Sequence[Bucket], media: Bucket) -> Bucket:
    """Return the bucket that the trainer chooses: nearest aspect, then most frames, then largest.

    Raises ValueError if the video has fewer frames than every bucket, for which the trainer skips it.
    """
    frames, height, width = media
    fitting = [bucket for bucket in buckets if bucket[0] <= frames]
    if not fitting:
        raise ValueError(f"{frames} frames are fewer than in every bucket")
    aspect = math.log(width / height)
    return min(fitting, key=lambda b: (abs(aspect - math.log(b[2] / b[1])), -b[0], -b[1] * b[2]))
