"""A triplet and the members of its WebDataset sample. Only this module defines their names.

{key}.mp4             the clip: H.264, and the sound of its source at that time, if any, as AAC
{key}.json            `TripletMeta`, canonical JSON: sorted keys, no spaces, UTF-8; null for an infinite bound or value of a rule
{key}.ref0.png        a reference on white, at its position in the frame of its own clip; ref1, ref2 … likewise
{key}.bg.png          the background
{key}.cutouts.zip     ref0.png, ref1.png …: the references cut out, with transparency; without compression

Every sample of a data set has the same members, since common readers make a column of each. A slot without a reference has a
white picture of one pixel; the JSON lists the references that there are. The cut-outs share a member because each member costs a
reader time, whether it is used or not.
"""

import io
import json
import math
import zipfile
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from a2data.dataset import format2
from a2data.dataset import pair as pairs
from a2data.media.coco_rle import Rle
from a2data.media.images import Box, to_png
from a2data.records import Caption, Rule, Sound
from a2data.store.schema import from_table, schema, to_table

FORMAT = "a2data-triplet/3"
FORMATS = (format2.FORMAT, FORMAT)
SLOTS = 8  # ref0 … ref7
NO_PICTURE = to_png(np.full((1, 1, 3), 255, np.uint8))  # of a slot without a reference
NO_SOUND = Sound("", 0.0, -70.0, -120.0, 1.0, -1.0, [], "")
MAX_JSON_BYTES = 8 << 20  # parsed into Python objects, it takes about twenty times as much memory


@dataclass(frozen=True)
class Origin:
    """Origin of a reference's picture, down to the pixel."""

    video_id: str
    path: str
    license: str
    source: str
    clip_id: str
    element_id: str
    parent_id: str
    label: str
    attributes: list[str]
    frame: int  # of the clip
    source_frame: int  # decoded frame of the source video
    pts_s: float  # its presentation time there
    box: Box  # in the clip's frame
    source_box: Box  # the same in pixels of the source picture, as shown
    width: int  # of the clip's frame
    height: int
    mask: Rle  # in the clip's frame
    score: float
    quality: float
    embedder: str
    image_sha256: str


@dataclass(frozen=True)
class Location:
    """Location in the target clip of what a phrase, and a reference from another clip, refers to."""

    frame: int  # of the clip
    source_frame: int  # decoded frame of the source video
    box: Box  # in the clip's frame
    source_box: Box  # the same in pixels of the source picture, as shown
    mask: Rle  # in the clip's frame


@dataclass(frozen=True)
class ReferenceMeta:
    """A reference of a triplet: a picture of something in the clip, and the phrase of the prompt for it."""

    name: str  # "ref0", "ref1" … or "bg"
    role: str  # kind of the element: human, object, face, upper …, background
    phrase: str  # of the element, or of the human it belongs to; "" if the prompt has none
    start: int  # prompt[start:end] == phrase
    end: int
    element_id: str  # element of the clip that it shows
    identity: int
    similarity: float
    copy_risk: float
    same_clip: bool  # the picture is from the target clip, since other clips do not show the subject
    rules: list[Rule]
    origin: Origin
    target: Location  # location of the subject in this clip


@dataclass(frozen=True)
class Unpaired:
    """Something that the prompt mentions but that does not have a reference."""

    element_id: str
    kind: str
    phrase: str
    start: int
    end: int
    target: Location  # its location in this clip


@dataclass(frozen=True)
class NamedCaption:
    """A caption of a clip, one of several."""

    name: str  # "long": the prompt; "short": the phrases of subjects and place; "structured": its fields as JSON
    text: str


@dataclass(frozen=True)
class TripletMeta:
    """Metadata of a triplet: everything except its pixels."""

    clip_id: str
    video_id: str
    path: str
    license: str
    source: str
    label: str
    shot: int
    frames: int
    fps: float
    width: int
    height: int
    crop: Box
    source_frames: list[int]
    source_pts_s: list[float]
    caption: Caption
    references: list[ReferenceMeta]
    unpaired: list[Unpaired]
    made_by: list[str]  # "<stage> <model>@<revision>"
    sound: Sound = NO_SOUND  # of the mp4; absent in samples packed before December 2026, whose mp4 has no sound
    captions: list[NamedCaption] = field(default_factory=list)  # [] in samples packed before December 2026


