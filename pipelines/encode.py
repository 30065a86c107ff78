"""`a2data encode`: triplets through the frozen encoders once, into shards of tensors beside the packed ones.

    a2data encode SHARDS --out DIR --model A2 [--ray auto]

`a2data train` does it by itself where it was not done; `train --out DIR` takes up what `encode --out DIR/encoded` made.

OUT/train and OUT/held-out are folders of shards like those of `pack` (tars, index.parquet, manifest.json), with two members to a
sample: {key}.json, the triplet's facts, and {key}.safetensors with `video` (16, t, h, w), `condition` (20, t, h, w), `image`
(tokens, dim), `text` and `text_empty` (tokens, dim, unpadded), and with `singles` also `condition_single` and `image_single`, of
the first reference alone. OUT/no_references.safetensors is the condition without any. OUT/encoding.json says how all was made.
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

VERSION = 3  # raise it when other tensors come out for the same settings
SPLITS = ("train", "held-out")
VARIANT = "-v"  # between a clip and the number of its variant, in the key of a sample
APART = 7  # so many variants lie between two of a held-out sample, so many frames between two of any


@dataclass(frozen=True)
class Encoding:
    """How triplets become tensors; all of it is part of the key under which they are kept."""

    frames: int = 81
    height: int = 480
    width: int = 832
    dtype: str = "bfloat16"  # of what is stored
    roles: str = "human|object|background"  # kinds of reference that are given, in order
    max_references: int = 3  # the place included
    reference_order: str = "before"  # references become one video before the VAE, or after it: a2_references.condition
    repeat_reference_frames: bool = True  # a reference stands for four frames of video
    singles: bool = False  # keep the condition with the first reference alone, too
    validation_fraction: float = (
        0.05  # share of the samples that never trains; where pack divided the data set, its splits decide
    )
    augmentations: int = (
        1  # of a sample that trains: other frames, mirrored, other colours, no words; for small data sets
    )
    validation_augmentations: int = 1  # the same of a sample that is held out

    @staticmethod
    def name() -> str:
        return "encode"


def tokens(encoding: Encoding) -> int:
    """Tokens of a video in the transformer: 4 x 16 x 16 pixels each, the first frame alone."""
    return (1 + (encoding.frames - 1) // 4) * (encoding.height // 16) * (encoding.width // 16)


def encode(
    shards_in: str, out: str, model: Path, how: Encoding, device: str = "cpu", say: Any = print, spread: Any = None
) -> dict[str, int]:
    """Encode every tar of a data set that is not encoded yet. Returns how many samples there are in each split.

    A tar is encoded again when its bytes, the encoders or a setting changed. `spread` encodes elsewhere, see `encode_tars`.
    Raises ValueError with a sentence for a folder that holds no shards, a tar that is not what the index says, and a sample that
    comes out of the encoders as NaN.
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
        say(f"left out: {clip}: {why}")
    placed = {split: [Packed(**row) for part in parts.values() for row in part[split]] for split in SPLITS}
    if not placed["train"]:
        raise ValueError(
            f"no sample of {shards_in} can be trained on: {next(iter(left_out.values()), 'all are held out')}"
        )
    finish(target, placed, about | {"left out": left_out}, model, how)
    return {split: len(rows) for split, rows in placed.items()}


