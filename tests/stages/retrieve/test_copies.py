import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2data.media import images, video
from stages.retrieve import copies


def scene(seed, frames=20, size=(180, 240), path=None):
    """A textured wall with a figure that walks along `path` (its x in each frame)."""
    rng = np.random.default_rng(seed)
    wall = cv2.resize(rng.integers(60, 200, (12, 16), dtype=np.uint8), size[::-1], interpolation=cv2.INTER_CUBIC)
    out = []
    for x in np.linspace(20, 180, frames) if path is None else path:
        frame = np.dstack([wall] * 3)
        cv2.rectangle(frame, (int(x), 60), (int(x) + 40, 180), (230, 20, 20), -1)
        cv2.circle(frame, (int(x) + 20, 45), 18, (240, 200, 170), -1)
        out.append(frame)
    return np.stack(out)


def thumbs(frames):
    return copies.Thumbs.of(np.stack([images.thumb(f) for f in frames]))


def reencoded(frames):
    """Blurred to half the size, darker, flatter, and strongly compressed."""
    small = [cv2.resize(f, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for f in frames]
    large = np.stack([cv2.resize(f, frames.shape[2:0:-1]) for f in small])
    return video.decode(video.encode((large * 0.8 + 20).astype(np.uint8), 15, crf=34))


ORIGINAL = scene(0)


@pytest.mark.parametrize(
    "copy",
    [
        ORIGINAL[6:],
        reencoded(ORIGINAL),
        reencoded(ORIGINAL[:, :, ::-1]),
        np.concatenate([scene(1, 8), reencoded(ORIGINAL[4:12]), scene(2, 8)]),
    ],
    ids=["cut", "re-encoded", "mirrored", "inside another film"],
)
def test_a_copy_is_found(copy):
    assert copies.repeat_distance(thumbs(ORIGINAL), thumbs(copy)) < copies.COPY


def test_another_take_before_the_same_wall_is_not_a_copy():
    other = scene(0, path=np.linspace(170, 10, 20) + 7)
    assert copies.repeat_distance(thumbs(ORIGINAL), thumbs(other)) > copies.COPY


def test_one_pose_that_comes_back_does_not_make_a_copy_of_the_clip():
    other = scene(0, path=[*np.linspace(180, 140, 10), np.linspace(20, 180, 20)[9], *np.linspace(120, 180, 9)])
    assert copies.picture_distances(thumbs(ORIGINAL).take([9]), [thumbs(other)])[0, 0] < copies.COPY
    assert copies.repeat_distance(thumbs(ORIGINAL), thumbs(other)) > copies.COPY


def test_black_frames_prove_nothing():
    black = copies.Thumbs.of(np.zeros((10, 18, 24), np.uint8))
    assert not copies.may_repeat([black], [black]).any()
    assert copies.repeat_distance(black, black) == np.inf


def test_distances_are_those_of_every_pair_of_normalised_thumbnails():
    a, b = (np.stack([images.thumb(f) for f in frames]) for frames in (ORIGINAL[:4], scene(1, 3)))
    table = np.sqrt(copies.squared_distances(copies.Thumbs.of(a), copies.Thumbs.of(b)))
    for i, x in enumerate(a.astype(float)):
        for j, y in enumerate(b.astype(float)):
            for turned, z in enumerate((y, y[:, ::-1])):
                expected = np.sqrt(np.mean(((x - x.mean()) / x.std() - (z - z.mean()) / z.std()) ** 2))
                assert np.isclose(table[turned, i, j], expected, atol=1e-9)


def test_a_distance_does_not_depend_on_what_is_compared_at_the_same_time():
    a, b = thumbs(ORIGINAL), thumbs(scene(1, 33))
    whole = copies.squared_distances(a, b)
    parts = [copies.squared_distances(a.take([n]), b) for n in range(a.num_frames)]
    assert np.array_equal(whole, np.concatenate(parts, axis=1))


@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 30), st.integers(1, 12))
def test_no_clip_that_repeats_another_is_overlooked(seed, run, frames, others):
    rng = np.random.default_rng(seed)
    footage = rng.integers(0, 256, (40, 18, 24), dtype=np.uint8)
    some = []
    for _ in range(others):
        begin, turned = int(rng.integers(0, 40 - frames + 1)), rng.integers(2)
        noisy = footage[begin : begin + frames] * rng.uniform(0.7, 1) + rng.normal(
            0, rng.choice([0, 4, 8]), (frames, 18, 24)
        )
        some.append(copies.Thumbs.of(np.clip(noisy[:, :, ::-1] if turned else noisy, 0, 255).astype(np.uint8)))
    one = copies.Thumbs.of(footage[5:25])
    (found,) = copies.may_repeat([one], some, run=run)
    for other, may in zip(some, found, strict=True):
        assert may or copies.repeat_distance(one, other, run) >= copies.COPY


FAR = copies.CopyDistances(np.inf, 1.0, 1.0, 9.0, 1.0, 1.0, np.inf)


@given(st.floats(0, 2), st.floats(0, 2), st.sampled_from(copies.CopyDistances._fields))
def test_the_risk_falls_with_every_part(near, far, part):
    near, far = sorted((near, far))
    of = (
        [FAR._replace(frames=1.0, gap_s=20.0, scale=1.0, **{part: value}) for value in (far, near)]
        if part not in ("frames", "gap_s", "scale")
        else [FAR._replace(**{part: value}) for value in (far, near)]
    )
    assert 0 <= copies.copy_risk(of[0]) <= copies.copy_risk(of[1]) <= 1


