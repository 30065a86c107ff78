"""`a2data import`: the manifest and the table `imported` of a work folder, from the entries of a data set."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import cv2
import numpy as np

from a2data.media import coco_rle, images, video
from a2data.records import Source
from a2data.store.tables import Store
from pipelines.corpus.sets import WHOLE, BadEntry, Entry, Region, Subject, count_frames
from pipelines.imported.records import REFERENCE, TABLE, ImportedClip, ImportedElement, ImportedPair, ImportedPhrase
from pipelines.imported.stages import is_picture, read_picture
from pipelines.sources.forgotten import without_forgotten
from pipelines.sources.manifest import sources
from stages.segment.clock import Downscaler, to_frame

SEARCH_PX = 192  # width at which a reference is searched in its clip
SEARCH_FRAMES = 7
SCALES = np.geomspace(0.15, 1.0, 10)  # height of the reference, fraction of the frame's
FINE_PX = 128  # height at which a match is refined
FINE_SCALES = np.linspace(0.94, 1.06, 7)  # factors of that height
MIN_COARSE_CORRELATION = 0.7  # correlation at SEARCH_PX from which a match is refined
MIN_CORRELATION = 0.9  # correlation from which the clip contains the reference
WHITE_LEVEL = 250  # grey level from which a picture without transparency counts as ground


class ImportCounts(NamedTuple):
    """Counts of an import."""

    clips: int
    references: int
    bad: list[BadEntry]


@dataclass
class ClipDraft:
    """A clip that is being listed."""

    video_id: str
    first: int
    end: int
    crop: tuple[float, float, float, float]
    entry: Entry | None = None  # None: it only shows references
    shown: list[ImportedElement] = field(default_factory=list)
    named: list[ImportedPhrase] = field(default_factory=list)
    pairs: list[tuple[str, Region, str]] = field(default_factory=list)  # element_id, reference, its kind

    @property
    def clip_id(self) -> str:
        return f"{self.video_id}-{self.first:08d}"

    def add(self, region: Region, kind: str, label: str) -> str:
        """Add an element, or return the id of the one with the same outline."""
        mask = region.mask
        for each in self.shown:
            if (each.kind, each.source_frame, each.box, each.mask) == (kind, region.frame, region.box, mask):
                return each.element_id
        number = sum(each.kind == kind for each in self.shown)
        element_id = f"{self.clip_id}/{kind}/{number}"
        self.shown.append(ImportedElement(element_id, kind, label, region.frame, region.box, mask))
        return element_id


def write(store: Store, entries: Iterable[Entry | BadEntry], license: str, per_shard: int) -> ImportCounts:
    """Write both tables. license: of the entries that state none. Raises ValueError if no entry can be imported."""
    valid: list[Entry] = []
    errors: list[BadEntry] = []
    for entry in entries:
        (errors if isinstance(entry, BadEntry) else valid).append(entry)  # type: ignore[arg-type]
    if not valid:
        raise ValueError(
            "no entry can be imported: " + "; ".join(f"{error.key}: {error.reason}" for error in errors[:3])
        )
    id_of, manifest_rows = _identify_files(valid, license)
    rows = without_forgotten(store, manifest_rows)
    if deleted := {row.video_id for row in manifest_rows} - {row.video_id for row in rows}:
        errors += [
            BadEntry(path, "was deleted by `a2data forget`") for path, video_id in id_of.items() if video_id in deleted
        ]
        id_of = {path: video_id for path, video_id in id_of.items() if video_id not in deleted}
        valid = [entry for entry in valid if entry.path in id_of]
    drafts: dict[str, ClipDraft] = {}
    for entry in valid:
        try:
            _add_target(entry, id_of, drafts)
        except (ValueError, OSError) as error:
            errors.append(BadEntry(entry.path, f"{type(error).__name__}: {error}"))
    shard_of = {row.video_id: n // per_shard for n, row in enumerate(rows)}
    if set(store.shards("manifest")) - set(shard_of.values()):
        raise ValueError(f"{store.root} has more files than the set has now: import it to another work folder")
    paired = _pairs_by_clip(drafts, id_of, shard_of)
    for shard in sorted(set(shard_of.values())):
        sources_of_shard = [row for row in rows if shard_of[row.video_id] == shard]
        clips = sorted((d for d in drafts.values() if shard_of[d.video_id] == shard), key=lambda draft: draft.clip_id)
        store.write("manifest", shard, Source, sources_of_shard)
        store.write(TABLE, shard, ImportedClip, [_row(draft, paired[draft.clip_id]) for draft in clips])
    targets = sum(draft.entry is not None for draft in drafts.values())
    return ImportCounts(targets, sum(map(len, paired.values())), errors)


def _identify_files(entries: Sequence[Entry], license: str) -> tuple[dict[str, str], list[Source]]:
    """Return path -> video_id of every file, and the manifest's rows; a copy has the id of the first file with its bytes."""
    license_of: dict[str, str] = {}
    for entry in entries:
        for path in (entry.path, *(r.path for s in entry.subjects for r in s.references)):
            license_of.setdefault(path, entry.license or license)
    license_by_path = {os.path.abspath(path): license for path, license in license_of.items()}
    rows = [replace(row, license=license_by_path[row.path]) for row in sources(sorted(license_of))]
    row_of = {row.path: row for row in rows}
    first_copy = {
        path: row_of[row_of[os.path.abspath(path)].duplicate_of or os.path.abspath(path)] for path in license_of
    }
    return {path: row.video_id for path, row in first_copy.items()}, [row for row in rows if not row.duplicate_of]


