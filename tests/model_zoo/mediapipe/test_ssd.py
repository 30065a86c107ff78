import mediapipe_networks
import numpy as np
from skimage.data import astronaut

from model_zoo.mediapipe import ssd


def logit(p):
    return np.log(p / (1 - p))


def test_anchors_are_the_middles_of_cells_and_layers_of_one_stride_share_them():
    assert np.allclose(ssd.anchors(8, (4,), 1), [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]])
    assert len(ssd.FACES.anchors) == 48 * 48
    assert len(ssd.POSES.anchors) == 2 * 28**2 + 2 * 14**2 + 6 * 7**2
    last = ssd.POSES.anchors[-6:]
    assert np.allclose(last, 1 - 0.5 / 7)


def test_offsets_are_pixels_from_the_anchor():
    head = ssd.Head(100, np.array([[0.5, 0.5], [0.1, 0.1]], np.float32))
    raw = np.array([[10, -20, 8, 4, 1, 2], [0, 0, 8, 4, 0, 0]], np.float32)

    (found,) = ssd.decode(raw, np.array([[logit(0.9)], [logit(0.4)]]), head, 0.5)

    assert np.allclose(found.box, [56, 28, 64, 32])
    assert np.allclose(found.points, [[51, 52]])
    assert np.isclose(found.score, 0.9)
    assert ssd.decode(raw, np.full((2, 1), logit(0.1)), head, 0.5) == []


def test_boxes_that_overlap_the_best_are_averaged_into_it_by_score():
    def box(x, score):
        return ssd.BoxDetection(score, np.array([x, 0, x + 10, 10.0]), np.array([[x, 5.0]]))

    best, alone = ssd.weighted_nms([box(3, 0.3), box(0, 0.9), box(40, 0.5)])

    assert (best.score, alone.score) == (0.9, 0.5)
    assert np.isclose(best.box[0], 0.75)  # 0.9 of 0 and 0.3 of 3
    assert np.isclose(best.points[0, 0], 0.75)


def test_the_face_of_a_photograph_is_where_mediapipe_finds_it():
    """The golden values are those of mediapipe 0.10.21, FaceDetection(model_selection=1)."""
    run = mediapipe_networks.network("mediapipe-face-detection")

    (found,) = ssd.detect(run, astronaut(), (256, 256), 512, ssd.FACES, 0.6)

    assert abs(found.score - 0.912) < 0.005
    assert np.abs(found.box - [173.7, 67.8, 277.6, 171.7]).max() < 0.5
    golden = [[202.8, 103.5], [248.0, 105.9], [224.0, 132.3], [222.6, 148.5], [178.6, 107.5], [271.4, 112.3]]
    assert np.abs(found.points - golden).max() < 0.5


def test_the_detectors_see_a_wide_frame_whole_and_in_parts():
    assert ssd.detection_squares(100, 100) == [((50.0, 50.0), 100.0)]
    whole, *parts = ssd.detection_squares(360, 640)
    assert whole == ((320.0, 180.0), 640.0)
    assert [centre for centre, _ in parts] == [(180.0, 180.0), (320.0, 180.0), (460.0, 180.0)]
    assert ssd.detection_squares(640, 360)[1:] == [((180.0, y), 360.0) for y in (180.0, 320.0, 460.0)]
