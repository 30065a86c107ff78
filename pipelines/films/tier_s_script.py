"""The script of tier S, written by a seeded generator: actors, place, light, camera and transition of every scene.

The deck of scenes is fixed, because it must contain every kind of hard negative; their places, order and details are random.
Consecutive scenes of a film have different places, except at the jump cut and, in some seeds, at the copied scene.
"""

from dataclasses import dataclass, replace

import numpy as np

from pipelines.films.demo_script import Actor, Shot
from pipelines.films.places import LIGHTS
from pipelines.films.tier_s_cast import CAST

PLACES = ("room", "kitchen", "street", "park", "launch pad")
WALLS = ("room", "kitchen", "street")
JOINTS = ("cut", "dissolve", "cut", "wipe", "cut", "fade")


@dataclass(frozen=True)
class Scene(Shot):
    """A demo shot, and what makes it hard."""

    poster: str = ""  # id of the person on the photograph on the wall
    take: str = ""  # shared by scenes that are copies of one another
    mirrored: bool = False


@dataclass(frozen=True)
class Reel:
    """A film: scenes, and irregularities of its container."""

    file: str
    fps: float
    scenes: tuple[Scene, ...]
    first_pts_s: float = 0.0
    bars_px: int = 0  # letterbox, above and below
    jitter: float = 0.0  # deviation of frame times from even spacing, frames: a variable frame rate
    transition_s: float = 0.6


# id, outfit and movement: "" sways or passes, "leaves" walks out of the picture, "crosses" walks in front of a person
DECK: tuple[tuple[tuple[str, str, str], ...], ...] = (
    (("astronaut", "orange space suit", ""),),
    (("astronaut", "teal coat", ""),),
    (("astronaut", "teal coat", ""), ("cup", "", "")),
    (("guide", "crimson coat", ""),),
    (("guide", "teal coat", ""), ("plant", "", "")),
    (("guide", "crimson coat", ""), ("gardener", "olive coat", "")),
    (("cousin", "crimson coat", ""),),
    (("cousin", "crimson coat", ""), ("suitcase", "", "")),
    (("gardener", "crimson coat", ""),),
    (("gardener", "olive coat", ""), ("ball", "", "")),
    (("admiral", "navy uniform", ""),),
    (("captain", "khaki uniform", ""), ("admiral", "navy uniform", "crosses")),
    (("captain", "khaki uniform", ""),),
    (("captain", "khaki uniform", "leaves"),),
    (("admiral", "navy uniform", ""), ("green suitcase", "", "")),
    (("cup", "", ""), ("shuttle", "", "back")),
    (("ball", "", ""),),
    (("suitcase", "", ""),),
    (("green suitcase", "", ""), ("plant", "", "back")),
    (("shuttle", "", ""),),
)
POSTERS = {10: "guide", 16: "astronaut"}  # scene of the deck -> id of the person on the poster
LETTERBOXED = 2  # index of the film with bars
COPIED = 12  # scene of the deck that another film repeats, mirrored
SIZES = {"cup": 88, "shuttle": 150, "ball": 92, "suitcase": 100, "green suitcase": 100, "plant": 140}


def reels(seed: int = 0) -> tuple[Reel, ...]:
    """Return the five films of a seed, with everything that makes footage hard."""
    rng = np.random.default_rng(seed)
    films: list[list[Scene]] = [[] for _ in range(5)]
    places: dict[str, set[str]] = {}  # subject -> its places so far
    for number, film in _deal(rng):
        cast = DECK[number]
        films[film].append(_scene(number, cast, _place(rng, number, films[film], places), rng))
    copied = next(s for film in films for s in film if s.take)
    home = next(n for n, film in enumerate(films) if copied in film)
    films[(home + 2) % 5].append(replace(copied, mirrored=True))
    # a jump cut: one scene continues with a nearer camera
    jumped = next((f, s) for f in films for s in f if s.actors[0].id == "guide" and len(s.actors) == 1)
    jumped[0].insert(jumped[0].index(jumped[1]) + 1, _nearer_camera(jumped[1]))
    films[LETTERBOXED] = [_lower_camera(scene) for scene in films[LETTERBOXED]]
    odd: tuple[dict, ...] = ({}, {"first_pts_s": 1.075}, {"bars_px": 36}, {"jitter": 0.4}, {"first_pts_s": 0.5})
    kinds, rates = ("mp4", "mkv", "mp4", "mkv", "mkv"), (25.0, 30.0, 24.0, 25.0, 30000 / 1001)
    return tuple(
        Reel(f"reel{n}.{kinds[n]}", rates[n], _with_transitions(scenes, n), **odd[n]) for n, scenes in enumerate(films)
    )


