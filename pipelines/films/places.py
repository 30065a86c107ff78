"""The backgrounds of the demo films: five plates, larger than the picture, so that the camera can move over them.

Textures and photographs come from the scikit-image package: `grass` and `gravel` (CC0 Textures), `rocket` (SpaceX, CC0)
and `chelsea` (Stefan van der Walt, public domain). Everything else is painted with seeded noise.
"""

from functools import cache

import cv2
import numpy as np

from pipelines.films.props import noise

HEIGHT, WIDTH = 540, 960  # of every plate, px

# First row of the foreground (a table top, a parapet), which hides people and carries objects, px.
LEDGE_Y = {"room": 452, "kitchen": 446, "street": 456, "park": HEIGHT, "launch pad": 494}

# Gains on RGB, and the relative darkening at the right edge of the picture.
LIGHTS = {
    "day": ((1.0, 1.0, 1.0), 0.0),
    "dusk": ((0.92, 0.70, 0.55), 0.15),
    "lamp": ((1.08, 0.92, 0.70), 0.22),
    "night": ((0.62, 0.70, 0.86), 0.10),
}


@cache
def plate(place: str) -> np.ndarray:
    """Return the background of a place in daylight, (540, 960, 3) uint8 RGB. Raises KeyError for a place not in LEDGE_Y."""
    paint = {"room": _room, "kitchen": _kitchen, "street": _street, "park": _park, "launch pad": _launch_pad}[place]
    return np.rint(paint().clip(0, 255)).astype(np.uint8)


def relight(picture: np.ndarray, light: str) -> np.ndarray:
    """Relight an (h, w, 3) uint8 picture. Raises KeyError for a light not in LIGHTS."""
    gains, falloff = LIGHTS[light]
    if light == "day":
        return picture
    side = 1 - falloff * np.linspace(0, 1, picture.shape[1], dtype=np.float32)[None, :, None]
    return cv2.convertScaleAbs(picture * (side * np.array(gains, np.float32)))


