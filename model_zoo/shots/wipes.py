"""Wipe detection, frame by frame: a boundary moves over the picture at an even pace and uncovers the next shot.

After "temporal slices" (Ngo, Pong and Chin 1999, "Detection of gradual transitions through temporal slice analysis", CVPR): if
pixels are sorted in the order in which a boundary reaches them, a wipe is a straight line of change in the plane of order and
time. Orders: from each side, from each corner, from the middle outward and back.
"""

from typing import NamedTuple

import cv2
import numpy as np

MIN_FRAMES, MAX_FRAMES = 6, 60  # frames of a wipe
BINS = 24  # bins of the pixel order
FRAME_DISTANCE = 2  # distance of compared frames: a slow boundary then moves more than camera shake
MAX_WAIT = 6  # frames to wait for a better fit
DELAY = MAX_FRAMES + FRAME_DISTANCE + MAX_WAIT + 2  # latest report of a wipe, in frames after its start
MIN_LINE_FRACTION = 0.7  # fraction of all change that is on the line, above chance
MIN_COVERED = 0.85  # fraction of the picture's bins that change on the line
MIN_CHANGE = 5.0  # mean change on the line, 0 to 255
MAX_SINGLE_FRAME = 0.35  # fraction of the change in one frame; a cut has half of it
SAME_SCENE_CORRELATION = 0.7  # correlation above which two pictures show the same scene, passed by an object


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
    lengths = np.arange(MIN_FRAMES, MAX_FRAMES + 1)
    steps = np.floor((np.arange(BINS) + 0.5) / BINS * (lengths[:, None] + 1)).astype(int)  # frames after the start
    rows = MAX_FRAMES + steps - lengths[:, None]  # row in a history in which the wipe's end is row MAX_FRAMES
    columns = np.arange(BINS)
    index, areas, orders = [], [], []
    for number, order in enumerate(forward):
        area = bins[number * BINS : (number + 1) * BINS].mean(axis=1)
        for line, area_fractions, arrival in ((columns, area, order), (columns[::-1], area[::-1], 1 - order)):
            index.append(rows * len(bins) + number * BINS + line)
            areas.append(area_fractions)
            orders.append(arrival)
    return _Lines(np.stack(orders), bins, np.stack(areas), lengths, np.stack(index))


