"""Wipe detection, frame by frame: a boundary moves over the picture at an even pace and uncovers the next shot.

After "temporal slices" (Ngo, Pong and Chin 1999, "Detection of gradual transitions through temporal slice analysis", CVPR): if
pixels are sorted in the order in which a boundary reaches them, a wipe is a straight line of change in the plane of order and
time. Orders: from each side, from each corner, from the middle outward and back.
"""

from typing import NamedTuple

import cv2
import numpy as np

SHORTEST, LONGEST = 6, 60  # frames of a wipe
BINS = 24  # bins of the pixel order
LAG = 2  # distance of compared frames: a slow boundary then moves more than camera shake
HOLD = 6  # frames to wait for a better fit
DELAY = LONGEST + LAG + HOLD + 2  # latest report of a wipe, in frames after its start
ON_LINE = 0.7  # fraction of all change that is on the line, above chance
COVERED = 0.85  # fraction of the picture's bins that change on the line
STRENGTH = 5.0  # mean change on the line, 0 to 255
AT_ONCE = 0.35  # fraction of the change in one frame; a cut has half of it
SAME = 0.7  # correlation above which two pictures show the same scene, passed by an object


class Wipe(NamedTuple):
    start: int  # first frame with something of the new picture
    end: int  # first frame without the old picture


class _Lines(NamedTuple):
    """Search lines for pictures of one size."""

    # (o, h * w) float: when the boundary reaches each pixel, 0 to 1; each order is followed by its reverse
    orders: np.ndarray
    bins: np.ndarray  # (b, h * w) float32: membership of pixels in the bins of the forward orders
    areas: np.ndarray  # (o, BINS): fraction of the picture in a bin
    lengths: np.ndarray  # (l,)
    # (o, l, BINS): positions on each line, in a flat history that ends with the first frame after the wipe
    cells: np.ndarray


def _lines(height: int, width: int) -> _Lines:
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    radius = np.hypot((x - 0.5) * width, (y - 0.5) * height) / np.hypot(width / 2, height / 2)
    forward = [order.ravel() for order in (x, y, radius, (x + y) / 2, (1 - x + y) / 2)]
    bins = np.zeros((len(forward) * BINS, height * width), np.float32)
    for number, order in enumerate(forward):
        bins[number * BINS + np.minimum((order * BINS).astype(int), BINS - 1), np.arange(order.size)] = 1
    lengths = np.arange(SHORTEST, LONGEST + 1)
    steps = np.floor((np.arange(BINS) + 0.5) / BINS * (lengths[:, None] + 1)).astype(int)  # frames after the start
    rows = LONGEST + steps - lengths[:, None]  # row in a history in which the wipe's end is row LONGEST
    columns = np.arange(BINS)
    index, areas, orders = [], [], []
    for number, order in enumerate(forward):
        area = bins[number * BINS : (number + 1) * BINS].mean(axis=1)
        for line, share, when in ((columns, area, order), (columns[::-1], area[::-1], 1 - order)):
            index.append(rows * len(bins) + number * BINS + line)
            areas.append(share)
            orders.append(when)
    return _Lines(np.stack(orders), bins, np.stack(areas), lengths, np.stack(index))


