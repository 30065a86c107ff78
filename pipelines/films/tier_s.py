"""Tier S: scripted films, rendered with the truth of every frame. `a2data triplet-bench make OUT --tier S`."""

import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np

from a2data.media.images import thumb, to_png
from a2data.media.video import encode
from pipelines.films import people, places, renderer, tier_s_cast
from pipelines.films.demo_script import Actor
from pipelines.films.tier_s_cast import CAST, LOOKALIKES, NOUNS
from pipelines.films.tier_s_script import Reel, Scene, reels
from pipelines.films.truth import Entity, Film, Shot, Sight, Transition, Truth, save, sight

SIZE = (640, 360)
POSTER_AT = (176, 168)  # upper left corner on the plate, px


class RenderedFrame(NamedTuple):
    """A picture and the visible part of each entity."""

    picture: np.ndarray  # (h, w, 3) uint8 RGB
    shown: dict[str, tuple[np.ndarray, float]]  # id -> visible mask, (h, w) bool, and visible fraction, 0 to 1


def make(out: Path, seed: int = 0, films: tuple[Reel, ...] | None = None, size: tuple[int, int] = SIZE) -> Truth:
    """Render the films of a seed and their truth into `out`. The same seed gives the same bytes."""
    (out / "plates").mkdir(parents=True, exist_ok=True)
    script = films or reels(seed)
    wardrobes = wearers(script)
    truth = Truth("S", [_film(reel, out, seed + 100 * n, size, wardrobes) for n, reel in enumerate(script)], seed)
    save(truth, out)
    return truth


def wearers(script: tuple[Reel, ...]) -> dict[str, set[str]]:
    """Return the ids of the people who wear each outfit in any scene."""
    out: dict[str, set[str]] = {}
    for actor in (a for reel in script for scene in reel.scenes for a in scene.actors if a.id in CAST):
        out.setdefault(actor.outfit, set()).add(actor.id)
    return out


def _film(reel: Reel, out: Path, seed: int, size: tuple[int, int], wardrobes: dict[str, set[str]]) -> Film:
    shots: list[Shot] = []
    thumbs: list[np.ndarray] = []
    bars = round(reel.bars_px * size[1] / SIZE[1])

    def pictures() -> Iterator[np.ndarray]:
        for picture in frames(reel, seed, size, shots, wardrobes):
            thumbs.append(thumb(picture[bars : size[1] - bars]))
            yield picture

    data = encode(pictures(), reel.fps, crf=20)
    if reel.jitter or reel.first_pts_s or reel.file.endswith(".mkv"):
        data = retimed(data, times(reel, len(thumbs), seed))
    (out / reel.file).write_bytes(data)
    for number, (shot, scene) in enumerate(zip(shots, reel.scenes, strict=True)):
        plate = framed(empty(scene, 0.0, (size[0], size[1] - 2 * bars)), bars)
        name = f"plates/{Path(reel.file).stem}-{number}.png"
        (out / name).write_bytes(to_png(plate))
        shots[number] = Shot(
            **{**vars(shot), "plate": name, "colours": tier_s_cast.place_colours(plate[bars : size[1] - bars])}
        )
    joints = list(zip(reel.scenes, shots, shots[1:], strict=False))
    return Film(
        file=reel.file,
        fps=reel.fps,
        frames=len(thumbs),
        width=size[0],
        height=size[1],
        cuts=[b.start for scene, _, b in joints if scene.then == "cut"],
        shots=shots,
        transitions=[Transition(s.then, a.end, b.start) for s, a, b in joints if s.then != "cut"],
        content=(0.0, float(bars), float(size[0]), float(size[1] - bars)) if bars else None,
        thumbs=np.stack(thumbs),
    )


def frames(
    reel: Reel, seed: int, size: tuple[int, int], shots: list[Shot], wardrobes: dict[str, set[str]]
) -> Iterator[np.ndarray]:
    """Yield the frames of a film, with its letterbox bars; append the truth of each scene to `shots` at its end."""
    number, soft = 0, round(reel.transition_s * reel.fps)
    bars = round(reel.bars_px * size[1] / SIZE[1])
    inner = (size[0], size[1] - 2 * bars)
    for index, scene in enumerate(reel.scenes):
        length = round(scene.seconds * reel.fps)
        sights: dict[str, dict[int, Sight]] = {}
        for step in range(length):
            # a copied take has the grain of its own film, like a second scan
            drawn = draw(scene, step / length, seed + index, inner)
            for name, (mask, visible) in drawn.shown.items():
                sights.setdefault(name, {})
                if mask.any():
                    sights[name][number + step] = sight(framed(mask, bars), visible)
            yield framed(drawn.picture, bars)
        shots.append(_shot(scene, number, length, sights, wardrobes))
        number += length
        if scene.then != "cut" and index + 1 < len(reel.scenes):
            after = reel.scenes[index + 1]
            ahead = round(after.seconds * reel.fps)
            for step in range(soft):
                old = draw(scene, (length + step) / length, seed + index, inner).picture
                new = draw(after, (step - soft) / ahead, seed + index + 1, inner).picture
                yield framed(blend(old, new, (step + 1) / (soft + 1), scene.then), bars)
                number += 1


