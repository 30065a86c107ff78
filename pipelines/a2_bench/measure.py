"""The metrics of a video, by the networks of the model zoo. One that is not here is skipped, and the score says why."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from model_zoo import cards, flow
from model_zoo.cards import Detection
from pipelines.a2_bench import composition, motion
from pipelines.a2_bench.cases import Case, Element, picture
from pipelines.a2_bench.score import Measured

Row = dict[str, Measured]
Ask = Callable[[Case, np.ndarray, float], Row]

# Which card does what, unless others are named; and those with which a metric bears the paper's name. With any other card its
# name has the card's behind a dot, and it enters no total.
DEFAULTS = {
    "faces": "buffalo_l",
    "aesthetic": "laion-aesthetic-v1",
    "flow": "raft-large",
    "ground": "grounding-dino-tiny",
    "masks": "sam2.1-hiera-large",
    "pictures": "clip-vit-l14",
}
ORIGINALS = {
    "faces": {"buffalo_l", "antelopev2"},  # ArcFace
    "aesthetic": {"laion-aesthetic-v1"},  # the linear head, as in VBench
    "flow": {"raft-large"},  # raft-things, as in VBench
    "ground": {"grounding-dino-tiny", "grounding-dino"},
    "masks": {"sam2.1-hiera-tiny", "sam2.1-hiera-large", "sam3"},
    "pictures": {"clip-vit-l14"},  # the paper says CLIP, not which
}
# Metrics whose own model may not come with us. Their values can be measured elsewhere and handed over, see `given`.
ELSEWHERE = {
    "image_quality": "MUSIQ-SPAQ is not in the model zoo (pyiqa is for non-commercial use): hand over its values",
    "motion_smoothness": "AMT-S is not in the model zoo (CC BY-NC 4.0): hand over its values",
    "text_similarity": "ViCLIP is not in the model zoo: hand over its values",
}
NEEDS = {"id_consistency": "human", "object_consistency": "object", "background_consistency": "background"}
PAD = 0.25  # of a portrait's sides, in grey, where no face is found: detectors miss faces that fill a picture
GREY = 128


class Expert(NamedTuple):
    """A network that gives one metric or several; or the reason why it does not."""

    metrics: tuple[str, ...]
    made_by: str  # cards with their revisions
    ask: Ask | None
    reason: str = ""


def experts(chosen: Mapping[str, str], device: str) -> list[Expert]:
    """All that measure, and a skipped one for each metric that nobody measures.

    chosen: kind of DEFAULTS -> card, for those that differ. Raises KeyError for a card that nobody knows.
    """
    models = {**DEFAULTS, **chosen}
    made = [
        _built(("id_consistency",), ("faces",), models, device, identity),
        _built(
            ("object_consistency", "background_consistency"), ("ground", "masks", "pictures"), models, device, grounded
        ),
        _built(("aesthetic_quality",), ("aesthetic",), models, device, aesthetic),
        _built(("dynamic_degree", "motion_smoothness.by-flow"), ("flow",), models, device, moving),
    ]
    return [*made, *(Expert((metric,), "", None, why) for metric, why in ELSEWHERE.items())]


def _built(
    metrics: tuple[str, ...],
    kinds: tuple[str, ...],
    models: Mapping[str, str],
    device: str,
    builder: Callable[..., Ask],
) -> Expert:
    names = [models[kind] for kind in kinds]
    others = [cards.family(models[k]).name for k in kinds if models[k].partition(":")[0] not in ORIGINALS[k]]
    suffix = "".join(f".{name.partition(':')[0]}" for name in others)
    called = tuple(metric + suffix for metric in metrics)
    try:
        made_by = ", ".join(f"{name.partition(':')[0]}@{cards.revision(name)}" for name in names)
        ask = builder(*names, device)
    except (FileNotFoundError, ModuleNotFoundError, PermissionError) as error:
        return Expert(called, "", None, str(error))

    def renamed(case: Case, frames: np.ndarray, fps: float) -> Row:
        found = ask(case, frames, fps)
        return {name: found[metric] for name, metric in zip(called, metrics, strict=True)}

    return Expert(called, made_by, renamed)


def row(case: Case, frames: np.ndarray | None, fps: float, asked: Iterable[Expert]) -> Row:
    """Every metric of one video; frames (t, h, w, 3) uint8 RGB, None for a video that is not there."""
    found: Row = {}
    for expert in asked:
        if expert.ask is None:
            found |= {metric: Measured(skipped=expert.reason) for metric in expert.metrics}
        elif frames is None:
            found |= {metric: absent(case, metric) for metric in expert.metrics}
        else:
            found |= expert.ask(case, frames, fps)
    return found


def absent(case: Case, metric: str) -> Measured:
    """What is said of a video that is not there: nothing was found, unless the case would not have asked for it."""
    role = NEEDS.get(metric.partition(".")[0])
    return Measured(None, 0, 0) if role is None or case.of(role) else Measured(skipped=f"the case has no {role}")


def fill_in(table: dict[str, Row], gone: Iterable[Case]) -> None:
    """Let videos that are not there count in every metric that others have, also in those that were measured elsewhere."""
    known = {metric for row in table.values() for metric, found in row.items() if not found.skipped}
    for case in gone:
        row = table[case.id]
        row.update(
            {metric: absent(case, metric) for metric in sorted(known) if metric not in row or row[metric].skipped}
        )


def identity(name: str, device: str) -> Ask:
    """ID consistency: the faces of 32 frames, and the largest face of each picture of a person."""
    model = cards.load(name, device)
    known: dict[Path, np.ndarray | None] = {}

    def ask(case: Case, frames: np.ndarray, fps: float) -> Row:
        people = case.of("human")
        if not people:
            return {"id_consistency": Measured(skipped="the case has no human")}
        for element in people:
            if element.path not in known:
                known[element.path] = portrait(model, picture(element.path))
        references = [vector for element in people if (vector := known[element.path]) is not None]
        seen = [np.array([face.embedding for face in model(frames[n])]) for n in motion.spread_frames(len(frames))]
        return {"id_consistency": composition.identity(seen, np.array(references))}

    return ask


def portrait(model: Callable[[np.ndarray], list], shown: np.ndarray) -> np.ndarray | None:
    """The embedding of the largest face of a picture, if need be with grey around it; None where there is none."""
    height, width = (round(PAD * side) for side in shown.shape[:2])
    padded = np.pad(shown, ((height, height), (width, width), (0, 0)), constant_values=GREY)
    for attempt in (shown, padded):
        if faces := model(attempt):
            return max(faces, key=lambda face: (face.box[2] - face.box[0]) * (face.box[3] - face.box[1])).embedding
    return None


def aesthetic(name: str, device: str) -> Ask:
    """Aesthetic quality: the mean over all frames, a tenth of LAION's 0 to 10."""
    model = cards.load(name, device)

    def ask(case: Case, frames: np.ndarray, fps: float) -> Row:
        return {"aesthetic_quality": Measured(float(np.clip(model(frames, fps)["aesthetic"] / 10, 0, 1)))}

    return ask


