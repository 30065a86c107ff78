import cv2
import mediapipe_networks
import numpy as np
import pytest

from model_zoo.detect.builtin import motion
from model_zoo.detect.builtin.detector import Figure, body, detect
from model_zoo.detect.builtin.ledges import ledge, ledges
from model_zoo.detect.builtin.prints import Head, is_print
from model_zoo.detect.builtin.things import (
    complete_masks,
    contrast,
    is_on_heads,
    is_person,
    moves_with_head,
    moving_masks,
    moving_objects,
    still_masks,
)

WALL = (200, 198, 190)
NOWHERE = np.zeros((240, 320), bool)


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


def hung(x, y, side=30):
    """Walls with a face on them, and a ball that rolls by."""
    pictures = []
    for t in range(6):
        picture = wall()
        paint_person(picture, x(t), y, side)
        cv2.circle(picture, (30 + 40 * t, 215), 12, (250, 220, 30), -1)
        pictures.append(picture)
    return pictures, [head(x(t), y, side) for t in range(6)]


def figure(mask, one, weight=1.0):
    """A person of a 240 x 320 frame, as the networks give it."""
    soft = mask.astype(np.float32) * weight
    return Figure(one.score, one, lambda height, width, scale: cv2.resize(soft, (width, height)))


def walkers(*starts, frames=4):
    """A shot of people who walk to the right, (x, shirt), the later in front, and their figures and masks."""
    pictures = np.stack([wall() for _ in range(frames)])
    people, truths = [], []
    for x, shirt in starts:
        masks = [paint_person(picture, x + 8 * t, 70, 36, shirt) for t, picture in enumerate(pictures)]
        people.append([figure(mask, head(x + 8 * t, 70, 36, 0.9)) for t, mask in enumerate(masks)])
        truths.append(masks)
    return pictures, people, truths


def test_each_person_is_one_detection_with_the_networks_mask_and_score():
    pictures, people, truths = walkers((80, (170, 40, 40)), (230, (40, 60, 160)))
    found = detect(pictures, people)
    assert [[(d.kind, d.score) for d in here] for here in found] == [[("human", 0.9)] * 2] * 4
    assert all(overlap(found[t][i].mask, truths[i][t]) > 0.99 for t in range(4) for i in range(2))


def test_a_pixel_of_two_people_belongs_to_the_likelier():
    both = np.zeros((240, 320), bool)
    both[50:, 100:200] = True
    one, other = figure(both, head(120, 70, 30), 0.7), figure(both & (np.arange(320) > 150), head(180, 70, 30), 0.9)
    first, second = detect(wall()[None], [[one], [other]])[0]
    assert not (first.mask & second.mask).any()
    assert (second.mask | first.mask).sum() == both.sum()
    assert first.box[2] <= 152


def test_a_person_who_is_lost_in_a_frame_is_not_detected_there():
    pictures, ((*person,),), _ = walkers((80, (170, 40, 40)))
    person[2] = None
    assert [sum(d.kind == "human" for d in here) for here in detect(pictures, [person])] == [1, 1, 0, 1]


def test_a_poster_is_not_a_person():
    pictures, heads = hung(lambda t: 160, 80)
    masks = [paint_person(wall(), 160, 80, 30) for _ in pictures]
    poster = [figure(mask, one) for mask, one in zip(masks, heads, strict=True)]
    assert not any(d.kind == "human" for here in detect(np.stack(pictures), [poster]) for d in here)


def test_a_person_who_moves_is_no_object_as_well():
    bodies = [paint_person(wall(), 100 + 10 * t, 70, 36) for t in range(4)]
    legs = [mask & (np.arange(240) > 120)[:, None] for mask in bodies]
    bag = [np.roll(mask, 150, 1) for mask in legs]
    assert is_person(legs, bodies)
    assert not is_person(bag, bodies)
    assert not is_person([None] * 4, bodies)


