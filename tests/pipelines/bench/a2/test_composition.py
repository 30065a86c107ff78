import numpy as np
import pytest

from pipelines.bench.a2 import composition
from pipelines.bench.a2.totals import Measured

ANN, BEA, CAT = np.eye(4)[:3]


def unit(*numbers):
    return np.array(numbers, float) / np.linalg.norm(numbers)


def colours(pictures):
    """The mean colour of a picture, of unit length: a simple embedding."""
    return np.stack([unit(*picture.reshape(-1, 3).mean(0)) for picture in pictures])


def test_two_people_are_assigned_by_the_best_sum_and_not_one_by_one():
    """Both faces are most like Ann; the one that is also like Bea must be Bea."""
    first, second = unit(0.9, 0.1, 0, 0.3), unit(0.8, 0.59, 0, 0.1)
    ann, bea = composition.face_cosines(np.stack([first, second]), np.stack([ANN, BEA]))
    assert ann == pytest.approx(first @ ANN)
    assert bea == pytest.approx(second @ BEA)
    assert second @ ANN > second @ BEA


def test_the_order_of_faces_does_not_matter_and_strangers_do_not_count():
    faces = np.stack([CAT, BEA, ANN])
    assert composition.face_cosines(faces, np.stack([ANN, BEA])) == [1.0, 1.0]
    assert composition.face_cosines(faces[::-1], np.stack([ANN, BEA])) == [1.0, 1.0]


def test_one_face_stands_for_one_person():
    assert composition.face_cosines(ANN[None], np.stack([ANN, ANN])) in ([1.0, None], [None, 1.0])
    assert composition.face_cosines(np.zeros((0, 4)), np.stack([ANN, BEA])) == [None, None]


def test_identity_is_the_mean_over_the_pairs_that_were_found():
    none = np.zeros((0, 4))
    half = unit(1, 0, 0, np.sqrt(3))  # 60 degrees from Ann
    found = composition.id_consistency([ANN[None], half[None], none, np.stack([BEA, -ANN])], np.stack([ANN]))
    # frames: 1, 0.5, nobody, and of Bea (0) and the opposite of Ann (-1) the better
    assert (found.value, found.seen, found.of) == (pytest.approx((1 + 0.5 + 0) / 3), 3, 4)
    assert found.as_number("strict") == pytest.approx(1.5 / 4)


def test_a_swap_of_two_people_is_the_same_and_a_missing_one_is_not_seen():
    both = composition.id_consistency([np.stack([BEA, ANN])] * 2, np.stack([ANN, BEA]))
    assert (both.value, both.seen, both.of) == (1.0, 4, 4)
    one = composition.id_consistency([BEA[None]] * 2, np.stack([ANN, BEA]))
    assert (one.value, one.seen, one.of) == (1.0, 2, 4)


def test_identity_without_a_reference_is_skipped():
    assert composition.id_consistency([ANN[None]], np.zeros((0, 4))).skipped


def scene(inside, around, frames=3):
    """A square of one colour at (10, 20) to (30, 40), over another."""
    pictures = np.full((frames, 60, 80, 3), around, np.uint8)
    masks = np.zeros((frames, 60, 80), bool)
    masks[:, 10:30, 20:40] = True
    pictures[masks] = inside
    return pictures, masks


def test_the_background_is_blind_to_what_is_inside_the_mask():
    place = unit(20, 200, 90)
    values = []
    for inside in ((255, 0, 0), (0, 0, 255), (20, 200, 90)):
        frames, masks = scene(inside, (20, 200, 90))
        frames[1, 12:28, 22:38] = np.random.default_rng(1).integers(0, 256, (16, 16, 3))
        values.append(composition.background_consistency(frames, masks, place, colours))
    assert values[0] == values[1] == values[2]
    assert (values[0].seen, values[0].of) == (3, 3)
    other = composition.background_consistency(*scene((255, 0, 0), (200, 20, 90)), place, colours)
    assert other.value < values[0].value - 0.2


def test_the_background_is_blind_to_the_rim_of_the_mask_too():
    """2 % of 60 px is 1 px; pixels further out are seen."""
    frames, masks = scene((0, 0, 0), (20, 200, 90))
    before = composition.background_consistency(frames, masks, unit(20, 200, 90), colours)
    frames[:, 9, 20:40] = 255
    assert composition.background_consistency(frames, masks, unit(20, 200, 90), colours) == before
    frames[:, 8, 20:40] = 255
    assert composition.background_consistency(frames, masks, unit(20, 200, 90), colours) != before


def test_the_background_is_what_a_hand_computation_says():
    frames, masks = scene((0, 0, 0), (20, 200, 90), 1)
    painted = 22 * 22 - 4  # an ellipse of radius 1 is a cross: the square grows by its sides, without the corners
    mean = (painted * composition.CLIP_GREY.astype(float) + (4800 - painted) * np.array([20, 200, 90])) / 4800
    found = composition.background_consistency(frames, masks, unit(20, 200, 90), colours)
    assert found.value == pytest.approx(unit(*mean) @ unit(20, 200, 90), abs=1e-6)


def test_a_frame_that_is_all_foreground_shows_no_place():
    frames, masks = scene((9, 9, 9), (20, 200, 90))
    masks[1] = True
    found = composition.background_consistency(frames, masks, unit(20, 200, 90), colours)
    assert (found.seen, found.of) == (2, 3)
    masks[:] = True
    assert composition.background_consistency(frames, masks, unit(20, 200, 90), colours) == Measured(None, 0, 3)


def test_a_thing_is_cut_out_on_white():
    frames, masks = scene((200, 10, 10), (20, 200, 90))
    masks[:, 10, 20] = False
    picture = composition.cut_out_on_white(frames[0], masks[0])
    assert picture.shape == (20, 20, 3)
    assert (picture[0, 0] == 255).all()
    assert (picture.reshape(-1, 3)[1:] == (200, 10, 10)).all()


def test_a_thing_is_compared_where_it_was_found():
    frames, masks = scene((200, 10, 10), (20, 200, 90))
    found = composition.object_consistency(
        frames, [masks[0], None, np.zeros_like(masks[0])], unit(200, 10, 10), colours
    )
    assert (found.value, found.seen, found.of) == (pytest.approx(1.0), 1, 3)
    other = composition.object_consistency(frames, list(masks), unit(10, 10, 200), colours)
    assert other.value == pytest.approx(unit(200, 10, 10) @ unit(10, 10, 200))
    assert composition.object_consistency(frames, [None] * 3, unit(1, 1, 1), colours) == Measured(None, 0, 3)


def turned(degrees):
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees)), 0])


@pytest.mark.parametrize(("generated", "score"), [(0, 1.0), (40, -1.0), (20, 0.0), (10, 0.5), (30, -0.5)])
def test_a_copy_of_the_reference_is_1_and_the_truth_is_minus_1(generated, score):
    reference, truth = turned(0), 3 * turned(40)
    assert composition.copy_paste(turned(generated), truth, reference) == pytest.approx(score)


def test_the_same_picture_as_truth_and_reference_says_nothing():
    assert composition.copy_paste(turned(7), turned(3), turned(3)) is None
