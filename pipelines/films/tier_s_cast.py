"""Cast of tier S: the demo films' people with more outfits, a look-alike of one of them, and objects."""

from dataclasses import replace
from functools import cache

import cv2
import numpy as np

from a2data.media import colours
from pipelines.films import people, props
from pipelines.films.people import PEOPLE, Person, Shape
from pipelines.films.places import LIGHTS

TEAL, CRIMSON, OLIVE, KHAKI = (32, 110, 118), (150, 40, 60), (92, 104, 58), (150, 128, 92)
COATS = {"teal coat": TEAL, "crimson coat": CRIMSON, "olive coat": OLIVE, "khaki uniform": KHAKI}
MULTICOLOUR_OUTFITS = {  # colours of outfits that consist of more than one paint
    "orange space suit": ["orange", "red", "brown"],
    "navy uniform": ["black", "blue", "grey"],
}
# The guide's portrait, skin, hair and clothes with other features. A face network (dlib's, 128-D) takes it for another person:
# cosine 0.954 with the guide, 0.93 with the astronaut, at most 0.83 with the others; the same person has 0.97.
LOOKALIKE = replace(PEOPLE["guide"], shape=Shape(0.019, -0.026, -0.019, 0.182, -0.054, 0.023, 0.010, -0.003, 0.002))


def _with_outfits(person: Person, *outfits: str) -> Person:
    coats = dict(person.coats)
    return replace(person, coats=tuple((name, coats[name] if name in coats else COATS[name]) for name in outfits))


CAST = {
    "astronaut": _with_outfits(PEOPLE["astronaut"], "orange space suit", "teal coat"),
    "guide": _with_outfits(PEOPLE["guide"], "crimson coat", "teal coat"),
    "cousin": _with_outfits(LOOKALIKE, "crimson coat"),
    "gardener": _with_outfits(PEOPLE["gardener"], "olive coat", "crimson coat"),
    "admiral": _with_outfits(PEOPLE["admiral"], "navy uniform"),
    "captain": _with_outfits(PEOPLE["captain"], "khaki uniform"),
}
LOOKALIKES = {"guide": "cousin", "cousin": "guide", "suitcase": "green suitcase", "green suitcase": "suitcase"}
NOUNS = {
    "cup": ["cup", "mug", "teacup", "coffee"],
    "shuttle": ["shuttle", "rocket", "toy", "spaceship", "plane", "model"],
    "ball": ["ball", "beach"],
    "suitcase": ["suitcase", "case", "bag", "luggage", "briefcase"],
    "green suitcase": ["suitcase", "case", "bag", "luggage", "briefcase"],
    "plant": ["plant", "pot", "flowerpot", "potted"],
}


@cache
def object_sprite(name: str) -> np.ndarray:
    """Return an object, (h, w, 4) uint8 premultiplied RGBA. Raises KeyError for an unknown name."""
    if name != "green suitcase":
        return props.prop(name)
    blue = props.prop("suitcase")
    hsv = cv2.cvtColor(np.ascontiguousarray(blue[..., :3]), cv2.COLOR_RGB2HSV)
    leather = (hsv[..., 0] > 90) & (hsv[..., 0] < 130)
    hsv[..., 0][leather] = 62
    return np.dstack([cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), blue[..., 3]])


def top_colours(outfit: str, light: str) -> list[str]:
    """Return the correct colour names of an outfit in a light, the likeliest first: those of its paint when lit and in shade."""
    if outfit in MULTICOLOUR_OUTFITS:
        return MULTICOLOUR_OUTFITS[outfit]
    gains = np.array(LIGHTS[light][0])
    shades = np.array([1.0, 0.8, 0.65, 0.5])[:, None]
    paint = np.concatenate([np.array(COATS[outfit]) * shades * gains, np.array(COATS[outfit]) * shades])
    return _colour_names(paint.clip(0, 255).astype(np.uint8), 0.0)


@cache
def object_colours(name: str, light: str) -> tuple[str, ...]:
    """Return the colour names that cover at least 8 % of an object in a light, the most frequent first."""
    sprite = object_sprite(name)
    solid = sprite[sprite[..., 3] > 240][:, :3] * np.array(LIGHTS[light][0])
    return tuple(_colour_names(solid.clip(0, 255).astype(np.uint8), 0.08))


def place_colours(plate: np.ndarray) -> list[str]:
    """Return the colour names that cover at least 4 % of a plate, (h, w, 3) uint8 RGB, the most frequent first."""
    return _colour_names(cv2.resize(plate, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA).reshape(-1, 3), 0.04)


def _colour_names(pixels: np.ndarray, min_fraction: float) -> list[str]:
    codes, counts = np.unique(colours.names(pixels), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [colours.NAMES[codes[n]] for n in order if counts[n] >= min_fraction * len(pixels)]


@cache
def poster(person: str, width_px: int = 100) -> np.ndarray:
    """Draw a framed photograph of a person, (h, w, 3) uint8, to hang on a wall."""
    member = CAST[person]
    figure = people.figure_of(member, member.coats[-1][0])
    head = figure.head[..., 3] > 127
    ys, xs = np.nonzero(head)
    picture = np.full((*head.shape, 3), (206, 214, 220), np.uint8)
    for layer in (figure.body, figure.head):
        picture = cv2.add(
            cv2.multiply(picture, cv2.merge([255 - layer[..., 3]] * 3), scale=1 / 255), layer[..., :3].copy()
        )
    side = xs.max() - xs.min()
    x0, x1 = max(0, xs.min() - side // 3), min(head.shape[1], xs.max() + side // 3)
    y1 = min(head.shape[0], ys.max() + side // 2)
    y0 = max(0, ys.min() - side // 8)
    photo = cv2.resize(
        picture[y0:y1, x0:x1], (width_px, round(width_px * (y1 - y0) / (x1 - x0))), interpolation=cv2.INTER_AREA
    )
    return cv2.copyMakeBorder(photo, 7, 7, 7, 7, cv2.BORDER_CONSTANT, value=(72, 50, 34))
