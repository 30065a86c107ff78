"""Film strips for pages: a few frames of a video side by side in one small image."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from a2data.store.filename import safe_name
from a2data.store.tables import Store
from pipelines.bench.a2.records import Sampled

FOLDER = "strips"
HEIGHT_PX, GAP_PX = 96, 2
STILLS = 4


def write(store: Store, home: Mapping[str, int], out: Path) -> None:
    """Write <out>/strips/<case>.jpg for each video in the table "sample". home: case -> shard."""
    (out / FOLDER).mkdir(parents=True, exist_ok=True)
    there = set(store.shards("sample"))
    for case, shard in home.items():
        path = out / FOLDER / safe_name(f"{case}.jpg", "id of a case")
        path.unlink(missing_ok=True)
        for row in store.read("sample", shard, Sampled) if shard in there else ():
            frames = row.frames
            picked = [frames[round(n)] for n in np.linspace(0, len(frames) - 1, min(STILLS, len(frames)))]
            path.write_bytes(jpeg(strip(picked)))


def strip(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Return images, (h, w, 3) uint8 RGB of any sizes, side by side at the same height."""
    tiles = [
        Image.fromarray(p).resize((max(1, round(HEIGHT_PX * p.shape[1] / p.shape[0])), HEIGHT_PX)) for p in pictures
    ]
    paper = Image.new("RGB", (sum(t.width + GAP_PX for t in tiles) - GAP_PX, HEIGHT_PX), "white")
    x = 0
    for tile in tiles:
        paper.paste(tile, (x, 0))
        x += tile.width + GAP_PX
    return np.asarray(paper)


def jpeg(picture: np.ndarray) -> bytes:
    target = io.BytesIO()
    Image.fromarray(picture).save(target, "JPEG", quality=82)
    return target.getvalue()


def data_url(data: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()
