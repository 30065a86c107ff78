"""Pictures of elements, for comparing a reference with the target it stands for."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from a2data.media import images
from a2data.records import Element, ElementMeta, Reference
from a2data.store.lookup import element_rows
from stages.retrieve import copies
from stages.retrieve.corpus import Corpus, Footage

Key = tuple[str, str, int]  # kind, element_id, shard


class Picture(NamedTuple):
    """What is compared of an element's picture."""

    stamp: copies.Stamp
    side: float  # square root of the fraction of the frame it covers
    box: np.ndarray  # fractions of the frame
    thumb: np.ndarray  # thumbnail of the frame


class Shown:
    """Pictures of elements read from their shards, 20 KB each; only the last requested set is kept."""

    def __init__(self, corpus: Corpus, footage: Footage, lookup: Callable[..., dict[str, Any]]):
        self.corpus, self.footage, self.lookup = corpus, footage, lookup
        self.known: dict[Key, Picture] = {}

    def read(self, wanted: Iterable[Key]) -> None:
        """Load these pictures and drop all others; each shard is read once, because a row group is read as a whole.

        Raises ValueError if a picture no longer exists.
        """
        keys = {*wanted}
        self.known = {key: picture for key, picture in self.known.items() if key in keys}
        together: dict[tuple[str, int], list[str]] = defaultdict(list)
        for kind, element_id, shard in sorted(keys - self.known.keys()):
            together[kind, shard].append(element_id)
        for (kind, shard), element_ids in together.items():
            found = element_rows(self.lookup, kind, shard, element_ids)
            for element_id in element_ids:
                if element_id not in found:
                    raise ValueError(
                        f"{element_id} is not in shard {shard}, although retrieve compared it: run retrieve again"
                    )
                self.known[kind, element_id, shard] = self._picture(found[element_id])

    def keys(self, row: int, target: ElementMeta, references: Iterable[Reference]) -> list[Key]:
        """Return the keys that `parts` and `distance` need for a target and these references."""
        kind = target.kind
        return [(kind, target.element_id, int(self.corpus.shards[row]))] + [
            (kind, r.source_element_id, r.source_shard) for r in references
        ]

    def picture(self, *key: Any) -> Picture:
        """Return a picture, loading it if necessary. Raises ValueError if it no longer exists."""
        if key not in self.known:
            self.read([*self.known, key])  # type: ignore[list-item]
        return self.known[key]  # type: ignore[index]

    def _picture(self, found: Element) -> Picture:
        rgba, (height, width) = images.from_png(found.image), images.rle_size(found.mask)
        side = float((rgba[..., 3] > 0).sum() / (height * width)) ** 0.5
        box = np.array(found.box) / (width, height, width, height)
        return Picture(copies.stamp(rgba), side, box, self.footage.pictures(found.clip_id)[found.frame])

    def parts(self, row: int, target: ElementMeta, reference: Reference) -> copies.Parts:
        """Return the distances between a reference and its target."""
        mine = self.picture(target.kind, target.element_id, int(self.corpus.shards[row]))
        other = self.picture(target.kind, reference.source_element_id, reference.source_shard)
        scale = round(abs(float(np.log2(mine.side / other.side))), 5)
        place = copies.around(mine.thumb, mine.box, other.thumb, other.box) if target.kind != "background" else 0.0
        pixels, pose, light = copies.compare_stamps(mine.stamp, other.stamp)
        return copies.Parts(reference.thumbnail_distance, pixels, pose, scale, light, place, reference.gap_s)

    def distance(self, a: Reference, b: Reference) -> float:
        """Return the distance of the frames of two references' pictures, see stages.retrieve.copies; at most 2."""
        one, other = (self.picture(r.kind, r.source_element_id, r.source_shard).thumb for r in (a, b))
        return min(2.0, copies.picture_distance(one, other[None]))
