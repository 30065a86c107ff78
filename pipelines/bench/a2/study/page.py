"""User study: a page that shows videos of several anonymised systems side by side, with questions about each.

The criteria are those of the paper's user study (Fei et al. 2025, arXiv 2504.02436, Table 3); the wording of the anchors is ours.
"""

import hashlib
import io
import json
import random
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from PIL import Image

from a2data.media import images
from a2data.media.pictures import read_picture
from a2data.media.video import open_bytes
from a2data.store.filename import safe_name
from pipelines.bench.a2.cases import Case
from pipelines.html.page import data_uri, render

FORMAT = "a2-study/1"
SIDE_PX = 360  # the longer side at which the pictures of the references are shown


class Criterion(NamedTuple):
    """A question and the meaning of its answers."""

    title: str
    asks: str
    anchors: dict[int, str]  # the answers that there are; three for what is only told apart coarsely


CRITERIA: dict[str, Criterion] = {
    "face_consistency": Criterion(
        "Face consistency",
        "Is the person's face that of the picture?",
        {1: "another person", 3: "resembles them", 5: "clearly the same person"},
    ),
    "dress_consistency": Criterion(
        "Dress consistency",
        "Are the clothes those of the picture?",
        {
            1: "other clothes",
            2: "one trait in common",
            3: "same kind, other details",
            4: "small differences",
            5: "the same",
        },
    ),
    "background_consistency": Criterion(
        "Background consistency",
        "Is the place that of the picture?",
        {
            1: "another place",
            2: "one trait in common",
            3: "same kind of place",
            4: "small differences",
            5: "the same place",
        },
    ),
    "object_consistency": Criterion(
        "Object consistency",
        "Is the object that of the picture?",
        {1: "missing, or another", 3: "same kind, other details", 5: "the same object"},
    ),
    "instruction_following": Criterion(
        "Instruction following",
        "Does what the text says happen?",
        {1: "nothing of it", 2: "little", 3: "about half", 4: "most", 5: "all of it"},
    ),
    "rationality": Criterion(
        "Rationality",
        "Are sizes, places and contacts of things in space possible?",
        {
            1: "impossible throughout",
            2: "grave mistakes",
            3: "noticeable mistakes",
            4: "a slight mistake",
            5: "all possible",
        },
    ),
    "subject_coherence": Criterion(
        "Subject coherence",
        "Do person and object stay whole and themselves from beginning to end?",
        {
            1: "they dissolve",
            2: "grave changes",
            3: "noticeable changes",
            4: "slight changes",
            5: "they stay themselves",
        },
    ),
    "motion_smoothness": Criterion(
        "Motion smoothness",
        "Is the motion smooth and natural?",
        {1: "jerky or frozen", 2: "often unnatural", 3: "sometimes unnatural", 4: "nearly natural", 5: "natural"},
    ),
    "aesthetic_quality": Criterion(
        "Aesthetic quality",
        "Is it a beautiful picture: composition, light, colour?",
        {1: "ugly", 2: "rather ugly", 3: "plain", 4: "rather beautiful", 5: "beautiful"},
    ),
    "video_quality": Criterion(
        "Video quality",
        "Is the picture clear: sharpness, noise, artifacts?",
        {1: "unwatchable", 2: "poor", 3: "acceptable", 4: "good", 5: "flawless"},
    ),
}


