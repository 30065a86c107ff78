import cv2
import numpy as np
import pytest

from model_zoo import cards
from model_zoo.flow import raft
from model_zoo.flow.motion import measure

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")


@pytest.fixture(scope="module")
def weights(corpus):
    return corpus / "weights" / "raft-small.pth"


@pytest.fixture(scope="module")
def network(weights):
    return cards.load(f"raft-small:{weights}")


def window(dx: int, dy: int, height: int = 128, width: int = 192) -> np.ndarray:
    """A part of one texture, such that what it shows has moved by dx, dy."""
    noise = np.random.default_rng(0).integers(0, 256, (height + 80, width + 80, 3)).astype(np.uint8)
    whole = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
    return whole[40 - dy : 40 - dy + height, 40 - dx : 40 - dx + width]


@pytest.mark.parametrize("shift", [(0, 0), (5, 0), (0, -7), (12, 3)])
def test_a_texture_that_moved_is_found_where_it_went(network, shift):
    (found,) = network(np.stack([window(0, 0), window(*shift)]))
    assert found.shape == (128, 192, 2)
    assert found.dtype == np.float32
    assert found[24:-24, 24:-24].mean((0, 1)) == pytest.approx(shift, abs=0.2)


def test_a_batch_is_its_pairs_one_by_one(network, monkeypatch):
    monkeypatch.setattr(raft, "BATCH", 2)
    frames = np.stack([window(2 * n, n, 128, 128) for n in range(4)])
    alone = np.concatenate([network(frames[n : n + 2]) for n in range(len(frames) - 1)])
    assert np.abs(network(frames) - alone).max() < 1e-2


def test_real_weights_measure_a_pan_and_a_still_clip(network):
    pan = measure(network, np.stack([window(3 * n, 0, 128, 128) for n in range(3)]), 8.0)
    assert pan["flow"] == pytest.approx(3 / 128 * 8, rel=0.1)
    assert pan["flow_top5"] == pytest.approx(3 * 256 / 128, rel=0.2)
    still = measure(network, np.stack([window(0, 0, 128, 128)] * 2), 8.0)
    assert still["flow"] < 0.01
    assert still["flow_top5"] < 0.5
    assert still["flow_dynamic"] == 0.0


def constant(x: float, y: float):
    """A network for which everything moves by x, y pixels."""
    return lambda frames: np.full((len(frames) - 1, *frames.shape[1:3], 2), (x, y), np.float32)


def test_speed_is_in_widths_per_second_whatever_the_rate_and_size():
    for fps, height, width in [(8.0, 256, 512), (24.0, 256, 512), (8.0, 512, 1024), (8.0, 130, 260)]:
        found = measure(constant(16, 0), np.zeros((10, height, width, 3), np.uint8), fps)
        assert found["flow"] == pytest.approx(16 / 512 * 8)
        assert found["flow_top5"] == pytest.approx(16)


def test_padding_to_a_multiple_of_eight_is_undone_in_the_result():
    found = measure(constant(8, 0), np.zeros((2, 256, 300, 3), np.uint8), 8.0)
    assert found["flow_top5"] == pytest.approx(8 * 300 / 304)


def test_the_top_is_the_twentieth_that_moves_most():
    def corner(frames):
        out = np.zeros((len(frames) - 1, *frames.shape[1:3], 2), np.float32)
        out[:, :, : out.shape[2] // 20, 1] = 10
        return out

    found = measure(corner, np.zeros((3, 256, 320, 3), np.uint8), 8.0)
    assert found["flow_top5"] == pytest.approx(10)
    assert found["flow"] == pytest.approx(0.5 / 320 * 8)


@pytest.mark.parametrize(("fast", "dynamic"), [(3, 0.0), (4, 1.0)])
def test_a_clip_is_dynamic_when_a_quarter_of_its_frames_is_fast(fast, dynamic):
    def some(frames):
        out = np.zeros((len(frames) - 1, *frames.shape[1:3], 2), np.float32)
        out[:fast] = 6.1
        return out

    assert measure(some, np.zeros((16, 256, 256, 3), np.uint8), 8.0)["flow_dynamic"] == dynamic


def test_a_clip_of_one_frame_does_not_move():
    assert set(measure(constant(9, 9), np.zeros((1, 64, 64, 3), np.uint8), 15.0).values()) == {0.0}


def test_weights_in_torchvisions_names_are_the_same_network(tmp_path, weights, network):
    state = raft.torchvision_names(torch.load(weights, map_location="cpu", weights_only=True))
    torch.save(state, tmp_path / "raft.pth")
    again = cards.load(f"raft-small:{tmp_path / 'raft.pth'}")
    frames = np.stack([window(0, 0), window(4, 4)])
    assert np.array_equal(again(frames), network(frames))


def test_weights_of_another_network_are_refused(tmp_path, weights):
    with pytest.raises(ValueError, match="has no weights of raft_large"):
        cards.load(f"raft-large:{weights}")


def test_the_large_network_takes_torchvisions_weights(tmp_path):
    from torchvision.models.optical_flow import raft_large

    torch.manual_seed(0)
    torch.save(raft_large(weights=None, progress=False).state_dict(), tmp_path / "large.pth")
    network = cards.load(f"raft-large:{tmp_path / 'large.pth'}")
    found = network(np.stack([window(0, 0, 128, 128), window(5, 0, 128, 128)]))
    assert found.shape == (1, 128, 128, 2)
    assert np.isfinite(found).all()
