"""Detect the kind of a checkpoint folder, and choose device and dtype."""

from collections.abc import Sequence
from pathlib import Path

from model_zoo.a2 import checkpoint as a2_folder


def checkpoint_folder(folder: str) -> tuple[Path, Sequence[str]]:
    """Return the folder and the names of its parts. Raises FileNotFoundError or ValueError if it is not a checkpoint."""
    from model_zoo.a2 import skyreels_v2

    if skyreels_v2.is_checkpoint(folder):
        return skyreels_v2.check(folder), skyreels_v2.PARTS
    return a2_folder.check(folder), a2_folder.PARTS


def placed(wanted: str | None, dtype: str | None = None) -> tuple[str, str]:
    """Return the device and dtype to sample with on this machine. Raises ValueError for a missing GPU."""
    import torch

    device = wanted or ("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise ValueError(f"--device {device}: write cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "cuda" and int(number or 0) >= count:
        raise ValueError(
            f"--device {device}: torch finds {count or 'no'} GPUs here; omit --device to choose automatically"
        )
    return device, dtype or default_dtype(device)


def default_dtype(device: str) -> str:
    return "bfloat16" if device.startswith("cuda") else "float32"
