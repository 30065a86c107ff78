import numpy as np
import pytest

from model_zoo import torchvision_shim

torch = pytest.importorskip("torch")


def overlap(a, b):
    both = np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
    return both / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both)


def test_suppression_keeps_what_the_definition_keeps():
    rng = np.random.default_rng(0)
    corner, size = rng.uniform(0, 60, (80, 2)), rng.uniform(5, 40, (80, 2))
    boxes, scores = np.concatenate([corner, corner + size], 1), rng.uniform(0, 1, 80)
    kept: list[int] = []
    for i in np.argsort(-scores):
        if all(overlap(boxes[i], boxes[j]) <= 0.45 for j in kept):
            kept.append(int(i))
    assert torchvision_shim.nms(torch.tensor(boxes), torch.tensor(scores), 0.45).tolist() == kept


def test_no_boxes_give_no_indices():
    assert torchvision_shim.nms(torch.zeros((0, 4)), torch.zeros(0), 0.5).tolist() == []


def test_torchvision_can_be_imported_and_suppresses():
    pytest.importorskip("ultralytics")  # brings torchvision
    torchvision_shim.install()
    torchvision_shim.install()
    from torchvision.ops import nms

    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30]])
    assert nms(boxes, torch.tensor([0.5, 0.9, 0.1]), 0.5).tolist() == [1, 2]
