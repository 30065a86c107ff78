import mediapipe_networks
import numpy as np
import pytest
from skimage.data import astronaut

from model_zoo.mediapipe import mesh

# of mediapipe 0.10.21, FaceMesh(static_image_mode=True), whose square differs by some pixels from that of the full-range detector
GOLDEN = {
    **{1: (224.1, 131.2), 10: (227.5, 72.4), 152: (221.3, 175.5), 33: (194.6, 100.9), 263: (256.7, 104.1)},
    **{61: (201.8, 139.5), 291: (245.9, 142.2), 2: (224.0, 133.9)},
}


def test_the_mesh_of_a_photograph_is_where_mediapipe_finds_it():
    run = mediapipe_networks.network("mediapipe-face-mesh")
    box, eyes = np.array([173.7, 67.8, 277.6, 171.7]), np.array([[202.8, 103.5], [248.0, 105.9]])

    found = mesh.run_mesh(run, astronaut(), box, eyes)

    assert found.score > 0.99
    assert np.linalg.norm(found.points[list(GOLDEN), :2] - list(GOLDEN.values()), axis=1).max() < 2.5
    assert found.points[1, 2] < found.points[10, 2] < found.points[152, 2]  # the nose is nearest


def test_where_there_is_no_face_the_score_is_low():
    run = mediapipe_networks.network("mediapipe-face-mesh")
    flag = mesh.run_mesh(run, astronaut(), np.array([360.0, 380, 460, 480]), np.array([[380.0, 420], [440, 420]]))
    assert flag.score < 0.5


@pytest.mark.parametrize("turn", [0.0, 30.0, -75.0])
def test_a_smile_lifts_the_corners_of_the_mouth_however_the_head_is_turned(turn):
    points = np.zeros((468, 3), np.float32)
    points[mesh.LEFT_EYE[0], :2], points[mesh.RIGHT_EYE[0], :2] = (20, 30), (120, 30)
    points[list(mesh.LIPS), :2] = (70, 108), (70, 112)
    points[mesh.MOUTH[0], :2], points[mesh.MOUTH[1], :2] = (40, 102), (100, 102)
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    points[:, :2] = points[:, :2] @ np.float32([[c, s], [-s, c]])
    assert mesh.smile_lift(points) == pytest.approx(0.08, abs=1e-5)
