"""RetinaFace with a MobileNet-0.25 body (Deng et al. 2019, arXiv 1905.00641), with a separate recogniser.

The network follows the published layout: a MobileNet that starts at an eighth of the usual width, a feature pyramid over its last
three stages, a context module (SSH, Najibi et al. 2017) on each level, and 1 x 1 convolutions that predict face score, box and
five landmarks for two anchors per cell.
"""

from itertools import pairwise
from typing import Any, NamedTuple

import cv2
import numpy as np

from model_zoo.faces import recognise
from model_zoo.faces.dlib_insightface import FacesModel, best_first, clip_box
from model_zoo.roles import Card, Face
from model_zoo.torchvision_shim import nms

LONG_PX = 640  # longer side of its input
BATCH = 8  # frames at a time
CONFIDENCE = 0.5  # floor of the detector; the stage's `confidence` decides
NMS_IOU = 0.4  # IoU from which two boxes are one face
MAX_CANDIDATES = 750  # anchors passed to non-maximum suppression, best first
MEAN_BGR = (104.0, 117.0, 123.0)  # subtracted from pixels of 0 to 255, blue first
STRIDES = (8, 16, 32)  # px between the cells of each level
ANCHORS = ((16, 32), (64, 128), (256, 512))  # sides in px of the squares at each cell of a level
VARIANCES = (0.1, 0.2)  # units of positions and sizes, as fractions of an anchor's side


class FrameFaces(NamedTuple):
    """The faces of one frame, best score first, in its pixels."""

    boxes: np.ndarray  # (n, 4) float32
    scores: np.ndarray  # (n,) float32, 0 to 1
    landmarks: np.ndarray  # (n, 5, 2) float32: eyes (left in the picture first), nose, mouth corners


def retinaface(card: Card, device: str = "cpu") -> FacesModel:
    """RetinaFace with MobileNet-0.25 (Deng et al. 2019, arXiv 1905.00641) in torch, and a recogniser.

    The weights are a state dict, with the card's companion as recogniser; or a folder with a state dict *.pth and an ArcFace
    *.onnx. Raises FileNotFoundError, and ValueError for a state dict of another network.
    """
    weights, embed = recognise.with_detector(card, "*.pth", "*.onnx", recognise.arcface, device)
    detector = load(str(weights), device)

    def faces(frame: np.ndarray) -> list[Face]:
        (frame_faces,) = detections(detector, frame[None], device)
        embeddings = embed(frame, frame_faces.landmarks)
        faces_found = [
            Face(clip_box(box.tolist(), frame), float(score), points, vector)
            for box, score, points, vector in zip(*frame_faces, embeddings, strict=True)
        ]
        return sorted(faces_found, key=best_first)

    return faces


def load(weights: str, device: str = "cpu") -> Any:
    """Return the network with the weights of a .pth file. Raises ValueError if they do not match."""
    import torch

    state = torch.load(weights, map_location="cpu", weights_only=True)
    detector = network()
    try:
        # A network that was trained on several GPUs has "module." before each name.
        detector.load_state_dict({name.removeprefix("module."): value for name, value in state.items()}, strict=True)
    except (RuntimeError, AttributeError) as error:
        raise ValueError(f"{weights} is not a RetinaFace with a MobileNet-0.25 body: {error}") from error
    return detector.eval().to(device)


