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
TRANSITIONS = ("cut", "dissolve", "cut", "wipe", "cut", "fade")


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
SCENE_CASTS: tuple[tuple[tuple[str, str, str], ...], ...] = (
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
LETTERBOXED_FILM = 2  # index of the film with bars
COPIED_SCENE = 12  # scene of the deck that another film repeats, mirrored
OBJECT_HEIGHTS = {"cup": 88, "shuttle": 150, "ball": 92, "suitcase": 100, "green suitcase": 100, "plant": 140}


def reels(seed: int = 0) -> tuple[Reel, ...]:
    """Return the five films of a seed, with everything that makes footage hard."""
    rng = np.random.default_rng(seed)
    films: list[list[Scene]] = [[] for _ in range(5)]
    places_of: dict[str, set[str]] = {}  # subject -> its places so far
    for scene_number, film in _assign_scenes(rng):
        cast = SCENE_CASTS[scene_number]
        films[film].append(_scene(scene_number, cast, _choose_place(rng, scene_number, films[film], places_of), rng))
    copied = next(s for film in films for s in film if s.take)
    copied_film = next(n for n, film in enumerate(films) if copied in film)
    films[(copied_film + 2) % 5].append(replace(copied, mirrored=True))
    # a jump cut: one scene continues with a nearer camera
    jump = next((f, s) for f in films for s in f if s.actors[0].id == "guide" and len(s.actors) == 1)
    jump[0].insert(jump[0].index(jump[1]) + 1, _nearer_camera(jump[1]))
    films[LETTERBOXED_FILM] = [_lower_camera(scene) for scene in films[LETTERBOXED_FILM]]
    container_options: tuple[dict, ...] = (
        {},
        {"first_pts_s": 1.075},
        {"bars_px": 36},
        {"jitter": 0.4},
        {"first_pts_s": 0.5},
    )
    suffixes, rates = ("mp4", "mkv", "mp4", "mkv", "mkv"), (25.0, 30.0, 24.0, 25.0, 30000 / 1001)
    return tuple(
        Reel(f"reel{n}.{suffixes[n]}", rates[n], _with_transitions(scenes, n), **container_options[n])
        for n, scenes in enumerate(films)
    )


def _assign_scenes(rng: np.random.Generator) -> list[tuple[int, int]]:
    """Deal the scenes, as (scene of the deck, film). Scenes of one subject are adjacent in the deck and go to different films."""
    first = int(rng.integers(5))
    assignments = [(number, (first + number) % 5) for number in range(len(SCENE_CASTS))]
    return [assignments[n] for n in rng.permutation(len(assignments))]


def _choose_place(
    rng: np.random.Generator, scene_number: int, film: list[Scene], places_of: dict[str, set[str]]
) -> str:
    """Choose a place that differs from the previous scene's and, if possible, is new to the subjects. A poster needs a wall."""
    cast = SCENE_CASTS[scene_number]
    previous_places = set().union(*(places_of.get(name, set()) for name, _, _ in cast))
    candidates = [p for p in (WALLS if scene_number in POSTERS else PLACES) if not film or p != film[-1].place]
    place = str(rng.choice([p for p in candidates if p not in previous_places] or candidates))
    for name, _, _ in cast:
        places_of.setdefault(name, set()).add(place)
    return place


def _scene(scene_number: int, cast: tuple, place: str, rng: np.random.Generator) -> Scene:
    people = [name for name, _, _ in cast if name in CAST]
    start = (480.0 + rng.uniform(-30, 30), 330.0 + rng.uniform(-10, 10), rng.uniform(620, 700))
    end_views = {"static": start, "pan": (start[0] + 90.0, *start[1:]), "zoom": (*start[:2], start[2] * 0.84)}
    camera = str(rng.choice(["static", "static", "static", "pan", "zoom"]))
    if len(people) > 1 or any(movement == "leaves" for _, _, movement in cast):
        camera, start = "static", (480.0, 305.0, 780.0)
        end_views["static"] = start
    light = "night" if place == "launch pad" and rng.random() < 0.4 else str(rng.choice(["day", "day", "dusk", "lamp"]))
    assert light in LIGHTS
    actors = tuple(
        _actor(n, name, outfit, movement, len(people), rng) for n, (name, outfit, movement) in enumerate(cast)
    )
    return Scene(
        round(float(rng.uniform(2.2, 2.6)), 2),
        place,
        light,
        start,
        end_views[camera],
        actors,
        poster=POSTERS.get(scene_number, ""),
        take="copied" if scene_number == COPIED_SCENE else "",
    )


def _actor(n: int, name: str, outfit: str, movement: str, num_people: int, rng: np.random.Generator) -> Actor:
    if name not in CAST:
        height = OBJECT_HEIGHTS[name] * rng.uniform(0.95, 1.1)
        x0, x1 = (700.0, 560.0) if movement == "back" else (260.0, 480.0) if n == 0 else (760.0, 560.0)
        y = rng.uniform(498, 508)
        return Actor(name, (x0, y, height), (x1, y, height), lift=50.0 * (name == "shuttle"), rolls=name == "ball")
    size = rng.uniform(96, 110) + 8 * (num_people > 1)
    bottom_y = 745.0 if outfit == "orange space suit" else rng.uniform(512, 526)
    if movement == "leaves":
        return Actor(name, (470.0, bottom_y, size), (1080.0, bottom_y, size), outfit)
    if movement == "crosses":
        return Actor(name, (160.0, bottom_y + 20, size * 1.12), (800.0, bottom_y + 20, size * 1.12), outfit)
    x = (300.0 if n == 0 else 660.0) if num_people > 1 else rng.uniform(390, 470)
    return Actor(
        name,
        (x, bottom_y, size),
        (x + rng.uniform(20, 44), bottom_y - rng.uniform(0, 6), size * rng.uniform(0.98, 1.04)),
        outfit,
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
    linked = []
    for n, scene in enumerate(scenes):
        next_scene = scenes[n + 1] if n + 1 < len(scenes) else scene
        is_jump_cut = next_scene.place == scene.place
        linked.append(replace(scene, transition="cut" if is_jump_cut else TRANSITIONS[(n + film) % len(TRANSITIONS)]))
    return tuple(linked)
