"""`a2data encode`: run the frozen encoders over packed triplets once and write shards of tensors.

    a2data encode SHARDS --out DIR --model A2 [--ray auto]

`a2data train` encodes missing samples itself; `train --out DIR` uses the output of `encode --out DIR/encoded`.

OUT/train and OUT/held-out are folders of shards in the format of `pack` (tars, index.parquet, manifest.json). Each sample has two
members: {key}.json, the triplet's metadata, and {key}.safetensors with `video` (16, t, h, w), `condition` (20, t, h, w), `image`
(tokens, dim), `text` and `text_empty` (tokens, dim, unpadded). With `singles` there are also `condition_single` and
`image_single`, computed from the first reference only. OUT/no_references.safetensors is the condition without references.
OUT/encoding.json records the settings and the encoders.
"""

import hashlib
import json
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from a2data.dataset import triplet as samples
from a2data.dataset import writer
from a2data.media import images, video
from a2data.records import Packed
from a2data.store.folder import Folder
from stages.encode.augment import fitted, varied

VERSION = 3  # increment when the tensors change for the same settings
SPLITS = ("train", "held-out")
VARIANT = "-v"  # separates the clip and the variant number in a sample's key
APART = 7  # variants between two variants of a held-out sample; frames between the starts of two variants


@dataclass(frozen=True)
class Encoding:
    """Encoding settings. All of them are part of the cache key."""

    frames: int = 81
    """frames per clip, 4 n + 1"""
    height: int = 480
    """px"""
    width: int = 832
    """px"""
    dtype: str = "bfloat16"
    """dtype of the stored tensors"""
    roles: str = "human|object|background"
    """reference roles to use, in order, separated by |"""
    max_references: int = 3
    """maximum number of references, including the background"""
    reference_order: str = "before"
    """where references are concatenated: before or after the VAE"""
    repeat_reference_frames: bool = True
    """repeat each reference for four frames of video"""
    singles: bool = False
    """also store the condition with only the first reference"""
    validation_fraction: float = 0.05
    """fraction of samples held out for validation; ignored if pack made splits"""
    augmentations: int = 1
    """variants per training sample (frames, mirroring, colours, no prompt), for small data sets"""
    validation_augmentations: int = 1
    """variants per held-out sample"""

    @staticmethod
    def name() -> str:
        return "encode"