@dataclass(frozen=True)
class Triplet:
    """Prompt, references, video."""

    facts: TripletMeta
    video: bytes  # mp4
    pictures: dict[str, bytes]  # name of the reference -> PNG, RGB on white
    cut_outs: dict[str, bytes]  # name of the reference -> PNG, RGBA; none for "bg"
    rejected: bytes = b""  # mp4 that is worse than `video`, see a2data.dataset.pair; b"" if this is not a pair
    pair: pairs.Pair | None = None

    @property
    def prompt(self) -> str:
        return self.facts.caption.prompt


def caption_variants(caption: Caption) -> list[NamedCaption]:
    """Return the captions that a structured caption gives."""
    fields = ("shot_type", "shot_angle", "shot_position", "camera_motion", "environment", "lighting")
    (data,) = to_table(Caption, [caption]).to_pylist()
    spans = ("phrase", "start", "end")
    subjects = [{name: value for name, value in s.items() if name not in spans} for s in data["subjects"]]
    structured = {"subjects": subjects} | {name: data[name] for name in fields}
    texts = {
        "long": caption.prompt,
        "short": short_caption(caption),
        "structured": json.dumps(structured, ensure_ascii=False, allow_nan=False),
    }
    return [NamedCaption(name, text) for name, text in texts.items()]


def short_caption(caption: Caption) -> str:
    """Return only the phrases of a prompt for subjects and place, such as "a person in a red top, a cup, a kitchen"."""
    phrases = [subject.phrase for subject in caption.subjects if subject.phrase]
    place = caption.prompt[caption.environment_start : caption.environment_end]
    return ", ".join([*phrases, *([place] if place else [])]) or caption.prompt


def to_members(triplet: Triplet, slots: int = SLOTS) -> dict[str, bytes]:
    """Return extension -> bytes of a triplet's sample, with pictures for ref0 to ref<slots - 1> and bg.

    Raises ValueError if pictures and references differ, and for a reference without a slot.
    """
    names = {reference.name for reference in triplet.facts.references}
    if names != set(triplet.pictures) or names - {"bg"} != set(triplet.cut_outs):
        raise ValueError(f"triplet {triplet.facts.clip_id} has references {sorted(names)} but other pictures")
    slot_names = [f"ref{n}" for n in range(slots)]
    if extra := names - {*slot_names, "bg"}:
        raise ValueError(f"triplet {triplet.facts.clip_id} has a reference {min(extra)}, but only {slots} slots")
    members = {"mp4": triplet.video, "json": to_json(triplet.facts)}
    members |= {f"{name}.png": triplet.pictures.get(name, NO_PICTURE) for name in (*slot_names, "bg")}
    if triplet.pair:
        members |= {pairs.VIDEO: triplet.rejected, pairs.META: pairs.to_json(triplet.pair)}
    return members | {"cutouts.zip": _archive(triplet.cut_outs)}


def to_json(facts: TripletMeta) -> bytes:
    """Return the JSON of a sample. Raises ValueError for a number that JSON cannot represent."""
    # through Arrow, which gives every number the type of its field
    (data,) = to_table(TripletMeta, [facts]).to_pylist()
    for reference in data["references"]:
        reference["rules"] = [_nullable(rule) for rule in reference["rules"]]
    data |= {"format": FORMAT, "prompt": facts.caption.prompt}
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def from_sample(sample: dict[str, Any]) -> Triplet:
    """Return the triplet of an undecoded sample of `webdataset.WebDataset`: extension -> bytes, "__key__" and the like aside.

    Raises ValueError for a sample of another format, KeyError if a member is missing.
    """
    facts = to_facts(sample["json"], sample.get("__key__", ""))
    pair_members = {}
    if pairs.META in sample:
        pair_members = {"rejected": sample[pairs.VIDEO], "pair": pairs.from_json(sample[pairs.META], facts.clip_id)}
    names = [reference.name for reference in facts.references]
    pictures = {name: sample[f"{name}.png"] for name in names}
    cut_outs = [name for name in names if name != "bg"]
    if "cutouts.zip" not in sample and all(f"{name}.rgba.png" in sample for name in cut_outs):  # format 2
        return Triplet(facts, sample["mp4"], pictures, {name: sample[f"{name}.rgba.png"] for name in cut_outs})
    cut_out_images = _from_archive(sample["cutouts.zip"], cut_outs, facts.clip_id)
    return Triplet(facts, sample["mp4"], pictures, cut_out_images, **pair_members)