def moving(name: str, device: str) -> Ask:
    """Dynamic degree; and how well every second frame follows from its neighbours by the flow, which is not VBench's measure."""
    fields = flow.fields(cards.card(name), device)

    def ask(case: Case, frames: np.ndarray, fps: float) -> Row:
        smooth = motion.smoothness_by_flow(fields, frames)
        short = "the video has fewer than three frames"
        return {
            "dynamic_degree": Measured(motion.dynamic_degree(fields, frames, fps)),
            "motion_smoothness.by-flow": Measured(skipped=short) if smooth is None else Measured(smooth),
        }

    return ask


def grounded(ground: str, masks: str, pictures: str, device: str) -> Ask:
    """Object and background consistency: what the labels name is found in 32 frames, cut out, and painted over."""
    find, cut, embed = (cards.load(name, device) for name in (ground, masks, pictures))
    known: dict[Path, np.ndarray] = {}

    def vector(element: Element) -> np.ndarray:
        if element.path not in known:
            known[element.path] = embed([picture(element.path)])[0]
        return known[element.path]

    def ask(case: Case, frames: np.ndarray, fps: float) -> Row:
        few = frames[motion.spread_frames(len(frames))]
        things, places = [e for e in case.of("object") if e.label], case.of("background")
        labels = list(dict.fromkeys([*(e.label for e in things), *(e.label or "person" for e in case.of("human"))]))
        found = [best(detections, labels) for detections in find(few, labels)]
        drawn = [
            dict(zip(boxes, cut(frame, np.array(list(boxes.values()))), strict=True))
            for frame, boxes in zip(few, found, strict=True)
        ]
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


def best(detections: list[Detection], labels: Iterable[str]) -> dict[str, tuple[float, float, float, float]]:
    """Label -> the box that fits it best, for those that were found."""
    boxes = {}
    for label in labels:
        mine = [d for d in detections if d.label == label]
        if mine:
            boxes[label] = max(mine, key=lambda d: d.score).box
    return boxes


def joined(each: list[Measured]) -> Measured:
    """Several things of one video as one: the mean over all frames in which one of them was found."""
    if not each:
        return Measured(skipped="the case has no object with a label")
    seen, of = sum(m.seen for m in each), sum(m.of for m in each)
    total = sum(m.value * m.seen for m in each if m.value is not None)
    return Measured(total / seen if seen else None, seen, of)


def given(lines: Iterable[str], where: str, cases: Iterable[Case]) -> dict[str, Row]:
    """Values measured elsewhere: case -> metric -> value, from JSON lines with case, metric, value and, perhaps, seen and of.

    In the units of `score.METRICS`: 0 to 1, and 100 times the cosine of text. Raises ValueError for a line that is none, or of a
    case that there is not.
    """
    known = {case.id for case in cases}
    out: dict[str, Row] = {}
    for number, line in enumerate(lines, 1):
        try:
            data: dict[str, Any] = json.loads(line)
            case, metric, value = data["case"], data["metric"], float(data["value"])
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{where}, line {number}: write case, metric and value as JSON ({error!r})") from error
        if case not in known or metric in out.get(case, {}):
            raise ValueError(f"{where}, line {number}: there is no case {case!r}, or it has {metric} twice")
        out.setdefault(case, {})[metric] = Measured(value, int(data.get("seen", 1)), int(data.get("of", 1)))
    return out
