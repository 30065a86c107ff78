"""Checkpoint folders of A2: completeness checks and a digest. Nothing here loads a network or imports torch."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CONDITIONINGS = ("a2", "appended", "vace")  # see model_zoo.a2.conditioning
TEXT_PARTS = ("transformer", "vae", "text_encoder", "tokenizer")
PARTS = (*TEXT_PARTS, "image_encoder", "image_processor")
NETWORKS = ("transformer", "vae", "text_encoder", "image_encoder")
WEIGHTS = (".safetensors", ".bin", ".pth")
CHANNELS = 36  # input channels of A2's transformer: 16 noise, 4 mask, 16 condition latents
LATENT_CHANNELS = 16  # input channels of a text-to-video transformer
SKYREELS_V3 = "WanSkyReelsA2WanT2VPipeline"  # class in the model_index.json of SkyReels-V3's reference-to-video
V3_SAMPLING = {  # of its authors' generate_video.py: a distilled network
    "conditioning": "appended",
    "reference_slots": 4,
    "steps": 8,
    "guidance_scale": 1.0,
    "flow_shift": 5.0,
    "fps": 24.0,
    "frames": 121,
    "height": 720,
    "width": 1280,
}

SAMPLING = "sampling.json"  # of an export: the settings of `a2data sample` that it was trained with
NETWORK_SETTINGS = ("conditioning", "reference_slots")  # keys in it that are not settings of a job

WHOLE_BYTES = 8 << 20  # files up to this size are hashed completely
STRIDE_BYTES, BLOCK_BYTES = 4 << 20, 4 << 10  # of larger files, one block per stride is hashed


def check(folder: str | Path, for_training: bool = False) -> Path:
    """Return the folder as a path if it can be a checkpoint with references, in diffusers' layout: A2 or Wan2.1-I2V, VACE,
    SkyReels-V3, an export, or a text-to-video network whose sampling.json says that it takes appended references.

    for_training: also accept a text-to-video network that does not. Raises FileNotFoundError with the missing parts or weights,
    ValueError for a transformer without references.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root} is not a folder: give a checkpoint of A2, Wan2.1-I2V for diffusers, or an export"
        )
    if not (root / "transformer").is_dir():
        missing = [f"{part}/" for part in PARTS if not (root / part).is_dir()]
        raise FileNotFoundError(f"{root} is not an A2 checkpoint: it lacks {', '.join(missing)}")
    kind = _checked_conditioning(root)
    parts = parts_of(kind)
    missing = [f"{part}/" for part in parts if not (root / part).is_dir()]
    if missing:
        raise FileNotFoundError(f"{root} is not a complete checkpoint ({kind}): it lacks {', '.join(missing)}")
    if kind == "appended" and not for_training and sampling(root).get("conditioning") != kind:
        raise ValueError(
            f"the transformer in {root} is a text-to-video network, which ignores references unless it was trained with appended "
            f'ones (Phantom, RefAlign). If it was, write {{"conditioning": "appended"}} to {root / SAMPLING}'
        )
    networks = [part for part in parts if part in NETWORKS]
    missing = [f"{part}/config.json" for part in networks if not (root / part / "config.json").is_file()]
    missing += [f"weights in {part}/" for part in networks if not _weights(root / part)]
    if missing:
        raise FileNotFoundError(f"{root} is incomplete: it lacks {', '.join(missing)}. Was a download interrupted?")
    return root


def parts_of(kind: str) -> tuple[str, ...]:
    """Return the parts of a checkpoint with that conditioning: only A2 has an image encoder."""
    return PARTS if kind == "a2" else TEXT_PARTS


def conditioning_of(config: Mapping[str, Any]) -> str:
    """Return the conditioning, one of CONDITIONINGS, that a transformer with this configuration takes; "" for none of them."""
    channels, tokens = config.get("in_channels"), config.get("image_dim")
    if channels == CHANNELS and tokens is not None:
        return "a2"
    if channels != LATENT_CHANNELS or tokens is not None:
        return ""
    return "vace" if "vace_layers" in config else "appended"


def conditioning(folder: str | Path) -> str:
    """Return the conditioning of a checkpoint folder's transformer. Raises FileNotFoundError or ValueError without one."""
    return _checked_conditioning(Path(folder))


def check_conditioning(folder: str | Path, expected: str) -> None:
    """Raise ValueError if a checkpoint folder's transformer does not take the expected conditioning."""
    if expected not in CONDITIONINGS:
        raise ValueError(f"unknown conditioning {expected!r}: choose {', '.join(CONDITIONINGS)}")
    actual = conditioning(folder)
    if actual != expected:
        raise ValueError(
            f"the transformer in {folder} takes references as {actual!r}, but the samples are encoded for {expected!r}: use "
            f"--conditioning {actual}, or another checkpoint"
        )


def sampling(folder: str | Path) -> dict[str, Any]:
    """Return the sampling settings that a checkpoint states: its sampling.json, or those of SkyReels-V3; {} for others.

    Raises ValueError with the path for a file that is not a JSON object.
    """
    path, index = Path(folder) / SAMPLING, Path(folder) / "model_index.json"
    if not path.is_file():
        return dict(V3_SAMPLING) if index.is_file() and _json(index).get("_class_name") == SKYREELS_V3 else {}
    values = _json(path)
    slots = values.get("reference_slots", 0)
    if values.get("conditioning", "a2") not in CONDITIONINGS or type(slots) is not int or slots < 0:
        raise ValueError(
            f"{path}: conditioning must be one of {', '.join(CONDITIONINGS)}, and reference_slots a number of frames"
        )
    return values


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not a readable configuration ({error})") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} is not a JSON object")
    return values


def _checked_conditioning(root: Path) -> str:
    path = root / "transformer" / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{root} is incomplete: it lacks transformer/config.json")
    config = _json(path)
    kind = conditioning_of(config)
    if not kind:
        tokens = "no " if config.get("image_dim") is None else ""
        raise ValueError(
            f"the transformer in {root} takes {config.get('in_channels')} channels and {tokens}image tokens: A2 takes "
            f"{CHANNELS} and image tokens, text-to-video networks and VACE {LATENT_CHANNELS} and no image tokens"
        )
    return kind


def _weights(part: Path) -> bool:
    """Return whether a part has its weights: all files that its index lists, if it has one."""
    for index in part.glob("*.index.json"):
        files = set(json.loads(index.read_text()).get("weight_map", {}).values())
        return bool(files) and all((part / name).is_file() for name in files)
    return any(path.suffix in WEIGHTS for path in part.iterdir())


def digest(folder: str | Path, parts: Sequence[str] = PARTS) -> str:
    """Return a checkpoint's digest, 64 hex digits: sha256 over the names, sizes and bytes of its parts' files, path-independent.

    Of files above 8 MiB, only 4 KiB of every 4 MiB and the end are read: 50 GB take a second, not a minute. Training changes
    every weight of a matrix, so two checkpoints differ in the sampled bytes; a single flipped bit may be missed.
    """
    root, sha256 = Path(folder), hashlib.sha256()
    files = [path for part in parts for path in (root / part).rglob("*") if path.is_file()]
    for path in sorted(files):
        size = path.stat().st_size
        sha256.update(f"{path.relative_to(root).as_posix()} {size}\n".encode())
        with path.open("rb") as file:
            if size <= WHOLE_BYTES:
                sha256.update(file.read())
                continue
            for start in [*range(0, size, STRIDE_BYTES), size - BLOCK_BYTES]:
                file.seek(start)
                sha256.update(file.read(BLOCK_BYTES))
    return sha256.hexdigest()
