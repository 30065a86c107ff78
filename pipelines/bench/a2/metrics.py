"""Metrics of one video with networks of the model zoo: each function takes cards and a device and returns the measure."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from model_zoo import cards
from model_zoo.roles import Detection
from pipelines.bench.a2 import composition, motion
from pipelines.bench.a2.composition import Embed
from pipelines.bench.a2.profiles import Measure, Row
from pipelines.bench.a2.records import CaseRow, ReferenceImage, Sampled
from pipelines.bench.a2.totals import Measured

PADDING = 0.25  # grey padding on a retry, as a fraction of the side: detectors miss faces that fill the image
GREY = 128
TOO_SHORT = Measured(skipped="the video has fewer than three frames")

Masks = list[dict[str, np.ndarray]]  # per frame, label -> (h, w) bool
Find = Callable[[np.ndarray, Sequence[str], Sequence[str]], Masks]


def identity(name: str, device: str) -> Measure:
    """Return the measure of ID consistency: faces in 32 frames against the largest face of each reference of a person."""
    model = cards.load(name, device)
    portraits = _cached_by_image(lambda image: embed_largest_face(model, image.pixels))

    def measure(case: CaseRow, sampled: Sampled) -> Row:
        people = case.of("human")
        if not people:
            return {"id_consistency": Measured(skipped="the case has no human")}
        references = [vector for image in people if (vector := portraits(image)) is not None]
        return {"id_consistency": composition.id_consistency(_faces(model, sampled.frames), np.array(references))}

    return measure


def copy_paste(name: str, device: str) -> Measure:
    """Return the measure of the copy-paste score, by faces, for cases taken from held-out triplets."""
    model = cards.load(name, device)

    def measure(case: CaseRow, sampled: Sampled) -> Row:
        if not case.truth or not case.of("human"):
            return {"copy_paste": Measured(skipped="the case has no truth with a human to compare with")}
        portraits = [embed_largest_face(model, image.pixels) for image in case.of("human")]
        references = np.array([vector for vector in portraits if vector is not None])
        if not len(references):
            return {"copy_paste": Measured(skipped="the case has no face in its pictures of people")}
        truth, generated = (_faces(model, frames) for frames in (case.true_frames, sampled.frames))
        return {"copy_paste": composition.copy_paste_of_video(generated, truth, references)}

    return measure


def _faces(model: Callable[[np.ndarray], list], frames: np.ndarray) -> list[np.ndarray]:
    """Return (k, d) face vectors for each of 32 frames."""
    return [np.array([face.embedding for face in model(frames[n])]) for n in motion.spread_frames(len(frames))]


def embed_largest_face(model: Callable[[np.ndarray], list], picture: np.ndarray) -> np.ndarray | None:
    """Return the embedding of the largest face of an image, retrying with grey padding; None for an image without a face."""
    height, width = (round(PADDING * side) for side in picture.shape[:2])
    padded = np.pad(picture, ((height, height), (width, width), (0, 0)), constant_values=GREY)
    for attempt in (picture, padded):
        if faces := model(attempt):
            return max(faces, key=lambda face: (face.box[2] - face.box[0]) * (face.box[3] - face.box[1])).embedding
    return None


def _cached_by_image(
    function: Callable[[ReferenceImage], np.ndarray | None],
) -> Callable[[ReferenceImage], np.ndarray | None]:
    """Return the function with its results cached by image."""
    cache: dict[str, np.ndarray | None] = {}

    def cached(image: ReferenceImage) -> np.ndarray | None:
        if image.sha256 not in cache:
            cache[image.sha256] = function(image)
        return cache[image.sha256]

    return cached


def aesthetic(name: str, device: str) -> Measure:
    """Return the measure of aesthetic quality: the mean over all frames, a tenth of LAION's 0 to 10."""
    model = cards.load(name, device)

    def measure(case: CaseRow, sampled: Sampled) -> Row:
        value = model(sampled.frames, sampled.fps)["aesthetic"] / 10
        return {"aesthetic_quality": Measured(float(np.clip(value, 0, 1)))}

    return measure


def quality(name: str, device: str) -> Measure:
    """Return the measure of image quality: the mean over all frames, 0 to 1."""
    model = cards.load(name, device)

    def measure(case: CaseRow, sampled: Sampled) -> Row:
        return {"image_quality": Measured(float(model(sampled.frames, sampled.fps)["image_quality"]))}

    return measure


def motion_smoothness(name: str, device: str) -> Measure:
    """Return the measure of motion smoothness by frame interpolation, on the scale of VBench's leaderboard."""
    interpolate = cards.load(name, device)

    def measure(case: CaseRow, sampled: Sampled) -> Row:
        value = motion.smoothness(sampled.frames, interpolate)
        return {"motion_smoothness": TOO_SHORT if value is None else Measured(motion.normalised_smoothness(value))}

    return measure


def dynamic_degree(name: str, device: str) -> Measure:
    """Return the measure of dynamic degree and, unnormalised, of smoothness by optical flow, which is not VBench's."""
    if (role := cards.base_card(name).role) != "flow":
        raise ValueError(f"the card of optical flow is {name}, which has role {role}: choose one of role flow")
    flow = cards.load(name, device)

    def measure(case: CaseRow, sampled: Sampled) -> Row:
        value = motion.smoothness_by_flow(flow, sampled.frames)
        return {
            "dynamic_degree": Measured(motion.dynamic_degree(flow, sampled.frames, sampled.fps)),
            "motion_smoothness.by-flow": TOO_SHORT if value is None else Measured(value),
        }

    return measure


