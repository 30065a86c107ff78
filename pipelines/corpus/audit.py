"""`a2data audit`: what is wrong with the references of a data set, measured on the pictures and videos of its shards.

Only what the samples contain counts, not what they say of themselves, so it serves sets that others made (`a2data import`).
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import av
import cv2
import numpy as np

from a2data.dataset import writer
from a2data.dataset.triplet import ReferenceMeta, Triplet, from_sample
from a2data.elements import caption_flags, phrases
from a2data.media import coco_rle, images, video
from a2data.store.folder import Folder
from pipelines.corpus.imports import ground_mask
from stages.retrieve import copies

# distances of two cut-outs (stages.retrieve.copies) up to which they are the same picture, also scaled, mirrored or re-encoded
SAME_PIXELS, SAME_OUTLINE = 0.02, 0.05
RISKY = 0.8  # copy risk whose fraction is printed
BOXY = 0.98  # fraction of its box that a mask fills: it is the box
WHOLE = 0.9  # fraction of the frame that an element may cover
LARGEST = 0.6  # least fraction of a mask in its largest piece
BLANK = 3.0  # standard deviation, grey levels, below which a picture shows nothing
MIN_SIDE_PX = 16

Frames = dict[int, np.ndarray]  # number -> (h, w, 3) uint8 RGB
Faces = Callable[[np.ndarray], Sequence[Any]]  # role faces of model_zoo.cards


class Finding(NamedTuple):
    """A fault of a sample."""

    clip_id: str
    name: str  # of the reference; "" for the prompt or the whole sample
    fault: str  # a few words, the same for all findings of a rule
    detail: str


@dataclass
class Audit:
    """What was found in a data set."""

    samples: int = 0
    references: int = 0
    copy_risks: list[float] = field(default_factory=list)  # as the set, or the import, states them
    same_person: int = 0  # references of people whose face agrees with that of the target
    compared_faces: int = 0
    findings: list[Finding] = field(default_factory=list)


def audit(
    folder: Folder, faces: Faces | None, min_face: float, report: Callable[[str], None] = lambda _: None
) -> Audit:
    """Examine every sample of a folder of shards. faces: a model, or None to compare none; min_face: cosine of one person."""
    found, prompts = Audit(), dict[str, str]()
    for number, row in enumerate(writer.rows(folder), 1):
        report(f"sample {number}")
        found.samples += 1
        try:
            members = writer.read_sample(folder, row.clip_id, row.shard, row.offset, row.bytes)
            triplet = from_sample(members | {"__key__": row.clip_id})
            examine(found, triplet, target_frames(triplet), faces, min_face)
            prompts[row.clip_id] = triplet.prompt
        except (ValueError, KeyError, TypeError, OSError, av.error.FFmpegError) as error:
            found.findings.append(Finding(row.clip_id, "", "unreadable", f"{type(error).__name__}: {error}"))
    for flag, clips in caption_flags.flags(prompts).items():
        found.findings += [Finding(clip_id, "", f"caption {flag}", why) for clip_id, why in clips.items()]
    return found


def target_frames(triplet: Triplet) -> Frames:
    """Return the frames in which the sample outlines its targets. Decodes the whole clip."""
    wanted = {given.target.frame for given in triplet.facts.references}
    with video.open_bytes(triplet.video) as container:
        shown = enumerate(container.decode(container.streams.video[0]))
        return {number: frame.to_ndarray(format="rgb24") for number, frame in shown if number in wanted}


def examine(found: Audit, triplet: Triplet, frames: Frames, faces: Faces | None, min_face: float) -> None:
    """Add what is found in one sample to the audit."""
    found.findings += of_prompt(triplet)
    for given in triplet.facts.references:
        found.references += 1
        found.copy_risks.append(given.copy_risk)
        found.findings += of_reference(triplet, given, frames)
        cosine = same_face(triplet, given, frames, faces) if faces and given.role in ("human", "face") else None
        if cosine is not None:
            found.compared_faces += 1
            found.same_person += cosine >= min_face
            if cosine < min_face:
                detail = f"cosine of the faces = {cosine:.3f}, of one person from {min_face:.3f}"
                found.findings.append(Finding(triplet.facts.clip_id, given.name, "another person", detail))


def of_prompt(triplet: Triplet) -> list[Finding]:
    """Return the references that a caption does not name."""
    clip_id, prompt = triplet.facts.clip_id, triplet.prompt
    found = []
    words = set(re.findall(r"[a-z]+", prompt.lower()))
    for given in triplet.facts.references:
        if given.role == "background" or (given.phrase and prompt[given.start : given.end] == given.phrase):
            continue
        noun = phrases.parse(given.phrase or given.origin.label).noun.split()
        if not (noun and noun[-1] in words) and not (given.role in ("human", "face") and phrases.parse(prompt).human):
            what = given.phrase or given.origin.label or given.role
            found.append(Finding(clip_id, given.name, "not in the caption", f"{what!r} is not in {prompt[:80]!r}"))
    return found


def of_reference(triplet: Triplet, given: ReferenceMeta, frames: Frames) -> list[Finding]:
    """Return the faults of a reference's picture."""
    clip_id = triplet.facts.clip_id
    picture = images.from_png(triplet.cut_outs.get(given.name) or triplet.pictures[given.name])
    mask = ground_mask(picture)
    shown = picture[..., :3][mask]
    if min(picture.shape[:2]) < MIN_SIDE_PX or shown.std() < BLANK:
        about = f"{picture.shape[1]} x {picture.shape[0]} px, contrast {shown.std():.1f}"
        return [Finding(clip_id, given.name, "blank or tiny", about)]
    found = []
    if given.role != "background":
        found += [Finding(clip_id, given.name, "doubtful mask", why) for why in doubts(mask)]
        if (drawn := outlined(given, frames)) is not None:
            why = [f"in the clip: {each}" for each in shape_doubts(drawn)]
            found += [Finding(clip_id, given.name, "doubtful mask", each) for each in why]
    if alike := copied(given, picture, mask, frames):
        found.append(Finding(clip_id, given.name, "copy of its target", alike))
    return found


