"""Face recognition: networks that embed an aligned face, for detectors without embeddings.

A builder returns `model(frame, landmarks) -> (n, d) float32`, rows of unit length, for an (h, w, 3) uint8 RGB frame and the (n,
5, 2) float32 landmarks of its faces: eyes (left in the picture first), nose, mouth corners.
"""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from model_zoo import cards
from model_zoo.embeddings import unit
from model_zoo.faces.dlib_insightface import onnx_providers
from model_zoo.roles import Card
from model_zoo.weights import find

Recogniser = Callable[[np.ndarray, np.ndarray], np.ndarray]
BATCH = 32  # faces at a time


def arcface(card: Card, device: str = "cpu") -> Recogniser:
    """Any recognition network in ONNX that insightface supports: ArcFace (Deng et al. 2019, arXiv 1801.07698) and relatives.

    Raises FileNotFoundError, and ValueError for an ONNX file that is not a recognition network.
    """
    weights = find(card)
    from insightface.model_zoo import get_model
    from insightface.utils.face_align import norm_crop

    network = get_model(str(weights), providers=onnx_providers(device))
    if getattr(network, "taskname", "") != "recognition":
        raise ValueError(f"{weights} is not a recognition network: it must map 112 x 112 faces to one vector each")
    batch = 1 if isinstance(network.input_shape[0], int) else BATCH

    def recognise(frame: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        faces = [norm_crop(bgr, five, image_size=network.input_size[0]) for five in landmarks]
        rows = [network.get_feat(faces[i : i + batch]) for i in range(0, len(faces), batch)]
        return unit(np.concatenate(rows)) if rows else np.zeros((0, network.output_shape[1]), np.float32)

    return recognise


def sface(card: Card, device: str = "cpu") -> Recogniser:
    """SFace (Zhong et al. 2021, arXiv 2205.12010) through OpenCV, on the CPU. Raises FileNotFoundError."""
    weights = str(find(card))
    network = cv2.FaceRecognizerSF.create(weights, "")

    def recognise(frame: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        bgr, rows = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), []
        for five in landmarks:
            # OpenCV expects a row of its detector: a box, five points, a score. Only the points enter the alignment.
            row = np.concatenate([np.zeros(4), five.ravel(), [1.0]]).astype(np.float32)[None]
            rows.append(network.feature(network.alignCrop(bgr, row)).copy())
        return unit(np.concatenate(rows)) if rows else np.zeros((0, 128), np.float32)

    return recognise


def with_detector(
    card: Card, detector: str, recogniser: str, builder: Callable[[Card, str], Recogniser], device: str
) -> tuple[Path, Recogniser]:
    """Return the file of a card's detector, and its recogniser.

    By default the recogniser is the card's companion. If the weights are a folder, both are in it: the files that match the
    patterns `detector` and `recogniser`, the latter for `builder`. Raises FileNotFoundError.
    """
    weights = find(card)
    if weights.is_dir():
        recogniser_card = Card("recognise", "", weights=str(single_file(weights, recogniser)), name=card.name)
        return single_file(weights, detector), builder(recogniser_card, device)
    if not card.companions:
        raise FileNotFoundError(
            f"{weights} is one file: model {card.name!r} needs a folder with {detector} and {recogniser}"
        )
    return weights, cards.load(card.companions[0], device)


def single_file(folder: Path, pattern: str) -> Path:
    """Return the one file of a folder that matches. Raises FileNotFoundError for none, and for several."""
    files = sorted(folder.glob(pattern))
    if len(files) != 1:
        raise FileNotFoundError(f"{folder} has {len(files)} files {pattern}, expected 1")
    return files[0]
