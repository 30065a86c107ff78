"""Readers of third-party data sets. Each yields the annotations of a clip; frames are decoded only to count them.

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
    """Region of a subject in a frame of a video, or in a picture."""

    path: str
    frame: int = 0
    box: Box = WHOLE  # pixels inside `crop`
    mask: Rle = NO_MASK
    crop: Box = WHOLE


class Subject(NamedTuple):
    """A subject of a clip."""

    phrase: str
    kind: str
    target: Region | None  # its region in the clip; None: not annotated
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
    reason: str


Entries = Iterator[Entry | BadEntry]


def guess_kind(phrase: str) -> str:
    """Return "background", "human" or "object" for a phrase or a file's name."""
    words = set(re.findall(r"[a-z]+", phrase.lower()))
    if words & {"background", "bg", "scene", "environment"}:
        return "background"
    return "human" if phrases.parse(phrase).human or words & {"human", "face", "person", "people"} else "object"


# -- plain folders -----------------------------------------------------------------------------------------------------


def read_folder(root: str) -> Entries:
    """Read NAME.mp4 with its prompt in NAME.txt and its references in NAME/ or references/NAME/ beside it or beside its folder.

    A reference's file name describes it: "1-human.png", "red cup.png".
    """
    paths = sorted(path for path in Path(root).rglob("*") if path.suffix.lower() in VIDEOS)
    if not paths:
        raise ValueError(f"{root} has no videos: {', '.join(VIDEOS)} are searched")
    for path in paths:
        text = path.with_suffix(".txt")
        folders = (
            path.with_suffix(""),
            path.parent / "references" / path.stem,
            path.parent.parent / "references" / path.stem,
        )
        pictures = sorted(
            {each for folder in folders if folder.is_dir() for each in folder.iterdir() if is_picture(each.name)}
        )
        if not text.is_file():
            yield BadEntry(str(path), f"{text.name} with its prompt does not exist")
        elif not pictures:
            yield BadEntry(str(path), f"no pictures in {folders[0].name}/ or references/{path.stem}/")
        else:
            subjects = [Subject(*_phrase_and_kind(each.stem), None, [Region(str(each))]) for each in pictures]
            yield Entry(str(path), text.read_text(encoding="utf-8").strip(), subjects)


def _phrase_and_kind(stem: str) -> tuple[str, str]:
    """Return the phrase and the kind in a file's name."""
    phrase = " ".join(re.findall(r"[A-Za-z']+", stem))
    return phrase, guess_kind(phrase)


# -- Phantom-Data ------------------------------------------------------------------------------------------------------


def read_phantom(parquet: str, videos: str) -> Entries:
    """Read Phantom-Data's pairs, whose clips were downloaded to <videos>/<vid>.mp4."""
    lengths: dict[str, int] = {}
    for batch in pq.ParquetFile(parquet).iter_batches(256, columns=["vid", "video_caption", "cross_pair"]):
        for row in batch.to_pylist():
            try:
                yield _phantom_entry(row, videos, lengths)
            except (KeyError, TypeError, ValueError, OSError) as error:
                yield BadEntry(str(row["vid"]), f"{type(error).__name__}: {error}")


def _phantom_entry(row: dict[str, Any], videos: str, lengths: dict[str, int]) -> Entry:
    pairs = row["cross_pair"]
    pairs = json.loads(pairs) if isinstance(pairs, str) else pairs
    subjects = []
    for phrase, annotation in pairs.items() if isinstance(pairs, dict) else pairs:
        if annotation is None:
            continue  # Arrow makes a struct of the dictionaries, with null for the phrases of other rows
        annotation = json.loads(annotation) if isinstance(annotation, str) else annotation
        targets = [
            _phantom_region(each, videos, lengths, row["vid"])
            for each in _as_list(annotation.get("obj_from_tgt_video"))
        ]
        references = [_phantom_region(each, videos, lengths) for each in _as_list(annotation["refer_result"])]
        subjects.append(
            Subject(phrase, guess_kind(phrase), next((s for s in targets if s), None), [g for g in references if g])
        )
    return Entry(_clip_path(videos, row["vid"]), row["video_caption"] or "", subjects)


def _as_list(value: Any) -> list[dict[str, Any]]:
    return [value] if isinstance(value, dict) else [each for each in value or [] if isinstance(each, dict)]


def _phantom_region(annotation: dict[str, Any], videos: str, lengths: dict[str, int], vid: str = "") -> Region | None:
    """Return a box in a frame; frame_index = int(num_frames * frame_idx), the box x_min, y_min, x_max, y_max."""
    if annotation.get("bbox") is None or annotation.get("frame_idx") is None:
        return None
    path = _clip_path(videos, annotation.get("vid") or vid)
    if path not in lengths:
        lengths[path] = count_frames(path)
    frame = min(lengths[path] - 1, int(lengths[path] * annotation["frame_idx"]))
    x0, y0, x1, y1 = map(float, annotation["bbox"])
    return Region(path, frame, (x0, y0, x1, y1))


def _clip_path(videos: str, vid: str) -> str:
    path = os.path.join(videos, safe_name(f"{vid}.mp4", "vid"))
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path} does not exist")
    return path


def count_frames(path: str) -> int:
    """Return the number of frames of a file, by decoding it if its container does not state it."""
    return video.probe(path).frames or sum(1 for _ in video.read(path, video.probe(path).stream))


