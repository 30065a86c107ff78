"""Background without people: a temporal-median plate if the camera is static, else the largest empty rectangle.

With a card of the role inpaint, a small enough hole is filled instead, and the whole picture is kept.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np

from a2data.elements.tracks import box_at
from a2data.media.images import Box, crop, cut_out, from_rle, sha16, stamp, to_png, to_rle
from a2data.records import ClipVideo, Element, Kept, Reject
from a2data.stage import Stage
from model_zoo import cards

AGREES = 12  # grey levels by which a pixel may differ from the plate and still agree, in the worst channel
STRIP_PX = 1 << 16  # pixels whose median is computed at once: bounds the memory

Fill = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Plate(NamedTuple):
    """A picture of the background at frame size, and the part of it that is usable."""

    # "plate": median of a static camera; "crop": one frame, beside the foreground; "frame": one without foreground. Suffix
    # "+inpaint": all foreground filled, which turns a crop into a frame.
    method: str
    frame: int  # the frame with most background
    picture: np.ndarray  # (h, w, 3) uint8
    clear: np.ndarray  # (h, w) bool: background pixels
    box: Box  # largest rectangle of background pixels
    purity: float  # see `purity`
    agreement: np.ndarray  # (h, w) float32: see `median_plate`; ones for a moving camera, which shows nothing twice


@dataclass(frozen=True)
class Background(Stage):
    """Clips and their elements -> one background picture each, without any detected element."""

    reads = {"select": Kept, "segment": ClipVideo, "detect": Element}
    writes = Element
    row_noun = "backgrounds"
    per = "clip"
    accounts_for = "clip_id"
    version = 4

    embedder: str = "mobilenetv2"
    """card of role embed"""
    frame_stride: int = 3
    """every n-th frame is sampled"""
    min_static: float = 0.9
    """fraction of background samples close to the median for a static camera"""
    min_samples: int = 3
    """frames in which a pixel of the plate must be visible, at most all sampled ones"""
    dilate: float = 0.02
    """margin around a box or mask, fraction of the frame's longer side"""
    min_area: float = 0.2
    """smallest rectangle, fraction of the frame"""
    max_aspect: float = 2.2
    """longer over shorter side of the rectangle"""
    min_purity: float = 0.9
    """least fraction of the rectangle's pixels that show the same thing whenever visible"""
    inpaint: str = ""
    """card of role inpaint, which fills the foreground; "" = it is cropped away"""
    max_inpaint: float = 0.25
    """largest fraction of the picture to fill; beyond it the picture is cropped"""

    @property
    def gpus(self) -> float:  # type: ignore[override]
        return max(cards.gpus(name) for name in self._cards())

    def models(self) -> dict[str, str]:
        return {name: cards.revision(name) for name in self._cards()}

    def load(self) -> tuple[Any, Fill | None]:
        device = cards.device()
        return cards.load(self.embedder, device), cards.load(self.inpaint, device) if self.inpaint else None

    def _cards(self) -> list[str]:
        return [self.embedder, self.inpaint] if self.inpaint else [self.embedder]

    def run(
        self, model: tuple[Any, Fill | None], kept: list[Kept], films: list[ClipVideo], elements: list[Element]
    ) -> Iterator[Element | Reject]:
        embed, fill = model
        (film,) = films
        key = f"{film.clip_id}/background"
        sampled = list(range(0, len(film.frames), self.frame_stride))
        covered = np.stack(
            [foreground_mask(elements, number, film.frames.shape[1:3], self.frame_stride) for number in sampled]
        )
        covered = dilate_masks(covered, self.dilate)
        plate = find_plate(film.frames[sampled], covered, self.min_static, self.min_samples, self.max_aspect)
        coverage = float(plate.clear.mean())
        if fill is not None:
            plate = inpaint_plate(plate, fill, self.max_inpaint, self.max_aspect)
        x0, y0, x1, y1 = plate.box
        area = (x1 - x0) * (y1 - y0) / (film.width * film.height)
        if area < self.min_area:
            yield Reject(
                key, "no background", f"{area:.0%} of the frame free of foreground, wanted {self.min_area:.0%}"
            )
        elif plate.purity < self.min_purity:
            yield Reject(key, "impure background", f"purity {plate.purity:.2f}, wanted {self.min_purity:.2f}")
        else:
            yield self.element(f"{key}/0", film, plate._replace(frame=sampled[plate.frame]), coverage, area, embed)

    def element(self, key: str, film: ClipVideo, plate: Plate, coverage: float, area: float, embed: Any) -> Element:
        """Return the row of a background; coverage: fraction of its picture that is background and not filled."""
        cut = cut_out(plate.picture, plate.clear, plate.box)
        image = to_png(cut)
        (vector,) = embed([cut[..., :3]], [np.ones(cut.shape[:2], bool)])
        return Element(
            clip_id=film.clip_id,
            element_id=key,
            kind="background",
            label="background",
            parent_id="",
            frame=plate.frame,
            box=plate.box,
            confidence=plate.purity,
            mask=to_rle(plate.clear),
            image=image,
            image_sha256=sha16(image),
            embedding=vector.tolist(),
            embedder=self.embedder,
            quality=float(np.sqrt(area) * plate.purity),
            seen_frames=[plate.frame],
            seen_boxes=[plate.box],
            attributes=[
                f"coverage={coverage:.3f}",
                f"area={area:.3f}",
                f"purity={plate.purity:.3f}",
                f"method={plate.method}",
            ],
            stamp=stamp(cut),
        )


