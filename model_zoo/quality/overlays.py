"""Text and marks laid over a film: subtitles within a shot, logos and watermarks over many. Pure functions.

Subtitles are text whose gradient stays as it is while that around it changes, or that is where subtitles are. The gradient of a
mark is the same in every picture of a film, that of the film is not, so the median over pictures of different scenes keeps the
mark alone (Dekel et al. 2017, "On the effectiveness of visible watermarks"), a translucent one too. Pictures of one scene cannot
show it: there everything stays in place.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

MIN_PICTURES = 6  # of different scenes; among fewer, edges agree by chance
MAX_PICTURES = 24
DIFFERENT = 0.5  # distance of two thumbnails from which they show different scenes; 0 = the same, 1.4 = unrelated
FLAT = 4.0  # standard deviation, grey levels, below which a thumbnail is blank and shows nothing
MIN_GRADIENT = 6.0  # of the median, grey levels per pixel
MIN_AGREEMENT = 0.7  # length of the mean gradient over the mean length: 1 = the same in all pictures
GAP_PX = 9  # between letters of one mark
MIN_EDGE_PX, MIN_SIDE_PX = 40, 6  # pixels of edges of a mark, and its height and width; less is the edge of a thing
MAX_SHARED = 0.1  # fraction of the edges of two pictures that agree; beyond it they show one place
MIN_CORRELATION = 0.75  # of a picture's gradient with that of a mark that is searched, if the picture shows it
MIN_KNOWN_CORRELATION = 0.5  # the same for a mark that was found
MIN_SHOWING = 0.8  # fraction of the pictures that show a mark

HELD = 0.9  # cosine of the gradients of one place at two times, from which it shows the same
UPPER, LOWER = 0.2, 0.7  # fractions of the height outside which text is taken for a subtitle even if all is still


class Mark(NamedTuple):
    """A mark of a film."""

    gradient: np.ndarray  # (h, w, 2) float32, grey levels per pixel; zero outside the mark's edges
    area: np.ndarray  # (h, w) bool


def different(thumbnails: np.ndarray) -> list[int]:
    """Return the first thumbnails, (n, h, w) uint8, of which each differs from all before it, at most MAX_PICTURES."""
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    spread = flat.std(axis=1)
    looks = (flat - flat.mean(axis=1, keepdims=True)) / np.maximum(spread, FLAT)[:, None]
    chosen: list[int] = []
    for n in np.flatnonzero(spread >= FLAT).tolist():
        if all(np.sqrt(np.square(looks[n] - looks[k]).mean()) >= DIFFERENT for k in chosen):
            chosen.append(n)
        if len(chosen) == MAX_PICTURES:
            break
    return chosen


def gradient(grey: np.ndarray) -> np.ndarray:
    """Return the gradient of an (h, w) uint8 picture, (h, w, 2) float32, grey levels per pixel."""
    return np.dstack([cv2.Sobel(grey, cv2.CV_32F, *way, scale=1 / 8) for way in ((1, 0), (0, 1))])


def marks(gradients: Sequence[np.ndarray]) -> list[Mark]:
    """Return the marks in pictures by their gradients, (h, w, 2) each; none if they show fewer than MIN_PICTURES places."""
    chosen = places(gradients)
    if len(chosen) < MIN_PICTURES:
        return []
    stack = np.stack(chosen)
    length = np.linalg.norm(stack, axis=3).mean(axis=0)
    agreement = np.linalg.norm(stack.mean(axis=0), axis=2) / np.maximum(length, 1e-6)
    middle = np.median(stack, axis=0)
    edges = (np.linalg.norm(middle, axis=2) >= MIN_GRADIENT) & (agreement >= MIN_AGREEMENT)
    joined = cv2.morphologyEx(edges.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((GAP_PX, GAP_PX), np.uint8))
    count, parts = cv2.connectedComponents(joined)
    found = []
    for n in range(1, count):
        area = parts == n
        mine, sides = edges & area, cv2.boundingRect(area.astype(np.uint8))[2:]
        if mine.sum() < MIN_EDGE_PX or min(sides) < MIN_SIDE_PX:
            continue
        mark = Mark(np.where(mine[..., None], middle, 0).astype(np.float32), area)
        if np.mean([correlation(mark, each) >= MIN_CORRELATION for each in stack]) >= MIN_SHOWING:
            found.append(mark)
    return found


def places(gradients: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the first gradient, (h, w, 2), of each place: of those of which more than MAX_SHARED of the edges agree.

    What stands in a place, a wall behind different people, would pass for a mark if each picture of it counted.
    """
    chosen: list[tuple[np.ndarray, np.ndarray]] = []
    for picture in gradients:
        length = np.linalg.norm(picture, axis=2)
        for other, other_length in chosen:
            both = np.minimum(length, other_length) >= MIN_GRADIENT
            either = np.maximum(length, other_length) >= MIN_GRADIENT
            cosine = (picture[both] * other[both]).sum(axis=1) / (length[both] * other_length[both])
            if np.count_nonzero(cosine >= HELD) > MAX_SHARED * np.count_nonzero(either):
                break
        else:
            chosen.append((picture, length))
    return [picture for picture, _ in chosen]


def correlation(mark: Mark, picture: np.ndarray) -> float:
    """Return the cosine of a picture's gradient, (h, w, 2), and the mark's, where the mark has edges; -1 to 1."""
    mine = mark.gradient.any(axis=2)
    return _cosine(mark.gradient[mine], picture[mine])


def burnt_in(text: np.ndarray, grey: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
    """Return the pixels of text that is laid over a picture, (h, w) bool.

    text: (h, w) bool, the text in `grey`, (h, w) uint8; others: pictures of the shot some time before and after. Of what a camera
    sees, text in a still scene stays too, so there only text near the upper or lower edge counts.
    """
    out = np.zeros(text.shape, bool)
    now, then = gradient(grey), [gradient(other) for other in others]
    count, parts = cv2.connectedComponents(text.astype(np.uint8))
    for n in range(1, count):
        area = parts == n
        _, y, _, height = cv2.boundingRect(area.astype(np.uint8))
        around = cv2.dilate(area.astype(np.uint8), np.ones((2 * height + 1,) * 2, np.uint8)).astype(bool) & ~text
        at_edge = not UPPER < (y + height / 2) / len(text) < LOWER
        if any(
            _cosine(now[area], t[area]) >= HELD and (at_edge or _cosine(now[around], t[around]) < HELD) for t in then
        ):
            out |= area
    return out


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a.ravel() @ b.ravel() / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-6))
