"""The YOLO family through ultralytics (AGPL-3.0): detection and segmentation weights, as .pt or exported to .onnx.

Nothing is ever downloaded: a worker without network must fail with a sentence, not hang.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from model_zoo import torchvision_shim
from model_zoo.detect.boxes import CONFIDENCE, detections
from model_zoo.roles import Card, Detection
from model_zoo.weights import find

BATCH = 16  # frames at a time through .pt weights; exported ones have the batch they were exported with, 1


def detector(card: Card, device: str) -> Callable[[np.ndarray], list[list[Detection]]]:
    """YOLO through ultralytics: boxes, and masks where the network has them. The card's weights are a file, or a file's
    name in the folder that A2DATA_WEIGHTS names.

    Weights for detection only get their masks from grabcut.in_box. Raises FileNotFoundError where the file is in neither place,
    ValueError for a file that is no YOLO model or one of another task.
    """
    weights = find(card)
    task = task_of(weights)
    keep_offline()
    torchvision_shim.install()
    from ultralytics import YOLO

    try:
        model = YOLO(str(weights), task=task)
    except Exception as error:  # whatever unpickling a foreign file comes to
        raise ValueError(f"{weights} cannot be read as YOLO weights ({error}): is it the file you meant?") from error
    if model.task not in ("detect", "segment"):
        raise ValueError(f"{weights} is a YOLO model for {model.task!r}: detection needs one for 'detect' or 'segment'")
    sized: dict[str, Any] = {} if weights.suffix == ".pt" else {"imgsz": _exported_size(weights)}
    batch = BATCH if weights.suffix == ".pt" else 1

    def detect(frames: np.ndarray) -> list[list[Detection]]:
        found: list[list[Detection]] = []
        for start in range(0, len(frames), batch):
            # ultralytics takes BGR
            pictures = [np.ascontiguousarray(f[..., ::-1]) for f in frames[start : start + batch]]
            results = model.predict(
                pictures, conf=CONFIDENCE, retina_masks=True, device=device, verbose=False, save=False, **sized
            )
            found += [read_result(result, frame) for result, frame in zip(results, frames[start:], strict=False)]
        return found

    return detect


def task_of(weights: Path) -> str | None:
    """The task that an exported model was trained for, by its metadata or by "-seg" in its name; None for .pt, which know it."""
    if weights.suffix == ".pt":
        return None
    return _metadata(weights).get("task") or ("segment" if "-seg" in weights.stem else "detect")


def _metadata(weights: Path) -> dict[str, str]:
    """What ultralytics wrote into an ONNX file on export; nothing for other formats."""
    if weights.suffix != ".onnx":
        return {}
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(weights), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a type of its own for each way to be broken
        raise ValueError(f"{weights} cannot be read as an ONNX model ({error}): is it the file you meant?") from error
    sides = session.get_inputs()[0].shape[2:]
    return dict(session.get_modelmeta().custom_metadata_map) | {"sides": "x".join(map(str, sides))}


def _exported_size(weights: Path) -> list[int]:
    """Height and width that an exported model was made for; ultralytics' own 640 where it takes any."""
    sides = _metadata(weights).get("sides", "").split("x")
    return [int(side) if side.isdigit() else 640 for side in sides] if len(sides) == 2 else [640, 640]


def keep_offline() -> None:
    """Ultralytics reads these on import: it looks for updates, installs packages and writes settings unless told not to."""
    os.environ["YOLO_OFFLINE"] = "true"
    os.environ["YOLO_AUTOINSTALL"] = "false"
    os.environ["YOLO_VERBOSE"] = "false"
    if "YOLO_CONFIG_DIR" not in os.environ:
        os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp(prefix="a2data-yolo-")


def read_result(result: Any, frame: np.ndarray) -> list[Detection]:
    """One ultralytics result as detections, see model_zoo.detect.boxes. frame: (h, w, 3) uint8 RGB, what the result is about."""
    boxes, scores = result.boxes.xyxy.cpu().numpy(), result.boxes.conf.cpu().numpy()
    labels = [result.names[int(c)] for c in result.boxes.cls.cpu().numpy()]
    masks = None if result.masks is None else result.masks.data.cpu().numpy().astype(bool)
    return detections(frame, boxes, scores, labels, masks)
