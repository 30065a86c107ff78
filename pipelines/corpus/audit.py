"""`a2data audit`: faults of the references of a data set, measured on the pictures and videos of its shards.

It measures the content of the samples and does not rely on their metadata, so it also audits imported sets (`a2data import`).
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
from pipelines.corpus.imports import foreground_mask
from stages.retrieve import copies

# distances of two cut-outs (stages.retrieve.copies) up to which they are the same picture, also scaled, mirrored or re-encoded
SAME_PIXELS, SAME_OUTLINE = 0.02, 0.05
HIGH_COPY_RISK = 0.8  # copy risk whose fraction is printed
MAX_BOX_FILL = 0.98  # fraction of its box that a mask fills: it is the box
MAX_FRAME_COVER = 0.9  # fraction of the frame that an element may cover
MIN_LARGEST_COMPONENT = 0.6  # least fraction of a mask in its largest piece
MIN_CONTRAST = 3.0  # standard deviation, grey levels, below which a picture shows nothing
MIN_SIDE_PX = 16

Frames = dict[int, np.ndarray]  # number -> (h, w, 3) uint8 RGB
FaceDetector = Callable[[np.ndarray], Sequence[Any]]  # role faces of model_zoo.cards


class Finding(NamedTuple):
    """A fault of a sample."""

    clip_id: str
    name: str  # of the reference; "" for the prompt or the whole sample
    fault: str  # a few words, the same for all findings of a rule
    detail: str


@dataclass
class Audit:
    """Counts and findings of a data set."""

    samples: int = 0
    references: int = 0
    copy_risks: list[float] = field(default_factory=list)  # as stated by the set or the import
    same_person: int = 0  # references of people whose face matches that of the target
    compared_faces: int = 0
    findings: list[Finding] = field(default_factory=list)


def audit(
    folder: Folder, faces: FaceDetector | None, min_face: float, report: Callable[[str], None] = lambda _: None
) -> Audit:
    """Examine every sample of a folder of shards. faces: a model, or None to compare none; min_face: cosine of one person."""
    result, prompts = Audit(), dict[str, str]()
    for n, row in enumerate(writer.rows(folder), 1):
        report(f"sample {n}")
        result.samples += 1
        try:
            members = writer.read_sample(folder, row.clip_id, row.shard, row.offset, row.bytes)
            triplet = from_sample(members | {"__key__": row.clip_id})
            audit_sample(result, triplet, target_frames(triplet), faces, min_face)
            prompts[row.clip_id] = triplet.prompt
        except (ValueError, KeyError, TypeError, OSError, av.error.FFmpegError) as error:
            result.findings.append(Finding(row.clip_id, "", "unreadable", f"{type(error).__name__}: {error}"))
    for flag, clips in caption_flags.flags(prompts).items():
        result.findings += [Finding(clip_id, "", f"caption {flag}", detail) for clip_id, detail in clips.items()]
    return result


def target_frames(triplet: Triplet) -> Frames:
    """Return the frames in which the sample outlines its targets. Decodes the whole clip."""
    frame_numbers = {reference.target.frame for reference in triplet.facts.references}
    with video.open_bytes(triplet.video) as container:
        numbered = enumerate(container.decode(container.streams.video[0]))
        return {number: frame.to_ndarray(format="rgb24") for number, frame in numbered if number in frame_numbers}


def audit_sample(result: Audit, triplet: Triplet, frames: Frames, faces: FaceDetector | None, min_face: float) -> None:
    """Add the findings of one sample to the audit."""
    result.findings += prompt_findings(triplet)
    for reference in triplet.facts.references:
        result.references += 1
        result.copy_risks.append(reference.copy_risk)
        result.findings += reference_findings(triplet, reference, frames)
        cosine = (
            face_similarity(triplet, reference, frames, faces)
            if faces and reference.role in ("human", "face")
            else None
        )
        if cosine is not None:
            result.compared_faces += 1
            result.same_person += cosine >= min_face
            if cosine < min_face:
                detail = f"cosine of the faces = {cosine:.3f}, of one person from {min_face:.3f}"
                result.findings.append(Finding(triplet.facts.clip_id, reference.name, "another person", detail))


def prompt_findings(triplet: Triplet) -> list[Finding]:
    """Return the references that a caption does not name."""
    clip_id, prompt = triplet.facts.clip_id, triplet.prompt
    findings = []
    words = set(re.findall(r"[a-z]+", prompt.lower()))
    for reference in triplet.facts.references:
        if reference.role == "background" or (
            reference.phrase and prompt[reference.start : reference.end] == reference.phrase
        ):
            continue
        noun = phrases.parse(reference.phrase or reference.origin.label).noun.split()
        if not (noun and noun[-1] in words) and not (
            reference.role in ("human", "face") and phrases.parse(prompt).human
        ):
            missing = reference.phrase or reference.origin.label or reference.role
            findings.append(
                Finding(clip_id, reference.name, "not in the caption", f"{missing!r} is not in {prompt[:80]!r}")
            )
    return findings


def reference_findings(triplet: Triplet, reference: ReferenceMeta, frames: Frames) -> list[Finding]:
    """Return the faults of a reference's picture."""
    clip_id = triplet.facts.clip_id
    picture = images.from_png(triplet.cut_outs.get(reference.name) or triplet.pictures[reference.name])
    mask = foreground_mask(picture)
    foreground = picture[..., :3][mask]
    if min(picture.shape[:2]) < MIN_SIDE_PX or foreground.std() < MIN_CONTRAST:
        detail = f"{picture.shape[1]} x {picture.shape[0]} px, contrast {foreground.std():.1f}"
        return [Finding(clip_id, reference.name, "blank or tiny", detail)]
    findings = []
    if reference.role != "background":
        findings += [Finding(clip_id, reference.name, "doubtful mask", fault) for fault in mask_faults(mask)]
        if (mask_in_clip := target_mask(reference, frames)) is not None:
            faults = [f"in the clip: {fault}" for fault in shape_faults(mask_in_clip)]
            findings += [Finding(clip_id, reference.name, "doubtful mask", fault) for fault in faults]
    if evidence := copy_evidence(reference, picture, mask, frames):
        findings.append(Finding(clip_id, reference.name, "copy of its target", evidence))
    return findings