def test_the_risk_is_one_for_the_same_picture_and_none_for_nothing_in_common():
    assert copies.copy_risk(FAR._replace(frames=0.0)) == 1
    assert copies.copy_risk(FAR) < 1e-3
    assert copies.copy_risk(FAR._replace(frames=copies.COPY + copies.HALVING)) == pytest.approx(0.5, abs=1e-3)
    assert copies.copy_risk(FAR._replace(gap_s=0.0)) == pytest.approx(copies.SAME_SOURCE, abs=1e-3)
    assert copies.copy_risk(copies.CopyDistances(np.inf, 0, 0, 0, 0, 0, np.inf)) == 1


def face(seed, light=1.0):
    """A soft random picture in an ellipse that leans to the left."""
    rgb = cv2.resize(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8), (60, 80)) * light
    mask = cv2.ellipse(np.zeros((80, 60), np.uint8), (28, 40), (22, 36), 20, 0, 360, 1, -1) > 0
    return images.cut_out(rgb.astype(np.uint8), mask, (0, 0, 60, 80))


def alike(a, b):
    stamps = [np.frombuffer(images.stamp(x), np.uint8, images.STAMP_PX**2) for x in (a, b)]
    found = copies.compare_stamps(*(copies.Stamps.of([x]) for x in stamps))
    return [float(distance[0, 0]) for distance in found]


def test_a_cut_out_has_distance_zero_from_itself_at_any_scale_and_mirrored():
    larger = cv2.resize(face(1), None, fx=1.5, fy=1.5, interpolation=cv2.INTER_NEAREST)
    for same in (face(1), larger, face(1)[:, ::-1]):
        pixels, pose, light = alike(face(1), same)
        assert max(pixels, pose, light) < 0.05


def test_pixels_pose_and_light_are_distinguished():
    pixels, pose, light = alike(face(1), face(2))
    assert pose < 0.01 < 0.5 < pixels
    pixels, pose, light = alike(face(1), face(1, light=0.5))
    assert max(pixels, pose) < 0.01 < 0.15 < light
    leaning = face(1).copy()
    leaning[:40, :, 3] = 0
    assert alike(face(1), leaning)[1] > 0.1


def ragged(seed, flat=False):
    """A stamp whose mask has holes."""
    rng = np.random.default_rng(seed)
    inside = rng.random(images.STAMP_PX**2) < rng.uniform(0.2, 0.9)
    grey = np.full(inside.shape, 45) if flat else rng.integers(0, 128, inside.shape)
    return np.where(inside, grey | images.INSIDE, 0).astype(np.uint8)


def test_many_stamps_are_compared_as_two_are():
    stamps = [*(ragged(n) for n in range(6)), ragged(7, flat=True), ragged(8, flat=True)]
    stamps.append(stamps[0].reshape(images.STAMP_PX, -1)[:, ::-1].ravel())
    pixels, pose, light = copies.compare_stamps(copies.Stamps.of(stamps), copies.Stamps.of(stamps))
    squares = [s.reshape(images.STAMP_PX, -1) for s in stamps]
    for i, a in enumerate(squares):
        for j, b in enumerate(squares):
            expected = []
            for turned in (b, b[:, ::-1]):
                both = (a > 127) & (turned > 127)
                x, y = a[both] & 127, turned[both] & 127
                alike = np.corrcoef(x, y)[0, 1] if min(x.std(), y.std()) > 0 else 0.0
                expected.append((round(1 - alike, 5), round(1 - both.sum() / ((a > 127) | (turned > 127)).sum(), 5)))
            assert (pixels[i, j], pose[i, j]) == pytest.approx(min(expected), abs=1.01e-5)
            means = [2.0 * (s[s > 127] & 127).mean() for s in (a, b)]
            assert light[i, j] == pytest.approx(abs(means[0] - means[1]) / 255, abs=1e-5)


def test_a_comparison_of_stamps_does_not_depend_on_what_is_compared_at_the_same_time():
    stamps = copies.Stamps.of([ragged(n) for n in range(9)])
    whole = copies.compare_stamps(stamps, stamps)
    parts = [copies.compare_stamps(stamps.take([n]), stamps) for n in range(9)]
    assert all(np.array_equal(x, np.concatenate(rows)) for x, rows in zip(whole, zip(*parts, strict=True), strict=True))


def test_real_copies_are_told_from_other_takes_of_the_same_person(corpus):
    def clip(name, frames=slice(None)):
        pictures = [f.picture for f in video.read(str(corpus / "video" / name))][frames]
        return thumbs([p.to_ndarray(format="rgb24") for p in pictures[::2]])

    film = clip("derived_asl_hardcuts.mp4", slice(226, 275))  # person A signs "help", half a tick off the original
    assert copies.repeat_distance(film, clip("intel_asl_help.mkv")) < copies.COPY / 2
    assert copies.repeat_distance(film, clip("intel_asl_brother.mkv")) > copies.COPY * 1.5
    assert copies.repeat_distance(film, clip("intel_asl_no.mkv")) > copies.COPY * 1.5