def make(
    cases: Sequence[Case], systems: Mapping[str, Path], out: Path, seed: int = 0, embed: bool = False, title: str = ""
) -> dict[str, Any]:
    """Write study.html and key.json to a folder and return the key, which maps videos to systems and must not go to raters.

    systems: name -> the folder with its <case>.mp4. The order of a case's videos depends on the seed. Videos are copied to media/
    under neutral names, or with `embed` into the page, in either case without metadata and sound, which may identify the system.
    Cases without any video are skipped. Raises ValueError if none is left.
    """
    key: dict[str, Any] = {"format": FORMAT, "seed": seed, "systems": list(systems), "slots": {}, "missing": {}}
    entries = []
    for case in cases:
        file = safe_name(f"{case.id}.mp4", "id of a case")
        video_of = {name: path for name, folder in systems.items() if (path := folder / file).is_file()}
        if missing := [name for name in systems if name not in video_of]:
            key["missing"][case.id] = missing
        if not video_of:
            continue
        order = list(video_of)
        random.Random(f"{seed}/{case.id}").shuffle(order)
        slots = dict(zip(_letters(len(order)), order, strict=True))
        key["slots"][case.id] = slots
        videos = {
            slot: write_video(video_of[name].read_bytes(), str(video_of[name]), f"{seed}/{name}/{case.id}", out, embed)
            for slot, name in slots.items()
        }
        references = [{"role": e.role, "label": e.label, "picture": thumbnail(e.path)} for e in case.elements]
        entries.append({"id": case.id, "prompt": case.prompt, "references": references, "videos": videos})
    if not entries:
        raise ValueError(f"none of {', '.join(systems)} has a video named like a case, such as {cases[0].id}.mp4")
    return write(key, entries, CRITERIA, out, title or "Which video is better?")


def write(
    key: dict[str, Any],
    entries: Sequence[Mapping[str, Any]],
    criteria: Mapping[str, Criterion],
    out: Path,
    title: str,
    asked_slots: Sequence[str] = (),
) -> dict[str, Any]:
    """Write study.html and key.json, and return the key with the study's id.

    entries: id, prompt, references and videos of each case, see `make`. asked_slots: the slots that the page asks about; ()
    for all.
    """
    criteria_json = {
        name: {**c._asdict(), "anchors": {str(n): t for n, t in c.anchors.items()}} for name, c in criteria.items()
    }
    data = {"format": FORMAT, "title": title, "criteria": criteria_json, "cases": entries}
    if asked_slots:
        data["asked"] = list(asked_slots)
    key["study"] = data["study"] = hashlib.sha256(json.dumps([data, key], sort_keys=True).encode()).hexdigest()[:12]
    out.mkdir(parents=True, exist_ok=True)
    (out / "study.html").write_text(page(data))
    (out / "key.json").write_text(json.dumps(key, indent=1, ensure_ascii=False) + "\n")
    return key


def page(data: Mapping[str, Any]) -> str:
    """Return the page with its data embedded."""
    # "<" is escaped so that no word of the data ends the script
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    folder = "bench/a2/study"
    values = {"title": data["title"], "data": text}
    css, scripts = [f"{folder}/study.css"], [f"{folder}/study.js"]
    return render(f"{folder}/study.html", css, scripts, "data: 'self' file:", **values)


def _letters(count: int) -> list[str]:
    if count > len(string.ascii_uppercase):
        raise ValueError(f"{count} systems in one study are more than people can compare: 26 at most")
    return list(string.ascii_uppercase[:count])


def write_video(mp4: bytes, context: str, name: str, out: Path, embed: bool) -> str:
    """Return the source of a video on the page: a data URL, or a path relative to the page. context: for an error message."""
    data = strip_metadata(mp4, context)
    if embed:
        return data_uri(data, "video/mp4")
    file = f"media/{hashlib.sha256(name.encode()).hexdigest()[:16]}.mp4"
    (out / "media").mkdir(parents=True, exist_ok=True)
    (out / file).write_bytes(data)
    return file


def strip_metadata(mp4: bytes, context: str) -> bytes:
    """Return an mp4 with the unchanged video stream, without metadata and sound. Raises ValueError if it is not a video."""
    target = io.BytesIO()
    try:
        with (
            open_bytes(mp4) as source,
            av.open(target, "w", format="mp4", options={"fflags": "+bitexact"}) as output,
        ):
            stream = source.streams.video[0]
            copy = output.add_stream_from_template(stream)
            copy.metadata.clear()
            for packet in source.demux(stream):
                if packet.dts is not None:
                    packet.stream = copy
                    output.mux(packet)
    except (av.error.FFmpegError, IndexError) as error:
        raise ValueError(f"{context} is not a video that can be copied ({error})") from error
    return target.getvalue()


def thumbnail(picture: Any) -> str:
    """Return a small picture as a data URL, from a path or an open file."""
    image = Image.fromarray(read_picture(picture))
    image.thumbnail((SIDE_PX, SIDE_PX))
    return data_uri(images.to_jpeg(np.asarray(image)))
