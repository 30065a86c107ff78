import cv2
import mediapipe_networks
import numpy as np
from skimage.data import astronaut

from model_zoo.mediapipe import pose, ssd
from model_zoo.mediapipe.network import crop_square, to_frame, warp_to_frame

# of mediapipe 0.10.21, Pose(static_image_mode=True, model_complexity=1, enable_segmentation=True)
NOSE_TO_SHOULDERS = [
    *([222.7, 128.0], [240.9, 111.3], [248.9, 112.5], [256.4, 113.7], [214.5, 105.7], [205.0, 103.3], [196.6, 101.5]),
    *([268.0, 122.8], [190.4, 107.4], [233.8, 153.9], [205.8, 147.7], [306.2, 256.6], [112.7, 240.0]),
]
MASK = [
    [0, 0, 18, 70, 32, 0, 0, 0],
    [0, 0, 53, 100, 64, 0, 0, 0],
    [0, 2, 61, 100, 16, 0, 0, 0],
    [1, 60, 100, 100, 71, 3, 0, 0],
    [31, 100, 100, 100, 100, 53, 0, 0],
    [62, 100, 100, 100, 99, 61, 0, 0],
    [73, 100, 100, 100, 91, 15, 0, 0],
    [66, 100, 100, 100, 72, 2, 0, 0],
]


def test_the_body_of_a_photograph_is_where_mediapipe_finds_it():
    detect, body = (mediapipe_networks.network(f"mediapipe-pose-{name}") for name in ("detection", "landmark"))
    frame = astronaut()

    (found,) = ssd.detect(detect, frame, (256, 256), 512, ssd.POSES, 0.5)
    seen = pose.run_pose(body, frame, pose.region_of(found))

    assert seen.score > 0.95
    assert np.linalg.norm(seen.points[:13] - NOSE_TO_SHOULDERS, axis=1).max() < 2
    cells = cv2.resize(seen.mask(512, 512), (8, 8), interpolation=cv2.INTER_AREA) * 100
    assert np.abs(cells - MASK).max() < 3
    half = seen.mask(256, 256, 0.5)
    assert np.abs(half - cv2.resize(seen.mask(512, 512), (256, 256), interpolation=cv2.INTER_AREA)).mean() < 0.01


def test_the_square_of_a_body_is_upright_along_the_line_from_the_hips_to_the_top():
    region = pose.region_between(np.array([100.0, 200.0]), np.array([100.0, 160.0]))
    assert region == ((100.0, 200.0), 100.0, 0.0)  # 2 x 1.25 x 40
    assert np.isclose(
        pose.region_between(np.array([0.0, 0.0]), np.array([10.0, 0.0])).angle, np.pi / 2
    )  # lies to the right


def test_a_turned_square_and_its_map_agree():
    frame = np.zeros((80, 100, 3), np.uint8)
    frame[28:33, 58:63] = 255

    crop, back = crop_square(frame, (50.0, 40.0), 64.0, 0.6, 64)

    spot = np.argwhere(crop[..., 0] > 127)[:, ::-1].mean(0)
    assert np.abs(to_frame(spot[None], back)[0] - [60, 30]).max() < 0.5
    again = warp_to_frame(crop[..., 0].astype(np.float32), back, (80, 100))
    assert np.abs(np.argwhere(again > 127).mean(0) - [30, 60]).max() < 0.5


def test_a_landmark_moves_to_the_middle_of_a_sure_heatmap_and_stays_otherwise():
    heat = np.full((64, 64, 3), -20.0)
    heat[20, 31, 0] = heat[20, 32, 0] = 20.0  # one row below, half a cell beside
    heat[20, 31, 1] = -1.0  # not sure
    values = np.tile([31 * 4 + 1.0, 19 * 4 + 1.0, 0, 0, 0], (3, 1))
    values[2, 0] = -50.0  # outside

    out = pose.refine_landmarks(values, heat)

    assert np.allclose(out[0, :2], [31.5 * 4, 20 * 4])
    assert np.array_equal(out[1:], values[1:])


def test_the_certainty_of_a_mask_counts_what_may_be_the_body_inside_the_frame():
    likely = np.zeros((256, 256), np.float32)
    likely[:128] = 1.0
    likely[128:] = 0.5
    back = np.array([[1.0, 0, 0], [0, 1, 0]])
    body = pose.Pose(1.0, np.zeros((33, 2)), np.zeros(33), likely, back, pose.Region((0, 0), 1, 0))
    assert body.certainty(128, 256) == 1.0
    assert body.certainty(256, 256) == 0.0
    assert abs(body.certainty(160, 256) - (128 / 160 - pose.UNCERTAIN) / (1 - pose.UNCERTAIN)) < 1e-6
    assert body._replace(crop_mask=0 * likely).certainty(256, 256) == 0.0
