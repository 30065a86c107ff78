import cv2
import numpy as np
import pytest

from model_zoo.caption import measured
from model_zoo.caption.camera import Step
from model_zoo.caption.measured import ElementHint

STILL = np.full((31, 180, 320, 3), 120, np.uint8)


def thing(id: str, kind: str, *boxes: tuple, parent: str = "", label: str = "", **attributes: str) -> ElementHint:
    frames = np.linspace(0, 30, len(boxes)).astype(int).tolist()
    return ElementHint(id, kind, label, parent, frames, [tuple(map(float, b)) for b in boxes], attributes)


@pytest.mark.parametrize(
    ("head", "shot"),
    [
        ((100, 0, 240, 180), "extreme_close_up"),  # the chin is cut off
        ((100, 10, 200, 148), "extreme_close_up"),
        ((100, 10, 180, 110), "close_up"),
        ((100, 10, 150, 70), "medium_shot"),
        ((100, 10, 125, 42), "full_shot"),  # the feet are cut off, the knees are not
        ((100, 10, 118, 34), "full_shot"),
        ((100, 10, 110, 24), "long_shot"),
    ],
)
def test_the_shot_type_follows_from_the_head_and_the_room_below_it(head, shot):
    assert ("shot_type", shot, 0.9) in measured.shot(STILL, 15.0, [thing("f", "face", head)], {})


def test_a_body_that_ends_above_the_border_is_whole_unless_a_table_hides_it():
    face = thing("f", "face", (100, 10, 120, 40), parent="p")  # by the head alone, the feet would be cut off
    stands, sits = thing("p", "human", (90, 10, 140, 174)), thing("p", "human", (90, 10, 140, 100))
    assert ("shot_type", "full_shot", 0.9) in measured.shot(STILL, 15.0, [stands, face], {})
    large = thing("f", "face", (100, 10, 140, 60), parent="p")
    assert ("shot_type", "medium_shot", 0.9) in measured.shot(STILL, 15.0, [sits, large], {})


def test_a_person_without_a_face_is_framed_by_what_the_border_cuts_off():
    assert measured.shot_type_by_person(thing("p", "human", (100, 20, 160, 170)), 180, 320) == "full_shot"
    assert measured.shot_type_by_person(thing("p", "human", (100, 90, 130, 170)), 180, 320) == "long_shot"
    assert measured.shot_type_by_person(thing("p", "human", (100, 20, 200, 180)), 180, 320) == "medium_shot"
    assert measured.shot_type_by_person(thing("p", "human", (20, 20, 300, 180)), 180, 320) == "close_up"
    assert measured.shot_type_by_person(thing("p", "human", (20, 0, 300, 180)), 180, 320) == "extreme_close_up"


def test_the_view_follows_from_the_yaw_and_a_missing_face_is_only_a_weak_sign():
    person = thing("p", "human", (100, 20, 200, 180))

    def views(*things: ElementHint) -> dict[str, tuple]:
        return {field: (value, sure) for field, value, sure in measured.shot(STILL, 15.0, things, {})}

    front = views(person, thing("f", "face", (130, 30, 160, 70), parent="p", yaw="-0.1"))
    assert front["shot_position"][0] == "front_view"
    assert front["shot_angle"][0] == "eye_level"
    side = views(person, thing("f", "face", (130, 30, 160, 70), parent="p", yaw="0.6"))
    assert side["shot_position"][0] == "side_view"
    assert "shot_angle" not in side
    assert views(person)["shot_position"] == ("back_view", 0.3)


def test_nothing_is_said_of_the_shot_when_nothing_was_found():
    assert measured.shot(STILL, 15.0, [], {}) == []


def test_the_face_of_another_person_does_not_describe_the_main_person():
    things = [thing("p", "human", (100, 20, 200, 180)), thing("f", "face", (10, 20, 20, 30), parent="q", yaw="0")]
    assert all(value != "front_view" for _, value, _ in measured.shot(STILL, 15.0, things, {}))


@pytest.mark.parametrize(
    ("boxes", "action"),
    [
        (((20, 50, 60, 90), (220, 50, 260, 90)), "moves to the right"),
        (((220, 50, 260, 90), (20, 50, 60, 90)), "moves to the left"),
        (((100, 10, 140, 40), (100, 130, 140, 160)), "moves down"),
        (((100, 130, 140, 160), (100, 10, 140, 40)), "moves up"),
        (((100, 60, 140, 100), (90, 50, 150, 110)), "comes closer"),
        (((90, 50, 150, 110), (100, 60, 140, 100)), "moves away"),
        (((100, 60, 140, 100), (104, 60, 144, 100)), ""),
    ],
)
def test_the_action_of_an_object_follows_from_its_track(boxes, action):
    subject = measured.scene(STILL, 15.0, [thing("o", "object", *boxes)])["subjects"][0]
    assert subject["action"] == action