def foreground_mask(elements: list[Element], frame: int, shape: tuple[int, ...], extrapolate: int) -> np.ndarray:
    """Return the foreground of a frame, (h, w) bool: masks where known (best frames), boxes elsewhere."""
    covered = np.zeros(shape, bool)
    for element in elements:
        if element.frame == frame:
            covered |= from_rle(element.mask)
        elif box := box_at(element, frame, extrapolate):
            crop(covered, box)[:] = True
    return covered


def dilate_masks(covered: np.ndarray, fraction: float) -> np.ndarray:
    """Return masks, (t, h, w) bool, dilated by a fraction of the longer side: covers shadows, blurred edges and tight boxes."""
    reach = round(fraction * max(covered.shape[1:]))
    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (2 * reach + 1, 2 * reach + 1))
    return np.stack([cv2.dilate(c.astype(np.uint8), kernel) > 0 for c in covered])


def find_plate(
    frames: np.ndarray, covered: np.ndarray, min_static: float, min_samples: int, max_aspect: float
) -> Plate:
    """Return the best background picture from these frames.

    frames: (t, h, w, 3) uint8. covered: (t, h, w) bool, the foreground.
    """
    best = int(covered.reshape(len(covered), -1).sum(1).argmin())
    plate, agreement = median_plate(frames, covered)
    num_visible = (~covered).sum(0)
    static = float((agreement * num_visible).sum() / max(1, num_visible.sum())) >= min_static
    if static:  # even if one frame is free: the median also removes undetected passers-by
        method, picture, clear = "plate", plate, num_visible >= min(min_samples, len(frames))
    else:
        method, picture, clear = "crop" if covered[best].any() else "frame", frames[best], ~covered[best]
    x0, y0, x1, y1 = limit_aspect(largest_rectangle_on_grid(clear, max_aspect), max_aspect)
    agreement = agreement if static else np.ones_like(agreement)
    plate_purity = purity(agreement[y0:y1, x0:x1])
    return Plate(method, best, picture, clear, (float(x0), float(y0), float(x1), float(y1)), plate_purity, agreement)


def inpaint_plate(plate: Plate, fill: Fill, max_fraction: float, max_aspect: float) -> Plate:
    """Return the whole picture with the foreground filled; unchanged if nothing, or more than max_fraction, must be filled.

    Its purity is that of the visible pixels, over the whole picture.
    """
    if plate.clear.all() or 1 - plate.clear.mean() > max_fraction:
        return plate
    height, width = plate.clear.shape
    x0, y0, x1, y1 = limit_aspect((0, 0, width, height), max_aspect)
    visible = plate.clear[y0:y1, x0:x1]
    return plate._replace(
        method=f"{plate.method.replace('crop', 'frame')}+inpaint",
        picture=fill(plate.picture, ~plate.clear),
        clear=np.ones_like(plate.clear),
        box=(float(x0), float(y0), float(x1), float(y1)),
        purity=purity(plate.agreement[y0:y1, x0:x1][visible]),
    )


