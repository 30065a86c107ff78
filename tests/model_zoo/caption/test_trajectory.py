import numpy as np
import pytest

from model_zoo.caption import trajectory
from model_zoo.caption.camera import Step
from model_zoo.caption.measured import ElementHint, scene, subjects_of

STILL = np.full((31, 180, 320, 3), 120, np.uint8)
HEIGHT, WIDTH, FPS = 180, 320, 15.0


def person(*boxes: tuple, kind: str = "human") -> ElementHint:
    """A person in evenly spaced boxes over two seconds; between two boxes, in the middle of both."""
    between = np.linspace(0, len(boxes) - 1, 11)
    columns = np.array(boxes, float).T
    tracked = np.array([np.interp(between, range(len(boxes)), column) for column in columns]).T
    return ElementHint(
        "p", kind, "person", "", np.linspace(0, 30, 11).astype(int).tolist(), [tuple(b) for b in tracked], {}
    )


def said(thing: ElementHint, steps: list[Step | None] | None = None) -> str:
    chosen = list(range(0, 33, 3))
    found = trajectory.path(thing, chosen, steps or [Step(0, 0, 0, 0)] * 10, HEIGHT, WIDTH)
    return trajectory.describe_motion(thing, found, FPS, HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        (((20, 60, 60, 160), (260, 60, 300, 160)), "walks from left to right"),
        (((260, 60, 300, 160), (20, 60, 60, 160)), "walks from right to left"),
        (((120, 60, 160, 160), (170, 60, 210, 160)), "walks to the right"),
        (((140, 80, 170, 140), (120, 50, 190, 170)), "walks towards the camera"),
        (((120, 50, 190, 170), (140, 80, 170, 140)), "walks away from the camera"),
        (((20, 80, 50, 140), (230, 50, 300, 170)), "walks from left to right, towards the camera"),
        (
            ((60, 60, 100, 160), (200, 60, 240, 160), (60, 60, 100, 160)),
            "walks to the right, turns and walks back to the left",
        ),
        (((60, 60, 100, 160), (200, 60, 240, 160), (60, 60, 100, 160), (200, 60, 240, 160)), "walks back and forth"),
        (((20, 100, 32, 130), (300, 100, 312, 130)), "runs from left to right"),
        (((20, 100, 130, 180), (190, 100, 300, 180)), "moves from left to right"),
        (((100, 60, 140, 160), (110, 62, 150, 160)), ""),
    ],
)
def test_the_way_of_a_person_follows_from_the_track(boxes, words):
    assert said(person(*boxes)) == words


def test_a_thing_may_fall_and_never_walks():
    assert said(person((100, 10, 140, 40), (100, 130, 140, 160), kind="object")) == "moves down"
    assert said(person((20, 60, 60, 160), (260, 60, 300, 160), kind="object")) == "moves from left to right"


def test_a_person_followed_by_the_camera_walks_and_one_who_stands_in_a_pan_does_not():
    pan = [Step(-0.05, 0.0, 0.0, 0.0)] * 10  # the picture goes to the left by half its width
    assert said(person((140, 60, 180, 160), (140, 60, 180, 160)), pan) == "walks to the right"
    assert said(person((220, 60, 260, 160), (60, 60, 100, 160)), pan) == ""


def test_who_stands_at_the_border_of_a_zoom_or_a_roll_stays():
    grown = np.exp(0.5)
    box = np.array([(250, 120, 270, 160)], float) - (160, 90, 160, 90)
    later = box * grown + (160, 90, 160, 90)
    zoom = [Step(0.0, 0.0, 0.05, 0.0)] * 10
    track = [tuple((box * np.exp(0.05 * k) + (160, 90, 160, 90))[0]) for k in range(11)]
    assert track[-1] == pytest.approx(tuple(later[0]))
    still = ElementHint("p", "human", "person", "", list(range(0, 33, 3)), track, {})
    assert said(still, zoom) == ""
    angle = np.radians(np.arange(11) * 4)
    x, y = 160 + 100 * np.cos(angle), 90 + 100 * np.sin(angle)
    turned = [(a - 10, b - 20, a + 10, b + 20) for a, b in zip(x, y, strict=True)]
    roll = [Step(0.0, 0.0, 0.0, 4.0)] * 10
    assert said(ElementHint("p", "human", "person", "", list(range(0, 33, 3)), turned, {}), roll) == ""


def test_one_outlier_box_is_not_a_trajectory():
    boxes = [(100.0, 60.0, 140.0, 160.0)] * 11
    for slipped in (0, 5, 10):
        track = list(boxes)
        track[slipped] = (200.0, 60.0, 240.0, 160.0)
        assert said(ElementHint("p", "human", "person", "", list(range(0, 33, 3)), track, {})) == ""


def test_the_expert_answers_for_the_subject_who_goes_and_not_for_the_one_who_stays():
    goes = person((20, 60, 60, 160), (260, 60, 300, 160))
    stays = ElementHint("q", "human", "person", "", [0, 30], [(150.0, 10.0, 250.0, 175.0)] * 2, {})
    told = scene(STILL, FPS, [goes, stays])
    number = [s["thing"] for s in told["subjects"]].index("p")
    answers = trajectory.trajectories(STILL, FPS, [goes, stays], told)
    assert [(f, v) for f, v, _ in answers] == [(f"subjects.{number}.action", "walks from left to right")]
    assert trajectory.trajectories(STILL, FPS, [], {"subjects": []}) == []


def test_a_face_that_goes_out_of_sight_is_a_weak_sign_of_a_turn():
    stays = ElementHint("p", "human", "person", "", list(range(0, 60, 6)), [(100.0, 20.0, 200.0, 175.0)] * 10, {})
    early = ElementHint("f", "face", "face", "p", [0, 6, 12, 18], [(130.0, 25.0, 170.0, 70.0)] * 4, {})
    late = early._replace(frames=[36, 42, 48, 54])
    assert trajectory.turn_action(stays, early, FPS) == "turns away from the camera"
    assert trajectory.turn_action(stays, late, FPS) == "turns to the camera"
    assert trajectory.turn_action(stays, early._replace(frames=[0, 18, 36, 54]), FPS) == ""
    frames = np.full((60, 180, 320, 3), 120, np.uint8)
    told = {"subjects": [{"thing": "p"}]}
    assert trajectory.trajectories(frames, FPS, [stays, early], told) == [
        ("subjects.0.action", "turns away from the camera", 0.45)
    ]


def test_subjects_of_a_captioner_that_knows_no_things_are_told_by_their_sides():
    left, right = (
        ElementHint(i, "human", "", "", [0], [(x, 0.0, x + 40, 99.0)], {}) for i, x in (("l", 20.0), ("r", 240.0))
    )

    def human(position: str) -> dict:
        return {"TYPES": {"type": "Human", "sub_type": "Woman"}, "position": position}

    pair = {"subjects": [human("on the right"), {"TYPES": {"type": "Object"}}, human("On the left side")]}
    assert {n: t.id for n, t in subjects_of([left, right], pair).items()} == {0: "r", 2: "l"}
    assert subjects_of([left, right], {"subjects": [human(""), human("")]}) == {}
    assert subjects_of([left, right], {"subjects": [human("on the left")]}) == {}
    assert {n: t.id for n, t in subjects_of([left], {"subjects": [human("")]}).items()} == {0: "l"}
