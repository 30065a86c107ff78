"""A checkpoint folder, inspected once: its family, digest and capabilities. Also chooses device and dtype."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from model_zoo.a2 import checkpoint as a2_folder
from pipelines.sample.job import RANGES

A2, SKYREELS_V2 = "a2", "skyreels-v2"  # families


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint folder. No network is loaded; values that read files are read when first used, and kept."""

    root: Path  # absolute, without symbolic links
    family: str  # A2, which includes Wan2.1-I2V and exports of `a2data train`, or SKYREELS_V2

    @classmethod
    def open(cls, folder: str | Path) -> "Checkpoint":
        """Return the checkpoint in a folder. Raises FileNotFoundError or ValueError if it is not one or is incomplete."""
        from model_zoo.a2 import skyreels_v2

        if skyreels_v2.is_checkpoint(folder):
            return cls(skyreels_v2.check(folder).resolve(), SKYREELS_V2)
        return cls(a2_folder.check(folder).resolve(), A2)

    @classmethod
    def with_references(cls, folder: str | Path) -> "Checkpoint":
        """Return the checkpoint in a folder. Raises ValueError, and what `open` raises, if it does not take references."""
        checkpoint = cls.open(folder)
        if not checkpoint.takes_references:
            raise ValueError(f"{folder} is a SkyReels-V2 checkpoint, which does not take references: give one of A2")
        return checkpoint

    @property
    def takes_references(self) -> bool:
        """Whether videos show reference pictures. SkyReels-V2 takes a prompt, a first frame or a video to extend instead."""
        return self.family == A2

    @cached_property
    def conditioning(self) -> str:
        """How references condition the network (model_zoo.a2.conditioning), "" if it does not take any."""
        return a2_folder.conditioning(self.root) if self.takes_references else ""

    @cached_property
    def reference_slots(self) -> int:
        """Latent frames of references that its network was trained with, 0 for as many as references."""
        return a2_folder.sampling(self.root).get("reference_slots", 0) if self.takes_references else 0

    @cached_property
    def digest(self) -> str:
        """Digest of its files, 64 hex digits; see model_zoo.a2.checkpoint.digest."""
        from model_zoo.a2 import skyreels_v2

        return a2_folder.digest(self.root, a2_folder.PARTS if self.takes_references else skyreels_v2.PARTS)

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """Settings of a job that the checkpoint was trained with, from the sampling.json of an export; {} for other folders.

        They are height, width, frames and fps, guidance_scale if there is no unconditional branch, and steps and flow_shift of
        distilled networks. Raises ValueError with the path for a file with other keys or values.
        """
        path = self.root / a2_folder.SAMPLING
        try:
            values = a2_folder.sampling(self.root)
            settings = {name: value for name, value in values.items() if name not in a2_folder.NETWORK_SETTINGS}
            return {name: check_sampling_value(name, value) for name, value in settings.items()}
        except ValueError as error:
            raise ValueError(f"{path} does not list sampling settings ({error}): export the model again") from error

    @cached_property
    def transformer(self) -> dict[str, Any]:
        """The configuration of its transformer."""
        return json.loads((self.root / "transformer" / "config.json").read_text())

    def num_tokens(self, texts: Iterable[str]) -> dict[str, int]:
        """Return {text: number of tokens, including the end token}."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.root / "tokenizer", local_files_only=True)
        return {text: len(tokenizer(text).input_ids) for text in set(texts)}


def check_sampling_value(name: str, value: Any) -> Any:
    """Return a value of sampling.json. Raises ValueError if it is not a setting that a training determines, or out of range."""
    kinds: dict[str, type] = {"height": int, "width": int, "frames": int, "steps": int}
    kinds |= {"fps": float, "guidance_scale": float, "flow_shift": float}
    if name not in kinds or isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} = {value!r}")
    low, high = RANGES[name]
    if not low <= value <= high or kinds[name](value) != value:
        raise ValueError(f"{name} = {value}, allowed {low} to {high}")
    return kinds[name](value)


def resolve_device(requested: str | None, dtype: str | None = None) -> tuple[str, str]:
    """Return the device and dtype to sample with on this machine. Raises ValueError for a missing GPU."""
    import torch

    device = requested or ("cuda" if torch.cuda.is_available() else "cpu")
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