def network() -> Any:
    """Return the layers, named as in the published weights, with random weights."""
    from torch import nn

    def with_norm(layer: nn.Conv2d, leak: float | None = 0.1) -> list[nn.Module]:
        activation = [] if leak is None else [nn.LeakyReLU(leak)]
        return [layer, nn.BatchNorm2d(layer.out_channels), *activation]

    def conv(inputs: int, outputs: int, side: int = 3, stride: int = 1, leak: float | None = 0.1) -> nn.Module:
        return nn.Sequential(*with_norm(nn.Conv2d(inputs, outputs, side, stride, padding=side // 2, bias=False), leak))

    def separable(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
        depthwise = nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False)
        return nn.Sequential(*with_norm(depthwise), *with_norm(nn.Conv2d(inputs, outputs, 1, bias=False)))

    def stage(widths: tuple[int, ...]) -> list[nn.Module]:
        """Return separable convolutions from width to width; the first halves the picture."""
        pairs = pairwise(widths)
        return [separable(a, b, 2 if i == 0 else 1) for i, (a, b) in enumerate(pairs)]

    def context() -> nn.Module:
        return nn.ModuleDict(
            {
                "conv3X3": conv(64, 32, leak=None),
                "conv5X5_1": conv(64, 16),
                "conv5X5_2": conv(16, 16, leak=None),
                "conv7X7_2": conv(16, 16),
                "conv7x7_3": conv(16, 16, leak=None),
            }
        )

    def heads(values: int) -> nn.Module:
        return nn.ModuleList([nn.ModuleDict({"conv1x1": nn.Conv2d(64, 2 * values, 1)}) for _ in STRIDES])

    first = [conv(3, 8, stride=2), separable(8, 16), *stage((16, 32, 32)), *stage((32, 64, 64))]
    pyramid = {f"output{i + 1}": conv(width, 64, side=1) for i, width in enumerate((64, 128, 256))}
    body = {
        "stage1": nn.Sequential(*first),
        "stage2": nn.Sequential(*stage((64, 128, 128, 128, 128, 128, 128))),
        "stage3": nn.Sequential(*stage((128, 256, 256))),
    }
    return nn.ModuleDict(
        {
            "body": nn.ModuleDict(body),
            "fpn": nn.ModuleDict({**pyramid, "merge1": conv(64, 64), "merge2": conv(64, 64)}),
            "ssh1": context(),
            "ssh2": context(),
            "ssh3": context(),
            "ClassHead": heads(2),
            "BboxHead": heads(4),
            "LandmarkHead": heads(10),
        }
    )


def forward(net: Any, pictures: Any) -> tuple[Any, Any, Any]:
    """Map (b, 3, h, w) float32, BGR minus its mean, to (b, anchors) scores, (b, anchors, 4) boxes, (b, anchors, 10) landmarks.

    Boxes and landmarks are relative to the anchors, see `decoded`. Anchors are ordered by level, row, column and side.
    """
    import torch
    from torch.nn.functional import interpolate

    stages = []
    for stage in net["body"].values():
        pictures = stage(pictures)
        stages.append(pictures)
    fpn = net["fpn"]
    fine, middle, coarse = (fpn[f"output{i + 1}"](features) for i, features in enumerate(stages))
    middle = fpn["merge2"](middle + interpolate(coarse, size=middle.shape[2:], mode="nearest"))
    fine = fpn["merge1"](fine + interpolate(middle, size=fine.shape[2:], mode="nearest"))
    levels = [ssh_context(net[f"ssh{i + 1}"], level) for i, level in enumerate((fine, middle, coarse))]

    def predict(heads: Any, values: int) -> Any:
        maps = [head["conv1x1"](level) for head, level in zip(heads, levels, strict=True)]
        return torch.cat([m.permute(0, 2, 3, 1).reshape(len(m), -1, values) for m in maps], 1)

    scores = predict(net["ClassHead"], 2).softmax(-1)[..., 1]
    return scores, predict(net["BboxHead"], 4), predict(net["LandmarkHead"], 10)


def ssh_context(ssh: Any, level: Any) -> Any:
    """Return a level with the context of each cell, in windows of 3, 5 and 7 cells."""
    import torch

    context5 = ssh["conv5X5_1"](level)
    context7 = ssh["conv7x7_3"](ssh["conv7X7_2"](context5))
    return torch.relu(torch.cat([ssh["conv3X3"](level), ssh["conv5X5_2"](context5), context7], 1))


def anchors(height: int, width: int) -> np.ndarray:
    """Return the anchors of a picture of that size, (n, 3) float32: centre x, y and side, in px, in the order of `forward`."""
    levels = []
    for stride, sides in zip(STRIDES, ANCHORS, strict=True):
        y, x, side = np.meshgrid(
            np.arange(-(-height // stride)), np.arange(-(-width // stride)), np.array(sides), indexing="ij"
        )
        levels.append(np.stack([(x + 0.5) * stride, (y + 0.5) * stride, side], -1).reshape(-1, 3))
    return np.concatenate(levels).astype(np.float32)


def decode(priors: np.ndarray, boxes: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (n, 4) boxes and (n, 5, 2) landmarks in px from (n, 3) anchors and the network's outputs, (n, 4) and (n, 10)."""
    centres, side = priors[:, :2], priors[:, 2:]
    decoded_centres, size = centres + boxes[:, :2] * VARIANCES[0] * side, side * np.exp(boxes[:, 2:] * VARIANCES[1])
    points = centres[:, None] + landmarks.reshape(-1, 5, 2) * VARIANCES[0] * side[:, None]
    return np.concatenate([decoded_centres - size / 2, decoded_centres + size / 2], 1), points


def detections(detector: Any, frames: np.ndarray, device: str = "cpu") -> list[FrameFaces]:
    """Return the faces of (t, h, w, 3) uint8 RGB frames, one Found each, in pixels of the frames."""
    import torch

    height, width = frames.shape[1:3]
    scale = min(1.0, LONG_PX / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    scale_back = np.array([width / size[0], height / size[1]], np.float32)
    priors, frame_faces = anchors(size[1], size[0]), []
    for start in range(0, len(frames), BATCH):
        inputs = [preprocess(frame, size) for frame in frames[start : start + BATCH]]
        with torch.inference_mode():
            outputs = forward(detector, torch.from_numpy(np.stack(inputs)).to(device))
        for scores, boxes, points in zip(*(t.float().cpu().numpy() for t in outputs), strict=True):
            frame_faces.append(select_faces(priors, scores, boxes, points, scale_back))
    return frame_faces


def preprocess(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return an RGB frame at (width, height) as network input, (3, height, width) float32."""
    small = frame if frame.shape[1::-1] == size else cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    return (small[..., ::-1].astype(np.float32) - np.array(MEAN_BGR, np.float32)).transpose(2, 0, 1)


def select_faces(
    priors: np.ndarray, scores: np.ndarray, boxes: np.ndarray, points: np.ndarray, scale_back: np.ndarray
) -> FrameFaces:
    """Return one frame's anchors after thresholding and non-maximum suppression; scaled by `scale_back`, across and down."""
    import torch

    best = np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]
    best = best[scores[best] >= CONFIDENCE]
    decoded_boxes, landmarks = decode(priors[best], boxes[best], points[best])
    kept = nms(torch.from_numpy(decoded_boxes), torch.from_numpy(scores[best]), NMS_IOU).numpy()
    return FrameFaces(
        decoded_boxes[kept] * np.tile(scale_back, 2),
        scores[best][kept],
        (landmarks * scale_back)[kept].astype(np.float32),
    )
