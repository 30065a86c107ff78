"""Pictures of elements, for comparing a reference with the target it stands for, many pairs at a time."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from a2data.media import images
from a2data.records import ElementPicture
from a2data.store.lookup import element_rows
from stages.retrieve import copies
from stages.retrieve.corpus import Blobs, Corpus, Footage, kind_code

TARGETS = 16  # targets whose pictures are compared with all of their candidates' in one matrix product
CLOSE = 1e-3  # a value so near to a rounding boundary, in units of the last digit, is computed again pair by pair


class Shape(NamedTuple):
    """What is compared of an element's picture."""

    stamp: copies.Stamp
    side: float  # square root of the fraction of the frame it covers
    box: np.ndarray  # fractions of the frame
    thumb: np.ndarray  # (18, 24) uint8, thumbnail of the frame

    def to_bytes(self) -> bytes:
        columns = (self.stamp.grey, self.stamp.inside, np.array([self.side, *self.box]), self.thumb)
        return b"".join(column.tobytes() for column in columns)

    @classmethod
    def of_bytes(cls, data: bytes) -> "Shape":
        square, pixels = copies.SIDE_PX**2, copies.HEIGHT * copies.WIDTH
        grey = np.frombuffer(data, np.float32, square).reshape(copies.SIDE_PX, -1)
        inside = np.frombuffer(data, bool, square, 4 * square).reshape(copies.SIDE_PX, -1)
        numbers = np.frombuffer(data[5 * square : 5 * square + 40], np.float64)
        thumb = np.frombuffer(data, np.uint8, pixels, 5 * square + 40).reshape(copies.HEIGHT, -1)
        return cls(copies.Stamp(grey, inside), float(numbers[0]), numbers[1:], thumb)


