"""Filter for pictures that are not safe for work: image classifiers of the Hugging Face hub."""

from collections.abc import Callable

import numpy as np

from model_zoo.roles import Card
from model_zoo.weights import find

BATCH = 16

# All labels of a classifier -> the unsafe ones. Other label sets are rejected: guessing could let unsafe pictures through.
UNSAFE = {
    frozenset({"normal", "nsfw"}): {"nsfw"},
    frozenset({"sfw", "nsfw"}): {"nsfw"},
}


def classifier(card: Card, device: str) -> Callable[[np.ndarray, float], dict[str, float]]:
    """A ViT classifier through transformers.

    `model(frames (t, h, w, 3) uint8 RGB, fps) -> {"nsfw": p}`, 0 to 1, of the worst frame. The weights are a folder
    saved by transformers, with config.json and preprocessor_config.json. Raises ValueError for labels that are not in UNSAFE.
    """
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    folder = find(card)
    dtype = torch.float16 if device.startswith("cuda") else torch.float32
    network = AutoModelForImageClassification.from_pretrained(folder, local_files_only=True, dtype=dtype)
    network.eval().to(device)
    prepare = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    columns = unsafe(network.config.id2label, str(folder))

    def model(frames: np.ndarray, fps: float) -> dict[str, float]:
        worst = 0.0
        with torch.inference_mode():
            for start in range(0, len(frames), BATCH):
                pixels = prepare(images=list(frames[start : start + BATCH]), return_tensors="pt")["pixel_values"]
                odds = network(pixels.to(device, dtype)).logits.float().softmax(1)
                worst = max(worst, float(odds[:, columns].sum(1).max()))
        return {"nsfw": worst}

    return model


def unsafe(id2label: dict[int, str], where: str) -> list[int]:
    """Return the columns of a classifier that are not safe for work. Raises ValueError for unknown labels."""
    labels = {int(n): label.lower() for n, label in id2label.items()}
    if (bad := UNSAFE.get(frozenset(labels.values()))) is None:
        known = " or ".join(", ".join(sorted(labels)) for labels in UNSAFE)
        raise ValueError(
            f"the classifier in {where} has the labels {', '.join(labels.values())}, not {known}: "
            "add them to UNSAFE in model_zoo/quality/nsfw.py"
        )
    return sorted(n for n, label in labels.items() if label in bad)