def test_a_face_that_never_moves_on_the_ground_is_a_picture():
    stay = [np.eye(3)] * 6
    pictures, heads = hung(lambda t: 160, 80)
    assert is_print(pictures, stay, heads)
    pictures, heads = hung(lambda t: 150 + 6 * t, 80)
    assert not is_print(pictures, stay, heads)


def test_a_face_that_goes_with_the_wall_before_a_moving_camera_is_a_picture():
    pictures, heads = hung(lambda t: 160, 80)
    views = [np.array([[1.0, 0, 5 * t], [0, 1, 0], [0, 0, 1]]) for t in range(6)]
    panned = [cv2.warpPerspective(p, np.linalg.inv(v), (320, 240)) for p, v in zip(pictures, views, strict=True)]
    moved = [h._replace(x=h.x - 5 * t) for t, h in enumerate(heads)]
    assert is_print(panned, views, moved)
    assert not is_print(pictures, views, heads)  # who stays in the picture while the wall goes by walks


def test_before_a_moving_camera_one_frame_in_which_the_face_moved_is_enough():
    pictures, heads = hung(lambda t: 160 + 6 * (t == 0), 80)
    views = [np.array([[1.0, 0, 0.1 * t], [0, 1, 0], [0, 0, 1]]) for t in range(6)]
    best = [h._replace(score=2.0) if t == 3 else h for t, h in enumerate(heads)]
    assert not is_print(pictures, views, best)
    pictures, heads = hung(lambda t: 160, 80)
    assert is_print(pictures, views, heads)


def test_where_nothing_moves_a_face_is_a_persons():
    pictures, heads = hung(lambda t: 160, 80)
    assert not is_print([pictures[0]] * 6, [np.eye(3)] * 6, heads)
    assert not is_print(pictures[:2], [np.eye(3)] * 2, heads[:2])


def moving_square(frames=7):
    pictures = np.stack([wall() for _ in range(frames)])
    boxes = [(60 + 25 * t, 100, 105 + 25 * t, 150) for t in range(frames)]
    for picture, (x0, y0, x1, y1) in zip(pictures, boxes, strict=True):
        picture[y0:y1, x0:x1] = (30, 120, 60)
    return pictures, boxes


def test_a_moving_thing_is_found_in_every_frame_to_the_pixel():
    pictures, boxes = moving_square()
    found = detect(pictures, [])
    assert [[d.kind for d in here] for here in found] == [["object"]] * len(pictures)
    assert np.abs(np.array([here[0].box for here in found]) - boxes).max() <= 1


def test_the_same_frames_give_the_same_detections():
    pictures, _ = moving_square()
    one, two = (detect(pictures, []) for _ in range(2))
    assert all(a[0][:4] == b[0][:4] and np.array_equal(a[0].mask, b[0].mask) for a, b in zip(one, two, strict=True))


def test_the_former_place_of_an_object_is_not_an_object():
    picture, plate = wall(), wall()
    plate[100:150, 100:150] = (30, 120, 60)
    assert moving_masks(picture, plate, NOWHERE) == []


def test_what_is_the_same_wherever_it_was_is_a_hole_in_the_plate():
    pictures, plates = [wall(t) for t in range(6)], [wall(t) for t in range(6)]
    for t, (picture, plate) in enumerate(zip(pictures, plates, strict=True)):
        picture[100:140, 100:140] = (30, 120, 60)
        picture[30:60, 100 + 20 * t : 130 + 20 * t] = (120, 30, 60)
        picture[40:50, 105 + 20 * t : 125 + 20 * t] = (20, 20, 160)
        if t % 2:
            plate[100:140, 100:140] = (30, 120, 60)  # known to be there in every other picture only
    (track,) = moving_objects(pictures, [np.eye(3)] * 6, plates, [NOWHERE] * 6, [NOWHERE] * 6)
    assert all(mask[30:60].any() and not mask[90:].any() for mask in track)


