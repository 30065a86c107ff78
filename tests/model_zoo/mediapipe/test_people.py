"""Who is followed: networks of three lines say where bodies are."""

import numpy as np
import pytest

from model_zoo.mediapipe import people, pose, ssd
from model_zoo.mediapipe.people import Networks


def body(x, y, side=60.0):
    """A pose whose mask is a square around (x, y)."""
    mask = np.zeros((256, 256), np.float32)
    mask[64:192, 64:192] = 1
    back = np.array([[side / 128, 0, x - side], [0, side / 128, y - side]])
    return pose.Pose(0.9, np.tile([x, y], (33, 1)), np.ones(33), mask, back, pose.Region((x, y), side, 0.0))


def detection(x, y, score):
    return ssd.BoxDetection(
        score, np.array([x - 5, y - 5, x + 5, y + 5.0]), np.array([[x, y + 20], [x, y - 20], [x, y], [x, y]])
    )


@pytest.fixture
def scene(monkeypatch):
    """Sets what the detectors find in each frame, (x, y, score), and where bodies really are, (x, y), by frame number."""

    def make(found, bodies):
        frames = [np.full((120, 240, 3), t, np.uint8) for t in range(len(bodies))]

        def look(run, frame, region):
            near = [
                b for b in bodies[frame[0, 0, 0]] if np.hypot(b[0] - region.centre[0], b[1] - region.centre[1]) < 40
            ]
            return body(*near[0]) if near else body(0, 0)._replace(score=0.1)

        monkeypatch.setattr(pose, "run_pose", look)
        monkeypatch.setattr(people, "detect", lambda run, frame: ([], [detection(*f) for f in found[frame[0, 0, 0]]]))
        return people.track_people(Networks(None, None, None), frames)

    return make


def xs(person):
    return [None if p is None else float(p.points[0, 0]) for p in person]


def test_a_person_is_followed_through_frames_without_a_detection(scene):
    at = [[(60 + 10 * t, 60)] for t in range(5)]
    (person,) = scene([[(60, 60, 0.9)], [], [], [], []], at)
    assert xs(person) == [60, 70, 80, 90, 100]


def test_a_person_who_was_never_found_with_certainty_is_left_out(scene):
    at = [[(60, 60), (180, 60)]] * 3
    found = scene([[(60, 60, 0.7), (180, 60, 0.7)], [], [(180, 60, 0.9), (60, 60, 0.8)]], at)
    assert [xs(person) for person in found] == [[180, 180, 180]]


def test_a_person_who_is_gone_is_lost_and_one_who_enters_is_new(scene):
    at = [[(60, 60)], [(60, 60)], [], [], [(190, 60)]]
    one, other = scene([[(60, 60, 0.9)], [], [], [], [(190, 60, 0.9)]], at)
    assert xs(one) == [60, 60, None, None, None]
    assert xs(other) == [None, None, None, None, 190]


def test_two_detections_of_one_body_are_one_person(scene):
    assert len(scene([[(60, 60, 0.9), (70, 65, 0.9)]], [[(60, 60)]])) == 1


def test_the_body_of_an_upright_face_is_below_it():
    face = ssd.BoxDetection(0.9, np.array([90.0, 40, 110, 60]), np.array([[95.0, 45], [105, 45], [100, 50], [100, 55]]))
    region = people.region_of_face(face)
    assert region.centre == (100.0, 50 + people.HIPS_BELOW * 20)
    assert region.angle == 0