# -- OpenS2V-5M --------------------------------------------------------------------------------------------------------


def read_opens2v(root: str, videos: str, pairs: str = "") -> Entries:
    """Read a JSON of OpenS2V-5M, whose masks are in the pictures after `crop`, and its cross-frame pairs if there are any.

    root: the JSON. pairs: folder of the pairs' JSON files; "": a subject's reference is its own picture, as in the set's regular
    pairs.
    """
    entries = json.loads(Path(root).read_text(encoding="utf-8"))
    pairs_of: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for path in sorted(Path(pairs).glob("*.json")) if pairs else ():
        for pair in json.loads(path.read_text(encoding="utf-8")):
            ids = [(pair[f"{side}_id"].rpartition("/")[2], pair[f"{side}_class_name"]) for side in ("cur", "aft")]
            pairs_of.setdefault(ids[0], []).append(ids[1])
    for key in entries:
        try:
            yield _opens2v_entry(key, entries, pairs_of if pairs else None, videos)
        except (KeyError, TypeError, ValueError, OSError) as error:
            yield BadEntry(key, f"{type(error).__name__}: {error}")


def _opens2v_entry(
    key: str, entries: dict[str, Any], pairs_of: dict[tuple[str, str], list[tuple[str, str]]] | None, videos: str
) -> Entry:
    metadata = entries[key]["metadata"]
    prompt = metadata.get("face_cap_qwen") or next(iter(metadata.get("cap") or []), "")
    subjects = []
    for name, region in _opens2v_regions(key, entries, videos):
        if pairs_of is None:
            references = [region]
        else:
            paired = [_opens2v_regions(to, entries, videos) for to, _ in pairs_of.get((key, name), []) if to in entries]
            class_names = {class_name for _, class_name in pairs_of.get((key, name), [])}
            references = [found for regions in paired for class_name, found in regions if class_name in class_names]
        subjects.append(Subject(name, guess_kind(name), region, references))
    first, end = metadata["face_cut"]
    return Entry(
        os.path.join(videos, safe_path(metadata["path"], "metadata.path")),
        prompt,
        subjects,
        first,
        end,
        _crop(metadata),
    )


def _crop(metadata: dict[str, Any]) -> Box:
    x0, x1, y0, y1 = map(float, metadata["crop"])
    return x0, y0, x1, y1


def _opens2v_regions(key: str, entries: dict[str, Any], videos: str) -> list[tuple[str, Region]]:
    metadata, annotation = entries[key]["metadata"], entries[key]["annotation"]
    frame = int(annotation["ann_frame_data"]["ann_frame_idx"])
    path = os.path.join(videos, safe_path(metadata["path"], "metadata.path"))
    crop = _crop(metadata)
    return [
        (
            annotation["mask_map"][number]["class_name"],
            Region(path, frame, WHOLE, Rle((int(mask["size"][0]), int(mask["size"][1])), mask["counts"]), crop),
        )
        for number, mask in annotation["mask_annotation"][str(frame)].items()
    ]


# -- shards of a2data --------------------------------------------------------------------------------------------------


def read_shards(root: str, unpacked: str) -> Entries:
    """Read shards of a2data. Clips and references are unpacked to files of the folder `unpacked`, which become the sources."""
    source = Folder(root)
    for row in writer.rows(source):
        try:
            members = writer.read_sample(source, row.clip_id, row.shard, row.offset, row.bytes)
            yield _shard_entry(samples.from_sample(members | {"__key__": row.clip_id}), Path(unpacked), row.license)
        except (KeyError, TypeError, ValueError, OSError) as error:
            yield BadEntry(row.clip_id, f"{type(error).__name__}: {error}")


def _shard_entry(triplet: samples.Triplet, unpacked: Path, license: str) -> Entry:
    facts = triplet.facts
    clip_folder = unpacked / safe_name(facts.clip_id, "clip_id")
    clip_folder.mkdir(parents=True, exist_ok=True)
    (clip_folder / "clip.mp4").write_bytes(triplet.video)
    subjects = []
    for reference in facts.references:
        path = clip_folder / safe_name(f"{reference.name}.png", facts.clip_id)
        path.write_bytes(triplet.cut_outs.get(reference.name) or triplet.pictures[reference.name])
        target = Region(
            str(clip_folder / "clip.mp4"), reference.target.frame, reference.target.box, reference.target.mask
        )
        subjects.append(
            Subject(
                reference.phrase,
                reference.role,
                target,
                [Region(str(path))],
                reference.start if reference.phrase else -1,
            )
        )
    return Entry(str(clip_folder / "clip.mp4"), triplet.prompt, subjects, license=license)


def read_entries(kind: str, root: str, videos: str, pairs: str, unpacked: str) -> Iterable[Entry | BadEntry]:
    """Return the entries of a set. kind: "phantom", "opens2v", "folder" or "shards"."""
    if kind in ("phantom", "opens2v") and not videos:
        raise ValueError(f"--from {kind} needs --videos, the folder of its clips")
    if kind == "phantom":
        return read_phantom(root, videos)
    if kind == "opens2v":
        return read_opens2v(root, videos, pairs)
    return read_folder(root) if kind == "folder" else read_shards(root, unpacked)