def doubts(mask: np.ndarray) -> list[str]:
    """Return why the mask of a cut-out should not be trusted."""
    y, x = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = mask[y[0] : y[-1] + 1, x[0] : x[-1] + 1]
    found = [f"it fills {box.mean():.0%} of its box"] if box.mean() >= BOXY else []
    return found + shape_doubts(mask, framed=False)


def shape_doubts(mask: np.ndarray, framed: bool = True) -> list[str]:
    """Return why a mask's shape should not be trusted. framed: whether it is that of a whole frame."""
    if not mask.any():
        return ["it is empty"]
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    largest = stats[1:, cv2.CC_STAT_AREA].max() / mask.sum()
    found = [f"its largest piece is {largest:.0%} of it"] if largest < LARGEST else []
    return found + ([f"it covers {mask.mean():.0%} of the frame"] if framed and mask.mean() > WHOLE else [])


def copied(given: ReferenceMeta, picture: np.ndarray, mask: np.ndarray, frames: Frames) -> str:
    """Return why a reference is a copy of what its clip shows of it, mirrored or not; "" if it is not, or if that is unknown."""
    drawn = outlined(given, frames)
    if drawn is None or given.role == "background":
        return ""
    own = images.cut_out(frames[given.target.frame], drawn, images.bounds(drawn))
    cuts = own, np.dstack([picture[..., :3], mask * np.uint8(255)])
    stamps = [np.frombuffer(images.stamp(cut), np.uint8, images.STAMP_PX**2) for cut in cuts]
    found = copies.compare_stamps(*(copies.Stamps.of([one]) for one in stamps))
    pixels, pose = (float(distances[0, 0]) for distances in found[:2])
    same = pixels <= SAME_PIXELS and pose <= SAME_OUTLINE
    return f"cut-outs differ by {pixels:.3f} in pixels and {pose:.3f} in outline" if same else ""


def outlined(given: ReferenceMeta, frames: Frames) -> np.ndarray | None:
    """Return the mask of the target in its frame, (h, w) bool; None if the set does not outline it."""
    if not given.target.mask.counts or given.target.frame not in frames:
        return None
    drawn = coco_rle.decode(given.target.mask)
    return drawn if drawn.shape == frames[given.target.frame].shape[:2] and drawn.any() and not drawn.all() else None


def same_face(triplet: Triplet, given: ReferenceMeta, frames: Frames, faces: Faces) -> float | None:
    """Return the cosine of the faces of a reference and of its target; None if either shows none or is not certain."""
    picture = images.from_png(triplet.cut_outs.get(given.name) or triplet.pictures[given.name])
    shown = images.on_white(picture) if picture.shape[2] == 4 else picture
    one = _largest(faces(shown))
    place = given.target
    if one is None or place.frame not in frames:
        return None
    frame = frames[place.frame]
    other = _largest([face for face in faces(frame) if _inside(face, place)])
    if other is None:
        return None
    return float(np.asarray(one.embedding) @ np.asarray(other.embedding))


def _inside(face: Any, place: Any) -> bool:
    x, y = (face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2
    return place.box[0] <= x <= place.box[2] and place.box[1] <= y <= place.box[3]


def _largest(found: Sequence[Any]) -> Any | None:
    known = [face for face in found if face.embedding is not None and len(face.embedding)]
    return max(known, key=lambda face: (face.box[2] - face.box[0]) * (face.box[3] - face.box[1]), default=None)


def text(found: Audit) -> str:
    """Return the audit as text: counts, distribution of the copy risk, and the faults by kind."""
    lines = [f"{found.samples} samples, {found.references} references"]
    if found.copy_risks:
        counts = np.histogram(np.clip(found.copy_risks, 0, 1), bins=10, range=(0, 1))[0]
        lines.append("copy risk as stated, in tenths from 0 to 1: " + " ".join(map(str, counts)))
        lines.append(
            f"median {np.median(found.copy_risks):.3f}, {np.mean(np.array(found.copy_risks) >= RISKY):.1%} from {RISKY}"
        )
    if found.compared_faces:
        share = found.same_person / found.compared_faces
        lines.append(
            f"identity precision {share:.3f}: {found.same_person} of {found.compared_faces} references with a face"
        )
    else:
        lines.append("identity precision: not known, no reference and target both show a face")
    by_fault = Counter(each.fault for each in found.findings)
    bad = len({each.clip_id for each in found.findings})
    lines.append(f"{len(found.findings)} findings in {bad} samples" + (":" if by_fault else ""))
    for fault, count in by_fault.most_common():
        lines.append(f"{fault}: {count}")
        lines += [
            f"  {e.clip_id}{f' {e.name}' if e.name else ''}: {e.detail}" for e in found.findings if e.fault == fault
        ]
    return "\n".join(lines) + "\n"
