"""Small networks of open_clip's own classes, as the folders that it publishes."""

import json
from pathlib import Path

import numpy as np

from model_zoo.compare.mobilenet import alone

COLOURS = {"red": (220, 20, 20), "green": (20, 180, 40), "blue": (20, 40, 220), "yellow": (240, 220, 20)}
CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1},
}
SIGLIP = {
    "embed_dim": 32,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 224,
        "timm_model_name": "vit_tiny_patch16_224",
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
    },
    "text_cfg": {
        "context_length": 12,
        "vocab_size": 64,
        "width": 32,
        "heads": 2,
        "layers": 1,
        "hf_tokenizer_name": "nobody/nowhere",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
    },
}
HALF = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}


def square(colour: str, side: int = 24, shape: tuple[int, int] = (40, 40)) -> np.ndarray:
    """A picture of a square of that colour, in the middle of white."""
    picture = np.full((*shape, 3), 255, np.uint8)
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    picture[top : top + side, left : left + side] = COLOURS[colour]
    return picture


def new(model: dict, seed: int = 0):
    """A network of that configuration with random weights."""
    import open_clip
    import torch

    torch.manual_seed(seed)
    known = {k: v for k, v in model.items() if k != "custom_text"}
    return (open_clip.CustomTextCLIP if "custom_text" in model else open_clip.CLIP)(**known).eval()


def save(network, model: dict, folder: Path) -> Path:
    """The network as the folder that open_clip reads."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": HALF}))
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(weights, str(folder / "open_clip_model.safetensors"))
    return folder


def trained_on_squares(folder: Path, steps: int = 100) -> Path:
    """A tiny CLIP that has learned four colours of squares, and that "an object" may be any."""
    network = new(CLIP)
    import open_clip
    import torch
    from torch.nn.functional import cross_entropy

    rng = np.random.default_rng(0)
    read = open_clip.SimpleTokenizer(context_length=16)
    said = {n: [f"a {n} square", f"a photo of a {n} square", f"a {n} square on a white background"] for n in COLOURS}
    said["grey"] = ["an object", "a photo of an object", "something", "a person", "a photo of a person", "a place"]
    # Most of the weights: random ones do, if words weigh more than places.
    network.train().token_embedding.requires_grad_(False).weight.mul_(20)
    optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=1e-3)
    own, neutral = torch.eye(5), torch.zeros(5, 5)
    neutral[:, 4] = 1  # "an object" is a little true of each, as everywhere
    fits, meets = 0.9 * own + 0.1 * neutral, torch.where(neutral.T > 0, torch.full((5, 5), 0.2), own)
    for _ in range(steps):
        pictures, texts = [], []
        for name, phrases in said.items():
            picture = np.full((40, 40, 3), 255, np.uint8)
            x, y, side = (int(v) for v in (*rng.integers(0, 12, 2), rng.integers(16, 28)))
            picture[y : y + side, x : x + side] = np.clip(
                np.add(COLOURS.get(name, (128, 128, 128)), rng.integers(-15, 16, 3)), 0, 255
            )
            pictures.append(alone(picture, np.ones((40, 40), bool), 32))
            texts.append(phrases[rng.integers(len(phrases))])
        pixels = torch.from_numpy(((np.stack(pictures) / 255 - 0.5) / 0.5).transpose(0, 3, 1, 2).astype(np.float32))
        seen, meant = network.encode_image(pixels, normalize=True), network.encode_text(read(texts), normalize=True)
        logits = network.logit_scale.exp() * seen @ meant.T
        loss = cross_entropy(logits, fits) + cross_entropy(logits.T, meets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return save(network.eval(), CLIP, folder)
