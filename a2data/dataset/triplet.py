"""A triplet and the members of its WebDataset sample: the one place that knows their names.

{key}.mp4             the clip, H.264, without sound
{key}.json            `Facts`, canonical JSON: sorted keys, no spaces, UTF-8; infinities as "inf" and "-inf"
{key}.ref0.png        a reference on white, where it stood in the frame of its own clip; ref1, ref2 … likewise
{key}.ref0.rgba.png   the same cut out, with transparency
{key}.bg.png          the place, where one was found
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
MAX_JSON_BYTES = 8 << 20  # objects of Python take some twenty times as much


@dataclass(frozen=True)
class Origin:
    """Where a reference's picture comes from, down to the pixel."""

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
    """Where in its own clip something is: what a phrase, and a reference of another clip, stands for."""

    frame: int  # of the clip
    source_frame: int  # decoded frame of the source video
    box: Box  # in the clip's frame
    source_box: Box  # the same in pixels of the source picture, as shown
    mask: str  # a2data.media.images.to_rle of the mask in the clip's frame, base64


@dataclass(frozen=True)
class ReferenceMeta:
    """A reference of a triplet: a picture of something in the clip, and the words of the prompt that it stands for."""

    name: str  # "ref0", "ref1" … or "bg"
    role: str  # kind of the element: human, object, face, upper …, background
    phrase: str  # of the element, or of the human it belongs to; "" where the prompt has none
    start: int  # prompt[start:end] == phrase
    end: int
    element_id: str  # what it shows in the clip
    identity: int
    similarity: float
    copy_risk: float
    same_clip: bool  # no other clip shows it: this is the target's own picture
    rules: list[Rule]
    origin: Origin
    target: Place  # where in this clip what it shows is


@dataclass(frozen=True)
class Unpaired:
    """Something the prompt speaks of that has no reference."""

    element_id: str
    kind: str
    phrase: str
    start: int
    end: int
    target: Place  # where in this clip it is


@dataclass(frozen=True)
class TripletMeta:
    """Everything about a triplet but its pixels."""

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
    """Extension -> bytes, for a sample whose key is the clip's id. Raises ValueError where pictures and references differ."""
    names = {given.name for given in triplet.facts.references}
    if names != set(triplet.pictures) or names - {"bg"} != set(triplet.cut_outs):
        raise ValueError(f"triplet {triplet.facts.clip_id} has references {sorted(names)} but other pictures")
    facts = {"format": FORMAT, "prompt": triplet.prompt, **_finite(asdict(triplet.facts))}
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    members = {"mp4": triplet.video, "json": text.encode()}
    members |= {f"{name}.png": data for name, data in triplet.pictures.items()}
    return members | {f"{name}.rgba.png": data for name, data in triplet.cut_outs.items()}


def from_sample(sample: dict[str, Any]) -> Triplet:
    """The triplet of a sample as `webdataset.WebDataset` yields it, undecoded: extension -> bytes, "__key__" and the like aside.

    Raises ValueError for a sample of another format, KeyError where a member is missing.
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
    """The facts in a sample's JSON.

    Raises ValueError for another format, for JSON that is too long, nested too deeply, ambiguous, or whose values are not of the
    types of `Facts`; KeyError, TypeError or AttributeError where what is named or nested is something else.
    """
    if len(text) > MAX_JSON_BYTES:
        raise ValueError(f"sample {key!r} has a JSON of {len(text)} bytes, more than {MAX_JSON_BYTES}")
    try:
        data = json.loads(text, object_pairs_hook=without_repeats, parse_constant=not_a_number)
    except RecursionError:
        raise ValueError(f"sample {key!r} has a JSON that is nested too deeply") from None
    if data.get("format") != FORMAT:
        raise ValueError(f"sample {key!r} is {data.get('format')!r}; this version reads {FORMAT!r}: pack it again")
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
    """A JSON object. Raises ValueError for a name that occurs twice: readers differ in which of the values they take."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it says {next(name for name in names if names.count(name) > 1)!r} twice")
    return made


def not_a_number(constant: str) -> float:
    raise ValueError(f"it has {constant}, which is not JSON")


def check_complete(name: str, array: pa.Array, key: str) -> None:
    """Raises ValueError, naming the field, for one that is missing or null, at any depth."""
    if array.null_count:
        raise ValueError(f"sample {key!r} has nothing for {name}")
    if pa.types.is_struct(array.type):
        for number in range(array.type.num_fields):
            check_complete(f"{name}.{array.type.field(number).name}", array.field(number), key)
    elif pa.types.is_list(array.type) or pa.types.is_fixed_size_list(array.type):
        check_complete(f"{name}[]", array.flatten(), key)


def mask_text(rle: bytes) -> str:
    return base64.b64encode(rle).decode()


def mask_bytes(text: str) -> bytes:
    """What `a2data.media.images.from_rle` takes, from Origin.mask."""
    return base64.b64decode(text, validate=True)


def _finite(value: Any) -> Any:
    """JSON has no infinity: an open side of a rule becomes the text "inf" or "-inf", which float() reads."""
    if isinstance(value, dict):
        return {name: _finite(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return str(value) if isinstance(value, float) and abs(value) == float("inf") else value
