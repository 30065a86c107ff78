"""The truth about films: who is where in which frame, where the cuts are, which shots repeat one another.

A set of films is a folder with `set.json` (tier, seed, names of the films) and, for each film, `<stem>.truth.json` and, where
somebody made it, `<stem>.thumbs.npy`, the thumbnails of all its frames. The JSON is that of the classes below, field by field;
docs/triplet-bench.md says how to write one by hand. Everything is in pixels and frames of the source.
"""

import base64
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from a2data.media.images import Box, bounds, from_png, from_rle, to_png, to_rle
from a2data.store.filename import safe_name

FORMAT = "triplet-truth/1"
KINDS = ("human", "object")  # what must be found; anything else (a poster of a person) must not be taken for one


@dataclass(frozen=True)
class Sight:
    """What shows of an entity in one frame."""

    box: Box
    visible: float = 1.0  # share of it that nothing nearer hides and that lies inside the picture, 0 to 1
    mask: str = ""  # base64 of a2data.media.images.to_rle, of the whole picture; "" where only the box is known
    alpha: str = ""  # base64 of a PNG, (h, w) of the box: how much of each pixel is the entity; "" where it is 0 or 1

    def pixels(self, height: int, width: int) -> np.ndarray:
        """(height, width) float32, 0 to 1: the alpha, else the mask, else the box."""
        out = np.zeros((height, width), np.float32)
        x0, y0, x1, y1 = (round(v) for v in self.box)
        if self.alpha:
            out[y0:y1, x0:x1] = from_png(base64.b64decode(self.alpha))[..., 0] / 255
        elif self.mask:
            out[:] = from_rle(base64.b64decode(self.mask))
        else:
            out[y0:y1, x0:x1] = 1
        return out


def sight(shown: np.ndarray, visible: float, soft: bool = False) -> Sight:
    """From an (h, w) alpha, bool or 0 to 1, of which something is at least a half. soft: keep the alpha too."""
    mask = np.asarray(shown) >= 0.5
    box = bounds(np.asarray(shown) > 1 / 512 if soft else mask)
    x0, y0, x1, y1 = (int(v) for v in box)
    grey = np.rint(np.asarray(shown, np.float32)[y0:y1, x0:x1] * 255).astype(np.uint8)
    alpha = _text(to_png(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB))) if soft else ""
    return Sight(box, round(float(visible), 4), _text(to_rle(mask)), alpha)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass(frozen=True)
class Entity:
    """Somebody or something in a shot."""

    id: str  # the same in every film of the set
    kind: str  # "human", "object", or anything else for what must not be taken for either, such as "poster"
    nouns: list[str] = field(default_factory=list)  # words that name it, in the singular; the first is the usual one
    outfit: str = ""
    colours: dict[str, list[str]] = field(default_factory=dict)  # "" or a kind of garment -> names that are true of it
    hard_negatives: list[str] = field(default_factory=list)  # what makes it hard here: "look-alike", "same clothes" …
    sights: dict[int, Sight] = field(default_factory=dict)  # frame -> what shows; empty where only the shot is known


@dataclass(frozen=True)
class Shot:
    """Frames from `start` to before `end`; a gradual transition belongs to neither of its shots."""

    start: int
    end: int
    place: str = ""  # the same in every film
    light: str = ""
    camera: str = ""  # "static" where the plate holds for all frames
    take: str = ""  # shots of one take are copies of one another, mirrored, cropped or coded again; "" for no copy
    colours: list[str] = field(default_factory=list)  # names of colours that the place has; empty where nobody said
    plate: str = ""  # file, beside the truth, of the place without anybody; "" where there is none
    entities: list[Entity] = field(default_factory=list)


@dataclass(frozen=True)
class Transition:
    """A gradual one: frames that belong to no shot."""

    kind: str  # dissolve, fade, wipe
    start: int
    end: int


@dataclass(frozen=True)
class Film:
    """A source video."""

    file: str  # name without folders
    fps: float
    frames: int
    width: int
    height: int
    cuts: list[int]  # first frames of the shots that a hard cut begins
    shots: list[Shot]
    transitions: list[Transition] = field(default_factory=list)
    content: Box | None = None  # the picture without letterbox bars; None for all of it
    # kinds of which everybody is named; others are not scored
    labelled: list[str] = field(default_factory=lambda: list(KINDS))
    reach: int = 0  # a sight holds for frames so far from its own: 0 where every frame has its own
    thumbs: np.ndarray | None = field(default=None, compare=False, repr=False)  # (frames, 18, 24) uint8 of `content`

    def shot_at(self, frame: int) -> Shot | None:
        """The shot of a frame; None in a transition."""
        return next((shot for shot in self.shots if shot.start <= frame < shot.end), None)

    def seen(self, entity: Entity, frame: int) -> Sight | None:
        """What shows of an entity in a frame, by the nearest sight within reach; None where nothing does or nobody knows."""
        nearest = min(entity.sights, key=lambda known: (abs(known - frame), known), default=None)
        return entity.sights[nearest] if nearest is not None and abs(nearest - frame) <= self.reach else None


