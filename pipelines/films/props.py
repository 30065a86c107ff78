"""The objects of the demo films: cut out of public-domain photographs, or painted.

The photographs come from the scikit-image package: `coffee` (Rachel Michetti, CC0) and the model shuttle in `astronaut` (NASA,
public domain). Painted objects use seeded noise and are the same in every run.
"""

from functools import cache

import cv2
import numpy as np

from pipelines.films.people import matte, parse_points, premultiplied

CUP_OUTLINE = parse_points(
    """77,225 82,185 100,140 140,95 180,72 190,50 220,27 260,18 310,18 350,27 385,50 398,70 405,66 418,68 425,78 419,98
    450,140 470,185 478,225 470,270 445,310 405,345 360,370 310,385 260,388 210,378 160,355 115,315 85,270"""
)
SHUTTLE_OUTLINE = parse_points(
    """400,0 395,45 388,40 380,45 378,115 376,130 376,180 355,205 353,222 378,228 367,265 370,278 385,288 415,290
    470,278 468,270 458,262 456,230 456,190 455,60 446,40 437,45 434,20 425,2 415,0"""
)


@cache
def prop(name: str) -> np.ndarray:
    """Return an object, (h, w, 4) uint8 premultiplied RGBA. Raises KeyError for an unknown name."""
    from skimage import data

    if name == "cup":
        return _cut_out_prop(data.coffee(), CUP_OUTLINE)
    if name == "shuttle":
        return _cut_out_prop(data.astronaut(), SHUTTLE_OUTLINE)
    return premultiplied({"ball": ball, "suitcase": suitcase, "plant": plant}[name]())


def _cut_out_prop(picture: np.ndarray, outline: np.ndarray) -> np.ndarray:
    rgba = premultiplied(np.dstack([picture.astype(np.float32), matte(picture, outline)]))
    ys, xs = np.nonzero(rgba[..., 3])
    return rgba[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]