class WipeDetector:
    """Streaming detector: takes every frame in turn, returns a wipe once it is certain. Keeps some 70 small frames."""

    def __init__(self, height: int, width: int) -> None:
        self.lines = _lines(height, width)
        self.count = 0
        self.frames: list[np.ndarray] = []  # the last ones
        self.steps: list[np.ndarray] = []  # (h * w,) float32: mean change of each pixel from the frame before
        # change in each bin, the newest last
        self.history = np.zeros((MAX_FRAMES + FRAME_DISTANCE + 3, len(self.lines.bins)), np.float32)
        self.best: tuple[float, int, int, int] = (0.0, 0, 0, 0)  # score, end, length, order

    def add(self, frame: np.ndarray) -> list[Wipe]:
        """frame: (h, w, 3) uint8 RGB."""
        self.frames.append(frame)
        step = cv2.absdiff(frame, self.frames[-2 if self.count else -1])
        self.steps.append(step.reshape(-1, 3).astype(np.float32) @ np.full(3, 1 / 3, np.float32))
        self.count += 1
        self.history = np.roll(self.history, -1, axis=0)
        self.history[-1] = (
            self.lines.bins @ change(self.frames[-1 - FRAME_DISTANCE], frame) if self.count > FRAME_DISTANCE else 0
        )
        del self.frames[: -DELAY - 4], self.steps[: -DELAY - 4]
        self._test_end()
        return self._take_best(self.count - self.best[1] > MAX_WAIT)

    def finish(self) -> list[Wipe]:
        return self._take_best(True)

    def _test_end(self) -> None:
        """Test whether a wipe ends FRAME_DISTANCE + 1 frames before the newest one: row MAX_FRAMES of the lines from row 1 on."""
        recent = self.history[1:]
        total = np.cumsum(recent[:, :BINS].sum(axis=1)[::-1])[::-1] / self.steps[-1].size / FRAME_DISTANCE
        if total[0] < MIN_CHANGE:
            return
        # a pixel's change shows in FRAME_DISTANCE frames, and may be one off
        widened = recent[: MAX_FRAMES + 1].copy()
        for later in range(1, FRAME_DISTANCE + 1):
            widened += recent[later : MAX_FRAMES + 1 + later]
        widened[1:] += recent[:MAX_FRAMES]
        lines = self.lines
        on_line = widened.ravel()[lines.cells].sum(axis=2) / self.steps[-1].size / FRAME_DISTANCE  # (o, l)
        total_change = total[np.maximum(MAX_FRAMES - lines.lengths - 1, 0)]
        chance = (FRAME_DISTANCE + 2) / (lines.lengths + FRAME_DISTANCE + 2)
        line_fraction = (on_line / (total_change + 1) - chance) / (1 - chance)
        order, length_index = np.unravel_index(int(np.argmax(line_fraction)), line_fraction.shape)
        length, end = int(lines.lengths[length_index]), self.count - 1 - FRAME_DISTANCE
        if (
            line_fraction[order, length_index] < max(MIN_LINE_FRACTION, self.best[0])
            or on_line[order, length_index] < MIN_CHANGE
            or end - length < 1
        ):
            return
        line_change = widened.ravel()[lines.cells[order, length_index]] / self.steps[-1].size / FRAME_DISTANCE
        covered_fraction = (line_change > 0.25 * lines.areas[order] * line_change.sum()).mean()
        single_frame = (
            recent[MAX_FRAMES - length - 1 :, :BINS].sum(axis=1).max()
            / self.steps[-1].size
            / FRAME_DISTANCE
            / total_change[length_index]
        )
        if (
            covered_fraction >= MIN_COVERED
            and single_frame <= MAX_SINGLE_FRAME
            and not self._is_same_scene(end - length - 1, end)
        ):
            self.best = (float(line_fraction[order, length_index]), end, length, int(order))

    def _take_best(self, is_final: bool) -> list[Wipe]:
        """Return the best fit once a better one cannot follow."""
        if not self.best[0] or not is_final:
            return []
        _, end, length, order = self.best
        self.best = (0.0, 0, 0, 0)
        return [self._refine(end, length, self.lines.orders[order])]

    def _refine(self, end: int, length: int, order: np.ndarray) -> Wipe:
        """Return the ends near those found for which most of each pixel's change is in the frame when the boundary reaches it."""
        oldest, pixels = self.count - len(self.steps), np.arange(order.size)
        steps = np.stack(self.steps)
        candidates = []
        for start in range(max(end - length - 3, oldest, 1), end - length + 4):
            for stop in range(end - 3, min(end + 4, self.count)):
                arrival = start - oldest + np.floor(order * (stop - start + 1)).astype(int)
                candidates.append((float(steps[arrival, pixels].sum()), start, stop))
        _, start, stop = max(candidates)
        return Wipe(start, stop)

    def _is_same_scene(self, a: int, b: int) -> bool:
        oldest = self.count - len(self.frames)
        first, last = (self.frames[n - oldest].astype(np.float64).ravel() for n in (a, b))
        return bool(np.corrcoef(first, last)[0, 1] > SAME_SCENE_CORRELATION) if first.std() and last.std() else False


def change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return each pixel's distance from all pixels within one pixel of it before, (h * w,) float32, minus their median."""
    kernel = np.ones((3, 3), np.uint8)
    lighter, darker = cv2.subtract(after, cv2.dilate(before, kernel)), cv2.subtract(cv2.erode(before, kernel), after)
    outside = np.maximum(lighter, darker)
    largest = np.maximum(np.maximum(outside[..., 0], outside[..., 1]), outside[..., 2]).ravel().astype(np.float32)
    middle = largest.size // 2
    return np.maximum(largest - np.partition(largest, middle)[middle], 0)
