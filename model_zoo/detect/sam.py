"""Masks from boxes with Segment Anything 2 and 3 through transformers.

SAM 2: Ravi et al. 2024 (arXiv 2408.00714), Apache-2.0; SAM 3: Carion et al. 2025 (arXiv 2511.16719), its own licence.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from model_zoo.roles import Card
from model_zoo.weights import find

BATCH = 16  # boxes per batch of the mask decoder; the picture is encoded once


def masks(card: Card, device: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """SAM 2 (Ravi et al. 2024) or SAM 3 through transformers, prompted by boxes.

    The weights are a folder saved by transformers, with its processor. `model(frame, boxes) -> (n, h, w) bool`, frame (h, w, 3)
    uint8 RGB, boxes (n, 4) x0, y0, x1, y1 in its pixels: the mask of the object in each box, without filling holes or dropping
    pieces. Raises FileNotFoundError for a missing folder, ValueError for another network.
    """
    weights = find(card)
    import torch
    from transformers import AutoConfig

    family = AutoConfig.from_pretrained(weights, local_files_only=True).model_type
    network_class, processor_class = _classes(family, str(weights))
    model = network_class.from_pretrained(weights, local_files_only=True, dtype=torch.float32).to(device).eval()
    processor = processor_class.from_pretrained(weights, local_files_only=True)

    @torch.inference_mode()
    def cut(frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        frame_masks = np.zeros((len(boxes), *frame.shape[:2]), bool)
        if not len(boxes):
            return frame_masks
        picture = processor(images=frame, return_tensors="pt")
        # The encoder takes nearly all of the time and tolerates bfloat16; the decoder draws the edge, in float32.
        with torch.autocast(device, torch.bfloat16, enabled=device != "cpu"):
            features = model.get_image_embeddings(picture["pixel_values"].to(device))
        features = [level.float() for level in features]
        for start in range(0, len(boxes), BATCH):
            prompts = processor(
                input_boxes=[boxes[start : start + BATCH].tolist()],
                original_sizes=picture["original_sizes"],
                return_tensors="pt",
            )
            output = model(
                image_embeddings=features, input_boxes=prompts["input_boxes"].to(device), multimask_output=False
            )
            (predicted,) = processor.post_process_masks(output.pred_masks.cpu(), picture["original_sizes"])
            frame_masks[start : start + BATCH] = predicted[:, 0].numpy()
        return frame_masks

    return cut


def _classes(family: str, weights: str) -> tuple[Any, Any]:
    """Return the network and processor classes of config.json's model type; published folders are those of the video models."""
    import transformers

    if family in ("sam2", "sam2_video"):
        return transformers.Sam2Model, transformers.Sam2Processor
    if family in ("sam3_tracker", "sam3_video", "sam3_tracker_video"):
        return transformers.Sam3TrackerModel, transformers.Sam3TrackerProcessor
    raise ValueError(f"{weights} is a {family!r} network: this card supports SAM 2 and SAM 3")
