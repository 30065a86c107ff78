"""The part of a picture under text: subtitles, watermarks, signs. PP-OCR's detectors (arXiv 2009.09941)."""

import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from model_zoo.roles import Card
from model_zoo.weights import find

SIDE_PX = 512  # longer side of the detector's input; type smaller than about 8 px is missed
MAX_LINE = 0.3  # of the picture's height: PP-OCR takes some whole pictures for one line, at scores of 0.7
MIN_SCORE = 0.6  # below it, PP-OCR also takes blinds and bookshelves for lines of text


def rapidocr(card: Any, device: str) -> Callable[[np.ndarray], np.ndarray]:
    """PP-OCR's text detector through rapidocr. `model(frame (h, w, 3) uint8 RGB) -> (h, w) bool, the pixels under text`.

    It only detects and does not read. Raises FileNotFoundError if the installed rapidocr has no detector; rapidocr itself would
    download one.
    """
    spec = importlib.util.find_spec("rapidocr")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("no module named 'rapidocr'", name="rapidocr")
    folder = Path(spec.origin).parent / "models"
    detectors = sorted(folder.glob("*_det_*.onnx"))
    if not detectors:
        raise FileNotFoundError(
            f"rapidocr has no text detector in {folder}: install rapidocr >= 3.10, whose wheel includes one, "
            "or disable the text score with --text-model ''"
        )
    from rapidocr import RapidOCR

    ocr = RapidOCR(
        params={
            "Global.log_level": "error",
            "Global.use_cls": False,
            "Global.use_rec": False,
            "Det.model_path": str(detectors[0]),
            "Det.limit_type": "max",
            "Det.limit_side_len": SIDE_PX,
            "Det.box_thresh": MIN_SCORE,
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,  # the runner counts one core per worker
        }
    )

    def model(frame: np.ndarray) -> np.ndarray:
        boxes = getattr(ocr(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)), "boxes", None)
        return covered(lines(boxes if boxes is not None else [], len(frame)), *frame.shape[:2])

    return model


def ppocr(card: Card, device: str) -> Callable[[np.ndarray], np.ndarray]:
    """PP-OCR's text detector through transformers, as rapidocr.

    The weights are the hub's PP-OCRv5_*_det_safetensors, or a folder like them. For a GPU, and for larger detectors than the
    small one in the rapidocr wheel.
    """
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    folder = find(card)
    network = AutoModelForObjectDetection.from_pretrained(folder, local_files_only=True).eval().to(device)
    prepare = AutoImageProcessor.from_pretrained(folder, local_files_only=True)

    def model(frame: np.ndarray) -> np.ndarray:
        return covered(lines(boxes(network, prepare, frame, device), len(frame)), *frame.shape[:2])

    return model


def boxes(network: Any, prepare: Any, frame: np.ndarray, device: str = "cpu") -> list[np.ndarray]:
    """Return the (4, 2) corners of the boxes that a transformers detector finds in a (h, w, 3) uint8 RGB frame, in its pixels."""
    import torch

    inputs = prepare(images=frame, limit_side_len=SIDE_PX, limit_type="max", return_tensors="pt")
    with torch.inference_mode():
        found = network(inputs["pixel_values"].to(device))
    (result,) = prepare.post_process_object_detection(
        found, target_sizes=inputs["target_sizes"], box_threshold=MIN_SCORE
    )
    return [corners.cpu().numpy() for corners in result["boxes"]]


def lines(boxes: Iterable[np.ndarray], height: int) -> list[np.ndarray]:
    """Return the boxes that are not higher than a line of text can be in a picture of that height."""
    return [box for box in boxes if thickness(box) <= MAX_LINE * height]


def thickness(corners: np.ndarray) -> float:
    """Return the height of a line of text, in pixels: the shorter side of the rectangle around (4, 2) corners."""
    return float(min(cv2.minAreaRect(np.asarray(corners, np.float32))[1]))


def covered(quadrilaterals: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """Return the pixels of a height x width picture under (4, 2) quadrilaterals, (h, w) bool."""
    out = np.zeros((height, width), np.uint8)
    for corners in quadrilaterals:
        cv2.fillConvexPoly(out, np.rint(np.asarray(corners)).astype(np.int32), 1)
    return out.astype(bool)