class Pictures:
    """Pictures of elements by row. What is compared of them is spooled to a temporary file, 12 KB each."""

    def __init__(self, corpus: Corpus, footage: Footage, clips: np.ndarray, lookup: Callable[..., dict[str, Any]]):
        """clips: (n,) the clip of each row."""
        self.corpus, self.footage, self.clips, self.lookup = corpus, footage, clips, lookup
        self.spooled = Blobs()
        self.known: dict[int, Shape] = {}

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
            found = element_rows(self.lookup, self.corpus.kinds[kind], shard, names, ElementPicture)
            for row, name in zip(here, names, strict=True):
                if name not in found:
                    raise ValueError(
                        f"{name} is not in shard {shard}, although retrieve compared it: run retrieve again"
                    )
                self.spooled.put(row, self._shape(row, found[name]).to_bytes())

    def read(self, rows: np.ndarray) -> None:
        """Load these spooled pictures and drop all others."""
        wanted = np.unique(rows).tolist()
        self.known = {
            row: self.known[row] if row in self.known else Shape.of_bytes(self.spooled.get(row)) for row in wanted
        }

    def _shape(self, row: int, found: ElementPicture) -> Shape:
        rgba, (height, width) = images.from_png(found.image), images.rle_size(found.mask)
        side = float((rgba[..., 3] > 0).sum() / (height * width)) ** 0.5
        box = np.array(found.box) / (width, height, width, height)
        thumb = self.footage.thumb(int(self.clips[row]), found.frame)
        return Shape(copies.stamp(rgba), side, box, thumb.reshape(copies.HEIGHT, copies.WIDTH))

    def compare(self, targets: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return the distances of pairs of rows, (p, 5): pixels, pose, scale, light and place of stages.retrieve.copies.Parts.

        targets: equal ones are adjacent.
        """
        out = np.empty((len(targets), 5))
        first = np.flatnonzero(np.r_[True, targets[1:] != targets[:-1]]) if len(targets) else np.empty(0, int)
        for start in range(0, len(first), TARGETS):
            begin = first[start]
            end = first[start + TARGETS] if start + TARGETS < len(first) else len(targets)
            out[begin:end] = self._compare(targets[begin:end], others[begin:end])
        return out

    def _compare(self, targets: np.ndarray, others: np.ndarray) -> np.ndarray:
        (rows, i), (columns, j) = (np.unique(x, return_inverse=True) for x in (targets, others))
        mine, theirs = ([self.known[row] for row in x.tolist()] for x in (rows, columns))
        pixels, pose = correlations([s.stamp for s in mine], [s.stamp for s in theirs], i, j)
        side, other_side = (np.array([s.side for s in x]) for x in (mine, theirs))
        scale = np.abs(np.log2(side[i] / other_side[j]))
        light, other_light = (np.array([copies.brightness(s.stamp) for s in x]) for x in (mine, theirs))
        place = surroundings(mine, theirs)[i, j]
        place[self.corpus.kind[targets] == kind_code(self.corpus, "background")] = 0.0
        out = np.round(np.stack([pixels, pose, scale, np.abs(light[i] - other_light[j]) / 255, place], 1), 5)
        unsure = np.abs(np.abs(pixels * 1e5 - np.rint(pixels * 1e5)) - 0.5) < CLOSE
        for n in np.flatnonzero(unsure).tolist():
            out[n, :2] = copies.compare_stamps(mine[i[n]].stamp, theirs[j[n]].stamp)[:2]
        return out


def correlations(
    mine: list[copies.Stamp], theirs: list[copies.Stamp], i: np.ndarray, j: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels and pose of stages.retrieve.copies.compare_stamps for pairs of stamps i, j, (p,) each, unrounded.

    The sums over the pixels that both masks show are matrix products over all pixels.
    """
    inside = np.stack([s.inside.ravel() for s in theirs]).astype(np.float64)
    grey = np.stack([s.grey.ravel() for s in theirs]).astype(np.float64)
    level = (grey * inside).sum(1) / np.maximum(inside.sum(1), 1)
    grey = (grey - level[:, None]) * inside  # small numbers, so that little is lost in the differences of sums
    moments = np.concatenate([inside, grey, grey**2]).T
    ways = []
    for flipped in (False, True):
        masks = np.stack([s.inside[:, ::-1].ravel() if flipped else s.inside.ravel() for s in mine]).astype(np.float64)
        own = np.stack([s.grey[:, ::-1].ravel() if flipped else s.grey.ravel() for s in mine]).astype(np.float64)
        own = (own - ((own * masks).sum(1) / np.maximum(masks.sum(1), 1))[:, None]) * masks
        count, y, yy = (part[i, j] for part in np.split(masks @ moments, 3, axis=1))
        x, xx, xy = (own @ inside.T)[i, j], (own**2 @ inside.T)[i, j], (own @ grey.T)[i, j]
        n = np.maximum(count, 1)
        var_x, var_y = (np.maximum(square / n - (total / n) ** 2, 0) for total, square in ((x, xx), (y, yy)))
        flat = (count < 3) | (np.minimum(var_x, var_y) < 1)
        correlation = np.where(flat, 0.0, (xy / n - x * y / n**2) / np.sqrt(np.where(flat, 1.0, var_x * var_y)))
        union = masks.sum(1)[i] + inside.sum(1)[j] - count
        ways.append((1 - correlation, 1 - count / union))
    (plain, pose), (mirrored, mirrored_pose) = ways
    better = (mirrored < plain) | ((mirrored == plain) & (mirrored_pose < pose))
    return np.where(better, mirrored, plain), np.where(better, mirrored_pose, pose)


def surroundings(mine: list[Shape], theirs: list[Shape]) -> np.ndarray:
    """Return the distance of the surroundings of all pairs, (n, m): root mean square outside both boxes, 0 to 1; 0 if none"""
    sides = []
    for shapes in (mine, theirs):
        free = np.stack([copies.outside(s.box).ravel() for s in shapes]).astype(np.float64)
        sides.append((free, np.stack([s.thumb.ravel() for s in shapes]) * free))
    (free, x), (other, y) = sides
    count = free @ other.T
    total = x**2 @ other.T + free @ (y**2).T - 2 * (x @ y.T)  # sums of integers, exact
    return np.where(count > 0, np.sqrt(total / np.maximum(count, 1)) / 255, 0.0)
