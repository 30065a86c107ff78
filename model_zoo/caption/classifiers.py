"""Video and image classifiers of transformers whose labels are values of the caption's schema, as experts.

"CS", "closeUp" and "close-up shot" are all "close_up"; "pan_left" and "Pan Left" are "the camera pans to the left". One
checkpoint may cover several fields; the probability of labels without a meaning here ("ambiguous", "ECS detail") is dropped.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from model_zoo import weights
from model_zoo.caption.measured import Answer, ElementHint
from model_zoo.roles import Card

FRAMES = 8  # frames for an image classifier, spread over the clip
BATCH = 8  # pictures per batch
MIN_PROBABILITY = 0.5  # probability from which a label of a multi-label checkpoint applies

SHOT_TYPES = {
    "long_shot": "long shot, extreme long shot, very long shot, wide shot, extreme wide shot, establishing shot, ls, els, ws",
    "full_shot": "full shot, full body shot, medium full shot, medium long shot, fs, mls, mfs",
    "medium_shot": "medium shot, mid shot, cowboy shot, american shot, waist shot, ms",
    "close_up": "close up, close up shot, close shot, medium close up, medium close shot, cs, cu, mcu",
    "extreme_close_up": "extreme close up, extreme close up shot, extreme close shot, detail, insert, ecs, ecu, xcu",
}
SHOT_ANGLES = {
    "eye_level": "eye level, eye level angle, neutral angle, level",
    "high_angle": "high angle, high",
    "low_angle": "low angle, low",
}
SHOT_POSITIONS = {
    "front_view": "front view, front, frontal",
    "back_view": "back view, back, rear view",
    "side_view": "side view, side, profile",
    "over_the_shoulder": "over the shoulder, ots",
    "overhead_view": "overhead view, overhead, top down",
    "point_of_view": "point of view, pov",
    "aerial_view": "aerial view, aerial, drone",
    "overlooking_view": "overlooking view, overlooking",
}
CAMERA = {
    "the camera stays still": "static, static shot, still, fixed, no motion",
    "the camera pans to the left": "pan left",
    "the camera pans to the right": "pan right",
    "the camera tilts up": "tilt up",
    "the camera tilts down": "tilt down",
    "the camera zooms in": "zoom in",
    "the camera zooms out": "zoom out",
    "the camera rolls clockwise": "roll cw, roll right, roll clockwise",
    "the camera rolls counterclockwise": "roll ccw, roll left, roll counterclockwise",
    "the camera moves sideways to the left": "truck left",
    "the camera moves sideways to the right": "truck right",
    "the camera rises": "pedestal up",
    "the camera sinks": "pedestal down",
    "the camera moves forward": "dolly in, push, push in",
    "the camera moves backward": "dolly out, pull, pull out",
    "the camera circles to the left": "arc left, orbit left",
    "the camera circles to the right": "arc right, orbit right",
    "the camera shakes": "shake, handheld",
    "the camera follows the subject": "track, tracking, tracking shot, follow",
}
FIELDS = {"shot_type": SHOT_TYPES, "shot_angle": SHOT_ANGLES, "shot_position": SHOT_POSITIONS, "camera_motion": CAMERA}
MEANINGS = {
    word: (field, value)
    for field, values in FIELDS.items()
    for value, words in values.items()
    for word in (*words.split(", "), value.replace("_", " "))
}


def classifier_expert(card: Card, device: str = "cpu") -> Callable[..., list[Answer]]:
    """A picture or video classifier through transformers.

    `expert(frames, fps, hints, scene) -> [("shot_type", "close_up", probability)]`, see stages/caption/stage.py. card.weights is
    a folder of a ...ForVideoClassification or ...ForImageClassification with its preprocessor_config.json. A video classifier
    gets as many frames as it was trained on, spread over the clip; an image classifier FRAMES of them, whose probabilities are
    averaged. Raises ValueError for a checkpoint without labels of the schema.
    """

    import torch
    from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification
    from transformers import AutoModelForVideoClassification as AutoVideo

    folder = weights.find(card)
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    meanings = label_meanings(config.id2label, card.name)
    is_video = any("VideoClassification" in name for name in config.architectures or [])
    processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    dtype = torch.float16 if device.startswith("cuda") else torch.float32
    family = AutoVideo if is_video else AutoModelForImageClassification
    network = family.from_pretrained(folder, local_files_only=True, dtype=dtype).to(device).eval()
    multi_label = config.problem_type == "multi_label_classification"

    @torch.inference_mode()
    def scores(pictures: list[np.ndarray]) -> np.ndarray:
        """Return the probabilities of a clip's pictures, (labels,)."""
        batches = [pictures] if is_video else [pictures[k : k + BATCH] for k in range(0, len(pictures), BATCH)]
        probabilities = []
        for batch in batches:
            pixels = processor(batch, return_tensors="pt")["pixel_values"]
            if is_video and pixels.ndim == 4:  # an image processor: its pictures are the frames of one clip
                pixels = pixels[None]
            logits = network(pixel_values=pixels.to(device, dtype)).logits.float()
            probabilities.append((logits.sigmoid() if multi_label else logits.softmax(-1)).cpu().numpy())
        return np.concatenate(probabilities).mean(axis=0)

    def expert(frames: np.ndarray, fps: float, hints: Sequence[ElementHint], scene: dict[str, Any]) -> list[Answer]:
        count = config.num_frames if is_video else min(FRAMES, len(frames))
        frame_indices = np.linspace(0, len(frames) - 1, count).round().astype(int)
        return answers(scores([halved(frames[i]) for i in frame_indices]), meanings, multi_label)

    return expert


