import cv2
import numpy as np
import pytest
from face_pictures import six_people, tiny_recogniser

from model_zoo import cards


@pytest.fixture(scope="module")
def pack(corpus):
    return corpus / "weights" / "models" / "insightface_mini"


@pytest.fixture(scope="module")
def faces(pack):
    return cards.load(f"insightface:{pack}")(six_people())


def test_the_vectors_are_those_that_insightface_gives_the_same_faces(pack, faces):
    recognise = cards.load(f"mobilefacenet:{pack / 'mobilefacenet_arcface_128.onnx'}")
    landmarks = np.stack([f.landmarks for f in faces])
    vectors = recognise(six_people(), landmarks)
    assert vectors.dtype == np.float32
    assert vectors == pytest.approx(np.stack([f.embedding for f in faces]), abs=1e-5)
    assert vectors[2:3] == pytest.approx(recognise(six_people(), landmarks[2:3]), abs=1e-6)
    assert recognise(six_people(), landmarks[:0]).shape == (0, 128)


def test_a_detector_is_not_a_recogniser(pack):
    with pytest.raises(ValueError, match="not a recognition network"):
        cards.load(f"mobilefacenet:{pack / 'scrfd_500m_kps.onnx'}")


@pytest.mark.parametrize("family", ["sface", "mobilefacenet"])
def test_a_face_has_the_same_vector_wherever_and_however_tilted_it_is(tmp_path, family):
    tiny_recogniser(tmp_path / "tiny.onnx")
    recognise = cards.load(f"{family}:{tmp_path / 'tiny.onnx'}")
    # A face drawn as five blots of colour on grey, at 112 px as the networks expect it, and turned, enlarged and moved.
    points = np.float32([(38.3, 51.7), (73.5, 51.5), (56.0, 71.7), (41.5, 92.4), (70.7, 92.2)])
    upright = np.full((112, 112, 3), 120, np.uint8)
    for (x, y), colour in zip(
        points, [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)], strict=True
    ):
        cv2.circle(upright, (round(x), round(y)), 9, colour, -1)
    turn = cv2.getRotationMatrix2D((56, 56), 25, 2.0) + np.float32([[0, 0, 150], [0, 0, 90]])
    tilted = cv2.warpAffine(upright, turn, (420, 320), borderValue=(120, 120, 120))
    there = cv2.transform(points[None], turn)[0].astype(np.float32)
    one, two = recognise(upright, points[None]), recognise(tilted, there[None])
    assert one.shape == two.shape == (1, 128)
    assert float((one @ two.T).item()) > 0.995
    other = recognise(upright[..., ::-1].copy(), points[None])  # blue for red: the order of colours matters
    assert float((one @ other.T).item()) < 0.98
    assert recognise(upright, points[None][:0]).shape == (0, 128)
