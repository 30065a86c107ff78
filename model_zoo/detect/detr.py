"""Detection transformers through transformers (Apache-2.0): RF-DETR, RT-DETR and RT-DETRv2, D-FINE, DEIMv2.

RF-DETR: Robinson et al. 2025 (arXiv 2511.09554); RT-DETRv2: Lv et al. 2024 (arXiv 2407.17140); D-FINE: Peng et al. 2024 (arXiv
2410.13842). Each class has a sigmoid score, and non-maximum suppression is not needed.
"""

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from model_zoo.detect.boxes import CONFIDENCE, detections
from model_zoo.roles import Card, Detection
from model_zoo.weights import find

BATCH = 8  # frames at a time
FAMILIES = ("rf_detr", "rt_detr", "rt_detr_v2", "d_fine", "deimv2")  # families with sigmoid scores


def detector(card: Card, device: str) -> Callable[[np.ndarray], list[list[Detection]]]:
    """RF-DETR, RT-DETR or D-FINE through transformers. The weights are a folder saved by transformers, with its image processor.

    Masks are the network's own if it was trained for instance segmentation, else from grabcut.in_box. Raises FileNotFoundError
    for a missing folder, ValueError for a network of another family or one that does not name its classes.
    """
    weights = find(card)
    import torch
    from transformers import AutoConfig, AutoImageProcessor, AutoModelForObjectDetection, RfDetrForInstanceSegmentation

    config = AutoConfig.from_pretrained(weights, local_files_only=True)
    if config.model_type not in FAMILIES:
        raise ValueError(f"{weights} is a {config.model_type!r} network: this card supports {', '.join(FAMILIES)}")
    if all(re.fullmatch(r"LABEL_\d+", label) for label in config.id2label.values()):
        raise ValueError(
            f"{weights}/config.json does not name its {len(config.id2label)} classes (LABEL_0, LABEL_1 …), so that people would "
            'not be found: set "id2label" and "label2id" in it to the classes of the training'
        )
    segments = any("InstanceSegmentation" in name for name in config.architectures or [])
    model_class: Any = RfDetrForInstanceSegmentation if segments else AutoModelForObjectDetection
    # float32 on a GPU too: bfloat16 has only 8 bits for a coordinate
    model = model_class.from_pretrained(weights, local_files_only=True, dtype=torch.float32).to(device).eval()
    processor = AutoImageProcessor.from_pretrained(weights, local_files_only=True)

    @torch.inference_mode()
    def detect(frames: np.ndarray) -> list[list[Detection]]:
        found: list[list[Detection]] = []
        for start in range(0, len(frames), BATCH):
            batch = frames[start : start + BATCH]
            inputs = processor(list(batch), return_tensors="pt").to(device)
            output = model(**inputs)
            for i, frame in enumerate(batch):
                masks = output.pred_masks[i] if segments else None
                found.append(_read(frame, output.logits[i], output.pred_boxes[i], masks, config.id2label))
        return found

    return detect


def _read(frame: np.ndarray, logits: Any, boxes: Any, masks: Any, names: dict[int, str]) -> list[Detection]:
    """Return one frame's queries as detections: each with its best class, those above CONFIDENCE.

    logits: (queries, classes); boxes: (queries, 4), centre and size as fractions of the picture; masks: (queries, h, w) logits at
    the network's own size, or None.
    """
    import torch

    height, width = frame.shape[:2]
    scores, classes = logits.sigmoid().max(-1)
    kept = scores > CONFIDENCE
    x, y, w, h = boxes[kept].float().unbind(-1)
    corners = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1) * torch.tensor(
        [width, height, width, height], device=boxes.device
    )
    frame_masks = None
    if masks is not None:
        # one at a time: a hundred masks at frame size are gigabytes of float32
        frame_masks = np.zeros((int(kept.sum()), height, width), bool)
        for i, mask in enumerate(masks[kept]):
            large = torch.nn.functional.interpolate(mask[None, None].float(), (height, width), mode="bilinear")
            frame_masks[i] = (large[0, 0] > 0).cpu().numpy()
    labels = [names[int(c)] for c in classes[kept]]
    return detections(frame, corners.cpu().numpy(), scores[kept].float().cpu().numpy(), labels, frame_masks)
