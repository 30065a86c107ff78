"""Structured captions: the output of a base captioner and experts, fused field by field, and the prompt written from it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np

from a2data import records
from a2data.elements.background_colours import background_colours
from a2data.media import colours, images
from a2data.media.images import Box
from a2data.records import ClipVideo, Element, ExpertOutput, Kept, Subject
from a2data.stage import Stage
from model_zoo import cards
from model_zoo.caption.measured import ElementHint
from model_zoo.caption.schema import CHOICES, SUBJECT_FIELDS, TEXTS
from stages.caption.wording import (
    deduplicate_phrases,
    disambiguate,
    environment_phrase,
    normalize_subject,
    span,
    with_camera,
)

SERVER_CONCURRENCY = 32  # clips in flight at a server; vLLM batches them
EMPTY_VALUES = ("", "other", "none", "n/a", "unknown", "null")  # values with which models report nothing
GARMENTS = ("upper", "lower", "shoes")
MAX_CONCURRENCY = 128  # their names still fit into the worker's progress note


@dataclass(frozen=True)
class Caption(Stage):
    """Clips and their elements -> structured captions, and prompts with the span of every phrase.

    Three roles, three kinds of card, each open to a network:

    * caption: `base(frames, fps, hints) -> dict`, a whole caption in SkyReels-V2's schema: "subjects" (a list of {"TYPES":
      {"type", "sub_type"}, "appearance", "action", "expression", "position", "is_main_subject"}), "shot_type", "shot_angle",
      "shot_position", "camera_motion", "environment", "lighting". A missing field is empty; a value outside the schema counts
      as "other". frames: (t, h, w, 3) uint8 RGB; hints: measurements of elements, which it may ignore.
    * caption-expert: `expert(frames, fps, hints, scene) -> [(field, value, confidence)]` for the fields it covers; a subject's
      field is called "subjects.<n>.expression", n counting the subjects of `scene`, the base's output.
    * fusion: `fuse(scene) -> str`, the prompt, which contains every subject's "phrase" and the "environment_phrase" exactly once,
      verbatim. `scene` has the selected values: the schema, with type and sub_type as the subject's own fields.

    For each field the value of highest confidence is used; on a tie, the later expert's. The camera sentence does not pass
    through the fusion: it is appended, as SkyReels-V2 does.
    """

    reads = {"select": Kept, "segment": ClipVideo, "detect": Element, "faces": Element, "parse": Element}
    writes = records.Caption
    row_noun = "captions"
    accounts_for = "clip_id"
    uncached_fields: ClassVar[tuple[str, ...]] = ("max_concurrency",)
    version = 7

    captioner: str = "builtin-caption"
    """card of the base captioner, or openai:http://HOST:8000/v1#MODEL"""
    experts: str = "builtin-shot,builtin-camera,builtin-expression"
    """cards of the experts, comma-separated; "" = none"""
    fusion: str = "template"
    """card of the fusion model"""
    fusion_fallback: str = ""
    """card used if `fusion` loses a phrase twice; "" = the clip fails"""
    base_confidence: float = 0.5
    """confidence of the base captioner's values, 0 to 1"""
    min_confidence: float = 0.4
    """lowest confidence of a value that is used, 0 to 1; others are only recorded"""
    min_quality: float = 0.3
    """lowest quality times presence of an object in the prompt, 0 to 1"""
    max_subjects: int = 4
    """most subjects in the prompt; the captioner lists the most important first"""
    max_phrase_words: int = 14
    """most words in a subject's phrase; appearance is cut at a comma or an "and" """

    max_concurrency: int = 0
    """clips in flight, at most 128; 0 = 32 if a server is called, else 1"""

    @property
    def concurrency(self) -> int:  # type: ignore[override]
        served = any(cards.is_remote(name) for name in self.model_names())
        return min(MAX_CONCURRENCY, self.max_concurrency) or (SERVER_CONCURRENCY if served else 1)

    @property
    def gpus(self) -> float:  # type: ignore[override]
        return min(1.0, sum(cards.gpus(name) for name in self.model_names()))

    def model_names(self) -> list[str]:
        """Return the cards by name: base captioner, experts, fusion and its fallback."""
        names = [self.captioner, *self._experts(), self.fusion, self.fusion_fallback]
        return list(dict.fromkeys(name for name in names if name))

    def _experts(self) -> list[str]:
        return [name for name in self.experts.split(",") if name]

    def models(self) -> dict[str, str]:
        return {name: cards.revision(name) for name in self.model_names()}

    def load(self) -> dict[str, Any]:
        device = cards.device() if self.gpus else "cpu"
        return {name: cards.load(name, device) for name in self.model_names()}

    def run(
        self,
        models: dict[str, Any],
        kept: list[Kept],
        films: list[ClipVideo],
        detected: list[Element],
        faces: list[Element],
        parsed: list[Element],
    ) -> Iterator[records.Caption]:
        kept_ids = {k.clip_id for k in kept}
        for film in films:
            if film.clip_id in kept_ids:
                elements = [e for e in (*detected, *faces, *parsed) if e.clip_id == film.clip_id]
                uses_hints = any(
                    getattr(models[name], "uses_hints", True) for name in (self.captioner, *self._experts())
                )
                yield self._caption(models, film, hints(film.frames, elements, self.min_quality) if uses_hints else [])

    def _caption(self, models: dict[str, Any], film: ClipVideo, hints: list[ElementHint]) -> records.Caption:
        base = self.captioner
        scene = models[base](film.frames, film.fps, hints)
        answers = [ExpertOutput(base, field, value, self.base_confidence) for field, value in flatten(scene)]
        for name in self._experts():
            predictions = models[name](film.frames, film.fps, hints, scene)
            answers += [
                ExpertOutput(name, field, value, float(confidence)) for field, value, confidence in predictions if value
            ]
        fused = build_scene(most_confident(answers, self.min_confidence), main_subject(scene), self.max_subjects)
        add_phrases(fused, self.max_phrase_words)
        prompt, notes = self._fused(models, fused)
        prompt = with_camera(prompt, fused["camera_motion"])
        answers += notes
        caption = to_record(film.clip_id, prompt, fused, answers)
        check_spans(caption)
        return caption

    def _fused(self, models: dict[str, Any], scene: dict[str, Any]) -> tuple[str, list[ExpertOutput]]:
        """Return the prompt, and a note for the answers if the fallback wrote it."""
        try:
            return models[self.fusion](scene), []
        except ValueError as error:
            if not self.fusion_fallback:
                raise
            reason = f"in place of {self.fusion}: {error}"
            return models[self.fusion_fallback](scene), [ExpertOutput(self.fusion_fallback, "prompt", reason, 1.0)]