def test_beside_people_what_does_not_move_is_furniture():
    pictures = np.stack([wall() for _ in range(4)])
    pictures[:, 150:200, 20:80] = (230, 120, 20)
    assert [d.kind for d in detect(pictures, [])[0]] == ["object"]
    masks = [paint_person(picture, 180 + 6 * t, 70, 36) for t, picture in enumerate(pictures)]
    found = detect(pictures, [[figure(mask, head(180 + 6 * t, 70, 36)) for t, mask in enumerate(masks)]])
    assert [[d.kind for d in here] for here in found] == [["human"]] * 4


def test_what_stands_out_from_the_border_is_a_thing_unless_a_person_is_there():
    picture = wall()
    picture[90:160, 120:180] = (230, 120, 20)
    (mask,) = still_masks(picture, NOWHERE)
    truth = np.zeros((240, 320), bool)
    truth[90:160, 120:180] = True
    assert overlap(mask, truth) > 0.97
    assert still_masks(picture, truth) == []


def test_a_row_of_still_things_is_furniture():
    picture = wall()
    for x in (80, 140, 200):
        picture[150:200, x : x + 40] = (230, 120, 20)
    assert still_masks(picture, NOWHERE) == []


def test_a_table_hides_the_person_from_its_edge_on():
    picture = wall()
    truth = paint_person(picture, 160, 70, 36)
    whole = truth.copy()
    picture[190:] = (120, 80, 40)
    truth[190:] = False
    one = head(160, 70, 36)
    assert abs(ledge(picture, one) - 190) <= 1
    (found,) = detect(picture[None], [[figure(whole, one)]])[0]  # the network imagines the body behind the table
    assert overlap(found.mask, truth) > 0.96


def test_without_a_table_a_ledge_is_not_found():
    picture = wall()
    paint_person(picture, 160, 70, 36)
    assert ledges([picture] * 4, [picture] * 4, [np.eye(3)] * 4, [head(160, 70, 36)] * 4) == [240] * 4


@pytest.mark.parametrize("x", [-60, 380])
def test_a_head_outside_of_the_picture_has_no_ledge(x):
    picture = np.full((240, 320, 3), 200, np.uint8)
    assert ledge(picture, head(x, 70, 36)) == 240


def test_a_ledge_that_two_pictures_of_three_see_holds_for_all():
    bare = wall()
    paint_person(bare, 160, 70, 36)
    table = bare.copy()
    table[190:] = (120, 80, 40)
    heads, plates = [head(160, 70, 36)] * 3, [table, bare, table]
    assert all(abs(y - 190) <= 1 for y in ledges(plates, plates, [np.eye(3)] * 3, heads))


def test_the_edge_of_an_object_on_one_side_of_a_body_is_not_a_table():
    picture = wall()
    paint_person(picture, 160, 70, 36, shirt=WALL)
    picture[150:190, 245:] = (250, 220, 30)
    assert ledge(picture, head(160, 70, 36)) == 240


def test_clothes_of_the_colour_of_the_wall_are_not_a_table():
    picture = wall()
    paint_person(picture, 160, 70, 36, shirt=WALL)
    assert ledge(picture, head(160, 70, 36)) == 240


def test_a_table_is_seen_in_the_pictures_where_the_plate_lacks_who_walks_by():
    plate = wall()
    plate[190:] = (120, 80, 40)
    picture = plate.copy()
    paint_person(picture, 160, 70, 36)
    picture[190:] = plate[190:]
    assert all(abs(y - 190) <= 1 for y in ledges([picture], [plate], [np.eye(3)], [head(160, 70, 36)]))


