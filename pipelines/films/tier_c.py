"""Tier C: real cut-outs over real plates, with the exact alpha of every frame. `a2data triplet-bench make OUT --tier C`.

The cut-outs are photographs from installed packages (Eileen Collins by NASA, Grace Hopper by the US Navy, a cup, a model
shuttle), or the RGBA pictures in the subfolders `human` and `object` of a given folder. Their files are called
`<identity>.<anything>.png`, so one identity may have several. The plates are photographs too, or the pictures of a given folder.
Each shot shows its subjects with a different size, rotation and light; one shot appears twice, the second time mirrored.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from a2data.media.images import from_png, thumb, to_png
from a2data.media.video import encode
from pipelines.films import people as demo_people
from pipelines.films import props, renderer, tier_s_cast
from pipelines.films.truth import Entity, Film, Shot, Sight, Truth, save, sight

SIZE, FPS, FRAMES, FILMS = (640, 360), 25.0, 56, 4
HELMET = demo_people.parse_points(  # in Collins's portrait, px
    "512,512 274,512 276,450 288,405 318,368 358,346 400,342 442,356 474,382 494,418 504,458 512,466"
)
GAINS = {"day": (1.0, 1.0, 1.0), "warm": (1.06, 0.95, 0.78), "cold": (0.84, 0.94, 1.06), "dim": (0.66, 0.64, 0.62)}


@dataclass(frozen=True)
class CutOut:
    """A person or object, cut out of a photograph."""

    id: str
    kind: str
    picture: np.ndarray  # (h, w, 4) uint8 RGBA, premultiplied
    nouns: tuple[str, ...] = ()
    top_colours: tuple[str, ...] = ()  # correct colours of the upper clothes
    is_whole: bool = False  # fully in the picture; otherwise cropped by its lower edge


@dataclass(frozen=True)
class Part:
    """A cut-out in a shot: middle of its lower edge and height, as fractions of the picture, at the start and the end."""

    cut_out: CutOut
    start: tuple[float, float, float]  # x, y, height
    end: tuple[float, float, float]
    sway: float  # degrees
    mirrored: bool


@dataclass(frozen=True)
class CompositeShot:
    """A shot before it is rendered."""

    plate: str
    light: str
    moving: bool  # the camera
    parts: tuple[Part, ...]
    name: str = ""
    mirrored: bool = False


def make(out: Path, seed: int = 0, cut_outs: Path | None = None, plates: Path | None = None) -> Truth:
    """Render the films of a seed and their truth into `out`. Raises ValueError for a folder without pictures."""
    (out / "plates").mkdir(parents=True, exist_ok=True)
    cast = read_cut_outs(cut_outs) if cut_outs else builtin_cut_outs()
    places = read_plates(plates) if plates else builtin_plates()
    takes = [t for t in script(cast, sorted(places), seed) if t]
    films = [_film(n, shots, places, out, seed) for n, shots in enumerate(takes)]
    truth = Truth("C", films, seed)
    save(truth, out)
    return truth


def builtin_cut_outs() -> list[CutOut]:
    """Return three people, two of them in the same clothes, and two objects."""
    hopper = demo_people.premultiplied(demo_people.cut_out_person("uniform"))
    collins = demo_people.premultiplied(_without_helmet(demo_people.cut_out_person("suit")))
    captain = demo_people.figure_of(_captain_in_uniform(), "navy uniform")
    navy, orange = ("black", "blue", "grey"), ("orange", "red", "brown")
    return [
        CutOut("collins", "human", _trim(collins), ("woman",), orange),
        CutOut("hopper", "human", _trim(hopper), ("woman",), navy),
        CutOut("captain", "human", _trim(_flatten(captain.body, captain.head)), ("woman", "man"), navy),
        CutOut("cup", "object", props.prop("cup"), tuple(tier_s_cast.NOUNS["cup"]), is_whole=True),
        CutOut("shuttle", "object", props.prop("shuttle"), tuple(tier_s_cast.NOUNS["shuttle"]), is_whole=True),
    ]


def _without_helmet(suit: np.ndarray) -> np.ndarray:
    """Collins's layer without the helmet in front of her: whether what a person holds is part of them is open."""
    out = suit.copy()
    out[..., 3:] *= 1 - demo_people.soft_mask(HELMET, shape=suit.shape[:2])
    return out


def _captain_in_uniform() -> demo_people.Person:
    """Return the demo's captain in the admiral's clothes: the same photograph of the clothes with another face."""
    captain = demo_people.PEOPLE["captain"]
    return demo_people.Person("hopper", captain.shape, captain.skin, neck=captain.neck, coats=(("navy uniform", None),))


