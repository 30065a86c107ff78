"""Draw the frames of a demo film: a background, then people and objects in depth order, with shadows and grain."""

import io
import zlib
from collections.abc import Iterator
from functools import cache

import av
import cv2
import numpy as np

from pipelines.films import people as demo_people
from pipelines.films import places, props
from pipelines.films.demo_script import Actor, Shot


def blend(old: np.ndarray, new: np.ndarray, progress: float, kind: str) -> np.ndarray:
    """Return a frame of a dissolve or of a fade through black. progress: 0 is the old shot, 1 the new one."""
    if kind == "dissolve":
        return cv2.addWeighted(old, 1 - progress, new, progress, 0)
    return cv2.convertScaleAbs(old if progress < 0.5 else new, alpha=abs(1 - 2 * progress))


def draw(
    shot: Shot, progress: float, seed: int, size: tuple[int, int]
) -> tuple[np.ndarray, list[tuple[np.ndarray, float]]]:
    """Draw a shot at the fraction `progress` of its length: 0 to 1, or outside this range in transitions.

    Returns the picture, (h, w, 3) uint8, and for each actor the (h, w) bool mask of its visible pixels and the fraction of its
    silhouette that nearer actors do not hide, 0 to 1.
    """
    camera = camera_matrix(shot, progress, size)
    picture = cv2.warpAffine(places.plate(shot.place), camera, size)
    ledge = int(np.clip(round(camera[1, 1] * places.LEDGE_Y[shot.place] + camera[1, 2]), 0, size[1]))
    silhouettes = []
    for actor in shot.actors:
        foreground = picture[ledge:].copy()
        silhouette = np.zeros(picture.shape[:2], np.uint8)
        if not actor.human:
            paint(picture, shadow(), camera @ _shadow_matrix(actor, progress))
        for sprite, matrix in actor_sprites(actor, progress, shot.seconds, seed):
            paint(picture, sprite, camera @ matrix, silhouette)
        if actor.human:
            picture[ledge:] = foreground  # people stand behind the ledge
        silhouettes.append(silhouette > 127)
    occluded = np.zeros(picture.shape[:2], bool)
    visible_parts = []
    for actor, mask in zip(reversed(shot.actors), reversed(silhouettes), strict=True):
        if actor.human:
            mask[ledge:] = False
        visible = mask & ~occluded
        occluded |= visible
        visible_parts.append((visible, float(visible.sum() / max(1, mask.sum()))))
    return add_grain(places.relight(picture, shot.light), round(progress * 1e4), seed), visible_parts[::-1]


def plate(shot: Shot, progress: float, size: tuple[int, int]) -> np.ndarray:
    """Draw the background of a shot without its actors, (h, w, 3) uint8."""
    return places.relight(
        cv2.warpAffine(places.plate(shot.place), camera_matrix(shot, progress, size), size), shot.light
    )


def camera_matrix(shot: Shot, progress: float, size: tuple[int, int]) -> np.ndarray:
    """Return the (2, 3) matrix from the plate to the picture."""
    x, y, width = (a + (b - a) * progress for a, b in zip(shot.start, shot.end, strict=True))
    scale = size[0] / width
    return np.array([[scale, 0, size[0] / 2 - scale * x], [0, scale, size[1] / 2 - scale * y]])