def text_similarity(name: str, device: str) -> Measure:
    """Return the measure of image-text similarity: 100 times the cosine of the prompt and the middle frames of 8 equal parts."""
    model = cards.load(name, device)

    def measure(case: CaseRow, sampled: Sampled) -> Row:
        frames = sampled.frames[motion.middle_frames(len(sampled.frames))]
        return {"text_similarity": Measured(100 * max(0.0, model(frames, case.prompt)))}

    return measure


def subject_consistency(ground: str, masks: str, pictures: str, device: str) -> Measure:
    """Return the measure of object and background consistency: in 32 frames, labels are detected, cut out and painted over."""
    find, embed = make_finder(ground, masks, device), make_embedder(pictures, device)
    cached_embedding: Callable[[ReferenceImage], Any] = _cached_by_image(lambda image: embed([image.pixels])[0])

    def measure(case: CaseRow, sampled: Sampled) -> Row:
        frames = sampled.frames[motion.spread_frames(len(sampled.frames))]
        objects, backgrounds = [e for e in case.of("object") if e.label], case.of("background")
        people = [e.label or "person" for e in case.of("human")]
        masks_of = find(frames, list(dict.fromkeys(e.label for e in objects)), list(dict.fromkeys(people)))
        per_object = [
            composition.object_consistency(frames, [m.get(e.label) for m in masks_of], cached_embedding(e), embed)
            for e in objects
        ]
        empty = np.zeros(frames.shape[1:3], bool)
        foreground = np.stack([np.logical_or.reduce([empty, *m.values()]) for m in masks_of])
        background = (
            composition.background_consistency(frames, foreground, cached_embedding(backgrounds[0]), embed)
            if backgrounds
            else Measured(skipped="the case has no background")
        )
        return {"object_consistency": pool_objects(per_object), "background_consistency": background}

    return measure


def make_embedder(name: str, device: str) -> Embed:
    """Return a function that embeds whole images, from a card of role copy or embed."""
    model = cards.load(name, device)
    if cards.base_card(name).role != "embed":
        return model
    return lambda pictures: model(pictures, [np.ones(picture.shape[:2], bool) for picture in pictures])


def make_finder(ground: str, masks: str, device: str) -> Find:
    """Return `find(frames, objects, people)`, which returns the mask of each label found in each frame.

    ground: a card of role ground, queried with the labels, or of role detect with its own classes, see `assign_classes`. masks:
    the card that segments the boxes; "" uses the detector's masks. `find` raises ValueError if neither returns masks.
    """
    model = cards.load(ground, device)
    segment = cards.load(masks, device) if masks else None
    is_detector = cards.base_card(ground).role == "detect"

    def find(frames: np.ndarray, objects: Sequence[str], people: Sequence[str]) -> Masks:
        labels = list(dict.fromkeys([*objects, *people]))
        detections = model(frames) if is_detector else model(frames, labels)
        detection_of = [
            assign_classes(frame_detections, objects, people)
            if is_detector
            else best_by_label(frame_detections, labels)
            for frame_detections in detections
        ]
        return [_masks(frame, boxes, segment) for frame, boxes in zip(frames, detection_of, strict=True)]

    return find


def _masks(frame: np.ndarray, detections: dict[str, Detection], segment: Callable | None) -> dict[str, np.ndarray]:
    if segment is not None:
        boxes = np.array([d.box for d in detections.values()])
        return dict(zip(detections, segment(frame, boxes), strict=True)) if detections else {}
    if any(d.mask is None for d in detections.values()):
        raise ValueError("the detector returns boxes only: choose a model for masks")
    return {label: d.mask for label, d in detections.items() if d.mask is not None}


def best_by_label(detections: Sequence[Detection], labels: Iterable[str]) -> dict[str, Detection]:
    """Return {label: detection with the best score} for the labels that were found."""
    best = {}
    for label in labels:
        candidates = [d for d in detections if d.label == label]
        if candidates:
            best[label] = max(candidates, key=lambda d: d.score)
    return best


def assign_classes(
    detections: Sequence[Detection], objects: Sequence[str], people: Sequence[str]
) -> dict[str, Detection]:
    """Assign detections of a detector with its own classes to the labels, highest score first, one label each.

    A human is assigned to a label of people. An object is assigned to a label that contains its class as a word ("red cup": cup),
    or to any label if the detector has no classes.
    """
    assigned: dict[str, Detection] = {}
    for detection in sorted(detections, key=lambda d: -d.score):
        candidates = (
            people
            if detection.kind == "human"
            else [t for t in objects if detection.label in ("", "object") or detection.label in t.lower().split()]
        )
        free_labels = [label for label in candidates if label not in assigned]
        if free_labels:
            assigned[free_labels[0]] = detection
    return assigned


def pool_objects(results: list[Measured]) -> Measured:
    """Return the results of several objects of a video as one: the mean over all frames in which they were found."""
    if not results:
        return Measured(skipped="the case has no object with a label")
    seen, searched = sum(m.seen for m in results), sum(m.of for m in results)
    total = sum(m.value * m.seen for m in results if m.value is not None)
    return Measured(total / seen if seen else None, seen, searched)
