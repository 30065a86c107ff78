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
    visible_parts: dict[str, tuple[np.ndarray, float]]  # id -> visible mask, (h, w) bool, and visible fraction, 0 to 1


def make(out: Path, seed: int = 0, films: tuple[Reel, ...] | None = None, size: tuple[int, int] = SIZE) -> Truth:
    """Render the films of a seed and their truth into `out`. The same seed gives the same bytes."""
    (out / "plates").mkdir(parents=True, exist_ok=True)
    script = films or reels(seed)
    wearers = wearers_by_outfit(script)
    truth = Truth("S", [_film(reel, out, seed + 100 * n, size, wearers) for n, reel in enumerate(script)], seed)
    save(truth, out)
    return truth


def wearers_by_outfit(script: tuple[Reel, ...]) -> dict[str, set[str]]:
    """Return the ids of the people who wear each outfit in any scene."""
    wearers: dict[str, set[str]] = {}
    for actor in (a for reel in script for scene in reel.scenes for a in scene.actors if a.id in CAST):
        wearers.setdefault(actor.outfit, set()).add(actor.id)
    return wearers


def _film(reel: Reel, out: Path, seed: int, size: tuple[int, int], wearers: dict[str, set[str]]) -> Film:
    shots: list[Shot] = []
    thumbs: list[np.ndarray] = []
    bars = round(reel.bars_px * size[1] / SIZE[1])

    def pictures() -> Iterator[np.ndarray]:
        for picture in frames(reel, seed, size, shots, wearers):
            thumbs.append(thumb(picture[bars : size[1] - bars]))
            yield picture

    data = encode(pictures(), reel.fps, crf=20)
    if reel.jitter or reel.first_pts_s or reel.file.endswith(".mkv"):
        data = with_frame_times(data, frame_times(reel, len(thumbs), seed))
    (out / reel.file).write_bytes(data)
    for number, (shot, scene) in enumerate(zip(shots, reel.scenes, strict=True)):
        plate = add_letterbox(draw_background(scene, 0.0, (size[0], size[1] - 2 * bars)), bars)
        name = f"plates/{Path(reel.file).stem}-{number}.png"
        (out / name).write_bytes(to_png(plate))
        shots[number] = Shot(
            **{**vars(shot), "plate": name, "colours": tier_s_cast.place_colours(plate[bars : size[1] - bars])}
        )
    shot_pairs = list(zip(reel.scenes, shots, shots[1:], strict=False))
    return Film(
        file=reel.file,
        fps=reel.fps,
        frames=len(thumbs),
        width=size[0],
        height=size[1],
        cuts=[b.start for scene, _, b in shot_pairs if scene.transition == "cut"],
        shots=shots,
        transitions=[Transition(s.transition, a.end, b.start) for s, a, b in shot_pairs if s.transition != "cut"],
        content=(0.0, float(bars), float(size[0]), float(size[1] - bars)) if bars else None,
        thumbs=np.stack(thumbs),
    )


def frames(
    reel: Reel, seed: int, size: tuple[int, int], shots: list[Shot], wearers: dict[str, set[str]]
) -> Iterator[np.ndarray]:
    """Yield the frames of a film, with its letterbox bars; append the truth of each scene to `shots` at its end."""
    frame_number, transition_frames = 0, round(reel.transition_s * reel.fps)
    bars = round(reel.bars_px * size[1] / SIZE[1])
    picture_size = (size[0], size[1] - 2 * bars)
    for index, scene in enumerate(reel.scenes):
        length = round(scene.seconds * reel.fps)
        sights: dict[str, dict[int, Sight]] = {}
        for step in range(length):
            # a copied take has the grain of its own film, like a second scan
            frame = draw(scene, step / length, seed + index, picture_size)
            for name, (mask, visible) in frame.visible_parts.items():
                sights.setdefault(name, {})
                if mask.any():
                    sights[name][frame_number + step] = sight(add_letterbox(mask, bars), visible)
            yield add_letterbox(frame.picture, bars)
        shots.append(_shot(scene, frame_number, length, sights, wearers))
        frame_number += length
        if scene.transition != "cut" and index + 1 < len(reel.scenes):
            next_scene = reel.scenes[index + 1]
            next_length = round(next_scene.seconds * reel.fps)
            for step in range(transition_frames):
                old = draw(scene, (length + step) / length, seed + index, picture_size).picture
                new = draw(next_scene, (step - transition_frames) / next_length, seed + index + 1, picture_size).picture
                yield add_letterbox(blend(old, new, (step + 1) / (transition_frames + 1), scene.transition), bars)
                frame_number += 1


def add_letterbox(picture: np.ndarray, bars: int) -> np.ndarray:
    """Add black bars above and below a picture or mask."""
    padding = [(bars, bars), (0, 0), (0, 0)][: picture.ndim]
    return np.pad(picture, padding) if bars else picture


