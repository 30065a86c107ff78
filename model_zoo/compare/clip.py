"""Joint text-image networks through open_clip: similarity of phrases and pictures, and of pictures.

CLIP (Radford et al. 2021), SigLIP 2 (Tschannen et al. 2025) and Perception Encoder (Bolya et al. 2025). Weights are a folder as
published by open_clip: `open_clip_config.json` states the architecture and the pixel normalisation, which differs between weights
of one architecture, so that a file of weights alone is rejected; the tokenizer's files are beside it, if any.
"""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model_zoo import weights
from model_zoo.compare.mobilenet import alone
from model_zoo.embeddings import unit
from model_zoo.roles import Card

BATCH = 16
# A phrase is encoded in several sentences and represented by the mean, which depends less on the wording (Radford et al. 2021,
# 3.1.4).
TEMPLATES = ("{}", "a photo of {}", "{} on a white background")
# Neutral phrases that fit any picture. A phrase must fit better than the best of them.
NEUTRAL = ("a person", "an object", "a place", "something")

log = logging.getLogger(__name__)


def matcher(card: Card, device: str) -> Callable[[Sequence[str], Sequence[np.ndarray]], np.ndarray]:
    """A CLIP that open_clip loads: how well each phrase fits each picture.

    The model takes p phrases and e pictures, (h, w, 3) uint8 RGB on white, and returns (p, e) float32 from 0 to 1: the
    probability that the phrase rather than the best neutral one ("a person", "something") belongs to the picture, at equal
    priors: sigmoid(logit of the phrase - best logit of a neutral one). The logits use the network's own trained temperature.

    They are log p(text | picture) / p(text) up to a constant (van den Oord et al. 2018), which cancels in the difference, as does
    SigLIP's bias: that is the prior of its training batch, one pair in tens of thousands, not of a clip. So 0.5 means that the
    phrase says no more than the neutral one, for every card alike. A pair's value does not depend on the other phrases. A phrase
    too long for the network (PE reads 32 tokens, SigLIP 64, CLIP 77) is truncated, with a log message.
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
    """A picture's embedding by the image tower of a CLIP that open_clip loads.

    The model takes n pictures, (h, w, 3) uint8 RGB, and n masks, (h, w) bool, and returns (n, d) float32, rows of unit length:
    the network's embedding of the masked part on white.
    """
    network, _, dimension = _load(card, device)

    def embed(pictures: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> np.ndarray:
        shown = [alone(p, m, _side(network)) for p, m in zip(pictures, masks, strict=True)]
        return _encode(network, shown, dimension, device)

    return embed


def fitting(phrase: str, template: str, tokenizer: Any) -> str:
    """Return as many leading words of the phrase as the network accepts inside the template; at least one."""
    words = phrase.split()
    while len(words) > 1 and _tokens(template.format(" ".join(words)), tokenizer) > tokenizer.context_length:
        words.pop()
    kept = " ".join(words)
    if len(words) < len(phrase.split()):
        log.warning("the network reads %d tokens: %r was cut to %r", tokenizer.context_length, phrase, kept)
    return kept


def _tokens(text: str, tokenizer: Any) -> int:
    if hasattr(tokenizer, "encode"):  # open_clip's own; it adds one token at each end
        return len(tokenizer.encode(text)) + 2
    return len(tokenizer.tokenizer(tokenizer.clean_fn(text)).input_ids)


def _load(card: Card, device: str) -> tuple[Any, Any, int]:
    """Return the network, its tokenizer and its embedding size, from the card's folder only: open_clip would download more."""
    folder = weights.find(card)
    config = folder / "open_clip_config.json"
    if not config.exists():
        raise FileNotFoundError(
            f"model {card.name!r}: {config} is missing; open_clip weights are a folder with that file, which states the "
            "architecture and how pixels are normalised, and with the weights and the tokenizer beside it: "
            f"{card.name.partition(':')[0]}:FOLDER loads your own"
        )
    said = json.loads(config.read_text())["model_cfg"]
    _refuse_what_is_elsewhere(card, folder, said.get("text_cfg", {}))
    import open_clip

    network = open_clip.create_model(f"local-dir:{folder}", device=device, require_pretrained=True)
    return network.eval(), open_clip.get_tokenizer(f"local-dir:{folder}"), int(said["embed_dim"])


def _refuse_what_is_elsewhere(card: Card, folder: Path, text: dict[str, Any]) -> None:
    if text.get("hf_model_name"):
        raise ValueError(
            f"model {card.name!r}: its text tower {text['hf_model_name']!r} is another repository of the hub: "
            "choose weights whose text tower is open_clip's own"
        )
    files = ("tokenizer.json", "tokenizer.model", "spiece.model")
    if text.get("hf_tokenizer_name") and not any((folder / name).exists() for name in files):
        raise FileNotFoundError(
            f"model {card.name!r}: {folder} has no tokenizer ({', '.join(files)}): copy the files of "
            f"{text['hf_tokenizer_name']!r} beside the weights"
        )


def _side(network: Any) -> int:
    size = network.visual.image_size
    return size if isinstance(size, int) else size[0]


def _encode(network: Any, pictures: Sequence[np.ndarray], dimension: int, device: str) -> np.ndarray:
    """Return (n, side, side, 3) uint8 pictures as (n, d) float32, rows of unit length."""
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
