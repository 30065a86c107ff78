"""Networks that know words and pictures alike, through open_clip: how well a phrase fits a picture, how alike two pictures are.

CLIP (Radford et al. 2021), SigLIP 2 (Tschannen et al. 2025) and Perception Encoder (Bolya et al. 2025). Weights are a folder
as open_clip publishes them: `open_clip_config.json` says the architecture and how pixels are normalised, which differs between
weights of one architecture, so that a file of weights alone is refused; the tokenizer's files lie beside, where it has any.
"""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model_zoo import torchvision_shim, weights
from model_zoo.compare.mobilenet import alone
from model_zoo.roles import Card

BATCH = 16
# One phrase is encoded in several sentences, and the mean stands for it: less hangs on the wording (Radford et al. 2021, 3.1.4).
TEMPLATES = ("{}", "a photo of {}", "{} on a white background")
# What anybody may say of a picture without a look at it. A phrase must fit better than the best of them.
NEUTRAL = ("a person", "an object", "a place", "something")

log = logging.getLogger(__name__)


def matcher(card: Card, device: str) -> Callable[[Sequence[str], Sequence[np.ndarray]], np.ndarray]:
    """A CLIP that open_clip loads: how well each phrase fits each picture.

    The model takes p phrases and e pictures, (h, w, 3) uint8 RGB on white, and returns (p, e) float32 from 0 to 1: the
    probability that the phrase rather than the best neutral one ("a person", "something") goes with the picture, the two being
    as likely beforehand: sigmoid(logit of the phrase - best logit of a neutral one). The logits have the network's own trained
    temperature. They are log p(text | picture) / p(text) up to a constant (van den Oord et al. 2018), which falls away in the
    difference, as does SigLIP's bias: that is the prior of its training batch, one pair in tens of thousands, not of a clip.
    So 0.5 means that the phrase says no more than the neutral one, for every card alike. A pair's value does not depend on
    what else is asked. A phrase too long for the network (PE reads 32 tokens, SigLIP 64, CLIP 77) loses words at its end, and
    the log says so.
    """
    import torch

    network, tokenizer, dimension = _load(card, device)
    scale = network.logit_scale.detach().exp().item()

    def texts(phrases: Sequence[str]) -> np.ndarray:
        """(p, d) float32, rows of unit length."""
        said = [template.format(fitting(p, template, tokenizer)) for p in phrases for template in TEMPLATES]
        rows = []
        with torch.inference_mode():
            for start in range(0, len(said), BATCH):
                tokens = tokenizer(said[start : start + BATCH]).to(device)
                rows.append(network.encode_text(tokens, normalize=True).float().cpu().numpy())
        return unit(np.concatenate(rows).reshape(len(phrases), len(TEMPLATES), -1).mean(1))

    neutral = texts(NEUTRAL)

    def match(phrases: Sequence[str], pictures: Sequence[np.ndarray]) -> np.ndarray:
        if not phrases or not pictures:
            return np.zeros((len(phrases), len(pictures)), np.float32)
        seen = _encode(
            network, [alone(p, np.ones(p.shape[:2], bool), _side(network)) for p in pictures], dimension, device
        )
        over = scale * (texts(phrases) @ seen.T - (neutral @ seen.T).max(0))
        return (1 / (1 + np.exp(-over))).astype(np.float32)

    return match


def embedder(card: Card, device: str) -> Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], np.ndarray]:
    """A picture's vector by the image tower of a CLIP that open_clip loads.

    The model takes n pictures, (h, w, 3) uint8 RGB, and n masks, (h, w) bool, and returns (n, d) float32, rows of unit length:
    the network's embedding of the masked part on white.
    """
    network, _, dimension = _load(card, device)

    def embed(pictures: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> np.ndarray:
        shown = [alone(p, m, _side(network)) for p, m in zip(pictures, masks, strict=True)]
        return _encode(network, shown, dimension, device)

    return embed


def fitting(phrase: str, template: str, tokenizer: Any) -> str:
    """As many words of the phrase, from its beginning, as the network reads inside the template; one at least."""
    words = phrase.split()
    while len(words) > 1 and _tokens(template.format(" ".join(words)), tokenizer) > tokenizer.context_length:
        words.pop()
    kept = " ".join(words)
    if len(words) < len(phrase.split()):
        log.warning("the network reads %d tokens: %r was cut to %r", tokenizer.context_length, phrase, kept)
    return kept


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of unit length, float32; rows of zeros stay."""
    return (rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)).astype(np.float32)


def _tokens(text: str, tokenizer: Any) -> int:
    if hasattr(tokenizer, "encode"):  # open_clip's own; it puts one token before and one behind
        return len(tokenizer.encode(text)) + 2
    return len(tokenizer.tokenizer(tokenizer.clean_fn(text)).input_ids)


def _load(card: Card, device: str) -> tuple[Any, Any, int]:
    """The network, its tokenizer and the length of its vectors, from the card's folder alone: open_clip would fetch the rest."""
    folder = weights.find(card)
    config = folder / "open_clip_config.json"
    if not config.exists():
        raise FileNotFoundError(
            f"model {card.name!r}: {config} is missing; open_clip weights are a folder with that file, which says the "
            "architecture and how pixels are normalised, and with the weights and the tokenizer beside it: "
            f"{card.name.partition(':')[0]}:FOLDER takes yours"
        )
    said = json.loads(config.read_text())["model_cfg"]
    _refuse_what_is_elsewhere(card, folder, said.get("text_cfg", {}))
    torchvision_shim.install()
    import open_clip

    network = open_clip.create_model(f"local-dir:{folder}", device=device, require_pretrained=True)
    return network.eval(), open_clip.get_tokenizer(f"local-dir:{folder}"), int(said["embed_dim"])


def _refuse_what_is_elsewhere(card: Card, folder: Path, text: dict[str, Any]) -> None:
    if text.get("hf_model_name"):
        raise ValueError(
            f"model {card.name!r}: its text tower {text['hf_model_name']!r} is another repository of the hub; "
            "take weights whose text tower is open_clip's own"
        )
    files = ("tokenizer.json", "tokenizer.model", "spiece.model")
    if text.get("hf_tokenizer_name") and not any((folder / name).exists() for name in files):
        raise FileNotFoundError(
            f"model {card.name!r}: {folder} has no tokenizer ({', '.join(files)}): put the files of "
            f"{text['hf_tokenizer_name']!r} beside the weights"
        )


def _side(network: Any) -> int:
    size = network.visual.image_size
    return size if isinstance(size, int) else size[0]


def _encode(network: Any, pictures: Sequence[np.ndarray], dimension: int, device: str) -> np.ndarray:
    """(n, side, side, 3) uint8 pictures as (n, d) float32, rows of unit length."""
    import torch

    said = network.visual.preprocess_cfg
    mean, std = (np.array(said[key], np.float32) for key in ("mean", "std"))
    rows = [np.zeros((0, dimension), np.float32)]
    kind = "cuda" if device.startswith("cuda") else "cpu"
    with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda"):
        for start in range(0, len(pictures), BATCH):
            pixels = (np.stack(pictures[start : start + BATCH]).astype(np.float32) / 255 - mean) / std
            found = network.encode_image(torch.from_numpy(pixels.transpose(0, 3, 1, 2)).to(device))
            rows.append(found.float().cpu().numpy())
    return unit(np.concatenate(rows))
