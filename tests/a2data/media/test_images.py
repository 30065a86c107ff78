"""Cut-outs, RLE, hashes: pure functions of pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from a2data.media import images
from a2data.media.images import clamp, cut_out, from_png, from_rle, iou, on_white, thumb, to_png, to_rle


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_a_mask_survives_rle(mask):
    assert np.array_equal(from_rle(to_rle(mask)), mask)


def test_rle_that_does_not_fill_its_mask_is_refused():
    with pytest.raises(ValueError, match="RLE has 3 pixels, but its mask is 2 x 2"):
        from_rle(bytes([2, 2, 1, 2]))


boxes = st.tuples(*[st.floats(-50, 150, width=32)] * 4).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), *sorted((b[0], b[2]))[1:], max(b[1], b[3]))
)


@given(boxes)
def test_a_clamped_box_is_inside_the_frame_and_not_empty(box):
    x0, y0, x1, y1 = clamp(box, 60, 80)

    assert 0 <= x0 < x1 <= 80
    assert 0 <= y0 < y1 <= 60


def test_a_cut_out_is_found_again_at_its_place_to_the_pixel():
    frame = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    mask = np.zeros((40, 60), bool)
    mask[10:20, 30:45] = True
    box = (28.0, 8.0, 47.0, 22.0)

    pasted = on_white(cut_out(frame, mask, box), box, 40, 60)

    assert np.array_equal(pasted[mask], frame[mask])
    assert (pasted[~mask] == 255).all()


@pytest.mark.parametrize("channels", [3, 4])
def test_a_png_holds_the_same_pixels(channels):
    picture = np.random.default_rng(0).integers(0, 255, (5, 7, channels), dtype=np.uint8)

    assert np.array_equal(from_png(to_png(picture)), picture)
    assert to_png(picture) == to_png(picture.copy())


def test_bytes_that_are_not_a_picture_are_rejected():
    with pytest.raises(ValueError, match="not a valid PNG"):
        from_png(b"hello")


def test_overlap_of_boxes():
    assert iou((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert iou((0, 0, 10, 10), (10, 0, 20, 10)) == 0


def test_a_thumb_of_grey_and_of_colour_agree():
    grey = np.full((90, 120), 77, np.uint8)

    assert np.array_equal(thumb(grey), thumb(np.dstack([grey] * 3)))
    assert thumb(grey).shape == (18, 24)


def test_the_bounds_of_a_mask_touch_its_outermost_pixels():
    mask = np.zeros((20, 30), bool)
    mask[4, 7] = mask[11, 25] = True
    assert images.bounds(mask) == (7, 4, 26, 12)


def test_a_stamp_holds_the_mask_and_the_mean_grey_levels_inside_it():
    rgba = np.full((96, 120, 4), (90, 90, 90, 255), np.uint8)
    rgba[:48, 60:, :3], rgba[48:, 60:, 3] = 200, 0
    rgba[:, 110:, 3] = 0
    made = images.stamp(rgba)
    square = np.frombuffer(made, np.uint8, images.STAMP_PX**2).reshape(images.STAMP_PX, -1)

    assert int.from_bytes(made[images.STAMP_PX**2 :], "little") == np.count_nonzero(rgba[..., 3])
    inside = np.ones((48, 48), bool)
    inside[24:, round(60 / 110 * 48) :] = False  # cropped to the mask, 110 px wide
    assert np.array_equal(square >= images.INSIDE, inside)
    grey = 2.0 * (square & (images.INSIDE - 1))
    assert np.allclose(grey[:, :26], 90, atol=2)
    assert np.allclose(grey[:24, 27:], 200, atol=2)
    assert not grey[~inside].any()
