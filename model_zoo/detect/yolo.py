"""The YOLO family through ultralytics (AGPL-3.0): detection and segmentation weights, as .pt or exported to .onnx.

Nothing is ever downloaded: a worker without network must fail with an error message, not hang.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from model_zoo.detect.boxes import CONFIDENCE, detections
from model_zoo.roles import Card, Detection
from model_zoo.weights import find

BATCH = 16  # frames per batch of .pt weights; exported ones use the batch of their export, 1


def detector(card: Card, device: str) -> Callable[[np.ndarray], list[list[Detection]]]:
    """YOLO through ultralytics: boxes, and masks if the network has them.

    The weights are a file, or a file's name in the folder A2DATA_WEIGHTS. Weights for detection only get masks from
    grabcut.in_box. Raises FileNotFoundError if the file is in neither place, ValueError for a file that is not a YOLO model or
    one of another task.
    """
    weights = find(card)
    task = task_of(weights)
    keep_offline()
    from ultralytics import YOLO

    try:
        model = YOLO(str(weights), task=task)
    except Exception as error:  # unpickling a foreign file may raise anything
        raise ValueError(f"{weights} cannot be read as YOLO weights ({error}): check the path") from error
    if model.task not in ("detect", "segment"):
        raise ValueError(f"{weights} is a YOLO model for {model.task!r}: detection needs one for 'detect' or 'segment'")
    size_kwargs: dict[str, Any] = {} if weights.suffix == ".pt" else {"imgsz": _exported_size(weights)}
    batch = BATCH if weights.suffix == ".pt" else 1

    def detect(frames: np.ndarray) -> list[list[Detection]]:
        found: list[list[Detection]] = []
        for start in range(0, len(frames), batch):
            # ultralytics takes BGR
            pictures = [np.ascontiguousarray(f[..., ::-1]) for f in frames[start : start + batch]]
            results = model.predict(
                pictures, conf=CONFIDENCE, retina_masks=True, device=device, verbose=False, save=False, **size_kwargs
            )
            found += [read_result(result, frame) for result, frame in zip(results, frames[start:], strict=False)]
        return found

    return detect


def task_of(weights: Path) -> str | None:
    """Return the task of an exported model, from its metadata or "-seg" in its name; None for .pt files, which store it."""
    if weights.suffix == ".pt":
        return None
    return _metadata(weights).get("task") or ("segment" if "-seg" in weights.stem else "detect")


def _metadata(weights: Path) -> dict[str, str]:
    """Return the metadata that ultralytics wrote into an ONNX file on export; {} for other formats."""
    if weights.suffix != ".onnx":
        return {}
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(weights), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has many error types
        raise ValueError(f"{weights} cannot be read as an ONNX model ({error}): check the path") from error
    sides = session.get_inputs()[0].shape[2:]
    return dict(session.get_modelmeta().custom_metadata_map) | {"sides": "x".join(map(str, sides))}


def _exported_size(weights: Path) -> list[int]:
    """Return height and width for which a model was exported; ultralytics' default of 640 if it accepts any."""
    sides = _metadata(weights).get("sides", "").split("x")
    return [int(side) if side.isdigit() else 640 for side in sides] if len(sides) == 2 else [640, 640]


def keep_offline() -> None:
    """Keep ultralytics, by variables that it reads on import, from checking for updates, installing or writing settings."""
    os.environ["YOLO_OFFLINE"] = "true"
    os.environ["YOLO_AUTOINSTALL"] = "false"
    os.environ["YOLO_VERBOSE"] = "false"
    if "YOLO_CONFIG_DIR" not in os.environ:
        os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp(prefix="a2data-yolo-")


def read_result(result: Any, frame: np.ndarray) -> list[Detection]:
    """Return one ultralytics result as detections, see model_zoo.detect.boxes. frame: (h, w, 3) uint8 RGB, the result's frame."""
    boxes, scores = result.boxes.xyxy.cpu().numpy(), result.boxes.conf.cpu().numpy()
    labels = [result.names[int(c)] for c in result.boxes.cls.cpu().numpy()]
    masks = None if result.masks is None else result.masks.data.cpu().numpy().astype(bool)
    return detections(frame, boxes, scores, labels, masks)