def ball(angle_rad: float = 0.0, side: int = 200) -> np.ndarray:
    """Draw a striped beach ball, (side, side, 4) float32, rotated by `angle_rad` radians in the picture plane."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side * 2 - 1
    r2 = x**2 + y**2
    z = np.sqrt(np.clip(1 - r2, 0, 1))
    u, v = x * np.cos(angle_rad) + y * np.sin(angle_rad), y * np.cos(angle_rad) - x * np.sin(angle_rad)
    # the pole is tilted towards the camera, so that the point where the stripes meet is visible
    tilted, depth = u * 0.8 - z * 0.6, z * 0.8 + u * 0.6
    stripe = np.floor(np.arctan2(v, tilted) / (2 * np.pi) * 6).astype(int) % 6
    paint = np.array(
        [(226, 52, 44), (245, 240, 225), (250, 196, 40), (245, 240, 225), (36, 96, 190), (245, 240, 225)], float
    )[stripe]
    paint[depth > 0.96] = (250, 250, 245)
    light = np.clip(-0.5 * x - 0.6 * y + 0.62 * z, 0, 1)
    shine = np.clip(-0.38 * x - 0.46 * y + 0.8 * z, 0, 1) ** 40
    rgb = paint * (0.38 + 0.68 * light)[..., None] + 170 * shine[..., None]
    alpha = np.clip((1 - np.sqrt(r2)) * side / 2 - 0.5, 0, 1)
    return np.dstack([rgb.clip(0, 255), alpha]).astype(np.float32)


def suitcase() -> np.ndarray:
    """Draw a blue leather suitcase with straps, brass and a handle, (230, 320, 4) float32."""
    height, width = 230, 320
    rgb = np.array((44, 84, 150), float) * (0.85 + 0.3 * noise(height, width, 1, octaves=6))[..., None]
    y, x = np.mgrid[:height, :width].astype(float)
    rgb *= (1.15 - 0.5 * (y - 40) / height - 0.15 * x / width)[..., None]
    for left in (62, 222):
        rgb[:, left : left + 36] *= 0.62
        rgb[:, (left + 3, left + 32)] *= 1.7  # stitches
        rgb[118:142, left + 7 : left + 29] = np.array((214, 176, 92)) * (
            1.1 - (y[118:142, left + 7 : left + 29, None] - 118) / 50
        )
        rgb[125:135, left + 13 : left + 23] *= 0.45
    rgb[112:115] *= 0.55
    rgb[115:117] *= 1.3
    alpha: np.ndarray = np.zeros((height, width), np.float32)
    cv2.rectangle(alpha, (26, 42), (width - 26, height - 22), 1.0, -1)
    alpha = np.maximum(alpha, cv2.dilate(alpha, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (41, 41))))
    handle = np.zeros((height, width), np.float32)
    cv2.ellipse(handle, (width // 2, 30), (42, 24), 0, 180, 360, 1.0, 10, cv2.LINE_AA)
    rgb = np.where(handle[..., None] > 0.2, np.array((70, 42, 24)) * (1.3 - y / 60)[..., None].clip(0.7, 1.3), rgb)
    inset = cv2.GaussianBlur(alpha, (0, 0), 7)[..., None]
    rgb *= 0.45 + 0.55 * np.clip(inset * 2 - 1, 0, 1) ** 0.6  # rounded edges turn away from the light
    alpha = cv2.GaussianBlur(np.maximum(alpha, handle), (0, 0), 0.8)
    return np.dstack([rgb.clip(0, 255), alpha]).astype(np.float32)


def plant() -> np.ndarray:
    """Draw a terracotta pot with broad leaves, (320, 260, 4) float32."""
    height, width = 320, 260
    rgba = np.zeros((height, width, 4), np.float32)
    rng = np.random.default_rng(5)
    angles = np.linspace(-1.25, 1.25, 13)
    for number in (0, 12, 2, 10, 4, 8, 6, 1, 11, 3, 9, 5, 7):  # outer leaves behind inner ones
        _leaf(rgba, angles[number] + rng.uniform(-0.08, 0.08), 150 + rng.uniform(-25, 25), rng.uniform(0.75, 1.15))
    x = np.arange(width) + np.zeros((height, 1))
    normal_x = (x - width / 2) / 58
    clay = np.array((190, 96, 58)) * (1.15 - 0.55 * np.clip(normal_x + 0.35, 0, 2) ** 1.5)[..., None].clip(0.4, 1.2)
    clay *= (0.92 + 0.16 * noise(height, width, 9, octaves=6))[..., None]
    clay[244:250] *= 0.7  # the shadow of the rim
    pot: np.ndarray = np.zeros((height, width), np.float32)
    cv2.fillPoly(pot, [np.array([(80, 240), (180, 240), (168, 312), (92, 312)])], 1.0)
    cv2.ellipse(pot, (130, 310), (38, 7), 0, 0, 360, 1.0, -1)
    cv2.rectangle(pot, (72, 216), (188, 244), 1.0, -1)
    pot = cv2.GaussianBlur(pot, (0, 0), 0.8)[..., None]
    rgb = rgba[..., :3] * (1 - pot) + clay.clip(0, 255) * pot
    return np.dstack([rgb, np.maximum(rgba[..., 3:], pot)]).astype(np.float32)


def _leaf(rgba: np.ndarray, angle: float, length_px: float, light: float) -> None:
    """Paint a leaf that bends to one side, from its root above the pot."""
    along = np.linspace(0, 1, 24)
    bend = angle * (0.55 + 0.75 * along)
    spine = np.array([130.0, 226.0]) + np.cumsum(np.c_[np.sin(bend), -np.cos(bend)] * length_px / 24, 0)
    normal = np.c_[np.cos(bend), np.sin(bend)] * (17 * np.sin(np.pi * along**0.8))[:, None]
    green = np.array((58, 128, 52)) * light
    for side, shade in ((-1, 1.15), (1, 0.82)):
        outline = np.vstack([spine, (spine + side * normal)[::-1]])
        _fill(rgba, outline, green * shade)
    cv2.polylines(rgba, [np.rint(spine * 8).astype(np.int32)], False, (*(green * 1.4).tolist(), 1.0), 1, cv2.LINE_AA, 3)


def _fill(rgba: np.ndarray, outline: np.ndarray, colour: np.ndarray) -> None:
    cv2.fillPoly(rgba, [np.rint(outline * 8).astype(np.int32)], (*colour.clip(0, 255).tolist(), 1.0), cv2.LINE_AA, 3)


def noise(height: int, width: int, seed: int, octaves: int = 5) -> np.ndarray:
    """Return smooth noise, (height, width) float64, 0 to 1: each octave half as coarse and half as strong (cf. Perlin 1985)."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width))
    for octave in range(octaves):
        cells = 3 * 2**octave
        grid = rng.random((cells, max(cells, cells * width // height)))
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) / 2**octave
    return (total - total.min()) / np.ptp(total)