def test_an_object_is_tracked_in_front_of_a_person_and_is_not_part_of_them():
    pictures, plates, truths, people, usual = [], [], [], [], []
    for t in range(7):
        picture = wall(t)
        person = paint_person(picture, 200, 70, 36)
        plates.append(picture.copy())
        x = 20 + 25 * t
        picture[180:220, x : x + 50] = (250, 220, 30)
        picture[190:200, x + 10 : x + 40] = (20, 20, 160)
        thing = np.zeros((240, 320), bool)
        thing[180:220, x : x + 50] = True
        pictures.append(picture)
        truths.append(thing)
        people.append(person & ~thing)
        usual.append(person)
    (track,) = moving_objects(pictures, [np.eye(3)] * 7, plates, people, usual)
    assert [mask is not None for mask in track] == [True] * 7
    assert min(overlap(mask, truth) for mask, truth in zip(track, truths, strict=True)) > 0.85
    more = people[6] | (truths[6] & (np.arange(320) < 210))  # a network takes a part of the thing for the person
    who = [*[None] * 5, figure(people[5], head(200, 70, 36)), figure(more, head(200, 70, 36))]
    person, thing = detect(np.stack(pictures), [who])[6]
    assert overlap(person.mask, people[6]) > 0.95
    assert overlap(thing.mask, truths[6]) > 0.85


def test_a_coat_goes_with_its_head_and_a_case_goes_its_own_way():
    heads = [head(60 + 30 * t, 60, 36) for t in range(5)]
    coat, case = ([np.zeros((240, 320), bool) for _ in heads] for _ in range(2))
    for t in range(5):
        coat[t][110:150, 40 + 30 * t : 80 + 30 * t] = True
        case[t][180:220, 200 - 30 * t : 240 - 30 * t] = True
    assert moves_with_head(coat, heads)
    assert not moves_with_head(case, heads)
    assert not moves_with_head(coat, [None] * 5)


def test_a_cup_beside_the_elbow_is_not_a_part_of_the_body_and_a_divided_body_keeps_its_lower_half():
    one = head(160, 70, 36)
    whole = paint_person(wall(), 160, 70, 36)
    spoilt = whole.copy()
    spoilt[170:200, 235:265] = True
    spoilt[184:187, 160:240] = True  # a thin bridge
    assert overlap(body(spoilt, one, 1.0), whole) > 0.98
    large = cv2.resize(spoilt.astype(np.uint8), None, fx=3, fy=3, interpolation=cv2.INTER_NEAREST) > 0
    assert overlap(body(large, one, 3.0)[1::3, 1::3], whole) > 0.98
    divided = whole & ~((np.arange(240) >= 150) & (np.arange(240) < 165))[:, None]
    assert overlap(body(divided, one, 1.0), divided) > 0.98
    assert overlap(body(spoilt, head(20, 20, 10), 1.0), spoilt) == 1  # the face is not in the mask


def test_what_stays_on_a_head_is_a_hat_and_what_passes_it_is_not():
    heads = [head(60 + 30 * t, 60, 36) for t in range(5)]
    hat, ball = ([np.zeros((240, 320), bool) for _ in heads] for _ in range(2))
    for t in range(5):
        hat[t][15:35, 50 + 30 * t : 80 + 30 * t] = True
        ball[t][45:75, 260 - 50 * t : 290 - 50 * t] = True
    assert is_on_heads(hat, [heads])
    assert is_on_heads(hat, [[*heads[:2], *[None] * 3], [*[None] * 2, *heads[2:]]])
    assert not is_on_heads(ball, [heads])
    assert not is_on_heads(hat, [])


def test_an_object_gets_back_the_parts_that_are_missing_in_its_mask_but_not_its_shadow():
    pictures, masks, truths = [], [], []
    for t in range(6):
        picture, x = wall(t), 70 + 35 * t
        picture[160:200, x + 40 : x + 60] = (picture[160:200, x + 40 : x + 60] * 0.6).astype(np.uint8)
        picture[120:200, x : x + 30] = (60, 60, 170)
        picture[120:200, x + 30 : x + 40] = (160, 150, 60)
        truth = np.zeros((240, 320), bool)
        truth[120:200, x : x + 40] = True
        pictures.append(picture)
        truths.append(truth)
        masks.append(truth & (np.arange(320) < x + 30))
    out = complete_masks(pictures, [np.eye(3)] * 6, masks, [NOWHERE] * 6)
    assert min(overlap(mask, truth) for mask, truth in zip(out, truths, strict=True)) > 0.9
    person = [truth & ~mask for truth, mask in zip(truths, masks, strict=True)]
    out = complete_masks(pictures, [np.eye(3)] * 6, masks, person)
    assert not any((mask & body).any() for mask, body in zip(out, person, strict=True))


