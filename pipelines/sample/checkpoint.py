"""A checkpoint folder, inspected once: its family, digest and capabilities. Also chooses device and dtype."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from model_zoo.a2 import checkpoint as a2_folder

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
        opened = cls.open(folder)
        if not opened.takes_references:
            raise ValueError(f"{folder} is a SkyReels-V2 checkpoint, which does not take references: give one of A2")
        return opened

    @property
    def takes_references(self) -> bool:
        """Whether videos show reference pictures. SkyReels-V2 takes a prompt, a first frame or a video to extend instead."""
        return self.family == A2

    @cached_property
    def digest(self) -> str:
        """Digest of its files, 64 hex digits; see model_zoo.a2.checkpoint.digest."""
        from model_zoo.a2 import skyreels_v2

        return a2_folder.digest(self.root, a2_folder.PARTS if self.takes_references else skyreels_v2.PARTS)

    @cached_property
    def transformer(self) -> dict[str, Any]:
        """The configuration of its transformer."""
        return json.loads((self.root / "transformer" / "config.json").read_text())

    def num_tokens(self, texts: Iterable[str]) -> dict[str, int]:
        """Return {text: number of tokens, including the end token}."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.root / "tokenizer", local_files_only=True)
        return {text: len(tokenizer(text).input_ids) for text in set(texts)}


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