def _add_target(entry: Entry, id_of: dict[str, str], drafts: dict[str, ClipDraft]) -> None:
    end = entry.end if entry.end >= 0 else count_frames(entry.path)
    draft = ClipDraft(id_of[entry.path], entry.first, end, entry.crop, entry)
    if (existing := drafts.get(draft.clip_id)) and existing.entry:
        # OpenS2V-5M has an entry for each frame with outlines
        if (existing.end, existing.crop, existing.entry.prompt) != (end, entry.crop, entry.prompt):
            raise ValueError(
                f"the clip {draft.clip_id} is in the set twice with other frames or prompts; the first counts"
            )
        draft = existing
    for subject in entry.subjects:
        region = subject.target or locate_reference(entry, end, subject)
        if not draft.first <= region.frame < draft.end:
            raise ValueError(
                f"{subject.phrase!r} is outlined in frame {region.frame}, outside {draft.first} to {draft.end}"
            )
        element_id = draft.add(region, subject.kind, subject.phrase)
        start = subject.start if subject.start >= 0 else entry.prompt.lower().find(subject.phrase.lower())
        if subject.phrase and start >= 0:
            span = entry.prompt[start : start + len(subject.phrase)]
            draft.named.append(ImportedPhrase(element_id, span, start, start + len(span)))
        draft.pairs += [(element_id, reference, subject.kind) for reference in subject.references]
    drafts[draft.clip_id] = draft


def _pairs_by_clip(
    drafts: dict[str, ClipDraft], id_of: dict[str, str], shard_of: dict[str, int]
) -> dict[str, list[ImportedPair]]:
    """Return the pairs of each clip; clips that only show references are added to the drafts."""
    drafts_by_video: dict[str, list[ClipDraft]] = defaultdict(list)
    for draft in drafts.values():
        drafts_by_video[draft.video_id].append(draft)
    pairs: dict[str, list[ImportedPair]] = defaultdict(list)
    for draft in list(drafts.values()):
        for element_id, reference, kind in (pair for pair in draft.pairs if pair[1].path in id_of):
            video_id = id_of[reference.path]
            region = _with_mask(reference) if is_picture(reference.path) else reference
            source = next(
                (d for d in drafts_by_video[video_id] if d.first <= region.frame < d.end and d.crop == region.crop),
                None,
            )
            if source is None:
                source = ClipDraft(video_id, region.frame, region.frame + 1, region.crop)
                drafts.setdefault(source.clip_id, source)
                drafts_by_video[video_id].append(source)
            pairs[draft.clip_id].append(
                ImportedPair(element_id, shard_of[video_id], source.clip_id, source.add(region, kind, kind))
            )
    return pairs


def _row(draft: ClipDraft, pairs: list[ImportedPair]) -> ImportedClip:
    return ImportedClip(
        clip_id=draft.clip_id,
        video_id=draft.video_id,
        purpose="target" if draft.entry else REFERENCE,
        first=draft.first,
        end=draft.end,
        crop=draft.crop,
        prompt=draft.entry.prompt if draft.entry else "",
        shown=draft.shown,
        named=draft.named,
        paired=pairs,
    )


def _with_mask(region: Region) -> Region:
    """Return the region of a picture with its mask: what is not transparent, or not the white ground around it."""
    mask = foreground_mask(read_picture(region.path))
    return region if mask.all() else region._replace(mask=coco_rle.encode(mask))


def foreground_mask(picture: np.ndarray) -> np.ndarray:
    """Return the (h, w) bool mask of what a picture shows: all of it unless it is transparent or white along its border."""
    if picture.shape[2] == 4:
        foreground = picture[..., 3] > 0
    else:
        white = (picture.min(axis=2) >= WHITE_LEVEL).astype(np.uint8)
        padded = np.pad(white, 1, constant_values=1)
        _, labels = cv2.connectedComponents(padded)
        foreground = (labels != labels[0, 0])[1:-1, 1:-1]
    return foreground if foreground.any() else np.ones(foreground.shape, bool)