def framed(picture: np.ndarray, bars: int) -> np.ndarray:
    """Add black bars above and below a picture or mask."""
    wide = [(bars, bars), (0, 0), (0, 0)][: picture.ndim]
    return np.pad(picture, wide) if bars else picture


def blend(old: np.ndarray, new: np.ndarray, progress: float, kind: str) -> np.ndarray:
    """Return a frame of a transition. progress: 0 is the old scene, 1 the new one."""
    if kind != "wipe":
        return renderer.blend(old, new, progress, kind)
    edge = round(progress * old.shape[1])
    return np.hstack([new[:, :edge], old[:, edge:]])


def _shot(
    scene: Scene, first: int, length: int, sights: dict[str, dict[int, Sight]], wardrobes: dict[str, set[str]]
) -> Shot:
    entities = [_entity(actor, scene, sights.get(actor.id, {}), wardrobes) for actor in scene.actors]
    if scene.poster:
        name = f"poster of {scene.poster}"
        entities.append(Entity(name, "poster", ["poster", "picture"], sights=sights.get(name, {})))
    take = f"{scene.take}" if scene.take else ""
    return Shot(first, first + length, scene.place, scene.light, scene.camera, take, entities=entities)


def _entity(actor: Actor, scene: Scene, sights: dict[int, Sight], wardrobes: dict[str, set[str]]) -> Entity:
    human = actor.id in CAST
    hidden = min((s.visible for s in sights.values()), default=0.0) < 0.7
    difficulties = {
        "look-alike": actor.id in LOOKALIKES,
        "same clothes": human and len(wardrobes[actor.outfit]) > 1,
        "several outfits": human and sum(actor.id in who for who in wardrobes.values()) > 1,
        "hidden or leaving": hidden,
        "poster": bool(scene.poster),
        "has a copy": bool(scene.take),
    }
    hard_negatives = [name for name, applies in difficulties.items() if applies]
    if human:
        tops = {"upper": tier_s_cast.top_colours(actor.outfit, scene.light)}
        return Entity(actor.id, "human", ["woman"], actor.outfit, tops, hard_negatives, sights)
    own = {"": list(tier_s_cast.thing_colours(actor.id, scene.light))}
    return Entity(actor.id, "object", NOUNS[actor.id], "", own, hard_negatives, sights)


# -- pictures ----------------------------------------------------------------------------------------------------------


def empty(scene: Scene, at: float, size: tuple[int, int]) -> np.ndarray:
    """Draw the background of a scene without its actors, (h, w, 3) uint8."""
    plate = places.lit(cv2.warpAffine(_wall(scene), renderer.view(scene, at, size), size), scene.light)
    return plate[:, ::-1] if scene.mirrored else plate