def median_plate(frames: np.ndarray, covered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the per-channel median over time of the uncovered pixels, and how much of it agrees with that median.

    frames: (t, h, w, 3) uint8; covered: (t, h, w) bool. Returns the plate, (h, w, 3) uint8, the lower of two medians and 0 where
    nothing was ever visible; and the agreement, (h, w) float32: the fraction of a pixel's samples within AGREES of the plate.
    """
    count, height, width = covered.shape
    plate = np.zeros((height, width, 3), np.uint8)
    agreement = np.zeros((height, width), np.float32)
    rows = max(1, STRIP_PX // width)
    for top in range(0, height, rows):
        strip, hidden = frames[:, top : top + rows], covered[:, top : top + rows]
        seen = count - hidden.sum(0)
        ordered = np.sort(np.where(hidden[..., None], 256, strip.astype(np.int16)), axis=0)  # covered samples sort last
        middle = np.take_along_axis(ordered, (np.maximum(seen, 1) - 1)[None, ..., None] // 2, axis=0)[0]
        middle[seen == 0] = 0
        near = np.abs(strip.astype(np.int16) - middle) <= AGREES
        agrees = near[..., 0] & near[..., 1] & near[..., 2] & ~hidden  # nine times as fast as near.all(-1)
        plate[top : top + rows] = middle
        agreement[top : top + rows] = agrees.sum(0) / np.maximum(seen, 1)
    return plate, agreement


def purity(agreement: np.ndarray) -> float:
    """Return the fraction of pixels that show one thing most of the time they are visible, 0 to 1.

    The others were covered by undetected motion. An undetected foreground that never moves is not noticed.
    """
    return float((agreement > 0.5).mean()) if agreement.size else 0.0


def largest_rectangle_on_grid(free: np.ndarray, max_aspect: float, long_px: int = 240) -> tuple[int, int, int, int]:
    """Return `largest_rectangle` on a grid of at most `long_px` cells per side; a cell is free if all its pixels are."""
    cell = -(-max(free.shape) // long_px)
    height, width = (side // cell for side in free.shape)
    cells = np.asarray(free[: height * cell, : width * cell].reshape(height, cell, width, cell).all(axis=(1, 3)))
    x0, y0, x1, y1 = largest_rectangle(cells, max_aspect)
    return x0 * cell, y0 * cell, x1 * cell, y1 * cell


def largest_rectangle(free: np.ndarray, max_aspect: float = float("inf")) -> tuple[int, int, int, int]:
    """Return x0, y0, x1, y1 (exclusive) of the rectangle of True in an (h, w) bool array that is largest after `limit_aspect`.

    On a tie, the first by its last row, then by its right edge; zeros if nothing is True. O(h w): for each row the rectangles
    under the histogram of heights above it, with a stack (Vandevoorde 1998, "The Maximal Rectangle Problem", Dr. Dobb's Journal).
    A limit on the aspect does not change the algorithm, since what remains of a rectangle grows with its sides.
    """
    best, found = 0.0, (0, 0, 0, 0)
    heights = np.zeros(free.shape[1], np.int64)
    for y, row in enumerate(free):
        heights = np.where(row, heights + 1, 0)
        stack: list[tuple[int, int]] = []  # left edges and heights of open rectangles, ascending
        for x, height in enumerate([*heights.tolist(), 0]):
            left = x
            while stack and stack[-1][1] >= height:
                left, closed = stack.pop()
                width = x - left
                if closed * width <= best:
                    continue
                area = min(closed, max_aspect * width) * min(width, max_aspect * closed)
                if area > best:
                    best, found = area, (left, y + 1 - closed, x, y + 1)
            stack.append((left, height))
    return found


def limit_aspect(box: tuple[int, int, int, int], limit: float) -> tuple[int, int, int, int]:
    """Return the box with its longer side shortened about the centre to at most `limit` times the shorter one."""
    x0, y0, x1, y1 = box
    width, height = x1 - x0, y1 - y0
    spare_x, spare_y = max(0, width - int(limit * height)), max(0, height - int(limit * width))
    return x0 + spare_x // 2, y0 + spare_y // 2, x1 - (spare_x + 1) // 2, y1 - (spare_y + 1) // 2
