"""Metrics of one video with networks of the model zoo: each function takes cards and a device and returns the measure."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from model_zoo import cards
from model_zoo.roles import Detection
from pipelines.bench.a2 import composition, motion
from pipelines.bench.a2.composition import Embed
from pipelines.bench.a2.profiles import Ask, Row
from pipelines.bench.a2.records import CaseRow, ReferenceImage, Sampled
from pipelines.bench.a2.totals import Measured

PAD = 0.25  # grey padding on a retry, as a fraction of the side: detectors miss faces that fill the image
GREY = 128
SHORT = Measured(skipped="the video has fewer than three frames")

Masks = list[dict[str, np.ndarray]]  # per frame, label -> (h, w) bool
Find = Callable[[np.ndarray, Sequence[str], Sequence[str]], Masks]


def identity(name: str, device: str) -> Ask:
    """Return the measure of ID consistency: faces in 32 frames against the largest face of each reference of a person."""
    model = cards.load(name, device)
    portraits = _remembered(lambda shown: portrait(model, shown.pixels))

    def ask(asked: CaseRow, sampled: Sampled) -> Row:
        people = asked.of("human")
        if not people:
            return {"id_consistency": Measured(skipped="the case has no human")}
        references = [vector for shown in people if (vector := portraits(shown)) is not None]
        return {"id_consistency": composition.identity(_faces(model, sampled.frames), np.array(references))}

    return ask


def copied(name: str, device: str) -> Ask:
    """Return the measure of the copy-paste score, by faces, for cases taken from held-out triplets."""
    model = cards.load(name, device)

    def ask(asked: CaseRow, sampled: Sampled) -> Row:
        if not asked.truth or not asked.of("human"):
            return {"copy_paste": Measured(skipped="the case has no truth with a human to compare with")}
        found = [portrait(model, shown.pixels) for shown in asked.of("human")]
        references = np.array([vector for vector in found if vector is not None])
        if not len(references):
            return {"copy_paste": Measured(skipped="the case has no face in its pictures of people")}
        truth, made = (_faces(model, frames) for frames in (asked.true_frames, sampled.frames))
        return {"copy_paste": composition.copied(made, truth, references)}

    return ask


def _faces(model: Callable[[np.ndarray], list], frames: np.ndarray) -> list[np.ndarray]:
    """Return (k, d) face vectors for each of 32 frames."""
    return [np.array([face.embedding for face in model(frames[n])]) for n in motion.spread_frames(len(frames))]


def portrait(model: Callable[[np.ndarray], list], shown: np.ndarray) -> np.ndarray | None:
    """Return the embedding of the largest face of an image, retrying with grey padding; None if there is no face."""
    height, width = (round(PAD * side) for side in shown.shape[:2])
    padded = np.pad(shown, ((height, height), (width, width), (0, 0)), constant_values=GREY)
    for attempt in (shown, padded):
        if faces := model(attempt):
            return max(faces, key=lambda face: (face.box[2] - face.box[0]) * (face.box[3] - face.box[1])).embedding
    return None


def _remembered(look: Callable[[ReferenceImage], np.ndarray | None]) -> Callable[[ReferenceImage], np.ndarray | None]:
    """Return the function with its results cached by image."""
    known: dict[str, np.ndarray | None] = {}

    def remembered(shown: ReferenceImage) -> np.ndarray | None:
        if shown.sha256 not in known:
            known[shown.sha256] = look(shown)
        return known[shown.sha256]

    return remembered


def aesthetic(name: str, device: str) -> Ask:
    """Return the measure of aesthetic quality: the mean over all frames, a tenth of LAION's 0 to 10."""
    model = cards.load(name, device)

    def ask(asked: CaseRow, sampled: Sampled) -> Row:
        value = model(sampled.frames, sampled.fps)["aesthetic"] / 10
        return {"aesthetic_quality": Measured(float(np.clip(value, 0, 1)))}

    return ask


def quality(name: str, device: str) -> Ask:
    """Return the measure of image quality: the mean over all frames, 0 to 1."""
    model = cards.load(name, device)

    def ask(asked: CaseRow, sampled: Sampled) -> Row:
        return {"image_quality": Measured(float(model(sampled.frames, sampled.fps)["image_quality"]))}

    return ask


def smooth(name: str, device: str) -> Ask:
    """Return the measure of motion smoothness by frame interpolation, on the scale of VBench's leaderboard."""
    between = cards.load(name, device)

    def ask(asked: CaseRow, sampled: Sampled) -> Row:
        value = motion.smoothness(sampled.frames, between)
        return {"motion_smoothness": SHORT if value is None else Measured(motion.normalised_smoothness(value))}

    return ask


def dynamic(name: str, device: str) -> Ask:
    """Return the measure of dynamic degree and, unnormalised, of smoothness by optical flow, which is not VBench's."""
    if (role := cards.base_card(name).role) != "flow":
        raise ValueError(f"the card of optical flow is {name}, which has role {role}: choose one of role flow")
    flow = cards.load(name, device)

    def ask(asked: CaseRow, sampled: Sampled) -> Row:
        value = motion.smoothness_by_flow(flow, sampled.frames)
        return {
            "dynamic_degree": Measured(motion.dynamic_degree(flow, sampled.frames, sampled.fps)),
            "motion_smoothness.by-flow": SHORT if value is None else Measured(value),
        }

    return ask