def _deal(rng: np.random.Generator) -> list[tuple[int, int]]:
    """Deal the scenes, as (scene of the deck, film). Scenes of one subject are adjacent in the deck and go to different films."""
    first = int(rng.integers(5))
    dealt = [(number, (first + number) % 5) for number in range(len(DECK))]
    return [dealt[n] for n in rng.permutation(len(dealt))]


def _place(rng: np.random.Generator, number: int, film: list[Scene], places: dict[str, set[str]]) -> str:
    """Choose a place that differs from the previous scene's and, if possible, is new to the subjects. A poster needs a wall."""
    cast = DECK[number]
    been = set().union(*(places.get(name, set()) for name, _, _ in cast))
    free = [p for p in (WALLS if number in POSTERS else PLACES) if not film or p != film[-1].place]
    place = str(rng.choice([p for p in free if p not in been] or free))
    for name, _, _ in cast:
        places.setdefault(name, set()).add(place)
    return place


def _scene(number: int, cast: tuple, place: str, rng: np.random.Generator) -> Scene:
    people = [name for name, _, _ in cast if name in CAST]
    start = (480.0 + rng.uniform(-30, 30), 330.0 + rng.uniform(-10, 10), rng.uniform(620, 700))
    moves = {"static": start, "pan": (start[0] + 90.0, *start[1:]), "zoom": (*start[:2], start[2] * 0.84)}
    camera = str(rng.choice(["static", "static", "static", "pan", "zoom"]))
    if len(people) > 1 or any(how == "leaves" for _, _, how in cast):
        camera, start = "static", (480.0, 305.0, 780.0)
        moves["static"] = start
    light = "night" if place == "launch pad" and rng.random() < 0.4 else str(rng.choice(["day", "day", "dusk", "lamp"]))
    assert light in LIGHTS
    actors = tuple(_actor(n, name, outfit, how, len(people), rng) for n, (name, outfit, how) in enumerate(cast))
    return Scene(
        round(float(rng.uniform(2.2, 2.6)), 2),
        place,
        light,
        start,
        moves[camera],
        actors,
        poster=POSTERS.get(number, ""),
        take="copied" if number == COPIED else "",
    )


def _actor(n: int, name: str, outfit: str, how: str, people: int, rng: np.random.Generator) -> Actor:
    if name not in CAST:
        height = SIZES[name] * rng.uniform(0.95, 1.1)
        x0, x1 = (700.0, 560.0) if how == "back" else (260.0, 480.0) if n == 0 else (760.0, 560.0)
        y = rng.uniform(498, 508)
        return Actor(name, (x0, y, height), (x1, y, height), lift=50.0 * (name == "shuttle"), rolls=name == "ball")
    size = rng.uniform(96, 110) + 8 * (people > 1)
    low = 745.0 if outfit == "orange space suit" else rng.uniform(512, 526)
    if how == "leaves":
        return Actor(name, (470.0, low, size), (1080.0, low, size), outfit)
    if how == "crosses":
        return Actor(name, (160.0, low + 20, size * 1.12), (800.0, low + 20, size * 1.12), outfit)
    x = (300.0 if n == 0 else 660.0) if people > 1 else rng.uniform(390, 470)
    return Actor(
        name, (x, low, size), (x + rng.uniform(20, 44), low - rng.uniform(0, 6), size * rng.uniform(0.98, 1.04)), outfit
    )


def _nearer_camera(scene: Scene) -> Scene:
    """Return the continuation of a scene from a nearer camera."""
    _, y, width = scene.end
    actor = scene.actors[0]
    x1, y1, size = actor.end
    view = (x1 + 20, y - 8, width * 0.8)
    return replace(scene, start=view, end=view, actors=(replace(actor, start=actor.end, end=(x1 - 34, y1, size)),))


def _lower_camera(scene: Scene) -> Scene:
    """Lower the camera of a scene, because letterbox bars hide part of it."""
    (x0, y0, w0), (x1, y1, w1) = scene.start, scene.end
    return replace(scene, start=(x0, y0 + 22, w0), end=(x1, y1 + 22, w1))


def _with_transitions(scenes: list[Scene], film: int) -> tuple[Scene, ...]:
    """Set the transition from each scene of a film to the next. A jump is a hard cut."""
    out = []
    for n, scene in enumerate(scenes):
        after = scenes[n + 1] if n + 1 < len(scenes) else scene
        jump = after.place == scene.place
        out.append(replace(scene, then="cut" if jump else JOINTS[(n + film) % len(JOINTS)]))
    return tuple(out)
