import sys
import types

import cv2
import numpy as np
import pytest
from PIL import Image

from model_zoo import cards


def texture(seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (16, 24, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((192, 128), Image.Resampling.NEAREST))


def test_the_more_a_picture_is_blurred_the_lower():
    pytest.importorskip("skimage")
    model = cards.load("blur-effect")
    blurred = [texture(), *(cv2.GaussianBlur(texture(), None, sigma) for sigma in (1.0, 2.0, 4.0))]
    values = [model(np.stack([picture] * 2), 8)["image_quality"] for picture in blurred]
    assert values == sorted(values, reverse=True)
    assert 0 <= values[-1] < values[0] - 0.3 <= 1
    assert model(np.full((2, 32, 32, 3), 90, np.uint8), 8) == {"image_quality": 0.0}


def test_musiq_is_asked_as_vbench_does(tmp_path, monkeypatch):
    """pyiqa's class, here one that answers with its picture's width: 512 at most, smaller pictures as they are."""
    torch = pytest.importorskip("torch")
    seen = []

    class Network(torch.nn.Module):
        def __init__(self, pretrained_model_path):
            super().__init__()
            seen.append(pretrained_model_path)

        def forward(self, picture):
            seen.append((tuple(picture.shape), float(picture.max())))
            return torch.tensor([[40.0 + len(seen)]])

    for name in ("pyiqa", "pyiqa.archs", "pyiqa.archs.musiq_arch"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["pyiqa.archs.musiq_arch"].MUSIQ = Network
    (tmp_path / "musiq.pth").write_bytes(b"weights")
    model = cards.load(f"musiq-spaq:{tmp_path / 'musiq.pth'}")
    assert model(np.full((2, 360, 640, 3), 255, np.uint8), 8)["image_quality"] == pytest.approx((42 + 43) / 2 / 100)
    assert seen == [str(tmp_path / "musiq.pth"), *[((1, 3, 288, 512), 1.0)] * 2]
    model(np.zeros((1, 60, 80, 3), np.uint8), 8)
    assert seen[-1] == ((1, 3, 60, 80), 0.0)


def test_without_pyiqa_musiq_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    monkeypatch.setitem(sys.modules, "pyiqa.archs.musiq_arch", None)
    (tmp_path / "musiq.pth").write_bytes(b"weights")
    with pytest.raises(ModuleNotFoundError, match="pyiqa"):
        cards.load(f"musiq-spaq:{tmp_path / 'musiq.pth'}")
