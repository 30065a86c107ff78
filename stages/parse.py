"""Human parts as elements of their own: hair and garments, named by colour."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from a2data.elements.tracks import box_at
from a2data.media import colours
from a2data.media.images import (
    Box,
    bounds,
    clamp,
    crop,
    cut_out,
    from_png,
    from_rle,
    on_white,
    sha16,
    stamp,
    to_png,
    to_rle,
)
from a2data.records import ClipVideo, Element, Kept, Reject
from a2data.stage import Stage
from model_zoo import cards

WORDS = {"hair": "hair", "upper": "upper clothes", "lower": "lower clothes", "shoes": "shoes", "accessory": "accessory"}


@dataclass(frozen=True)
class Parse(Stage):
    """People and their faces -> hair, upper and lower garments, shoes and accessories, cut out of the person's best frame."""

    reads = {"select": Kept, "segment": ClipVideo, "detect": Element, "faces": Element}
    writes = Element
    row_noun = "parts"
    per = "clip"
    version = 6

    model: str = "builtin-parse"
    """card of role parse"""
    embedder: str = "mobilenetv2"
    """card of role embed"""
    margin: float = 0.05
    """margin around the person's box shown to the model, fraction of its size"""
    reach: int = 5
    """frames over which a head is assumed not to move, see a2data.elements.tracks.box_at"""
    min_part_px: int = 200
    """smallest part, pixels"""
    min_part_share: float = 0.005
    """smallest part, fraction of the person's pixels"""
    min_solid: float = 0.7
    """least fraction of a part that survives an opening, 0 to 1"""
    min_filled: float = 0.9
    """least ratio of a part's pixels to those within its outlines, 0 to 1"""
    min_garment_filled: float = 0.8
    """the same for upper and lower garments, where a hand in front leaves a hole"""
    min_hull: float = 0.7
    """least ratio of a garment's pixels to its convex hull, 0 to 1"""
    min_hair_span: float = 0.6
    """least width of hair, fraction of the head's width, 0 to 1"""

    @property
    def gpus(self) -> float:  # type: ignore[override]
        return cards.gpus(self.model)

    def models(self) -> dict[str, str]:
        return {name: cards.revision(name) for name in (self.model, self.embedder)}

    def load(self) -> Any:
        return cards.load(self.model, cards.device()), cards.load(self.embedder, cards.device())

    def run(
        self, model: Any, kept: list[Kept], films: list[ClipVideo], elements: list[Element], faces: list[Element]
    ) -> Iterator[Element | Reject]:
        parse, embed = model
        (film,) = films
        parts: list[Element] = []
        for number, person in enumerate(e for e in elements if e.kind == "human"):
            for kind, mask in self.parts(parse, film, person, faces):
                key = f"{film.clip_id}/{kind}/{number}"
                if size_problem := self.too_small(mask, person):
                    yield Reject(key, "part too small", size_problem)
                elif shape_problem := self.reject_reason(kind, mask, self.head(person, faces)):
                    yield Reject(key, "part misshapen", shape_problem)
                else:
                    parts.append(self.element(key, kind, film, person, mask))
        yield from with_embeddings(parts, embed)

    def parts(
        self, parse: Any, film: ClipVideo, person: Element, faces: list[Element]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the parts in WORDS that the model finds on a person, as (h, w) bool masks of the frame, in the order of WORDS."""
        frame, mask = film.frames[person.frame], from_rle(person.mask)
        x0, y0, x1, y1 = clamp(person.box, mask.shape[0], mask.shape[1], self.margin)
        head = self.head(person, faces)
        if head is not None:
            head = (head[0] - x0, head[1] - y0, head[2] - x0, head[3] - y0)
        part_masks = parse(frame[y0:y1, x0:x1], mask[y0:y1, x0:x1], head)
        for kind in WORDS:
            if kind in part_masks:
                frame_mask = np.zeros_like(mask)
                frame_mask[y0:y1, x0:x1] = part_masks[kind]
                yield kind, frame_mask & mask

    def head(self, person: Element, faces: list[Element]) -> Box | None:
        """Return the box of a person's head in their best frame; None if no face of theirs was seen near it."""
        boxes = [box_at(f, person.frame, self.reach) for f in faces if f.parent_id == person.element_id]
        return next((box for box in boxes if box is not None), None)

    def too_small(self, mask: np.ndarray, person: Element) -> str:
        """Return the size limit that a part fails, as text; "" if it is large enough."""
        part_px, person_px = int(mask.sum()), int(from_rle(person.mask).sum())
        if part_px < self.min_part_px:
            return f"{part_px} pixels, wanted {self.min_part_px}"
        if part_px < self.min_part_share * person_px:
            return f"{part_px / person_px:.2%} of the person, wanted {self.min_part_share:.2%}"
        return ""

    def reject_reason(self, kind: str, mask: np.ndarray, head: Box | None) -> str:
        """Return the reason to reject a part's mask, or ""."""
        garment = kind in ("upper", "lower")
        min_fill = self.min_garment_filled if garment else self.min_filled
        limits = [("solid", opening_ratio(mask), self.min_solid), ("filled", fill_ratio(mask), min_fill)]
        if garment:
            limits.append(("share of its hull", hull_ratio(mask), self.min_hull))
        if kind == "hair" and head is not None:
            x0, _, x1, _ = bounds(mask)
            limits.append(("span of the head", (x1 - x0) / (head[2] - head[0]), self.min_hair_span))
        return ", ".join(f"{name} = {value:.2f}, wanted {low}" for name, value, low in limits if value < low)

    def element(self, key: str, kind: str, film: ClipVideo, person: Element, mask: np.ndarray) -> Element:
        """Return the row of one part, without its embedding."""
        frame = film.frames[person.frame]
        box = bounds(mask)
        cut = cut_out(frame, mask, box)
        image = to_png(cut)
        colour = hair_colour(frame[mask]) if kind == "hair" else colours.name_in(frame, mask)
        return Element(
            clip_id=film.clip_id,
            element_id=key,
            kind=kind,
            label=f"{colour} {WORDS[kind]}".strip(),
            parent_id=person.element_id,
            frame=person.frame,
            box=box,
            confidence=person.confidence,
            mask=to_rle(mask),
            image=image,
            image_sha256=sha16(image),
            embedding=[],
            embedder=self.embedder,
            quality=person.quality * min(1.0, float(np.sqrt(mask.sum())) / 128),
            seen_frames=[person.frame],
            seen_boxes=[box],
            attributes=[f"colour={colour}"] if colour else [],
            mask_confidence=person.mask_confidence,
            stamp=stamp(cut),
        )


def opening_ratio(mask: np.ndarray) -> float:
    """Return the fraction of a mask that survives an opening by a disk an eighth as wide as the square root of its area.

    It is low for ragged masks, slivers and rims.
    """
    radius = max(1, round(float(np.sqrt(mask.sum())) / 8))
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
    # without padding, OpenCV would continue the mask beyond the border
    inside = np.pad(crop(mask, bounds(mask)).astype(np.uint8), radius + 1)
    opened = cv2.morphologyEx(inside, cv2.MORPH_OPEN, disk)
    return float(opened.sum() / mask.sum())


def fill_ratio(mask: np.ndarray) -> float:
    """Return a mask's pixels as a fraction of the area within its outer outlines."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros(mask.shape, np.uint8), outlines, -1, 1, cv2.FILLED)
    return float(mask.sum() / filled.sum())


def hull_ratio(mask: np.ndarray) -> float:
    """Return a mask's pixels as a fraction of its convex hull."""
    points = np.argwhere(mask)[:, ::-1].astype(np.int32)
    hull = cv2.fillConvexPoly(np.zeros(mask.shape, np.uint8), cv2.convexHull(points), 1)
    return float(mask.sum() / hull.sum())


def hair_colour(pixels: np.ndarray) -> str:
    """Return the colour of hair, (n, 3) uint8 RGB: its name if it has one, else "dark", "fair", or "" in between.

    In bluish light, brown and blond are both grey; only their lightness (CIE L*) differs.
    """
    name = colours.name(pixels)
    if name not in ("grey", "black", "white"):
        return name
    lightness = np.median(cv2.cvtColor(pixels[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[..., 0])
    return "dark" if lightness < 43 else "fair" if lightness > 58 else ""


def with_embeddings(parts: list[Element], embed: Any) -> list[Element]:
    """Return the parts with their embeddings, computed in one call."""
    if not parts:
        return []
    cuts = [from_png(p.image) for p in parts]
    vectors = embed([on_white(c) for c in cuts], [c[..., 3] > 0 for c in cuts])
    return [replace(p, embedding=v.tolist()) for p, v in zip(parts, vectors, strict=True)]
