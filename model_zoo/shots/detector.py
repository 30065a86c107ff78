"""Shot boundary detection, frame by frame while a video is decoded; nothing here decodes.

Four detectors use the same small frames, (27, 48, 3) uint8 RGB, and a boundary found by any of them counts:

* TransNetV2 (Soucek and Lokoc 2020, https://arxiv.org/abs/2008.04838): a network; cuts, and the extent of gradual transitions;
* AdaptiveDetector of PySceneDetect: an outlier among the changes in HSV; cuts between similar pictures;
* ramps: every pixel changes linearly from one picture to another, as in a fade or dissolve and unlike motion; and blank frames,
  black or white, which belong to no shot;
* wipes: a boundary moves over the picture, and the pixels it has passed stay as they are (model_zoo/shots/wipes.py).

A flash (up to 3 frames, then the same picture again) is not a cut.
"""

from fractions import Fraction
from typing import NamedTuple

import cv2
import numpy as np

from model_zoo.shots import wipes
from model_zoo.shots.transnet import HEIGHT, WIDTH, Network, Windows

MAX_FLASH = 3  # frames; a longer one is a shot of its own
RAMP_WINDOW = 8  # frames over which a fade or dissolve is searched; shorter ones are left to the network
MAX_RAMP = 90  # frames; only the network sees the rest of a longer fade or dissolve
# Mean change in grey, 0 to 255, below which a change in hue is noise: the hue of grey is arbitrary.
MIN_GREY_CHANGE = 3.0
MIN_PEAK_SCORE = 0.5  # least peak score of a fade or dissolve
SAME_SCENE_CORRELATION = 0.7  # correlation above which two nearby pictures show the same scene
MAX_BLACK, MIN_WHITE, MAX_BLANK_STD = 10, 245, 6.0  # mean and deviation of a blank picture; a watermark may remain


class Transition(NamedTuple):
    """A transition between two shots. Its frames, start to end (exclusive), belong to neither."""

    kind: str  # how the next shot starts: "cut", "fade", "dissolve" or "wipe"
    start: int  # end of the previous shot
    end: int  # first frame of the next shot; equal to start for a plain cut


