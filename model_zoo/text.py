"""How much of a picture is covered by text: subtitles, watermarks, signs. PP-OCR's detector, as the rapidocr wheel ships it."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

SIDE_PX = 512  # the longer side at which the detector looks; smaller type than about 8 px is lost
MAX_LINE = 0.3  # of the picture's height: PP-OCR takes some whole pictures for one line of type, at scores of 0.7
MIN_SCORE = 0.6  # below this, PP-OCR also takes blinds and bookshelves for lines of type


def rapidocr(card: Any, device: str) -> Callable[[np.ndarray], float]:
    """`model(frame (h, w, 3) uint8 RGB) -> share of the picture under text, 0 to 1`. Only detects: nothing is read.

    Raises FileNotFoundError where the installed rapidocr has no detector inside; rapidocr itself would download one.
    """
    spec = importlib.util.find_spec("rapidocr")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("no module named 'rapidocr'", name="rapidocr")
    folder = Path(spec.origin).parent / "models"
    detectors = sorted(folder.glob("*_det_*.onnx"))
    if not detectors:
        raise FileNotFoundError(
            f"rapidocr has no text detector in {folder}: install rapidocr >= 3.10, whose wheel carries one, "
            "or switch the text score off with --text-model ''"
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
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,  # the runner counts cores, one a worker
        }
    )

    def model(frame: np.ndarray) -> float:
        boxes = getattr(ocr(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)), "boxes", None)
        return share(
            [box for box in boxes if thickness(box) <= MAX_LINE * len(frame)] if boxes is not None else [],
            *frame.shape[:2],
        )

    return model


def thickness(corners: np.ndarray) -> float:
    """The height of a line of type, in pixels: the shorter side of the rectangle around (4, 2) corners."""
    return float(min(cv2.minAreaRect(np.asarray(corners, np.float32))[1]))


def share(quadrilaterals: list[np.ndarray], height: int, width: int) -> float:
    """The share of a height x width picture that (4, 2) quadrilaterals cover, overlaps counted once, 0 to 1."""
    covered = np.zeros((height, width), np.uint8)
    for corners in quadrilaterals:
        cv2.fillConvexPoly(covered, np.rint(np.asarray(corners)).astype(np.int32), 1)
    return float(covered.mean())