def hints(frames: np.ndarray, elements: Sequence[Element], min_quality: float = 0.0) -> list[ElementHint]:
    """Return the elements as hints for captioners, and the background as measured in the middle frame.

    Objects with a poor best picture, or seen in few of the samples, are dropped: what is small, blurred, uncertain and
    intermittent is usually a false detection. A garment's colour is dropped unless it is certain: for a space suit
    cut off below its collar it would be the collar's, for a white top in shade "grey".
    """
    max_observations = max((len(e.seen_frames) for e in elements if e.kind in ("human", "object")), default=1)
    elements = [
        e for e in elements if e.kind != "object" or e.quality * len(e.seen_frames) / max_observations >= min_quality
    ]
    element_hints = [
        ElementHint(
            e.element_id,
            e.kind,
            e.label,
            e.parent_id,
            e.seen_frames or [e.frame],
            e.seen_boxes or [e.box],
            measured_attributes(e),
        )
        for e in sorted(elements, key=lambda e: e.element_id)
    ]
    middle = len(frames) // 2
    boxes = [nearest_box(t, middle) for t in element_hints if t.kind in ("human", "object")]
    luma = float(cv2.cvtColor(frames[middle], cv2.COLOR_RGB2GRAY).mean()) / 255
    measured = {"colours": " ".join(background_colours(frames[middle], boxes)), "luma": f"{luma:.3f}"}
    return [*element_hints, ElementHint("background", "background", "", "", [middle], [], measured)]


def measured_attributes(element: Element) -> dict[str, str]:
    """Return the measured attributes of an element, by name."""
    measured = dict(a.split("=", 1) for a in element.attributes)
    if element.kind in GARMENTS and "colour" in measured:
        rgba = images.from_png(element.image)
        if not colours.is_certain(rgba[..., :3][rgba[..., 3] > 0], measured["colour"]):
            del measured["colour"]
    return measured


def nearest_box(thing: ElementHint, frame: int) -> Box:
    """Return the box of the observation nearest in time to a frame."""
    return min(zip(thing.frames, thing.boxes, strict=True), key=lambda seen: abs(seen[0] - frame))[1]


