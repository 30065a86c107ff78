"""Text-video similarity: ViCLIP (Wang et al. 2023, InternVid, arXiv 2307.06942), and the mean over frames of a CLIP."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from model_zoo.roles import Card
from model_zoo.text_video.viclip_towers import SIDE_PX
from model_zoo.weights import find

BATCH = 16
WORDS = 32  # token limit of ViCLIP; the end of a longer text is lost
FRAMES = 8  # frames of ViCLIP's input
VIDEO = {"width": 1024, "layers": 24, "heads": 16}
TEXT = {"width": 768, "layers": 12, "heads": 12}
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

Similarity = Callable[[np.ndarray, str], float]  # (t, h, w, 3) uint8 RGB, text -> cosine, -1 to 1


def viclip(card: Card, device: str) -> Similarity:
    """ViCLIP-L/14, from ViClip-InternVid-10M-FLT.pth. Raises ValueError for weights of another network.

    `model(frames, text) -> cosine`. The input is eight frames, (8, h, w, 3) uint8 RGB, prepared as in VBench: shorter side 224 px
    by cubic interpolation without antialiasing, centre-cropped.
    """
    import open_clip
    import torch

    path = find(card)
    state = torch.load(path, map_location="cpu", weights_only=True)
    video, text = networks(VIDEO, TEXT)
    try:
        for name, network in (("vision_encoder.", video), ("text_encoder.", text)):
            mine = {key.removeprefix(name): v for key, v in state.get("model", state).items() if key.startswith(name)}
            network.load_state_dict(mine)
            network.eval().to(device)
    except RuntimeError as error:
        raise ValueError(f"{path} has no weights of ViCLIP-L/14: {str(error).splitlines()[1].strip()[:200]}") from error
    read = open_clip.SimpleTokenizer(context_length=WORDS)

    def model(frames: np.ndarray, said: str) -> float:
        if len(frames) != FRAMES:
            raise ValueError(f"ViCLIP needs {FRAMES} frames, got {len(frames)}")
        with torch.inference_mode():
            seen = video(prepared(frames).to(device)).float()
            meant = text(read([said]).to(device)).float()
            return float(torch.nn.functional.cosine_similarity(seen, meant)[0])

    return model


def prepared(frames: np.ndarray) -> Any:
    """Return (t, h, w, 3) uint8 as a (1, 3, t, 224, 224) float tensor, as in VBench."""
    import torch
    from torchvision.transforms import functional, transforms

    pictures = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    small = functional.resize(pictures, SIDE_PX, transforms.InterpolationMode.BICUBIC, antialias=False)
    cut = functional.center_crop(small, [SIDE_PX, SIDE_PX]).float() / 255
    return functional.normalize(cut, MEAN, STD).permute(1, 0, 2, 3)[None]


def networks(video: dict[str, int], text: dict[str, int]) -> tuple[Any, Any]:
    """Return ViCLIP's two towers with random weights, of these widths, layers and heads, under the names of its checkpoint."""
    from model_zoo.text_video.viclip_towers import TextTower, VideoTower

    return VideoTower(**video, frames=FRAMES), TextTower(**text, words=WORDS)


def clipsim(card: Card, device: str) -> Similarity:
    """The mean cosine of a text and each frame by a CLIP of open_clip: CLIPSIM (Wu et al. 2021, GODIVA, arXiv 2104.14806).

    `model(frames (t, h, w, 3) uint8 RGB, text) -> cosine`. It ignores motion.
    """
    pictures, texts = towers(card, device)

    def model(frames: np.ndarray, said: str) -> float:
        return float(np.mean(pictures(list(frames)) @ texts([said])[0]))

    return model


def towers(card: Card, device: str) -> tuple[Callable, Callable]:
    """Return both towers of an open_clip folder: pictures, (h, w, 3) uint8 RGB, or texts -> (n, d) float32, rows of unit length.

    Raises ValueError for a folder without open_clip_config.json.
    """
    import open_clip
    import torch
    from PIL import Image

    folder = find(card)
    if not (folder / "open_clip_config.json").is_file():
        raise ValueError(f"{folder} is not an open_clip folder: it has no open_clip_config.json")
    network, prepare = open_clip.create_model_from_pretrained(f"local-dir:{folder}", device=device)
    read = open_clip.get_tokenizer(f"local-dir:{folder}")
    network.eval()

    def rows(things: Sequence[Any], encode: Callable[[Sequence[Any]], Any]) -> np.ndarray:
        with torch.inference_mode():
            parts = [encode(things[start : start + BATCH]).float().cpu() for start in range(0, len(things), BATCH)]
        return torch.nn.functional.normalize(torch.cat(parts), dim=1).numpy()

    def pictures(shown: Sequence[np.ndarray]) -> np.ndarray:
        return rows(
            shown, lambda few: network.encode_image(torch.stack([prepare(Image.fromarray(p)) for p in few]).to(device))
        )

    def texts(said: Sequence[str]) -> np.ndarray:
        return rows(said, lambda few: network.encode_text(read(list(few)).to(device)))

    return pictures, texts
