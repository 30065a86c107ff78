"""The pictures of elements, as far as they are compared with one another: a reference with what it stands for."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from a2data import copies, images
from a2data.corpus import Corpus, Footage
from a2data.lookup import element_row
from a2data.records import Reference, Trait

PICTURES = 4096


class Picture(NamedTuple):
    """What is compared of an element's picture."""

    stamp: copies.Stamp
    side: float  # root of the share of the frame that it covers
    box: np.ndarray  # as shares of the frame
    thumb: np.ndarray  # of the frame


class Shown:
    """The pictures of elements, read from the shards that they are in; the last PICTURES of them are kept, 20 KB each."""

    def __init__(self, corpus: Corpus, footage: Footage, lookup: Callable[..., dict[str, Any]]):
        self.corpus, self.footage, self.lookup = corpus, footage, lookup
        self.picture = lru_cache(PICTURES)(self._picture)

    def _picture(self, kind: str, element_id: str, shard: int) -> Picture:
        """Raises ValueError where it is gone."""
        found = element_row(self.lookup, kind, shard, element_id)
        if found is None:
            raise ValueError(f"{element_id} is not in shard {shard}, where it was compared: run retrieve again")
        rgba, (height, width) = images.from_png(found.image), images.rle_size(found.mask)
        side = float((rgba[..., 3] > 0).sum() / (height * width)) ** 0.5
        box = np.array(found.box) / (width, height, width, height)
        return Picture(copies.stamp(rgba), side, box, self.footage.pictures(found.clip_id)[found.frame])

    def parts(self, row: int, target: Trait, reference: Reference) -> copies.Parts:
        """How far a reference is from what it stands for."""
        mine = self.picture(target.kind, target.element_id, int(self.corpus.shards[row]))
        other = self.picture(target.kind, reference.source_element_id, reference.source_shard)
        scale = round(abs(float(np.log2(mine.side / other.side))), 5)
        place = copies.around(mine.thumb, mine.box, other.thumb, other.box) if target.kind != "background" else 0.0
        pixels, pose, light = copies.alike(mine.stamp, other.stamp)
        return copies.Parts(reference.frames_apart, pixels, pose, scale, light, place, reference.gap_s)

    def distance(self, a: Reference, b: Reference) -> float:
        """From the frame of one reference's picture to that of another's, see a2data.copies; at most 2."""
        one, other = (self.picture(r.kind, r.source_element_id, r.source_shard).thumb for r in (a, b))
        return min(2.0, copies.picture_distance(one, other[None]))