def flatten(scene: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a base captioner's output as (field, value), without empty values. Raises ValueError if it is not a caption."""
    subjects = scene.get("subjects", []) if isinstance(scene, dict) else None
    if not isinstance(subjects, list) or not all(isinstance(s, dict) for s in subjects):
        raise ValueError(f"the captioner did not return a structured caption: {str(scene)[:80]!r}")
    pairs = [(field, str(scene.get(field) or "")) for field in (*CHOICES, *TEXTS)]
    for n, subject in enumerate(subjects):
        values = {**subject, **(subject.get("TYPES") or {})}
        pairs += [(f"subjects.{n}.{field}", str(values.get(field) or "")) for field in SUBJECT_FIELDS]
    clean = [(field, " ".join(value.split())) for field, value in pairs]
    return [(field, value) for field, value in clean if value.lower().rstrip(".") not in EMPTY_VALUES]


def main_subject(scene: dict[str, Any]) -> int:
    """Return the index of the first subject that the base captioner marks as the main one, else 0."""
    return next((n for n, s in enumerate(scene.get("subjects", [])) if s.get("is_main_subject")), 0)


def most_confident(answers: Sequence[ExpertOutput], min_confidence: float) -> dict[str, str]:
    """Return the value of highest confidence for each field, the later of two on a tie; none below `min_confidence`."""
    best: dict[str, ExpertOutput] = {}
    for answer in answers:
        if answer.confidence >= max(min_confidence, best[answer.field].confidence if answer.field in best else 0.0):
            best[answer.field] = answer
    return {field: answer.value for field, answer in best.items()}


def build_scene(fields: dict[str, str], main: int, max_subjects: int) -> dict[str, Any]:
    """Return selected fields as a scene, main subject first; a value outside its enumeration becomes "other".

    As in SkyReels-V2, an expression is dropped unless the subject is a person or an animal.
    """
    numbers = sorted({int(f.split(".")[1]) for f in fields if f.startswith("subjects.")}, key=lambda n: (n != main, n))
    subjects = []
    for n in numbers[:max_subjects]:
        subject: dict[str, Any] = {field: fields.get(f"subjects.{n}.{field}", "") for field in SUBJECT_FIELDS}
        if subject["type"] not in ("Human", "Animal") or subject["sub_type"] == "Accessory":
            subject["expression"] = ""
        subjects.append({**normalize_subject(subject), "is_main_subject": n == main})
    scene: dict[str, Any] = {"subjects": subjects}
    for field, choices in CHOICES.items():
        scene[field] = fields.get(field) if fields.get(field) in choices else "other"
    return scene | {field: fields.get(field, "") for field in TEXTS}


def add_phrases(scene: dict[str, Any], max_words: int) -> None:
    """Set the phrases of a scene's subjects and environment, and remove repetitions of them from its other texts."""
    subjects = scene["subjects"]
    subject_phrases = disambiguate(subjects, max_words)
    scene["environment_phrase"] = deduplicate_phrases(environment_phrase(scene["environment"]), subject_phrases)
    environment = [scene["environment_phrase"]] if scene["environment_phrase"] else []
    for subject, phrase in zip(subjects, subject_phrases, strict=True):
        texts = {
            field: deduplicate_phrases(subject[field], [*subject_phrases, *environment])
            for field in ("action", "expression")
        }
        # the position may be the end of its phrase, which the fusion does not repeat
        position = subject["position"]
        texts["position"] = (
            position if position in phrase else deduplicate_phrases(position, [*subject_phrases, *environment])
        )
        subject.update(texts, phrase=phrase)
    for field in ("lighting", "camera_motion"):
        scene[field] = deduplicate_phrases(scene[field], [*subject_phrases, *environment])


def to_record(clip_id: str, prompt: str, scene: dict[str, Any], answers: list[ExpertOutput]) -> records.Caption:
    """Return the record of a scene and its prompt, with the span of each phrase."""
    subjects = []
    for s in scene["subjects"]:
        start, end = span(s["phrase"], prompt)
        subjects.append(Subject(**s, start=start, end=end))
    start, end = span(scene["environment_phrase"], prompt)
    texts = {field: scene[field] for field in (*CHOICES, *TEXTS)}
    return records.Caption(
        clip_id, prompt, subjects, **texts, environment_start=start, environment_end=end, answers=answers
    )


def check_spans(caption: records.Caption) -> None:
    """Raise ValueError for an empty prompt, for a span that does not hold its phrase, and for overlapping phrases."""
    name = f"caption of {caption.clip_id}"
    if len(caption.prompt.strip(" -.")) == 0:
        raise ValueError(f"{name}: the prompt is empty")
    spans = [(s.start, s.end) for s in caption.subjects]
    for subject in caption.subjects:
        if not subject.phrase or caption.prompt[subject.start : subject.end] != subject.phrase:
            raise ValueError(
                f"{name}: {subject.start}:{subject.end} of the prompt is not the phrase {subject.phrase!r}"
            )
    if (caption.environment_start, caption.environment_end) != (0, 0):
        spans.append((caption.environment_start, caption.environment_end))
    spans.sort()
    for (start, end), (next_start, _) in zip([(0, 0), *spans], [*spans, (len(caption.prompt), 0)], strict=True):
        if not start <= end <= next_start:
            raise ValueError(f"{name}: the phrases at {start}:{end} and from {next_start} overlap")
