"""Film strips for pages: a few frames of a video side by side in one small image."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from a2data.media import contact_sheet, images
from a2data.store.filename import safe_name
from a2data.store.tables import Store
from pipelines.bench.a2.records import Sampled

FOLDER = "strips"
HEIGHT_PX, GAP_PX = 96, 2
STILLS = 4


def write(store: Store, shard_of: Mapping[str, int], out: Path) -> None:
    """Write <out>/strips/<case>.jpg for each video in the table "sample". shard_of: case -> shard."""
    (out / FOLDER).mkdir(parents=True, exist_ok=True)
    existing = set(store.shards("sample"))
    for case, shard in shard_of.items():
        path = out / FOLDER / safe_name(f"{case}.jpg", "id of a case")
        path.unlink(missing_ok=True)
        for row in store.read("sample", shard, Sampled) if shard in existing else ():
            path.write_bytes(images.to_jpeg(strip(contact_sheet.stills(row.frames, STILLS))))


def strip(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Return images, (h, w, 3) uint8 RGB of any sizes, side by side at the same height."""
    return contact_sheet.strip(pictures, HEIGHT_PX, GAP_PX)
