"""Marks that stay while scenes change."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from a2data.media import images, video
from a2data.records import Failure, Score
from model_zoo.quality import overlays
from stages.logos import Framed, Logos


def scene(seed: int, opacity: float, at: tuple[int, int] = (250, 30)) -> np.ndarray:
    """A picture of random soft shapes, (180, 320, 3) uint8, with a mark in a corner."""
    noise = np.random.default_rng(seed).uniform(0, 200, (12, 20)).astype(np.float32)
    grey = cv2.resize(noise, (320, 180), interpolation=cv2.INTER_CUBIC).clip(0, 200)
    mark = cv2.putText(np.zeros((180, 320), np.uint8), "TV9", at, cv2.FONT_HERSHEY_DUPLEX, 0.8, 255, 2) / 255 * opacity
    return np.repeat((grey * (1 - mark) + 255 * mark).astype(np.uint8)[..., None], 3, axis=2)


def run(pictures: list[np.ndarray], each: Callable[[bytes], bytes] = bytes, **settings) -> list:
    """Run the stage over one video with a clip of two frames for each picture."""
    rows, films = [], {}
    for n, picture in enumerate(pictures):
        thumbs = np.stack([images.thumb(picture)] * 2).tobytes()
        rows.append(Framed(f"v-{n:08d}", "v", [0.0, 0.1], thumbs, (0.0, 0.0, 640.0, 360.0)))
        data = each(video.encode(np.stack([picture] * 2), 15.0))
        films[rows[-1].clip_id] = type("Row", (), {"video": data})
    lookup = lambda stage, shard, column, keys: {key: films[key] for key in keys}  # noqa: E731
    return list(Logos(**settings).run(None, rows, shard=0, lookup=lookup))


@pytest.mark.parametrize("opacity", [1.0, 0.4])
def test_a_mark_over_many_scenes_is_found_in_the_clips_that_show_it(opacity):
    made = run([scene(n, opacity if n else 0.0) for n in range(9)])
    assert [row.metric for row in made] == ["logo"] * 9
    assert made[0].value == 0
    assert all(0.003 < row.value < 0.02 for row in made[1:])


def test_scenes_without_a_mark_and_a_mark_that_moves_have_none():
    assert {row.value for row in run([scene(n, 0.0) for n in range(8)])} == {0.0}
    assert {row.value for row in run([scene(n, 1.0, (10 + 25 * n, 30 + 15 * n)) for n in range(8)])} == {0.0}


def test_one_scene_does_not_show_what_is_a_mark():
    assert {row.value for row in run([scene(0, 1.0)] * 9)} == {0.0}
    assert overlays.marks([overlays.gradient(scene(n, 1.0)[..., 0]) for n in range(5)]) == []


def test_different_people_before_one_wall_do_not_make_a_mark_of_the_wall():
    wall = scene(99, 1.0)
    people = [scene(n, 0.0) for n in range(8)]
    mixed = [np.where(np.arange(320)[:, None] < 200, person, wall) for person in people]
    assert len(overlays.different(np.stack([images.thumb(picture) for picture in mixed]))) >= overlays.MIN_PICTURES
    assert {row.value for row in run(mixed)} == {0.0}


def test_switched_off_nothing_is_read():
    def damaged(data: bytes) -> bytes:
        raise AssertionError

    assert run([], damaged, enabled=False) == []
    assert {row.value for row in run([scene(n, 1.0) for n in range(8)], enabled=False)} == {0.0}


def test_a_clip_that_cannot_be_decoded_fails_alone():
    calls = iter(range(9))
    made = run([scene(n, 1.0) for n in range(9)], lambda data: data if next(calls) else b"damaged")
    assert isinstance(made[0], Failure)
    assert made[0].key == "v-00000000"
    assert all(isinstance(row, Score) and row.value > 0 for row in made[1:])


def test_places_that_return_with_other_people_do_not_make_a_mark_of_their_walls():
    walls, people = [scene(90 + n, 0.0) for n in range(4)], [scene(n, 0.0) for n in range(12)]
    at = [(n * 20) % 200 for n in range(12)]
    mixed = [
        np.where((np.arange(320)[:, None] >= x) & (np.arange(320)[:, None] < x + 120), person, walls[n % 4])
        for n, (x, person) in enumerate(zip(at, people, strict=True))
    ]
    assert len(overlays.different(np.stack([images.thumb(picture) for picture in mixed]))) == 12
    assert len(overlays.places([overlays.gradient(picture[..., 0]) for picture in mixed])) <= 4
    assert {row.value for row in run(mixed)} == {0.0}
