"""Pictures of elements, for comparing a reference with the target it stands for, many pairs at a time."""

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from a2data.media import images
from a2data.records import ElementPicture, ElementStamp
from a2data.store.lookup import element_rows
from stages.retrieve import copies
from stages.retrieve.candidates import dense
from stages.retrieve.corpus import Blobs, Corpus, Footage, kind_code

# what is compared of an element's picture: its stamp, the number of pixels of its mask, its box in the frame, the frame's size,
# and its thumbnail
SHAPE = np.dtype(
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
        self.spooled = Blobs()
        self.rows = np.empty(0, np.int64)  # ascending; their pictures are in `known`, (n,) SHAPE
        self._hold(np.empty(0, SHAPE))

    def spool(self, rows: np.ndarray) -> None:
        """Read these pictures, whose clips are spooled; each shard is read once, because a row group is read as a whole.

        Raises ValueError if a picture no longer exists.
        """
        new = self.spooled.missing(rows)
        ids = dict(zip(new.tolist(), self.corpus.text("element_id", new), strict=True))
        kinds = self.corpus.kind[new].astype(np.int64)
        together = self.corpus.shards[new].astype(np.int64) * len(self.corpus.kinds) + kinds
        for code in np.unique(together).tolist():
            shard, kind = divmod(code, len(self.corpus.kinds))
            here = new[together == code].tolist()
            names = [ids[row] for row in here]
            found = element_rows(self.lookup, self.corpus.kinds[kind], shard, names, ElementStamp)
            # in tables of earlier versions the pictures alone
            bare = [name for name, one in found.items() if not one.stamp]
            drawn = element_rows(self.lookup, self.corpus.kinds[kind], shard, bare, ElementPicture) if bare else {}
            stamps = {name: images.stamp(images.from_png(one.image)) for name, one in drawn.items()}
            for row, name in zip(here, names, strict=True):
                if name not in found:
                    raise ValueError(
                        f"{name} is not in shard {shard}, although retrieve compared it: run retrieve again"
                    )
                self.spooled.put(row, self._shape(row, found[name], stamps.get(name) or found[name].stamp))

    def read(self, rows: np.ndarray) -> None:
        """Load these spooled pictures and drop all others."""
        self.rows = np.unique(rows)
        self._hold(np.frombuffer(b"".join(map(self.spooled.get, self.rows.tolist())), SHAPE))

    def _hold(self, known: np.ndarray) -> None:
        self.known, self.stamps = known, copies.Stamps.of(known["stamp"])
        area = known["height"].astype(np.float64) * known["width"]
        # of the square root of the fraction of the frame that it covers
        self.log2_side = np.log2(known["pixels"] / np.maximum(area, 1)) / 2

    def at(self, rows: np.ndarray) -> np.ndarray:
        """Return the indices of rows in `known`."""
        return np.searchsorted(self.rows, rows)

    def _shape(self, row: int, found: ElementStamp, stamp: bytes) -> bytes:
        """Return one SHAPE."""
        about = struct.pack("<4d2I", *found.box, *images.rle_size(found.mask))
        return stamp + about + self.footage.thumb(int(self.clips[row]), found.frame).tobytes()

    def compare(self, targets: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return the distances of pairs of rows, (p, 5): pixels, pose, scale, light and place of stages.retrieve.copies.Parts."""
        out = np.empty((len(targets), 5))
        order = np.argsort(self.corpus.kind[targets], kind="stable")
        targets, others, background = self.at(targets), self.at(others), kind_code(self.corpus, "background")
        for pairs in (order[part] for part in dense(targets[order], others[order])):
            (a, i), (b, j) = (np.unique(x[pairs], return_inverse=True) for x in (targets, others))
            pixels, pose, light = copies.compare_stamps(self.stamps.at(a), self.stamps.at(b))
            scale = np.abs(np.subtract.outer(self.log2_side[a], self.log2_side[b]))
            place = surroundings(self.known[a], self.known[b])
            place[self.corpus.kind[self.rows[a]] == background] = 0.0
            out[pairs] = np.round(np.stack([pixels, pose, scale, light, place], axis=2)[i, j], 5)
        return out


def surroundings(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the distance of the surroundings of all pairs, (n, m): root mean square outside both boxes, 0 to 1; 0 if none.

    a, b: (n,) and (m,) SHAPE.
    """
    free, other = (copies.outside(_fractions(shapes)).astype(np.float64) for shapes in (a, b))
    x, y = a["thumb"] * free, b["thumb"] * other
    count = free @ other.T
    total = x**2 @ other.T + free @ (y**2).T - 2 * (x @ y.T)  # sums of integers, exact
    return np.where(count > 0, np.sqrt(total / np.maximum(count, 1)) / 255, 0.0)


def _fractions(shapes: np.ndarray) -> np.ndarray:
    """Return the boxes in fractions of their frames, (n, 4)."""
    return shapes["box"] / np.stack([shapes[side] for side in ("width", "height") * 2], axis=1)