def _flatten(body: np.ndarray, head: np.ndarray) -> np.ndarray:
    """Flatten two premultiplied layers."""
    background_alpha = 255 - head[..., 3:].astype(np.uint16)
    return (head + (body * background_alpha + 127) // 255).clip(0, 255).astype(np.uint8)


def _trim(rgba: np.ndarray) -> np.ndarray:
    ys, xs = np.nonzero(rgba[..., 3])
    return np.ascontiguousarray(rgba[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1])


def read_cut_outs(folder: Path) -> list[CutOut]:
    """Read the RGBA pictures in <folder>/human and <folder>/object. Raises ValueError if there are none or one lacks alpha."""
    cut_outs = []
    for kind in ("human", "object"):
        for path in sorted((folder / kind).glob("*.png")):
            rgba = from_png(path.read_bytes())
            if rgba.shape[2] != 4:
                raise ValueError(f"{path} has no alpha: a cut-out is an RGBA picture")
            layer = np.dstack([rgba[..., :3].astype(np.float32), rgba[..., 3:] / 255])
            name = path.name.partition(".")[0]
            cut_outs.append(CutOut(name, kind, _trim(demo_people.premultiplied(layer)), is_whole=kind == "object"))
    if not cut_outs:
        raise ValueError(f"{folder} has no cut-outs: RGBA PNG files in its folders human and object")
    return cut_outs


@cache
def builtin_plates() -> dict[str, np.ndarray]:
    """Return photographs of backgrounds: name -> (540, 960, 3) uint8."""
    from skimage import data

    grey = {"brick": data.brick(), "gravel": data.gravel(), "grass": data.grass()}
    tints = {"brick": (1.05, 0.8, 0.72), "gravel": (1.0, 0.97, 0.9), "grass": (0.72, 1.0, 0.55)}
    plates = {
        name: np.rint(cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB) * np.array(tints[name])).clip(0, 255).astype(np.uint8)
        for name, picture in grey.items()
    }
    plates |= {"rocket": data.rocket()[:400], "sky": data.hubble_deep_field()}
    return {name: _crop_to_plate(picture) for name, picture in plates.items()}


def read_plates(folder: Path) -> dict[str, np.ndarray]:
    """Read the pictures of a folder, which should not show people. Raises ValueError if there are none."""
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if not paths:
        raise ValueError(f"{folder} has no plates: PNG or JPEG pictures of places without people")
    return {p.stem: _crop_to_plate(from_png(p.read_bytes())[..., :3]) for p in paths}


def _crop_to_plate(picture: np.ndarray) -> np.ndarray:
    """Scale and crop a picture to 960 x 540 px."""
    height, width = picture.shape[:2]
    scale = max(960 / width, 540 / height)
    size = max(960, round(width * scale)), max(540, round(height * scale))
    resized = cv2.resize(
        np.ascontiguousarray(picture), size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    )
    y, x = (resized.shape[0] - 540) // 2, (resized.shape[1] - 960) // 2
    return np.ascontiguousarray(resized[y : y + 540, x : x + 960])


def script(cut_outs: list[CutOut], plates: list[str], seed: int) -> list[list[CompositeShot]]:
    """Return the takes of each of the FILMS films.

    Each subject has three shots or more, over different plates and in different films. One shot is repeated, mirrored.
    """
    rng = np.random.default_rng((seed, 11))
    people = sorted({c.id for c in cut_outs if c.kind == "human"})
    objects = sorted({c.id for c in cut_outs if c.kind == "object"})
    films: list[list[CompositeShot]] = [[] for _ in range(FILMS)]
    for n, name in enumerate([*people, *objects]):
        cut_outs_of_subject = [c for c in cut_outs if c.id == name]
        for n_shot in range(3):
            companion = None
            if objects and name in people and n_shot == 1:
                companion = next(c for c in cut_outs if c.id == objects[n % len(objects)])
            plate = plates[(n + 2 * n_shot) % len(plates)]
            films[(n + n_shot) % FILMS].append(
                _take(rng, cut_outs_of_subject[n_shot % len(cut_outs_of_subject)], companion, plate)
            )
    first = films[0][0]
    films[0][0] = CompositeShot(**{**vars(first), "name": "copied"})
    films[2].append(CompositeShot(**{**vars(first), "name": "copied", "mirrored": True}))
    return films


def _take(rng: np.random.Generator, cut_out: CutOut, companion: CutOut | None, plate: str) -> CompositeShot:
    light = str(rng.choice(sorted(GAINS)))
    parts = [_part(rng, cut_out, float(rng.uniform(0.36, 0.48) if companion else rng.uniform(0.4, 0.6)))]
    if companion:
        parts.append(_part(rng, companion, 0.8))
    return CompositeShot(plate, light, bool(rng.random() < 0.4), tuple(parts))


def _part(rng: np.random.Generator, cut_out: CutOut, x: float) -> Part:
    height = float(rng.uniform(0.36, 0.46) if cut_out.is_whole else rng.uniform(0.86, 1.0))
    bottom_y = float(rng.uniform(0.84, 0.94) if cut_out.is_whole else 1.04)
    travel = float(rng.uniform(0.16, 0.22) if cut_out.is_whole else rng.uniform(0.03, 0.06)) * (1 if x < 0.7 else -1)
    end_height = height * float(rng.uniform(0.95, 1.06))
    return Part(
        cut_out,
        (x - travel / 2, bottom_y, height),
        (x + travel / 2, bottom_y, end_height),
        float(rng.uniform(1, 3)),
        bool(rng.random() < 0.3),
    )