def words(name: str, device: str) -> Ask:
    """Return the measure of image-text similarity: 100 times the cosine of the prompt and the middle frames of 8 equal parts."""
    model = cards.load(name, device)

    def ask(asked: CaseRow, sampled: Sampled) -> Row:
        few = sampled.frames[motion.middle_frames(len(sampled.frames))]
        return {"text_similarity": Measured(100 * max(0.0, model(few, asked.prompt)))}

    return ask


def grounded(ground: str, masks: str, pictures: str, device: str) -> Ask:
    """Return the measure of object and background consistency: in 32 frames, labels are detected, cut out and painted over."""
    find, embed = finder(ground, masks, device), embedder(pictures, device)
    vector: Callable[[ReferenceImage], Any] = _remembered(lambda shown: embed([shown.pixels])[0])

    def ask(asked: CaseRow, sampled: Sampled) -> Row:
        few = sampled.frames[motion.spread_frames(len(sampled.frames))]
        things, places = [e for e in asked.of("object") if e.label], asked.of("background")
        people = [e.label or "person" for e in asked.of("human")]
        drawn = find(few, list(dict.fromkeys(e.label for e in things)), list(dict.fromkeys(people)))
        each = [composition.thing(few, [m.get(e.label) for m in drawn], vector(e), embed) for e in things]
        nobody = np.zeros(few.shape[1:3], bool)
        front = np.stack([np.logical_or.reduce([nobody, *m.values()]) for m in drawn])
        place = (
            composition.background(few, front, vector(places[0]), embed)
            if places
            else Measured(skipped="the case has no background")
        )
        return {"object_consistency": joined(each), "background_consistency": place}

    return ask


def embedder(name: str, device: str) -> Embed:
    """Return a function that embeds whole images, from a card of role copy or embed."""
    model = cards.load(name, device)
    if cards.base_card(name).role != "embed":
        return model
    return lambda pictures: model(pictures, [np.ones(picture.shape[:2], bool) for picture in pictures])


def finder(ground: str, masks: str, device: str) -> Find:
    """Return `find(frames, things, people)`, which returns the mask of each label found in each frame.

    ground: a card of role ground, queried with the labels, or of role detect, with classes of its own, see `by_class`. masks: the
    card that segments the boxes; "" uses the detector's masks. `find` raises ValueError if neither returns masks.
    """
    model = cards.load(ground, device)
    cut = cards.load(masks, device) if masks else None
    detects = cards.base_card(ground).role == "detect"

    def find(frames: np.ndarray, things: Sequence[str], people: Sequence[str]) -> Masks:
        labels = list(dict.fromkeys([*things, *people]))
        seen = model(frames) if detects else model(frames, labels)
        found = [by_class(few, things, people) if detects else best(few, labels) for few in seen]
        return [_masks(frame, boxes, cut) for frame, boxes in zip(frames, found, strict=True)]

    return find


def _masks(frame: np.ndarray, found: dict[str, Detection], cut: Callable | None) -> dict[str, np.ndarray]:
    if cut is not None:
        boxes = np.array([d.box for d in found.values()])
        return dict(zip(found, cut(frame, boxes), strict=True)) if found else {}
    if any(d.mask is None for d in found.values()):
        raise ValueError("the detector returns boxes only: choose a model for masks")
    return {label: d.mask for label, d in found.items() if d.mask is not None}


def best(detections: Sequence[Detection], labels: Iterable[str]) -> dict[str, Detection]:
    """Return {label: detection with the best score} for the labels that were found."""
    found = {}
    for label in labels:
        mine = [d for d in detections if d.label == label]
        if mine:
            found[label] = max(mine, key=lambda d: d.score)
    return found


def by_class(detections: Sequence[Detection], things: Sequence[str], people: Sequence[str]) -> dict[str, Detection]:
    """Assign detections of a detector with its own classes to the labels, highest score first, one label each.

    A human is assigned to a label of people. An object is assigned to a label that contains its class as a word ("red cup": cup),
    or to any label if the detector has no classes.
    """
    found: dict[str, Detection] = {}
    for detection in sorted(detections, key=lambda d: -d.score):
        fits = (
            people
            if detection.kind == "human"
            else [t for t in things if detection.label in ("", "object") or detection.label in t.lower().split()]
        )
        free = [label for label in fits if label not in found]
        if free:
            found[free[0]] = detection
    return found


def joined(each: list[Measured]) -> Measured:
    """Return the results of several objects of a video as one: the mean over all frames in which they were found."""
    if not each:
        return Measured(skipped="the case has no object with a label")
    seen, of = sum(m.seen for m in each), sum(m.of for m in each)
    total = sum(m.value * m.seen for m in each if m.value is not None)
    return Measured(total / seen if seen else None, seen, of)
