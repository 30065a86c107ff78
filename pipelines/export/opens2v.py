"""The JSON of OpenS2V-5M: clips with the masks of their subjects, and pairs of subjects across clips.

Source: PKU-YuanGroup/OpenS2V-Nexus data_process/{demo_dataloader,step5-2_subject_image,step6-2_get_cross-frame}.py.

An entry has one frame with masks, so a clip has an entry for each frame in which a subject is outlined: KEY_part<frame>.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from a2data.dataset.triplet import NO_PICTURE
from a2data.media import coco_rle
from a2data.media.coco_rle import Rle
from a2data.media.images import Box
from a2data.store.folder import Folder
from pipelines.export.probe import is_picture, probe
from pipelines.export.target import CheckResult, Exported, SkippedRow

VIDEO_FOLDER = "videos"  # its folder name is the first half of an id in the pairs
JSON, CLUSTERS = "opens2v.json", "cross_frames.json"
UNKNOWN = math.nan  # scores that the shards do not have; the reader makes tensors of them, so not null


@dataclass
class Entry:
    """A clip and the subjects that are outlined in one of its frames, element_id -> class, box and mask."""

    row: Exported
    frame: int
    subjects: dict[str, tuple[str, Box, Rle]] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"{self.row.clip_id}_part{self.frame:04d}"


def write(out: Folder, rows: Sequence[Exported]) -> list[str]:
    """Write the entries, the pairs of each clip, and a background for each entry, white if the clip has none."""
    entries: dict[tuple[str, int], Entry] = {}
    pairs: dict[str, list[dict[str, Any]]] = {}
    by_clip = {row.clip_id: row for row in rows}

    def entry(clip_id: str, frame: int, element_id: str, *subject: Any) -> Entry:
        entry_of_frame = entries.setdefault((clip_id, frame), Entry(by_clip[clip_id], frame))
        entry_of_frame.subjects.setdefault(element_id, subject)  # type: ignore[arg-type]
        return entry_of_frame

    for row in rows:
        for reference in (each.of for each in row.pictures if each.role != "background" and each.of.target.mask.counts):
            # a face has the phrase of its owner
            name = (
                (reference.phrase or reference.origin.label)
                if reference.role in ("human", "object")
                else reference.role
            )
            target, origin = reference.target, reference.origin
            target_entry = entry(row.clip_id, target.frame, reference.element_id, name, target.box, target.mask)
            if origin.clip_id in by_clip and origin.mask.counts:  # otherwise its clip is not in the export
                source_entry = entry(origin.clip_id, origin.frame, origin.element_id, name, origin.box, origin.mask)
                pairs.setdefault(row.clip_id, []).append(_pair(target_entry, source_entry, name, reference.similarity))
    sorted_entries = sorted(entries.values(), key=lambda each: each.key)
    out.put(_json({each.key: _entry_json(each) for each in sorted_entries}), JSON)
    out.put(
        _json({clip: sorted({each["aft_id"] for each in clip_pairs}) for clip, clip_pairs in pairs.items()}), CLUSTERS
    )
    for clip, clip_pairs in pairs.items():
        out.put(_json(clip_pairs), "cross_frames", f"{clip}.json")
    for each in sorted_entries:
        backgrounds = [out.get(p.path) for p in each.row.pictures if p.role == "background"]
        out.put(backgrounds[0] if backgrounds and backgrounds[0] else NO_PICTURE, "background", f"{each.key}.png")
    return [JSON, CLUSTERS, "cross_frames/*.json", "background/*.png"]


def _pair(target: Entry, source: Entry, name: str, similarity: float) -> dict[str, Any]:
    return {
        "cur_id": f"{VIDEO_FOLDER}/{target.key}",
        "aft_id": f"{VIDEO_FOLDER}/{source.key}",
        "cur_class_name": name,
        "aft_class_name": name,
        "text_similarity": UNKNOWN,
        "image_similarity": similarity,
        "cur_frame_idx": target.frame,
        "aft_frame_idx": source.frame,
    }


def _entry_json(entry: Entry) -> dict[str, Any]:
    row, numbered = entry.row, dict(enumerate(entry.subjects.values(), 1))
    subjects = [each for each in row.pictures if each.role != "background"]
    return {
        "metadata": {
            "path": row.video.removeprefix(f"{VIDEO_FOLDER}/"),
            "crop": [0, row.width, 0, row.height],
            "face_cut": [0, row.frames],
            "fps": row.fps,
            "num_frames": row.frames,
            "resolution": {"height": row.height, "width": row.width},
            "aesthetic": UNKNOWN,
            "motion": UNKNOWN,
            "tech": UNKNOWN,
            "cap": [row.prompt, *row.captions],
            "face_cap_qwen": row.prompt,
        },
        "word_tags": {
            "background": [each.phrase for each in row.pictures if each.role == "background" and each.phrase],
            "subject": sorted({each.phrase for each in subjects if each.role == "human" and each.phrase}),
            "object": sorted({each.phrase for each in subjects if each.role != "human" and each.phrase}),
            "pre_define": [],
        },
        "annotation": {
            "ann_frame_data": {
                "ann_frame_idx": entry.frame,
                "annotations": [
                    {"class_name": name, "bbox": list(box), "gme_score": UNKNOWN, "aes_score": UNKNOWN}
                    for name, box, _ in numbered.values()
                ],
                "img_width": row.width,
                "img_height": row.height,
                "foreground_ase_score": UNKNOWN,
                "background_ase_score": UNKNOWN,
            },
            "mask_map": {str(n): {"class_name": name} for n, (name, *_) in numbered.items()},
            "mask_annotation": {
                str(entry.frame): {
                    str(n): {"size": list(mask.size), "counts": mask.counts} for n, (*_, mask) in numbered.items()
                }
            },
        },
    }


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()


def check(out: Folder) -> CheckResult:
    """Run what OpenS2V's reader does over every entry: frames, crop, masks, background."""
    entries = json.loads(out.get(JSON) or b"{}")
    skipped = [SkippedRow(f"{JSON} {key}", why) for key, entry in entries.items() for why in _problems(out, key, entry)]
    ids = {f"{VIDEO_FOLDER}/{key}" for key in entries}
    for cluster, members in json.loads(out.get(CLUSTERS) or b"{}").items():
        skipped += [
            SkippedRow(f"{CLUSTERS} {cluster}", f"{each} is not in {JSON}") for each in members if each not in ids
        ]
    notes = [
        f"OpenS2V: is_cross_frame=True takes the entries that {CLUSTERS} lists; the others have no pair in the export"
    ]
    return CheckResult(len(entries), skipped, notes)


