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
from pipelines.imported.records import REFERENCE, TABLE, ImportedClip, Named, Paired, Shown
from pipelines.imported.stages import is_picture, read_picture
from pipelines.sources.forgotten import without_forgotten
from pipelines.sources.manifest import sources
from stages.segment.clock import Downscaler, to_frame

LOOKED_PX = 192  # width at which a reference is searched in its clip
LOOKED_FRAMES = 7
SCALES = np.geomspace(0.15, 1.0, 10)  # height of the reference, fraction of the frame's
FINE_PX = 128  # height at which a place that was found is compared again
NEARBY = np.linspace(0.94, 1.06, 7)  # factors of that height
COARSE = 0.7  # correlation at LOOKED_PX from which a place is compared again
FOUND = 0.9  # correlation from which a reference is said to be in the clip
WHITE = 250  # grey level from which a picture without transparency counts as ground


class Listed(NamedTuple):
    """Counts of an import."""

    clips: int
    references: int
    bad: list[BadEntry]


@dataclass
class Draft:
    """A clip that is being listed."""

    video_id: str
    first: int
    end: int
    crop: tuple[float, float, float, float]
    entry: Entry | None = None  # None: it only shows references
    shown: list[Shown] = field(default_factory=list)
    named: list[Named] = field(default_factory=list)
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
        self.shown.append(Shown(element_id, kind, label, region.frame, region.box, mask))
        return element_id


