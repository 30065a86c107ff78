import cv2
import numpy as np

from model_zoo.detect.builtin import grabcut


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


def scene():
    """A blue ellipse on a light ground, both with noise, 240 x 320, and its mask."""
    truth = cv2.ellipse(np.zeros((240, 320), np.uint8), (150, 120), (40, 70), 20, 0, 360, 1, -1) > 0
    picture = np.where(truth[..., None], (40, 70, 170), (205, 200, 190)).astype(np.int16)
    noise = np.random.default_rng(0).normal(0, 6, picture.shape).astype(np.int16)
    return np.clip(picture + noise, 0, 255).astype(np.uint8), truth


def test_what_fills_a_box_is_cut_along_its_outline_and_ends_at_the_box():
    picture, truth = scene()
    ys, xs = np.nonzero(truth)
    box = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    mask = grabcut.in_box(picture, box)
    assert overlap(mask, truth) > 0.98
    inside = np.zeros_like(mask)
    inside[box[1] : box[3], box[0] : box[2]] = True
    assert not (mask & ~inside).any()


def test_a_box_over_the_frames_edge_stays_in_the_frame():
    picture, _ = scene()
    assert grabcut.in_box(picture, (-20.0, -20.0, 60.0, 60.0)).shape == (240, 320)


def test_a_box_that_is_the_whole_frame_is_taken_whole():
    assert grabcut.in_box(np.full((50, 60, 3), 90, np.uint8), (0.0, 0.0, 60.0, 50.0)).all()


def test_cutting_twice_gives_the_same_mask():
    picture, truth = scene()
    hints = np.where(cv2.dilate(truth.astype(np.uint8), np.ones((41, 41))) > 0, grabcut.MAYBE_FORE, grabcut.SURE_BACK)
    masks = [grabcut.cut(picture, hints.astype(np.uint8)) for _ in range(2)]
    assert np.array_equal(*masks)
    assert overlap(masks[0], truth) > 0.97


def test_hints_without_ground_give_what_is_sure_alone():
    picture, truth = scene()
    hints = np.where(truth, grabcut.SURE_FORE, grabcut.MAYBE_FORE).astype(np.uint8)
    assert np.array_equal(grabcut.cut(picture, hints), truth)


def test_cleaning_fills_small_holes_and_drops_specks_and_what_the_seed_does_not_touch():
    whole = np.zeros((120, 160), bool)
    whole[20:100, 30:80] = True
    dirty = whole.copy()
    dirty[50:53, 50:53] = False
    dirty[90, 120] = True
    dirty[20:60, 100:140] = True
    seed = np.zeros_like(whole)
    seed[60, 40] = True
    assert overlap(grabcut.clean(dirty, seed), whole) > 0.99
    assert grabcut.clean(dirty)[40, 120]
    assert not grabcut.clean(dirty)[80:, 110:130].any()


def test_a_large_hole_stays_open():
    ring = np.zeros((120, 160), bool)
    ring[20:100, 30:110] = True
    ring[50:70, 60:80] = False
    assert not grabcut.clean(ring)[55:65, 65:75].any()


def test_an_enlarged_mask_follows_the_edge_of_the_frame():
    truth = cv2.ellipse(np.zeros((480, 640), np.uint8), (311, 247), (120, 170), 0, 0, 360, 1, -1) > 0
    frame = np.where(truth[..., None], (40, 70, 170), (205, 200, 190)).astype(np.uint8)
    small = cv2.resize(truth.astype(np.uint8), (160, 120), interpolation=cv2.INTER_NEAREST) > 0
    blocky = cv2.resize(small.astype(np.uint8), (640, 480), interpolation=cv2.INTER_NEAREST) > 0
    assert overlap(grabcut.enlarge(small, frame), truth) > max(0.985, overlap(blocky, truth))


def test_a_mask_at_the_frames_size_is_not_moved():
    picture, truth = scene()
    assert overlap(grabcut.enlarge(truth, picture), truth) > 0.99
