import cv2
import numpy as np
import pytest

from model_zoo import camera, camera_moves

HEIGHT, WIDTH, COUNT, FPS = 180, 320, 31, 15.0  # two seconds


def texture(seed: int = 0) -> np.ndarray:
    """A large picture with blobs of many sizes, (720, 1280, 3) uint8."""
    noise = np.random.default_rng(seed)
    layers = [cv2.resize(noise.uniform(0, 1, (720 // n, 1280 // n, 3)), (1280, 720)) for n in (6, 16, 48)]
    return np.rint(255 * np.clip(sum(layers) / 3, 0, 1)).astype(np.uint8)


WALL = texture()


def film(pan: float = 0, tilt: float = 0, zoom: float = 0, roll: float = 0, shake: float = 0) -> np.ndarray:
    """What a camera sees that pans right and tilts up (widths), zooms in (log) and rolls clockwise (degrees) over a clip."""
    wall, jitter, frames = WALL, np.random.default_rng(1), []
    for i in range(COUNT):
        done = i / (COUNT - 1)
        dx, dy = jitter.normal(0, shake * WIDTH, 2) if shake else (0, 0)
        middle = (640 + done * pan * WIDTH + dx, 360 - done * tilt * WIDTH + dy)
        # a camera that rolls clockwise sees the wall turn counterclockwise, which is OpenCV's positive angle
        matrix = cv2.getRotationMatrix2D(middle, done * roll, float(np.exp(done * zoom)))
        matrix[:, 2] += np.array([WIDTH / 2, HEIGHT / 2]) - middle
        frames.append(cv2.warpAffine(wall, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR))
    return np.stack(frames)


def nothing() -> list[list[camera.Box]]:
    return [[] for _ in range(COUNT)]


def said(frames: np.ndarray, boxes: list[list[camera.Box]]) -> str:
    return camera_moves.sentence(told(frames, boxes))


def told(frames: np.ndarray, boxes: list[list[camera.Box]]) -> list[list[camera_moves.Motion]]:
    steps = camera.follow(frames, camera.sampled(len(frames), FPS), boxes)
    return camera_moves.phases(steps, FPS)


MOVES = {
    "the camera pans to the right": {"pan": 0.3},
    "the camera pans to the left": {"pan": -0.3},
    "the camera tilts up": {"tilt": 0.25},
    "the camera tilts down": {"tilt": -0.25},
    "the camera zooms in": {"zoom": 0.3},
    "the camera zooms out": {"zoom": -0.3},
    "the camera rolls clockwise": {"roll": 15},
    "the camera rolls counterclockwise": {"roll": -15},
    "the camera stays still": {},
    "the handheld camera shakes slightly": {"shake": 0.01},
    "the camera pans slowly to the right": {"pan": 0.08},
    "the camera pans quickly to the left": {"pan": -0.8},
    "the camera zooms in and pans to the left": {"zoom": 0.5, "pan": -0.15},
    "the handheld camera pans to the right": {"pan": 0.3, "shake": 0.01},
}


@pytest.mark.parametrize(("words", "move"), MOVES.items(), ids=MOVES)
def test_a_rendered_move_is_called_by_its_name(words, move):
    assert said(film(**move), nothing()) == words


def test_a_move_is_measured_in_widths_logarithms_and_degrees():
    move = camera.measure(film(pan=0.2, tilt=-0.1, zoom=0.25, roll=8), FPS, nothing())
    grown = np.expm1(0.25) / 0.25  # the closer the camera has zoomed, the more a pan moves the picture
    assert move[:4] == pytest.approx((0.2 * grown, -0.1 * grown, 0.25, 8), abs=0.02, rel=0.05)
    assert move.duration_s == pytest.approx(2.0)
    assert move.known == 1.0


def with_walker(frames: np.ndarray) -> tuple[np.ndarray, list[list[camera.Box]]]:
    """A textured figure over half of the picture that walks to the right, and where it is."""
    frames, boxes, coat = frames.copy(), [], texture(7)[:170, :160]
    for i in range(COUNT):
        x = 5 * i
        frames[i, 5:175, x : x + 160] = coat
        boxes.append([(float(x), 5.0, float(x + 160), 175.0)])
    return frames, boxes


def test_a_person_who_walks_through_the_picture_is_no_pan_once_masked_out():
    frames, boxes = with_walker(film())
    assert said(frames, boxes) == "the camera stays still"


def test_the_camera_is_measured_behind_a_walker():
    frames, boxes = with_walker(film(tilt=0.2))
    assert said(frames, boxes) == "the camera tilts up"


def test_nothing_is_claimed_of_a_camera_in_front_of_a_plain_wall():
    plain = np.full((COUNT, HEIGHT, WIDTH, 3), 90, np.uint8)
    assert camera.measure(plain, FPS, nothing()).known == 0.0
    assert said(plain, nothing()) == ""


def test_one_frame_has_no_camera_motion():
    assert said(film()[:1], [[]]) == ""