def _archive(cut_outs: dict[str, bytes]) -> bytes:
    """Return cut-outs as a zip archive. Equal cut-outs give equal bytes."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(cut_outs):
            entry = zipfile.ZipInfo(f"{name}.png")  # of 1 January 1980
            entry.create_system = 3
            archive.writestr(entry, cut_outs[name])
    return data.getvalue()


def _from_archive(data: bytes, names: list[str], key: str) -> dict[str, bytes]:
    """Return the named cut-outs. Raises ValueError for a damaged archive, and for a compressed one, which may be a bomb."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = {name: archive.getinfo(f"{name}.png") for name in names}
            if any(e.compress_type != zipfile.ZIP_STORED or e.file_size > len(data) for e in entries.values()):
                raise ValueError(f"sample {key!r} has compressed cut-outs in its .cutouts.zip")
            return {name: archive.read(entry) for name, entry in entries.items()}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError) as error:
        raise ValueError(f"sample {key!r} has a .cutouts.zip that cannot be read: {error}") from error


def to_facts(text: bytes, key: str = "") -> TripletMeta:
    """Parse the metadata in a sample's JSON.

    Raises ValueError for another format, for JSON that is too long, too deeply nested or ambiguous, and for values with other
    types than those of `TripletMeta`; KeyError, TypeError or AttributeError if the names or the nesting differ.
    """
    if len(text) > MAX_JSON_BYTES:
        raise ValueError(f"sample {key!r} has a JSON of {len(text)} bytes, more than {MAX_JSON_BYTES}")
    try:
        data = json.loads(text, object_pairs_hook=reject_duplicate_keys, parse_constant=reject_constant)
    except RecursionError:
        raise ValueError(f"sample {key!r} has a JSON that is too deeply nested") from None
    if data.get("format") not in FORMATS:
        raise ValueError(
            f"sample {key!r} has the format {data.get('format')!r}, but this version reads {' and '.join(FORMATS)}: repack the "
            "data set"
        )
    if data["format"] == format2.FORMAT:
        data = format2.upgrade(data)
    data.setdefault("sound", asdict(NO_SOUND))
    data.setdefault("captions", [])
    for reference in data["references"]:
        reference["rules"] = [_infinite(rule) for rule in reference["rules"]]
    try:
        table = pa.Table.from_pylist([data], schema=schema(TripletMeta))
    except OverflowError as error:
        raise ValueError(f"sample {key!r} has a number that is out of range: {error}") from error
    for name, column in zip(table.schema.names, table.columns, strict=True):
        check_complete(name, column.combine_chunks(), key)
    return from_table(TripletMeta, table)[0]


def reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object. Raises ValueError for a repeated name, since parsers differ in which value they use."""
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the JSON contains {next(name for name in names if names.count(name) > 1)!r} twice")
    return result


def reject_constant(constant: str) -> float:
    raise ValueError(f"the JSON contains {constant}, which is not valid JSON")


def check_complete(name: str, array: pa.Array, key: str) -> None:
    """Raise ValueError, with its name, for a field that is missing or null, at any depth."""
    if array.null_count:
        raise ValueError(f"sample {key!r} does not have a value for {name}")
    if pa.types.is_struct(array.type):
        for number in range(array.type.num_fields):
            check_complete(f"{name}.{array.type.field(number).name}", array.field(number), key)
    elif pa.types.is_list(array.type) or pa.types.is_fixed_size_list(array.type):
        check_complete(f"{name}[]", array.flatten(), key)


def _nullable(rule: dict[str, Any]) -> dict[str, Any]:
    """Return a rule with null in place of infinities. Raises ValueError for one that `_infinite` would not restore."""
    result = {name: None if isinstance(v, float) and math.isinf(v) else v for name, v in rule.items()}
    if _infinite(result) != rule:
        raise ValueError(f"the rule {rule['name']} is {rule['low']} <= {rule['value']} <= {rule['high']}")
    return result


def _infinite(rule: dict[str, Any]) -> dict[str, Any]:
    """Return a rule with infinities in place of null: an open bound, and a value that lies on an open side, above if both are."""
    low, high, value = rule["low"], rule["high"], rule["value"]
    open_side = math.inf if high is None else -math.inf
    return rule | {
        "low": -math.inf if low is None else low,
        "high": math.inf if high is None else high,
        "value": open_side if value is None else value,
    }
