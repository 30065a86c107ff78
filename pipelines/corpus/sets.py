"""Readers of data sets that others made. Each yields what the set says of a clip; frames are decoded only to count them.

Sources: Phantom-video/Phantom-Data README ("Usage"); PKU-YuanGroup/OpenS2V-Nexus data_process (demo_dataloader,
step5-2_subject_image, step6-2_get_cross-frame).
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from a2data.dataset import triplet as samples
from a2data.dataset import writer
from a2data.elements import phrases
from a2data.media import video
from a2data.media.coco_rle import NO_MASK, Rle
from a2data.media.images import Box
from a2data.store.filename import safe_name, safe_path
from a2data.store.folder import Folder
from pipelines.imported.stages import is_picture

WHOLE: Box = (0.0, 0.0, 0.0, 0.0)
VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi")


class Region(NamedTuple):
    """Where a subject is seen: in a frame of a video, or in a picture."""

    path: str
    frame: int = 0
    box: Box = WHOLE  # pixels inside `crop`
    mask: Rle = NO_MASK
    crop: Box = WHOLE


class Subject(NamedTuple):
    """A subject of a clip."""

    phrase: str
    kind: str
    target: Region | None  # where it is in the clip; None: the set does not say
    references: list[Region]
    start: int = -1  # of the phrase in the prompt; -1: to be searched


class Entry(NamedTuple):
    """A clip of the set."""

    path: str
    prompt: str
    subjects: list[Subject]
    first: int = 0
    end: int = -1  # -1: to the end of the file
    crop: Box = WHOLE
    license: str = ""


class BadEntry(NamedTuple):
    """An entry that cannot be imported."""

    key: str
    why: str


Entries = Iterator[Entry | BadEntry]


def kind_of(phrase: str) -> str:
    """Return "background", "human" or "object" for a phrase or a file's name."""
    words = set(re.findall(r"[a-z]+", phrase.lower()))
    if words & {"background", "bg", "scene", "environment"}:
        return "background"
    return "human" if phrases.parse(phrase).human or words & {"human", "face", "person", "people"} else "object"


# -- plain folders -----------------------------------------------------------------------------------------------------


def folder(root: str) -> Entries:
    """Read NAME.mp4 with its prompt in NAME.txt and its references in NAME/ or references/NAME/ beside it or beside its folder.

    A reference's file name says what it shows: "1-human.png", "red cup.png".
    """
    paths = sorted(path for path in Path(root).rglob("*") if path.suffix.lower() in VIDEOS)
    if not paths:
        raise ValueError(f"{root} has no videos: {', '.join(VIDEOS)} are searched")
    for path in paths:
        text = path.with_suffix(".txt")
        places = (
            path.with_suffix(""),
            path.parent / "references" / path.stem,
            path.parent.parent / "references" / path.stem,
        )
        drawn = sorted(
            {each for place in places if place.is_dir() for each in place.iterdir() if is_picture(each.name)}
        )
        if not text.is_file():
            yield BadEntry(str(path), f"{text.name} with its prompt does not exist")
        elif not drawn:
            yield BadEntry(str(path), f"no pictures in {places[0].name}/ or references/{path.stem}/")
        else:
            subjects = [Subject(*_said(each.stem), None, [Region(str(each))]) for each in drawn]
            yield Entry(str(path), text.read_text(encoding="utf-8").strip(), subjects)


def _said(stem: str) -> tuple[str, str]:
    """Return the phrase and the kind that a file's name says."""
    phrase = " ".join(re.findall(r"[A-Za-z']+", stem))
    return phrase, kind_of(phrase)


# -- Phantom-Data ------------------------------------------------------------------------------------------------------


def phantom(parquet: str, videos: str) -> Entries:
    """Read Phantom-Data's pairs, whose clips were downloaded to <videos>/<vid>.mp4."""
    lengths: dict[str, int] = {}
    for batch in pq.ParquetFile(parquet).iter_batches(256, columns=["vid", "video_caption", "cross_pair"]):
        for row in batch.to_pylist():
            try:
                yield _of_phantom(row, videos, lengths)
            except (KeyError, TypeError, ValueError, OSError) as error:
                yield BadEntry(str(row["vid"]), f"{type(error).__name__}: {error}")


def _of_phantom(row: dict[str, Any], videos: str, lengths: dict[str, int]) -> Entry:
    pairs = row["cross_pair"]
    pairs = json.loads(pairs) if isinstance(pairs, str) else pairs
    subjects = []
    for phrase, about in pairs.items() if isinstance(pairs, dict) else pairs:
        if about is None:
            continue  # Arrow makes a struct of the dictionaries, with null for the phrases of other rows
        about = json.loads(about) if isinstance(about, str) else about
        seen = [_phantom_region(each, videos, lengths, row["vid"]) for each in _listed(about.get("obj_from_tgt_video"))]
        given = [_phantom_region(each, videos, lengths) for each in _listed(about["refer_result"])]
        subjects.append(Subject(phrase, kind_of(phrase), next((s for s in seen if s), None), [g for g in given if g]))
    return Entry(_clip_path(videos, row["vid"]), row["video_caption"] or "", subjects)


def _listed(value: Any) -> list[dict[str, Any]]:
    return [value] if isinstance(value, dict) else [each for each in value or [] if isinstance(each, dict)]