def tokens(encoding: Encoding) -> int:
    """Return the number of transformer tokens of a video: one per 4 x 16 x 16 pixels; the first frame is encoded alone."""
    return (1 + (encoding.frames - 1) // 4) * (encoding.height // 16) * (encoding.width // 16)


def encode(
    shards_in: str, out: str, model: Path, how: Encoding, device: str = "cpu", say: Any = print, spread: Any = None
) -> dict[str, int]:
    """Encode every tar of a data set that is not encoded yet and return the number of samples in each split.

    A tar is encoded again if its bytes, the encoders or a setting changed. `spread` replaces `encode_tars`, for example to encode
    on a cluster. Raises ValueError for a folder without shards, a tar that does not match the index, and NaN in an encoder's
    output.
    """
    from model_zoo.a2 import encoders as a2_encoders

    source, target = Folder(shards_in), Folder(out)
    index = read_index(source)
    apart = {row.clip_id for row in index if row.split not in ("", "train")}
    held_out = apart or choose_held_out([row.clip_id for row in index], how.validation_fraction)
    about = {"version": VERSION, "encoders": a2_encoders.revision(model), **asdict(how), "held_out": sorted(held_out)}
    parts: dict[str, Any] = {}
    todo = []
    for name, digest in sorted({(row.shard, row.shard_sha256) for row in index}):
        key = hashlib.sha256(json.dumps([name, digest, about], sort_keys=True).encode()).hexdigest()
        parts[name] = fresh(target, name, key)
        if parts[name] is None:
            todo.append((name, key))
    for name, part in (spread or encode_tars)(todo, shards_in, out, str(model), device, how, held_out):
        parts[name] = part
        say(f"encoded {name}: {sum(len(part[split]) for split in SPLITS)} samples")
    left_out = {clip: why for part in parts.values() for clip, why in part["left out"].items()}
    for clip, why in left_out.items():
        say(f"skipped {clip}: {why}")
    placed = {split: [Packed(**row) for part in parts.values() for row in part[split]] for split in SPLITS}
    if not placed["train"]:
        raise ValueError(
            f"{shards_in} has no usable training sample: {next(iter(left_out.values()), 'all samples are held out')}"
        )
    finish(target, placed, about | {"left out": left_out}, model, how)
    return {split: len(rows) for split, rows in placed.items()}


def encode_tars(
    todo: list[tuple[str, str]], shards_in: str, out: str, model: str, device: str, how: Encoding, held_out: set[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Encode tars, given by name and key, one after another in this process. Yields the name and the part record of each."""
    from model_zoo.a2 import encoders as a2_encoders

    encoders = a2_encoders.load(Path(model), device) if todo else None
    for name, key in todo:
        yield name, encode_tar(Folder(shards_in), Folder(out), name, key, encoders, how, held_out)


def read_index(source: Folder) -> list[Packed]:
    """Return the rows of a data set's index. Raises ValueError if there are none."""
    rows = writer.rows(source)
    if not rows:
        raise ValueError(f"the index of {source.root} is empty: there is nothing to train on")
    return rows


def choose_held_out(keys: list[str], share: float) -> set[str]:
    """Return the keys to hold out: the given fraction (at least one unless it is 0), chosen by the hash of the key."""
    count = max(1, round(len(keys) * share)) if share > 0 else 0
    if count >= len(keys):
        raise ValueError(
            f"{count} of {len(keys)} samples would be held out and none left to train on: lower --validation-fraction"
        )
    return set(sorted(keys, key=lambda key: hashlib.sha256(key.encode()).digest())[:count])


def fresh(target: Folder, name: str, key: str) -> dict[str, Any] | None:
    """Return the part record of an encoded tar, or None if it is missing or has another key."""
    text = target.get("parts", f"{name}.json")
    part = json.loads(text) if text else {}
    there = {split: target.names(split) for split in SPLITS}
    whole = part.get("key") == key and all(row["shard"] in there[split] for split in SPLITS for row in part[split])
    return part if whole else None


def encode_tar(
    source: Folder, target: Folder, name: str, key: str, encoders: Any, how: Encoding, held_out: set[str]
) -> dict[str, Any]:
    """Encode one packed tar into one tar per split, and write and return its part record."""
    left_out: dict[str, str] = {}
    kept_back: list[tuple[str, dict[str, bytes]]] = []
    roles_of: dict[str, tuple[list[str], Any]] = {}

    def encoded() -> Iterator[tuple[str, dict[str, bytes]]]:
        for triplet in read_tar(source, name):
            clip = triplet.facts.clip_id
            shown = pictures(triplet, how)
            if isinstance(shown, str):
                left_out[clip] = shown
                continue
            for variant in range(how.validation_augmentations if clip in held_out else how.augmentations):
                made = members(triplet, shown, encoders, how, variant * APART if clip in held_out else variant)
                key_of = f"{clip}{VARIANT}{variant:02d}" if variant else clip
                roles_of[key_of] = shown[2], triplet.facts
                if clip in held_out:
                    kept_back.append((key_of, made))
                else:
                    yield key_of, made

    found = writer.TAR.fullmatch(name)
    if found is None:
        raise ValueError(
            f"{source.root}/{name} is not named like a shard, such as 00000-000.tar or train-00000-000.tar"
        )
    where = int(found[2]) * 1000 + int(found[3]), 1 << 40, found[1] or ""
    rows = {"train": list(writer.write(encoded(), Folder(target.path("train")), *where))}
    rows["held-out"] = list(writer.write(iter(kept_back), Folder(target.path("held-out")), *where))
    part = {
        "key": key,
        "left out": left_out,
        **{split: [asdict(to_row(p, *roles_of[p.key], how)) for p in placed] for split, placed in rows.items()},
    }
    target.put(json.dumps(part).encode(), "parts", f"{name}.json")
    return part


def read_tar(source: Folder, name: str) -> Iterator[samples.Triplet]:
    """Yield the triplets of a packed tar. Raises ValueError with the tar's path if it is missing, truncated or not a tar."""
    members_of: dict[str, Any] = {}
    try:
        with source.reading(name) as file, tarfile.open(fileobj=file) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                if members_of and members_of["__key__"] != key:
                    yield samples.from_sample(members_of)
                    members_of = {}
                data = tar.extractfile(member) if member.isfile() else None
                if data is None:
                    raise ValueError(f"{source.root}/{name} has the member {member.name!r}, which is not a file")
                members_of |= {"__key__": key, extension: data.read()}
        if members_of:
            yield samples.from_sample(members_of)
    except FileNotFoundError as error:
        raise ValueError(f"{source.root} lacks {name}, which its index lists: was it moved?") from error
    except (tarfile.ReadError, KeyError, EOFError, json.JSONDecodeError) as error:
        raise ValueError(f"{source.root}/{name} is truncated or damaged ({error}): pack it again") from error


def pictures(triplet: samples.Triplet, how: Encoding) -> tuple[np.ndarray, Any, list[str]] | str:
    """Return a triplet's resized frames, its prepared references and their roles in order; or the reason to skip it."""
    from model_zoo.a2 import references as a2_references

    frames = video.decode(triplet.video)
    if len(frames) < how.frames:
        return f"it has {len(frames)} frames; {how.frames} are needed"
    chosen = choose(triplet, how)
    if not chosen:
        return f"it has no reference with a role in {how.roles}"
    kept = frames if how.augmentations > 1 else frames[: how.frames]
    roles = sorted((r.role for r in chosen), key=a2_references.ROLES.index)
    return fitted(kept, how.height, how.width), a2_references.prepare(chosen, how.height, how.width), roles


def members(
    triplet: samples.Triplet, shown: tuple[np.ndarray, Any, list[str]], encoders: Any, how: Encoding, variant: int = 0
) -> dict[str, bytes]:
    """Return a triplet's encoded members by extension; `shown` is the result of `pictures`."""
    import torch
    from safetensors.torch import save

    from model_zoo.a2 import encoders as a2_encoders
    from model_zoo.a2 import references as a2_references

    start = variant * APART % (len(shown[0]) - how.frames + 1)
    frames = varied(shown[0][start : start + how.frames], variant)
    prepared = a2_references.Prepared(*(varied(each, variant) for each in shown[1]))
    condition, image = a2_encoders.encode_references(
        encoders, prepared, how.frames, how.repeat_reference_frames, how.reference_order
    )
    made = {
        "video": a2_encoders.encode_video(encoders, frames),
        "condition": condition,
        "image": image,
        "text": a2_encoders.encode_prompt(encoders, "" if variant else triplet.prompt),
        "text_empty": a2_encoders.encode_prompt(encoders, ""),
    }
    if how.singles:
        first = a2_references.Prepared(prepared.frames[:1], prepared.squares[:1])
        made["condition_single"], made["image_single"] = a2_encoders.encode_references(
            encoders, first, how.frames, how.repeat_reference_frames, how.reference_order
        )
    for name, tensor in made.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{triplet.facts.clip_id}: the encoder returned NaN or infinity in {name}")
    dtype = getattr(torch, how.dtype)
    stored = {name: tensor.to(dtype).cpu().contiguous() for name, tensor in made.items()}
    return {"json": samples.to_members(triplet)["json"], "safetensors": save(stored)}


def choose(triplet: samples.Triplet, how: Encoding) -> list[Any]:
    """Return the references for a triplet's condition: subjects first, one background last, max_references at most."""
    from model_zoo.a2.references import Reference

    wanted = how.roles.split("|")
    usable = [given for given in triplet.facts.references if given.role in wanted]
    usable.sort(key=lambda given: wanted.index(given.role))
    places = [given for given in usable if given.role == "background"][:1]
    things = [given for given in usable if given.role != "background"][: how.max_references - len(places)]
    return [
        Reference(given.role, images.from_png(triplet.pictures[given.name])[..., :3]) for given in (*things, *places)
    ]


def clip_of(key: str) -> str:
    """Return the clip id of a sample's key, without the variant."""
    return key.split(VARIANT)[0]


def to_row(placed: writer.Placed, roles: list[str], facts: samples.TripletMeta, how: Encoding) -> Packed:
    """Return the index row of an encoded sample: sizes of the encoded video, roles of the references in the condition."""
    licences = " AND ".join(sorted({facts.license, *(given.origin.license for given in facts.references)}))
    risk = max(given.copy_risk for given in facts.references)
    return Packed(
        placed.key, placed.shard, placed.shard_sha256, placed.offset, placed.bytes, placed.members,
        how.frames, how.height, how.width, facts.fps, roles, licences, risk,
    )  # fmt: skip


def finish(target: Folder, placed: dict[str, list[Packed]], about: dict[str, Any], model: Path, how: Encoding) -> None:
    """Write the index and manifest of each split, no_references.safetensors and encoding.json."""
    from safetensors.torch import save

    from model_zoo.a2 import encoders as a2_encoders

    text = json.dumps(about, indent=1, sort_keys=True).encode()
    index = {split: sorted(rows, key=lambda row: (row.shard, row.offset)) for split, rows in placed.items()}
    if target.get("encoding.json") == text and all(_indexed(target, split, rows) for split, rows in index.items()):
        return
    for split, rows in placed.items():
        writer.finish(Folder(target.path(split)), rows, about)
    nothing = a2_encoders.null_condition(a2_encoders.autoencoder(model / "vae"), how.frames, how.height, how.width)
    target.put(save({"condition": nothing.cpu().contiguous()}), "no_references.safetensors")
    target.put(text, "encoding.json")


def _indexed(target: Folder, split: str, rows: list[Packed]) -> bool:
    """Return whether the index of a split holds these rows."""
    folder = Folder(target.path(split))
    return "index.parquet" in folder.names() and writer.rows(folder) == rows