@dataclass(frozen=True)
class Unit:
    """A shot of a film: what a triplet is wanted of."""

    film: Film
    shot: Shot

    @property
    def key(self) -> tuple[str, int]:
        return self.film.file, self.shot.start

    @property
    def take(self) -> str:
        return self.shot.take or f"{self.film.file}:{self.shot.start}"

    def entity(self, name: str) -> Entity | None:
        return next((e for e in self.shot.entities if e.id == name), None)

    def wanted(self, least_area: float = 0.02) -> list[Entity]:
        """People and things to be found: in at least half of the frames, half of it visible, so large a share of the picture."""
        return [e for e in self.shot.entities if e.kind in KINDS and self.size(e) >= least_area]

    def size(self, entity: Entity) -> float:
        """Share of the picture that it takes where at least half of it is visible, 0 to 1; 1 where nobody said."""
        if not entity.sights:
            return 1.0
        step = max(1, min((self.shot.end - self.shot.start) // 12, 5)) if self.film.reach == 0 else 1
        known = range(self.shot.start, self.shot.end, step) if self.film.reach == 0 else sorted(entity.sights)
        areas = [self._area(entity.sights.get(frame)) for frame in known]
        return float(np.median(areas)) if areas else 0.0

    def _area(self, seen: Sight | None) -> float:
        if seen is None or seen.visible < 0.5:
            return 0.0
        return float(seen.pixels(self.film.height, self.film.width).mean())


@dataclass(frozen=True)
class Truth:
    """A set of films."""

    tier: str  # S rendered, C composited, R real
    films: list[Film]
    seed: int = 0

    @cached_property
    def by_file(self) -> dict[str, Film]:
        return {film.file: film for film in self.films}

    @cached_property
    def units(self) -> list[Unit]:
        return [Unit(film, shot) for film in self.films for shot in film.shots]

    @cached_property
    def wanted(self) -> dict[tuple[str, int], list[Entity]]:
        """Unit -> what is to be found in it."""
        return {unit.key: unit.wanted() for unit in self.units}

    @cached_property
    def eligible(self) -> dict[tuple[str, int], set[str]]:
        """Unit -> ids of what is to be found and shows in a shot that is no copy of it, there on 1 % of the picture."""
        shown = [(unit.take, {e.id for e in unit.wanted(0.01)}) for unit in self.units]
        return {
            unit.key: {
                e.id for e in self.wanted[unit.key] if any(e.id in ids for take, ids in shown if take != unit.take)
            }
            for unit in self.units
        }

    @property
    def achievable(self) -> list[tuple[str, int]]:
        """Units all of whose wanted entities can have a reference; at least one there is."""
        return [key for key, wanted in self.wanted.items() if wanted and len(self.eligible[key]) == len(wanted)]


def save(truth: Truth, folder: Path) -> None:
    """Write a set's files; the films and the plates are the caller's."""
    names = [film.file for film in truth.films]
    about = {"format": FORMAT, "tier": truth.tier, "seed": truth.seed, "films": names}
    (folder / "set.json").write_text(json.dumps(about, indent=1) + "\n")
    for film in truth.films:
        stem = Path(film.file).stem
        data = {name: value for name, value in vars(film).items() if name != "thumbs"}
        data |= {"shots": [asdict(s) for s in film.shots], "transitions": [asdict(t) for t in film.transitions]}
        (folder / safe_name(f"{stem}.truth.json", film.file)).write_text(json.dumps(data) + "\n")
        if film.thumbs is not None:
            np.save(folder / safe_name(f"{stem}.thumbs.npy", film.file), film.thumbs)


def load(folder: Path) -> Truth:
    """A set that `save` or a person wrote. Raises ValueError with a sentence where it makes no sense."""
    if not (folder / "set.json").exists():
        raise ValueError(f"{folder} has no set.json: make one with `a2data bench-data make {folder}`")
    about = json.loads((folder / "set.json").read_text())
    if about.get("format") != FORMAT:
        raise ValueError(f"{folder / 'set.json'} is {about.get('format')!r}; this version reads {FORMAT!r}")
    return Truth(about["tier"], [_film(folder, name) for name in about["films"]], about.get("seed", 0))


def _film(folder: Path, name: str) -> Film:
    path = folder / safe_name(f"{Path(name).stem}.truth.json", f"{folder}/set.json")
    if not path.exists():
        raise ValueError(f"set.json names {name}, but there is no {path}")
    data = json.loads(path.read_text())
    thumbs = path.with_name(safe_name(f"{Path(name).stem}.thumbs.npy", f"{folder}/set.json"))
    try:
        data["shots"] = [_shot(shot) for shot in data["shots"]]
        data["transitions"] = [Transition(**t) for t in data.get("transitions", [])]
        data["content"] = tuple(data["content"]) if data.get("content") else None
        film = Film(**data, thumbs=np.load(thumbs) if thumbs.exists() else None)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: {error}; docs/triplet-bench.md has the fields") from error
    check(film.shots, film.frames, str(path))
    return film


def _shot(data: dict[str, Any]) -> Shot:
    entities = []
    for entity in data.get("entities", []):
        seen = {int(k): Sight(**v | {"box": tuple(v["box"])}) for k, v in entity.get("sights", {}).items()}
        entities.append(Entity(**entity | {"sights": seen}))
    return Shot(**data | {"entities": entities})


def check(shots: Iterable[Shot], frames: int, where: str) -> None:
    """Raises ValueError where shots overlap, run backwards or leave the film."""
    end = 0
    for shot in shots:
        if not end <= shot.start < shot.end <= frames:
            raise ValueError(
                f"{where}: a shot from {shot.start} to {shot.end} after one that ends at {end}, in {frames} frames"
            )
        end = shot.end
