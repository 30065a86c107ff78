import cv2
import numpy as np
import pytest

from model_zoo import builtin_motion, cards
from model_zoo.builtin_detect import Head, detect, follow, person_masks
from model_zoo.builtin_things import contrast, object_masks

WALL = (200, 198, 190)


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


def wall(seed=0, shape=(240, 320)):
    """A wall with a little noise and two dark panels."""
    picture = np.full((*shape, 3), WALL, np.int16) + np.random.default_rng(seed).normal(0, 4, (*shape, 3)).astype(
        np.int16
    )
    picture[:90, 10:60] = picture[30:150, 275:] = (60, 80, 120)
    return np.clip(picture, 0, 255).astype(np.uint8)


def paint_person(picture, x, y, side, shirt=(170, 40, 40)):
    """A head, a neck and a body down to the border, drawn into the picture; returns the mask."""
    mask = np.zeros(picture.shape[:2], np.uint8)

    def part(draw, colour):
        one = np.zeros_like(mask)
        draw(one)
        picture[one > 0] = colour
        mask[one > 0] = 1

    part(lambda m: cv2.rectangle(m, (x - side // 4, y), (x + side // 4, y + side), 1, -1), (205, 150, 120))
    corners = np.array([(x - side, y + side), (x + side, y + side), (x + 5 * side // 4, 600), (x - 5 * side // 4, 600)])
    part(lambda m: cv2.fillConvexPoly(m, corners, 1), shirt)
    part(lambda m: cv2.ellipse(m, (x, y), (side // 2, 3 * side // 4), 0, 0, 360, 1, -1), (205, 150, 120))
    return mask > 0


def head(x, y, side, score=1.5):
    return Head(float(x), float(y), float(side), score)


def test_the_mask_of_a_person_follows_the_silhouette():
    picture = wall()
    truth = paint_person(picture, 160, 70, 36)
    (mask,) = person_masks(picture, [head(160, 70, 36)], np.zeros((240, 320), bool))
    assert overlap(mask, truth) > 0.96


def test_two_people_share_no_pixel_and_each_gets_the_own_body():
    picture = wall()
    truths = paint_person(picture, 90, 80, 30), paint_person(picture, 200, 80, 30, (40, 60, 160))
    masks = person_masks(picture, [head(90, 80, 30), head(200, 80, 30)], np.zeros((240, 320), bool))
    assert not (masks[0] & masks[1]).any()
    assert all(overlap(mask, truth) > 0.95 for mask, truth in zip(masks, truths, strict=True))


def test_a_head_is_followed_through_frames_without_a_face():
    pictures = [wall() for _ in range(5)]
    for t, picture in enumerate(pictures):
        paint_person(picture, 120 + 8 * t, 70, 36)
    ((*track,),) = follow(pictures, [[], [head(128, 70, 36)], [], [head(144, 70, 36)], []])
    assert [round(h.x) for h in track] == [120, 128, 136, 144, 152]


def test_a_head_that_leaves_is_lost_rather_than_invented():
    pictures = [wall() for _ in range(4)]
    paint_person(pictures[0], 160, 70, 36)
    paint_person(pictures[1], 160, 70, 36)
    (track,) = follow(pictures, [[head(160, 70, 36)], [head(160, 70, 36)], [], []])
    assert track[2:] == [None, None]


def test_a_face_printed_on_a_chest_and_a_doubtful_face_are_nobody():
    pictures = [wall()] * 4
    faces = [head(160, 60, 36), head(162, 135, 38, 0.9), head(60, 200, 30, 0.3)]
    assert len(follow(pictures, [faces] * 4)) == 1


def moving_square(frames=7):
    pictures = np.stack([wall() for _ in range(frames)])
    boxes = [(60 + 25 * t, 100, 105 + 25 * t, 150) for t in range(frames)]
    for picture, (x0, y0, x1, y1) in zip(pictures, boxes, strict=True):
        picture[y0:y1, x0:x1] = (30, 120, 60)
    return pictures, boxes


def test_a_moving_thing_is_found_in_every_frame_to_the_pixel():
    pictures, boxes = moving_square()
    found = detect(pictures, [[]] * len(pictures))
    assert [[d.kind for d in here] for here in found] == [["object"]] * len(pictures)
    assert np.abs(np.array([here[0].box for here in found]) - boxes).max() <= 1


def test_the_same_frames_give_the_same_detections():
    pictures, _ = moving_square()
    one, two = (detect(pictures, [[]] * len(pictures)) for _ in range(2))
    assert all(a[0][:4] == b[0][:4] and np.array_equal(a[0].mask, b[0].mask) for a, b in zip(one, two, strict=True))


def test_where_a_thing_has_been_is_no_thing():
    picture, plate = wall(), wall()
    plate[100:150, 100:150] = (30, 120, 60)
    assert object_masks(picture, plate, np.zeros((240, 320), bool)) == []


def test_what_stands_out_from_the_border_is_a_thing_unless_a_person_is_there():
    picture = wall()
    picture[90:160, 120:180] = (230, 120, 20)
    ((score, mask),) = object_masks(picture, picture, np.zeros((240, 320), bool))
    truth = np.zeros((240, 320), bool)
    truth[90:160, 120:180] = True
    assert overlap(mask, truth) > 0.97
    assert score > 0.9
    assert object_masks(picture, picture, truth) == []


def test_an_empty_wall_shows_nothing():
    assert detect(np.stack([wall()] * 4), [[]] * 4) == [[]] * 4
    assert np.percentile(contrast(wall()), 99) < 10


def test_the_cameras_own_motion_is_taken_out_of_the_plate():
    rng = np.random.default_rng(0)
    scene = cv2.GaussianBlur(np.kron(rng.integers(0, 256, (40, 60, 3)), np.ones((8, 8, 1))).astype(np.uint8), (0, 0), 1)
    pictures = [scene[20:260, 10 + 9 * t : 330 + 9 * t].copy() for t in range(7)]
    found = builtin_motion.camera(pictures[0], pictures[3])
    assert np.abs(found - [[1, 0, -27], [0, 1, 0], [0, 0, 1]]).max() < 0.5
    clean = pictures[2].copy()
    for t, picture in enumerate(pictures):
        picture[100:130, 40 + 35 * t : 70 + 35 * t] = 255
    plate = builtin_motion.plates(pictures)[2]
    assert np.abs(plate[100:130, 110:140].astype(int) - clean[100:130, 110:140]).mean() < 4


def test_a_face_in_a_photograph_becomes_a_person():
    astronaut = pytest.importorskip("skimage.data").astronaut()
    pytest.importorskip("dlib")
    (found,) = cards.load("builtin-detect")(astronaut[None])
    (person,) = [d for d in found if d.kind == "human"]
    assert person.mask[90:150, 200:250].all()  # the face
    assert person.mask[300:400, 150:300].mean() > 0.9  # the suit
    assert not person.mask[:150, :100].any()  # the flag


def test_each_signer_is_one_person_in_every_frame(corpus):
    from a2data import video

    frames = [f.picture.to_ndarray(format="rgb24") for f in video.read(str(corpus / "video" / "intel_asl_eat.mkv"))]
    found = cards.load("builtin-detect")(np.stack(frames[::15]))
    assert [sum(d.kind == "human" for d in here) for here in found] == [1] * len(frames[::15])
