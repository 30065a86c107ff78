"""Interpolations for the frames of training, compared on real footage: detail, aliasing, agreement with references, CPU time.

    A2DATA_CORPUS=<folder> python -m benchmarks.interpolation [--frames N]

References are resized by Pillow's bicubic filter, which the released sampler fixes. Frames may use another one. For each filter
and scale, over frames of the corpus:

* detail: PSNR of the frame against its resized version enlarged again (Lanczos), dB
* steady: PSNR of a resized frame whose content moved by whole pixels of the source against the resized frame, moved by its
  Fourier transform, dB. Low where the filter aliases: edges shimmer as things move
* as references: PSNR against the same pixels resized as references are, dB; inf if equal
* CPU ms per frame, and its ratio to INTER_AREA in the same run
"""

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np
from PIL import Image

from a2data.media import video
from benchmarks.corpus import CORPUS, NO_CORPUS, available

Resize = Callable[[np.ndarray, tuple[int, int]], np.ndarray]  # (h, w, 3) uint8 and (width, height)
FILTERS: dict[str, Resize] = {
    "opencv area": lambda picture, size: cv2.resize(picture, size, interpolation=cv2.INTER_AREA),
    "opencv cubic": lambda picture, size: cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC),
    "opencv area, cubic to enlarge": lambda picture, size: FILTERS[
        "opencv area" if size[0] < picture.shape[1] else "opencv cubic"
    ](picture, size),
    "pillow bilinear": lambda picture, size: pillow(picture, size, Image.Resampling.BILINEAR),
    "pillow bicubic": lambda picture, size: pillow(picture, size, Image.Resampling.BICUBIC),
    "pillow lanczos": lambda picture, size: pillow(picture, size, Image.Resampling.LANCZOS),
}
FILMS = [
    "sam2_01_dog.mp4", "sam2_02_cups.mp4", "sam2_bedroom.mp4", "psd_testvideo.mp4", "psd_counter.mp4", "intel_asl_book.mkv",
]  # fmt: skip
SCALES = [0.25, 0.45, 0.65, 0.9, 1.3]
MOVE_PX = 3  # of the source; a fraction of a pixel at every scale


def pillow(picture: np.ndarray, size: tuple[int, int], how: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize(size, how))


def frames(count: int) -> Iterator[np.ndarray]:
    """Evenly spaced frames of the films, (h, w, 3) uint8, h and w multiples of 20 so that every scale is exact."""
    for name in FILMS:
        path = str(CORPUS / "video" / name)
        decoded = itertools.islice(video.read(path, video.probe(path).stream), 90)
        shown = [frame.picture.to_ndarray(format="rgb24") for frame in decoded]
        for picture in shown[:: max(1, len(shown) // count)][:count]:
            height, width = (side // 20 * 20 for side in picture.shape[:2])
            yield np.ascontiguousarray(picture[:height, :width])


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = float(np.square(a.astype(float) - b.astype(float)).mean())
    return 10 * np.log10(255**2 / error) if error else float("inf")


def moved(picture: np.ndarray, across: float) -> np.ndarray:
    """Move a picture to the right by a fraction of a pixel, by the shift theorem. Its left and right border are not valid."""
    turn = np.exp(-2j * np.pi * np.fft.rfftfreq(picture.shape[1]) * across)
    return np.fft.irfft(np.fft.rfft(picture.astype(float), axis=1) * turn[None, :, None], picture.shape[1], axis=1)


def measure(resize: Resize, picture: np.ndarray, scale: float) -> tuple[float, float, float, float]:
    """Detail, steadiness and agreement in dB, and CPU seconds, of one frame."""
    height, width = picture.shape[:2]
    size = round(width * scale), round(height * scale)
    began = time.process_time()
    small = resize(picture, size)
    spent = time.process_time() - began
    detail = psnr(cv2.resize(small, (width, height), interpolation=cv2.INTER_LANCZOS4), picture)
    step = np.roll(picture, MOVE_PX, axis=1)
    inside = np.s_[8:-8, 16:-16]
    steady = psnr(resize(step, size)[inside], np.clip(moved(small, MOVE_PX * scale), 0, 255)[inside])
    return detail, steady, psnr(small, pillow(picture, size, Image.Resampling.BICUBIC)), spent


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=4, help="frames per film (default 4)")
    args = parser.parse_args(argv)
    if not available():
        print(NO_CORPUS)
        return 0
    cv2.setNumThreads(1)
    shown = list(frames(args.frames))
    print(f"{len(shown)} frames of {len(FILMS)} films; medians")
    print(f"{'scale':>5}  {'filter':30} {'detail':>7} {'steady':>7} {'as references':>14} {'CPU ms':>7} {'ratio':>6}")
    for scale in SCALES:
        base = 0.0
        for name, resize in FILTERS.items():
            rows = [measure(resize, picture, scale) for picture in shown for _ in range(2)][1::2]
            detail, steady, like, seconds = (statistics.median(column) for column in zip(*rows, strict=True))
            base = base or seconds
            print(
                f"{scale:5.2f}  {name:30} {detail:7.2f} {steady:7.2f} {like:14.2f} {seconds * 1000:7.2f} {seconds / base:6.1f}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