def mask_faults(mask: np.ndarray) -> list[str]:
    """Return why the mask of a cut-out should not be trusted."""
    y, x = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = mask[y[0] : y[-1] + 1, x[0] : x[-1] + 1]
    faults = [f"it fills {box.mean():.0%} of its box"] if box.mean() >= MAX_BOX_FILL else []
    return faults + shape_faults(mask, is_full_frame=False)


def shape_faults(mask: np.ndarray, is_full_frame: bool = True) -> list[str]:
    """Return why a mask's shape should not be trusted. is_full_frame: whether it is that of a whole frame."""
    if not mask.any():
        return ["it is empty"]
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    largest = stats[1:, cv2.CC_STAT_AREA].max() / mask.sum()
    faults = [f"its largest piece is {largest:.0%} of it"] if largest < MIN_LARGEST_COMPONENT else []
    return faults + (
        [f"it covers {mask.mean():.0%} of the frame"] if is_full_frame and mask.mean() > MAX_FRAME_COVER else []
    )


def copy_evidence(reference: ReferenceMeta, picture: np.ndarray, mask: np.ndarray, frames: Frames) -> str:
    """Return why a reference is a copy of what its clip shows of it, mirrored or not; "" if it is not, or if that is unknown."""
    target = target_mask(reference, frames)
    if target is None or reference.role == "background":
        return ""
    target_cut_out = images.cut_out(frames[reference.target.frame], target, images.bounds(target))
    cut_outs = target_cut_out, np.dstack([picture[..., :3], mask * np.uint8(255)])
    stamps = [np.frombuffer(images.stamp(cut_out), np.uint8, images.STAMP_PX**2) for cut_out in cut_outs]
    distances_of_stamps = copies.compare_stamps(*(copies.Stamps.of([stamp]) for stamp in stamps))
    pixels, pose = (float(distances[0, 0]) for distances in distances_of_stamps[:2])
    same = pixels <= SAME_PIXELS and pose <= SAME_OUTLINE
    return f"cut-outs differ by {pixels:.3f} in pixels and {pose:.3f} in outline" if same else ""


def target_mask(reference: ReferenceMeta, frames: Frames) -> np.ndarray | None:
    """Return the mask of the target in its frame, (h, w) bool; None if the set does not outline it."""
    if not reference.target.mask.counts or reference.target.frame not in frames:
        return None
    mask = coco_rle.decode(reference.target.mask)
    return mask if mask.shape == frames[reference.target.frame].shape[:2] and mask.any() and not mask.all() else None


def face_similarity(triplet: Triplet, reference: ReferenceMeta, frames: Frames, faces: FaceDetector) -> float | None:
    """Return the cosine of the faces of a reference and of its target; None if either shows none or is not certain."""
    picture = images.from_png(triplet.cut_outs.get(reference.name) or triplet.pictures[reference.name])
    opaque = images.on_white(picture) if picture.shape[2] == 4 else picture
    reference_face = _largest(faces(opaque))
    target = reference.target
    if reference_face is None or target.frame not in frames:
        return None
    frame = frames[target.frame]
    target_face = _largest([face for face in faces(frame) if _inside(face, target)])
    if target_face is None:
        return None
    return float(np.asarray(reference_face.embedding) @ np.asarray(target_face.embedding))


def _inside(face: Any, target: Any) -> bool:
    x, y = (face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2
    return target.box[0] <= x <= target.box[2] and target.box[1] <= y <= target.box[3]


def _largest(faces: Sequence[Any]) -> Any | None:
    with_embedding = [face for face in faces if face.embedding is not None and len(face.embedding)]
    return max(with_embedding, key=lambda face: (face.box[2] - face.box[0]) * (face.box[3] - face.box[1]), default=None)


def format_audit(result: Audit) -> str:
    """Return the audit as text: counts, distribution of the copy risk, and the faults by kind."""
    lines = [f"{result.samples} samples, {result.references} references"]
    if result.copy_risks:
        counts = np.histogram(np.clip(result.copy_risks, 0, 1), bins=10, range=(0, 1))[0]
        lines.append("copy risk as stated, in tenths from 0 to 1: " + " ".join(map(str, counts)))
        lines.append(
            f"median {np.median(result.copy_risks):.3f}, "
            f"{np.mean(np.array(result.copy_risks) >= HIGH_COPY_RISK):.1%} from {HIGH_COPY_RISK}"
        )
    if result.compared_faces:
        precision = result.same_person / result.compared_faces
        lines.append(
            f"identity precision {precision:.3f}: {result.same_person} of {result.compared_faces} references with a face"
        )
    else:
        lines.append("identity precision: not known, no reference and target both show a face")
    by_fault = Counter(finding.fault for finding in result.findings)
    num_bad = len({finding.clip_id for finding in result.findings})
    lines.append(f"{len(result.findings)} findings in {num_bad} samples" + (":" if by_fault else ""))
    for fault, count in by_fault.most_common():
        lines.append(f"{fault}: {count}")
        lines += [
            f"  {e.clip_id}{f' {e.name}' if e.name else ''}: {e.detail}" for e in result.findings if e.fault == fault
        ]
    return "\n".join(lines) + "\n"