class WipeDetector:
    """Streaming detector: takes every frame in turn, returns a wipe once it is certain. Keeps some 70 small frames."""

    def __init__(self, height: int, width: int) -> None:
        self.lines = _lines(height, width)
        self.count = 0
        self.frames: list[np.ndarray] = []  # the last ones
        self.steps: list[np.ndarray] = []  # (h * w,) float32: mean change of each pixel from the frame before
        # change in each bin, the newest last
        self.history = np.zeros((LONGEST + LAG + 3, len(self.lines.bins)), np.float32)
        self.best: tuple[float, int, int, int] = (0.0, 0, 0, 0)  # score, end, length, order

    def add(self, frame: np.ndarray) -> list[Wipe]:
        """frame: (h, w, 3) uint8 RGB."""
        self.frames.append(frame)
        step = cv2.absdiff(frame, self.frames[-2 if self.count else -1])
        self.steps.append(step.reshape(-1, 3).astype(np.float32) @ np.full(3, 1 / 3, np.float32))
        self.count += 1
        self.history = np.roll(self.history, -1, axis=0)
        self.history[-1] = self.lines.bins @ change(self.frames[-1 - LAG], frame) if self.count > LAG else 0
        del self.frames[: -DELAY - 4], self.steps[: -DELAY - 4]
        self._look()
        return self._sure(self.count - self.best[1] > HOLD)

    def finish(self) -> list[Wipe]:
        return self._sure(True)

    def _look(self) -> None:
        """Test whether a wipe ends LAG + 1 frames before the newest one: that is row LONGEST of the lines from row 1 on."""
        recent = self.history[1:]
        total = np.cumsum(recent[:, :BINS].sum(axis=1)[::-1])[::-1] / self.steps[-1].size / LAG
        if total[0] < STRENGTH:
            return
        # a pixel's change shows in LAG frames, and may be one off
        thick = recent[: LONGEST + 1].copy()
        for later in range(1, LAG + 1):
            thick += recent[later : LONGEST + 1 + later]
        thick[1:] += recent[:LONGEST]
        lines = self.lines
        on_line = thick.ravel()[lines.cells].sum(axis=2) / self.steps[-1].size / LAG  # (o, l)
        around = total[np.maximum(LONGEST - lines.lengths - 1, 0)]
        chance = (LAG + 2) / (lines.lengths + LAG + 2)
        share = (on_line / (around + 1) - chance) / (1 - chance)
        order, place = np.unravel_index(int(np.argmax(share)), share.shape)
        length, end = int(lines.lengths[place]), self.count - 1 - LAG
        if share[order, place] < max(ON_LINE, self.best[0]) or on_line[order, place] < STRENGTH or end - length < 1:
            return
        on = thick.ravel()[lines.cells[order, place]] / self.steps[-1].size / LAG
        covered = (on > 0.25 * lines.areas[order] * on.sum()).mean()
        at_once = recent[LONGEST - length - 1 :, :BINS].sum(axis=1).max() / self.steps[-1].size / LAG / around[place]
        if covered >= COVERED and at_once <= AT_ONCE and not self._same(end - length - 1, end):
            self.best = (float(share[order, place]), end, length, int(order))

    def _sure(self, late: bool) -> list[Wipe]:
        """Return the best fit once a better one cannot follow."""
        if not self.best[0] or not late:
            return []
        _, end, length, order = self.best
        self.best = (0.0, 0, 0, 0)
        return [self._exact(end, length, self.lines.orders[order])]

    def _exact(self, end: int, length: int, order: np.ndarray) -> Wipe:
        """Return the ends near those found for which most of each pixel's change is in the frame when the boundary reaches it."""
        oldest, pixels = self.count - len(self.steps), np.arange(order.size)
        steps = np.stack(self.steps)
        found = []
        for start in range(max(end - length - 3, oldest, 1), end - length + 4):
            for stop in range(end - 3, min(end + 4, self.count)):
                when = start - oldest + np.floor(order * (stop - start + 1)).astype(int)
                found.append((float(steps[when, pixels].sum()), start, stop))
        _, start, stop = max(found)
        return Wipe(start, stop)

    def _same(self, a: int, b: int) -> bool:
        oldest = self.count - len(self.frames)
        first, last = (self.frames[n - oldest].astype(np.float64).ravel() for n in (a, b))
        return bool(np.corrcoef(first, last)[0, 1] > SAME) if first.std() and last.std() else False


def change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return each pixel's distance from all pixels within one pixel of it before, (h * w,) float32, minus their median."""
    near = np.ones((3, 3), np.uint8)
    lighter, darker = cv2.subtract(after, cv2.dilate(before, near)), cv2.subtract(cv2.erode(before, near), after)
    far = np.maximum(lighter, darker)
    largest = np.maximum(np.maximum(far[..., 0], far[..., 1]), far[..., 2]).ravel().astype(np.float32)
    half = largest.size // 2
    return np.maximum(largest - np.partition(largest, half)[half], 0)