def encode_tars(
    todo: list[tuple[str, str]], shards_in: str, out: str, model: str, device: str, how: Encoding, held_out: set[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Encode tars, given by name and key, one after another in this process: what is known of each."""
    from model_zoo.a2 import encoders as a2_encoders

    encoders = a2_encoders.load(Path(model), device) if todo else None
    for name, key in todo:
        yield name, encode_tar(Folder(shards_in), Folder(out), name, key, encoders, how, held_out)


def read_index(source: Folder) -> list[Packed]:
    """The rows of a data set's index. Raises ValueError where there is none."""
    rows = writer.rows(source)
    if not rows:
        raise ValueError(f"the index of {source.root} names no sample: there is nothing to train on")
    return rows


def choose_held_out(keys: list[str], share: float) -> set[str]:
    """The samples that never train: a share of them (at least one where it is not 0), by the hash of their keys."""
    count = max(1, round(len(keys) * share)) if share > 0 else 0
    if count >= len(keys):
        raise ValueError(f"{count} of {len(keys)} samples would be held out: none is left to train on")
    return set(sorted(keys, key=lambda key: hashlib.sha256(key.encode()).digest())[:count])


def fresh(target: Folder, name: str, key: str) -> dict[str, Any] | None:
    """What is known of an encoded tar, if it is there and was made under this key."""
    text = target.get("parts", f"{name}.json")
    part = json.loads(text) if text else {}
    there = {split: target.names(split) for split in SPLITS}
    whole = part.get("key") == key and all(row["shard"] in there[split] for split in SPLITS for row in part[split])
    return part if whole else None


def encode_tar(
    source: Folder, target: Folder, name: str, key: str, encoders: Any, how: Encoding, held_out: set[str]
) -> dict[str, Any]:
    """One packed tar into one tar of each split."""
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
            f"{source.root}/{name} is not called like a shard, such as 00000-000.tar or train-00000-000.tar"
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
    """The triplets of a packed tar. Raises ValueError, naming the tar, where it is missing, cut off or no tar."""
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
        raise ValueError(f"{source.root} lacks {name}, which its index names: was it moved?") from error
    except (tarfile.ReadError, KeyError, EOFError, json.JSONDecodeError) as error:
        raise ValueError(f"{source.root}/{name} is cut off or damaged ({error}): pack it again") from error


def pictures(triplet: samples.Triplet, how: Encoding) -> tuple[np.ndarray, Any, list[str]] | str:
    """A triplet's frames, cut to size, its references, prepared, and their roles in order; or why it cannot be used."""
    from model_zoo.a2 import references as a2_references

    frames = video.decode(triplet.video)
    if len(frames) < how.frames:
        return f"it has {len(frames)} frames; {how.frames} are wanted"
    chosen = choose(triplet, how)
    if not chosen:
        return f"it has no reference of the kinds {how.roles}"
    kept = frames if how.augmentations > 1 else frames[: how.frames]
    roles = sorted((r.role for r in chosen), key=a2_references.ROLES.index)
    return fitted(kept, how.height, how.width), a2_references.prepare(chosen, how.height, how.width), roles


def members(
    triplet: samples.Triplet, shown: tuple[np.ndarray, Any, list[str]], encoders: Any, how: Encoding, variant: int = 0
) -> dict[str, bytes]:
    """A triplet's members; `shown` is what `pictures` made of it."""
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
            raise ValueError(f"{triplet.facts.clip_id}: {name} comes out of its encoder with NaN or infinity")
    dtype = getattr(torch, how.dtype)
    stored = {name: tensor.to(dtype).cpu().contiguous() for name, tensor in made.items()}
    return {"json": samples.to_members(triplet)["json"], "safetensors": save(stored)}


def choose(triplet: samples.Triplet, how: Encoding) -> list[Any]:
    """The references of a triplet that go into its condition: things first, one place last, as many as are allowed."""
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
    """The clip of a sample's key, without the variant."""
    return key.split(VARIANT)[0]


def to_row(placed: writer.Placed, roles: list[str], facts: samples.TripletMeta, how: Encoding) -> Packed:
    """The index row of an encoded sample: sizes are those of the encoded video, roles those in the condition."""
    licences = " AND ".join(sorted({facts.license, *(given.origin.license for given in facts.references)}))
    risk = max(given.copy_risk for given in facts.references)
    return Packed(
        placed.key, placed.shard, placed.shard_sha256, placed.offset, placed.bytes, placed.members,
        how.frames, how.height, how.width, facts.fps, roles, licences, risk,
    )  # fmt: skip


def finish(target: Folder, placed: dict[str, list[Packed]], about: dict[str, Any], model: Path, how: Encoding) -> None:
    """Index and manifest of each split, and what all samples share."""
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
    """Whether the index of a split holds these rows."""
    folder = Folder(target.path(split))
    return "index.parquet" in folder.names() and writer.rows(folder) == rows