def blend(old: np.ndarray, new: np.ndarray, progress: float, kind: str) -> np.ndarray:
    """Return a frame of a transition. progress: 0 is the old scene, 1 the new one."""
    if kind != "wipe":
        return renderer.blend(old, new, progress, kind)
    edge = round(progress * old.shape[1])
    return np.hstack([new[:, :edge], old[:, edge:]])


def _shot(
    scene: Scene, first: int, length: int, sights: dict[str, dict[int, Sight]], wearers: dict[str, set[str]]
) -> Shot:
    entities = [_entity(actor, scene, sights.get(actor.id, {}), wearers) for actor in scene.actors]
    if scene.poster:
        name = f"poster of {scene.poster}"
        entities.append(Entity(name, "poster", ["poster", "picture"], sights=sights.get(name, {})))
    take = f"{scene.take}" if scene.take else ""
    return Shot(first, first + length, scene.place, scene.light, scene.camera, take, entities=entities)


def _entity(actor: Actor, scene: Scene, sights: dict[int, Sight], wearers: dict[str, set[str]]) -> Entity:
    human = actor.id in CAST
    hidden = min((s.visible for s in sights.values()), default=0.0) < 0.7
    difficulties = {
        "look-alike": actor.id in LOOKALIKES,
        "same clothes": human and len(wearers[actor.outfit]) > 1,
        "several outfits": human and sum(actor.id in who for who in wearers.values()) > 1,
        "hidden or leaving": hidden,
        "poster": bool(scene.poster),
        "has a copy": bool(scene.take),
    }
    hard_negatives = [name for name, applies in difficulties.items() if applies]
    if human:
        colours = {"upper": tier_s_cast.top_colours(actor.outfit, scene.light)}
        return Entity(actor.id, "human", ["woman"], actor.outfit, colours, hard_negatives, sights)
    colours_of_object = {"": list(tier_s_cast.object_colours(actor.id, scene.light))}
    return Entity(actor.id, "object", NOUNS[actor.id], "", colours_of_object, hard_negatives, sights)


# -- pictures ----------------------------------------------------------------------------------------------------------


def draw_background(scene: Scene, progress: float, size: tuple[int, int]) -> np.ndarray:
    """Draw the background of a scene without its actors, (h, w, 3) uint8."""
    plate = places.relight(
        cv2.warpAffine(_wall(scene), renderer.camera_matrix(scene, progress, size), size), scene.light
    )
    return plate[:, ::-1] if scene.mirrored else plate


