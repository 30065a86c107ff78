"""No-reference image quality: MUSIQ (Ke et al. 2021, arXiv 2108.05997), and fallbacks."""

from collections.abc import Callable

import cv2
import numpy as np

from model_zoo.roles import Card
from model_zoo.weights import find

LONGEST_PX = 512  # longer sides are resized to this, as in VBench; smaller pictures are unchanged

Model = Callable[[np.ndarray, float], dict[str, float]]


def musiq(card: Card, device: str) -> Model:
    """MUSIQ trained on SPAQ, as used by VBench, through pyiqa, whose licence (PolyForm Noncommercial) is yours to accept.

    `model(frames (t, h, w, 3) uint8 RGB, fps) -> {"image_quality": mean over the frames, 0 to 1}`: a hundredth of MUSIQ's 0 to
    100. Longer sides than 512 px are resized to it, bilinear without antialiasing, as in VBench.
    """
    import torch
    from pyiqa.archs.musiq_arch import MUSIQ
    from torchvision.transforms.functional import resize

    network = MUSIQ(pretrained_model_path=str(find(card))).eval().to(device)

    def model(frames: np.ndarray, fps: float) -> dict[str, float]:
        height, width = frames.shape[1:3]
        scale = min(1.0, LONGEST_PX / max(height, width))
        size = [int(height * scale), int(width * scale)]
        values = []
        with torch.inference_mode():
            for frame in frames:
                picture = torch.from_numpy(frame).permute(2, 0, 1)[None].to(device)
                shown = resize(picture, size, antialias=False) if scale < 1 else picture
                values.append(float(network(shown.float() / 255)))
        return {"image_quality": float(np.clip(np.mean(values) / 100, 0, 1))}

    return model


def blur_effect(card: Card, device: str) -> Model:
    """Sharpness by the effect of a further blur (Crete et al. 2007), through scikit-image.

    `model(frames (t, h, w, 3) uint8 RGB, fps) -> {"image_quality": mean over the frames, 0 for blurred to 1 for sharp}`. It
    counts noise as sharpness and ignores exposure. A fallback without a network.
    """
    from skimage.measure import blur_effect as blur

    def model(frames: np.ndarray, fps: float) -> dict[str, float]:
        grey = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255 for frame in frames)
        return {"image_quality": 1 - float(np.mean([_defined(blur(picture)) for picture in grey]))}

    return model


def _defined(value: float) -> float:
    """Return the value; 1 (blurred) for a picture of one colour, for which it is undefined."""
    return float(value) if np.isfinite(value) else 1.0


def clip_iqa(card: Card, device: str) -> Model:
    """CLIP-IQA (Wang et al. 2023, arXiv 2207.12396): whether "Good photo." fits better than "Bad photo.", by a CLIP of open_clip.

    `model(frames (t, h, w, 3) uint8 RGB, fps) -> {"image_quality": mean over the frames, 0 to 1}`: the probability of the first
    at CLIP's own temperature of 100. The authors remove positions from CLIP's ResNet; this is the plain form.
    """
    from model_zoo.text_video import scorers

    pictures, texts = scorers.towers(card, device)
    pair = texts(["Good photo.", "Bad photo."])

    def model(frames: np.ndarray, fps: float) -> dict[str, float]:
        good, bad = 100 * (pictures(list(frames)) @ pair.T).T
        return {"image_quality": float(np.mean(1 / (1 + np.exp(np.clip(bad - good, -60, 60)))))}

    return model
