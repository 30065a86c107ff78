import shutil

import cv2
import numpy as np
import pytest
import torch
from face_pictures import iou, read, six_people
from hypothesis import given, settings
from hypothesis import strategies as st

from model_zoo import cards
from model_zoo.faces.retinaface import anchors, decode, detections, forward, load, network


@pytest.fixture(scope="module")
def weights(corpus):
    return corpus / "weights"


@pytest.fixture(scope="module")
def detector(weights):
    return load(str(weights / "retinaface_mnet025.pth"))


@pytest.fixture(scope="module")
def scrfd(weights):
    return cards.load(f"insightface:{weights / 'models' / 'insightface_mini'}")


@pytest.mark.parametrize(("picture", "count"), [("six people", 6), ("zidane.jpg", 2)])
def test_every_face_is_found_once_where_another_network_finds_it(corpus, detector, scrfd, picture, count):
    frame = six_people() if picture == "six people" else read(corpus / "images" / picture)
    (found,) = detections(detector, frame[None])
    others = scrfd(frame)
    assert len(found.scores) == len(others) == count
    for other in others:
        best = max(range(count), key=lambda i: iou(found.boxes[i], other.box))
        assert iou(found.boxes[best], other.box) >= 0.6
        eyes = np.linalg.norm(other.landmarks[1] - other.landmarks[0])
        assert np.abs(found.landmarks[best] - other.landmarks).max() < 0.35 * eyes
    assert (np.diff(found.scores) <= 0).all()


def test_a_batch_finds_what_one_by_one_finds(detector):
    frames = np.stack([np.roll(six_people()[::4, ::4], 7 * n, axis=1) for n in range(9)])  # one more than a batch
    together = detections(detector, frames)
    assert len(together) == 9
    assert sum(len(f.scores) for f in together) > 20
    for frame, found in zip(frames, together, strict=True):
        (alone,) = detections(detector, frame[None])
        assert found.boxes == pytest.approx(alone.boxes, abs=1e-2)
        assert found.landmarks == pytest.approx(alone.landmarks, abs=1e-2)


def test_a_frame_of_twice_the_size_has_its_faces_at_twice_the_place(detector):
    small = six_people()[:500, :640]
    large = small.repeat(2, axis=0).repeat(2, axis=1)  # which the network sees at half its size: as the small one
    (one,), (two,) = detections(detector, small[None]), detections(detector, large[None])
    assert len(one.boxes) > 1
    assert two.boxes == pytest.approx(2 * one.boxes, abs=1e-2)
    assert two.landmarks == pytest.approx(2 * one.landmarks, abs=1e-2)


def test_faces_move_with_the_frame(detector):
    picture = cv2.resize(six_people(), (480, 332), interpolation=cv2.INTER_AREA)
    moved = np.full((480, 640, 3), 120, np.uint8)
    moved[96:428, 64:544] = picture
    (one,), (two,) = detections(detector, picture[None]), detections(detector, moved[None])
    assert len(one.boxes) == len(two.boxes) == 6
    for box in one.boxes:
        assert max(iou(box + np.float32([64, 96, 64, 96]), other) for other in two.boxes) > 0.85


def test_an_empty_room_has_no_faces(detector):
    (found,) = detections(detector, np.full((1, 90, 120, 3), 128, np.uint8))
    assert (found.boxes.shape, found.scores.shape, found.landmarks.shape) == ((0, 4), (0,), (0, 5, 2))


@settings(deadline=None, max_examples=8)
@given(st.integers(33, 130), st.integers(33, 130))
def test_there_is_an_anchor_for_all_that_the_network_says_at_any_size(height, width):
    net = network().eval()
    with torch.inference_mode():
        scores, boxes, landmarks = forward(net, torch.zeros(2, 3, height, width))
    count = len(anchors(height, width))
    assert (scores.shape, boxes.shape, landmarks.shape) == ((2, count), (2, count, 4), (2, count, 10))


def test_what_is_said_of_an_anchor_leads_to_the_known_box_and_points():
    places = anchors(64, 96)
    x, y, side = places[37]
    box, points = np.float32([20, 10, 50, 60]), np.float32([(25, 20), (45, 20), (35, 35), (27, 50), (43, 50)])
    middle, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    told = np.concatenate([(middle - (x, y)) / (0.1 * side), np.log(size / side) / 0.2])
    five = (points - (x, y)) / (0.1 * side)
    found, landmarks = decode(places[37:38], told[None], five.reshape(1, 10))
    assert found[0] == pytest.approx(box, abs=1e-3)
    assert landmarks[0] == pytest.approx(points, abs=1e-3)


def test_anchors_stand_in_the_middle_of_their_cells_fine_ones_first():
    places = anchors(33, 64)
    assert len(places) == 2 * (5 * 8 + 3 * 4 + 2 * 2)
    assert places[0].tolist() == [4, 4, 16]
    assert places[1].tolist() == [4, 4, 32]
    assert places[2].tolist() == [12, 4, 16]
    assert places[-1].tolist() == [48, 48, 512]


def test_weights_of_several_gpus_load_and_those_of_another_network_are_refused(detector, tmp_path):
    state = detector.state_dict()
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "parallel.pth")
    again = load(str(tmp_path / "parallel.pth")).state_dict()
    assert all(torch.equal(again[name], state[name]) for name in state)
    torch.save({name: value for name, value in state.items() if "BboxHead.0" not in name}, tmp_path / "less.pth")
    with pytest.raises(ValueError, match=r"(?s)less.pth is not a RetinaFace.*BboxHead.0"):
        load(str(tmp_path / "less.pth"))


def test_the_card_brings_its_recogniser_and_a_folder_has_both(weights, monkeypatch, tmp_path, detector):
    (tmp_path / "own").mkdir()
    names = {"retinaface_mnet025.pth": "mobilenet0.25_Final.pth"}
    names["models/insightface_mini/mobilefacenet_arcface_128.onnx"] = "MobileFaceNet.onnx"
    for source, name in names.items():
        shutil.copyfile(weights / source, tmp_path / name)
        shutil.copyfile(weights / source, tmp_path / "own" / name)
    monkeypatch.setenv("A2DATA_WEIGHTS", str(tmp_path))
    frame = six_people()
    faces, same = cards.load("retinaface")(frame), cards.load(f"retinaface:{tmp_path / 'own'}")(frame)
    assert [f.score for f in faces] == sorted((f.score for f in faces), reverse=True)
    assert [f.box for f in faces] == [f.box for f in same]
    vectors = np.stack([f.embedding for f in faces])
    assert vectors.shape == (6, 128)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert (vectors @ vectors.T - np.eye(6)).max() < cards.base_card("retinaface").match_threshold

    before = cards.revision("retinaface")
    (tmp_path / "MobileFaceNet.onnx").unlink()
    cards.digest.cache_clear()
    with pytest.raises(FileNotFoundError, match="'mobilefacenet' has no weights"):
        cards.revision("retinaface")
    (tmp_path / "MobileFaceNet.onnx").write_bytes(b"another")
    with pytest.raises(ValueError, match=r"MobileFaceNet\.onnx is not what the card means"):
        cards.revision("retinaface")
    shutil.copyfile(tmp_path / "own" / "MobileFaceNet.onnx", tmp_path / "MobileFaceNet.onnx")
    assert cards.revision("retinaface") == before
