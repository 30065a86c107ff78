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
from stages.encode.augment import augment, resize_frames
from stages.encode.settings import VARIANT_STRIDE, Encoding


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


def pictures(triplet: samples.Triplet, settings: Encoding) -> tuple[np.ndarray, Any, list[str]] | Reject:
    """Return a triplet's resized frames, its prepared references and their roles in order; or its rejection."""
    from model_zoo.a2 import references as a2_references

    frames = video.decode(triplet.video)
    if len(frames) < settings.frames:
        return Reject(triplet.facts.clip_id, "too short", f"it has {len(frames)} frames; {settings.frames} are needed")
    references = choose(triplet, settings)
    if not references:
        return Reject(triplet.facts.clip_id, "no reference", f"it has no reference with a role in {settings.roles}")
    used_frames = frames if settings.augmentations > 1 else frames[: settings.frames]
    roles = sorted((r.role for r in references), key=a2_references.ROLES.index)
    return (
        resize_frames(used_frames, settings.height, settings.width),
        a2_references.prepare(references, settings.height, settings.width, settings.conditioning),
        roles,
    )


def members(
    triplet: samples.Triplet,
    resized: tuple[np.ndarray, Any, list[str]],
    encoders: Any,
    settings: Encoding,
    variant: int = 0,
) -> dict[str, bytes]:
    """Return a triplet's encoded members by extension; `resized` is the result of `pictures`."""
    import torch
    from safetensors.torch import save

    from model_zoo.a2 import encoders as a2_encoders
    from model_zoo.a2 import references as a2_references

    start = variant * VARIANT_STRIDE % (len(resized[0]) - settings.frames + 1)
    frames = augment(resized[0][start : start + settings.frames], variant)
    prepared = a2_references.Prepared(*(augment(each, variant) for each in resized[1]))
    encode_condition = partial(
        a2_encoders.encode_references, encoders, frames=settings.frames, repeat=settings.repeat_reference_frames,
        reference_order=settings.reference_order, conditioning=settings.conditioning, slots=settings.reference_slots,
    )  # fmt: skip
    tensors = {
        "video": a2_encoders.encode_video(encoders, frames),
        **encode_condition(prepared),
        "text": a2_encoders.encode_prompt(encoders, "" if variant else triplet.prompt),
        "text_empty": a2_encoders.encode_prompt(encoders, ""),
    }
    if triplet.pair:
        rejected_frames = resize_frames(
            video.decode(triplet.rejected)[start : start + settings.frames], settings.height, settings.width
        )
        if len(rejected_frames) < len(frames):
            raise ValueError(f"the worse video of the pair has {len(rejected_frames)} frames; {len(frames)} are needed")
        tensors["rejected"] = a2_encoders.encode_video(encoders, augment(rejected_frames, variant))
    if settings.singles:
        first = a2_references.Prepared(prepared.frames[:1], prepared.squares[:1])
        tensors |= {f"{name}_single": tensor for name, tensor in encode_condition(first).items()}
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"the encoder returned NaN or infinity in {name}")
    dtype = getattr(torch, settings.dtype)
    stored = {name: tensor.to(dtype).cpu().contiguous() for name, tensor in tensors.items()}
    return {"json": samples.to_json(triplet.facts), "safetensors": save(stored)}


def choose(triplet: samples.Triplet, settings: Encoding) -> list[Any]:
    """Return the references for a triplet's condition: subjects first, one background last, max_references at most.

    A face has the role human if its person has no other reference; otherwise it is left out, since A2 knows no faces.
    """
    from model_zoo.a2.references import Reference

    requested_roles = settings.roles.split("|")
    whole_people = {reference.identity for reference in triplet.facts.references if reference.role == "human"}
    roles = [
        (reference, "human" if reference.role == "face" and reference.identity not in whole_people else reference.role)
        for reference in triplet.facts.references
    ]
    usable = [(reference, role) for reference, role in roles if role in requested_roles and role != "face"]
    # whole people first
    usable.sort(key=lambda candidate: (requested_roles.index(candidate[1]), candidate[0].role == "face"))
    backgrounds = [candidate for candidate in usable if candidate[1] == "background"][:1]
    subjects = [candidate for candidate in usable if candidate[1] != "background"][
        : settings.max_references - len(backgrounds)
    ]
    return [
        Reference(role, images.from_png(triplet.pictures[reference.name])[..., :3])
        for reference, role in (*subjects, *backgrounds)
    ]


def to_row(
    written: writer.WrittenSample, roles: list[str], facts: samples.TripletMeta, settings: Encoding, split: str
) -> Packed:
    """Return the index row of an encoded sample: sizes of the encoded video, roles of the references in the condition."""
    licences = " AND ".join(sorted({facts.license, *(reference.origin.license for reference in facts.references)}))
    risk = max(reference.copy_risk for reference in facts.references)
    return Packed(
        written.key, written.shard, written.shard_sha256, written.offset, written.bytes, written.members,
        settings.frames, settings.height, settings.width, facts.fps, roles, licences, risk, split,
    )  # fmt: skip
