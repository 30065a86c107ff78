"""Contact sheets: pictures and frames of videos side by side, in labelled rows."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

TILE_PX, GAP_PX, LABEL_PX = 160, 4, 20  # of a sheet: height of a tile, space around tiles, height of a row's label
STILLS = 6  # frames per video in a sheet


def stills(frames: np.ndarray, limit: int = STILLS) -> list[np.ndarray]:
    """Return up to `limit` frames evenly spaced over a video, including the first and the last."""
    return [frames[round(n)] for n in np.linspace(0, len(frames) - 1, min(limit, len(frames)))]


def strip(pictures: Sequence[np.ndarray], height_px: int = TILE_PX, gap_px: int = GAP_PX) -> np.ndarray:
    """Return one or more pictures, (h, w, 3) uint8 RGB of any sizes, side by side at the same height, on white."""
    tiles = [_scaled(picture, height_px) for picture in pictures]
    paper = Image.new("RGB", (sum(t.width + gap_px for t in tiles) - gap_px, height_px), "white")
    x = 0
    for tile in tiles:
        paper.paste(tile, (x, 0))
        x += tile.width + gap_px
    return np.asarray(paper)


def _scaled(picture: np.ndarray, height_px: int) -> Image.Image:
    height, width = picture.shape[:2]
    return Image.fromarray(picture).resize((max(1, round(width * height_px / height)), height_px), Image.Resampling.BOX)


def sheet(rows: Sequence[tuple[str, Sequence[np.ndarray]]]) -> np.ndarray:
    """Return a contact sheet, (H, W, 3) uint8: a label and a strip for each row; a row may be without pictures."""
    strips = [strip(pictures) if pictures else np.zeros((TILE_PX, 0, 3), np.uint8) for _, pictures in rows]
    width, height = max(strip_image.shape[1] for strip_image in strips), LABEL_PX + TILE_PX + GAP_PX
    paper = Image.new("RGB", (width + 2 * GAP_PX, len(rows) * height), "white")
    font = ImageFont.load_default(LABEL_PX - 6)
    for n, ((label, _), row_strip) in enumerate(zip(rows, strips, strict=True)):
        ImageDraw.Draw(paper).text((GAP_PX, n * height), label, "black", font)
        if row_strip.size:
            paper.paste(Image.fromarray(row_strip), (GAP_PX, n * height + LABEL_PX))
    return np.asarray(paper)