def _wall(scene: Scene) -> np.ndarray:
    plate = places.plate(scene.place)
    if not scene.poster:
        return plate
    picture, (x, y) = tier_s_cast.poster(scene.poster), POSTER_AT
    hung = plate.copy()
    hung[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    return hung


def _poster_corners(scene: Scene) -> np.ndarray:
    """Return the corners of the poster on the plate, (2, 3), homogeneous."""
    picture, (x, y) = tier_s_cast.poster(scene.poster), POSTER_AT
    return np.array([(x, y, 1), (x + picture.shape[1], y + picture.shape[0], 1)], float)


def draw(scene: Scene, at: float, seed: int, size: tuple[int, int]) -> RenderedFrame:
    """Draw a scene at the fraction `at` of its length: 0 to 1, or outside this range in transitions."""
    camera = renderer.view(scene, at, size)
    picture = cv2.warpAffine(_wall(scene), camera, size)
    ledge = int(np.clip(round(camera[1, 1] * places.LEDGE_Y[scene.place] + camera[1, 2]), 0, size[1]))
    whole: list[tuple[str, np.ndarray, float]] = []
    if scene.poster:
        (x0, y0), (x1, y1) = np.clip(np.rint(_poster_corners(scene) @ camera.T), 0, size).astype(int)
        flat = np.zeros(picture.shape[:2], bool)
        flat[y0:y1, x0:x1] = True
        whole.append((f"poster of {scene.poster}", flat, 1.0))
    for actor in scene.actors:
        front, silhouette = picture[ledge:].copy(), np.zeros(picture.shape[:2], np.uint8)
        if actor.id not in CAST:
            renderer.paint(picture, renderer.shadow(), camera @ _cast(actor, at))
        extent = [np.inf, -np.inf]
        for sprite, matrix in layers(actor, at, scene.seconds, zlib.crc32(scene.take.encode()) if scene.take else seed):
            renderer.paint(picture, sprite, camera @ matrix, silhouette)
            xs = (camera @ matrix @ np.array([(0, 0, 1), (sprite.shape[1], 0, 1)]).T)[0]
            extent = [min(extent[0], xs.min()), max(extent[1], xs.max())]
        if actor.id in CAST:
            picture[ledge:] = front  # people stand behind the ledge
            silhouette[ledge:] = 0
        inside = (min(extent[1], size[0]) - max(extent[0], 0)) / (extent[1] - extent[0])
        whole.append((actor.id, silhouette > 127, float(np.clip(inside, 0, 1))))
    shown = _visible_parts(whole)
    picture = renderer.grain(places.lit(picture, scene.light), round(at * 1e4), seed)
    if scene.mirrored:
        picture = np.ascontiguousarray(picture[:, ::-1])
        shown = {name: (mask[:, ::-1], visible) for name, (mask, visible) in shown.items()}
    return RenderedFrame(picture, shown)


def _visible_parts(whole: list[tuple[str, np.ndarray, float]]) -> dict[str, tuple[np.ndarray, float]]:
    """Remove from each mask what nearer actors hide. The nearest actor is last."""
    nearer = np.zeros(whole[0][1].shape, bool) if whole else np.zeros((1, 1), bool)
    out = {}
    for name, mask, inside in reversed(whole):
        seen = mask & ~nearer
        out[name] = (seen, float(seen.sum() / max(1, mask.sum())) * inside)
        nearer = nearer | mask
    return out


def layers(actor: Actor, at: float, seconds: float, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the sprites of an actor, back to front, each with its (3, 3) matrix to the plate."""
    x, y, height = actor.where(at)
    if actor.id not in CAST:
        if actor.id != "green suitcase":
            yield from renderer.layers(actor, at, seconds, seed)
            return
        sprite = tier_s_cast.thing(actor.id)
        while len(sprite) > 2 * height:
            sprite = cv2.resize(sprite, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        yield sprite, renderer.upright(sprite, x, y, height / len(sprite))
        return
    figure = people.dressed(CAST[actor.id], actor.outfit)
    phase = 2 * np.pi * np.random.default_rng((seed, zlib.crc32(actor.id.encode()))).random(3)
    waves = np.sin(2 * np.pi * np.array([0.26, 0.41, 0.34]) * at * seconds + phase)
    place = renderer.upright(figure.body, x + 4 * waves[0], y + 2 * waves[1], height / figure.face_px)
    nod = np.vstack([cv2.getRotationMatrix2D(figure.neck, 3.2 * waves[2], 1.0), (0, 0, 1)])
    yield figure.body, place
    yield figure.head, place @ nod


def _cast(actor: Actor, at: float) -> np.ndarray:
    """Return the (3, 3) matrix of an object's shadow. The shadow stays on the ground if the object is lifted."""
    x, y, height = actor.where(at)
    sprite = tier_s_cast.thing(actor.id)
    width = 1.15 * height * sprite.shape[1] / sprite.shape[0]
    return np.array([[width / 256, 0, x - width / 2], [0, height / 300, y - 0.55 * 64 * height / 300], [0, 0, 1]])


# -- times -------------------------------------------------------------------------------------------------------------


def times(reel: Reel, count: int, seed: int) -> list[float]:
    """Return the presentation time of each frame, s: evenly spaced or, for a variable frame rate, with seeded jitter."""
    away = np.random.default_rng((seed, 7)).uniform(-0.5, 0.5, count) * reel.jitter
    return [reel.first_pts_s + max(0.0, n + a) / reel.fps for n, a in enumerate(away.tolist())]


def retimed(mp4: bytes, times_s: list[float]) -> bytes:
    """Remux a stream to Matroska; its n-th frame in presentation order gets the n-th time."""
    buffer = io.BytesIO()
    options = {"fflags": "+bitexact"}
    with av.open(io.BytesIO(mp4), "r") as source, av.open(buffer, "w", format="matroska", options=options) as target:
        coded = source.streams.video[0]
        stream = target.add_stream_from_template(coded)
        packets = [p for p in source.demux(video=0) if p.pts is not None and p.dts is not None]
        order = {pts: n for n, pts in enumerate(sorted(p.pts for p in packets if p.pts is not None))}
        for number, packet in enumerate(packets):
            base = packet.time_base
            shown = round(times_s[order[packet.pts or 0]] / base)
            # decode times are two frames ahead of presentation times
            early = times_s[number - 2] if number >= 2 else times_s[0] - (2 - number) / 30
            packet.pts, packet.dts, packet.stream = shown, min(shown, round(early / base)), stream
            target.mux(packet)
    return buffer.getvalue()
