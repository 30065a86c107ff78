"""Checkpoint folders of A2: completeness checks and a digest. Nothing here loads a network or imports torch."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

PARTS = ("transformer", "vae", "text_encoder", "tokenizer", "image_encoder", "image_processor")
NETWORKS = ("transformer", "vae", "text_encoder", "image_encoder")
WEIGHTS = (".safetensors", ".bin")
CHANNELS = 36  # input channels of the transformer: 16 noise, 4 mask, 16 condition latents

SAMPLING = "sampling.json"  # of an export: the settings of `a2data sample` that it was trained with

WHOLE_BYTES = 8 << 20  # files up to this size are hashed completely
STRIDE_BYTES, BLOCK_BYTES = 4 << 20, 4 << 10  # of larger files, one block per stride is hashed


def check(folder: str | Path) -> Path:
    """Return the folder as a path if it can be a checkpoint: the released A2, Wan2.1-I2V in diffusers' layout, or an export.

    Raises FileNotFoundError with the missing parts or weights, ValueError for a transformer without the channels of an image
    condition (a text-to-video checkpoint).
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(
            f"there is no folder {root}: give a checkpoint of A2, Wan2.1-I2V for diffusers, or an export"
        )
    missing = [f"{part}/" for part in PARTS if not (root / part).is_dir()]
    if missing:
        raise FileNotFoundError(f"{root} is not an A2 checkpoint: it lacks {', '.join(missing)}")
    _check_transformer(root)
    missing = [f"{part}/config.json" for part in NETWORKS if not (root / part / "config.json").is_file()]
    missing += [f"weights in {part}/" for part in NETWORKS if not _weights(root / part)]
    if missing:
        raise FileNotFoundError(f"{root} is incomplete: it lacks {', '.join(missing)}. Was a download interrupted?")
    return root


def _check_transformer(root: Path) -> None:
    path = root / "transformer" / "config.json"
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{root} is incomplete: it lacks transformer/config.json") from error
    except ValueError as error:
        raise ValueError(f"{path} is not a readable configuration ({error})") from error
    channels, tokens = config.get("in_channels"), config.get("image_dim")
    if channels != CHANNELS or tokens is None:
        raise ValueError(
            f"the transformer in {root} takes {channels} channels and {'no ' if tokens is None else ''}image tokens: "
            f"A2 takes {CHANNELS} and image tokens. Is it a text-to-video checkpoint?"
        )


def _weights(part: Path) -> bool:
    """Return whether a part has its weights: all files that its index lists, if it has one."""
    for index in part.glob("*.index.json"):
        named = set(json.loads(index.read_text()).get("weight_map", {}).values())
        return bool(named) and all((part / name).is_file() for name in named)
    return any(path.suffix in WEIGHTS for path in part.iterdir())


def digest(folder: str | Path, parts: Sequence[str] = PARTS) -> str:
    """Return a checkpoint's digest, 64 hex digits: sha256 over the names, sizes and bytes of its parts' files, path-independent.

    Of files above 8 MiB, only 4 KiB of every 4 MiB and the end are read: 50 GB take a second, not a minute. Training changes
    every weight of a matrix, so two checkpoints differ in the sampled bytes; a single flipped bit may be missed.
    """
    root, all_of_it = Path(folder), hashlib.sha256()
    files = [path for part in parts for path in (root / part).rglob("*") if path.is_file()]
    for path in sorted(files):
        size = path.stat().st_size
        all_of_it.update(f"{path.relative_to(root).as_posix()} {size}\n".encode())
        with path.open("rb") as file:
            if size <= WHOLE_BYTES:
                all_of_it.update(file.read())
                continue
            for start in [*range(0, size, STRIDE_BYTES), size - BLOCK_BYTES]:
                file.seek(start)
                all_of_it.update(file.read(BLOCK_BYTES))
    return all_of_it.hexdigest()