def test_what_stands_still_before_a_panning_camera_does_not_move():
    steps = [Step(-0.05, 0.0, 0.0, 0.0)] * 10  # the picture goes to the left by half its width
    frames = list(range(0, 33, 3))
    drifts = thing("o", "object", (200, 60, 240, 100), (40, 60, 80, 100))
    follows = thing("o", "object", (200, 60, 240, 100), (200, 60, 240, 100))
    assert measured.displacement(drifts, frames, steps, 180, 320) == pytest.approx((0, 0, 0), abs=1e-6)
    assert measured.displacement(follows, frames, steps, 180, 320) == pytest.approx((0.5, 0, 0), abs=1e-6)


def test_a_still_thing_at_the_border_does_not_move_when_the_camera_zooms():
    steps = [Step(0.0, 0.0, np.log(1.5) / 10, 0.0)] * 10
    far = thing("o", "object", (200, 80, 220, 100), (220, 75, 250, 105))
    assert measured.displacement(far, list(range(0, 33, 3)), steps, 180, 320) == pytest.approx((0, 0, 0), abs=1e-6)


def test_a_person_gestures_when_the_picture_changes_below_the_face():
    person, face = thing("p", "human", (100, 20, 200, 180)), thing("f", "face", (130, 30, 160, 70), parent="p")

    def action(frames: np.ndarray, *things: ElementHint) -> str:
        return measured.scene(frames, 15.0, things)["subjects"][0]["action"]

    hands, head = STILL.copy(), STILL.copy()
    hands[::2, 100:130, 120:180] = 250
    head[::2, 30:60, 130:160] = 250
    assert action(hands, person, face) == "gestures"
    assert action(hands, person) == "moves on the spot"
    assert action(head, person, face) == "stays still"
    assert action(STILL, person, face) == "stays still"


def test_people_come_before_objects_and_large_before_small():
    things = [
        thing("o", "object", (0, 0, 300, 170), label="table", colour="brown"),
        thing("p1", "human", (0, 0, 20, 40), label="person"),
        thing("p2", "human", (200, 0, 300, 170), label="person"),
        thing("u", "upper", (210, 50, 290, 100), parent="p2", colour="orange"),
        thing("l", "lower", (210, 100, 290, 170), parent="p2", colour="black"),
    ]
    subjects = measured.scene(STILL, 15.0, things)["subjects"]
    told = [(s["TYPES"]["sub_type"], s["appearance"], s["position"], s["is_main_subject"]) for s in subjects]
    assert told == [
        ("Person", "in an orange top and black bottoms", "on the right", True),
        ("Person", "", "on the left", False),
        ("Table", "brown", "in the centre", False),
    ]


def test_two_of_a_kind_in_one_third_are_distinguished_by_their_order():
    pair = [thing("a", "human", (170, 0, 210, 99)), thing("b", "human", (110, 0, 150, 99))]
    assert measured.positions(pair, 320) == {"a": "on the right", "b": "on the left"}
    assert set(measured.positions([*pair, thing("c", "human", (150, 0, 160, 99))], 320).values()) == {"in the centre"}


def test_a_body_that_only_shifts_does_not_gesture():
    """A textured body that sways by two pixels, on which nothing else moves."""
    rng = np.random.default_rng(0)
    cloth = cv2.resize(rng.integers(0, 256, (30, 40), np.uint8), (160, 120), interpolation=cv2.INTER_CUBIC)
    frames = np.full((31, 180, 320, 3), 120, np.uint8)
    for n in range(31):
        frames[n, 60:180, 80 + 2 * (n % 2) : 240 + 2 * (n % 2)] = cloth[..., None]
    person = thing("p", "human", (80, 0, 240, 180), (80, 0, 240, 180))
    face = thing("p/face", "face", (140, 10, 180, 60), (140, 10, 180, 60), parent="p")
    whole, limbs = measured.pixel_change(frames, list(range(0, 31, 5)), person, face)
    assert whole > measured.MAX_STILL_CHANGE
    assert limbs < measured.MIN_GESTURE_CHANGE
    assert measured.action(person, (0, 0, 0), [face], frames, list(range(0, 31, 5))) == "sways gently"
