import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from a2data.media.images import from_png, from_rle
from a2data.records import Element, Kept, Reject
from stages.background import (
    Background,
    dilate_masks,
    find_plate,
    foreground_mask,
    inpaint_plate,
    largest_rectangle,
    largest_rectangle_on_grid,
    limit_aspect,
    median_plate,
)

HEIGHT, WIDTH = 48, 64
SETTINGS = {"min_static": 0.9, "min_samples": 3, "max_aspect": 3.0}
ROOM = np.random.default_rng(7).integers(40, 200, (HEIGHT // 8, WIDTH // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
RED = (250, 0, 0)


def walk(starts: list[int], noise: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A red figure, 12 px wide and as high as the room, at each of these left edges; the frames and where it stands."""
    rng = np.random.default_rng(1)
    frames = np.stack([ROOM.astype(np.int16) + rng.integers(-noise, noise + 1, ROOM.shape) for _ in starts])
    covered = np.zeros(frames.shape[:3], bool)
    for number, x in enumerate(starts):
        covered[number, :, x : x + 12] = True
    frames[covered] = RED
    return frames.clip(0, 255).astype(np.uint8), covered


def one_vector(pictures, masks):
    return np.tile(np.float32([0.6, 0.8]), (len(pictures), 1))


def test_a_plate_shows_what_a_walker_hid_in_turn():
    frames, covered = walk([0, 8, 16, 24, 32, 40, 48], noise=2)
    place = find_plate(frames, covered, **SETTINGS)
    assert place.method == "plate"
    assert place.box == (0, 0, WIDTH, HEIGHT)
    assert np.abs(place.picture.astype(int) - ROOM).max() <= 2
    assert place.purity == 1


def test_what_is_hidden_for_ever_is_never_in_the_rectangle():
    frames, covered = walk([20, 22, 24, 22, 20, 24, 22])  # columns 24 to 31 are hidden in every frame
    place = find_plate(frames, covered, **SETTINGS)
    assert not place.clear[:, 24:32].any()
    x0, y0, x1, y1 = (int(v) for v in place.box)
    assert x1 <= 24 or x0 >= 32
    assert (place.picture[y0:y1, x0:x1] == ROOM[y0:y1, x0:x1]).all()


def test_a_pixel_in_view_too_rarely_is_not_trusted():
    frames, covered = walk([20, 20, 20, 20, 40, 40])
    assert not find_plate(frames, covered, **SETTINGS).clear[:, 22:30].any()
    assert find_plate(frames, covered, **{**SETTINGS, "min_samples": 2}).clear[:, 22:30].all()


def test_under_a_moving_camera_a_frame_without_foreground_is_taken_whole_and_unchanged():
    frames, covered = walk([0, 8, 16, 24, 32])
    frames = np.stack([np.roll(f, 5 * n, axis=1) for n, f in enumerate(frames)])
    frames[1], covered[1] = ROOM, False
    place = find_plate(frames, covered, **SETTINGS)
    assert (place.method, place.frame, place.box) == ("frame", 1, (0, 0, WIDTH, HEIGHT))
    assert (place.picture == ROOM).all()


def test_who_passes_undetected_is_not_in_the_plate():
    frames, covered = walk([0, 8, 16, 24, 32, 40, 48])
    place = find_plate(frames, np.zeros_like(covered), **{**SETTINGS, "min_static": 0.7})
    assert (place.method, place.box) == ("plate", (0, 0, WIDTH, HEIGHT))
    assert (place.picture == ROOM).all()


def test_under_a_moving_camera_the_foreground_is_cropped_away_from_one_frame():
    frames, covered = walk([40, 36, 44, 40, 44])
    moving = np.stack([np.roll(f, 5 * n, axis=1) for n, f in enumerate(frames)])
    moving[covered] = RED
    place = find_plate(moving, covered, **SETTINGS)
    assert place.method == "crop"
    x0, y0, x1, y1 = (int(v) for v in place.box)
    assert not covered[place.frame, y0:y1, x0:x1].any()
    assert (place.picture == moving[place.frame]).all()


def test_what_moves_undetected_lowers_the_purity():
    frames, covered = walk([40] * 6)
    flicker = frames.copy()
    flicker[::3, :, :10] = 0
    flicker[1::3, :, :10] = 255  # columns 0 to 9 of 40 never show one thing for more than a third of the time
    assert find_plate(frames, covered, **SETTINGS).purity == 1
    loose = {**SETTINGS, "min_static": 0.5}
    assert find_plate(flicker, covered, **loose).purity == pytest.approx(30 / 40)


@settings(deadline=None)
@given(
    hnp.arrays(np.uint8, (5, 4, 6, 3)),
    hnp.arrays(bool, (5, 4, 6)),
    st.sampled_from([1, 12, 1 << 16]),
)
def test_the_plate_is_the_lower_median_of_what_is_not_covered(frames, covered, strip):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stages.background.STRIP_PX", strip)
        plate, _ = median_plate(frames, covered)
    for y in range(4):
        for x in range(6):
            seen = frames[~covered[:, y, x], y, x]
            expected = np.sort(seen, axis=0)[(len(seen) - 1) // 2] if len(seen) else np.zeros(3)
            assert (plate[y, x] == expected).all()


def clipped_area(width: int, height: int, aspect: float) -> float:
    return min(height, aspect * width) * min(width, aspect * height)


@settings(deadline=None)
@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=7)), st.sampled_from([1.0, 1.5, 2.0, np.inf]))
def test_no_rectangle_is_larger_than_the_largest(free, aspect):
    x0, y0, x1, y1 = largest_rectangle(free, aspect)
    assert free[y0:y1, x0:x1].all()
    height, width = free.shape
    best = max(
        (
            clipped_area(d - c, b - a, aspect)
            for a in range(height)
            for b in range(a + 1, height + 1)
            for c in range(width)
            for d in range(c + 1, width + 1)
            if free[a:b, c:d].all()
        ),
        default=0,
    )
    assert (clipped_area(x1 - x0, y1 - y0, aspect) if x1 > x0 else 0) == best


@settings(deadline=None)
@given(st.integers(0, 90), st.integers(1, 90), st.integers(1, 90), st.floats(1, 4))
def test_a_box_cut_to_an_aspect_stays_within_itself_and_keeps_the_limit(x0, width, height, limit):
    a, b, c, d = limit_aspect((x0, 3, x0 + width, 3 + height), limit)
    assert x0 <= a < c <= x0 + width
    assert 3 <= b < d <= 3 + height
    assert max(c - a, d - b) <= limit * min(c - a, d - b)
    assert min(c - a, d - b) == min(width, height)


def test_cover_is_the_mask_in_the_best_frame_and_the_box_elsewhere(make_element):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:20, 12:16] = True
    person = make_element(mask, {0: (10.0, 8.0, 20.0, 22.0), 4: (30.0, 8.0, 40.0, 22.0)})
    assert (foreground_mask([person], 0, mask.shape, extrapolate=2) == mask).all()
    midway = foreground_mask([person], 2, mask.shape, extrapolate=2)
    assert midway[8:22, 20:30].all()
    assert midway.sum() == 14 * 10
    assert not foreground_mask([person], 7, mask.shape, extrapolate=2).any()


def test_dilation_grows_by_a_share_of_the_longer_side():
    covered = np.zeros((1, 50, 100), bool)
    covered[0, 25, 50] = True
    assert np.argwhere(dilate_masks(covered, 0.03)[0]).tolist() == [
        [y, x] for y in range(22, 29) for x in range(47, 54)
    ]


def test_the_background_of_a_room_that_a_person_crosses_is_clean_and_complete(make_film, make_element):
    frames, covered = walk([0, 8, 16, 24, 32, 40, 48])
    boxes = {n: (float(x), 0.0, float(x + 12), float(HEIGHT)) for n, x in enumerate([0, 8, 16, 24, 32, 40, 48])}
    person = make_element(covered[0], boxes)
    stage = Background(frame_stride=1, min_samples=2)
    (row,) = stage.run((one_vector, None), [Kept("clip", "video")], [make_film(frames)], [person])
    assert isinstance(row, Element)
    assert (row.kind, row.element_id, row.box) == ("background", "clip/background/0", (0, 0, WIDTH, HEIGHT))
    assert {"coverage=1.000", "purity=1.000", "method=plate"} <= set(row.attributes)
    picture = from_png(row.image)
    assert (picture[..., 3] == 255).all()
    inside = picture[..., :3].astype(int) - ROOM
    assert np.abs(inside).mean() < 8  # the codec halves the colour's resolution
    assert not ((picture[..., 0] > 200) & (picture[..., 1] < 60)).any()  # nothing red is left
    assert from_rle(row.mask).all()
    assert row.embedding == pytest.approx([0.6, 0.8])


def test_a_clip_full_of_foreground_is_rejected_with_what_was_missing(make_film, make_element):
    frames, _ = walk([20] * 4)
    whole = make_element(np.ones((HEIGHT, WIDTH), bool), {0: (0.0, 0.0, float(WIDTH), float(HEIGHT))})
    rows = list(Background().run((one_vector, None), [Kept("clip", "video")], [make_film(frames)], [whole]))
    assert rows == [Reject("clip/background", "no background", "0% of the frame free of foreground, wanted 20%")]


def test_the_same_clip_gives_the_same_bytes_in_any_order_of_its_elements(make_film, make_element):
    frames, covered = walk([0, 8, 16, 24])
    film, kept = make_film(frames), Kept("clip", "video")
    one = make_element(covered[0], {0: (0.0, 0.0, 12.0, 48.0), 3: (24.0, 0.0, 36.0, 48.0)})
    two = make_element(covered[3], {3: (40.0, 0.0, 60.0, 20.0)}, name="object/0", kind="object")
    stage = Background(frame_stride=1, min_area=0.1)
    assert list(stage.run((one_vector, None), [kept], [film], [one, two])) == list(
        stage.run((one_vector, None), [kept], [film], [two, one])
    )


def test_the_rectangle_on_a_grid_lies_inside_the_free_pixels_and_is_nearly_as_large():
    free = np.ones((300, 500), bool)
    free[100:300, 180:330] = False
    x0, y0, x1, y1 = largest_rectangle_on_grid(free, float("inf"))
    assert free[y0:y1, x0:x1].all()
    a0, b0, a1, b1 = largest_rectangle(free)
    assert (x1 - x0) * (y1 - y0) >= 0.95 * (a1 - a0) * (b1 - b0)


def moving(starts: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """What a panning camera sees of a red figure at these left edges."""
    frames, covered = walk(starts)
    frames = np.stack([np.roll(f, 5 * n, axis=1) for n, f in enumerate(frames)])
    frames[covered] = RED
    return frames, covered


def blue(picture, mask):
    return np.where(mask[..., None], np.uint8([0, 0, 250]), picture)


def test_the_hole_of_one_frame_is_filled_and_everything_else_is_bit_identical():
    frames, covered = moving([40, 36, 44, 40, 44])
    place = find_plate(frames, covered, **SETTINGS)
    whole = inpaint_plate(place, blue, 0.25, 3.0)
    assert (place.method, whole.method) == ("crop", "frame+inpaint")
    assert whole.box == (0, 0, WIDTH, HEIGHT)
    assert (whole.picture[covered[whole.frame]] == (0, 0, 250)).all()
    assert (whole.picture[~covered[whole.frame]] == frames[whole.frame][~covered[whole.frame]]).all()
    assert whole.clear.all()
    assert whole.purity == 1


def test_what_a_plate_never_saw_is_filled_and_its_purity_is_that_of_the_rest():
    frames, covered = walk([20, 22, 24, 22, 20, 24, 22])
    frames[::3, :, 50:60] = 0
    frames[1::3, :, 50:60] = 255  # passes undetected: never one thing for most of the time
    place = find_plate(frames, covered, **{**SETTINGS, "min_static": 0.5})
    whole = inpaint_plate(place, blue, 0.25, 3.0)
    assert whole.method == "plate+inpaint"
    assert (whole.picture[~place.clear] == (0, 0, 250)).all()
    assert (whole.picture[place.clear] == place.picture[place.clear]).all()
    assert whole.purity == pytest.approx(1 - 10 * HEIGHT / place.clear.sum())


@pytest.mark.parametrize("share", [0.0, 0.18])
def test_a_larger_hole_than_allowed_is_cropped_away(share):
    frames, covered = moving([40, 36, 44, 40, 44])  # 12 of 64 columns: 0.1875
    place = find_plate(frames, covered, **SETTINGS)
    assert inpaint_plate(place, blue, share, 3.0) is place


def test_where_nothing_is_missing_nothing_is_painted():
    frames, covered = walk([0, 8, 16, 24, 32, 40, 48])
    place = find_plate(frames, covered, **SETTINGS)
    assert inpaint_plate(place, blue, 0.25, 3.0) is place


@pytest.mark.parametrize(("most", "method"), [(0.25, "frame+inpaint"), (0.1, "crop")])
def test_the_row_says_whether_it_was_filled_or_cropped(make_film, make_element, tmp_path, most, method):
    torch = pytest.importorskip("torch")

    class Grey(torch.nn.Module):
        def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(image) + 0.5

    torch.jit.script(Grey()).save(str(tmp_path / "lama.pt"))
    frames, _ = moving([40, 36, 44, 40, 44])
    boxes = {n: (float(x), 0.0, float(x + 12), float(HEIGHT)) for n, x in enumerate([40, 36, 44, 40, 44])}
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[:, 40:52] = True
    name = f"lama:{tmp_path / 'lama.pt'}"
    stage = Background(frame_stride=1, inpaint=name, max_inpaint=most, max_aspect=3.0, dilate=0.01)
    film, person = make_film(frames), make_element(mask, boxes)
    (row,) = stage.run((one_vector, stage.load()[1]), [Kept("clip", "video")], [film], [person])
    said = dict(a.split("=") for a in row.attributes)
    assert said["method"] == method
    assert float(said["coverage"]) == pytest.approx(1 - 14 / 64, abs=0.001)  # a pixel more on each side
    picture = from_png(row.image)
    assert (picture[..., 3] == 255).all()
    if method == "crop":
        assert picture.shape[1] < WIDTH
    else:
        assert picture.shape[:2] == (HEIGHT, WIDTH)
        hole = foreground_mask([person], row.frame, (HEIGHT, WIDTH), 1)
        assert (picture[..., :3][hole] == 128).all()
        columns = ~hole.any(0) & ~np.roll(hole, 1, 1).any(0) & ~np.roll(hole, -1, 1).any(0)
        assert (picture[:, columns, :3] == film.frames[row.frame][:, columns]).all()
    assert set(stage.models()) == {"mobilenetv2", name}
    assert stage.gpus == 0.25
    assert Background().gpus == 0
