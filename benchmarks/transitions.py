"""Films with known cuts, fades, dissolves and wipes, rendered from photographs for benchmarks.cuts.

A film has shots of a camera that pans and zooms over photographs, joined by transitions at known frames, encoded as H.264 and
decoded again. Photographs and seeds are divided into two halves: detectors may be tuned on "tuning"; results are reported on
"held-out".
"""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from a2data.media import video
from a2data.media.pictures import read_picture

WIDTH, HEIGHT, FPS = 256, 144, 30
HALVES = ("tuning", "held-out")
# Files that are part of the scikit-image package; small pictures and drawings are excluded.
PHOTOGRAPHS = (
    ("astronaut.png", "chelsea.png", "brick.png", "retina.jpg", "coins.png", "hubble_deep_field.jpg", "text.png"),
    ("coffee.png", "motorcycle_left.png", "rocket.jpg", "camera.png", "ihc.png", "gravel.png", "moon.png", "page.png"),
)

Blend = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


class Film(NamedTuple):
    """A film and its truth."""

    name: str
    frames: np.ndarray  # (t, h, w, 3) uint8 RGB, decoded
    cuts: list[int]  # first frames of shots that begin with a hard cut
    gradual: list[tuple[str, int, int]]  # kind, first frame that shows the new shot, first frame that shows only it


class Camera(NamedTuple):
    """Camera motion per frame."""

    pan: float = 0.001  # maximum, in picture widths
    zoom: float = 0.0005  # maximum, relative
    shake: float = 0.0  # standard deviation, in picture widths


STILL, FAST, ZOOM, HAND = Camera(), Camera(pan=0.04), Camera(zoom=0.02), Camera(shake=0.006)


def photographs(half: str, corpus: Path | None = None) -> list[np.ndarray]:
    """Return photographs, (h, w, 3) uint8 RGB each. corpus: folder of real footage, adds the first frame of each video."""
    import skimage

    data = Path(skimage.__file__).parent / "data"
    files = [data / name for name in PHOTOGRAPHS[HALVES.index(half)]]
    pictures = [read_picture(file) for file in files]
    footage = sorted((corpus / "video").glob("[is]*.m*")) if corpus else []
    for path in footage[HALVES.index(half) :: 2]:
        frame = next(video.read(str(path)))
        pictures.append(frame.picture.to_ndarray(format="rgb24"))
    return pictures


def shoot(
    photograph: np.ndarray, count: int, camera: Camera, rng: np.random.Generator, mirrored: bool = True
) -> np.ndarray:
    """Return a shot over a photograph or, at random, its mirror image: (count, 144, 256, 3) uint8."""
    height, width = photograph.shape[:2]
    fit = max(WIDTH / width, HEIGHT / height) * rng.uniform(1.1, 1.7)
    if rng.random() >= 0.5 and mirrored:
        photograph = photograph[:, ::-1]
    centre = np.array([width, height]) * rng.uniform(0.35, 0.65, 2)
    angle, pan = rng.uniform(0, 2 * np.pi), camera.pan * rng.uniform(0.4, 1)
    zoom = camera.zoom * rng.uniform(0.4, 1) * rng.choice([-1, 1])
    if zoom < 0:  # from near to far
        fit *= (1 - zoom) ** (count / 2)
    shake = rng.normal(0, camera.shake * WIDTH, (count, 2))
    frames = []
    for number in range(count):
        scale = fit * (1 + zoom) ** number
        moved = pan * number * WIDTH * np.array([np.cos(angle), np.sin(angle)]) + shake[number]
        matrix = np.array([[scale, 0, 0], [0, scale, 0]])
        matrix[:, 2] = np.array([WIDTH, HEIGHT]) / 2 - scale * centre - moved
        smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        frames.append(
            cv2.warpAffine(photograph, matrix, (WIDTH, HEIGHT), flags=smooth, borderMode=cv2.BORDER_REFLECT_101)
        )
    return np.stack(frames)


