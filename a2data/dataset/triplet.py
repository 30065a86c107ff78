"""A triplet and the members of its WebDataset sample. Only this module defines their names.

{key}.mp4             the clip, H.264, without audio
{key}.json            `TripletMeta`, canonical JSON: sorted keys, no spaces, UTF-8; infinities as "inf" and "-inf"
{key}.ref0.png        a reference on white, at its position in the frame of its own clip; ref1, ref2 … likewise
{key}.ref0.rgba.png   the same cut out, with transparency
{key}.bg.png          the background, if one was found
"""

import base64
import json
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from a2data.media.images import Box
from a2data.records import Caption, Rule
from a2data.store.schema import from_table, schema

FORMAT = "a2data-triplet/2"
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
    mask: str  # a2data.media.images.to_rle of the mask in the clip's frame, base64
    score: float
    quality: float
    embedder: str
    image_sha256: str


@dataclass(frozen=True)
class Place:
    """Location in the target clip of what a phrase, and a reference from another clip, refers to."""

    frame: int  # of the clip
    source_frame: int  # decoded frame of the source video
    box: Box  # in the clip's frame
    source_box: Box  # the same in pixels of the source picture, as shown
    mask: str  # a2data.media.images.to_rle of the mask in the clip's frame, base64


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
    target: Place  # location of the subject in this clip


@dataclass(frozen=True)
class Unpaired:
    """Something that the prompt mentions but that does not have a reference."""

    element_id: str
    kind: str
    phrase: str
    start: int
    end: int
    target: Place  # its location in this clip


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


@dataclass(frozen=True)
class Triplet:
    """Prompt, references, video."""

    facts: TripletMeta
    video: bytes  # mp4
    pictures: dict[str, bytes]  # name of the reference -> PNG, RGB on white
    cut_outs: dict[str, bytes]  # name of the reference -> PNG, RGBA; none for "bg"

    @property
    def prompt(self) -> str:
        return self.facts.caption.prompt


def to_members(triplet: Triplet) -> dict[str, bytes]:
    """Return extension -> bytes of a triplet's sample. Raises ValueError if pictures and references differ."""
    names = {given.name for given in triplet.facts.references}
    if names != set(triplet.pictures) or names - {"bg"} != set(triplet.cut_outs):
        raise ValueError(f"triplet {triplet.facts.clip_id} has references {sorted(names)} but other pictures")
    facts = {"format": FORMAT, "prompt": triplet.prompt, **_finite(asdict(triplet.facts))}
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    members = {"mp4": triplet.video, "json": text.encode()}
    members |= {f"{name}.png": data for name, data in triplet.pictures.items()}
    return members | {f"{name}.rgba.png": data for name, data in triplet.cut_outs.items()}


def from_sample(sample: dict[str, Any]) -> Triplet:
    """Return the triplet of an undecoded sample of `webdataset.WebDataset`: extension -> bytes, "__key__" and the like aside.

    Raises ValueError for a sample of another format, KeyError if a member is missing.
    """
    facts = to_facts(sample["json"], sample.get("__key__", ""))
    names = [given.name for given in facts.references]
    return Triplet(
        facts,
        sample["mp4"],
        {name: sample[f"{name}.png"] for name in names},
        {name: sample[f"{name}.rgba.png"] for name in names if name != "bg"},
    )


def to_facts(text: bytes, key: str = "") -> TripletMeta:
    """Parse the metadata in a sample's JSON.

    Raises ValueError for another format, for JSON that is too long, too deeply nested or ambiguous, and for values with other
    types than those of `TripletMeta`; KeyError, TypeError or AttributeError if the names or the nesting differ.
    """
    if len(text) > MAX_JSON_BYTES:
        raise ValueError(f"sample {key!r} has a JSON of {len(text)} bytes, more than {MAX_JSON_BYTES}")
    try:
        data = json.loads(text, object_pairs_hook=without_repeats, parse_constant=not_a_number)
    except RecursionError:
        raise ValueError(f"sample {key!r} has a JSON that is too deeply nested") from None
    if data.get("format") != FORMAT:
        raise ValueError(
            f"sample {key!r} has the format {data.get('format')!r}, but this version reads {FORMAT!r}: repack the data set"
        )
    for given in data["references"]:
        for rule in given["rules"]:
            rule |= {name: float(rule[name]) for name in ("value", "low", "high")}
    try:
        table = pa.Table.from_pylist([data], schema=schema(TripletMeta))
    except OverflowError as error:
        raise ValueError(f"sample {key!r} has a number that is out of range: {error}") from error
    for field, column in zip(table.schema, table.columns, strict=True):
        check_complete(field.name, column.combine_chunks(), key)
    return from_table(TripletMeta, table)[0]


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object. Raises ValueError for a repeated name, since parsers differ in which value they use."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the JSON contains {next(name for name in names if names.count(name) > 1)!r} twice")
    return made


def not_a_number(constant: str) -> float:
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


def mask_text(rle: bytes) -> str:
    return base64.b64encode(rle).decode()


def mask_bytes(text: str) -> bytes:
    """Return the input of `a2data.media.images.from_rle` from Origin.mask."""
    return base64.b64decode(text, validate=True)


def _finite(value: Any) -> Any:
    """Replace infinities by "inf" and "-inf", which float() reads, since JSON cannot represent the open side of a rule."""
    if isinstance(value, dict):
        return {name: _finite(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return str(value) if isinstance(value, float) and abs(value) == float("inf") else value
