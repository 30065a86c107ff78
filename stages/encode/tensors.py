"""One packed triplet -> the tensors that the network sees."""

import json
import tarfile
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from a2data.dataset import triplet as samples
from a2data.dataset import writer
from a2data.media import images, video
from a2data.records import Packed, Reject
from a2data.store.folder import Folder
from stages.encode.augment import fitted, varied
from stages.encode.settings import APART, Encoding


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


def pictures(triplet: samples.Triplet, how: Encoding) -> tuple[np.ndarray, Any, list[str]] | Reject:
    """Return a triplet's resized frames, its prepared references and their roles in order; or its rejection."""
    from model_zoo.a2 import references as a2_references

    frames = video.decode(triplet.video)
    if len(frames) < how.frames:
        return Reject(triplet.facts.clip_id, "too short", f"it has {len(frames)} frames; {how.frames} are needed")
    chosen = choose(triplet, how)
    if not chosen:
        return Reject(triplet.facts.clip_id, "no reference", f"it has no reference with a role in {how.roles}")
    kept = frames if how.augmentations > 1 else frames[: how.frames]
    roles = sorted((r.role for r in chosen), key=a2_references.ROLES.index)
    return (
        fitted(kept, how.height, how.width),
        a2_references.prepare(chosen, how.height, how.width, how.conditioning),
        roles,
    )


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
    seen = partial(
        a2_encoders.encode_references, encoders, frames=how.frames, repeat=how.repeat_reference_frames,
        combine=how.reference_order, conditioning=how.conditioning, slots=how.reference_slots,
    )  # fmt: skip
    made = {
        "video": a2_encoders.encode_video(encoders, frames),
        **seen(prepared),
        "text": a2_encoders.encode_prompt(encoders, "" if variant else triplet.prompt),
        "text_empty": a2_encoders.encode_prompt(encoders, ""),
    }
    if triplet.pair:
        worse = fitted(video.decode(triplet.rejected)[start : start + how.frames], how.height, how.width)
        if len(worse) < len(frames):
            raise ValueError(f"the worse video of the pair has {len(worse)} frames; {len(frames)} are needed")
        made["rejected"] = a2_encoders.encode_video(encoders, varied(worse, variant))
    if how.singles:
        first = a2_references.Prepared(prepared.frames[:1], prepared.squares[:1])
        made |= {f"{name}_single": tensor for name, tensor in seen(first).items()}
    for name, tensor in made.items():
        if not tensor.isfinite().all():
            raise ValueError(f"the encoder returned NaN or infinity in {name}")
    dtype = getattr(torch, how.dtype)
    stored = {name: tensor.to(dtype).cpu().contiguous() for name, tensor in made.items()}
    return {"json": samples.to_json(triplet.facts), "safetensors": save(stored)}


def choose(triplet: samples.Triplet, how: Encoding) -> list[Any]:
    """Return the references for a triplet's condition: subjects first, one background last, max_references at most.

    A face has the role human if its person has no other reference; otherwise it is left out, since A2 knows no faces.
    """
    from model_zoo.a2.references import Reference

    wanted = how.roles.split("|")
    whole = {given.identity for given in triplet.facts.references if given.role == "human"}
    roles = [
        (given, "human" if given.role == "face" and given.identity not in whole else given.role)
        for given in triplet.facts.references
    ]
    usable = [(given, role) for given, role in roles if role in wanted and role != "face"]
    # whole people first
    usable.sort(key=lambda one: (wanted.index(one[1]), one[0].role == "face"))
    places = [one for one in usable if one[1] == "background"][:1]
    things = [one for one in usable if one[1] != "background"][: how.max_references - len(places)]
    return [
        Reference(role, images.from_png(triplet.pictures[given.name])[..., :3]) for given, role in (*things, *places)
    ]


def to_row(placed: writer.Placed, roles: list[str], facts: samples.TripletMeta, how: Encoding, split: str) -> Packed:
    """Return the index row of an encoded sample: sizes of the encoded video, roles of the references in the condition."""
    licences = " AND ".join(sorted({facts.license, *(given.origin.license for given in facts.references)}))
    risk = max(given.copy_risk for given in facts.references)
    return Packed(
        placed.key, placed.shard, placed.shard_sha256, placed.offset, placed.bytes, placed.members,
        how.frames, how.height, how.width, facts.fps, roles, licences, risk, split,
    )  # fmt: skip