def test_a_face_seen_for_a_moment_on_an_object_does_not_make_it_a_person():
    thing = [np.zeros((240, 320), bool) for _ in range(8)]
    for mask in thing:
        mask[50:150, 50:100] = True
    assert not is_person(thing, [thing[0], thing[1], *[NOWHERE] * 6])
    assert is_person(thing, [*thing[:5], *[NOWHERE] * 3])


def test_an_empty_wall_shows_nothing():
    assert detect(np.stack([wall()] * 4), []) == [[]] * 4
    assert np.percentile(contrast(wall()), 99) < 10


def test_the_cameras_own_motion_is_taken_out_of_the_plate():
    rng = np.random.default_rng(0)
    scene = cv2.GaussianBlur(np.kron(rng.integers(0, 256, (40, 60, 3)), np.ones((8, 8, 1))).astype(np.uint8), (0, 0), 1)
    pictures = [scene[20:260, 10 + 9 * t : 330 + 9 * t].copy() for t in range(7)]
    found = motion.find_homography(pictures[0], pictures[3])
    assert np.abs(found - [[1, 0, -27], [0, 1, 0], [0, 0, 1]]).max() < 0.5
    clean = pictures[2].copy()
    for t, picture in enumerate(pictures):
        picture[100:130, 40 + 35 * t : 70 + 35 * t] = 255
    plate = motion.background_plates(pictures, motion.camera_homographies(pictures))[2]
    assert np.abs(plate[100:130, 110:140].astype(int) - clean[100:130, 110:140]).mean() < 4


def test_a_standing_camera_is_not_taken_to_follow_who_moves():
    rng = np.random.default_rng(1)
    coat = np.kron(rng.integers(0, 256, (18, 20, 3)), np.ones((8, 8, 1))).astype(np.uint8)  # full of corners
    pictures = [wall(t) for t in range(5)]
    for t, picture in enumerate(pictures):
        picture[60:204, 40 + 9 * t : 200 + 9 * t] = coat
    assert all(np.array_equal(view, np.eye(3)) for view in motion.camera_homographies(pictures))


def test_the_plate_is_free_of_what_stood_in_the_middle_for_most_of_the_shot():
    ground = wall()
    pictures = [wall(t) for t in range(9)]
    for picture, x in zip(pictures, (20, 70, 120, 120, 120, 120, 120, 170, 220), strict=True):
        picture[120:170, x : x + 45] = (30, 120, 60)
    plate = motion.background_plates(pictures, motion.camera_homographies(pictures))[0]
    assert np.abs(plate.astype(int) - ground).max(2).mean() < 6
    assert not (motion.difference(plate, ground) > motion.MIN_DIFFERENCE).any()


def test_a_face_in_a_photograph_becomes_a_person():
    astronaut = pytest.importorskip("skimage.data").astronaut()
    (found,) = mediapipe_networks.network("builtin-detect")(astronaut[None])
    (person,) = [d for d in found if d.kind == "human"]
    assert person.mask[90:150, 200:250].all()  # the face
    assert person.mask[300:400, 150:300].mean() > 0.9  # the suit
    assert not person.mask[:150, :100].any()  # the flag


def test_each_signer_is_one_person_in_every_frame(corpus):
    from a2data.media import video

    frames = [f.picture.to_ndarray(format="rgb24") for f in video.read(str(corpus / "video" / "intel_asl_eat.mkv"))]
    found = mediapipe_networks.network("builtin-detect")(np.stack(frames[::15]))
    assert [sum(d.kind == "human" for d in here) for here in found] == [1] * len(frames[::15])
