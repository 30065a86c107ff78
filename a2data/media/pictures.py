"""Picture files, and the resizing of pictures for training and sampling."""

from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 50_000_000  # 0.15 GB in RGB; checked in the header, before decoding
MAX_SIDE_PX = 10_000  # a long, thin picture is padded to the video's aspect ratio: 10,000 x 10,000 px take 0.3 GB
MIN_SIDE_PX = 16


def read_picture(file: str | Path | IO[bytes], name: str = "", min_side_px: int = MIN_SIDE_PX) -> np.ndarray:
    """Return a picture file as displayed, (h, w, 3) uint8 RGB: rotated according to EXIF, with transparency on white.

    name: what errors call a file that has no path. Raises ValueError with the path or the name if it is not a picture, is
    damaged, has a side under min_side_px or over 10,000 px, or has over 50 megapixels.
    """
    name = name or str(file)
    try:
        with Image.open(file) as image:
            _check_size(image.width, image.height, min_side_px, name)
            image.load()
            shown = ImageOps.exif_transpose(image)
    # ultralytics, once imported, replaces Image.open with a function that needs another package
    except (UnidentifiedImageError, Image.DecompressionBombError, ImportError) as error:
        raise ValueError(f"{name} is not a readable image ({error})") from error
    except OSError as error:
        if isinstance(error, FileNotFoundError | IsADirectoryError | PermissionError):
            raise
        raise ValueError(f"{name} is damaged ({error})") from error
    if shown.has_transparency_data:
        cut_out = shown.convert("RGBA")
        shown = Image.alpha_composite(Image.new("RGBA", cut_out.size, "white"), cut_out)
    return np.asarray(shown.convert("RGB"))


def _check_size(width: int, height: int, min_side_px: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(f"{name} has {width * height / 1e6:.4g} megapixels; a picture may have at most 50: resize it")
    if max(width, height) > MAX_SIDE_PX:
        raise ValueError(
            f"{name} is {width} x {height} px; a picture may have at most {MAX_SIDE_PX} px a side: resize it"
        )
    if min(width, height) < min_side_px:
        raise ValueError(f"{name} is {width} x {height} px; a picture must have at least {min_side_px} px a side")


def crop_resize(picture: np.ndarray, height: int, width: int, at: tuple[float, float] = (0.5, 0.5)) -> np.ndarray:
    """Return the largest crop of (h, w, 3) uint8 with the aspect ratio of height x width, resized to it. Bicubic, antialiased.

    at: position of the crop, 0 at the top and on the left to 1 at the bottom and on the right. References are resized with the
    same filter (model_zoo.a2.references), so that a subject looks alike in both; benchmarks/interpolation.py compares others.
    """
    h, w = picture.shape[:2]
    tall = h / w >= height / width
    rows, columns = (max(1, int(w / width * height)), w) if tall else (h, max(1, int(h / height * width)))
    top, left = int((h - rows) * at[0]), int((w - columns) * at[1])
    part = np.ascontiguousarray(picture[top : top + rows, left : left + columns])
    return np.asarray(Image.fromarray(part).resize((width, height), Image.Resampling.BICUBIC))
