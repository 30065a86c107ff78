"""The clock of a target: frame rate, frame counts, sizes and lengths that its trainer accepts. Arithmetic only."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from stages.segment.clock import LATE_S
from stages.segment.stage import Segment


class TooSmallError(ValueError):
    """A clip that is too short or too small for the clock."""


class ScaleAndCrop(NamedTuple):
    """Scaling of a source frame, and the box of the clip in it."""

    whole: tuple[int, int]  # width and height of the scaled source frame, even
    box: tuple[int, int, int, int]  # x0, y0, x1, y1 of the clip in it, even


@dataclass(frozen=True)
class Clock:
    """A clip has `step` * n + `rest` frames at `fps`, and sides that `side_px` divides."""

    fps: float
    step: int
    rest: int
    min_frames: int
    max_frames: int
    side_px: int
    short_side_px: int  # largest short side
    sound_hz: int  # sample rate of the sound; 0: the trainer reads no sound

    def count(self, available: int) -> int:
        """Return the largest frame count of at most `available` frames that the rule and the limits allow.

        Raises TooSmallError if there is none.

        >>> CLOCKS["h3"].count(129), CLOCKS["ltx"].count(129), CLOCKS["wan"].count(129)
        (124, 129, 81)
        """
        max_frames = min(available, self.max_frames)
        count = (max_frames - self.rest) // self.step * self.step + self.rest
        if count < max(self.min_frames, self.rest):
            raise TooSmallError(
                f"{available} frames at {self.fps:g} fps hold none of {self.min_frames} to {self.max_frames} frames with "
                f"{self.step}n+{self.rest}"
            )
        return count

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height of the export of a picture: scaled down, never up, then cut to the multiple.

        Raises TooSmallError if a side is below the multiple.

        >>> CLOCKS["h3"].size(1920, 1080), CLOCKS["h3"].size(640, 360)
        ((1344, 768), (640, 352))
        """
        scale = min(1.0, self.short_side_px / min(width, height))
        sides = [int(side * scale + 1e-6) // self.side_px * self.side_px for side in (width, height)]
        if not all(sides):
            raise TooSmallError(f"{width} x {height} px is smaller than {self.side_px} px, the multiple of its sides")
        return sides[0], sides[1]


CLOCKS = {
    # MiniMax-H3: 24 fps, 17n+5 frames, released range 124 to 345 (5 to 15 s), sides of 32, 32 kHz stereo
    # (kohya-ss/musubi-tuner docs/minimax_h3.md "Geometry And Media Contract"; modelscope/DiffSynth-Studio
    # examples/minimax_h3/model_training/train.py)
    "h3": Clock(24.0, 17, 5, 124, 345, 32, 768, 32_000),
    # LTX-2: frames % 8 == 1, sides of 32; the trainer keeps the rate of the file, the model's is 24
    # (Lightricks/LTX-2 packages/ltx-trainer/docs/dataset-preparation.md "Resolution Buckets")
    "ltx": Clock(24.0, 8, 1, 9, 257, 32, 768, 48_000),
    # Wan 2.1 and 2.2 (14B): 16 fps, 4n+1 frames up to 81, sides of 16
    # (aigc-apps/VideoX-Fun scripts/wan2.1_vace/train.py; gudaochangsheng/RefAlign diffsynth/trainers/utils.py)
    "wan": Clock(16.0, 4, 1, 5, 81, 16, 480, 0),
}


def segment_settings(name: str) -> list[str]:
    """Return the settings of the stage segment for which clips fit a clock, as --set takes them; "a2": its defaults.

    Clips are as long as the clock takes them, and at least as long as it needs, but not below a second.

    >>> segment_settings("h3")
    ['segment.fps=24', 'segment.max_frames=345', 'segment.max_short_side_px=768', 'segment.min_clip_s=5.16']
    """
    if name == "a2":
        default = Segment()
        values = (default.fps, default.max_frames, default.max_short_side_px, default.min_clip_s)
    else:
        clock = CLOCKS[name]
        # rounded down, so that the product with the rate is not above the count
        min_clip_s = math.floor(clock.min_frames / clock.fps * 100) / 100
        values = (clock.fps, clock.max_frames, clock.short_side_px, max(1.0, min_clip_s))
    fields = ("fps", "max_frames", "max_short_side_px", "min_clip_s")
    return [f"segment.{field}={value:g}" for field, value in zip(fields, values, strict=True)]


def num_ticks(span_s: float, fps: float) -> int:
    """Return the number of ticks at `fps` from the first to the last frame of a clip.

    span_s: time from the first to the last frame. Nothing after the last frame counts, since a transition may follow.

    >>> num_ticks(80 / 15, 24), num_ticks(5.333, 24), num_ticks(0.0, 24)
    (129, 129, 1)
    """
    return math.floor((span_s + LATE_S) * fps) + 1


def scale_and_crop(
    width: int, height: int, crop: tuple[float, float, float, float], out: tuple[int, int]
) -> ScaleAndCrop:
    """Return how a source picture of width x height, of which the clip shows `crop`, is scaled and cut to the size `out`.

    The crop is covered as closely as possible around its centre.

    >>> scale_and_crop(640, 360, (0, 0, 640, 360), (640, 352))
    ScaleAndCrop(whole=(640, 360), box=(0, 4, 640, 356))
    """
    x0, y0, x1, y1 = crop
    scale = max(out[0] / (x1 - x0), out[1] / (y1 - y0))
    # rounded up, so that the crop covers the output
    whole = (math.ceil(width * scale / 2 - 1e-6) * 2, math.ceil(height * scale / 2 - 1e-6) * 2)
    offsets = []
    for low, high, side, scaled_side, out_side in (
        (x0, x1, width, whole[0], out[0]),
        (y0, y1, height, whole[1], out[1]),
    ):
        start = ((low + high) / 2 * scaled_side / side - out_side / 2) / 2
        offsets.append(min(max(0, round(start)), (scaled_side - out_side) // 2) * 2)
    return ScaleAndCrop(whole, (offsets[0], offsets[1], offsets[0] + out[0], offsets[1] + out[1]))