def near(photograph: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Return two views of a photograph, shifted by 4 to 10 % of its width."""
    height, width = photograph.shape[:2]
    x, y = (rng.uniform(0.04, 0.1, 2) * (width, height / 2)).astype(int)
    return [photograph[:-y, :-x], photograph[y:, x:]]


def dissolve(a: np.ndarray, b: np.ndarray, progress: float) -> np.ndarray:
    return np.rint(a * (1 - progress) + b * progress).astype(np.uint8)


def fade(level: int) -> Blend:
    """Return a fade through a blank picture: the first 45 % fade to it, the last 45 % from it."""

    def blend(a: np.ndarray, b: np.ndarray, progress: float) -> np.ndarray:
        picture, strength = (a, 1 - progress / 0.45) if progress < 0.5 else (b, (progress - 0.55) / 0.45)
        strength = max(strength, 0.0)
        return np.rint(picture * strength + level * (1 - strength)).astype(np.uint8)

    return blend


def wipe(shape: str) -> Blend:
    """Return a wipe: the new picture replaces the old one from one side, or from or towards the middle."""
    x, y = np.meshgrid((np.arange(WIDTH) + 0.5) / WIDTH, (np.arange(HEIGHT) + 0.5) / HEIGHT)
    radius = np.hypot((x - 0.5) * WIDTH, (y - 0.5) * HEIGHT) / np.hypot(WIDTH / 2, HEIGHT / 2)
    order = {"right": x, "left": 1 - x, "down": y, "up": 1 - y, "iris out": radius, "iris in": 1 - radius}[shape]

    def blend(a: np.ndarray, b: np.ndarray, progress: float) -> np.ndarray:
        return np.where((order < progress)[..., None], b, a)

    return blend


WIPES = ("left", "right", "up", "down", "iris out", "iris in")


def join(
    shots: list[np.ndarray], joints: list[tuple[str, Blend, int]]
) -> tuple[np.ndarray, list[int], list[tuple[str, int, int]]]:
    """Join shots; return frames, cuts and gradual transitions.

    A joint is a kind, a blend and a length in frames, 0 for a cut. It uses that many frames of both adjacent shots.
    """
    frames, cuts, gradual = list(shots[0]), [], []
    for shot, (kind, blend, length) in zip(shots[1:], joints, strict=True):
        if not length:
            cuts.append(len(frames))
            frames += list(shot)
            continue
        start = len(frames) - length
        gradual.append((kind, start, len(frames)))
        for step in range(length):
            frames[start + step] = blend(frames[start + step], shot[step], (step + 1) / (length + 1))
        frames += list(shot[length:])
    return np.stack(frames), cuts, gradual


def flash(frames: np.ndarray, cuts: list[int], rng: np.random.Generator) -> np.ndarray:
    """Add a flash of one or two frames to each shot, at a distance from the cuts."""
    frames = frames.copy()
    ends = [0, *cuts, len(frames)]
    for start, end in pairwise(ends):
        at, length = rng.integers(start + 12, end - 12), rng.integers(1, 3)
        part = frames[at : at + length].astype(float)
        frames[at : at + length] = np.clip(part * 0.3 + rng.integers(130, 255), 0, 255)
    return frames


def cross(frames: np.ndarray, body: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Let a silhouette as high as the picture, textured with a photograph, cross the picture every two seconds."""
    frames = frames.copy()
    wide = WIDTH // 3
    texture = cv2.resize(body, (wide, HEIGHT), interpolation=cv2.INTER_AREA)
    x, y = np.meshgrid((np.arange(wide) + 0.5) / wide * 2 - 1, np.arange(HEIGHT) / HEIGHT)
    inside = np.where(y < 0.35, (x / 0.45) ** 2 + ((y - 0.25) / 0.15) ** 2 < 1, np.abs(x) < 0.9)
    steps, way = int(rng.integers(20, 45)), int(rng.choice([-1, 1]))
    for number in range(len(frames)):
        left = round((number % 60) / steps * (WIDTH + wide)) - wide
        left = left if way > 0 else WIDTH - wide - left
        x0, x1 = max(0, left), min(WIDTH, left + wide)
        if x0 < x1:
            part = slice(x0 - left, x1 - left)
            frames[number, :, x0:x1][inside[:, part]] = texture[:, part][inside[:, part]]
    return frames


def noisy(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip(frames + rng.normal(0, 14, frames.shape), 0, 255).astype(np.uint8)


def _lengths(kind: str, count: int, rng: np.random.Generator) -> list[tuple[str, Blend, int]]:
    """Return joints of one kind of transition, 8 to 40 frames long."""
    blends: dict[str, list[Blend]] = {
        "dissolve": [dissolve],
        "fade": [fade(0), fade(255)],
        "wipe": [wipe(shape) for shape in rng.permutation(WIPES)],
        "cut": [dissolve],
    }
    long = [0] * count if kind == "cut" else rng.integers(8, 41, count).tolist()
    return [(kind, blends[kind][n % len(blends[kind])], long[n]) for n in range(count)]


# Name of the film -> its transitions and camera; `render` adds the rest.
KINDS: dict[str, tuple[str, Camera]] = {
    "cuts": ("cut", STILL),
    "cuts, alike": ("cut", STILL),
    "cuts, fast pans": ("cut", FAST),
    "cuts, zooms": ("cut", ZOOM),
    "cuts, hand-held": ("cut", HAND),
    "cuts, flashes": ("cut", STILL),
    "cuts, passers-by": ("cut", STILL),
    "cuts, noise": ("cut", STILL),
    "dissolves": ("dissolve", STILL),
    "dissolves, hand-held": ("dissolve", HAND),
    "fades": ("fade", STILL),
    "wipes": ("wipe", STILL),
    "wipes, hand-held": ("wipe", HAND),
    "jump cuts": ("cut", STILL),
}


def render(kind: str, half: str, corpus: Path | None = None) -> Film:
    """Render the film of a kind: six transitions between seven shots of 45 to 80 frames."""
    rng = np.random.default_rng([list(KINDS).index(kind), HALVES.index(half), 2026])
    transition, camera = KINDS[kind]
    pictures = photographs(half, corpus)
    chosen = [pictures[n] for n in rng.permutation(len(pictures))]
    joints = _lengths(transition, 6, rng)
    if kind == "cuts, alike":  # another take in the same place
        chosen = [chosen[n // 3] for n in range(7)]
    longer = [0, *(length for _, _, length in joints), 0]
    if kind == "jump cuts":  # two takes from nearly the same place
        chosen = [part for picture in chosen for part in near(picture, rng)]
    mirrored, shots = kind != "jump cuts", []
    for number in range(7):
        count = int(rng.integers(45, 80)) + longer[number] + longer[number + 1]
        shots.append(shoot(chosen[number % len(chosen)], count, camera, rng, mirrored))
    frames, cuts, gradual = join(shots, joints)
    if kind == "cuts, flashes":
        frames = flash(frames, cuts, rng)
    if kind == "cuts, passers-by":
        frames = cross(frames, chosen[-1], rng)
    if kind == "cuts, noise":
        frames = noisy(frames, rng)
    coded = video.encode(frames, FPS, crf=int(rng.integers(20, 30)))
    return Film(kind, video.decode(coded), cuts, gradual)
