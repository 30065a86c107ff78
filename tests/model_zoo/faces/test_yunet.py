import shutil

import cv2
import numpy as np
import pytest
from face_pictures import iou, read, six_people, tiny_recogniser

from model_zoo import cards
from model_zoo.faces.yunet import detections


@pytest.fixture(scope="module")
def folder(corpus, tmp_path_factory):
    """The detector of the corpus beside a recogniser of SFace's shape."""
    folder = tmp_path_factory.mktemp("pair")
    shutil.copyfile(corpus / "weights" / "yunet_n_dynamic.onnx", folder / "yunet.onnx")
    tiny_recogniser(folder / "sface.onnx")
    return folder


@pytest.fixture(scope="module")
def faces(folder):
    return cards.load(f"yunet-sface:{folder}")


@pytest.fixture(scope="module")
def scrfd(corpus):
    return cards.load(f"insightface:{corpus / 'weights' / 'models' / 'insightface_mini'}")


def test_faces_are_found_where_another_network_finds_them_with_their_points_in_our_order(corpus, faces, scrfd):
    for frame, count in ((six_people(), 6), (read(corpus / "images" / "zidane.jpg"), 2)):
        found = faces(frame)
        others = scrfd(frame)
        assert len(others) == count
        for other in others:
            best = max(found, key=lambda f: iou(f.box, other.box))
            assert iou(best.box, other.box) >= 0.6
            eyes = np.linalg.norm(other.landmarks[1] - other.landmarks[0])
            assert np.abs(best.landmarks - other.landmarks).max() < 0.5 * eyes
            assert best.score > 0.8


def test_a_face_has_what_a_face_must_have(faces):
    found = faces(six_people())
    assert len(found) == 6
    assert [f.score for f in found] == sorted((f.score for f in found), reverse=True)
    for face in found:
        assert 0 < face.score <= 1
        assert face.landmarks.shape == (5, 2)
        assert face.landmarks.dtype == face.embedding.dtype == np.float32
        assert np.linalg.norm(face.embedding) == pytest.approx(1, abs=1e-5)
        assert face.embedding.shape == (128,)


def test_a_network_that_runs_at_one_size_only_is_refused_when_it_is_loaded(folder, monkeypatch):
    class Fixed:
        def setInputSize(self, size):  # noqa: N802
            self.size = size

        def detect(self, picture):
            raise cv2.error("unexpected shape of the input")

    monkeypatch.setattr(cv2.FaceDetectorYN, "create", lambda *_: Fixed())
    with pytest.raises(ValueError, match=r"yunet\.onnx runs at one size only .*use the model yunet-2026may"):
        cards.load(f"yunet-sface:{folder}")


def test_a_frame_of_twice_the_size_has_its_faces_at_twice_the_place(folder):
    detector = cv2.FaceDetectorYN.create(str(folder / "yunet.onnx"), "", (640, 640), 0.5, 0.3)
    small = six_people()[:480, :640]
    large = small.repeat(2, axis=0).repeat(2, axis=1)  # which the network sees at half its size: as the small one
    one, two = detections(detector, small), detections(detector, large)
    assert len(one) > 1
    assert two[:, :14] == pytest.approx(2 * one[:, :14], abs=1e-2)
    assert two[:, 14] == pytest.approx(one[:, 14], abs=1e-4)


def test_a_face_is_not_detected_in_an_empty_room(faces):
    assert faces(np.full((90, 120, 3), 128, np.uint8)) == []


def test_a_folder_without_the_recogniser_is_refused_with_what_is_missing(folder, monkeypatch, tmp_path):
    shutil.copyfile(folder / "yunet.onnx", tmp_path / "yunet.onnx")
    with pytest.raises(FileNotFoundError, match=r"0 files \*sface\*.onnx, expected 1"):
        cards.load(f"yunet-sface:{tmp_path}")
    monkeypatch.setenv("A2DATA_WEIGHTS", str(tmp_path / "nothing"))
    with pytest.raises(FileNotFoundError, match="'sface' has no weights"):
        cards.load(f"yunet-sface:{tmp_path / 'yunet.onnx'}")
