"""Pictures of elements, for comparing a reference with the target it stands for, many pairs at a time."""

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from a2data.media import images
from a2data.records import ElementPicture, ElementStamp
from a2data.store.lookup import element_rows
from stages.retrieve import copies
from stages.retrieve.candidates import dense_blocks
from stages.retrieve.corpus import Blobs, Corpus, Footage, kind_code

# The compared data of an element's picture: its stamp, the number of pixels of its mask, its box in the frame, the frame's size,
# and the frame's thumbnail.
PICTURE_DTYPE = np.dtype(
    [
        ("stamp", "u1", images.STAMP_PX**2),
        ("pixels", "<u4"),
        ("box", "<f8", 4),
        ("height", "<u4"),
        ("width", "<u4"),
        ("thumb", "u1", copies.HEIGHT * copies.WIDTH),
    ]
)


class Pictures:
    """Pictures of elements by row. What is compared of them is spooled to a temporary file, 3 KB each."""

    def __init__(self, corpus: Corpus, footage: Footage, clips: np.ndarray, lookup: Callable[..., dict[str, Any]]):
        """clips: (n,) the clip of each row."""
        self.corpus, self.footage, self.clips, self.lookup = corpus, footage, clips, lookup
        self.spool_file = Blobs()
        self.rows = np.empty(0, np.int64)  # ascending; their pictures are in `records`, (n,) PICTURE_DTYPE
        self._load(np.empty(0, PICTURE_DTYPE))

    def spool(self, rows: np.ndarray) -> None:
        """Read these pictures, whose clips are spooled; each shard is read once, because a row group is read as a whole.

        Raises ValueError if a picture no longer exists.
        """
        new = self.spool_file.missing(rows)
        ids = dict(zip(new.tolist(), self.corpus.text("element_id", new), strict=True))
        kinds = self.corpus.kind[new].astype(np.int64)
        shard_and_kind = self.corpus.shards[new].astype(np.int64) * len(self.corpus.kinds) + kinds
        for code in np.unique(shard_and_kind).tolist():
            shard, kind = divmod(code, len(self.corpus.kinds))
            of_shard = new[shard_and_kind == code].tolist()
            names = [ids[row] for row in of_shard]
            found = element_rows(self.lookup, self.corpus.kinds[kind], shard, names, ElementStamp)
            # tables of earlier versions have pictures only
            without_stamp = [name for name, element in found.items() if not element.stamp]
            pictures: dict[str, ElementPicture] = {}
            if without_stamp:
                pictures = element_rows(self.lookup, self.corpus.kinds[kind], shard, without_stamp, ElementPicture)
            stamps = {name: images.stamp(images.from_png(element.image)) for name, element in pictures.items()}
            for row, name in zip(of_shard, names, strict=True):
                if name not in found:
                    raise ValueError(
                        f"{name} is not in shard {shard}, although retrieve compared it: run retrieve again"
                    )
                self.spool_file.put(row, self._to_record(row, found[name], stamps.get(name) or found[name].stamp))

    def read(self, rows: np.ndarray) -> None:
        """Load these spooled pictures and drop all others."""
        self.rows = np.unique(rows)
        self._load(np.frombuffer(b"".join(map(self.spool_file.get, self.rows.tolist())), PICTURE_DTYPE))

    def _load(self, records: np.ndarray) -> None:
        self.records, self.stamps = records, copies.Stamps.of(records["stamp"])
        area = records["height"].astype(np.float64) * records["width"]
        # of the square root of the fraction of the frame that it covers
        self.log2_side = np.log2(records["pixels"] / np.maximum(area, 1)) / 2

    def index_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the indices of rows in `records`."""
        return np.searchsorted(self.rows, rows)

    def _to_record(self, row: int, element: ElementStamp, stamp: bytes) -> bytes:
        """Return the bytes of a PICTURE_DTYPE."""
        geometry = struct.pack("<4d2I", *element.box, *images.rle_size(element.mask))
        return stamp + geometry + self.footage.thumb(int(self.clips[row]), element.frame).tobytes()

    def compare(self, targets: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return the distances of pairs of rows, (p, 5): pixels, pose, scale, light and place of `copies.CopyDistances`."""
        distances = np.empty((len(targets), 5))
        order = np.argsort(self.corpus.kind[targets], kind="stable")
        targets, others = self.index_of(targets), self.index_of(others)
        background = kind_code(self.corpus, "background")
        for pairs in (order[part] for part in dense_blocks(targets[order], others[order])):
            (a, i), (b, j) = (np.unique(x[pairs], return_inverse=True) for x in (targets, others))
            pixels, pose, light = copies.compare_stamps(self.stamps.take(a), self.stamps.take(b))
            scale = np.abs(np.subtract.outer(self.log2_side[a], self.log2_side[b]))
            place = background_distances(self.records[a], self.records[b])
            place[self.corpus.kind[self.rows[a]] == background] = 0.0
            distances[pairs] = np.round(np.stack([pixels, pose, scale, light, place], axis=2)[i, j], 5)
        return distances


def background_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the distance of the backgrounds of all pairs, (n, m): root mean square outside both boxes, 0 to 1; 0 if none.

    a, b: (n,) and (m,) PICTURE_DTYPE.
    """
    background_a, background_b = (copies.outside(_fractions(shapes)).astype(np.float64) for shapes in (a, b))
    x, y = a["thumb"] * background_a, b["thumb"] * background_b
    count = background_a @ background_b.T
    total = x**2 @ background_b.T + background_a @ (y**2).T - 2 * (x @ y.T)  # sums of integers, exact
    return np.where(count > 0, np.sqrt(total / np.maximum(count, 1)) / 255, 0.0)


def _fractions(shapes: np.ndarray) -> np.ndarray:
    """Return the boxes in fractions of their frames, (n, 4)."""
    return shapes["box"] / np.stack([shapes[side] for side in ("width", "height") * 2], axis=1)
