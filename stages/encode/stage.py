"""Packed triplets -> shards of tensors, the output of the frozen encoders, for training and validation."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from a2data import heartbeat
from a2data.dataset import triplet as samples
from a2data.dataset import writer
from a2data.records import Failure, Packed, Reject
from a2data.stage import Stage
from a2data.store.folder import Folder
from stages.encode.settings import SPLITS, VARIANT, VARIANT_STRIDE, Encoding
from stages.encode.tensors import members, pictures, read_tar, to_row

Sample = tuple[str, dict[str, bytes]]  # key, members


def parse_tar_name(name: str) -> tuple[int, str]:
    """Return the number and the split that a packed tar's name gives its encoded tars; "" without a split. Raises ValueError."""
    match = writer.TAR.fullmatch(name)
    if match is None:
        raise ValueError(f"{name} is not named like a shard, such as 00000-000.tar or train-00000-000.tar")
    return int(match[2]) * 1000 + int(match[3]), match[1] or ""


@dataclass(frozen=True, kw_only=True)
class Encode(Encoding, Stage):
    """Packed triplets -> shards of tensors in `out`/train and `out`/held-out, and the position of each sample in them.

    The `split` of an input row, one of SPLITS, is the folder that its sample is written to. A rerun writes the same bytes.
    """

    reads = {"pack": Packed}
    writes = Packed
    per = "shard"
    accounts_for = "clip_id"
    # the rows state the split of each sample, and `revision` is in models()
    uncached_fields = ("shards", "out", "model", "revision", "device", "validation_fraction")
    version = 5

    shards: str
    """folder of the packed tars, or a URL"""
    out: str
    """folder of the encoded tars, or a URL"""
    model: str
    """checkpoint folder with the encoders"""
    revision: str
    """revision of the encoders"""
    device: str = "cpu"
    """cpu or cuda"""

    @property
    def gpus(self) -> float:  # type: ignore[override]
        return float(self.device.startswith("cuda"))

    def cache_fields(self) -> dict[str, Any]:
        # samples encoded before there was a choice stay valid
        old = ("conditioning", "reference_slots") if self.conditioning == "a2" else ()
        return {name: value for name, value in super().cache_fields().items() if name not in old}

    def models(self) -> dict[str, str]:
        return {"encoders": self.revision}

    def load(self) -> Any:
        from model_zoo.a2 import encoders as a2_encoders

        return a2_encoders.load(Path(self.model), self.device, self.conditioning)

    def run(self, encoders: Any, packed: list[Packed], shard: int) -> Iterator[Packed | Reject | Failure]:
        for name in sorted({row.shard for row in packed}):
            split_of = {row.clip_id: row.split for row in packed if row.shard == name}
            yield from self.encode_tar(name, split_of, encoders)

    def encode_tar(self, name: str, split_of: dict[str, str], encoders: Any) -> Iterator[Packed | Reject | Failure]:
        """Write a packed tar as one tar per split and yield the rows of its samples; split_of: {clip_id: split}."""
        left_out: list[Reject | Failure] = []
        held_out: list[Sample] = []
        described: dict[str, tuple[list[str], samples.TripletMeta]] = {}  # key -> roles and metadata

        def encoded() -> Iterator[Sample]:
            for triplet in read_tar(Folder(self.shards), name):
                clip = triplet.facts.clip_id
                made = self.attempt(triplet, split_of[clip] == "held-out", encoders) if clip in split_of else []
                if isinstance(made, Reject | Failure):
                    left_out.append(made)
                    continue
                for key, roles, data in made:
                    described[key] = roles, triplet.facts
                    if split_of[clip] == "held-out":
                        held_out.append((key, data))
                    else:
                        yield key, data

        number, prefix = parse_tar_name(name)
        for split, written in zip(SPLITS, (encoded(), iter(held_out)), strict=True):
            for placed in writer.write(written, Folder(f"{self.out}/{split}"), number, 1 << 40, prefix):
                yield to_row(placed, *described[placed.key], self, split)
        yield from left_out

    def attempt(
        self, triplet: samples.Triplet, held_out: bool, encoders: Any
    ) -> list[tuple[str, list[str], dict[str, bytes]]] | Reject | Failure:
        """Return key, roles and members of each variant of a triplet, or why there are none: a bad one must not fail its tar."""
        clip = triplet.facts.clip_id
        if triplet.pair and triplet.pair.tie:
            return Reject(clip, "tie", "neither video of the pair is preferred")
        try:
            resized = pictures(triplet, self)
            if isinstance(resized, Reject):
                return resized
            variants = []
            for variant in range(self.validation_augmentations if held_out else self.augmentations):
                data = members(triplet, resized, encoders, self, variant * VARIANT_STRIDE if held_out else variant)
                variants.append((f"{clip}{VARIANT}{variant:02d}" if variant else clip, resized[2], data))
                heartbeat.step()
            return variants
        except Exception as error:
            return Failure(clip, f"{type(error).__name__}: {error}")