def _problems(out: Folder, key: str, entry: dict[str, Any]) -> Iterator[str]:
    metadata, annotation = entry["metadata"], entry["annotation"]
    try:
        media = probe(out, f"{VIDEO_FOLDER}/{metadata['path']}")
    except ValueError as error:
        yield str(error)
        return
    x0, x1, y0, y1 = metadata["crop"]
    frame = annotation["ann_frame_data"]["ann_frame_idx"]
    if max(metadata["face_cut"][1], frame + 1) > media.frames or x1 > media.width or y1 > media.height:
        yield f"frames or crop are outside the {media.frames} frames of {media.width} x {media.height} px"
    for number, mask in annotation["mask_annotation"][str(frame)].items():
        try:
            if tuple(mask["size"]) != (y1 - y0, x1 - x0):
                raise ValueError(f"its size is {mask['size']}, the picture's {[y1 - y0, x1 - x0]}")
            if not coco_rle.decode(Rle((y1 - y0, x1 - x0), mask["counts"])).any():
                raise ValueError("it is empty")
        except ValueError as error:
            yield f"mask {number}: {error}"
        if int(number) > len(annotation["ann_frame_data"]["annotations"]):
            yield f"mask {number} has no annotation"
    if not is_picture(out, f"background/{key}.png"):
        yield f"background/{key}.png does not exist"