def write(store: Store, entries: Iterable[Entry | BadEntry], license: str, per_shard: int) -> Listed:
    """Write both tables. license: of the entries that state none. Raises ValueError if no entry can be imported."""
    good: list[Entry] = []
    bad: list[BadEntry] = []
    for each in entries:
        (bad if isinstance(each, BadEntry) else good).append(each)  # type: ignore[arg-type]
    if not good:
        raise ValueError("no entry can be imported: " + "; ".join(f"{each.key}: {each.why}" for each in bad[:3]))
    id_of, listed = _identified(good, license)
    rows = without_forgotten(store, listed)
    if gone := {row.video_id for row in listed} - {row.video_id for row in rows}:
        bad += [
            BadEntry(path, "was deleted by `a2data forget`") for path, video_id in id_of.items() if video_id in gone
        ]
        id_of = {path: video_id for path, video_id in id_of.items() if video_id not in gone}
        good = [entry for entry in good if entry.path in id_of]
    drafts: dict[str, Draft] = {}
    for entry in good:
        try:
            _target(entry, id_of, drafts)
        except (ValueError, OSError) as error:
            bad.append(BadEntry(entry.path, f"{type(error).__name__}: {error}"))
    home = {row.video_id: n // per_shard for n, row in enumerate(rows)}
    if set(store.shards("manifest")) - set(home.values()):
        raise ValueError(f"{store.root} has more files than the set has now: import it to another work folder")
    paired = _paired(drafts, id_of, home)
    for shard in sorted(set(home.values())):
        mine = [row for row in rows if home[row.video_id] == shard]
        clips = sorted((d for d in drafts.values() if home[d.video_id] == shard), key=lambda draft: draft.clip_id)
        store.write("manifest", shard, Source, mine)
        store.write(TABLE, shard, ImportedClip, [_row(draft, paired[draft.clip_id]) for draft in clips])
    targets = sum(draft.entry is not None for draft in drafts.values())
    return Listed(targets, sum(map(len, paired.values())), bad)


def _identified(entries: Sequence[Entry], license: str) -> tuple[dict[str, str], list[Source]]:
    """Return path -> video_id of every file, and the manifest's rows; a copy has the id of the first file with its bytes."""
    stated: dict[str, str] = {}
    for entry in entries:
        for path in (entry.path, *(r.path for s in entry.subjects for r in s.references)):
            stated.setdefault(path, entry.license or license)
    by_path = {os.path.abspath(path): license for path, license in stated.items()}
    rows = [replace(row, license=by_path[row.path]) for row in sources(sorted(stated))]
    known = {row.path: row for row in rows}
    original = {path: known[known[os.path.abspath(path)].duplicate_of or os.path.abspath(path)] for path in stated}
    return {path: row.video_id for path, row in original.items()}, [row for row in rows if not row.duplicate_of]


def _target(entry: Entry, id_of: dict[str, str], drafts: dict[str, Draft]) -> None:
    end = entry.end if entry.end >= 0 else count_frames(entry.path)
    draft = Draft(id_of[entry.path], entry.first, end, entry.crop, entry)
    if (known := drafts.get(draft.clip_id)) and known.entry:
        # OpenS2V-5M has an entry for each frame with outlines
        if (known.end, known.crop, known.entry.prompt) != (end, entry.crop, entry.prompt):
            raise ValueError(
                f"the clip {draft.clip_id} is in the set twice with other frames or prompts; the first counts"
            )
        draft = known
    for subject in entry.subjects:
        region = subject.target or locate(entry, end, subject)
        if not draft.first <= region.frame < draft.end:
            raise ValueError(
                f"{subject.phrase!r} is outlined in frame {region.frame}, outside {draft.first} to {draft.end}"
            )
        element_id = draft.add(region, subject.kind, subject.phrase)
        start = subject.start if subject.start >= 0 else entry.prompt.lower().find(subject.phrase.lower())
        if subject.phrase and start >= 0:
            span = entry.prompt[start : start + len(subject.phrase)]
            draft.named.append(Named(element_id, span, start, start + len(span)))
        draft.pairs += [(element_id, given, subject.kind) for given in subject.references]
    drafts[draft.clip_id] = draft


def _paired(drafts: dict[str, Draft], id_of: dict[str, str], home: dict[str, int]) -> dict[str, list[Paired]]:
    """Return the pairs of each clip; clips that only show references are added to the drafts."""
    holds: dict[str, list[Draft]] = defaultdict(list)
    for draft in drafts.values():
        holds[draft.video_id].append(draft)
    made: dict[str, list[Paired]] = defaultdict(list)
    for draft in list(drafts.values()):
        for element_id, given, kind in (pair for pair in draft.pairs if pair[1].path in id_of):
            video_id = id_of[given.path]
            region = _outlined(given) if is_picture(given.path) else given
            source = next(
                (d for d in holds[video_id] if d.first <= region.frame < d.end and d.crop == region.crop), None
            )
            if source is None:
                source = Draft(video_id, region.frame, region.frame + 1, region.crop)
                drafts.setdefault(source.clip_id, source)
                holds[video_id].append(source)
            made[draft.clip_id].append(
                Paired(element_id, home[video_id], source.clip_id, source.add(region, kind, kind))
            )
    return made


def _row(draft: Draft, pairs: list[Paired]) -> ImportedClip:
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


def _outlined(region: Region) -> Region:
    """Return the region of a picture with its mask: what is not transparent, or not the white ground around it."""
    mask = ground_mask(read_picture(region.path))
    return region if mask.all() else region._replace(mask=coco_rle.encode(mask))


def ground_mask(picture: np.ndarray) -> np.ndarray:
    """Return the (h, w) bool mask of what a picture shows: all of it unless it is transparent or white along its border."""
    if picture.shape[2] == 4:
        shown = picture[..., 3] > 0
    else:
        white = (picture.min(axis=2) >= WHITE).astype(np.uint8)
        around = np.pad(white, 1, constant_values=1)
        _, numbers = cv2.connectedComponents(around)
        shown = (numbers != numbers[0, 0])[1:-1, 1:-1]
    return shown if shown.any() else np.ones(shown.shape, bool)


def locate(entry: Entry, end: int, subject: Subject) -> Region:
    """Return where a clip shows its reference, searched by correlation; the whole middle frame if it is not found.

    What is found is nearly the same picture: a copy. Another view of the subject does not correlate.
    """
    middle = Region(entry.path, (entry.first + end) // 2)
    drawn = next((each for each in subject.references if is_picture(each.path)), None)
    if drawn is None or subject.kind == "background":
        return middle
    picture = read_picture(drawn.path)
    mask = ground_mask(picture)
    x0, y0, x1, y1 = map(int, images.bounds(mask))
    part, inside = picture[y0:y1, x0:x1, :3], mask[y0:y1, x0:x1]
    best = max(_matches(entry, end, part, inside), default=None, key=lambda found: found[0])
    if best is None or best[0] < FOUND:
        return middle
    _, frame, (left, top, right, bottom), (height, width) = best
    drawn_mask = np.zeros((height, width), bool)
    space = images.crop(drawn_mask, (left, top, right, bottom))
    space[:] = cv2.resize(inside.astype(np.uint8), space.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    return Region(entry.path, frame, mask=coco_rle.encode(drawn_mask))


def _matches(
    entry: Entry, end: int, part: np.ndarray, inside: np.ndarray
) -> Iterator[tuple[float, int, tuple[float, ...], tuple[int, int]]]:
    """Yield the best correlation of the part with each of LOOKED_FRAMES frames, the frame, the box there, height and width."""
    wanted = set(np.linspace(entry.first, end - 1, LOOKED_FRAMES).astype(int).tolist())
    facts = video.probe(entry.path)
    upright = Downscaler(facts.width // 2 * 2, facts.height // 2 * 2, facts.rotation)
    for frame in video.read(entry.path, facts.stream):
        if frame.index >= end:
            return
        if frame.index in wanted:
            whole = to_frame(upright.planes(frame.picture)).to_ndarray(format="rgb24")
            size = (LOOKED_PX, round(whole.shape[0] * LOOKED_PX / whole.shape[1]))
            grey = cv2.cvtColor(cv2.resize(whole, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
            score, box = best_match(grey, part, inside)
            if score >= COARSE:
                large = tuple(side * whole.shape[1] / LOOKED_PX for side in box)
                score, box = refined(whole, part, inside, large)
                yield score, frame.index, box, whole.shape[:2]


def refined(
    frame: np.ndarray, part: np.ndarray, inside: np.ndarray, box: Sequence[float]
) -> tuple[float, tuple[float, ...]]:
    """Return the correlation of a part with a frame near a box that `best_match` found, -1 to 1, and the exact box.

    Compared at FINE_PX and nearby scales. frame: (h, w, 3) uint8. Small pictures of other takes correlate as well as copies do.
    """
    height = min(FINE_PX, part.shape[0])
    shrink = height / (box[3] - box[1])
    rows, columns = frame.shape[:2]
    x0, y0, x1, y1 = images.clamp((box[0], box[1], box[2], box[3]), rows, columns, margin=0.12)
    around = frame[y0:y1, x0:x1]
    size = (max(1, round(around.shape[1] * shrink)), max(1, round(around.shape[0] * shrink)))
    grey = cv2.cvtColor(cv2.resize(around, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    score, found = max(_correlation(grey, part, inside, round(height * scale)) for scale in NEARBY)
    return score, tuple(side / shrink + corner for side, corner in zip(found, (x0, y0, x0, y0), strict=True))


def _correlation(
    grey: np.ndarray, part: np.ndarray, inside: np.ndarray, height: int
) -> tuple[float, tuple[float, ...]]:
    """Return the best masked correlation of a part of that height with a grey picture, and its box there."""
    width = round(part.shape[1] * height / part.shape[0])
    if min(height, width) < 8 or width > grey.shape[1] or height > grey.shape[0]:
        return 0.0, WHOLE
    template = cv2.cvtColor(cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    mask = cv2.resize(inside.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    if not mask.any() or template[mask > 0].std() < 4:
        return 0.0, WHOLE  # a flat part correlates with anything
    found = cv2.matchTemplate(grey, template, cv2.TM_CCOEFF_NORMED, mask=mask)
    found = np.where(np.isfinite(found) & (np.abs(found) <= 1.001), found, -1.0)
    y, x = np.unravel_index(int(found.argmax()), found.shape)
    return float(found[y, x]), (float(x), float(y), float(x + width), float(y + height))


def best_match(grey: np.ndarray, part: np.ndarray, inside: np.ndarray) -> tuple[float, tuple[float, ...]]:
    """Return the best masked correlation of a part over SCALES, -1 to 1, and its box in the grey frame, (h, w) uint8."""
    return max(_correlation(grey, part, inside, round(grey.shape[0] * scale)) for scale in SCALES)
