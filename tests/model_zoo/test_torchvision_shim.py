import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from model_zoo import torchvision_shim

torch = pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]
SUPPRESS = (
    "import torch, torchvision; print(torchvision.ops.nms(torch.tensor([[0., 0, 4, 4]] * 2), torch.ones(2), 0.5))"
)


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
    from torchvision.ops import nms

    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30]])
    assert nms(boxes, torch.tensor([0.5, 0.9, 0.1]), 0.5).tolist() == [1, 2]


def test_the_hook_is_installed_once():
    before = list(sys.meta_path)
    torchvision_shim.install()
    assert sys.meta_path == before


@pytest.mark.parametrize("package", ["model_zoo", "pipelines", "stages.score"])
def test_each_entry_installs_the_hook_in_a_process_of_its_own(package):
    found = f"import {package}, sys; print(*[type(finder).__module__ for finder in sys.meta_path])"
    done = subprocess.run([sys.executable, "-c", found], capture_output=True, text=True, cwd=ROOT)
    assert "model_zoo.torchvision_shim" in done.stdout.split(), done.stderr


@pytest.mark.slow  # each starts torch anew
@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed")
@pytest.mark.parametrize(
    "entry",
    [
        "model_zoo.cards",
        "model_zoo.a2.encoders",
        "pipelines.encode",
        "pipelines.sample.sampler",
        "pipelines.train.trainer",
    ],
)
def test_torchvision_works_after_each_entry_in_a_process_of_its_own(entry):
    done = subprocess.run(
        [sys.executable, "-c", f"import {entry}; {SUPPRESS}"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout == "tensor([0])\n", done.stderr
