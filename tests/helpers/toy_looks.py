"""Elements without pictures, or with small ones, and what retrieve makes of them."""

import cv2
import numpy as np
import pyarrow as pa

from a2data.media import images
from a2data.records import ClipThumbs, Element, EmbeddedElement, Match, Reference
from a2data.store.schema import from_table, to_table
from stages.retrieve.stage import Retrieve

D = 32


def direction(*seed):
    x = np.random.default_rng(seed).normal(size=D)
    return x / np.linalg.norm(x)


def like(x, seed, noise=0.4):
    """A unit vector near x; two of the same x have a cosine of about 1 / (1 + noise ** 2)."""
    y = x + noise * direction(seed, 1)
    return (y / np.linalg.norm(y)).astype(np.float32)


def take(clip_id, video_id="", seed=None, start_s=0.0, thumbs=None):
    if thumbs is None:
        rng = np.random.default_rng([7, seed if seed is not None else int.from_bytes(clip_id.encode(), "big")])
        thumbs = rng.integers(0, 256, (12, 18, 24), dtype=np.uint8)
    return ClipThumbs(clip_id, video_id or clip_id, [start_s + n / 15 for n in range(len(thumbs))], thumbs.tobytes())


def look(clip_id, kind, number=0, vector=(), parent="", label="", embedder="dlib", frames=(0, 5, 10), **more):
    more = {"frame": 5, "quality": 0.5, "attributes": []} | more
    return EmbeddedElement(
        clip_id=clip_id,
        element_id=f"{clip_id}/{kind}/{number}",
        kind=kind,
        label=label or kind,
        parent_id=parent,
        image_sha256=f"sha of {clip_id}/{kind}/{number}",
        embedder=embedder,
        seen_frames=list(frames),
        embedding=vector,
        **more,
    )


def person(clip_id, face, number=0, **more):
    """A human and the face that belongs to it."""
    human = look(clip_id, "human", number, **more)
    return [human, look(clip_id, "face", number, face, human.element_id, **more)]


def table(record, rows, shard=0):
    out = to_table(record, rows)
    return out.append_column(pa.field("shard", pa.int32()), pa.array([shard] * len(rows), pa.int32()))


def picture(seed, height=24, width=24, seen=20):
    """A cut-out of its own, whose mask is an ellipse."""
    rgb = cv2.resize(np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8), (width, height))
    mask = cv2.ellipse(
        np.zeros((height, width), np.uint8), (width // 2, height // 2), (seen // 2, 11), 0, 0, 360, 1, -1
    )
    return images.cut_out(rgb, mask > 0, (0, 0, width, height))


def halved(rgba):
    """Its right half is behind something."""
    out = rgba.copy()
    out[:, 12:, 3] = 0
    return out


def pictured(elements, takes, pictures=None):
    """Their rows in any table, as a stage that borrows reads them; pictures: element_id -> RGBA."""
    pictures = pictures or {}

    def lookup(stage, shard, column, values, record=None):
        if stage == "segment":
            return {t.clip_id: t for t in takes if t.clip_id in values}
        return {e.element_id: element(e) for e in elements if e.element_id in values}

    def element(look):
        rgba = pictures.get(look.element_id, picture(list(look.element_id.encode())))
        mask = np.zeros((48, 64), bool)
        mask[4 : 4 + len(rgba), 8 : 8 + rgba.shape[1]] = rgba[..., 3] > 0
        known = {name: getattr(look, name) for name in EmbeddedElement.__dataclass_fields__}
        box = (8.0, 4.0, 8.0 + rgba.shape[1], 4.0 + len(rgba))
        seen = {"seen_boxes": [box], "box": box, "confidence": 1.0}
        return Element(**known | seen | {"mask": images.to_rle(mask), "image": images.to_png(rgba)})

    return lookup


def retrieve(elements, takes, order=None, pictures=None, **settings):
    """Every element of the given is asked for; settings default to thresholds that suit the vectors of these tests."""
    settings = {"min_face": 0.7, "min_object": 0.7, "min_part": 0.7, "min_background": 0.7} | settings
    matches = [Match(e.clip_id, e.element_id, "it", 0, 2, 1.0, 1.0) for e in elements]
    of = {"detect": ("human", "object"), "faces": ("face",), "background": ("background",)}
    kinds = [of["detect"], of["faces"], ("upper", "lower", "hair", "shoes", "accessory"), of["background"], ()]
    looks = [table(EmbeddedElement, [e for e in elements if e.kind in kind]) for kind in kinds]
    lookup = pictured(elements, takes, pictures)
    made = Retrieve(**settings).run(None, table(Match, matches), table(ClipThumbs, takes), *looks, lookup=lookup)
    rows = records(made)
    assert len({r.element_id if isinstance(r, Reference) else r.key for r in rows}) == len(elements)
    return {r.element_id if isinstance(r, Reference) else r.key: r for r in rows}


def records(made):
    """The rows and rejects of what the stage yields, rows in tables."""
    return [row for one in made for row in (from_table(Reference, one) if isinstance(one, pa.Table) else [one])]


ANNA, BERT = direction(1), direction(2)


def wearing(clip_id, face, garment, colour):
    human, seen = person(clip_id, face)
    return [
        human,
        seen,
        look(clip_id, "upper", vector=garment, parent=human.element_id, attributes=[f"colour={colour}"]),
    ]