def _film(number: int, takes: list[CompositeShot], places: dict[str, np.ndarray], out: Path, seed: int) -> Film:
    file = f"composite{number}.mp4"
    shots: list[Shot] = []
    pictures: list[np.ndarray] = []
    for index, take in enumerate(takes):
        first = len(pictures)
        sights: dict[str, dict[int, Sight]] = {part.cut_out.id: {} for part in take.parts}
        for step in range(FRAMES):
            picture, visible_parts = draw(take, places[take.plate], step / FRAMES, seed + 10 * number + index)
            pictures.append(picture)
            for name, (alpha, visible) in visible_parts.items():
                if (alpha >= 0.5).any():
                    sights[name][first + step] = sight(alpha, visible, soft=True)
        plate = draw(
            CompositeShot(take.plate, take.light, take.moving, (), "", take.mirrored), places[take.plate], 0.0, -1
        )[0]
        name = f"plates/composite{number}-{index}.png"
        (out / name).write_bytes(to_png(plate))
        shots.append(_shot(take, first, name, tier_s_cast.place_colours(plate), sights))
    (out / file).write_bytes(encode(pictures, FPS, crf=18))
    cuts = [shot.start for shot in shots[1:]]
    thumbs = np.stack([thumb(p) for p in pictures])
    return Film(file, FPS, len(pictures), *SIZE, cuts, shots, thumbs=thumbs)


def _shot(take: CompositeShot, first: int, plate: str, colours: list[str], sights: dict[str, dict[int, Sight]]) -> Shot:
    entities = []
    for part in take.parts:
        cut_out = part.cut_out
        tops = {"upper": list(cut_out.top_colours)} if cut_out.top_colours else {}
        hard_negatives = ["same clothes"] if cut_out.id in ("hopper", "captain") else []
        entities.append(
            Entity(cut_out.id, cut_out.kind, list(cut_out.nouns), "", tops, hard_negatives, sights[cut_out.id])
        )
    camera = "moving" if take.moving else "static"
    return Shot(first, first + FRAMES, take.plate, take.light, camera, take.name, colours, plate, entities)


def draw(
    take: CompositeShot, plate: np.ndarray, progress: float, seed: int
) -> tuple[np.ndarray, dict[str, tuple[np.ndarray, float]]]:
    """Draw a frame, (h, w, 3) uint8; return it with each subject's visible alpha, (h, w) float32, and visible fraction.

    seed: of the grain; -1 for none.
    """
    width, height = SIZE
    shift = 60 * progress if take.moving else 0.0
    picture = cv2.warpAffine(plate, np.array([[0.75, 0, -30 - shift], [0, 0.75, -20.0]]), SIZE)
    alphas: list[tuple[str, np.ndarray, float]] = []
    for part in take.parts:
        silhouette = np.zeros((height, width), np.uint8)
        matrix, inside = place_part(part, progress)
        sprite = part.cut_out.picture[:, ::-1] if part.mirrored else part.cut_out.picture
        renderer.paint(picture, np.ascontiguousarray(sprite), matrix, silhouette)
        alphas.append((part.cut_out.id, silhouette.astype(np.float32) / 255, inside))
    visible_parts, transmittance = {}, np.ones((height, width), np.float32)
    for name, alpha, inside in reversed(alphas):
        visible_alpha = alpha * transmittance
        visible_parts[name] = (visible_alpha, inside * float(visible_alpha.sum() / max(1.0, alpha.sum())))
        transmittance = transmittance * (1 - alpha)
    picture = cv2.convertScaleAbs(picture * np.array(GAINS[take.light], np.float32))
    if seed >= 0:
        picture = renderer.add_grain(picture, round(progress * 1e4), seed)
    if take.mirrored:
        picture = np.ascontiguousarray(picture[:, ::-1])
        visible_parts = {name: (np.ascontiguousarray(alpha[:, ::-1]), v) for name, (alpha, v) in visible_parts.items()}
    return picture, visible_parts


def place_part(part: Part, progress: float) -> tuple[np.ndarray, float]:
    """Return the (3, 3) matrix from the cut-out to the picture, and the fraction of its width that is inside."""
    width, height = SIZE
    x, y, relative_height = (a + (b - a) * progress for a, b in zip(part.start, part.end, strict=True))
    rows, columns = part.cut_out.picture.shape[:2]
    scale = relative_height * height / rows
    angle_rad = np.deg2rad(part.sway * np.sin(2 * np.pi * progress))
    rotation = np.array([[np.cos(angle_rad), -np.sin(angle_rad)], [np.sin(angle_rad), np.cos(angle_rad)]]) * scale
    translation = np.array([x * width, y * height]) - rotation @ (columns / 2, rows)
    half_width = scale * columns / 2
    inside_fraction = (min(width, x * width + half_width) - max(0.0, x * width - half_width)) / (2 * half_width)
    return np.vstack([np.c_[rotation, translation], (0, 0, 1)]), float(np.clip(inside_fraction, 0, 1))
