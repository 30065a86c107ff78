"""Checkpoint folders of A2: what must be in one, and which one it is. Nothing here loads a network or imports torch."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

PARTS = ("transformer", "vae", "text_encoder", "tokenizer", "image_encoder", "image_processor")
NETWORKS = ("transformer", "vae", "text_encoder", "image_encoder")
WEIGHTS = (".safetensors", ".bin")
CHANNELS = 36  # of the transformer's input: 16 of noise, 4 of mask, 16 of the condition's latents

WHOLE_BYTES = 8 << 20  # files up to here are hashed whole
STRIDE_BYTES, BLOCK_BYTES = 4 << 20, 4 << 10  # of larger ones, a block of each stride


def check(folder: str | Path) -> Path:
    """The folder as a path, if it can be a checkpoint: the released A2, Wan2.1-I2V in diffusers' layout, or an export.

    Raises FileNotFoundError naming the parts or weights that it lacks, ValueError for a transformer without the channels of an
    image condition (a text-to-video checkpoint).
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(
            f"there is no folder {root}: name a checkpoint of A2, Wan2.1-I2V for diffusers, or an export"
        )
    missing = [f"{part}/" for part in PARTS if not (root / part).is_dir()]
    if missing:
        raise FileNotFoundError(f"{root} is no checkpoint of A2: it lacks {', '.join(missing)}")
    _check_transformer(root)
    missing = [f"{part}/config.json" for part in NETWORKS if not (root / part / "config.json").is_file()]
    missing += [f"weights in {part}/" for part in NETWORKS if not _weights(root / part)]
    if missing:
        raise FileNotFoundError(f"{root} is not whole: it lacks {', '.join(missing)}. Did a download break off?")
    return root


def _check_transformer(root: Path) -> None:
    path = root / "transformer" / "config.json"
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{root} is not whole: it lacks transformer/config.json") from error
    except ValueError as error:
        raise ValueError(f"{path} is no configuration that can be read ({error})") from error
    channels, tokens = config.get("in_channels"), config.get("image_dim")
    if channels != CHANNELS or tokens is None:
        raise ValueError(
            f"the transformer in {root} takes {channels} channels and {'no ' if tokens is None else ''}image tokens: "
            f"A2 takes {CHANNELS} and image tokens. Is it a text-to-video checkpoint?"
        )


def _weights(part: Path) -> bool:
    """Whether a part has its weights: all of those that its index names, where it has one."""
    for index in part.glob("*.index.json"):
        named = set(json.loads(index.read_text()).get("weight_map", {}).values())
        return bool(named) and all((part / name).is_file() for name in named)
    return any(path.suffix in WEIGHTS for path in part.iterdir())


def digest(folder: str | Path, parts: Sequence[str] = PARTS) -> str:
    """A checkpoint's 64 hex digits: a sha256 over the names, sizes and bytes of the files of its parts, wherever it lies.

    Of a file above 8 MiB only 4 KiB of each 4 MiB, and its end, are read: 50 GB take a second, not a minute. Training moves
    every weight of a matrix, so that two checkpoints differ there; a single flipped bit may not show.
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