def locate_reference(entry: Entry, end: int, subject: Subject) -> Region:
    """Return the region of a clip that correlates with its reference; the whole middle frame if there is none.

    A match is nearly the same picture: a copy. Another view of the subject does not correlate.
    """
    middle_frame = Region(entry.path, (entry.first + end) // 2)
    picture_reference = next((each for each in subject.references if is_picture(each.path)), None)
    if picture_reference is None or subject.kind == "background":
        return middle_frame
    picture = read_picture(picture_reference.path)
    mask = foreground_mask(picture)
    x0, y0, x1, y1 = map(int, images.bounds(mask))
    part, part_mask = picture[y0:y1, x0:x1, :3], mask[y0:y1, x0:x1]
    best = max(_matches(entry, end, part, part_mask), default=None, key=lambda match: match[0])
    if best is None or best[0] < MIN_CORRELATION:
        return middle_frame
    _, frame, (left, top, right, bottom), (height, width) = best
    frame_mask = np.zeros((height, width), bool)
    target = images.crop(frame_mask, (left, top, right, bottom))
    target[:] = cv2.resize(part_mask.astype(np.uint8), target.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    return Region(entry.path, frame, mask=coco_rle.encode(frame_mask))


def _matches(
    entry: Entry, end: int, part: np.ndarray, part_mask: np.ndarray
) -> Iterator[tuple[float, int, tuple[float, ...], tuple[int, int]]]:
    """Yield the best correlation of the part with each of SEARCH_FRAMES frames, the frame, the box there, height and width."""
    frame_numbers = set(np.linspace(entry.first, end - 1, SEARCH_FRAMES).astype(int).tolist())
    info = video.probe(entry.path)
    upright = Downscaler(info.width // 2 * 2, info.height // 2 * 2, info.rotation)
    for frame in video.read(entry.path, info.stream):
        if frame.index >= end:
            return
        if frame.index in frame_numbers:
            full_frame = to_frame(upright.planes(frame.picture)).to_ndarray(format="rgb24")
            size = (SEARCH_PX, round(full_frame.shape[0] * SEARCH_PX / full_frame.shape[1]))
            grey = cv2.cvtColor(cv2.resize(full_frame, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
            score, box = best_match(grey, part, part_mask)
            if score >= MIN_COARSE_CORRELATION:
                scaled_box = tuple(side * full_frame.shape[1] / SEARCH_PX for side in box)
                score, box = refine_match(full_frame, part, part_mask, scaled_box)
                yield score, frame.index, box, full_frame.shape[:2]


def refine_match(
    frame: np.ndarray, part: np.ndarray, part_mask: np.ndarray, box: Sequence[float]
) -> tuple[float, tuple[float, ...]]:
    """Return the correlation of a part with a frame near a box that `best_match` found, -1 to 1, and the exact box.

    Compared at FINE_PX and nearby scales. frame: (h, w, 3) uint8. Small pictures of other takes correlate as well as copies do.
    """
    height = min(FINE_PX, part.shape[0])
    shrink = height / (box[3] - box[1])
    rows, columns = frame.shape[:2]
    x0, y0, x1, y1 = images.clamp((box[0], box[1], box[2], box[3]), rows, columns, margin=0.12)
    neighbourhood = frame[y0:y1, x0:x1]
    size = (max(1, round(neighbourhood.shape[1] * shrink)), max(1, round(neighbourhood.shape[0] * shrink)))
    grey = cv2.cvtColor(cv2.resize(neighbourhood, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    score, match_box = max(_correlation(grey, part, part_mask, round(height * scale)) for scale in FINE_SCALES)
    return score, tuple(side / shrink + corner for side, corner in zip(match_box, (x0, y0, x0, y0), strict=True))


def _correlation(
    grey: np.ndarray, part: np.ndarray, part_mask: np.ndarray, height: int
) -> tuple[float, tuple[float, ...]]:
    """Return the best masked correlation of a part of that height with a grey picture, and its box there."""
    width = round(part.shape[1] * height / part.shape[0])
    if min(height, width) < 8 or width > grey.shape[1] or height > grey.shape[0]:
        return 0.0, WHOLE
    template = cv2.cvtColor(cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    mask = cv2.resize(part_mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    if not mask.any() or template[mask > 0].std() < 4:
        return 0.0, WHOLE  # a flat part correlates with anything
    scores = cv2.matchTemplate(grey, template, cv2.TM_CCOEFF_NORMED, mask=mask)
    scores = np.where(np.isfinite(scores) & (np.abs(scores) <= 1.001), scores, -1.0)
    y, x = np.unravel_index(int(scores.argmax()), scores.shape)
    return float(scores[y, x]), (float(x), float(y), float(x + width), float(y + height))


def best_match(grey: np.ndarray, part: np.ndarray, part_mask: np.ndarray) -> tuple[float, tuple[float, ...]]:
    """Return the best masked correlation of a part over SCALES, -1 to 1, and its box in the grey frame, (h, w) uint8."""
    return max(_correlation(grey, part, part_mask, round(grey.shape[0] * scale)) for scale in SCALES)