def actor_sprites(actor: Actor, progress: float, seconds: float, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the sprites of an actor, back to front, each with its (3, 3) matrix to the plate."""
    x, y, height = actor.position_at(progress)
    if not actor.human:
        y -= actor.lift * np.sin(np.pi * np.clip(progress, 0, 1))
        angle_rad = (x - actor.start[0]) / (height / 2) if actor.rolls else 0.0
        sprite = props.premultiplied(props.ball(angle_rad, 128)) if actor.rolls else _sprite(actor.id, height)
        yield sprite, sprite_matrix(sprite, x, y, height / len(sprite))
        return
    figure = demo_people.figure(actor.id, actor.outfit_name)
    phase = 2 * np.pi * np.random.default_rng((seed, zlib.crc32(actor.id.encode()))).random(3)
    waves = np.sin(2 * np.pi * np.array([0.26, 0.41, 0.34]) * progress * seconds + phase)
    body_matrix = sprite_matrix(figure.body, x + 4 * waves[0], y + 2 * waves[1], height / figure.face_px)
    head_rotation = np.vstack([cv2.getRotationMatrix2D(figure.neck, 3.2 * waves[2], 1.0), (0, 0, 1)])
    yield figure.body, body_matrix
    yield figure.head, body_matrix @ head_rotation


def sprite_matrix(sprite: np.ndarray, x: float, y: float, scale: float) -> np.ndarray:
    """Return the (3, 3) matrix that places the middle of a sprite's lower edge at x, y."""
    height, width = sprite.shape[:2]
    return np.array([[scale, 0, x - scale * width / 2], [0, scale, y - scale * height], [0, 0, 1]])


@cache
def _sprite(name: str, height: float) -> np.ndarray:
    """Return an object at no more than twice its height in the picture. Bilinear sampling of a taller sprite would flicker."""
    sprite = props.prop(name)
    while len(sprite) > 2 * height:
        sprite = cv2.resize(sprite, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return sprite


@cache
def shadow() -> np.ndarray:
    """Return a soft shadow, (64, 256, 4) uint8, premultiplied black."""
    y, x = np.mgrid[-1:1:64j, -1:1:256j]
    alpha = 150 * np.clip(1 - (x**2 + y**2), 0, 1) ** 1.2
    return np.dstack([np.zeros((64, 256, 3)), alpha]).astype(np.uint8)


def _shadow_matrix(actor: Actor, progress: float) -> np.ndarray:
    """Return the (3, 3) matrix of an object's shadow. The shadow stays on the ground if the object is lifted."""
    x, y, height = actor.position_at(progress)
    sprite = props.prop(actor.id)
    width = 1.15 * height * sprite.shape[1] / sprite.shape[0]
    return np.array([[width / 256, 0, x - width / 2], [0, height / 300, y - 0.55 * 64 * height / 300], [0, 0, 1]])


def paint(picture: np.ndarray, sprite: np.ndarray, matrix: np.ndarray, silhouette: np.ndarray | None = None) -> None:
    """Paint a premultiplied RGBA sprite onto an RGB picture, in place, and its alpha onto an (h, w) uint8 silhouette."""
    height, width = sprite.shape[:2]
    corners = np.array([(0, 0, 1), (width, 0, 1), (0, height, 1), (width, height, 1)]) @ matrix[:2].T
    limits = picture.shape[1::-1]
    x0, y0 = np.clip(np.floor(corners.min(0)).astype(int), 0, limits)
    x1, y1 = np.clip(np.ceil(corners.max(0)).astype(int), 0, limits)
    if x0 >= x1 or y0 >= y1:
        return
    shifted = matrix[:2] - [[0, 0, x0], [0, 0, y0]]
    warped = cv2.warpAffine(sprite, shifted, (int(x1 - x0), int(y1 - y0)))
    alpha = warped[..., 3]
    background = picture[y0:y1, x0:x1]
    background_alpha = cv2.merge([255 - alpha] * 3)
    background[:] = cv2.add(
        cv2.multiply(background, background_alpha, scale=1 / 255), np.ascontiguousarray(warped[..., :3])
    )
    if silhouette is not None:
        np.maximum(silhouette[y0:y1, x0:x1], alpha, out=silhouette[y0:y1, x0:x1])


@cache
def _grain_tile(height: int, width: int, seed: int) -> np.ndarray:
    """Return film grain, (height + 64, width + 64, 1) int16. Each frame shows another part of it."""
    return np.rint(np.random.default_rng(seed).normal(0, 1.5, (height + 64, width + 64, 1))).astype(np.int16)


def add_grain(picture: np.ndarray, frame: int, seed: int) -> np.ndarray:
    """Add camera noise to an (h, w, 3) uint8 picture."""
    height, width = picture.shape[:2]
    y, x = np.random.default_rng((seed, frame + 100_000)).integers(0, 64, 2)
    return np.clip(picture + _grain_tile(height, width, seed)[y : y + height, x : x + width], 0, 255).astype(np.uint8)


def with_start_time(mp4: bytes, seconds: float) -> bytes:
    """Remux a stream to Matroska with a first presentation time of `seconds`, as in trimmed recordings."""
    buffer = io.BytesIO()
    options = {"fflags": "+bitexact"}
    with av.open(io.BytesIO(mp4), "r") as source, av.open(buffer, "w", format="matroska", options=options) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.pts is None or packet.dts is None:
                continue  # the flush packet
            shift = round(seconds / packet.time_base)
            packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
            target.mux(packet)
    return buffer.getvalue()
