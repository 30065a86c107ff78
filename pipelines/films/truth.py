"""Ground truth of films: entities in each frame, cuts and transitions, and shots that are copies of one another.

A set of films is a folder with `set.json` (tier, seed, names of the films) and, for each film, `<stem>.truth.json` and,
optionally, `<stem>.thumbs.npy`, the thumbnails of all its frames. The JSON has the fields of the classes below;
docs/triplet-bench.md explains how to write one by hand. Everything is in pixels and frames of the source.
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
KINDS = ("human", "object")  # kinds to be detected; any other kind (a poster of a person) must not be


@dataclass(frozen=True)
class Sight:
    """The visible part of an entity in one frame."""

    box: Box
    visible: float = 1.0  # fraction that is inside the picture and not occluded, 0 to 1
    mask: str = ""  # base64 of a2data.media.images.to_rle, of the whole picture; "" if only the box is known
    alpha: str = ""  # base64 of a PNG of the box: the alpha of each pixel; "" if binary

    def pixels(self, height: int, width: int) -> np.ndarray:
        """Return the alpha, (height, width) float32, 0 to 1; without alpha the mask, without mask the box."""
        out = np.zeros((height, width), np.float32)
        x0, y0, x1, y1 = (round(v) for v in self.box)
        if self.alpha:
            out[y0:y1, x0:x1] = from_png(base64.b64decode(self.alpha))[..., 0] / 255
        elif self.mask:
            out[:] = from_rle(base64.b64decode(self.mask))
        else:
            out[y0:y1, x0:x1] = 1
        return out


def sight(pixels: np.ndarray, visible: float, soft: bool = False) -> Sight:
    """Return the sight of an (h, w) alpha, bool or 0 to 1, that is at least 0.5 somewhere. soft: keep the alpha too."""
    mask = np.asarray(pixels) >= 0.5
    box = bounds(np.asarray(pixels) > 1 / 512 if soft else mask)
    x0, y0, x1, y1 = (int(v) for v in box)
    grey = np.rint(np.asarray(pixels, np.float32)[y0:y1, x0:x1] * 255).astype(np.uint8)
    alpha = _base64(to_png(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB))) if soft else ""
    return Sight(box, round(float(visible), 4), _base64(to_rle(mask)), alpha)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass(frozen=True)
class Entity:
    """A person or object in a shot."""

    id: str  # the same in every film of the set
    kind: str  # "human", "object", or another word for what must not be detected as either, such as "poster"
    nouns: list[str] = field(default_factory=list)  # nouns for it, singular; the most common first
    outfit: str = ""
    colours: dict[str, list[str]] = field(default_factory=dict)  # "" or a kind of garment -> correct colour names
    hard_negatives: list[str] = field(
        default_factory=list
    )  # why it is hard in this shot: "look-alike", "same clothes" …
    sights: dict[int, Sight] = field(default_factory=dict)  # frame -> visible part; empty if only the shot is known


@dataclass(frozen=True)
class Shot:
    """Frames from `start` to before `end`; a gradual transition belongs to neither of its shots."""

    start: int
    end: int
    place: str = ""  # the same in every film
    light: str = ""
    camera: str = ""  # "static" if the plate is valid for all frames
    take: str = ""  # shots of one take are copies of one another: mirrored, cropped or re-encoded; "" if unique
    colours: list[str] = field(default_factory=list)  # colour names of the place; empty if not annotated
    plate: str = ""  # file beside the truth that shows the place without people; "" if there is none
    entities: list[Entity] = field(default_factory=list)


@dataclass(frozen=True)
class Transition:
    """A gradual transition: frames that do not belong to any shot."""

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
    # kinds that are completely annotated; others are not scored
    labelled: list[str] = field(default_factory=lambda: list(KINDS))
    reach: int = 0  # frames around its own for which a sight is valid; 0 if every frame has its own
    thumbs: np.ndarray | None = field(default=None, compare=False, repr=False)  # (frames, 18, 24) uint8 of `content`

    def shot_at(self, frame: int) -> Shot | None:
        """Return the shot of a frame; None in a transition."""
        return next((shot for shot in self.shots if shot.start <= frame < shot.end), None)

    def sight_of(self, entity: Entity, frame: int) -> Sight | None:
        """Return the nearest sight of an entity within `reach` of a frame; None if it is hidden or not annotated there."""
        nearest = min(entity.sights, key=lambda known: (abs(known - frame), known), default=None)
        return entity.sights[nearest] if nearest is not None and abs(nearest - frame) <= self.reach else None


@dataclass(frozen=True)
class Unit:
    """A shot of a film, for which a triplet is expected."""

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

    def expected_entities(self, min_area: float = 0.02) -> list[Entity]:
        """Return the entities to be found: at least half visible in half of the frames, with this fraction of the picture."""
        return [e for e in self.shot.entities if e.kind in KINDS and self.size(e) >= min_area]

    def size(self, entity: Entity) -> float:
        """Return the entity's median fraction of the picture, 0 to 1; frames where less than half is visible count 0.

        1 without annotated sights.
        """
        if not entity.sights:
            return 1.0
        step = max(1, min((self.shot.end - self.shot.start) // 12, 5)) if self.film.reach == 0 else 1
        known = range(self.shot.start, self.shot.end, step) if self.film.reach == 0 else sorted(entity.sights)
        areas = [self._area(entity.sights.get(frame)) for frame in known]
        return float(np.median(areas)) if areas else 0.0

    def _area(self, sight: Sight | None) -> float:
        if sight is None or sight.visible < 0.5:
            return 0.0
        return float(sight.pixels(self.film.height, self.film.width).mean())


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
    def expected(self) -> dict[tuple[str, int], list[Entity]]:
        """Entities to be found in each unit."""
        return {unit.key: unit.expected_entities() for unit in self.units}

    @cached_property
    def eligible(self) -> dict[tuple[str, int], set[str]]:
        """Ids of the entities to be found in each unit that also cover 1 % of the picture in a shot of another take."""
        ids_by_take = [(unit.take, {e.id for e in unit.expected_entities(0.01)}) for unit in self.units]
        return {
            unit.key: {
                e.id
                for e in self.expected[unit.key]
                if any(e.id in ids for take, ids in ids_by_take if take != unit.take)
            }
            for unit in self.units
        }

    @property
    def achievable(self) -> list[tuple[str, int]]:
        """Units with at least one entity to be found in which every such entity can have a reference."""
        return [key for key, entities in self.expected.items() if entities and len(self.eligible[key]) == len(entities)]


def save(truth: Truth, folder: Path) -> None:
    """Write the truth files of a set. The caller writes the films and the plates."""
    names = [film.file for film in truth.films]
    header = {"format": FORMAT, "tier": truth.tier, "seed": truth.seed, "films": names}
    (folder / "set.json").write_text(json.dumps(header, indent=1) + "\n")
    for film in truth.films:
        stem = Path(film.file).stem
        data = {name: value for name, value in vars(film).items() if name != "thumbs"}
        data |= {"shots": [asdict(s) for s in film.shots], "transitions": [asdict(t) for t in film.transitions]}
        (folder / safe_name(f"{stem}.truth.json", film.file)).write_text(json.dumps(data) + "\n")
        if film.thumbs is not None:
            np.save(folder / safe_name(f"{stem}.thumbs.npy", film.file), film.thumbs)


def load(folder: Path) -> Truth:
    """Read a set written by `save` or by hand. Raises ValueError if it is missing, invalid or inconsistent."""
    if not (folder / "set.json").exists():
        raise ValueError(f"{folder} has no set.json: make one with `a2data triplet-bench make {folder}`")
    header = json.loads((folder / "set.json").read_text())
    if header.get("format") != FORMAT:
        raise ValueError(f"{folder / 'set.json'} is {header.get('format')!r}; this version reads {FORMAT!r}")
    return Truth(header["tier"], [_film(folder, name) for name in header["films"]], header.get("seed", 0))


def _film(folder: Path, name: str) -> Film:
    path = folder / safe_name(f"{Path(name).stem}.truth.json", f"{folder}/set.json")
    if not path.exists():
        raise ValueError(f"set.json lists {name}, but {path} does not exist")
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
        sights = {int(k): Sight(**v | {"box": tuple(v["box"])}) for k, v in entity.get("sights", {}).items()}
        entities.append(Entity(**entity | {"sights": sights}))
    return Shot(**data | {"entities": entities})


def check(shots: Iterable[Shot], frames: int, path: str) -> None:
    """Raise ValueError if shots overlap, are not in order or extend beyond the film."""
    end = 0
    for shot in shots:
        if not end <= shot.start < shot.end <= frames:
            raise ValueError(
                f"{path}: a shot from {shot.start} to {shot.end} after one that ends at {end}, in {frames} frames"
            )
        end = shot.end
