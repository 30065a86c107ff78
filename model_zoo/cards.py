"""Model cards and loading. The models themselves are listed in model_zoo/catalogue/.

A model is a callable over arrays; it does not depend on records or Ray. Its role defines the call:

* network: `model(picture) -> list of arrays`, the raw outputs for a picture as `input` says; a companion of other models
* detect: `model(frames) -> list[list[Detection]]`, one list per frame
* ground: `model(frames, phrases) -> list[list[Detection]]`, one list per frame; a detection's label is one of the phrases
* text-encoder: `model(phrases) -> (n, d) float32`, rows of unit length
* masks:  `model(frame, boxes) -> (n, h, w) bool`, one mask for each box
* track:  `model(boxes, scores) -> list[list[int]]`, the track id of each box of each frame, -1 for none
* embed:  `model(pictures, masks) -> (n, d) float32`, rows of unit length
* patches: `model(pictures, masks) -> (n, n) float32`, similarity of the masked parts, -1 to 1
* faces:  `model(frame) -> list[Face]`
* recognise: `model(frame, landmarks) -> (n, d) float32`, rows of unit length: identity embeddings for (n, 5, 2) landmarks
* parse:  `model(person, mask, face) -> {part: mask}`
* matte:  `model(pictures) -> list[(h, w) float32]`, 0 to 1: foreground alpha
* caption, caption-expert, fusion: see stages/caption/stage.py
* match:  `model(phrases, pictures) -> (phrases, pictures) float32`, 0 to 1: how well each phrase fits each picture
* text:   `model(frame) -> fraction of the picture under text, 0 to 1`
* quality: `model(frames, fps) -> {metric: value}`: the metrics that stages/score.py records
* flow:   `model(frames) -> (t - 1, h, w, 2) float32`: how far each pixel moves to the next frame, x then y, in px. The sides of
  the frames are multiples of 8 px
* interpolate: `model(before, after) -> picture`, the frame half way between two
* text-video: `model(frames, text) -> cosine`
* reward: see model_zoo/reward/motion.py: `model.inputs(frames, fps, prompt)`, and `model(inputs) -> (n,)` rewards, to be trained
* copy:   `model(pictures) -> (n, d) float32`, rows of unit length; copies of one picture are close
* inpaint: `model(picture, mask) -> picture`, with plausible content inside the mask
* shots:  see model_zoo/shots/detector.py
* asr:    `model(samples) -> text` of (n,) float32 at 16 kHz
* mouth:  `model(frame, head) -> opening` of the mouth in a head's box, x0, y0, x1, y1; nan if no face is seen
* vad:    `model(samples) -> (k,) float32`: the probability of speech, 0 to 1, of each 512 samples of (n,) float32 at 16 kHz

Frames are (t, h, w, 3) uint8 RGB, pictures a list of (h, w, 3) uint8 RGB, masks (h, w) bool.
"""

import hashlib
import importlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from model_zoo.roles import Card


def card(name: str) -> Card:
    """Return the card NAME; for NAME:PATH with the weights at that path, for NAME:URL with that server.

    Raises KeyError with the known names for an unknown name, FileNotFoundError for a path that does not exist.
    """
    which, (_, _, path) = base_card(name), name.partition(":")
    if not path:
        return which
    if "://" in path:
        return replace(which, weights=path)
    if not Path(path).exists():
        raise FileNotFoundError(f"model {name!r}: {path} does not exist")
    besides = () if Path(path).is_dir() else which.companions
    return replace(which, weights=path, revision=digest(path), sha256="", companions=besides)


def base_card(name: str) -> Card:
    """Return the card of NAME or NAME:PATH. Does not look at weights, which may exist on other nodes only.

    Raises KeyError with the known names.
    """
    from model_zoo.catalogue import CARDS

    known_as, _, path = name.partition(":")
    which = CARDS.get(known_as)
    if which is None:
        known = ", ".join(sorted(CARDS))
        raise KeyError(f"no model called {name!r}; known are {known}, and NAME:PATH for your own weights")
    address = path.partition("#")[0]
    if "://" in address and ("@" in address or "?" in address):
        raise ValueError(
            f"model {known_as!r}: a server's address is written into run.json and into shards, so it may have no "
            "user, password or query; the key for it belongs into A2DATA_API_KEY"
        )
    return replace(which, name=name)


def gpus(name: str) -> float:
    """Return the fraction of a GPU that a worker with this model requests, 0 to 1. Raises KeyError like `base_card`."""
    return base_card(name).gpus


def is_family(card: Card) -> bool:
    """Return whether a card describes only an architecture, for which other cards of the same builder have weights."""
    from model_zoo.catalogue import CARDS

    return not card.weights and any(other.builder == card.builder and other.weights for other in CARDS.values())


_names_only: ContextVar[bool] = ContextVar("names_only", default=False)


@contextmanager
def names_only() -> Iterator[None]:
    """Context in which `revision` does not look at weights, to list a stage's models before they are fetched."""
    token = _names_only.set(True)
    try:
        yield
    finally:
        _names_only.reset(token)


def is_remote(name: str) -> bool:
    """Return whether NAME:URL is a model behind a server. Raises KeyError like `base_card`."""
    return bool(base_card(name)) and "://" in name.partition(":")[2]


def revision(name: str) -> str:
    """Return the card's revision and a digest of the weights that it would load: it changes if the output may change.

    A card's `companions` are included. Raises FileNotFoundError if weights are not fetched, ValueError if they differ from what
    was fetched.
    """
    from model_zoo import weights

    if _names_only.get():
        return base_card(name).revision
    which = card(name)
    own = digest(str(weights.find(which))) if weights.fetched(which) else which.revision
    return "+".join([own, *map(revision, which.companions)])


def load(name: str, device: str = "cpu") -> Any:
    """Build the model called `name` and load its weights. Nothing is downloaded.

    Raises ModuleNotFoundError with the pip command if its extra is not installed, FileNotFoundError with the fetch command if its
    weights are missing, PermissionError if it has code of its own that is not allowed.
    """
    which = card(name)
    if which.trust_remote_code and os.environ.get("A2DATA_REMOTE_CODE") != "yes":
        raise PermissionError(
            f"model {name!r} runs code that comes with its weights ({which.weights}): read that code, "
            "then set A2DATA_REMOTE_CODE=yes where the workers run, or choose another model"
        )
    module, function = which.builder.split(":")
    try:
        return getattr(importlib.import_module(module), function)(which, device)
    except ModuleNotFoundError as error:
        how = f"'a2data[{which.extra}]'" if which.extra else error.name
        raise ModuleNotFoundError(
            f"model {name!r} needs the package {error.name!r}: pip install {how}", name=error.name
        ) from error


def device() -> str:
    """Return "cuda" if this worker has a GPU (Ray hides the others), else "cpu"."""
    if importlib.util.find_spec("torch") is None:
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@lru_cache
def digest(path: str) -> str:
    """Return the first 16 hex digits of the sha256 over a file, or over a folder's files by name.

    Fetched files that have not changed are not read: the lock has their hashes (see model_zoo/weights.py).
    """
    from model_zoo import weights

    total = hashlib.sha256()
    for name, sha256 in weights.hashes(Path(path)):
        total.update(name.encode() + bytes.fromhex(sha256))
    return total.hexdigest()[:16]