def label_meanings(id2label: dict[int, str], name: str) -> dict[int, tuple[str, str]]:
    """Return the meaning of each label: {number: (field, value)}. Raises ValueError if no label has a meaning here."""
    meanings = {
        int(i): MEANINGS[normalise_label(label)] for i, label in id2label.items() if normalise_label(label) in MEANINGS
    }
    if not meanings:
        raise ValueError(
            f"model {name!r}: none of its labels ({', '.join(map(str, list(id2label.values())[:8]))}) is a shot type, an angle, "
            "a position or a camera motion; choose a checkpoint with one of these fields"
        )
    return meanings


def normalise_label(label: str) -> str:
    """Return "closeUp", "Close-Up" and "close_up" as "close up"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label)
    return " ".join(re.sub(r"[^a-z0-9]+", " ", spaced.lower()).split())


def answers(probabilities: np.ndarray, meanings: dict[int, tuple[str, str]], multi_label: bool = False) -> list[Answer]:
    """Return the likeliest value of each field; labels of one meaning add up, or, in the multi-label case, the highest counts.

    In the multi-label case, all camera motions with at least SURE are joined, the likeliest first.
    """
    sums: dict[str, dict[str, float]] = {}
    for i, (field, value) in meanings.items():
        values = sums.setdefault(field, {})
        probability = float(probabilities[i])
        values[value] = (
            max(values.get(value, 0.0), probability) if multi_label else values.get(value, 0.0) + probability
        )
    out = []
    for field, values in sums.items():
        best = max(values, key=lambda value: values[value])
        likely = (
            sorted((v for v in values if values[v] >= MIN_PROBABILITY), key=lambda v: -values[v]) if multi_label else []
        )
        if field == "camera_motion" and len(likely) > 1:
            text = " and ".join([likely[0], *(v.removeprefix("the camera ") for v in likely[1:2])])
            out.append((field, text, values[likely[1]]))
        else:
            out.append((field, best, min(1.0, values[best])))
    return out


def halved(frame: np.ndarray) -> np.ndarray:
    """Return an (h, w, 3) uint8 frame halved by area until its shorter side is below 512 px: processors do not antialias."""
    while min(frame.shape[:2]) >= 512:
        frame = cv2.resize(frame, (frame.shape[1] // 2, frame.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return frame