def _phantom_region(about: dict[str, Any], videos: str, lengths: dict[str, int], vid: str = "") -> Region | None:
    """Return a box in a frame; frame_index = int(num_frames * frame_idx), the box x_min, y_min, x_max, y_max."""
    if about.get("bbox") is None or about.get("frame_idx") is None:
        return None
    path = _clip_path(videos, about.get("vid") or vid)
    if path not in lengths:
        lengths[path] = count_frames(path)
    frame = min(lengths[path] - 1, int(lengths[path] * about["frame_idx"]))
    x0, y0, x1, y1 = map(float, about["bbox"])
    return Region(path, frame, (x0, y0, x1, y1))


def _clip_path(videos: str, vid: str) -> str:
    path = os.path.join(videos, safe_name(f"{vid}.mp4", "vid"))
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path} does not exist")
    return path


def count_frames(path: str) -> int:
    """Return the number of frames of a file, by decoding it if its container does not tell."""
    return video.probe(path).frames or sum(1 for _ in video.read(path, video.probe(path).stream))


# -- OpenS2V-5M --------------------------------------------------------------------------------------------------------


def opens2v(root: str, videos: str, pairs: str = "") -> Entries:
    """Read a JSON of OpenS2V-5M, whose masks are in the pictures after `crop`, and its cross-frame pairs if there are any.

    root: the JSON. pairs: folder of the pairs' JSON files; "": a subject's reference is its own picture, as in the set's regular
    pairs.
    """
    entries = json.loads(Path(root).read_text(encoding="utf-8"))
    others: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for path in sorted(Path(pairs).glob("*.json")) if pairs else ():
        for pair in json.loads(path.read_text(encoding="utf-8")):
            ids = [(pair[f"{side}_id"].rpartition("/")[2], pair[f"{side}_class_name"]) for side in ("cur", "aft")]
            others.setdefault(ids[0], []).append(ids[1])
    for key in entries:
        try:
            yield _of_opens2v(key, entries, others if pairs else None, videos)
        except (KeyError, TypeError, ValueError, OSError) as error:
            yield BadEntry(key, f"{type(error).__name__}: {error}")


def _of_opens2v(
    key: str, entries: dict[str, Any], others: dict[tuple[str, str], list[tuple[str, str]]] | None, videos: str
) -> Entry:
    about = entries[key]["metadata"]
    prompt = about.get("face_cap_qwen") or next(iter(about.get("cap") or []), "")
    subjects = []
    for name, region in _opens2v_regions(key, entries, videos):
        if others is None:
            references = [region]
        else:
            paired = [_opens2v_regions(to, entries, videos) for to, _ in others.get((key, name), []) if to in entries]
            wanted = {called for _, called in others.get((key, name), [])}
            references = [found for regions in paired for called, found in regions if called in wanted]
        subjects.append(Subject(name, kind_of(name), region, references))
    first, end = about["face_cut"]
    return Entry(
        os.path.join(videos, safe_path(about["path"], "metadata.path")), prompt, subjects, first, end, _crop(about)
    )


def _crop(about: dict[str, Any]) -> Box:
    x0, x1, y0, y1 = map(float, about["crop"])
    return x0, y0, x1, y1


def _opens2v_regions(key: str, entries: dict[str, Any], videos: str) -> list[tuple[str, Region]]:
    about, annotation = entries[key]["metadata"], entries[key]["annotation"]
    frame = int(annotation["ann_frame_data"]["ann_frame_idx"])
    path = os.path.join(videos, safe_path(about["path"], "metadata.path"))
    crop = _crop(about)
    return [
        (
            annotation["mask_map"][number]["class_name"],
            Region(path, frame, WHOLE, Rle((int(mask["size"][0]), int(mask["size"][1])), mask["counts"]), crop),
        )
        for number, mask in annotation["mask_annotation"][str(frame)].items()
    ]


# -- shards of a2data --------------------------------------------------------------------------------------------------


def shards(root: str, unpacked: str) -> Entries:
    """Read shards of a2data. Clips and references are unpacked to files of the folder `unpacked`, which become the sources."""
    source = Folder(root)
    for row in writer.rows(source):
        try:
            members = writer.read_sample(source, row.clip_id, row.shard, row.offset, row.bytes)
            yield _of_shard(samples.from_sample(members | {"__key__": row.clip_id}), Path(unpacked), row.license)
        except (KeyError, TypeError, ValueError, OSError) as error:
            yield BadEntry(row.clip_id, f"{type(error).__name__}: {error}")


def _of_shard(triplet: samples.Triplet, unpacked: Path, license: str) -> Entry:
    facts = triplet.facts
    place = unpacked / safe_name(facts.clip_id, "clip_id")
    place.mkdir(parents=True, exist_ok=True)
    (place / "clip.mp4").write_bytes(triplet.video)
    subjects = []
    for given in facts.references:
        path = place / safe_name(f"{given.name}.png", facts.clip_id)
        path.write_bytes(triplet.cut_outs.get(given.name) or triplet.pictures[given.name])
        seen = Region(str(place / "clip.mp4"), given.target.frame, given.target.box, given.target.mask)
        subjects.append(
            Subject(given.phrase, given.role, seen, [Region(str(path))], given.start if given.phrase else -1)
        )
    return Entry(str(place / "clip.mp4"), triplet.prompt, subjects, license=license)


def listed(kind: str, root: str, videos: str, pairs: str, unpacked: str) -> Iterable[Entry | BadEntry]:
    """Return the entries of a set. kind: "phantom", "opens2v", "folder" or "shards"."""
    if kind in ("phantom", "opens2v") and not videos:
        raise ValueError(f"--from {kind} needs --videos, the folder of its clips")
    if kind == "phantom":
        return phantom(root, videos)
    if kind == "opens2v":
        return opens2v(root, videos, pairs)
    return folder(root) if kind == "folder" else shards(root, unpacked)
