import cv2
import numpy as np
import pytest

from model_zoo.caption import camera, camera_moves

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
    steps = camera.background_steps(frames, camera.sample_indices(len(frames), FPS), boxes)
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
    assert move.measured == 1.0


def with_walker(frames: np.ndarray) -> tuple[np.ndarray, list[list[camera.Box]]]:
    """A textured figure over half of the picture that walks to the right, and where it is."""
    frames, boxes, coat = frames.copy(), [], texture(7)[:170, :160]
    for i in range(COUNT):
        x = 5 * i
        frames[i, 5:175, x : x + 160] = coat
        boxes.append([(float(x), 5.0, float(x + 160), 175.0)])
    return frames, boxes


def test_a_person_who_walks_through_the_picture_is_not_a_pan_once_masked_out():
    frames, boxes = with_walker(film())
    assert said(frames, boxes) == "the camera stays still"


def test_the_camera_is_measured_behind_a_walker():
    frames, boxes = with_walker(film(tilt=0.2))
    assert said(frames, boxes) == "the camera tilts up"


def test_nothing_is_claimed_of_a_camera_in_front_of_a_plain_wall():
    plain = np.full((COUNT, HEIGHT, WIDTH, 3), 90, np.uint8)
    assert camera.measure(plain, FPS, nothing()).measured == 0.0
    assert said(plain, nothing()) == ""


def test_one_frame_has_no_camera_motion():
    assert said(film()[:1], [[]]) == ""


def names(frames: np.ndarray, boxes: list[list[camera.Box]]) -> list[list[tuple[str, str]]]:
    return [[tuple(motion) for motion in phase] for phase in told(frames, boxes)]


def test_a_move_is_told_in_parts_with_their_speeds():
    assert names(film(pan=0.08), nothing()) == [[("pan_right", "slow")]]
    assert names(film(zoom=0.5, pan=-0.15), nothing()) == [[("zoom_in", "medium"), ("pan_left", "medium")]]
    assert names(film(roll=-60), nothing()) == [[("roll_ccw", "fast")]]
    assert names(film(), nothing()) == [[("static", "")]]


def test_moves_that_follow_one_another_are_told_in_their_order():
    back = film(pan=0.3)
    to_and_fro = np.concatenate([back, back[-2::-1]])
    assert said(to_and_fro, [[] for _ in to_and_fro]) == "the camera pans to the right, then pans to the left"
    held = np.concatenate([np.repeat(back[:1], COUNT, axis=0), back])
    assert said(held, [[] for _ in held]) == "the camera stays still, then pans to the right"


def test_a_walker_without_a_box_does_not_affect_the_camera_motion():
    frames = film()
    coat = cv2.resize(texture(7), (640, 360))[:150, :100]
    for i in range(COUNT):
        frames[i, 20:170, 5 * i : 5 * i + 100] = coat
    assert said(frames, nothing()) == "the camera stays still"


def coated(frames: np.ndarray, step_px: int) -> np.ndarray:
    """Frames with a person who covers 38 % of the picture, in a coat full of corners, and walks step_px per frame."""
    frames, coat = frames.copy(), cv2.resize(texture(7), (640, 360))[:175, :125]
    for i in range(COUNT):
        x = 40 + step_px * i
        frames[i, 5:, x : x + 125] = coat
    return frames


def wall_of_weak_corners(frames: np.ndarray) -> np.ndarray:
    return (frames // 8 + 100).astype(np.uint8)


def test_the_strong_corners_of_a_coat_do_not_outvote_the_weak_ones_of_the_wall_behind():
    assert said(coated(wall_of_weak_corners(film()), 4), nothing()) == "the camera stays still"
    assert said(coated(wall_of_weak_corners(film(pan=-0.3)), 4), nothing()) == "the camera pans to the left"


def test_who_stays_in_the_picture_while_the_camera_moves_is_not_a_layer_at_another_depth():
    assert names(coated(film(tilt=0.4), 0), nothing()) == [[("tilt_up", "medium")]]
    assert names(coated(film(tilt=0.4), 4), nothing()) == [[("tilt_up", "medium")]]


def test_a_fast_camera_that_follows_a_person_is_tracked():
    frames = coated(film(pan=2.0), 0)  # 64 px a step: out of reach, while who stays in the picture is easily followed
    (step, *_) = camera.background_steps(frames, [0, 3, 6], nothing())
    assert step is not None
    assert step.dx == pytest.approx(-0.2, abs=0.005)


def test_the_background_is_found_among_layers_by_how_far_it_reaches():
    places = np.stack(np.meshgrid(np.arange(4.0, 320, 8), np.arange(4.0, 180, 8)), -1).reshape(-1, 2)
    inside = (np.abs(places[:, 0] - 160) < 60) & (places[:, 1] > 20)
    gone = places + np.where(inside[:, None], [7, 0], [-3, 2])
    found = camera.layers(places.astype(np.float32), gone.astype(np.float32))
    assert [len(of_it) for _, of_it in found] == [(~inside).sum(), inside.sum()]
    np.testing.assert_allclose(found[0][0][:, 2], [-3, 2], atol=1e-3)
    np.testing.assert_allclose(found[1][0][:, 2], [7, 0], atol=1e-3)
    weights = np.full(32, 1 / (len(places) / 32))
    around, person = (camera.reach(places[of_it], weights, (180, 320)) for _, of_it in found)
    assert around > 3 * person
    assert camera.reach(places, weights, (180, 320)) == pytest.approx(1, abs=0.1)


def test_a_layer_that_moves_further_than_the_rest_shows_a_camera_that_goes_sideways():
    far, near = film(pan=0.3), film(pan=0.6)
    both = far.copy()
    both[:, 125:] = near[:, 125:]
    assert names(both, nothing()) == [[("truck_right", "medium")]]
    assert names(far, nothing()) == [[("pan_right", "medium")]]


def test_steps_that_follow_one_another_compose_as_their_matrices_do():
    steps = [camera.Step(0.1, -0.05, 0.2, 10.0), camera.Step(-0.02, 0.03, -0.1, -25.0)]

    def matrix(s: camera.Step) -> np.ndarray:
        turned = np.exp(s.scale) * np.exp(1j * np.radians(s.turn))
        return np.array([[turned.real, -turned.imag, s.dx], [turned.imag, turned.real, s.dy], [0, 0, 1]])

    np.testing.assert_allclose(matrix(camera.compose(steps)), matrix(steps[1]) @ matrix(steps[0]))


def test_a_step_too_far_to_follow_is_measured_from_frame_to_frame():
    frames = film(pan=2.0)  # 21 px a frame, 64 px a step
    (step, *_) = camera.background_steps(frames, [0, 3, 6], nothing())
    assert step is not None
    assert step.dx == pytest.approx(-0.2, abs=0.005)
