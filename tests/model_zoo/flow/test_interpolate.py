import sys

import numpy as np
import pytest
from PIL import Image

from model_zoo import cards

# A checkout of AMT as the builder finds it; what it makes is the mean of both, a fifth lighter on the second's left half.
NETWORK = """
import torch
from torch import nn
from utils.helper import half

class Model(nn.Module):
    def __init__(self, corr_radius, corr_lvls, num_flows):
        super().__init__()
        assert (corr_radius, corr_lvls, num_flows) == (3, 4, 3)
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, img0, img1, embt, scale_factor=1.0, eval=False):
        assert img0.shape[-1] % 16 == img0.shape[-2] % 16 == 0 and eval and float(embt) == 0.5
        return {"imgt_pred": half(img0, img1) * self.gain}
"""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    (tmp_path / "networks").mkdir()
    (tmp_path / "utils").mkdir()
    (tmp_path / "networks/AMT-S.py").write_text(NETWORK)
    (tmp_path / "networks/__init__.py").write_text("")
    (tmp_path / "utils/__init__.py").write_text("")
    (tmp_path / "utils/helper.py").write_text("def half(a, b):\n    return (a + b) / 2\n")
    torch.save({"state_dict": {"gain": torch.tensor([1.0])}}, tmp_path / "amt-s.pth")
    monkeypatch.setenv("A2DATA_REMOTE_CODE", "yes")
    return tmp_path


def test_amt_is_asked_through_its_own_code_and_what_was_padded_is_cut_again(checkout, monkeypatch):
    monkeypatch.setitem(sys.modules, "utils", object())  # somebody else's package of that common name
    theirs = sys.modules["utils"]
    between = cards.load(f"amt-s:{checkout}")
    a, b = np.random.default_rng(0).integers(0, 256, (2, 50, 70, 3), np.uint8)
    made = between(a, b)
    assert made.shape == a.shape
    assert np.abs(made.astype(int) - (a.astype(int) + b) / 2).max() <= 1
    assert sys.modules["utils"] is theirs
    assert "networks" not in sys.modules


def test_amt_does_not_run_code_without_permission_and_reports_what_is_missing(checkout, monkeypatch):
    (checkout / "amt-s.pth").unlink()
    with pytest.raises(FileNotFoundError, match="clone MCG-NKU/AMT there"):
        cards.load(f"amt-s:{checkout}")
    monkeypatch.delenv("A2DATA_REMOTE_CODE")
    with pytest.raises(PermissionError, match="set A2DATA_REMOTE_CODE=yes"):
        cards.load(f"amt-s:{checkout}")


def texture(height, width, seed=3):
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def test_without_a_network_the_flow_finds_the_frame_between():
    wide = texture(256, 400)
    a, true, b = (wide[:, 40 + 4 * n : 296 + 4 * n] for n in range(3))
    made = cards.load("dis-between")(a, b)
    mean = ((a.astype(int) + b) // 2).astype(int)
    inside = np.s_[20:-20, 20:-20]
    error, blended = (np.abs(x[inside].astype(int) - true[inside]).mean() for x in (made, mean))
    assert error < 0.25 * blended


@pytest.mark.parametrize(("right", "down"), [(4, 0), (-3, 2), (0, 6)])
def test_dis_finds_where_a_texture_went(right, down):
    from model_zoo.flow.dis import dis

    wide = texture(320, 320)
    a, b = wide[20:276, 20:276], wide[20 - down : 276 - down, 20 - right : 276 - right]
    field = dis(None, "cpu")(np.stack([a, b]))[0]
    middle = np.median(field[32:-32, 32:-32].reshape(-1, 2), axis=0)
    assert middle.tolist() == pytest.approx([right, down], abs=0.2)