def _room() -> np.ndarray:
    wall = np.array((214, 196, 160)) * (0.9 + 0.14 * noise(HEIGHT, WIDTH, 11))[..., None]
    x = np.arange(WIDTH)
    wall *= np.where(x // 24 % 2, 0.965, 1.0)[None, :, None]  # wallpaper
    wall *= np.linspace(1.08, 0.82, WIDTH)[None, :, None]
    _window(wall, 60, 70, 200, 250)
    _shelf(wall, 660, 120, 230, seed=12)
    _shelf(wall, 660, 235, 230, seed=13)
    _picture(wall, 420, 96, 130, 96)
    _wood(wall, LEDGE_Y["room"], (150, 96, 52), seed=14)
    return wall


def _kitchen() -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    row, column, joint = _running_bond(y, x, 36, 72, 2)
    glaze = np.random.default_rng(21).uniform(0.9, 1.06, (20, 20))[row, column]
    wall = np.array((150, 188, 190)) * glaze[..., None] * (0.92 + 0.1 * noise(HEIGHT, WIDTH, 22))[..., None]
    wall[joint] = (222, 226, 220)
    cabinet = np.array((228, 222, 206)) * np.linspace(0.85, 1, 110)[:, None, None] * np.ones((1, WIDTH, 1))
    wall[:110] = cabinet
    wall[106:110] *= 0.6
    wall[110:132] *= np.linspace(0.6, 1, 22)[:, None, None]  # the shadow under the cabinets
    for left in range(0, WIDTH, 160):
        wall[:106, left : left + 3] *= 0.6
        wall[82:86, left + 60 : left + 100] = (120, 116, 108)
    _shelf(wall, 90, 270, 200, seed=23, jars=True)
    _window(wall, 620, 150, 230, 200)
    _wood(wall, LEDGE_Y["kitchen"], (196, 160, 112), seed=24)
    return wall


def _street() -> np.ndarray:
    from skimage import data

    y, x = np.mgrid[:HEIGHT, :WIDTH]
    row, column, joint = _running_bond(y, x, 20, 60, 3)
    burnt = np.random.default_rng(33).uniform(0.74, 1.14, (60, 60))[row, column]
    wall = np.array((164, 84, 64)) * (burnt * (0.8 + 0.36 * noise(HEIGHT, WIDTH, 31, octaves=8)))[..., None]
    wall[joint] = np.array((176, 164, 150)) * (0.8 + 0.3 * noise(HEIGHT, WIDTH, 34, octaves=8)[joint])[:, None]
    wall[60:, 96:250] = np.array((44, 74, 62)) * (0.9 + 0.2 * noise(480, 154, 32))[..., None]  # a door
    for top, left in ((84, 112), (84, 180), (250, 112), (250, 180)):
        wall[top : top + 140, left : left + 54] *= 0.72
        wall[top + 3 : top + 137, left + 3 : left + 51] *= 1.25
    cv2.circle(wall, (238, 300), 6, (200, 170, 90), -1, cv2.LINE_AA)
    wall[48:60, 84:262] = (196, 190, 178)
    _window(wall, 420, 90, 150, 210)
    _window(wall, 700, 90, 150, 210)
    gravel = data.gravel().astype(np.float32)
    stone = cv2.resize(np.hstack([gravel, gravel[:, ::-1]]), (WIDTH, 200))[: HEIGHT - LEDGE_Y["street"]]
    wall[LEDGE_Y["street"] :] = np.array((168, 164, 156)) * (0.72 + 0.3 * stone / 255)[..., None]
    wall[LEDGE_Y["street"] : LEDGE_Y["street"] + 4] *= 1.2
    wall[LEDGE_Y["street"] - 10 : LEDGE_Y["street"]] *= 0.8
    return wall


def _park() -> np.ndarray:
    from skimage import data

    sky = np.linspace((108, 164, 222), (214, 230, 240), HEIGHT)[:, None] * np.ones((1, WIDTH, 1))
    cloud = np.clip(noise(HEIGHT, WIDTH, 41) * 2.2 - 1.1, 0, 1)[..., None]
    scene = sky * (1 - cloud) + 248 * cloud
    rng = np.random.default_rng(42)
    for x, top, radius in (
        (40, 170, 120),
        (230, 215, 70),
        (640, 205, 80),
        (800, 150, 130),
        (940, 190, 100),
        (420, 240, 48),
    ):
        cv2.rectangle(scene, (x - radius // 9, top), (x + radius // 9, 330), (74, 56, 42), -1)
        for _ in range(420):  # tufts of leaves, lighter above
            distance, angle = 0.9 * radius * rng.uniform(0, 1) ** 0.6, rng.uniform(0, 2 * np.pi)
            dx, dy = distance * np.cos(angle), distance * np.sin(angle)
            light = 0.8 - 0.3 * dy / radius + rng.uniform(-0.2, 0.2)
            colour = (np.array((62, 108, 44)) * light).clip(0, 255).tolist()
            cv2.circle(
                scene, (int(x + dx), int(top + dy)), int(radius * rng.uniform(0.04, 0.1)), colour, -1, cv2.LINE_AA
            )
    grass = data.grass().astype(np.float32)
    tiled = np.tile(np.hstack([grass, grass[:, ::-1]]), (2, 2))
    corners = np.array([(0, 0), (2048, 0), (2048, 1024), (0, 1024)], np.float32)
    ground = np.array([(-500, 300), (WIDTH + 500, 300), (WIDTH + 2200, 640), (-2200, 640)], np.float32)
    lawn = cv2.warpPerspective(
        tiled, cv2.getPerspectiveTransform(corners, ground), (WIDTH, HEIGHT), flags=cv2.INTER_AREA
    )
    lawn = np.array((104, 146, 58)) * (0.55 + 0.5 * lawn / lawn[400:].mean())[..., None]
    below = np.clip((np.arange(HEIGHT) - 318) / 6, 0, 1)[:, None, None]
    scene = scene * (1 - below) + lawn * below
    cv2.fillPoly(scene, [np.array([(520, 318), (560, 318), (330, HEIGHT), (60, HEIGHT)])], (196, 178, 144))  # a path
    return scene * (0.93 + 0.1 * noise(HEIGHT, WIDTH, 43, octaves=7))[..., None]


def _launch_pad() -> np.ndarray:
    from skimage import data

    photo = cv2.resize(data.rocket()[:360], (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).astype(float)
    scene = cv2.GaussianBlur(photo, (0, 0), 1.6) * 1.25 + 12
    top = LEDGE_Y["launch pad"]
    concrete = np.array((132, 132, 136)) * (0.8 + 0.3 * noise(HEIGHT - top, WIDTH, 51, octaves=7))[..., None]
    scene[top:] = concrete
    scene[top : top + 5] *= 1.3
    x = np.arange(WIDTH)[None, :] + np.arange(16)[:, None]
    scene[top + 20 : top + 36] = np.where((x // 24 % 2)[..., None], (212, 172, 40), (36, 36, 38))  # a warning stripe
    return scene


def _running_bond(
    y: np.ndarray, x: np.ndarray, brick_height: int, brick_width: int, gap: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row and column of each pixel's brick or tile in running bond, and the mask of the joints."""
    row = y // brick_height
    offset_x = x + row % 2 * (brick_width // 2)
    return row, offset_x // brick_width, (y % brick_height < gap) | (offset_x % brick_width < gap)


def _window(wall: np.ndarray, left: int, top: int, width: int, height: int) -> None:
    view = np.linspace((150, 196, 236), (226, 236, 238), height)[:, None] * np.ones((1, width, 1))
    x = np.linspace(0, 3, width) + left
    for hill_height, colour in ((0.30, (150, 172, 158)), (0.18, (112, 144, 100))):
        hills = height * (1 - hill_height - 0.06 * np.sin(x * 9 * hill_height) - 0.02 * np.sin(x * 7))
        view[np.arange(height)[:, None] > hills] = colour
    wall[top - 10 : top + height + 10, left - 10 : left + width + 10] = (238, 234, 226)
    wall[top : top + height, left : left + width] = view
    wall[top : top + 5, left : left + width] *= 0.7
    wall[top : top + height, left + width // 2 - 4 : left + width // 2 + 4] = (232, 228, 220)
    wall[top + height // 2 - 4 : top + height // 2 + 4, left : left + width] = (232, 228, 220)
    wall[top + height + 10 : top + height + 20, left - 18 : left + width + 18] = (212, 206, 196)
    wall[top + height + 20 : top + height + 32, left - 14 : left + width + 20] *= 0.72


def _shelf(wall: np.ndarray, left: int, top: int, width: int, seed: int, jars: bool = False) -> None:
    """Paint a shelf at row top + 80 with books or jars on it."""
    rng = np.random.default_rng(seed)
    board = top + 80
    wall[board + 9 : board + 24, left + 4 : left + width + 6] *= 0.7
    x = left + 6
    while x < left + width - 36:
        step, book_height = (
            (30, int(rng.integers(34, 50))) if jars else (int(rng.integers(9, 22)), int(rng.integers(48, 76)))
        )
        colour = rng.uniform(60, 210, 3)
        round_light = np.sin(np.linspace(0.5, 2.9, step - 2))[None, :, None] * 0.5 + 0.55
        wall[board - book_height : board, x : x + step - 2] = colour * round_light
        wall[board - book_height + 6 : board - book_height + 10, x : x + step - 2] *= 0.6
        x += step + (8 if jars else 0)
    wall[board : board + 9, left : left + width] = (112, 74, 44)
    wall[board : board + 2, left : left + width] *= 1.3


def _picture(wall: np.ndarray, left: int, top: int, width: int, height: int) -> None:
    """Paint a framed photograph of a cat."""
    from skimage import data

    wall[top - 4 : top + height + 14, left - 2 : left + width + 14] *= 0.75
    wall[top - 8 : top + height + 8, left - 8 : left + width + 8] = (72, 50, 34)
    wall[top : top + height, left : left + width] = cv2.resize(
        data.chelsea(), (width, height), interpolation=cv2.INTER_AREA
    )


def _wood(wall: np.ndarray, top: int, colour: tuple[int, int, int], seed: int) -> None:
    """Paint a wooden table top from row `top` down, and its shadow on the wall."""
    height = HEIGHT - top
    rings = noise(height, 64, seed, octaves=5)
    grain = cv2.resize(rings, (WIDTH, height), interpolation=cv2.INTER_CUBIC)
    wall[top:] = np.array(colour) * (0.72 + 0.3 * grain + 0.1 * np.sin(grain * 70))[..., None]
    wall[top:] *= np.linspace(1.12, 0.85, height)[:, None, None]
    wall[top : top + 3] *= 1.2
    wall[top - 14 : top] *= np.linspace(1, 0.75, 14)[:, None, None]
