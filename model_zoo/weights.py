"""Where a model's weights are. Nothing here downloads: that is `a2data models fetch`, before a run.

What a card's `weights` may be:

* "": the weights are inside a package that the builder imports, or there are none
* "/a/path" or "./a/path", a file or a folder: your own
* "hf:OWNER/NAME" or "hf:OWNER/NAME/FILE": a repository of the Hugging Face hub at the card's revision, or one file of it
* "url:https://…/FILE": one file
* "http://…" or "https://…": a server that runs the model
* "NAME": a file or folder that nobody may fetch for you

They are looked for at the path, then under $A2DATA_WEIGHTS by their last name ("hf:PekingU/rtdetr_r50vd" is
$A2DATA_WEIGHTS/rtdetr_r50vd), then, those of the hub, in its cache. A "NAME" may also be a pack of insightface, which keeps
them in insightface/models there or in ~/.insightface/models.
"""

import os
from pathlib import Path

from model_zoo.cards import Card


def fetched(card: Card) -> bool:
    """Whether a card's weights are files outside of any package."""
    return bool(card.weights) and not card.weights.startswith("http")


def find(card: Card) -> Path:
    """The file or folder of a card's weights.

    Raises FileNotFoundError, saying where it looked and which command fetches them.
    """
    places = _places(card.weights)
    for place in places:
        if place.exists():
            return place
    cached = _in_hub_cache(card) if card.weights.startswith("hf:") else None
    if cached is not None:
        return cached
    help_ = "they are not fetched for you, as their licence is yours to accept: put them there"
    if card.weights.startswith(("hf:", "url:")):
        help_ = f"`a2data models fetch {card.name.partition(':')[0]}` brings them"
    raise FileNotFoundError(
        f"model {card.name!r} has no weights at {' or '.join(map(str, places))}: "
        f"{help_}, or name the folder that has them in A2DATA_WEIGHTS"
    )


def folder() -> Path:
    """Where weights are kept: $A2DATA_WEIGHTS, else ~/.cache/a2data/weights."""
    return Path(os.environ.get("A2DATA_WEIGHTS") or Path.home() / ".cache" / "a2data" / "weights")


def _places(weights: str) -> list[Path]:
    if weights.startswith(("hf:", "url:")):
        return [folder() / weights.rpartition("/")[2]]
    packs = [folder() / "insightface" / "models" / weights, Path.home() / ".insightface" / "models" / weights]
    return [Path(weights), folder() / weights, *([] if Path(weights).parent.name else packs)]


def _in_hub_cache(card: Card) -> Path | None:
    try:
        from huggingface_hub import snapshot_download, try_to_load_from_cache
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ModuleNotFoundError:
        return None
    owner, name, *file = card.weights.removeprefix("hf:").split("/", 2)
    if file:
        found = try_to_load_from_cache(f"{owner}/{name}", file[0], revision=card.revision)
        return Path(found) if isinstance(found, str) else None
    try:
        return Path(snapshot_download(f"{owner}/{name}", revision=card.revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