def _wall(scene: Scene) -> np.ndarray:
    plate = places.plate(scene.place)
    if not scene.poster:
        return plate
    picture, (x, y) = tier_s_cast.poster(scene.poster), POSTER_AT
    with_poster = plate.copy()
    with_poster[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    return with_poster


def _poster_corners(scene: Scene) -> np.ndarray:
    """Return the corners of the poster on the plate, (2, 3), homogeneous."""
    picture, (x, y) = tier_s_cast.poster(scene.poster), POSTER_AT
    return np.array([(x, y, 1), (x + picture.shape[1], y + picture.shape[0], 1)], float)


def draw(scene: Scene, progress: float, seed: int, size: tuple[int, int]) -> RenderedFrame:
    """Draw a scene at the fraction `progress` of its length: 0 to 1, or outside this range in transitions."""
    camera = renderer.camera_matrix(scene, progress, size)
    picture = cv2.warpAffine(_wall(scene), camera, size)
    ledge = int(np.clip(round(camera[1, 1] * places.LEDGE_Y[scene.place] + camera[1, 2]), 0, size[1]))
    silhouettes: list[tuple[str, np.ndarray, float]] = []
    if scene.poster:
        (x0, y0), (x1, y1) = np.clip(np.rint(_poster_corners(scene) @ camera.T), 0, size).astype(int)
        poster_mask = np.zeros(picture.shape[:2], bool)
        poster_mask[y0:y1, x0:x1] = True
        silhouettes.append((f"poster of {scene.poster}", poster_mask, 1.0))
    for actor in scene.actors:
        foreground, silhouette = picture[ledge:].copy(), np.zeros(picture.shape[:2], np.uint8)
        if actor.id not in CAST:
            renderer.paint(picture, renderer.shadow(), camera @ _shadow_matrix(actor, progress))
        extent = [np.inf, -np.inf]
        for sprite, matrix in actor_sprites(
            actor, progress, scene.seconds, zlib.crc32(scene.take.encode()) if scene.take else seed
        ):
            renderer.paint(picture, sprite, camera @ matrix, silhouette)
            xs = (camera @ matrix @ np.array([(0, 0, 1), (sprite.shape[1], 0, 1)]).T)[0]
            extent = [min(extent[0], xs.min()), max(extent[1], xs.max())]
        if actor.id in CAST:
            picture[ledge:] = foreground  # people stand behind the ledge
            silhouette[ledge:] = 0
        inside = (min(extent[1], size[0]) - max(extent[0], 0)) / (extent[1] - extent[0])
        silhouettes.append((actor.id, silhouette > 127, float(np.clip(inside, 0, 1))))
    visible_parts = _visible_parts(silhouettes)
    picture = renderer.add_grain(places.relight(picture, scene.light), round(progress * 1e4), seed)
    if scene.mirrored:
        picture = np.ascontiguousarray(picture[:, ::-1])
        visible_parts = {name: (mask[:, ::-1], visible) for name, (mask, visible) in visible_parts.items()}
    return RenderedFrame(picture, visible_parts)


def _visible_parts(silhouettes: list[tuple[str, np.ndarray, float]]) -> dict[str, tuple[np.ndarray, float]]:
    """Remove from each mask the pixels that nearer actors occlude. The nearest actor is last."""
    occluded = np.zeros(silhouettes[0][1].shape, bool) if silhouettes else np.zeros((1, 1), bool)
    parts = {}
    for name, mask, inside in reversed(silhouettes):
        visible = mask & ~occluded
        parts[name] = (visible, float(visible.sum() / max(1, mask.sum())) * inside)
        occluded = occluded | mask
    return parts


def actor_sprites(actor: Actor, progress: float, seconds: float, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the sprites of an actor, back to front, each with its (3, 3) matrix to the plate."""
    x, y, height = actor.position_at(progress)
    if actor.id not in CAST:
        if actor.id != "green suitcase":
            yield from renderer.actor_sprites(actor, progress, seconds, seed)
            return
        sprite = tier_s_cast.object_sprite(actor.id)
        while len(sprite) > 2 * height:
            sprite = cv2.resize(sprite, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        yield sprite, renderer.sprite_matrix(sprite, x, y, height / len(sprite))
        return
    figure = people.figure_of(CAST[actor.id], actor.outfit)
    phase = 2 * np.pi * np.random.default_rng((seed, zlib.crc32(actor.id.encode()))).random(3)
    waves = np.sin(2 * np.pi * np.array([0.26, 0.41, 0.34]) * progress * seconds + phase)
    body_matrix = renderer.sprite_matrix(figure.body, x + 4 * waves[0], y + 2 * waves[1], height / figure.face_px)
    head_rotation = np.vstack([cv2.getRotationMatrix2D(figure.neck, 3.2 * waves[2], 1.0), (0, 0, 1)])
    yield figure.body, body_matrix
    yield figure.head, body_matrix @ head_rotation


def _shadow_matrix(actor: Actor, progress: float) -> np.ndarray:
    """Return the (3, 3) matrix of an object's shadow. The shadow stays on the ground if the object is lifted."""
    x, y, height = actor.position_at(progress)
    sprite = tier_s_cast.object_sprite(actor.id)
    width = 1.15 * height * sprite.shape[1] / sprite.shape[0]
    return np.array([[width / 256, 0, x - width / 2], [0, height / 300, y - 0.55 * 64 * height / 300], [0, 0, 1]])


# -- times -------------------------------------------------------------------------------------------------------------


def frame_times(reel: Reel, count: int, seed: int) -> list[float]:
    """Return the presentation time of each frame, s: evenly spaced or, for a variable frame rate, with seeded jitter."""
    deviations = np.random.default_rng((seed, 7)).uniform(-0.5, 0.5, count) * reel.jitter
    return [reel.first_pts_s + max(0.0, n + a) / reel.fps for n, a in enumerate(deviations.tolist())]


def with_frame_times(mp4: bytes, times_s: list[float]) -> bytes:
    """Remux a stream to Matroska; its n-th frame in presentation order gets the n-th time."""
    buffer = io.BytesIO()
    options = {"fflags": "+bitexact"}
    with av.open(io.BytesIO(mp4), "r") as source, av.open(buffer, "w", format="matroska", options=options) as target:
        source_stream = source.streams.video[0]
        stream = target.add_stream_from_template(source_stream)
        packets = [p for p in source.demux(video=0) if p.pts is not None and p.dts is not None]
        order = {pts: n for n, pts in enumerate(sorted(p.pts for p in packets if p.pts is not None))}
        for number, packet in enumerate(packets):
            base = packet.time_base
            presented = round(times_s[order[packet.pts or 0]] / base)
            # decode times are two frames ahead of presentation times
            dts_s = times_s[number - 2] if number >= 2 else times_s[0] - (2 - number) / 30
            packet.pts, packet.dts, packet.stream = presented, min(presented, round(dts_s / base)), stream
            target.mux(packet)
    return buffer.getvalue()