class ShotDetector:
    """Streaming detector: takes every frame in turn, returns transitions once they are certain, in order and without overlap.

    Every transition that starts before frame `settled` has been returned. Frames from there to `judged` are in a transition that
    has not ended. `judged` lags some 75 to 230 frames behind, more if the network takes many windows per call. Keeps about as
    many small frames, however long the video.
    """

    def __init__(
        self,
        network: Network | None,
        cut_score: float = 0.4,
        transition_score: float = 0.3,
        adaptive_ratio: float = 3.5,
        min_change: float = 12.0,
    ) -> None:
        """network: see `transnetv2`, or None; its scores count from cut_score and transition_score (0 to 1).

        adaptive_ratio, min_change: AdaptiveDetector's adaptive_threshold and min_content_val (0 to 255).
        """
        from scenedetect.detectors import AdaptiveDetector

        self.windows = Windows(network) if network else None
        self.adaptive = AdaptiveDetector(
            adaptive_threshold=adaptive_ratio, min_content_val=min_change, min_scene_len=1, window_width=2
        )
        self.wipes = wipes.WipeDetector(HEIGHT, WIDTH)
        self.cut_score, self.transition_score = cut_score, transition_score
        self.count = 0
        self.blank = 0  # black or white frames so far
        self.settled = 0
        self.judged = 0
        self._transition_start = -1  # first frame of the transition that contains `judged`; -1 for none
        self._fading = False  # whether that transition passes through a blank frame
        self._wiping = False  # whether it is a wipe
        self._ramp = -1  # first frame of a ramp that has not ended; -1 for none
        self._run_length = 0  # length of the network's current run of transition frames
        self._run_peak = 0.0  # largest score in that run
        self._last_scores: list[float] = [0.0, 0.0]  # the network's last two scores
        self._grey: dict[int, np.ndarray] = {}  # frames that may still be compared, in grey
        self._cuts: set[int] = set()
        self._forced_cuts: set[int] = set()  # cuts known to the caller
        self._gradual_frames: set[int] = set()
        self._wipe_frames: set[int] = set()  # those in a wipe
        self._blank: set[int] = set()

    def add(self, frame: np.ndarray, cut: bool = False) -> list[Transition]:
        """frame: (27, 48, 3) uint8 RGB. cut: force a new shot here, whatever the picture shows."""
        from scenedetect.common import FrameTimecode

        number = self.count
        self.count += 1
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        self._grey[number] = grey.astype(np.float32)
        if is_blank(grey):
            self._blank.add(number)
            self.blank += 1
        if cut:
            self._forced_cuts.add(number)
        adaptive_cuts = self.adaptive.process_frame(FrameTimecode(number, Fraction(30)), frame[..., ::-1])
        numbers = (timecode.frame_num for timecode in adaptive_cuts)
        self._cuts.update(n for n in numbers if self._change(n - 1, n) >= MIN_GREY_CHANGE)
        self._update_ramp(number)
        self._add_wipes(self.wipes.add(frame))
        if self.windows:
            first = self.windows.num_scored
            self._add_scores(first, self.windows.add(frame))
        return self._judge(self._horizon())

    def ramp_frames(self) -> int:
        """Return the length of the ramp that has not ended, 0 for none. What else it knows is younger than some 200 frames."""
        return self.count - self._ramp if self._ramp >= 0 else 0

    def finish(self) -> list[Transition]:
        """Return the transitions that were not certain before the last frame."""
        if self.windows:
            first = self.windows.num_scored
            self._add_scores(first, self.windows.finish())
        self._add_wipes(self.wipes.finish())
        self._end_ramp(self.count - 1)
        transitions = self._judge(self.count)
        if self._transition_start >= 0:
            transitions.append(Transition(self._kind(), self._transition_start, self.count))
        self.settled = self.count
        return transitions

    def _horizon(self) -> int:
        """Return the first frame that cannot be judged yet, because later frames may change what is known of it."""
        horizon = self.count - RAMP_WINDOW - 2 if self._ramp < 0 else self._ramp - 2
        if self.windows:
            horizon = min(horizon, self.windows.num_scored - self._run_length)
        return min(horizon - MAX_FLASH - 1, self.count - wipes.DELAY)

    def _add_wipes(self, found: list[wipes.Wipe]) -> None:
        for wipe in found:
            self._wipe_frames.update(range(wipe.start, wipe.end))
            self._gradual_frames.update(range(wipe.start, wipe.end))

    def _add_scores(self, first: int, scores: list[tuple[float, float]]) -> None:
        """Add the network's scores of the frames from `first`: peaks become cuts, runs become transitions."""
        for number, (one_hot, many_hot) in enumerate(scores, first):
            previous, middle = self._last_scores
            if middle >= self.cut_score and previous <= middle > one_hot:
                self._cuts.add(self._largest_change(number))  # the peak is the last frame before the cut
            self._last_scores = [middle, one_hot]
            self._run_length = self._run_length + 1 if many_hot >= self.transition_score else 0
            self._run_peak = max(self._run_peak, many_hot) if self._run_length else 0.0
            # a cut has 1 to 3 such frames, a fast pan lower scores
            if self._run_length > MAX_FLASH and self._run_peak >= MIN_PEAK_SCORE:
                self._gradual_frames.update(range(number - self._run_length + 1, number + 1))

    def _largest_change(self, near: int) -> int:
        """Return the frame within 2 of `near` with the largest change; the network is sometimes one frame off."""
        numbers = [n for n in range(near - 2, near + 3) if n in self._grey and n - 1 in self._grey]
        return max(numbers, key=lambda n: (self._change(n - 1, n), -abs(n - near)), default=near)

    def _change(self, a: int, b: int) -> float:
        return float(np.abs(self._grey[a] - self._grey[b]).mean())

    def _update_ramp(self, number: int) -> None:
        first = number - RAMP_WINDOW
        if first not in self._grey or not is_ramp(*(self._grey[n] for n in range(first, number + 1, RAMP_WINDOW // 4))):
            self._end_ramp(number - 1)
        elif self._ramp < 0:
            self._ramp = first
        # a camera that moves slowly over something soft; a dissolve may be inside
        elif number - self._ramp >= MAX_RAMP:
            self._end_ramp(number)
            self._ramp = number - MAX_RAMP // 2

    def _end_ramp(self, last: int) -> None:
        first, self._ramp = self._ramp, -1
        if first < 0:
            return
        pictures = np.stack([self._grey[n] for n in range(first, last + 1)])
        start, end = monotone_range(pictures)
        quarters = pictures[np.linspace(start, end, 5).round().astype(int)]
        contrast = sorted((quarters[0].std(), quarters[-1].std()))
        blank = not self._blank.isdisjoint(range(first + start - 2, first + end + 3))
        fades = blank and contrast[0] < 0.5 * contrast[1]  # a flash may be blank, too
        if is_ramp(*quarters, tolerance=0.25) and (fades or is_dissolve(*quarters[::2])):
            self._gradual_frames.update(range(first + start + 1, first + end + 1))

    def _judge(self, until: int) -> list[Transition]:
        """Return the transitions that end before `until`."""
        transitions = []
        while self.judged < until:
            number = self.judged
            is_blank_frame = number in self._blank and not self._is_flash(number)
            if is_blank_frame or number in self._gradual_frames:
                if self._transition_start < 0:
                    self._transition_start, self._fading, self._wiping = number, False, False
                self._fading |= is_blank_frame
                self._wiping |= number in self._wipe_frames
            else:
                is_cut = number in self._forced_cuts or (number in self._cuts and self._is_cut(number))
                if self._transition_start >= 0:
                    transitions.append(
                        Transition(
                            "cut" if is_cut and not self._wiping else self._kind(), self._transition_start, number
                        )
                    )
                    self._transition_start = -1
                elif is_cut and number > 0:
                    transitions.append(Transition("cut", number, number))
            self.judged += 1
        self._drop_old_frames()
        self.settled = self._transition_start if self._transition_start >= 0 else self.judged
        return transitions

    def _kind(self) -> str:
        return "wipe" if self._wiping else "fade" if self._fading else "dissolve"

    def _is_cut(self, number: int) -> bool:
        """Return whether neither a flash nor a larger change next to it explains the detection."""
        rivals = [n for n in range(number - 2, number + 3) if n in self._cuts and n > 0 and n - 1 in self._grey]
        return number == max(rivals, key=lambda n: (self._change(n - 1, n), -n), default=-1) and not self._is_flash(
            number
        )

    def _is_flash(self, number: int) -> bool:
        """Return whether a picture from just before `number` returns shortly after it."""
        before = [n for n in range(number - MAX_FLASH - 1, number) if n in self._grey and n not in self._blank]
        after = [n for n in range(number, number + MAX_FLASH + 1) if n in self._grey and n not in self._blank]
        if not before or not after:
            return False
        change = max(self._change(before[-1], number), self._change(number - 1, number))
        pairs = [(a, b) for a in before for b in after if 1 < b - a <= MAX_FLASH + 1]
        return any(
            self._change(a, b) < 0.4 * change and correlation(self._grey[a], self._grey[b]) > SAME_SCENE_CORRELATION
            for a, b in pairs
        )

    def _drop_old_frames(self) -> None:
        """Drop frames that are no longer compared."""
        oldest = self.judged - MAX_RAMP if self._ramp < 0 else min(self.judged, self._ramp) - MAX_FLASH - 2
        oldest = min(oldest, self.judged - MAX_FLASH - 2)
        for number in [n for n in self._grey if n < oldest]:
            del self._grey[number]
        for numbers in (self._cuts, self._forced_cuts, self._gradual_frames, self._wipe_frames, self._blank):
            numbers.difference_update([n for n in numbers if n < oldest])


def is_blank(grey: np.ndarray) -> bool:
    """Return whether a grey picture, uint8, is black or white all over."""
    mean = grey.mean()
    return bool((mean < MAX_BLACK or mean > MIN_WHITE) and grey.std() < MAX_BLANK_STD)


def is_ramp(*pictures: np.ndarray, tolerance: float = 0.15) -> bool:
    """Return whether equally spaced pictures are on a straight line from first to last, as in a fade or dissolve.

    tolerance: largest mean distance from the line, as a fraction of its length (a cut has 0.5).
    """
    first, *inner, last = pictures
    length = float(np.abs(last - first).mean())
    if length < 4:  # of 255 levels: coding noise is straight enough
        return False
    for number, picture in enumerate(inner, 1):
        fraction = number / (len(inner) + 1)
        if np.abs(picture - (1 - fraction) * first - fraction * last).mean() > tolerance * length:
            return False
    return True


def monotone_range(pictures: np.ndarray) -> tuple[int, int]:
    """Return the range of pictures, (n, h, w) float, whose steps go in the direction of the whole change.

    A blend goes straight from one scene to the other; the changes of the scenes before and after go elsewhere.
    """
    direction = pictures[-1] - pictures[0]
    progress = np.tensordot(np.diff(pictures, axis=0), direction, axes=2)
    steps = np.flatnonzero(progress > 0.3 * np.quantile(progress, 0.9))
    return int(steps[0]), int(steps[-1]) + 1


def is_dissolve(first: np.ndarray, middle: np.ndarray, last: np.ndarray) -> bool:
    """Return whether a picture is a mixture of two others: it has less contrast than they have, unlike one from a moving camera.

    Alattar 1993, "Detecting and compressing dissolve regions in video sequences", ISCAS. Two of the same scene are not a mixture:
    there the light changes.
    """
    return correlation(first, last) < SAME_SCENE_CORRELATION and bool(
        middle.std() < 0.92 * (first.std() + last.std()) / 2
    )


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return Pearson's correlation of two pictures, 0 if one of them is flat."""
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 0 else 0.0
