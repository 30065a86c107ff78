"""Human parsing networks with one vocabulary: face, hair, upper, lower, shoes, accessory.

A builder returns `model(person, mask, face) -> {part: mask}`: an (h, w, 3) uint8 RGB crop of a person, their (h, w) bool mask and
the box of their head, which these networks do not need. The parts are (h, w) bool, disjoint and inside the mask; parts that were
not found are missing. Classes outside the vocabulary (bare limbs, socks, the background) are dropped.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from model_zoo.roles import Card
from model_zoo.weights import find

Box = tuple[float, float, float, float]
Parser = Callable[[np.ndarray, np.ndarray, Box | None], dict[str, np.ndarray]]

# The classes of Sapiens in order (Khirodkar et al. 2024, arXiv 2408.12569): those of Goliath, without its rare ones.
GOLIATH = (
    *("Background", "Apparel", "Face_Neck", "Hair", "Left_Foot", "Left_Hand", "Left_Lower_Arm", "Left_Lower_Leg"),
    *("Left_Shoe", "Left_Sock", "Left_Upper_Arm", "Left_Upper_Leg", "Lower_Clothing", "Right_Foot", "Right_Hand"),
    *("Right_Lower_Arm", "Right_Lower_Leg", "Right_Shoe", "Right_Sock", "Right_Upper_Arm", "Right_Upper_Leg", "Torso"),
    *("Upper_Clothing", "Lower_Lip", "Upper_Lip", "Lower_Teeth", "Upper_Teeth", "Tongue"),
)
GOLIATH_WITH_GLASSES = (*GOLIATH[:2], "Eyeglass", *GOLIATH[2:])  # Sapiens 2 has one more
# The classes of ATR (Liang et al. 2015), in the order of segformer_b2_clothes.
ATR = (
    *("Background", "Hat", "Hair", "Sunglasses", "Upper-clothes", "Skirt", "Pants", "Dress", "Belt", "Left-shoe"),
    *("Right-shoe", "Face", "Left-leg", "Right-leg", "Left-arm", "Right-arm", "Bag", "Scarf"),
)
PARTS = {
    "face": {"Face_Neck", "Lower_Lip", "Upper_Lip", "Lower_Teeth", "Upper_Teeth", "Tongue", "Face"},
    "hair": {"Hair"},
    "upper": {"Upper_Clothing", "Upper-clothes", "Dress"},
    "lower": {"Lower_Clothing", "Skirt", "Pants"},
    "shoes": {"Left_Shoe", "Right_Shoe", "Left-shoe", "Right-shoe"},
    "accessory": {"Apparel", "Eyeglass", "Hat", "Sunglasses", "Belt", "Bag", "Scarf"},
}
SAPIENS_PX = (1024, 768)  # height, width
MEAN = np.array([123.5, 116.5, 103.5], np.float32)  # of Sapiens 1, red first, pixels of 0 to 255
STD = np.array([58.5, 57.0, 57.5], np.float32)
SPECK = 0.05  # of a part's largest piece: smaller separate pieces are noise


def sapiens(card: Card, device: str = "cpu") -> Parser:
    """Sapiens segmentation (Khirodkar et al. 2024), as the TorchScript file that its authors publish; always float32.

    The crop is stretched to 3:4, as in the authors' test pipeline (seg/configs/sapiens_seg/goliath, `keep_ratio=False`). Raises
    FileNotFoundError, and ValueError for a file that is not TorchScript or does not have 28 classes.
    """
    weights = find(card)
    weights = next(iter(sorted(weights.glob("*torchscript*"))), weights) if weights.is_dir() else weights
    import torch

    try:
        network = torch.jit.load(str(weights), map_location=device).eval()
    except RuntimeError as error:
        raise ValueError(
            f"{weights} cannot be read as TorchScript ({error}): is it a *_torchscript.pt2 file?"
        ) from error

    def parse(person: np.ndarray, mask: np.ndarray, face: Box | None) -> dict[str, np.ndarray]:
        small = cv2.resize(person, SAPIENS_PX[::-1], interpolation=cv2.INTER_LINEAR)
        pixels = torch.from_numpy(((small - MEAN) / STD).transpose(2, 0, 1))[None]
        with torch.inference_mode():
            classes = labels(network(pixels.to(device))[0], person.shape[:2], GOLIATH, weights)
        return parts(classes, GOLIATH, mask)

    return parse


def sapiens2(card: Card, device: str = "cpu") -> Parser:
    """Sapiens 2 segmentation through transformers. Its licence forbids biometric processing: keep it from face embeddings.

    Raises FileNotFoundError, and ValueError if it does not have 29 classes.
    """
    weights = find(card)
    from transformers import Sapiens2ForSemanticSegmentation

    logits = _transformer(Sapiens2ForSemanticSegmentation, weights, device)

    def parse(person: np.ndarray, mask: np.ndarray, face: Box | None) -> dict[str, np.ndarray]:
        classes = labels(logits(person), person.shape[:2], GOLIATH_WITH_GLASSES, weights)
        return parts(classes, GOLIATH_WITH_GLASSES, mask)

    return parse


def segformer(card: Card, device: str = "cpu") -> Parser:
    """SegFormer (Xie et al. 2021, arXiv 2105.15203) trained on the 18 classes of ATR, through transformers.

    The crop is resized to the network's square, as in its training. Raises FileNotFoundError, and ValueError if it does not have
    18 classes.
    """
    weights = find(card)
    from transformers import SegformerForSemanticSegmentation

    logits = _transformer(SegformerForSemanticSegmentation, weights, device)

    def parse(person: np.ndarray, mask: np.ndarray, face: Box | None) -> dict[str, np.ndarray]:
        return parts(labels(logits(person), person.shape[:2], ATR, weights), ATR, mask)

    return parse


def _transformer(network_class: Any, weights: Path, device: str) -> Callable[[np.ndarray], Any]:
    """Return a transformers network with its own image processor: an RGB picture to (classes, h, w) logits."""
    import torch
    from transformers import AutoImageProcessor

    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    processor = AutoImageProcessor.from_pretrained(weights, local_files_only=True)
    network = network_class.from_pretrained(weights, local_files_only=True, dtype=dtype).eval().to(device)

    def logits(picture: np.ndarray) -> Any:
        pixels = processor(images=[picture], return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            return network(pixel_values=pixels.to(device, dtype)).logits[0]

    return logits


def labels(logits: Any, size: tuple[int, int], classes: tuple[str, ...], weights: Path) -> np.ndarray:
    """Return the likeliest class of each pixel, (h, w) uint8, from (classes, ., .) logits upscaled bilinearly to `size` (h, w).

    Class by class, so that a large crop does not need all of them at its size. Raises ValueError for another number of classes.
    """
    import torch
    from torch.nn.functional import interpolate

    if len(logits) != len(classes):
        raise ValueError(f"{weights} has {len(logits)} classes, this card needs {len(classes)}")
    best = torch.full(size, -torch.inf, device=logits.device)
    winner = torch.zeros(size, dtype=torch.uint8, device=logits.device)
    for number, one in enumerate(logits.float()):
        score = interpolate(one[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
        winner[score > best] = number
        best = torch.maximum(best, score)
    return winner.cpu().numpy()


def parts(classes: np.ndarray, names: tuple[str, ...], mask: np.ndarray) -> dict[str, np.ndarray]:
    """Return the parts of the vocabulary from an (h, w) map of class numbers: inside the mask, without specks."""
    found = {}
    for part, members in PARTS.items():
        numbers = [number for number, name in enumerate(names) if name in members]
        found[part] = without_specks(np.isin(classes, numbers) & mask)
    return nonempty(found.items())


def nonempty(found: Iterable[tuple[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the parts that are not empty."""
    return {part: mask for part, mask in found if mask.any()}


def without_specks(mask: np.ndarray) -> np.ndarray:
    """Return an (h, w) bool mask without pieces much smaller than its largest, see SPECK."""
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0  # the area outside the mask
    return np.isin(pieces, np.flatnonzero(areas >= max(1, SPECK * areas.max())))
